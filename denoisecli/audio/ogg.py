"""Chained Ogg files: several recordings in one file, one after the other (RFC 3533, section 4)."""

import io
from pathlib import Path
from typing import Any

_HEADER = 27  # bytes of a page before its segment table
_SEARCH = 2**16


def ogg_links(path: Path) -> list[tuple[int, int]]:
    """Return the start and end of each link of an Ogg file, in bytes; none of another file."""
    starts = [0]
    with path.open("rb") as raw:
        if raw.read(4) != b"OggS":
            return []
        size = raw.seek(0, io.SEEK_END)
        position, in_headers = 0, True
        while position + _HEADER <= size:
            raw.seek(position)
            page = raw.read(_HEADER)
            if not page.startswith(b"OggS"):
                position = _next_page(raw, position + 1)
                continue
            is_first = bool(page[5] & 2)  # the page begins a logical stream
            if is_first and not in_headers:
                starts.append(position)
            in_headers = is_first
            position += _HEADER + page[26] + sum(raw.read(page[26]))
    return list(zip(starts, [*starts[1:], size], strict=True))


def _next_page(raw: io.BufferedReader, position: int) -> int:
    """Return the position of the next page, or of the end of the file."""
    raw.seek(position)
    while piece := raw.read(_SEARCH):
        found = piece.find(b"OggS")
        if found >= 0:
            return position + found
        position += max(len(piece) - 3, 1)
        raw.seek(position)
        if len(piece) < _SEARCH:
            break
    return raw.seek(0, io.SEEK_END)


class FileSlice(io.RawIOBase):
    """Part of a file.

    Args:
        path: The file.
        start: First byte.
        end: Byte after the last one.
    """

    def __init__(self, path: Path, start: int, end: int) -> None:
        self._raw = path.open("rb")
        self._start, self._end = start, end
        self._raw.seek(start)

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._raw.tell(), io.SEEK_END: self._end}
        return self._raw.seek(max(base[whence] + offset, self._start)) - self._start

    def tell(self) -> int:
        """Return the position."""
        return self._raw.tell() - self._start

    def readinto(self, buffer: Any) -> int:  # any writable buffer, such as that of cffi
        """Fill the buffer and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        return self._raw.readinto(view[: max(self._end - self._raw.tell(), 0)])

    def close(self) -> None:
        """Close the file."""
        self._raw.close()
        super().close()
