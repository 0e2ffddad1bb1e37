"""Inspect a dataset: summarize it, verify it against its manifest, export pairs to listen to."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from denoisecli.audio.files import write
from denoisecli.audio.level import dbfs, rms, snr_db
from denoisecli.datasets.choices import Kind
from denoisecli.datasets.manifest import Manifest, Row, SetFacts, load_manifest
from denoisecli.datasets.mixtures import Element, checksum
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Skipped
from denoisecli.errors import DatasetError, UsageError
from denoisecli.types import AudioVector

SNR_TOLERANCE = 0.1
"""Allowed difference in dB between the SNR of a stored pair and that of its row."""

LEVEL_TOLERANCE = 0.01
"""Allowed difference in dB between the level of a noisy sound and that of its row."""

_EXACT_TO_DB = 90  # up to this, an SNR is not changed by the rounding of 32-bit samples
_BINS = 10


class Spread(BaseModel):
    """Smallest, mean and largest of some values."""

    min: float
    mean: float
    max: float


class Histogram(BaseModel):
    """Numbers of values between edges, by set; there is one more edge than numbers."""

    edges: list[int]
    counts: dict[str, list[int]]


class SetSummary(SetFacts):
    """Facts about a set.

    Attributes:
        noises_used: Number of noise recordings that are in a mixture.
        snr_db: Spread of the SNRs in dB.
        level_dbfs: Spread of the levels in dBFS.
    """

    noises_used: int

    snr_db: Spread | None
    level_dbfs: Spread | None


class SkippedSummary(BaseModel):
    """Recordings and clips that were left out, and how many there are for each reason."""

    reasons: dict[str, int]
    files: list[Skipped]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in self.reasons.items())
        return f"{len(self.files)} left out ({reasons})"


class DatasetSummary(BaseModel):
    """Facts about a dataset; those that an older version did not store are None."""

    folder: Path
    id: str
    denoise_version: str | None
    kind: Kind
    sample_rate: int
    hours: float
    mixtures: int
    sets: dict[str, SetSummary]
    snr_db_histogram: Histogram | None
    level_dbfs_histogram: Histogram | None
    skipped: SkippedSummary
    notes: list[str]
    recipe: Recipe


def summarize(folder: Path) -> DatasetSummary:
    """Summarize a dataset; only its manifest is read.

    Raises:
        DatasetError: The folder holds no dataset, or one of a newer version.
    """
    manifest = load_manifest(folder)
    snrs = {name: snr_values(manifest.rows(name)) for name in manifest.sets}
    levels = {name: level_values(manifest.rows(name)) for name in manifest.sets}
    reasons = Counter(kind_of_reason(skip.reason) for skip in manifest.skipped)
    return DatasetSummary(
        folder=folder,
        id=manifest.id,
        denoise_version=manifest.denoise_version,
        kind=manifest.recipe.kind,
        sample_rate=manifest.recipe.sample_rate,
        hours=sum(facts.hours for facts in manifest.sets.values()),
        mixtures=len(manifest.mixtures),
        sets={
            name: SetSummary(
                **dict(facts),
                noises_used=len({n for row in manifest.rows(name) for n in row.noise_names}),
                snr_db=_spread(snrs[name]),
                level_dbfs=_spread(levels[name]),
            )
            for name, facts in manifest.sets.items()
        },
        snr_db_histogram=_histogram(snrs),
        level_dbfs_histogram=_histogram(levels),
        skipped=SkippedSummary(reasons=reasons, files=manifest.skipped),
        notes=manifest.notes,
        recipe=manifest.recipe,
    )


def snr_values(rows: Sequence[Row]) -> AudioVector:
    """Return the finite SNRs of mixtures in dB."""
    return np.array([row.snr_db for row in rows if row.snr_db is not None], dtype=float)


def level_values(rows: Sequence[Row]) -> AudioVector:
    """Return the levels of noisy sounds in dBFS, as far as they are stored."""
    return np.array([row.level_dbfs for row in rows if row.level_dbfs is not None], dtype=float)


def kind_of_reason(reason: str) -> str:
    """Return what reasons of one kind have in common, such as "is too short"."""
    ends = r"[:,(]| to | for | from | at | of (?=[a-z ]+ file )|\d"
    return re.split(ends, reason, maxsplit=1)[0].strip()


def verify(folder: Path, *, on_progress: Callable[[int, int], None] | None = None) -> Iterator[str]:
    """Read a whole dataset and compare it with its manifest.

    For each pair: both halves are finite, have the length of the row, and are within full scale;
    the SNR of the pair, the level of the noisy sound and the checksum are those of the row. For
    the dataset: sizes and numbers are right, and no recording is in two sets.

    Args:
        folder: The folder of the manifest.
        on_progress: Called with the number of verified pairs and their total.

    Yields:
        A sentence for each problem.

    Raises:
        DatasetError: The folder holds no dataset, or one of a newer version.
    """
    from denoisecli.datasets.stored import load_pairs

    manifest = load_manifest(folder)
    kind = manifest.recipe.kind
    yield from _leaks(manifest)
    verified = 0
    for name, facts in manifest.sets.items():
        rows = manifest.rows(name)
        if len(rows) != facts.mixtures:
            yield f"{name}: the manifest states {facts.mixtures} mixtures, but has {len(rows)} rows"
        hours = sum(row.samples for row in rows) / manifest.recipe.sample_rate / 3600
        if not math.isclose(hours, facts.hours, rel_tol=1e-6):
            yield f"{name}: the manifest states {facts.hours:.4f} h, but its rows are {hours:.4f} h"
        number = 0
        try:
            pairs = load_pairs(folder, name, kind=kind).as_numpy_iterator()
            for number, (row, (noisy, clean)) in enumerate(zip(rows, pairs, strict=False), start=1):
                for problem in _problems(noisy, clean, row, kind):
                    yield f"{name}, pair {number - 1}: {problem}"
                verified += 1
                if on_progress is not None:
                    on_progress(verified, len(manifest.mixtures))
        except DatasetError as error:
            yield str(error)
        except Exception as error:  # of TensorFlow, which is not imported here
            if not type(error).__module__.startswith("tensorflow"):
                raise
            yield f"{name}: pair {number} and all after it cannot be read: {_first_line(error)}"
        else:
            if number < len(rows):
                yield f"{name}: there are {number} pairs, but {len(rows)} rows"


def export(
    folder: Path, count: int, target: Path, *, name: str = "train", overwrite: bool = False
) -> list[Row]:
    """Write pairs of a dataset as WAV files of 32-bit floating point.

    Args:
        folder: The folder of the manifest.
        count: Number of pairs: the first ones, whose order is random.
        target: Folder for ``0000-noisy.wav``, ``0000-clean.wav``, ``0000-noise.wav`` (the
            difference of the two) and so on.
        name: Name of the set.
        overwrite: Replace existing files.

    Returns:
        The rows of the pairs.

    Raises:
        UsageError: ``count`` is below 1, or a file exists.
        DatasetError: There is no dataset or no such set, or the pairs are spectrograms.
    """
    from denoisecli.datasets.stored import load_pairs

    if count < 1:
        raise UsageError(f"the number of pairs to export must be at least 1, not {count}")
    manifest = load_manifest(folder)
    pairs = load_pairs(folder, name).take(count).as_numpy_iterator()
    for number, (noisy, clean) in enumerate(pairs):
        for part, sound in (("noisy", noisy), ("clean", clean), ("noise", noisy - clean)):
            path = Path(target) / f"{number:04d}-{part}.wav"
            rate = manifest.recipe.sample_rate
            write(path, sound, rate, subtype="FLOAT", overwrite=overwrite)
    return manifest.rows(name)[:count]


def _problems(noisy: Element, clean: Element, row: Row, kind: Kind) -> Iterator[str]:
    if noisy.shape != clean.shape:
        yield f"noisy and clean have the shapes {noisy.shape} and {clean.shape}"
        return
    if not (np.isfinite(noisy).all() and np.isfinite(clean).all()):
        yield "some samples are NaN or infinite"
        return
    if row.crc32 is not None and checksum(noisy, clean) != row.crc32:
        yield "the checksum of the samples differs from that of the row"
    if kind != Kind.WAVEFORM:
        return
    if noisy.size != row.samples:
        yield f"it has {noisy.size} samples, not {row.samples}"
    peak = max(np.abs(noisy).max(initial=0), np.abs(clean).max(initial=0))
    if peak > 1:
        yield f"it exceeds full scale, with a peak of {peak:.3f}"
    expected = row.pair_snr_db
    if expected is None:  # it is infinite
        expected = math.inf if row.ratio == 0 else -math.inf
    found = snr_db(noisy, clean)
    differ = found != expected and not abs(found - expected) <= SNR_TOLERANCE
    if differ and not min(abs(found), abs(expected)) > _EXACT_TO_DB:
        yield f"the SNR is {found:.2f} dB, not {expected:.2f} dB"
    if row.level_dbfs is not None:
        level = dbfs(rms(noisy))
        if abs(level - row.level_dbfs) > LEVEL_TOLERANCE:
            yield f"the level is {level:.2f} dBFS, not {row.level_dbfs:.2f} dBFS"


def _leaks(manifest: Manifest) -> Iterator[str]:
    """Yield a sentence for each recording that is in two sets."""
    homes: dict[tuple[str, str], str] = {}
    reported = set()
    for row in manifest.mixtures:
        # A set with folders of its own may have files of the same names.
        has_own_folder = f"{row.set} clean" in manifest.sources
        recordings = [("clean", name) for name in row.clean_names]
        recordings += [("noise", name) for name in row.noise_names]
        recordings += [("room", row.room)] if row.room is not None else []
        for role, name in recordings:
            key = (f"{row.set} {role}" if has_own_folder and role != "room" else role, name)
            home = homes.setdefault(key, row.set)
            if home != row.set and key not in reported:
                reported.add(key)
                yield f"{role} recording {name} is in the sets {home} and {row.set}"


def _spread(values: AudioVector) -> Spread | None:
    if not values.size:
        return None
    return Spread(min=values.min(), mean=values.mean(), max=values.max())


def _histogram(values: dict[str, AudioVector]) -> Histogram | None:
    together = np.concatenate(list(values.values()))
    if not together.size:
        return None
    low, high = math.floor(together.min()), math.ceil(together.max())
    width = max(1, math.ceil((high - low) / _BINS))
    edges = np.arange(low, max(high, low + 1) + width, width)
    counts = {name: np.histogram(part, edges)[0].tolist() for name, part in values.items()}
    return Histogram(edges=edges.tolist(), counts=counts)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "message", error)).strip().partition("\n")[0]
