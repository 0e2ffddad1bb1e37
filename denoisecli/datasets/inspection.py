"""What a dataset is, whether it is what its manifest says, and some of it to listen to."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from denoisecli.audio import files as audio
from denoisecli.audio.level import dbfs, rms, snr_db
from denoisecli.datasets.manifest import load_manifest
from denoisecli.datasets.mixtures import Element, Row, checksum
from denoisecli.errors import DatasetError, UsageError
from denoisecli.types import AudioVector

SNR_TOLERANCE = 0.1
"""By how much (dB) the SNR of a stored pair may differ from the one its row states."""

LEVEL_TOLERANCE = 0.01
"""The same of the level of the noisy sound."""

_EXACT_TO_DB = 90  # SNRs up to here come out of 32-bit samples as they went in
_BINS = 10


def describe(folder: Path) -> dict[str, Any]:
    """Give the facts about a dataset, from its manifest alone.

    Args:
        folder: The folder of the manifest.

    Returns:
        Plain JSON data: ``id``, ``kind``, ``sample_rate``, ``recipe``; ``sets`` with ``mixes``,
        ``hours``, numbers of recordings, smallest, mean and largest ``snr_db`` and ``level_dbfs``
        (null where there are none); histograms of both, as ``edges`` and ``counts`` by set;
        ``skipped``: the ``files`` and how many there are by ``reasons``.

    Raises:
        DatasetError: the folder holds no dataset, or one of a newer version.
    """
    manifest = load_manifest(folder)
    rows = {name: rows_of(manifest, name) for name in manifest["sets"]}
    columns = {
        key: {name: column(part, key) for name, part in rows.items()}
        for key in ("snr_db", "level_dbfs")
    }
    return {
        "folder": str(folder),
        "id": manifest["id"],
        "denoise_version": manifest.get("denoise_version"),
        "kind": manifest["recipe"].get("kind", "waveform"),
        "sample_rate": manifest["recipe"]["sample_rate"],
        "hours": sum(facts["hours"] for facts in manifest["sets"].values()),
        "mixes": len(manifest["mixes"]),
        "sets": {
            name: {**facts, **{key: _summary(values[name]) for key, values in columns.items()}}
            for name, facts in manifest["sets"].items()
        },
        **{f"{key}_histogram": _histogram(values) for key, values in columns.items()},
        "skipped": {
            "reasons": dict(
                Counter(kind_of(skip["reason"]) for skip in manifest.get("skipped", []))
            ),
            "files": manifest.get("skipped", []),
        },
        "recipe": manifest["recipe"],
    }


def rows_of(manifest: dict[str, Any], name: str) -> list[Row]:
    """Give the rows of a set."""
    return [row for row in manifest["mixes"] if row["set"] == name]


def column(rows: Sequence[Row], key: str) -> AudioVector:
    """Give the finite values of a column of rows."""
    return np.array([row[key] for row in rows if row.get(key) is not None], dtype=float)


def kind_of(reason: str) -> str:
    """Give what reasons of a kind have in common, such as "is too short"."""
    return re.split(r"[:,(]| to | for | from | at |\d", reason, maxsplit=1)[0].strip()


def verify(folder: Path, *, progress: Callable[[int, int], None] | None = None) -> Iterator[str]:
    """Read all of a dataset and compare it with its manifest.

    Of every pair: both halves are finite, equally long, as long as the row says, within full
    scale; ``noisy - clean`` has the SNR stated, ``noisy`` the level, all samples the checksum. Of
    the whole: sizes and numbers, and that no recording is in two sets.

    Args:
        folder: The folder of the manifest.
        progress: Told the number of pairs done and of all.

    Yields:
        What is wrong, a sentence each.

    Raises:
        DatasetError: the folder holds no dataset, or one of a newer version.
    """
    from denoisecli.datasets.stored import load_pairs

    manifest = load_manifest(folder)
    yield from _leaks(manifest)
    done = 0
    for name, facts in manifest["sets"].items():
        rows = rows_of(manifest, name)
        if len(rows) != facts["mixes"]:
            yield f"{name}: {facts['mixes']} mixes are stated, but there are {len(rows)} rows"
        hours = sum(row["samples"] for row in rows) / manifest["recipe"]["sample_rate"] / 3600
        if not math.isclose(hours, facts["hours"], rel_tol=1e-6):
            yield f"{name}: {facts['hours']:.4f} h are stated, but its rows have {hours:.4f} h"
        kind = manifest["recipe"].get("kind", "waveform")
        number = 0
        try:
            pairs = load_pairs(folder, name, kind=kind).as_numpy_iterator()
            for number, (row, pair) in enumerate(zip(rows, pairs, strict=False), start=1):
                noisy, clean = pair
                for problem in _problems(noisy, clean, row, kind):
                    yield f"{name}, pair {number - 1}: {problem}"
                done += 1
                if progress is not None:
                    progress(done, len(manifest["mixes"]))
        except DatasetError as error:
            yield str(error)
        except Exception as error:  # TensorFlow's, which is not imported here
            if not type(error).__module__.startswith("tensorflow"):
                raise
            yield f"{name}: pair {number} and all behind it cannot be read: {_first_line(error)}"
        else:
            if number < len(rows):
                yield f"{name}: there are {number} pairs, but {len(rows)} rows"


def export(
    folder: Path, count: int, target: Path, *, name: str = "train", overwrite: bool = False
) -> list[Row]:
    """Write pairs of a dataset as wav files: noisy, clean, and the noise, their difference.

    Args:
        folder: The folder of the manifest.
        count: Number of pairs: the first ones, which is a random choice.
        target: Folder that ``0000-noisy.wav``, ``0000-clean.wav``, ``0000-noise.wav`` and so on are
            written to, in 32-bit floating point.
        name: The set.
        overwrite: Replace existing files.

    Returns:
        The rows of the pairs.

    Raises:
        UsageError: ``count`` is below 1, a file exists already.
        DatasetError: there is no dataset, no such set, or one of spectrograms.
    """
    from denoisecli.datasets.stored import load_pairs

    if count < 1:
        raise UsageError(f"at least 1 pair must be exported, not {count}")
    manifest = load_manifest(folder)
    pairs = load_pairs(folder, name).take(count).as_numpy_iterator()
    rows = list(islice(rows_of(manifest, name), count))
    for number, (noisy, clean) in enumerate(pairs):
        for part, sound in (("noisy", noisy), ("clean", clean), ("noise", noisy - clean)):
            path = Path(target) / f"{number:04d}-{part}.wav"
            rate = manifest["recipe"]["sample_rate"]
            audio.write(path, sound, rate, subtype="FLOAT", overwrite=overwrite)
    return rows


def _problems(noisy: Element, clean: Element, row: Row, kind: str) -> Iterator[str]:
    if noisy.shape != clean.shape:
        yield f"noisy and clean have the shapes {noisy.shape} and {clean.shape}"
        return
    if not (np.isfinite(noisy).all() and np.isfinite(clean).all()):
        yield "there are samples that are no numbers"
        return
    if "crc32" in row and checksum(noisy, clean) != row["crc32"]:
        yield "the samples are not those that were stored"
    if kind != "waveform":
        return
    if noisy.size != row["samples"]:
        yield f"it has {noisy.size} samples, not {row['samples']}"
    peak = max(np.abs(noisy).max(initial=0), np.abs(clean).max(initial=0))
    if peak > 1:
        yield f"it passes full scale, with a peak of {peak:.3f}"
    stated = row.get("target_snr_db", row.get("snr_db"))
    found = snr_db(noisy, clean)
    # Where none is stated it is infinite: all of it is clean, or all of it is noise.
    expected = stated if stated is not None else math.inf if row["ratio"] == 0 else -math.inf
    differ = found != expected and not abs(found - expected) <= SNR_TOLERANCE
    if differ and not min(abs(found), abs(expected)) > _EXACT_TO_DB:
        yield f"the SNR is {found:.2f} dB, not {expected:.2f} dB"
    if row.get("level_dbfs") is not None:
        level = dbfs(rms(noisy))
        if abs(level - row["level_dbfs"]) > LEVEL_TOLERANCE:
            yield f"the level is {level:.2f} dBFS, not {row['level_dbfs']:.2f} dBFS"


def _leaks(manifest: dict[str, Any]) -> Iterator[str]:
    """Say which recordings are in two sets."""
    homes: dict[tuple[str, str], str] = {}
    told = set()
    for row in manifest["mixes"]:
        # A test set with folders of its own may have files of the same name.
        apart = "test_clean" in manifest and row["set"] == "test"
        for role, name in _recordings(row):
            home = homes.setdefault(
                (f"test {role}" if apart and role != "room" else role, name), row["set"]
            )
            if home != row["set"] and (role, name) not in told:
                told.add((role, name))
                yield f"{role} recording {name} is in the sets {home} and {row['set']}"


def _recordings(row: Row) -> Iterator[tuple[str, str]]:
    for piece in row.get("joined", [row]):
        yield "clean", piece["clean"]
    for noise in (row, *row.get("more_noises", [])):
        yield "noise", noise["noise"]
    if "room" in row:
        yield "room", row["room"]


def _summary(values: AudioVector) -> dict[str, float] | None:
    if not values.size:
        return None
    return {
        "min": float(values.min()),
        "mean": float(values.mean()),
        "max": float(values.max()),
    }


def _histogram(values: dict[str, AudioVector]) -> dict[str, Any] | None:
    together = np.concatenate(list(values.values()))
    if not together.size:
        return None
    low, high = math.floor(together.min()), math.ceil(together.max())
    width = max(1, math.ceil((high - low) / _BINS))
    edges = np.arange(low, max(high, low + 1) + width, width)
    return {
        "edges": edges.tolist(),
        "counts": {name: np.histogram(part, edges)[0].tolist() for name, part in values.items()},
    }


def _first_line(error: Exception) -> str:
    return str(getattr(error, "message", error)).strip().partition("\n")[0]
