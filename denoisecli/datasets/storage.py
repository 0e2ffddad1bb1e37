"""Elements of a dataset on disk, in the layout of `tf.data.Dataset.save`."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow.core.protobuf import snapshot_pb2

from denoisecli.datasets.mixtures import Element
from denoisecli.datasets.recipe import Kind
from denoisecli.errors import DatasetError, DenoiseError, UsageError
from denoisecli.system.atomic_files import replacing

_RUN = "1"  # TensorFlow draws a number at random


class Snapshot:
    """A saved dataset that is written bit by bit, and can be gone on with.

    ``Dataset.save`` holds in memory what the disk does not take at once, which may be all, and
    starts over when it was stopped. This writes the same files: one of TFRecords with a tensor
    each, which may be appended to, and two that describe it, which TensorFlow itself writes here
    for a dataset without elements.

    Args:
        folder: Where the dataset goes; it can be loaded after :meth:`finish`.
        kind: What its pairs are of.
        frequencies: How many those of spectrograms have.
        size: Bytes of elements that are in the folder already and stay.

    Raises:
        DatasetError: there are fewer bytes than that.
    """

    def __init__(self, folder: Path, kind: Kind, frequencies: int, size: int = 0) -> None:
        shape = (None,) if kind == "waveform" else (frequencies, None)
        self._spec = (tf.TensorSpec(shape, tf.float32),) * 2
        self._folder, self.size = folder, size
        self.path = folder / _RUN / "00000000.shard" / "00000000.snapshot"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = folder / "part"
        self._writer: tf.io.TFRecordWriter | None = None
        with self.path.open("ab") as file:
            if file.tell() < size:
                raise DatasetError(f"{self.path} is damaged: it ends too early")
            file.truncate(size)

    def add(self, noisy: Element, clean: Element) -> None:
        """Add a pair; it is in the file after :meth:`flush`.

        Raises:
            DenoiseError: it cannot be written.
        """
        try:
            if self._writer is None:
                self._writer = tf.io.TFRecordWriter(self._part.as_posix())
            for array in (noisy, clean):
                record = tf.io.serialize_tensor(array).numpy()
                self._writer.write(record)
                self.size += len(record) + 16  # its length, and two checksums
        except tf.errors.OpError as error:
            raise DenoiseError(f"cannot write to {self._folder}: {error.message}") from error

    def flush(self) -> int:
        """Write all to the file; gives its size in bytes, to go on from there.

        Raises:
            DenoiseError: it cannot be written.
        """
        if self._writer is not None:
            try:
                self._writer.close()
            except tf.errors.OpError as error:
                raise DenoiseError(f"cannot write to {self._folder}: {error.message}") from error
            self._writer = None
            # A stream of TFRecords after another one is a stream of TFRecords.
            with self._part.open("rb") as part, self.path.open("ab") as file:
                while block := part.read(2**20):
                    file.write(block)
            self._part.unlink()
        return self.size

    def finish(self, count: int) -> None:
        """Write what TensorFlow needs to load ``count`` pairs."""
        with TemporaryDirectory(dir=self._folder) as beside:
            nothing = tf.data.Dataset.from_generator(lambda: iter(()), output_signature=self._spec)
            nothing.save(Path(beside).as_posix())
            metadata = snapshot_pb2.SnapshotMetadataRecord()
            metadata.ParseFromString((Path(beside) / "snapshot.metadata").read_bytes())
            (Path(beside) / "dataset_spec.pb").replace(self._folder / "dataset_spec.pb")
        metadata.run_id, metadata.num_elements = _RUN, count
        metadata.creation_timestamp = 0  # the same dataset is the same files
        (self._folder / "snapshot.metadata").write_bytes(metadata.SerializeToString())


def save(dataset: tf.data.Dataset, folder: Path, *, overwrite: bool = False) -> None:
    """Save a dataset to a folder, which appears when it is whole.

    Args:
        dataset: Any finite dataset.
        folder: Where it goes.
        overwrite: Replace the folder.

    Raises:
        UsageError: the folder exists already, or TensorFlow cannot read from such a path.
        DenoiseError: it cannot be written to, or the disk is full.
        Exception: what the dataset raises instead of an element.
    """
    check_path(folder)
    failed: list[Exception] = []
    stopped = threading.Event()

    def elements() -> Iterator[Any]:
        try:
            for element in dataset.as_numpy_iterator():
                if stopped.is_set():
                    return
                yield element
        except Exception as error:  # after an error, Dataset.save would wait for ever
            failed.append(error)

    source = tf.data.Dataset.from_generator(elements, output_signature=dataset.element_spec)
    # TensorFlow holds its thread until all is saved: from the main one, Ctrl-C could not stop it.
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
        if failed:
            raise failed[0]


def load(folder: Path) -> tf.data.Dataset:
    """Load a dataset from the folder it was saved to, in the same order.

    Raises:
        UsageError: TensorFlow cannot read from such a path.
        DatasetError: the folder holds no saved dataset.
    """
    check_path(folder)
    try:
        return tf.data.Dataset.load(Path(folder).as_posix())
    except (tf.errors.OpError, OSError, DecodeError) as error:
        raise DatasetError(f"{folder} holds no saved dataset, or a damaged one") from error


def stored_size(folder: Path) -> int:
    """Give the number of bytes that the elements of a saved dataset take."""
    return sum(path.stat().st_size for path in folder.rglob("*.snapshot"))


def check_path(folder: Path) -> None:
    """Refuse a path that TensorFlow cannot read from.

    Raises:
        UsageError: it would take the path for a pattern.
    """
    if set(Path(folder).as_posix()) & set("*?[\\"):
        raise UsageError(
            f"{folder}: TensorFlow takes a path with * ? [ or \\ in it for a pattern; "
            "choose another place for the dataset"
        )
