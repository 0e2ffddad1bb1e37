"""Turn speech into whispers, as clean recordings for training.

    python examples/training-speech/make_whispers.py SPEECH FOLDER [--minutes 15] [--seed 0]

It draws recordings from SPEECH and writes FOLDER/NAME.flac at their own rates (mono, 24 bits). In
each frame, white noise takes the place of the voice: it is shaped by the spectral envelope of the
frame from linear prediction. As in real whispers, vowels lose level and energy below 1 kHz and the
first formant rises, while consonants change little. The same seed gives the same whispers. The
licence of the recordings applies to the whispers, too.
"""

import argparse
from pathlib import Path

import numpy as np
import scipy.signal

from denoisecli.audio import files
from denoisecli.types import AudioVector

FRAME = 0.032
"""Length of a frame in s; frames overlap by three quarters."""

VOICE = (60.0, 400.0)
"""Limits of the fundamental frequency in Hz."""


def voicing(power: np.ndarray, frequency: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return how far frames are voiced, from 0 to 1, shape (frames, 1).

    Args:
        power: Power spectra, shape (frames, bins).
        frequency: Frequencies of the bins in Hz.
        sample_rate: Sample rate in Hz.
    """
    autocorrelation = np.fft.irfft(power * (frequency < 1500))
    shortest, longest = int(sample_rate / VOICE[1]), int(sample_rate / VOICE[0])
    peak = np.max(autocorrelation[:, shortest : min(longest, power.shape[1])], axis=1)
    share = peak / np.maximum(autocorrelation[:, 0], 1e-20)
    return 1 / (1 + np.exp(-(share[:, None] - 0.4) / 0.06))


def whisper(speech: AudioVector, sample_rate: int, rng: np.random.Generator) -> AudioVector:
    """Turn speech into a whisper that is 10 to 25 dB softer.

    Args:
        speech: Clean speech.
        sample_rate: Sample rate in Hz.
        rng: Random numbers, for the noise and the way of whispering.

    Returns:
        The whisper, as long as the speech.
    """
    size = 2 * round(FRAME * sample_rate / 2)
    options = {"fs": sample_rate, "nperseg": size, "noverlap": size - size // 4, "axis": 0}
    frequency, _, spectrum = scipy.signal.stft(speech.astype(np.float64), **options)
    power = np.abs(spectrum.T) ** 2
    floor = np.percentile(power, 5, axis=0)  # of the recording: its background must not remain
    voiced = voicing(power, frequency, sample_rate)
    power = np.maximum(power - 4 * floor, 1e-6 * power)

    order = 2 + 2 * round(sample_rate / 2000)
    autocorrelation = np.fft.irfft(power)[:, : order + 1]
    lags = np.arange(order + 1) / sample_rate
    autocorrelation *= np.exp(-0.5 * (2 * np.pi * 60 * lags) ** 2)  # widens peaks by 60 Hz
    autocorrelation[:, 0] = autocorrelation[:, 0] * (1 + 1e-8) + 1e-20
    filters = np.array(
        [[1, *scipy.linalg.solve_toeplitz(row[:-1], -row[1:])] for row in autocorrelation]
    )
    error = np.sum(filters * autocorrelation, axis=1)
    envelope = np.sqrt(error[:, None]) / np.abs(np.fft.rfft(filters, size, axis=1))

    # formants up to 2 kHz rise, the lowest ones most
    shift = rng.uniform(0.05, 0.25) * np.clip(1 - frequency / 2000, 0, 1)
    source = frequency / (1 + shift) / frequency[1]
    low = np.minimum(source.astype(int), frequency.size - 2)
    envelope = envelope[:, low] + (source - low) * (envelope[:, low + 1] - envelope[:, low])

    corner, depth = rng.uniform(600, 1200), rng.uniform(6, 18)
    shelf = -depth / (1 + (frequency / corner) ** 4)
    rise = rng.uniform(0, 3) * np.log2(np.clip(frequency, corner, 8000) / corner)
    loss = -rng.uniform(6, 16)
    envelope *= 10 ** ((voiced * (shelf + rise + loss)) / 20)

    noise = rng.standard_normal(speech.size)
    _, _, spectrum = scipy.signal.stft(noise, **options)
    _, sound = scipy.signal.istft(
        spectrum * envelope.T, fs=sample_rate, nperseg=size, noverlap=size - size // 4
    )
    sound = sound[: speech.size]
    highpass = scipy.signal.butter(2, 80, "highpass", fs=sample_rate, output="sos")
    sound = scipy.signal.sosfilt(highpass, sound)
    level = 10 ** (-rng.uniform(10, 25) / 20) * np.sqrt(np.mean(speech**2))
    sound *= level / max(float(np.sqrt(np.mean(sound**2))), 1e-9)
    return np.clip(sound, -1, 1).astype(speech.dtype)


def file_name(path: Path, folder: Path) -> str:
    """Return the name of a whispered recording, with its folders, so that no two are the same."""
    return path.relative_to(folder).with_suffix("").as_posix().replace("/", "-") + ".flac"


def main() -> None:
    """Whisper recordings drawn at random until there is enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("speech", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    paths = files.find_audio(options.speech)
    rng = np.random.default_rng(options.seed)
    seconds = 0.0
    for number in rng.permutation(len(paths)):
        if seconds >= options.minutes * 60:
            break
        speech, sample_rate = files.read_mono(paths[number])
        if speech.size < sample_rate / 2:
            continue
        sound = whisper(speech, sample_rate, np.random.default_rng([options.seed, int(number)]))
        files.write(
            options.folder / file_name(paths[number], options.speech),
            sound,
            sample_rate,
            subtype="PCM_24",
            overwrite=True,
        )
        seconds += speech.size / sample_rate


if __name__ == "__main__":
    main()
