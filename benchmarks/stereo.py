"""What --link-channels does to a stereo recording: the place of a voice, and two speakers.

    python -m benchmarks.stereo valid48/clean valid48/noisy --model speech

The voice is 6 dB quieter on the right, and the noise is equally loud on both sides: on the right it
is shifted by a second. Levels are those of pieces of 50 ms with speech.
"""

import argparse
from pathlib import Path

import numpy as np

from denoisecli import Denoiser
from denoisecli.audio.files import read_mono
from denoisecli.audio.level import dbfs, rms, snr_db
from denoisecli.evaluation.metrics import si_sdr

SECONDS, PIECE_SECONDS, RIGHT = 6, 0.05, 0.5


def place_of_voice(
    clean: np.ndarray, noisy: np.ndarray, rate: int, denoiser: Denoiser
) -> list[float]:
    """Return the SNR in dB, and mean, deviation and maximum of the level left above right in dB."""
    noise, piece = noisy - clean, round(PIECE_SECONDS * rate)
    voice = np.stack([clean, RIGHT * clean])
    result = denoiser.clean(voice + np.stack([noise, np.roll(noise, rate)]), rate)
    starts = range(0, clean.size - piece, piece)
    parts = [
        dbfs(rms(result[0, start : start + piece])) - dbfs(rms(result[1, start : start + piece]))
        for start in starts
        if dbfs(rms(clean[start : start + piece])) > dbfs(rms(clean)) - 10
    ]
    return [snr_db(result.ravel(), voice.ravel()), np.mean(parts), np.std(parts), np.max(parts)]


def main() -> None:
    """Compare both ways on all pairs of two folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clean", type=Path)
    parser.add_argument("noisy", type=Path)
    parser.add_argument("--model", default="speech")
    options = parser.parse_args()
    pairs = []
    for path in sorted(options.clean.iterdir()):
        clean, rate = read_mono(path)
        noisy, _ = read_mono(options.noisy / path.name)
        pairs.append((clean[: SECONDS * rate], noisy[: SECONDS * rate], rate))
    for link in (False, True):
        denoiser = Denoiser(options.model, link_channels=link)
        found = np.array([place_of_voice(*pair, denoiser) for pair in pairs])
        snr, mean, deviation, _ = found.mean(axis=0)
        two = []
        for (left, noisy_left, rate), (right, noisy_right, _) in zip(
            pairs[::2], pairs[1::2], strict=True
        ):
            size = min(left.size, right.size)
            result = denoiser.clean(np.stack([noisy_left[:size], noisy_right[:size]]), rate)
            two += [si_sdr(left[:size], result[0], rate), si_sdr(right[:size], result[1], rate)]
        print(
            f"{'linked' if link else 'separate'}: SNR {snr:.1f} dB; left above right {mean:.1f} ± "
            f"{deviation:.1f} dB, at most {found[:, 3].max():.0f} dB; two speakers: SI-SDR "
            f"{np.mean(two):.1f} dB"
        )


if __name__ == "__main__":
    main()
