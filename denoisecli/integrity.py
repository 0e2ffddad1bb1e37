"""Signs that an audio file is cut off: what is there is less than what it says it has."""

import re
from pathlib import Path

import soundfile

UNKNOWN_FRAMES = 2**62
"""libsndfile gives this many frames or more for a FLAC stream that does not say its length."""

# libsndfile's log of a header, where a size in it is larger than the file:
# "data : 768000 (should be 460782)", in AIFF "SSND", in W64 "riff", in AU "Data Size".
_SIZES = re.compile(r"^ *(?:data|SSND|riff|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_RF64_FRAMES = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_TAIL = 2**17  # an Ogg page has at most 65307 bytes


def promised_frames(path: Path, file: soundfile.SoundFile) -> int | None:
    """Give the number of frames that the file says it has; None where it says nothing.

    It is more than can be read if the file is cut off.
    """
    if file.frames >= UNKNOWN_FRAMES:
        return None
    if file.format == "MP3" and not _has_frame_count(path):
        return None  # the number is a guess from the bit rate
    if rf64 := _RF64_FRAMES.search(file.extra_info):
        return int(rf64[2])
    if sizes := _SIZES.search(file.extra_info):
        promised, there = int(sizes[1]), int(sizes[2])
        if there == 0 or is_unknown_size(promised):
            return None
        if promised > there:
            return file.frames * promised // there
    return file.frames


def is_unknown_size(size: int) -> bool:
    """Tell whether a size in bytes is one of those that stand for a stream without an end yet."""
    return any(limit - 2**16 <= size < limit for limit in (2**31, 2**32))


def lacks_its_end(path: Path, file: soundfile.SoundFile) -> bool:
    """Tell whether an Ogg file ends without the page that is marked as its last."""
    if file.format != "OGG":
        return False
    with path.open("rb") as raw:
        raw.seek(max(path.stat().st_size - _TAIL, 0))
        tail = raw.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    if start < 0 or len(page) < 27:
        return True
    segments = page[26]  # RFC 3533, section 6: flags in byte 5, segment table from byte 27 on
    size = 27 + segments + sum(page[27 : 27 + segments])
    return not page[5] & 4 or len(page) < size


def _has_frame_count(path: Path) -> bool:
    """Tell whether an MP3 file begins with a Xing/Info frame, which counts the others."""
    with path.open("rb") as raw:
        head = raw.read(10)
        if head.startswith(b"ID3"):  # its size has seven bits per byte
            size = 0
            for byte in head[6:10]:
                size = size << 7 | byte
            raw.seek(10 + size)
        else:
            raw.seek(0)
        frame = raw.read(2048)
    return b"Xing" in frame or b"Info" in frame
