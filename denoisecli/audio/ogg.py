"""Chained Ogg files: several recordings in one file, one after the other (RFC 3533, section 4)."""

import io
from pathlib import Path

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
