"""Write synthetic noises of many kinds, as noise recordings for training.

    python examples/training-speech/make_noises.py FOLDER [--minutes 5] [--seed 0] [--kinds ...]

It writes FOLDER/KIND/0000.flac, 0001.flac, ... (48 kHz, mono, 16 bits, 4 to 15 s each). Every clip
draws its own parameters. The same seed gives the same clips, whichever kinds are chosen. No licence
applies to the files.
"""

import argparse
from pathlib import Path

import soundfile

from denoisecli.datasets.synthetic_noise import KINDS, SAMPLE_RATE, synthesize


def main() -> None:
    """Synthesize all clips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=5, help="Minutes of each kind.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    for kind in options.kinds:
        folder = options.folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        number, seconds = 0, 0.0
        while seconds < options.minutes * 60:
            sound = synthesize(kind, number, options.seed)
            soundfile.write(folder / f"{number:04}.flac", sound, SAMPLE_RATE, subtype="PCM_16")
            number, seconds = number + 1, seconds + sound.size / SAMPLE_RATE


if __name__ == "__main__":
    main()
