"""From stored (noisy, clean) pairs to training batches: packed, shuffled, augmented, seeded."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from denoisecli.datasets.stored import SETS, load_manifest, load_pairs
from denoisecli.errors import DatasetError
from denoisecli.spec.document import Spec
from denoisecli.training.augmentation.chain import augment_batch

VALID = "valid"

CHUNKS = 12
"""Clips are cut into this many chunks per segment; only a clip's last chunk is padded."""

CLIP_BUFFER = 256
SEGMENT_BUFFER = 128
"""Clips, then segments, held in memory for shuffling."""

CLIP_BYTES = 2**30
"""Of long clips fewer are held, so that they take about this much memory."""


@dataclass(frozen=True)
class Batches:
    """The batches that a model is trained, selected and tested with.

    Validation clips come from the stored validation set, or, where there is none, from the training
    set, divided by clean file; the test set is only read by `test`.
    """

    folder: Path
    spec: Spec
    dataset_id: str
    held_out: np.ndarray
    train_steps: int
    clip_buffer: int = CLIP_BUFFER

    def training(self, epoch: int, skip: int = 0) -> tf.data.Dataset:
        """One epoch of (noisy, clean), each (batch_size, segment); its order depends on the epoch.

        Args:
            epoch: counted from 0.
            skip: batches at the start that were seen before an interruption.
        """
        training = self.spec.training
        seed = (training.seed * 100_003 + epoch) % 2**31  # 32 bits hold it
        pairs = self._part(validation=False).shuffle(
            self.clip_buffer, seed=seed, reshuffle_each_iteration=True
        )
        batches = (
            _pack(pairs.repeat(), self.chunk)
            .shuffle(SEGMENT_BUFFER, seed=seed)
            .batch(training.batch_size, drop_remainder=True)
            .take(self.train_steps)
            .enumerate()
            .skip(skip)
        )
        settings = training.augmentation
        rate = self.spec.audio.sample_rate

        def augment(step: Any, pair: Any) -> Any:
            noisy, clean = pair[..., 0], pair[..., 1]
            if settings is None:
                return noisy, clean
            step_seed = tf.stack([seed, tf.cast(step, tf.int32)])
            return augment_batch(noisy, clean, settings, rate, step_seed)

        return batches.map(augment, num_parallel_calls=2, deterministic=True).prefetch(4)

    def validation(self) -> tf.data.Dataset:
        """Held-out clips as stored, in batches; the same every time."""
        if VALID in load_manifest(self.folder)["sets"]:
            return self._as_stored(load_pairs(self.folder, VALID))
        return self._as_stored(self._part(validation=True))

    def test(self) -> tf.data.Dataset:
        """The test set as stored, in batches."""
        return self._as_stored(load_pairs(self.folder, "test"))

    @property
    def chunk(self) -> int:
        """Samples of a chunk."""
        return _chunk(self.spec)

    @property
    def segment(self) -> int:
        """Samples of a segment."""
        return CHUNKS * self.chunk

    def _part(self, *, validation: bool) -> tf.data.Dataset:
        held_out = tf.constant(self.held_out)
        return (
            load_pairs(self.folder, "train")
            .enumerate()
            .filter(lambda index, pair: held_out[index] == validation)
            .map(lambda index, pair: pair)
        )

    def _as_stored(self, pairs: tf.data.Dataset) -> tf.data.Dataset:
        batches = _pack(pairs, self.chunk).batch(self.spec.training.batch_size)
        return batches.map(lambda pair: (pair[..., 0], pair[..., 1])).prefetch(2)


def open_batches(folder: Path, spec: Spec) -> Batches:
    """Look at a stored dataset and prepare its batches.

    Raises:
        DatasetError: the folder holds no dataset or a damaged one, its sample rate or kind does
            not fit the spec, or there is too little for a batch to train with or a segment to
            validate or to test with.
    """
    manifest = load_manifest(folder)
    rate = manifest["recipe"]["sample_rate"]
    if rate != spec.audio.sample_rate:
        raise DatasetError(
            f"{folder} has a sample rate of {rate} Hz, the spec {spec.name!r} wants "
            f"{spec.audio.sample_rate}; build the dataset with --sample-rate or change the spec"
        )
    for name in SETS:
        load_pairs(folder, name)  # so that no damage comes to light after hours of training
    training = spec.training
    rows = [row for row in manifest["mixes"] if row["set"] == "train"]
    valid_rows = [row for row in manifest["mixes"] if row["set"] == VALID]
    if valid_rows:
        held_out = np.zeros(len(rows), bool)
    else:
        held_out = _held_out(rows, training.validation_share, folder)
    samples = np.array([row["samples"] for row in rows])
    valid_samples = np.array([row["samples"] for row in valid_rows] or samples[held_out])
    test_samples = np.array([row["samples"] for row in manifest["mixes"] if row["set"] == "test"])
    seconds = f"{training.segment_seconds:g} s"
    if _segments(valid_samples, spec) == 0:
        raise DatasetError(
            f"{folder} has less than a segment of {seconds} to validate with; record more, or make "
            "training.segment_seconds smaller or training.validation_share larger"
        )
    if _segments(test_samples, spec) == 0:
        raise DatasetError(
            f"{folder} has less than a segment of {seconds} to test with; build it with a smaller "
            "--split, or make training.segment_seconds smaller"
        )
    segments = _segments(samples[~held_out], spec)
    if segments < training.batch_size and training.steps_per_epoch is None:
        raise DatasetError(
            f"{folder} has {segments} segments of {seconds} to train with, fewer than one batch of "
            f"{training.batch_size}; record more, or make training.batch_size, "
            "training.segment_seconds smaller or set training.steps_per_epoch"
        )
    steps = training.steps_per_epoch or segments // training.batch_size
    pair_bytes = 8 * samples.mean()
    clips = int(np.clip(CLIP_BYTES // pair_bytes, 2, CLIP_BUFFER))
    return Batches(folder, spec, manifest["id"], held_out, steps, clips)


def _held_out(rows: list[dict[str, Any]], share: float, folder: Path) -> np.ndarray:
    """Which mixes of the training set are for validation, all mixes of a clean file alike."""
    names = sorted({row["clean"] for row in rows}, key=lambda name: zlib.crc32(name.encode()))
    if len(names) < 2:
        raise DatasetError(f"{folder}: one clean file is too few to split off a validation part")
    count = min(len(names) - 1, max(1, round(share * len(names))))
    chosen = set(names[:count])
    return np.array([row["clean"] in chosen for row in rows])


def _chunk(spec: Spec) -> int:
    return max(1, round(spec.training.segment_seconds * spec.audio.sample_rate / CHUNKS))


def _segments(samples: np.ndarray, spec: Spec) -> int:
    """How many segments clips of so many samples make."""
    return int(np.ceil(samples / _chunk(spec)).sum()) // CHUNKS


def _pack(pairs: tf.data.Dataset, chunk: int) -> tf.data.Dataset:
    """Lay clips end to end and cut them into segments, so that short clips waste nothing.

    Shape:
        - elements in: two vectors of any equal length
        - elements out: (CHUNKS * chunk, 2)
    """

    def chunks(noisy: Any, clean: Any) -> tf.data.Dataset:
        pair = tf.stack([noisy, clean], axis=-1)
        pair = tf.pad(pair, [[0, -tf.shape(pair)[0] % chunk], [0, 0]])
        return tf.data.Dataset.from_tensor_slices(tf.reshape(pair, [-1, chunk, 2]))

    return (
        pairs.flat_map(chunks)
        .batch(CHUNKS, drop_remainder=True)
        .map(lambda segment: tf.reshape(segment, [CHUNKS * chunk, 2]))
    )
