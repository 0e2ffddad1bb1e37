"""Pairs to evaluate on: noisy recordings whose clean sound is known."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from denoisecli.audio.files import find_audio, write
from denoisecli.errors import UsageError
from denoisecli.system.extras import require

_MAX_LISTED = 10  # names in an error message


@dataclass(frozen=True)
class Pair:
    """A noisy recording and its clean sound.

    Attributes:
        name: Name in the results; unique among the pairs of an evaluation.
        clean: Path of the clean file.
        noisy: Path of the noisy file.
        noise: Kind of noise, or None if it is unknown.
        snr_db: SNR of the noisy file in dB, or None to measure it.
    """

    name: str
    clean: Path
    noisy: Path
    noise: str | None = None
    snr_db: float | None = None


def folder_pairs(clean: Path | str, noisy: Path | str) -> list[Pair]:
    """Match the recordings of two folders by name, the relative path without suffix.

    Args:
        clean: Folder of clean recordings.
        noisy: Folder of noisy recordings.

    Raises:
        UsageError: A folder is missing, is empty or has two recordings of the same name, or a
            recording in one folder has no counterpart in the other.
    """
    clean, noisy = Path(clean), Path(noisy)
    clean_files, noisy_files = find_recordings(clean), find_recordings(noisy)
    for folder, unmatched in (
        (clean, clean_files.keys() - noisy_files),
        (noisy, noisy_files.keys() - clean_files),
    ):
        if unmatched:
            raise UsageError(
                f"{folder} has recordings without a counterpart of the same name in the other "
                f"folder: {join_names(sorted(unmatched))}"
            )
    return [Pair(name, path, noisy_files[name]) for name, path in clean_files.items()]


@contextmanager
def stored_pairs(dataset: Path | str) -> Iterator[list[Pair]]:
    """Extract the test set of a dataset into temporary files, which exist inside the block.

    The files are WAVs of floating-point samples, so that nothing is rounded. The SNR and the kind
    of noise are taken from the manifest; the kind of noise is the folder of the noise file (of the
    first and loudest one, if there are several).

    Args:
        dataset: Folder that ``build-dataset`` wrote.

    Raises:
        UsageError: TensorFlow is not installed.
        DatasetError: The folder is not a dataset, is damaged, or stores spectrograms.
    """
    require("train", "tensorflow", purpose="evaluating on a dataset")
    from denoisecli.datasets.manifest import load_manifest
    from denoisecli.datasets.stored import load_pairs  # imports TensorFlow

    manifest = load_manifest(Path(dataset))
    stored = load_pairs(Path(dataset), "test")
    rows = manifest.rows("test")
    rate = manifest.recipe.sample_rate
    digits = len(str(len(rows)))
    pairs = []
    with TemporaryDirectory(prefix="denoise-") as temporary:
        elements = stored.as_numpy_iterator()
        for number, (row, (noisy, clean)) in enumerate(zip(rows, elements, strict=True), 1):
            kind = Path(row.noise).parent.as_posix()
            pair = Pair(
                # The number makes names unique: several mixtures may share a clean recording.
                name=f"{number:0{digits}d}_{Path(row.clean).stem}",
                clean=Path(temporary, "clean", f"{number}.wav"),
                noisy=Path(temporary, "noisy", f"{number}.wav"),
                noise=None if kind == "." else kind,
                snr_db=row.pair_snr_db,
            )
            write(pair.clean, clean, rate, subtype="FLOAT")
            write(pair.noisy, noisy, rate, subtype="FLOAT")
            pairs.append(pair)
        yield pairs


def find_recordings(folder: Path) -> dict[str, Path]:
    """Find the audio files in a folder.

    Returns:
        Paths by name; a name is the relative path without suffix, with forward slashes.

    Raises:
        UsageError: The folder is missing, has no audio files, or has two of the same name.
    """
    recordings: dict[str, Path] = {}
    for path in find_audio(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in recordings:
            raise UsageError(
                f"{folder} has two recordings of the same name: {recordings[name]} and {path}"
            )
        recordings[name] = path
    return recordings


def join_names(names: list[str]) -> str:
    """Join names for a message; only the first ones if there are many."""
    shown = ", ".join(names[:_MAX_LISTED])
    more = len(names) - _MAX_LISTED
    return shown if more <= 0 else f"{shown} and {more} more"
