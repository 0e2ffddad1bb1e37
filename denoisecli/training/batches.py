"""Training batches from stored (noisy, clean) pairs: packed, shuffled, augmented and seeded."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int

from denoisecli.datasets.manifest import Row, load_manifest
from denoisecli.datasets.stored import SETS, load_pairs
from denoisecli.errors import DatasetError
from denoisecli.spec.document import Spec
from denoisecli.training.augmentation.chain import augment_batch

VALID = "valid"

CHUNKS = 12
"""Number of chunks of a segment. Clips are cut into chunks, of which only the last is padded."""

CLIP_BUFFER = 256
"""Number of clips that are held in memory for shuffling."""

SEGMENT_BUFFER = 128
"""Number of segments that are held in memory for shuffling."""

CLIP_BYTES = 2**30
"""Approximate memory of the clips in bytes; of long clips, fewer are held."""


@dataclass(frozen=True)
class Batches:
    """The batches that a model is trained, validated and tested with.

    Attributes:
        folder: Folder of the dataset.
        spec: Spec of the model.
        dataset_id: Identifier of the dataset.
        held_out: For each pair of the training set, whether it is used for validation instead.
            None is if the dataset has a validation set of its own.
        train_steps: Number of batches of an epoch.
        clip_buffer: Number of clips that are held in memory for shuffling.
    """

    folder: Path
    spec: Spec
    dataset_id: str
    held_out: Bool[np.ndarray, "pairs"]
    train_steps: int
    clip_buffer: int = CLIP_BUFFER

    def training(self, epoch: int, skip: int = 0) -> tf.data.Dataset:
        """Return the batches of an epoch, in an order that depends on the epoch.

        Args:
            epoch: Index of the epoch, from 0.
            skip: Number of batches at the start to leave out.

        Shape:
            - elements: (noisy, clean), each (batch_size, segment)
        """
        training = self.spec.training
        seed = (training.seed * 100_003 + epoch) % 2**31  # fits into 32 bits
        pairs = self._train_pairs(validation=False).shuffle(
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

        def augment(step: tf.Tensor, pair: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            step_seed = tf.stack([seed, tf.cast(step, tf.int32)])
            return self._augment(pair[..., 0], pair[..., 1], step_seed)

        return batches.map(augment, num_parallel_calls=2, deterministic=True).prefetch(4)

    @cached_property
    def _augment(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """The augmentation as a graph, which takes longer to build than a batch to compute."""
        settings = self.spec.training.augmentation
        rate = self.spec.audio.sample_rate

        @tf.function(autograph=False)
        def augment(
            noisy: tf.Tensor, clean: tf.Tensor, seed: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            if settings is None:
                return noisy, clean
            return augment_batch(noisy, clean, settings, rate, seed)

        return augment

    def validation(self) -> tf.data.Dataset:
        """Return the validation clips as they are stored, in batches; always the same ones."""
        if VALID in load_manifest(self.folder).sets:
            return self._as_stored(load_pairs(self.folder, VALID))
        return self._as_stored(self._train_pairs(validation=True))

    def test(self) -> tf.data.Dataset:
        """Return the test set as it is stored, in batches."""
        return self._as_stored(load_pairs(self.folder, "test"))

    @property
    def chunk(self) -> int:
        """Length of a chunk in samples."""
        return _chunk_samples(self.spec)

    @property
    def segment(self) -> int:
        """Length of a segment in samples."""
        return CHUNKS * self.chunk

    def _train_pairs(self, *, validation: bool) -> tf.data.Dataset:
        """Return the pairs of the training set that are, or are not, used for validation."""
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
    """Check a stored dataset against a spec and prepare its batches.

    Validation uses the stored validation set or, if there is none, a part of the training set that
    is split off by clean file. The test set is used by `Batches.test` only.

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
    for name in SETS:
        load_pairs(folder, name)  # so that damage is found now and not after hours of training
    training = spec.training
    rows = {name: manifest.rows(name) for name in ("train", VALID, "test")}
    if rows[VALID]:
        held_out = np.zeros(len(rows["train"]), bool)
    else:
        held_out = _split_off(rows["train"], training.validation_share, folder)
    samples = {name: np.array([row.samples for row in rows[name]]) for name in rows}
    valid_samples = samples[VALID] if rows[VALID] else samples["train"][held_out]
    seconds = f"{training.segment_seconds:g} s"
    if _count_segments(valid_samples, spec) == 0:
        raise DatasetError(
            f"{folder} has less than a segment of {seconds} to validate with; record more, reduce "
            "training.segment_seconds or increase training.validation_share"
        )
    if _count_segments(samples["test"], spec) == 0:
        raise DatasetError(
            f"{folder} has less than a segment of {seconds} to test with; build it with a smaller "
            "--split, or reduce training.segment_seconds"
        )
    segments = _count_segments(samples["train"][~held_out], spec)
    if segments < training.batch_size and training.steps_per_epoch is None:
        raise DatasetError(
            f"{folder} has {segments} segments of {seconds} to train with, fewer than one batch of "
            f"{training.batch_size}; record more, reduce training.batch_size or "
            "training.segment_seconds, or set training.steps_per_epoch"
        )
    steps = training.steps_per_epoch or segments // training.batch_size
    pair_bytes = 8 * samples["train"].mean()
    clips = int(np.clip(CLIP_BYTES // pair_bytes, 2, CLIP_BUFFER))
    return Batches(folder, spec, manifest.id, held_out, steps, clips)


def _split_off(rows: list[Row], share: float, folder: Path) -> Bool[np.ndarray, "pairs"]:
    """Choose the pairs for validation, so that all pairs of a clean file are on the same side.

    Args:
        rows: Rows of the training set in the manifest.
        share: Share of the clean files that is chosen; at least one file is.
        folder: Folder of the dataset, for the error message.

    Raises:
        DatasetError: There is only one clean file.
    """
    names = sorted({row.clean for row in rows}, key=lambda name: zlib.crc32(name.encode()))
    if len(names) < 2:
        raise DatasetError(f"{folder}: one clean file is too few to split off a validation part")
    count = min(len(names) - 1, max(1, round(share * len(names))))
    chosen = set(names[:count])
    return np.array([row.clean in chosen for row in rows])


def _chunk_samples(spec: Spec) -> int:
    return max(1, round(spec.training.segment_seconds * spec.audio.sample_rate / CHUNKS))


def _count_segments(samples: Int[np.ndarray, "clips"], spec: Spec) -> int:
    """Return the number of segments that clips of these lengths (in samples) make."""
    return int(np.ceil(samples / _chunk_samples(spec)).sum()) // CHUNKS


def _pack(pairs: tf.data.Dataset, chunk: int) -> tf.data.Dataset:
    """Join clips end to end and cut them into segments, so that short clips waste no computation.

    Shape:
        - elements of the input: two vectors of equal length
        - elements of the output: (CHUNKS * chunk, 2)
    """

    def cut(noisy: tf.Tensor, clean: tf.Tensor) -> tf.data.Dataset:
        pair = tf.stack([noisy, clean], axis=-1)
        pair = tf.pad(pair, [[0, -tf.shape(pair)[0] % chunk], [0, 0]])
        return tf.data.Dataset.from_tensor_slices(tf.reshape(pair, [-1, chunk, 2]))

    return (
        pairs.flat_map(cut)
        .batch(CHUNKS, drop_remainder=True)
        .map(lambda segment: tf.reshape(segment, [CHUNKS * chunk, 2]))
    )
