"""The chunks of WAV, RF64, W64, AIFF and AU files, and headers whose sizes do not fit the file."""

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MASK_AT = 20  # of the content of the fmt chunk
_SHORTEST_SECONDS = 0.1  # bytes behind the sound that are worth reading


@dataclass(frozen=True)
class SoundLayout:
    """Where the sound of a WAV, RF64, W64, AIFF or AU file is.

    Attributes:
        size_at: Position of the size of the data chunk in the file; it has 8 bytes in RF64.
        start: Position of the first sample in bytes.
        stated: Size of the sound in bytes that the header states.
        available: Number of bytes from the first sample to the end of the file.
        frame_bytes: Bytes per frame, or per block of a compressed format.
        byte_rate: Bytes per second.
        is_rf64: The file is an RF64.
        trailing: Number of bytes behind the data chunk that form no chunk.
        mask: Channel mask; 0 if the header states none.
        is_big_endian: The file is an AIFF or AU.
        is_w64: The file is a W64, all of which libsndfile takes for sound.
        counted: Number of bytes before the sound that the stated size in the file counts as well.
    """

    size_at: int
    start: int
    stated: int
    available: int
    frame_bytes: int
    byte_rate: int
    is_rf64: bool
    trailing: int
    mask: int = 0
    is_big_endian: bool = False
    is_w64: bool = False
    counted: int = 0

    @property
    def counts_header(self) -> bool:
        """Whether the stated size is too large by the size of a header."""
        excess = self.stated - self.available
        return excess > 0 and not self.is_w64 and excess in (44, 36, self.start, self.start - 8)

    @property
    def states_too_little(self) -> bool:
        """Whether sound goes on behind the end that the header states."""
        return self.trailing >= max(self.frame_bytes, _SHORTEST_SECONDS * self.byte_rate)


def sound_layout(path: Path) -> SoundLayout | None:
    """Return where the sound of a file is, None for other formats than those of `SoundLayout`."""
    with path.open("rb") as raw:
        head = raw.read(24)
        if head.startswith(b"FORM") and head[8:11] == b"AIF":
            return _aiff_layout(raw)
        if head.startswith(b".snd") and len(head) == 24:
            return _au_layout(head, raw.seek(0, io.SEEK_END))
        if head.startswith(_W64_RIFF):
            return _w64_layout(raw)
        head = head[:12]
        if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            return None
        is_rf64 = head.startswith(b"RF64")
        size = raw.seek(0, io.SEEK_END)
        position, layout, size_at, stated = 12, b"", 0, 0
        while position + 8 <= size:
            raw.seek(position)
            name, length = struct.unpack("<4sI", raw.read(8))
            if name == b"ds64":
                size_at = position + 16
                stated = int.from_bytes(raw.read(16)[8:], "little")
            elif name == b"fmt ":
                layout = raw.read(min(length, 40))
            elif name == b"data":
                break
            position += 8 + length + length % 2
        else:
            return None
        if len(layout) < 16:
            return None
        if not is_rf64 or length != 2**32 - 1 or not size_at:
            size_at, stated, is_rf64 = position + 4, length, False
        start = position + 8
        byte_rate, frame_bytes = struct.unpack("<IH", layout[8:14])
        end = start + stated + stated % 2
        return SoundLayout(
            size_at,
            start,
            stated,
            size - start,
            frame_bytes,
            byte_rate,
            is_rf64,
            0 if end >= size or _are_chunks(raw, end, size) else size - end,
            mask_of(layout),
        )


_AIFF_SAMPLE_BYTES = {
    **dict.fromkeys((b"ulaw", b"ULAW", b"alaw", b"ALAW", b"raw "), 1),
    **{b"in24": 3, b"in32": 4, b"fl32": 4, b"FL32": 4, b"fl64": 8, b"FL64": 8},
    **dict.fromkeys((b"", b"NONE", b"sowt", b"twos"), 0),  # as many as COMM states
}
_AU_SAMPLE_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


def _aiff_layout(raw: io.BufferedReader) -> SoundLayout | None:
    size = raw.seek(0, io.SEEK_END)
    position, common = 12, b""
    while position + 8 <= size:
        raw.seek(position)
        name, length = struct.unpack(">4sI", raw.read(8))
        if name == b"COMM":
            common = raw.read(min(length, 22))
        elif name == b"SSND":
            break
        position += 8 + length + length % 2
    else:
        return None
    sample_bytes = _AIFF_SAMPLE_BYTES.get(common[18:22])
    if len(common) < 18 or sample_bytes is None:
        return None
    channels, bits = struct.unpack(">h4xh", common[:8])
    exponent, mantissa = struct.unpack(">HQ", common[8:18])  # an 80-bit number
    sample_rate = int(mantissa * 2.0 ** (exponent - 16383 - 63)) if exponent < 2**15 else 0
    frame_bytes = channels * (sample_bytes or -(-bits // 8))
    start, stated = position + 16, max(length - 8, 0)
    end = start + stated + stated % 2
    return SoundLayout(
        position + 4,
        start,
        stated,
        size - start,
        frame_bytes,
        frame_bytes * sample_rate,
        False,
        0 if end >= size or _are_chunks(raw, end, size, ">") else size - end,
        is_big_endian=True,
        counted=8,
    )


_W64_RIFF = b"riff\x2e\x91\xcf\x11"  # names of chunks are GUIDs; these are their first bytes
_W64_TAIL = b"\xf3\xac\xd3\x11"


def _w64_layout(raw: io.BufferedReader) -> SoundLayout | None:
    size = raw.seek(0, io.SEEK_END)
    position, layout = 40, b""
    while position + 24 <= size:
        raw.seek(position)
        name, length = struct.unpack("<16sQ", raw.read(24))
        if name.startswith(b"fmt " + _W64_TAIL):
            layout = raw.read(min(max(length - 24, 0), 40))
        elif name.startswith(b"data" + _W64_TAIL):
            break
        position += max((length + 7) // 8 * 8, 24)
    else:
        return None
    if len(layout) < 16:
        return None
    byte_rate, frame_bytes = struct.unpack("<IH", layout[8:14])
    start, stated = position + 24, max(length - 24, 0)
    end = position + (length + 7) // 8 * 8
    raw.seek(end)
    is_chunk = raw.read(8)[4:] == _W64_TAIL
    return SoundLayout(
        position + 16,
        start,
        stated,
        size - start,
        frame_bytes,
        byte_rate,
        False,
        0 if end >= size or is_chunk else size - end,
        is_w64=True,
        counted=24,
    )


def _au_layout(head: bytes, size: int) -> SoundLayout | None:
    start, stated, encoding, sample_rate, channels = struct.unpack(">IIIII", head[4:])
    sample_bytes = _AU_SAMPLE_BYTES.get(encoding)
    if sample_bytes is None or start > size:
        return None
    frame_bytes = channels * sample_bytes
    byte_rate = frame_bytes * sample_rate
    trailing = max(size - start - stated, 0)
    return SoundLayout(
        8, start, stated, size - start, frame_bytes, byte_rate, False, trailing, is_big_endian=True
    )


def mask_of(layout: bytes) -> int:
    """Return the channel mask in the content of a fmt chunk; 0 if there is none."""
    is_extensible = layout.startswith(b"\xfe\xff") and len(layout) >= _MASK_AT + 4
    return int.from_bytes(layout[_MASK_AT : _MASK_AT + 4], "little") if is_extensible else 0


def write_mask(path: Path, mask: int) -> None:
    """Replace the channel mask of a WAV or RF64 file that has one."""
    with path.open("r+b") as raw:
        position = 12
        while len(head := _at(raw, position, 10)) == 10:
            name, length = struct.unpack("<4sI", head[:8])
            if name == b"fmt " and head.endswith(b"\xfe\xff"):
                raw.seek(position + 8 + _MASK_AT)
                raw.write(struct.pack("<I", mask))
            if name in (b"fmt ", b"data"):
                return
            position += 8 + length + length % 2


def _at(raw: io.BufferedRandom, position: int, count: int) -> bytes:
    raw.seek(position)
    return raw.read(count)


def _are_chunks(raw: io.BufferedReader, position: int, size: int, order: str = "<") -> bool:
    """Return whether the end of a file consists of chunks, or of a tag without one."""
    while position + 8 <= size:
        raw.seek(position)
        name, length = struct.unpack(f"{order}4sI", raw.read(8))
        if name.startswith((b"TAG", b"ID3")):
            return True
        if not all(32 <= byte < 127 for byte in name) or position + 8 + length > size + 1:
            return False
        position += 8 + length + length % 2
    return True


class Patched(io.RawIOBase):
    """A file that is read with other bytes at one position.

    Args:
        path: The file.
        position: Position of the first byte that is replaced.
        replacement: The bytes that are read there.
    """

    def __init__(self, path: Path, position: int, replacement: bytes) -> None:
        self._raw = path.open("rb")
        self._position, self._replacement = position, replacement

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._raw.tell()

    def readinto(self, buffer: Any) -> int:  # any writable buffer, such as that of cffi
        """Fill the buffer and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        start = self._raw.tell()
        count = self._raw.readinto(view)
        low = max(start, self._position)
        high = min(start + count, self._position + len(self._replacement))
        if low < high:
            view[low - start : high - start] = self._replacement[
                low - self._position : high - self._position
            ]
        return count

    def close(self) -> None:
        """Close the file."""
        self._raw.close()
        super().close()


def with_all_sound(path: Path, layout: SoundLayout) -> Patched:
    """Open a file as if its header stated all the sound that is there."""
    size = layout.available
    if layout.is_w64:
        return Patched(path, layout.size_at, struct.pack("<Q", size + layout.counted))
    if not layout.is_rf64:
        order = ">" if layout.is_big_endian else "<"
        stated = min(size + layout.counted, 2**32 - 1)
        return Patched(path, layout.size_at, struct.pack(f"{order}I", stated))
    return Patched(path, layout.size_at, struct.pack("<QQ", size, size // layout.frame_bytes))
