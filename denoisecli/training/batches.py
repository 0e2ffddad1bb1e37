"""Training batches from stored (noisy, clean) pairs: packed, permuted, augmented and seeded."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
from jaxtyping import Bool

from denoisecli.datasets.manifest import Manifest, Row, hashes_of, load_manifest
from denoisecli.datasets.records import PairRecords, open_records
from denoisecli.datasets.splitting import OWN_ROLES, groups_of_names
from denoisecli.errors import DatasetError
from denoisecli.spec.document import Spec
from denoisecli.training.augmentation.chain import Bands, Chain, CompiledChain
from denoisecli.training.augmentation.target import clean_target
from denoisecli.training.batch_source import BatchSource
from denoisecli.training.dataset_ranges import resolve_ranges
from denoisecli.training.segments import (
    CHUNKS,
    Places,
    SegmentOrder,
    bands_of_chunks,
    chunk_samples,
    known_band,
    read_segment,
    stored_order,
)
from denoisecli.training.stream import Batch, Stream

VALID = "valid"


@dataclass(frozen=True)
class Clips:
    """The clips of a set that are used for one purpose.

    Attributes:
        records: Pairs of the set.
        indices: Index of each clip in the set.
        samples: Length of each clip in samples.
        bands: Frequency in Hz up to which the clean part of each clip is known.
    """

    records: PairRecords
    indices: tuple[int, ...]
    samples: tuple[int, ...]
    bands: tuple[int, ...]

    def chunks(self, chunk: int) -> tuple[int, ...]:
        """Return the number of chunks of each clip, given the length of a chunk in samples."""
        return tuple(-(-samples // chunk) for samples in self.samples)


@dataclass(frozen=True)
class Batches(BatchSource):
    """Batches of stored pairs.

    Attributes:
        clips: Clips to train, validate ("valid") and test with.
    """

    folder: Path
    spec: Spec
    dataset_id: str
    clips: dict[str, Clips]
    train_steps: int
    messages: list[str]

    def _training_batches(self) -> Callable[[int], Batch]:
        clips = self.clips["train"]
        size, seed = self.spec.training.batch_size, self.spec.training.seed
        order = SegmentOrder(clips.chunks(self.chunk), seed)
        keeps_rooms = self.spec.training.target == "reverberant"
        augment = self._augment
        settings = self.spec.training.augmentation
        # Where levels are drawn anew, those of the clips do not matter.
        scales_clips = settings is not None and settings.remix and settings.level_dbfs is not None

        def make(index: int) -> Batch:
            places = [order[index * size + row] for row in range(size)]
            levels = np.random.default_rng([seed, 4, index]) if scales_clips else None
            parts, bands = self._read(clips, places, levels)
            noisy, clean, speech = parts[0], parts[1], parts[-1]
            if augment is None:
                return (noisy, speech if keeps_rooms else clean, *bands)
            # Late reverberation is part of the speech, and stays with it.
            target = None if keeps_rooms or len(parts) == 2 else clean
            rng = np.random.default_rng([seed, 2, index])
            return augment(speech, noisy - speech, rng, target, bands)

        return make

    @cached_property
    def _augment(self) -> CompiledChain | None:
        """The augmentations of the spec, which take time to compile."""
        settings = self.spec.training.augmentation
        if settings is None:
            return None
        rate, target = self.spec.audio.sample_rate, self.spec.training.target
        return CompiledChain(Chain(settings, rate, target))

    def validation(self) -> Stream:
        """Return the stored validation clips in batches, with the targets of the training."""
        return self._as_stored(self.clips[VALID])

    def test(self) -> Stream:
        """Return the stored test set in batches, with the targets of the training."""
        return self._as_stored(self.clips["test"])

    def source_hashes(self, *sets: str) -> set[str]:
        """Return the hashes of the recordings in sets.

        "train" and "valid" are the parts of the stored training set if it was divided.
        """
        manifest = load_manifest(self.folder)
        if VALID in manifest.sets:
            return manifest.source_hashes(*sets)
        stored = {name: manifest.rows("test" if name == "test" else "train") for name in sets}
        return hashes_of(stored[name][index] for name in sets for index in self.clips[name].indices)

    def _as_stored(self, clips: Clips) -> Stream:
        size = self.spec.training.batch_size
        segments = stored_order(clips.chunks(self.chunk))
        keeps_rooms = self.spec.training.target == "reverberant"
        settings = self.spec.training.augmentation

        def make(start: int) -> Batch:
            parts, bands = self._read(clips, segments[start : start + size])
            target = parts[-1 if keeps_rooms else 1]
            if settings is not None:
                target = clean_target(target, settings, self.spec.audio.sample_rate)
                target = keras.ops.convert_to_numpy(target)
            return (parts[0], target, *bands)

        return Stream(make, range(0, len(segments), size))

    def _read(
        self,
        clips: Clips,
        segments: list[Places],
        levels: np.random.Generator | None = None,
    ) -> tuple[list[np.ndarray], Bands]:
        """Read the segments of a batch.

        Args:
            clips: Clips of the set.
            segments: Chunks of each segment.
            levels: Source of the levels of the clips in a batch to train with.

        Returns:
            Noisy, clean and, if it is stored, reverberant speech; and the known bands, if any clip
            does not have the full band.
        """
        rate = self.spec.audio.sample_rate
        parts = np.stack(
            [
                read_segment(clips.records, clips.indices, places, self.chunk, rate, levels)
                for places in segments
            ],
            axis=1,
        )
        return list(parts), bands_of_chunks(clips.bands, segments, rate)


def open_batches(folder: Path, spec: Spec) -> Batches:
    """Check a stored dataset against a spec and prepare its batches.

    Validation uses the stored validation set or, if there is none, a part of the training set that
    is split off by group of clean recordings. The test set is used by `Batches.test` only.

    Raises:
        DatasetError: The folder holds no dataset or a damaged one; its sample rate or kind does
            not fit the spec; or there is less than a batch to train with, or less than a segment
            to validate or test with.
    """
    manifest = load_manifest(folder)
    rate = manifest.recipe.sample_rate
    if rate != spec.audio.sample_rate:
        raise DatasetError(
            f"{folder} has a sample rate of {rate} Hz, but the spec {spec.name!r} needs "
            f"{spec.audio.sample_rate} Hz; build the dataset with --sample-rate or change the spec"
        )
    training = spec.training
    clips = {}
    for name in manifest.sets:
        samples = tuple(row.samples for row in manifest.rows(name))
        records = open_records(folder, manifest, name)
        clips[name] = Clips(records, tuple(range(len(samples))), samples, _bands(manifest, name))
    if VALID not in clips:
        held_out = _split_off(manifest, training.validation_share, folder)
        clips[VALID] = _select(clips["train"], held_out)
        clips["train"] = _select(clips["train"], ~held_out)
    segments = {
        name: sum(part.chunks(chunk_samples(spec))) // CHUNKS for name, part in clips.items()
    }
    seconds = f"{training.segment_seconds:g} s"
    if segments[VALID] == 0:
        raise DatasetError(
            f"{folder} has less than a segment of {seconds} to validate with; record more, reduce "
            "training.segment_seconds or increase training.validation_share"
        )
    if segments["test"] == 0:
        raise DatasetError(
            f"{folder} has less than a segment of {seconds} to test with; build it with a smaller "
            "--split, or reduce training.segment_seconds"
        )
    if segments["train"] < training.batch_size and training.steps_per_epoch is None:
        raise DatasetError(
            f"{folder} has {segments['train']} segments of {seconds} to train with, fewer than one "
            f"batch of {training.batch_size}; record more, reduce training.batch_size or "
            "training.segment_seconds, or set training.steps_per_epoch"
        )
    steps = training.steps_per_epoch or segments["train"] // training.batch_size
    spec, messages = resolve_ranges(spec, manifest.mixing_recipe)
    messages += _notes_on_rooms(manifest, spec, clips)
    return Batches(folder, spec, manifest.id, clips, steps, messages)


def _notes_on_rooms(manifest: Manifest, spec: Spec, clips: Mapping[str, Clips]) -> list[str]:
    """Return what the user should know about a dataset with speech in rooms."""
    if all(row.room is None for row in manifest.mixtures):
        return []
    target, stored = spec.training.target, manifest.recipe.reverb_target
    if not clips["train"].records.has_speech:
        return [
            "warning: the dataset was built by a version that did not store reverberant speech: "
            "its late reverberation is taken for noise; build it again"
        ]
    if target not in ("reverberant", stored):
        return [
            f"training.target is {target}, but in rooms of the dataset the target is {stored}, as "
            "it was built with --reverb-target"
        ]
    return []


def _split_off(manifest: Manifest, share: float, folder: Path) -> Bool[np.ndarray, "pairs"]:
    """Choose the pairs for validation, so that those of a group are on the same side.

    The groups are those that the sets were split by; recordings that are copies of each other, or
    are joined in a clip, are in one. If there is only one group, it is divided by file.

    Args:
        manifest: Manifest of the dataset.
        share: Share of the groups that is chosen; at least one is.
        folder: Folder of the dataset, for the error message.

    Raises:
        DatasetError: There is only one clean file.
    """
    rows = manifest.rows("train")
    owners = _groups(manifest, rows)
    if len({*owners}) < 2:
        owners = [row.clean for row in rows]
    groups = sorted({*owners}, key=lambda name: zlib.crc32(name.encode()))
    if len(groups) < 2:
        raise DatasetError(
            f"{folder}: a validation set cannot be split off from a single clean file"
        )
    count = min(len(groups) - 1, max(1, round(share * len(groups))))
    chosen = {*groups[:count]}
    return np.array([owner in chosen for owner in owners])


def _groups(manifest: Manifest, rows: Sequence[Row]) -> list[str]:
    """Return for each row the name of one recording of its group, the same for the whole group."""
    from scipy.cluster.hierarchy import DisjointSet  # slow to import

    clips = [row.clean_names for row in rows]
    names = sorted({name for clip in clips for name in clip})
    keys = groups_of_names(names, manifest.recipe.group_by, is_clean=True)
    members: dict[str, list[str]] = {}
    for name, key in zip(names, keys, strict=True):
        members.setdefault(key, []).append(name)
    copies = ([copy.removeprefix("clean ") for copy in pair] for pair in manifest.copies)
    groups = DisjointSet(names)
    for linked in (*members.values(), *clips, *copies):
        known = [name for name in linked if name in groups]
        for name in known[1:]:
            groups.merge(known[0], name)
    first = {name: min(group) for group in groups.subsets() for name in group}
    return [first[row.clean] for row in rows]


def _select(clips: Clips, chosen: Bool[np.ndarray, "pairs"]) -> Clips:
    """Return the chosen ones of clips."""
    indices = [index for index, one in zip(clips.indices, chosen, strict=True) if one]
    return Clips(
        clips.records,
        tuple(indices),
        tuple(clips.samples[index] for index in indices),
        tuple(clips.bands[index] for index in indices),
    )


def _bands(manifest: Manifest, name: str) -> tuple[int, ...]:
    """Return the frequency in Hz up to which the clean part of each clip of a set is known.

    That of a joined clip is the smallest one of its recordings.
    """
    full = manifest.recipe.sample_rate // 2
    # Folders of different roles may have files of the same names.
    role = OWN_ROLES[name][0] if name in OWN_ROLES else "clean"
    if all(source.role != role for source in manifest.recordings):
        role = "clean"
    known = {
        source.name: known_band(source.bandwidth, manifest.recipe.sample_rate)
        for source in manifest.recordings
        if source.role == role
    }
    return tuple(
        min(known.get(clean, full) for clean in row.clean_names) for row in manifest.rows(name)
    )
