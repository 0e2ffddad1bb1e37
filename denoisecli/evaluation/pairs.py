"""Pairs to evaluate on: noisy recordings, whose clean sound is known or not."""

import csv
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from denoisecli.audio.files import find_audio, walk_files, write
from denoisecli.audio.formats import SUFFIXES
from denoisecli.datasets.manifest import load_manifest
from denoisecli.datasets.records import open_records
from denoisecli.errors import UsageError, join_names
from denoisecli.system.atomic_files import temporary_folder


@dataclass(frozen=True)
class Pair:
    """A noisy recording and its clean sound, if there is one.

    Attributes:
        name: Name in the results; unique among the pairs of an evaluation.
        clean: Path of the clean file; None for a real recording, whose clean sound is unknown.
        noisy: Path of the noisy file.
        noise: Kind of noise, or None if it is unknown.
        snr_db: SNR of the noisy file in dB, or None to measure it.
        sources: Names of the clean recordings that the clean file is made of, if they are known.
    """

    name: str
    clean: Path | None
    noisy: Path
    noise: str | None = None
    snr_db: float | None = None
    sources: tuple[str, ...] = ()

    @property
    def reference(self) -> Path:
        """The clean file, or the noisy one if there is none."""
        return self.clean or self.noisy


def folder_pairs(clean: Path | str, noisy: Path | str, match: str | None = None) -> list[Pair]:
    """Match the recordings of two folders by name, the relative path without suffix.

    Args:
        clean: Folder of clean recordings.
        noisy: Folder of noisy recordings, after which the pairs are named.
        match: Regular expression with one group, such as ``fileid_([0-9]+)``, searched for in
            each name. Recordings whose groups are equal belong together; a clean recording may
            belong to several noisy ones. By default the whole names are compared.

    Raises:
        UsageError: A folder is missing, is empty or has two recordings of the same name, or a
            recording in one folder has no counterpart in the other, or two clean recordings have
            the same group, or the regular expression is not valid or not found in a name.
    """
    clean, noisy = Path(clean), Path(noisy)
    clean_keys, noisy_keys = (_keys(folder, match) for folder in (clean, noisy))
    clean_names: dict[str, str] = {}
    for name, (key, _) in clean_keys.items():
        if key in clean_names:
            raise UsageError(
                f"{clean} has two recordings for {key!r}: {clean_names[key]} and {name}; "
                "--match must tell them apart"
            )
        clean_names[key] = name
    used = {key for key, _ in noisy_keys.values()}
    for folder, unmatched in (
        (clean, [name for key, name in clean_names.items() if key not in used]),
        (noisy, [name for name, (key, _) in noisy_keys.items() if key not in clean_names]),
    ):
        if unmatched:
            hint = "; --match or --pairs matches other names" if match is None else ""
            raise UsageError(
                f"{folder} has recordings without a counterpart of the same name in the other "
                f"folder: {join_names(sorted(unmatched))}{hint}"
            )
    return [
        Pair(name, clean_keys[clean_names[key]][1], path)
        for name, (key, path) in noisy_keys.items()
    ]


def _keys(folder: Path, match: str | None) -> dict[str, tuple[str, Path]]:
    """Return what recordings are matched by, and their paths, by name."""
    recordings = find_recordings(folder)
    if match is None:
        return {name: (name, path) for name, path in recordings.items()}
    try:
        pattern = re.compile(normalize_name(match))
    except re.error as error:
        raise UsageError(f"--match {match!r} is not a regular expression: {error}") from error
    if pattern.groups != 1:
        raise UsageError(
            f"--match {match!r} must have one group in parentheses, not {pattern.groups}"
        )
    found = {name: pattern.search(name) for name in recordings}
    missing = [name for name, result in found.items() if result is None or result[1] is None]
    if missing:
        raise UsageError(
            f"--match {match!r} is not in these names of {folder}: {join_names(missing)}"
        )
    return {name: (result[1], recordings[name]) for name, result in found.items() if result}


def real_recordings(folder: Path | str) -> list[Pair]:
    """Return the recordings of a folder, whose clean sound is unknown, as pairs without it.

    Raises:
        UsageError: The folder is missing, is empty or has two recordings of the same name.
    """
    recordings = find_recordings(Path(folder))
    return [Pair(name, None, path) for name, path in recordings.items()]


def listed_pairs(source: Path | str) -> list[Pair]:
    """Read pairs from a CSV file.

    Args:
        source: File with the headings "clean" and "noisy", paths relative to its folder, and
            optionally "name" (default: the noisy path without suffix), "noise" and "snr_db".

    Raises:
        UsageError: The file cannot be read, lacks a heading, has no rows, names a file that does
            not exist, has an SNR that is not a number, or a name that leads out of a folder.
    """
    source = Path(source)
    pairs = []
    for line, row in read_table(source, "clean", "noisy", content="pairs"):
        clean, noisy = (source.parent / row[column] for column in ("clean", "noisy"))
        for path, column in ((clean, "clean"), (noisy, "noisy")):
            if not path.is_file():
                raise UsageError(f"{source}, line {line}: there is no {column} file {path}")
        try:
            snr_db = float(row["snr_db"].replace(",", ".")) if row.get("snr_db") else None
        except ValueError:
            raise UsageError(
                f"{source}, line {line}: the SNR {row['snr_db']!r} is not a number"
            ) from None
        name = row.get("name") or _default_name(row["noisy"])
        if not Path(name).parts or Path(name).is_absolute() or ".." in Path(name).parts:
            raise UsageError(f"{source}, line {line}: the name {name!r} is no name below a folder")
        pairs.append(Pair(normalize_name(name), clean, noisy, row.get("noise") or None, snr_db))
    return pairs


def _default_name(noisy: str) -> str:
    """Return the path of a noisy file without suffix, root and "..": a name below a folder."""
    path = Path(noisy).with_suffix("")
    return "/".join(part for part in path.parts if part not in (path.anchor, ".."))


def read_table(source: Path, *headings: str, content: str) -> list[tuple[int, dict[str, str]]]:
    """Read a file of values separated by commas, semicolons or tabs; what a line lacks is empty.

    Args:
        source: The file.
        headings: Headings that it must have, in any order; there may be more.
        content: What it holds, for the error message.

    Returns:
        The number of the last line of each row, and its values by heading.

    Raises:
        UsageError: The file cannot be read, lacks a heading or has no rows.
    """
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            # As spreadsheets write them where the comma is the decimal point, and copies of tables.
            delimiter = "," if "," in head else next(filter(head.__contains__, ";\t"), ",")
            reader = csv.DictReader(file, restval="", delimiter=delimiter)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read the {content} in {source}: {error}") from error
    if not rows or not {*headings} <= rows[0][1].keys():
        raise UsageError(f"{source} must have the headings {' and '.join(headings)}, and rows")
    return rows


@contextmanager
def stored_pairs(dataset: Path | str) -> Iterator[list[Pair]]:
    """Extract the test set of a dataset into temporary files, which exist inside the block.

    The files are WAVs of floating-point samples, so that nothing is rounded. The SNR and the kind
    of noise are taken from the manifest; the kind of noise is the folder of the noise file (of the
    first and loudest one, if there are several).

    Args:
        dataset: Folder that ``build-dataset`` wrote.

    Raises:
        DatasetError: The folder is not a dataset, is damaged, or stores spectrograms.
    """
    manifest = load_manifest(Path(dataset))
    stored = open_records(Path(dataset), manifest, "test")
    rows = manifest.rows("test")
    rate = manifest.recipe.sample_rate
    digits = len(str(len(rows)))
    pairs = []
    with temporary_folder() as temporary:
        for number, row in enumerate(rows, 1):
            noisy, clean = stored[number - 1]
            kind = Path(row.noise).parent.as_posix()
            pair = Pair(
                # The number makes names unique: several mixtures may share a clean recording.
                name=f"{number:0{digits}d}_{Path(row.clean).stem}",
                clean=Path(temporary, "clean", f"{number}.wav"),
                noisy=Path(temporary, "noisy", f"{number}.wav"),
                noise=None if kind == "." else kind,
                snr_db=row.pair_snr_db,
                sources=tuple(row.clean_names),
            )
            write(pair.reference, clean, rate, subtype="FLOAT")
            write(pair.noisy, noisy, rate, subtype="FLOAT")
            pairs.append(pair)
        yield pairs


def find_recordings(folder: Path) -> dict[str, Path]:
    """Find the audio files in a folder.

    Returns:
        Paths by name; a name is the relative path without suffix, with forward slashes, in
        Unicode's form NFC: macOS and Linux write "é" in different ways.

    Raises:
        UsageError: The folder is missing, has no audio files, or has two of the same name.
    """
    recordings: dict[str, Path] = {}
    for path in find_audio(folder):
        name = normalize_name(path.relative_to(folder).with_suffix("").as_posix())
        if name in recordings:
            raise UsageError(
                f"{folder} has two recordings of the same name: {recordings[name]} and {path}"
            )
        recordings[name] = path
    return recordings


def files_left_out(folder: Path) -> list[Path]:
    """Return the files in a folder that are not audio, which `find_recordings` leaves out."""
    return sorted(path for path in walk_files(folder) if path.suffix.lower() not in SUFFIXES)


def normalize_name(name: str) -> str:
    """Return a name in Unicode's form NFC, so that equal names compare equal."""
    return unicodedata.normalize("NFC", name)
