"""Measure what models do above 8 kHz, where PESQ, ESTOI and DNSMOS hear nothing.

    python -m benchmarks.high_band CLEAN NOISY [--model MODEL ...] [--estimate NAME=FOLDER ...]

CLEAN and NOISY are folders of recordings at 44.1 kHz or more with the same names. All powers are
means over a band of an STFT of 32 ms with a hop of 16 ms, and levels are relative to the speech:
that of the clean recording, where it is at most 40 dB below its loudest frame, is -26 dBFS. These
frames are the speech; the pauses are those that are more than 80 ms away from any of them.

SI-SDR: of what lies above 8 kHz. LSD: root mean square of the differences of the two spectra in dB,
down to the power of white noise at -70 dBFS, mean over the speech. Noise in pauses, and during
speech: level of the estimate in relation to the noisy recording, in the pauses, and in the frames
of the speech in which the clean recording has nothing in the band (10 dB less than the mean of the
noise). Consonants: median level of the estimate in relation to the clean recording where that is at
most 20 dB below its loudest frames and 5 dB above the noise. All but the SI-SDR are of 8 to 12 kHz.
"""

import argparse
import math
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.signal import butter, sosfiltfilt

from benchmarks import markdown
from denoisecli import Denoiser
from denoisecli.audio.files import read_mono
from denoisecli.audio.resampling import fit_length
from denoisecli.audio.stft import stft
from denoisecli.evaluation.metrics import si_sdr
from denoisecli.evaluation.pairs import folder_pairs
from denoisecli.types import AudioVector

BAND_HZ = (8000.0, 12000.0)
SPEECH_HZ = (100.0, 8000.0)
SPEECH_DB = -26.0
FLOOR_DB = -70.0
"""Level of white noise with the power of a bin, below which levels count as this."""

LEAST_NOISE_DB = -75.0
"""Level of the noise in the band below which its reduction is not measured."""

LEAST_FRAMES = 5
COLUMNS = ("SI-SDR, dB", "LSD, dB", "pauses, dB", "during speech, dB", "consonants, dB")


def figures(
    clean: AudioVector, noisy: AudioVector, estimate: AudioVector, rate: int
) -> dict[str, float]:
    """Return the figures of one recording; NaN where it has too few frames of a kind."""
    n_fft = 2 * round(0.016 * rate)
    transform = partial(stft, n_fft=n_fft, hop_length=n_fft // 2, window="hann")
    hertz = np.arange(n_fft // 2 + 1) * rate / n_fft
    powers = [
        np.square(np.abs(transform(sound))) for sound in (clean, noisy, estimate, noisy - clean)
    ]
    voice = _band(powers[0], hertz, SPEECH_HZ)
    speech = voice > 1e-4 * voice.max()
    pauses = ~binary_dilation(speech, iterations=5)
    # The power in every bin of white noise at 0 dBFS.
    window_power = 0.375 * n_fft
    scale = 10 ** (SPEECH_DB / 10) / (
        2 * powers[0][:, speech].sum(axis=0).mean() / n_fft / window_power
    )
    in_band = (hertz >= BAND_HZ[0]) & (hertz < BAND_HZ[1])
    parts = [scale / window_power * power[in_band] for power in powers]
    differences = _decibels(parts[0][:, speech]) - _decibels(parts[2][:, speech])
    target, mixture, result, noise = (part.mean(axis=0) for part in parts)
    between = speech & (target < noise.mean() / 10)
    loud = speech & (target > np.percentile(target, 98) / 100) & (target > 3 * noise)
    high_pass = butter(10, BAND_HZ[0], "highpass", fs=rate, output="sos")
    high = [sosfiltfilt(high_pass, sound).astype(np.float32) for sound in (clean, estimate)]
    consonants = math.nan
    if np.count_nonzero(loud) >= LEAST_FRAMES:
        consonants = float(np.median(10 * np.log10(result[loud] / target[loud])))
    return {
        "SI-SDR, dB": si_sdr(*high, rate),
        "LSD, dB": float(np.sqrt(np.square(differences).mean(axis=0)).mean()),
        "pauses, dB": _change(mixture[pauses], result[pauses]),
        "during speech, dB": _change(mixture[between], result[between]),
        "consonants, dB": consonants,
    }


def _band(power: np.ndarray, hertz: np.ndarray, edges: tuple[float, float]) -> np.ndarray:
    return power[(hertz > edges[0]) & (hertz < edges[1])].sum(axis=0)


def _decibels(power: np.ndarray) -> np.ndarray:
    return np.maximum(10 * np.log10(np.maximum(power, 1e-20)), FLOOR_DB)


def _change(before: np.ndarray, after: np.ndarray) -> float:
    """Return the change of the mean power in dB, -60 or more."""
    if before.size < LEAST_FRAMES or before.mean() < 10 ** (LEAST_NOISE_DB / 10):
        return math.nan
    return max(-60.0, float(10 * np.log10(max(after.mean(), 1e-20) / before.mean())))


def main() -> None:
    """Measure, and print a table with a row for each model and folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.high_band", description=__doc__)
    parser.add_argument("clean", type=Path)
    parser.add_argument("noisy", type=Path)
    parser.add_argument("--model", nargs="*", default=["speech"])
    parser.add_argument("--estimate", nargs="*", default=[], metavar="NAME=FOLDER")
    options = parser.parse_args()
    folders = dict(each.split("=", 1) for each in options.estimate)
    denoisers = {model: Denoiser(model) for model in options.model}
    found: dict[str, list[dict[str, float]]] = {}
    for pair in folder_pairs(options.clean, options.noisy):
        (clean, rate), (noisy, _) = read_mono(pair.clean), read_mono(pair.noisy)
        estimates = {"input unchanged": noisy}
        for model, denoiser in denoisers.items():
            estimates[model] = denoiser.clean(noisy, rate)
        for name, folder in folders.items():
            (path,) = Path(folder).glob(f"{pair.name}.*")
            estimates[name] = read_mono(path, rate)[0]
        for name, estimate in estimates.items():
            sounds = (fit_length(sound, clean.size) for sound in (clean, noisy, estimate))
            found.setdefault(name, []).append(figures(*sounds, rate))
    rows = [
        [name, *(f"{np.nanmean([each[column] for each in every]):.2f}" for column in COLUMNS)]
        for name, every in found.items()
    ]
    print(markdown.table(["8 to 12 kHz", *COLUMNS], rows))


if __name__ == "__main__":
    main()
