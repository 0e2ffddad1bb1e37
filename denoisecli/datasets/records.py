"""Pairs as TFRecords, in the format that ``tf.data.Dataset.load`` reads.

They are written and read at random without TensorFlow, which takes seconds to import. TFRecord
files can be concatenated.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from denoisecli.datasets.choices import Kind
from denoisecli.datasets.manifest import MANIFEST, Manifest
from denoisecli.errors import DatasetError, UsageError
from denoisecli.types import AudioVector

RUN_ID = "1"
"""Name of a folder, for which TensorFlow draws a random number."""


def records_file(folder: Path) -> Path:
    """Return the path of the records of a stored set, given its folder."""
    return folder / RUN_ID / "00000000.shard" / "00000000.snapshot"


def speech_file(folder: Path) -> Path:
    """Return the path of the reverberant speech of a stored set, given its folder.

    It holds the float32 samples of all clean parts that lack reverberation of their mixture, as
    they are in the mixture, in the order of the rows. A set without rooms has no such file.
    """
    return folder / "speech.f32"


def write_tensor(file: BinaryIO, tensor: Float[np.ndarray, "..."]) -> None:
    """Write one record that holds a serialized float32 tensor; needs the extra ``train``."""
    from google_crc32c import value as crc32c

    def checksum(data: bytes) -> bytes:
        crc = crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)  # masked

    # The fields of TensorProto: dtype, tensor_shape and tensor_content. A field of 0 is left out.
    content = np.ascontiguousarray(tensor, np.dtype("<f4")).tobytes()
    dimensions = [b"\x08" + _varint(size) if size else b"" for size in tensor.shape]
    shape = b"".join(b"\x12" + _varint(len(dimension)) + dimension for dimension in dimensions)
    data = b"\x08\x01\x12" + _varint(len(shape)) + shape
    if content:
        data += b"\x22" + _varint(len(content)) + content
    length = struct.pack("<Q", len(data))
    file.write(length + checksum(length))
    file.write(data)
    file.write(checksum(data))


class PairRecords:
    """The pairs of a stored set of waveforms, read from a memory map in any order.

    Args:
        folder: Folder of the set.
        samples: Length of each pair in samples, in the order of the manifest's rows.
        reverberant: Whether each pair is of speech in a room; by default none is.

    Raises:
        DatasetError: The records are missing, or differ from these lengths.
    """

    def __init__(
        self, folder: Path, samples: Sequence[int], reverberant: Sequence[bool] | None = None
    ) -> None:
        path = records_file(folder)
        self._samples = np.asarray(samples, np.int64)
        try:
            self._bytes = np.memmap(path, np.uint8, "r")
            # A record holds its length (8 bytes), a checksum (4), the data, and a checksum (4).
            ends = []
            end = 0
            while end < len(self._bytes):
                (length,) = struct.unpack("<Q", self._bytes[end : end + 8].tobytes())
                end += 16 + length
                ends.append(end - 4)
        except (OSError, ValueError, struct.error) as error:
            raise DatasetError(f"{path} cannot be read: {error}") from error
        if end != len(self._bytes) or len(ends) != 2 * len(self._samples):
            raise DatasetError(f"{path} is damaged: its records are not those of the manifest")
        self._ends = np.asarray(ends, np.int64).reshape(-1, 2)

        self._speech: np.memmap | None = None
        self._reverberant = np.asarray(reverberant or [False] * len(self._samples))
        path = speech_file(folder)
        if self._reverberant.any() and path.exists():
            self._speech = np.memmap(path, np.dtype("<f4"), "r")
            self._speech_ends = np.cumsum(self._samples * self._reverberant)
            if self._speech_ends[-1] != len(self._speech):
                raise DatasetError(f"{path} is damaged: its length is not that of the manifest")

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def has_speech(self) -> bool:
        """Whether reverberant speech is stored; sets of earlier versions lack it."""
        return self._speech is not None

    def speech(self, index: int) -> AudioVector:
        """Return the clean part of a pair with all reverberation that it has in the mixture."""
        if self._speech is None or not self._reverberant[index]:
            return self[index][1]
        end = int(self._speech_ends[index])
        return self._speech[end - int(self._samples[index]) : end]

    def __getitem__(self, index: int) -> tuple[AudioVector, AudioVector]:
        """Return a pair (noisy, clean); both are views of the file."""
        size = 4 * int(self._samples[index])  # the samples are the last field of a record
        noisy, clean = (self._bytes[end - size : end].view("<f4") for end in self._ends[index])
        return noisy, clean


def open_records(folder: Path, manifest: Manifest, name: str) -> PairRecords:
    """Open the pairs of one set of a dataset, in the order of the manifest's rows.

    Args:
        folder: The folder of the manifest.
        manifest: The manifest.
        name: Name of the set, whatever its folder is called.

    Raises:
        DatasetError: There is no such set, it is damaged, or its pairs are spectrograms.
    """
    facts = manifest.facts(folder, name, Kind.WAVEFORM)
    set_folder = Path(folder) / facts.folder
    path = records_file(set_folder)
    if path.exists() and path.stat().st_size != facts.bytes:
        raise DatasetError(f"{set_folder} is damaged: its size differs from that in {MANIFEST}")
    rows = manifest.rows(name)
    return PairRecords(
        set_folder, [row.samples for row in rows], [row.room is not None for row in rows]
    )


def append_records(source: Path, target: Path, size: int) -> None:
    """Move the records of one file to the end of another one.

    When it was interrupted, it can be repeated.

    Args:
        source: The file to be appended; it is removed.
        target: The file that grows.
        size: Size of ``target`` in bytes before; what an interrupted call wrote there is removed.

    Raises:
        DatasetError: ``target`` is smaller than ``size``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("ab") as file:
        check_size(target, size)
        file.truncate(size)
        with source.open("rb") as records:
            while block := records.read(2**20):
                file.write(block)
    source.unlink()


def check_size(path: Path, size: int) -> None:
    """Raise DatasetError if a file is smaller than ``size`` bytes."""
    if path.stat().st_size < size:
        raise DatasetError(f"{path} is damaged: it is shorter than expected")


def check_path(folder: Path) -> None:
    """Raise UsageError for a path that TensorFlow would take for a pattern."""
    if set(Path(folder).as_posix()) & set("*?[\\"):
        raise UsageError(
            f"{folder}: TensorFlow treats * ? [ \\ in a path as a pattern; choose another folder "
            "for the dataset"
        )


def _varint(number: int) -> bytes:
    """Encode a number as protocol buffers do: 7 bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
