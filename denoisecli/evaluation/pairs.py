"""What is evaluated on: noisy recordings whose clean sound is known."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from denoisecli.audio.files import find_audio, write
from denoisecli.errors import UsageError

_LISTED = 10  # names in an error message


@dataclass(frozen=True)
class Pair:
    """A noisy recording and its clean sound.

    Attributes:
        name: what it is called in the results; unique.
        clean: the clean file.
        noisy: the noisy file.
        noise: kind of noise, if known, to group by.
        snr_db: SNR of the noisy file in dB, if known; it is measured otherwise.
    """

    name: str
    clean: Path
    noisy: Path
    noise: str | None = None
    snr_db: float | None = None


def pairs(clean_dir: Path | str, noisy_dir: Path | str) -> list[Pair]:
    """Match the recordings of two folders by name: relative path without suffix.

    Raises:
        UsageError: a folder is missing, empty, or has two recordings of one name; or a recording
            in one folder has no counterpart in the other.
    """
    clean_dir, noisy_dir = Path(clean_dir), Path(noisy_dir)
    clean, noisy = recordings(clean_dir), recordings(noisy_dir)
    for folder, alone in ((clean_dir, clean.keys() - noisy), (noisy_dir, noisy.keys() - clean)):
        if alone:
            raise UsageError(
                f"{folder} has recordings without a counterpart of the same name in the other "
                f"folder: {listed(sorted(alone))}"
            )
    return [Pair(name, path, noisy[name]) for name, path in clean.items()]


@contextmanager
def stored_pairs(dataset: Path | str) -> Iterator[list[Pair]]:
    """Give the test set that ``build-dataset`` stored, as files that last as long as the block.

    The files are WAVs of floating-point samples, so that nothing is rounded. SNR and noise are
    those in the manifest; the kind of noise is the folder that its file (of several, the first and
    loudest one's) lay in.

    Args:
        dataset: the folder of ``dataset.json``.

    Raises:
        DatasetError: it holds no dataset, a damaged one, or one of spectrograms.
    """
    from denoisecli.datasets.manifest import load_manifest
    from denoisecli.datasets.stored import load_pairs  # imports TensorFlow

    manifest = load_manifest(Path(dataset))
    stored = load_pairs(Path(dataset), "test")
    rows = [row for row in manifest["mixes"] if row["set"] == "test"]
    rate = manifest["recipe"]["sample_rate"]
    found = []
    with TemporaryDirectory(prefix="denoise-") as temporary:
        sounds = stored.as_numpy_iterator()
        for number, (row, (noisy, clean)) in enumerate(zip(rows, sounds, strict=True), 1):
            kind = Path(row["noise"]).parent.as_posix()
            pair = Pair(
                # Several mixes may be of one recording: the number tells them apart.
                name=f"{number:0{len(str(len(rows)))}d}_{Path(row['clean']).stem}",
                clean=Path(temporary, "clean", f"{number}.wav"),
                noisy=Path(temporary, "noisy", f"{number}.wav"),
                noise=None if kind == "." else kind,
                snr_db=row.get("target_snr_db", row["snr_db"]),
            )
            write(pair.clean, clean, rate, subtype="FLOAT")
            write(pair.noisy, noisy, rate, subtype="FLOAT")
            found.append(pair)
        yield found


def recordings(folder: Path) -> dict[str, Path]:
    """Find the audio files in a folder by name: relative path without suffix, with slashes.

    Raises:
        UsageError: no folder, no audio files, or two of the same name.
    """
    found: dict[str, Path] = {}
    for path in find_audio(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise UsageError(f"{folder} has two recordings of one name: {found[name]} and {path}")
        found[name] = path
    return found


def listed(names: list[str]) -> str:
    """Give names for a message, the first of them if there are many."""
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
