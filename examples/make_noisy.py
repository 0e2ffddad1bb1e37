"""Write examples/noisy.wav: speech of the synthesizer espeak-ng in the noise of a busy road.

    python examples/make_noisy.py

It needs the program espeak-ng. The noise is synthesized as well, so no licence applies to the file.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import scipy.signal

from denoisecli.audio import files as audio
from denoisecli.audio import level

TEXT = (
    "This recording was made beside a busy road, with the window open. "
    "In a moment you will hear the same words again, and the noise will be gone."
)
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
    return rumble + 0.5 * hiss + 0.5 * engine + fan


def main() -> None:
    """Write noisy.wav beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        speech = Path(folder) / "speech.wav"
        subprocess.run(["espeak-ng", "-v", "en-gb", "-s", "150", "-w", speech, TEXT], check=True)
        clean, sample_rate = audio.read_mono(speech)
    clean = np.pad(clean, (sample_rate // 2, sample_rate // 2))
    noise = road_noise(clean.size, sample_rate, np.random.default_rng(7))
    noise *= level.rms(clean) / np.sqrt(np.mean(noise**2)) * 10 ** (-SNR_DB / 20)
    noisy = clean + noise
    noisy *= 0.7 / np.abs(noisy).max()
    target = Path(__file__).parent / "noisy.wav"
    audio.write(target, noisy.astype(np.float32), sample_rate, subtype="PCM_16", overwrite=True)


if __name__ == "__main__":
    main()
