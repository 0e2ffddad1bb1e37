"""The chunks of WAV, RF64, W64, AIFF and CAF files, and headers whose sizes do not fit the file.

What holds for RF64 holds for BW64, too.
"""

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

_HEADERS = {
    **{b"RIFF": "<4sI", b"RF64": "<4sI", b"BW64": "<4sI", b"FORM": ">4sI"},
    **{b"riff": "<4s12xQ", b"caff": ">4sq"},
}
_FIRST_AT = {b"riff": 40, b"caff": 8}  # position of the first chunk; 12 in other files
_PADDED_TO = {b"riff": 8, b"caff": 1}  # bytes; 2 in other files
_LONG = (b"RF64", b"BW64")  # EBU Tech 3306 and ITU-R BS.2088, the same up to the name
_UNKNOWN = 2**32 - 1  # size of the data chunk of an RF64, which its ds64 chunk states
_MASK_AT = 20  # of the content of the fmt chunk
_SUBFORMAT_AT = 24
_TAGS = (b"TAG", b"ID3")  # they may follow the chunks without being one
KNOWN_CHUNKS = {
    *(b"LIST", b"INFO", b"id3 ", b"ID3 ", b"bext", b"iXML", b"_PMX", b"axml", b"cart", b"cue "),
    *(b"smpl", b"inst", b"acid", b"afsp", b"DISP", b"fact", b"PEAK", b"JUNK", b"PAD ", b"FLLR"),
    *(b"APPL", b"NAME", b"AUTH", b"(c) ", b"ANNO", b"COMT", b"MARK", b"INST", b"MIDI", b"AESD"),
}
"""Chunks that other programs write behind the sound."""

SHORTEST_SECONDS = 0.1
"""Duration of bytes behind the sound from which on they are taken for more of it."""

_AIFF_SAMPLE_BYTES = {
    **dict.fromkeys((b"ulaw", b"ULAW", b"alaw", b"ALAW", b"raw "), 1),
    **{b"in24": 3, b"in32": 4, b"fl32": 4, b"FL32": 4, b"fl64": 8, b"FL64": 8},
    **dict.fromkeys((b"", b"NONE", b"sowt", b"twos"), 0),  # as many as COMM states
}
_AU_SAMPLE_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


@dataclass(frozen=True)
class Chunk:
    """A chunk of a WAV, RF64, W64, AIFF or CAF file.

    Attributes:
        name: Its name, or the first bytes of its GUID in W64; four bytes.
        start: Position of its content in the file.
        size: Size of its content in bytes that the file states.
        end: Position after its content and padding.
        size_at: Position of the stated size in the file.
        size_format: Format of the stated size, for :mod:`struct`.
    """

    name: bytes
    start: int
    size: int
    end: int
    size_at: int
    size_format: str


def walk_chunks(raw: io.BufferedIOBase) -> Iterator[Chunk]:
    """Yield the chunks of a WAV, RF64, W64, AIFF or CAF file up to the first bytes that are none.

    The chunk walkers of mutagen are private, and know neither RF64 nor W64 nor CAF.
    """
    file_size = raw.seek(0, io.SEEK_END)
    raw.seek(0)
    kind = raw.read(4)
    if kind not in _HEADERS:
        return
    is_w64 = kind == b"riff"
    header_format = _HEADERS[kind]
    header_size = struct.calcsize(header_format)
    long_size_at = 0
    position = _FIRST_AT.get(kind, 12)
    while position + header_size <= file_size:
        raw.seek(position)
        header = raw.read(header_size)
        # The GUIDs of W64 are of version 1.
        if not (header[7] == 0x11 if is_w64 else all(32 <= byte < 127 for byte in header[:4])):
            return
        name, size = struct.unpack(header_format, header)
        start = position + header_size
        size_format = header_format[0] + header_format[-1]
        size_at = start - struct.calcsize(size_format)
        if is_w64:
            size = max(size - header_size, 0)
        elif size < 0:  # in CAF, the sound reaches to the end of the file
            size = file_size - start
        elif name == b"ds64" and kind in _LONG:
            long_size_at = start + 8
        elif name == b"data" and size == _UNKNOWN and long_size_at:
            size_at, size_format = long_size_at, "<Q"
            raw.seek(size_at)
            size = int.from_bytes(raw.read(8), "little")
        padding = -size % _PADDED_TO.get(kind, 2)
        if padding == 1 and start + size < file_size:  # some programs leave it out
            raw.seek(start + size)
            padding = 0 if raw.read(4) in KNOWN_CHUNKS else 1
        position = start + size + padding
        yield Chunk(name, start, size, position, size_at, size_format)


@dataclass(frozen=True)
class SoundLayout:
    """Position and size of the sound in a WAV, RF64, W64, AIFF or AU file.

    Attributes:
        start: Position of the first sample in bytes.
        stated: Size of the sound in bytes that the header states.
        available: Number of bytes from the first sample to the end of the file.
        trailing: Number of bytes after the stated sound that form no chunk.
        frame_bytes: Bytes per frame, or per block of a compressed format.
        byte_rate: Bytes per second.
        size_at: Position of the stated size in the file.
        size_format: Format of the stated size, for :mod:`struct`.
        counted: Number of bytes before the sound that the stated size counts as well.
        is_w64: The file is a W64, all of which libsndfile takes for sound.
    """

    start: int
    stated: int
    available: int
    trailing: int
    frame_bytes: int
    byte_rate: int
    size_at: int
    size_format: str
    counted: int = 0
    is_w64: bool = False

    @property
    def counts_header(self) -> bool:
        """Whether the stated size is too large by the size of a header."""
        excess = self.stated - self.available
        return excess > 0 and not self.is_w64 and excess in (44, 36, self.start, self.start - 8)

    @property
    def states_too_little(self) -> bool:
        """Whether the sound continues after the end that the header states."""
        return self.trailing >= max(1, self.frame_bytes, SHORTEST_SECONDS * self.byte_rate)


def sound_layout(path: Path) -> SoundLayout | None:
    """Return the layout of a file, None for other formats than those of `SoundLayout`."""
    with path.open("rb") as raw:
        head = raw.read(24)
        file_size = raw.seek(0, io.SEEK_END)
        if head.startswith(b".snd") and len(head) == 24:
            return _au_layout(head, file_size)
        is_wav = head[:4] in (b"RIFF", *_LONG) and head[8:12] == b"WAVE"
        is_aiff = head.startswith(b"FORM") and head[8:11] == b"AIF"
        is_w64 = head.startswith(b"riff\x2e\x91\xcf\x11")
        if not (is_wav or is_aiff or is_w64):
            return None
        description = b""
        chunks = walk_chunks(raw)
        for chunk in chunks:
            if chunk.name in (b"fmt ", b"COMM"):
                raw.seek(chunk.start)
                description = raw.read(min(chunk.size, 22))
            elif chunk.name in (b"data", b"SSND"):
                break
        else:
            return None
        sizes = _aiff_sizes(description) if is_aiff else _wav_sizes(description)
        if sizes is None:
            return None
        skipped = 8 if is_aiff else 0  # what SSND holds before its samples
        start = chunk.start + skipped
        sound_end = end = max(chunk.end, start)
        for chunk_behind in chunks:
            if chunk_behind.name[:3] in _TAGS:
                break
            end = chunk_behind.end
        raw.seek(min(end, file_size))
        if raw.read(3) in _TAGS:
            end = file_size
        # An odd chunk may lack the byte that pads it.
        if not is_w64 and any(
            _chunk_begins(raw, position, is_aiff, file_size)
            for position in {sound_end, chunk.start + chunk.size}
        ):
            end = file_size  # whatever follows, the stated size is right
        return SoundLayout(
            start,
            max(chunk.size - skipped, 0),
            file_size - start,
            0 if abs(file_size - end) < 8 else max(file_size - sound_end, 0),
            *sizes,
            chunk.size_at,
            chunk.size_format,
            24 if is_w64 else skipped,
            is_w64,
        )


def _chunk_begins(raw: io.BufferedIOBase, position: int, is_aiff: bool, file_size: int) -> bool:
    """Return whether a chunk is at a position: a whole one, or one of a known name that is cut."""
    if position + 8 > file_size:  # by far, if a size of 64 bits is damaged
        return False
    raw.seek(position)
    header = raw.read(8)
    name, size = struct.unpack(">4sI" if is_aiff else "<4sI", header)
    is_whole = position + 8 + size <= file_size
    return name in KNOWN_CHUNKS or (is_whole and name.replace(b" ", b"").isalnum())


def _wav_sizes(description: bytes) -> tuple[int, int] | None:
    """Return the bytes per frame and per second of a fmt chunk, None if it is damaged."""
    if len(description) < 16:
        return None
    byte_rate, frame_bytes = struct.unpack("<IH", description[8:14])
    return frame_bytes, byte_rate


def _aiff_sizes(description: bytes) -> tuple[int, int] | None:
    """Return the bytes per frame and per second of a COMM chunk, None if they are unknown."""
    sample_bytes = _AIFF_SAMPLE_BYTES.get(description[18:22])
    if len(description) < 18 or sample_bytes is None:
        return None
    channels, bits = struct.unpack(">h4xh", description[:8])
    exponent, mantissa = struct.unpack(">HQ", description[8:18])  # an 80-bit number
    shift = exponent - 16383 - 63
    sample_rate = int(mantissa * 2.0**shift) if -63 <= shift <= 0 else 0  # or it is damaged
    frame_bytes = channels * (sample_bytes or -(-bits // 8))
    return frame_bytes, frame_bytes * sample_rate


def _au_layout(head: bytes, file_size: int) -> SoundLayout | None:
    start, stated, encoding, sample_rate, channels = struct.unpack(">IIIII", head[4:])
    sample_bytes = _AU_SAMPLE_BYTES.get(encoding)
    if sample_bytes is None or start > file_size:
        return None
    frame_bytes = channels * sample_bytes
    available = file_size - start
    trailing = max(available - stated, 0)
    return SoundLayout(
        start, stated, available, trailing, frame_bytes, frame_bytes * sample_rate, 8, ">I"
    )


def read_mask(raw: io.BufferedIOBase) -> int:
    """Return the channel mask of a WAV, RF64 or W64 file; 0 if it has none."""
    position = _find_mask(raw)
    if position is None:
        return 0
    raw.seek(position)
    return int.from_bytes(raw.read(4), "little")


def write_mask(path: Path, mask: int) -> None:
    """Replace the channel mask of a WAV or RF64 file that has one."""
    with path.open("r+b") as raw:
        if (position := _find_mask(raw)) is not None:
            raw.seek(position)
            raw.write(struct.pack("<I", mask))


def _find_mask(raw: io.BufferedIOBase) -> int | None:
    """Return the position of the channel mask, None if the file has none."""
    for chunk in walk_chunks(raw):
        if chunk.name == b"fmt ":
            raw.seek(chunk.start)
            is_extensible = raw.read(2) == b"\xfe\xff" and chunk.size >= _MASK_AT + 4
            return chunk.start + _MASK_AT if is_extensible else None
    return None


def make_plain(path: Path) -> None:
    """Replace the extensible header of a WAV that libsndfile has written by a plain one.

    Older programs read only that. An RF64 stays as it is.
    """
    with path.open("r+b") as raw:
        if raw.read(4) != b"RIFF":
            return
        padding, description = islice(walk_chunks(raw), 2)
        if padding.name != b"JUNK" or description.name != b"fmt ":
            return
        raw.seek(description.start)
        layout = raw.read(description.size)
        if layout[:2] != b"\xfe\xff":
            return
        plain = layout[_SUBFORMAT_AT : _SUBFORMAT_AT + 2] + layout[2:16]
        moved = padding.size + description.size - len(plain)
        raw.seek(padding.start - 8)
        raw.write(struct.pack("<4sI", b"JUNK", moved) + bytes(moved))
        raw.write(struct.pack("<4sI", b"fmt ", len(plain)) + plain)


def write_aiff_length(path: Path, frames: int, channels: int) -> None:
    """Write the true length of an AIFF with samples of one byte.

    libsndfile counts the byte that pads an odd size as another sample.
    """
    with path.open("r+b") as raw:
        for chunk in list(walk_chunks(raw)):
            if chunk.name == b"COMM":
                raw.seek(chunk.start + 2)
                raw.write(struct.pack(">I", frames))
            elif chunk.name == b"SSND":
                raw.seek(chunk.start - 4)
                raw.write(struct.pack(">I", 8 + frames * channels))


class _View(io.RawIOBase):
    """A file that is not read as it is stored.

    A damaged header can make libsndfile seek to any position; it is limited to the file.
    """

    def __init__(self, path: Path) -> None:
        self._raw = path.open("rb")
        self._size = path.stat().st_size

    def _move(self, position: int) -> int:
        return self._raw.seek(min(max(position, 0), self._size))

    def close(self) -> None:
        """Close the file."""
        self._raw.close()
        super().close()


class Patched(_View):
    """A file that is read with other bytes at some positions.

    Args:
        path: The file.
        patches: The bytes that are read instead of those that are stored, by their positions.
    """

    def __init__(self, path: Path, patches: Mapping[int, bytes]) -> None:
        super().__init__(path)
        self._patches = patches

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._raw.tell(), io.SEEK_END: self._size}
        return self._move(base[whence] + offset)

    def readinto(self, buffer: Any) -> int:  # any writable buffer, such as that of cffi
        """Fill the buffer and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        start = self._raw.tell()
        count = self._raw.readinto(view)
        for position, replacement in self._patches.items():
            low, high = max(start, position), min(start + count, position + len(replacement))
            if low < high:
                view[low - start : high - start] = replacement[low - position : high - position]
        return count


class FileSlice(_View):
    """Part of a file.

    Args:
        path: The file.
        start: First byte.
        end: Byte after the last one.
    """

    def __init__(self, path: Path, start: int, end: int) -> None:
        super().__init__(path)
        self._start, self._end = start, end
        self._raw.seek(start)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._raw.tell(), io.SEEK_END: self._end}
        return self._move(max(base[whence] + offset, self._start)) - self._start

    def readinto(self, buffer: Any) -> int:  # any writable buffer, such as that of cffi
        """Fill the buffer and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        return self._raw.readinto(view[: max(self._end - self._raw.tell(), 0)])


def with_all_sound(path: Path, layout: SoundLayout) -> Patched:
    """Open a file as if its header stated all the sound that is there."""
    size = layout.available
    largest = 256 ** struct.calcsize(layout.size_format) - 1
    replacement = struct.pack(layout.size_format, min(size + layout.counted, largest))
    if layout.size_format == "<Q" and not layout.is_w64:  # in RF64 the number of frames follows
        replacement += struct.pack("<Q", size // (layout.frame_bytes or 1))
    return Patched(path, {layout.size_at: replacement, **_for_libsndfile(path)})


def as_libsndfile_knows(path: Path) -> Patched | None:
    """Open a BW64 as RF64, and a CAF that was written to a pipe as if it stated its length.

    Returns:
        None for other files.
    """
    patches = _for_libsndfile(path)
    return Patched(path, patches) if patches else None


def _for_libsndfile(path: Path) -> dict[int, bytes]:
    """Return the bytes of a header that libsndfile does not know, as those that it knows."""
    with path.open("rb") as raw:
        kind = raw.read(4)
        if kind == b"BW64":
            return {0: b"RF64"}
        if kind == b"caff":
            for chunk in walk_chunks(raw):
                if chunk.name == b"data":
                    return {chunk.size_at: struct.pack(chunk.size_format, chunk.size)}
    return {}
