"""Datasets on disk as `tf.data.Dataset`: saved, loaded, and mapped to spectrograms."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow.core.protobuf import snapshot_pb2

from denoisecli.audio.stft import window_vector
from denoisecli.datasets.choices import Kind
from denoisecli.datasets.manifest import MANIFEST, load_manifest
from denoisecli.datasets.records import RUN_ID, check_path
from denoisecli.errors import DatasetError, DenoiseError
from denoisecli.system.atomic_files import replacing, temporary_folder


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset whose buffers and threads are not tuned while it is read.

    When a tuned one is deleted, the thread that tunes it may overlook that for a minute, during
    which the whole interpreter waits (seen with TensorFlow 2.21).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def save(dataset: tf.data.Dataset, folder: Path, *, overwrite: bool = False) -> None:
    """Save a dataset to a folder, which appears when it is complete.

    Args:
        dataset: Any finite dataset.
        folder: The folder to write.
        overwrite: Replace an existing folder.

    Raises:
        UsageError: The folder exists, or TensorFlow cannot read from such a path.
        DenoiseError: The folder cannot be written, or the disk is full.
        Exception: The dataset raised it instead of an element.
    """
    check_path(folder)
    errors: list[Exception] = []
    stopped = threading.Event()

    def elements() -> Iterator[Any]:
        try:
            for element in untuned(dataset).as_numpy_iterator():
                if stopped.is_set():
                    return
                yield element
        except Exception as error:  # Dataset.save would wait forever after an error
            errors.append(error)

    source = tf.data.Dataset.from_generator(elements, output_signature=dataset.element_spec)
    # TensorFlow blocks its thread until all is saved: in the main thread, Ctrl-C had no effect.
    with replacing(folder, overwrite=overwrite) as part, ThreadPoolExecutor(1) as thread:
        saving = thread.submit(
            source.save,
            part.as_posix(),
            shard_func=lambda *_: tf.constant(0, tf.int64),  # a single shard keeps the order
        )
        try:
            saving.result()
        except tf.errors.OpError as error:
            raise DenoiseError(f"cannot write {folder}: {error.message}") from error
        finally:
            stopped.set()
        if errors:
            raise errors[0]


def load(folder: Path) -> tf.data.Dataset:
    """Load a dataset from the folder it was saved to, in the same order.

    Raises:
        UsageError: TensorFlow cannot read from such a path.
        DatasetError: The folder holds no saved dataset, or a damaged one.
    """
    check_path(folder)
    try:
        return untuned(tf.data.Dataset.load(Path(folder).as_posix()))
    except (tf.errors.OpError, OSError, DecodeError) as error:
        raise DatasetError(f"{folder} holds no saved dataset, or a damaged one") from error


def load_pairs(folder: Path, name: str = "train", *, kind: Kind = Kind.WAVEFORM) -> tf.data.Dataset:
    """Load one set of a dataset that `denoise build-dataset` built.

    Args:
        folder: The folder of the manifest.
        name: Name of the set, "train", "valid" or "test", whatever its folder is called.
        kind: The kind of pairs. Spectrograms of a dataset of waveforms are computed while it is
            read, with the STFT of the dataset's recipe.

    Returns:
        The (noisy, clean) pairs, float32, in the order of the manifest's rows; its
        ``cardinality()`` is their number.

    Raises:
        DatasetError: The folder holds no dataset, one of a newer version, one of spectrograms
            where waveforms are needed, or a damaged one.
    """
    manifest = load_manifest(folder)
    stored = manifest.recipe.kind
    facts = manifest.facts(folder, name, kind)
    set_folder = Path(folder) / facts.folder
    pairs = load(set_folder)
    if sum(path.stat().st_size for path in set_folder.rglob("*.snapshot")) != facts.bytes:
        raise DatasetError(f"{set_folder} is damaged: its size differs from that in {MANIFEST}")
    rank = 1 if stored == Kind.WAVEFORM else 2
    specs = tf.nest.flatten(pairs.element_spec)
    if len(specs) != 2 or any(
        spec.dtype != tf.float32 or spec.shape.rank != rank for spec in specs
    ):
        raise DatasetError(f"{set_folder} holds {pairs.element_spec} instead of {stored} pairs")
    pairs = pairs.apply(tf.data.experimental.assert_cardinality(facts.mixtures))
    if kind == stored:
        return pairs
    recipe = manifest.recipe
    return to_spectrograms(
        pairs, n_fft=recipe.n_fft, hop_length=recipe.hop_length, window=recipe.window
    )


def to_spectrograms(
    pairs: tf.data.Dataset,
    *,
    n_fft: int = 512,
    hop_length: int = 256,
    window: str = "sqrt_hann",
) -> tf.data.Dataset:
    """Map a dataset of (noisy, clean) AudioVectors to the magnitudes of their STFTs.

    Args:
        pairs: The dataset of AudioVectors.
        n_fft: Length of a frame and of its transform in samples.
        hop_length: Hop between frames in samples.
        window: Name of the window, as ``stft.window_vector`` takes it.

    Returns:
        A dataset of (noisy, clean) float32 SpectrogramMatrices with n_fft // 2 + 1 frequencies:
        the magnitudes of what ``stft.stft`` returns.
    """
    weights = window_vector(window, n_fft)

    def magnitude(vector: tf.Tensor) -> tf.Tensor:
        centred = tf.pad(vector, [[n_fft // 2, n_fft // 2]])
        frames = tf.signal.frame(centred, n_fft, hop_length)
        return tf.transpose(tf.abs(tf.signal.rfft(frames * weights)))

    return pairs.map(
        lambda noisy, clean: (magnitude(noisy), magnitude(clean)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def write_metadata(folder: Path, count: int, frequencies: int | None) -> None:
    """Complete a folder that holds the records of pairs, so that it can be loaded.

    The two files are those that TensorFlow writes for a dataset without elements.

    Args:
        folder: The folder of the set; its records are in ``records.records_file(folder)``.
        count: Number of pairs.
        frequencies: Frequencies of the spectrograms; None if the pairs are waveforms.
    """
    spec, metadata = _empty(frequencies)
    (folder / "dataset_spec.pb").write_bytes(spec)
    record = snapshot_pb2.SnapshotMetadataRecord()
    record.ParseFromString(metadata)
    record.run_id, record.num_elements = RUN_ID, count
    record.creation_timestamp = 0  # the same dataset has the same files
    (folder / "snapshot.metadata").write_bytes(record.SerializeToString())


@cache
def _empty(frequencies: int | None) -> tuple[bytes, bytes]:
    """Return the two files that TensorFlow writes for a dataset of pairs without elements."""
    shape = (None,) if frequencies is None else (frequencies, None)
    spec = (tf.TensorSpec(shape, tf.float32),) * 2
    empty = tf.data.Dataset.from_generator(lambda: iter(()), output_signature=spec)
    with temporary_folder() as folder:
        empty.save(str(folder / "empty"))
        names = "dataset_spec.pb", "snapshot.metadata"
        one, other = ((folder / "empty" / name).read_bytes() for name in names)
    return one, other
