"""Measure what models do to sound that they should preserve, and to noise without speech.

    python -m benchmarks.preserved CLEAN [--whispers FOLDER] [--music FOLDER] [--model MODEL ...]

CLEAN is a folder of clean recordings of speech; whispers can be made of them by
`python examples/training-speech/make_whispers.py CLEAN FOLDER`. Every recording goes through the
model as it is. Levels are those of the parts that are at most 40 dB below the loudest one. Coloured
noise is generated at the rate of the recordings.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks import markdown
from denoisecli import Denoiser
from denoisecli.audio.files import find_audio, read_mono
from denoisecli.audio.level import dbfs, rms
from denoisecli.evaluation.metrics import pesq_wb, si_sdr
from denoisecli.types import AudioVector

SECONDS = 20.0  # of generated sound
PART_SECONDS = 0.016
ACTIVE_DB = -40.0
NOISE_RMS = 0.05


def active_levels(before: AudioVector, after: AudioVector, rate: int) -> tuple[float, float]:
    """Return by how much a sound changes where it is active, in dB: in all, and part by part."""
    size = round(PART_SECONDS * rate)
    powers = [
        np.square(sound[: sound.size // size * size].reshape(-1, size)).mean(axis=1) + 1e-12
        for sound in (before, after)
    ]
    active = powers[0] > powers[0].max() * 10 ** (ACTIVE_DB / 10)
    first, second = (power[active] for power in powers)
    return (
        float(10 * np.log10(second.sum() / first.sum())),
        float(np.mean(10 * np.log10(second / first))),
    )


def coloured(exponent: float, rate: int) -> AudioVector:
    """Return noise from 1 Hz on whose power falls with a power of the frequency."""
    length = round(SECONDS * rate)
    rng = np.random.default_rng(0)
    hertz = np.maximum(np.fft.rfftfreq(length, 1 / rate), 1)
    sound = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * hertz ** (-exponent / 2))
    return (NOISE_RMS * sound / rms(sound)).astype(np.float32)


def sounds(paths: list[Path]) -> list[tuple[str, AudioVector, int]]:
    """Read recordings: their names, mono sound and sample rates."""
    return [(path.stem, *read_mono(path)) for path in paths]


def rows(model: str, options: argparse.Namespace) -> list[list[str]]:
    """Return what one model does to each kind of sound: kind, what is measured, the figure."""
    denoiser = Denoiser(model)
    found = []
    for kind, folder in (("clean speech", options.clean), ("whispers", options.whispers)):
        if folder is None:
            continue
        changes, ratings = [], []
        for _, sound, rate in sounds(find_audio(folder)):
            cleaned = denoiser.clean(sound, rate)
            changes.append(active_levels(sound, cleaned, rate))
            if kind == "clean speech":
                ratings.append(pesq_wb(sound, cleaned, rate))
        in_all, by_part = np.mean(changes, axis=0)
        if ratings:
            found.append(
                [kind, "PESQ-WB, mean and least", f"{np.mean(ratings):.2f}, {min(ratings):.2f}"]
            )
        found.append([kind, "level, mean of parts, dB", f"{in_all:+.1f}, {by_part:+.1f}"])
    for name, sound, rate in sounds(find_audio(options.music)) if options.music else []:
        cleaned = denoiser.clean(sound, rate)
        change, _ = active_levels(sound, cleaned, rate)
        found.append(
            [
                f"music, {name}",
                "SI-SDR, level, dB",
                f"{si_sdr(sound, cleaned, rate):.1f}, {change:+.1f}",
            ]
        )
    rate = sounds(find_audio(options.clean)[:1])[0][2]
    for kind, sound in (("1/f noise", coloured(1, rate)), ("1/f² noise", coloured(2, rate))):
        change = dbfs(rms(denoiser.clean(sound, rate))) - dbfs(rms(sound))
        found.append([kind, "level, dB", f"{change:+.1f}"])
    silence = np.zeros(round(SECONDS * rate), np.float32)
    loudest = np.abs(denoiser.clean(silence, rate)).max()
    found.append(["digital silence", "largest sample", f"{loudest:g}"])
    return found


def main() -> None:
    """Measure, and print a table with a column for each model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preserved", description=__doc__)
    parser.add_argument("clean", type=Path)
    parser.add_argument("--whispers", type=Path)
    parser.add_argument("--music", type=Path)
    parser.add_argument("--model", nargs="+", default=["speech"])
    options = parser.parse_args()
    tables = [rows(model, options) for model in options.model]
    merged = [[*same[0][:2], *(row[2] for row in same)] for same in zip(*tables, strict=True)]
    print(markdown.table(["sound", "measured", *options.model], merged, texts=2))


if __name__ == "__main__":
    main()
