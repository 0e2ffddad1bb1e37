"""Pairs as TFRecords, in the format that ``tf.data.Dataset.load`` reads.

They are written without TensorFlow, which takes seconds to import: processes that only mix do
without it. TFRecord files can be concatenated.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from denoisecli.errors import DatasetError, UsageError

RUN_ID = "1"
"""Name of a folder, for which TensorFlow draws a random number."""


def records_file(folder: Path) -> Path:
    """Return the path of the records of a stored set, given its folder."""
    return folder / RUN_ID / "00000000.shard" / "00000000.snapshot"


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
            f"{folder}: TensorFlow takes a path that contains * ? [ or \\ for a pattern; choose "
            "another folder for the dataset"
        )


def _varint(number: int) -> bytes:
    """Encode a number as protocol buffers do: 7 bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
