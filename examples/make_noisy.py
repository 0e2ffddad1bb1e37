"""Write examples/noisy.wav: a voice at 48 kHz in the noise of a busy road.

    python examples/make_noisy.py

The voice is one of those that come with the package (CC0), and the noise is synthesized, so that no
licence applies to the file.
"""

from pathlib import Path

import numpy as np
import scipy.signal

from denoisecli.adaptation.material import voices
from denoisecli.audio import files as audio
from denoisecli.audio import level

VOICE, FIRST_SECOND, SECONDS = "nathalie", 67.2, 9.4
SNR_DB = 4.0


def road_noise(timesteps: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Synthesize rumble, tyre hiss and engines of passing cars, and a steady fan."""
    time = np.arange(timesteps) / sample_rate
    frequency = np.fft.rfftfreq(timesteps, 1 / sample_rate)

    def coloured(slope: float, low: float) -> np.ndarray:
        spectrum = np.fft.rfft(rng.normal(size=timesteps))
        shape = np.maximum(frequency, low) ** -slope
        sound = np.fft.irfft(spectrum * shape, timesteps)
        return sound / np.std(sound)

    passing = np.zeros(timesteps)
    for centre in (1.2, 4.1, 7.0):
        passing += np.exp(-0.5 * ((time - centre) / 0.9) ** 2)
    rumble = coloured(1.0, 40) * (0.4 + passing)
    hiss = coloured(0.4, 600) * (0.15 + 0.6 * passing)
    phase = 2 * np.pi * np.cumsum(70 + 15 * passing) / sample_rate
    engine = sum(np.sin(k * phase + k) / k for k in range(1, 9)) * (0.2 + passing)
    fan = scipy.signal.sawtooth(2 * np.pi * 118 * time) * 0.15
    return rumble + 0.8 * hiss + 0.5 * engine + fan


def main() -> None:
    """Write noisy.wav beside this file."""
    path = next(path for path in voices() if path.stem == VOICE)
    clean, sample_rate = audio.read_mono(path)
    first = round(FIRST_SECOND * sample_rate)
    clean = clean[first : first + round(SECONDS * sample_rate)]
    clean = np.pad(clean, (sample_rate // 2, sample_rate // 2))
    noise = road_noise(clean.size, sample_rate, np.random.default_rng(7))
    noise *= level.rms(clean) / np.sqrt(np.mean(noise**2)) * 10 ** (-SNR_DB / 20)
    noisy = clean + noise
    noisy *= 0.7 / np.abs(noisy).max()
    target = Path(__file__).parent / "noisy.wav"
    audio.write(target, noisy.astype(np.float32), sample_rate, subtype="PCM_16", overwrite=True)


if __name__ == "__main__":
    main()
