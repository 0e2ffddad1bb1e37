"""Chained Ogg files: several recordings in one file, one after the other (RFC 3533, section 4)."""

import io
from pathlib import Path

_HEADER = 27  # bytes of a page before its segment table
_SEARCH = 2**16  # bytes that are read at a time


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
                found = find_bytes(raw, b"OggS", position + 1)
                if found is None:
                    break
                position = found
                continue
            is_first = bool(page[5] & 2)  # the page begins a logical stream
            if is_first and not in_headers:
                starts.append(position)
            in_headers = is_first
            position += _HEADER + page[26] + sum(raw.read(page[26]))
    return list(zip(starts, [*starts[1:], size], strict=True))


def find_bytes(raw: io.BufferedReader, wanted: bytes, position: int) -> int | None:
    """Return where some bytes occur next in a file, from a position on; None if nowhere."""
    raw.seek(position)
    kept = b""
    while piece := raw.read(_SEARCH):
        found = (kept + piece).find(wanted)
        if found >= 0:
            return position - len(kept) + found
        position += len(piece)
        kept = (kept + piece)[1 - len(wanted) :]
    return None
