"""Files that hold more than one header says: joined byte by byte, or FLAC with a wrong length."""

import io
import re
from pathlib import Path

from denoisecli.audio.integrity import skip_id3
from denoisecli.audio.ogg import find_bytes
from denoisecli.audio.riff import Patched, walk_chunks

FLAC_STARTS = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")
"""Marker of a FLAC stream, and the header of its first block, STREAMINFO, of 34 bytes.

The second one is that of a stream without further blocks.
"""

_CHUNKED = (b"RIFF", b"RF64", b"FORM", b"riff", b"caff")
_TOTAL_AT = 21  # low four bits, and four more bytes: the number of samples in STREAMINFO
_TAIL = 2**17
_FRAME = re.compile(rb"\xff[\xf8\xf9](?=.{4})", re.DOTALL)
_LONGEST_HEADER = 16  # bytes of a frame's header


def second_start(path: Path, *, in_flac: bool = True) -> int | None:
    """Return the position of the header of a second recording in a file; None if there is none.

    Args:
        path: Audio file.
        in_flac: Also search a FLAC file, all of which is read for it.
    """
    with path.open("rb") as raw:
        skip_id3(raw)
        begin = raw.tell()
        head = raw.read(4)
        if head in _CHUNKED and begin == 0:
            name_bytes = 16 if head == b"riff" else 4
            seconds = (chunk for chunk in walk_chunks(raw) if chunk.name == head)
            return next((chunk.size_at - name_bytes for chunk in seconds), None)
        if not in_flac or head != b"fLaC":
            return None
        position = find_bytes(raw, b"fLaC", begin + 4)
        while position is not None:
            raw.seek(position)
            if raw.read(8) in FLAC_STARTS:
                break
            position = find_bytes(raw, b"fLaC", position + 4)
        return position


def with_all_flac(path: Path) -> tuple[Patched, int, int, int] | None:
    """Open a FLAC file whose header states fewer samples than its last frame has.

    Returns:
        The file with the right number in its header, the stated number of samples, the right one,
        and the sample rate in Hz; None if the header is right.
    """
    with path.open("rb") as raw:
        skip_id3(raw)
        begin = raw.tell()
        head = raw.read(42)
        raw.seek(max(raw.seek(0, io.SEEK_END) - _TAIL, 0))
        tail = raw.read()
    rate = int.from_bytes(head[18:21], "big") >> 4
    if not head.startswith(FLAC_STARTS) or len(head) < 42 or rate == 0:
        return None
    stated = int.from_bytes(head[_TOTAL_AT : _TOTAL_AT + 5], "big") & 0xF_FFFF_FFFF
    found = _end_of_last_frame(tail, int.from_bytes(head[8:10], "big"), stated)
    if stated == 0 or found == stated or second_start(path) is not None:
        return None
    right = bytes([head[_TOTAL_AT] & 0xF0 | found >> 32]) + (found & 0xFFFF_FFFF).to_bytes(4, "big")
    return Patched(path, {begin + _TOTAL_AT: right}), stated, found, rate


def _end_of_last_frame(tail: bytes, block_size: int, stated: int) -> int:
    """Return the number of samples up to the end of the last frame of a FLAC stream.

    The first bytes of a frame also occur by chance within frames. A frame therefore counts only if
    the frame before it ends where its number says, and has the right checksum.

    Args:
        tail: The last bytes of the stream.
        block_size: Number of samples of a frame, where all have the same.
        stated: The number of samples that the header states, returned if no frame is beyond it.
    """
    end = stated
    before: dict[int, list[int]] = {}  # positions of frames by the sample after their last one
    for match in _FRAME.finditer(tail):
        position = match.start()
        if (frame := _frame(tail[position : position + _LONGEST_HEADER], block_size)) is None:
            continue
        first, length = frame
        if first + length > end and any(
            _crc16(tail[start:position]) == 0 for start in before.get(first, ())
        ):
            end = first + length
        before.setdefault(first + length, []).append(position)
    return end


def _frame(data: bytes, block_size: int) -> tuple[int, int] | None:
    """Return the first sample and the number of samples of a frame; None if it is none.

    See RFC 9639, section 9.1.
    """
    size_code, rate_code = data[2] >> 4, data[2] & 15
    if size_code == 0 or rate_code == 15 or data[3] & 1:  # reserved
        return None
    lead = data[4]
    count = 1 if lead < 0x80 else 8 - (~lead & 0xFF).bit_length()  # bytes of the coded number
    number = lead & (0x7F if count == 1 else 0x7F >> count)
    for byte in data[5 : 4 + count]:
        number = number << 6 | byte & 0x3F
    end = 4 + count
    if size_code in (6, 7):
        length = int.from_bytes(data[end : end + size_code - 5], "big") + 1
        end += size_code - 5
    else:
        length = (
            192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 1 << size_code
        )
    end += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if _crc8(data[: end + 1]):
        return None
    return (number if data[1] & 1 else number * block_size), length


def _crc8(data: bytes) -> int:
    """Return the checksum of a header; 0 if the last byte is the right one."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ (0x07 if value & 0x80 else 0)) & 0xFF
    return value


def _crc16(data: bytes) -> int:
    """Return the checksum of a frame; 0 if the last two bytes are the right ones."""
    value = 0
    for byte in data:
        value = (value << 8 & 0xFF00) ^ _CRC16[value >> 8 ^ byte]
    return value


def _crc16_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << 8
        for _ in range(8):
            value = (value << 1 ^ (0x8005 if value & 0x8000 else 0)) & 0xFFFF
        table.append(value)
    return tuple(table)


_CRC16 = _crc16_table()
