"""Signs that an audio file is cut off: what is there is less than what it says it has."""

import io
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


def holds_more(path: Path, file: soundfile.SoundFile) -> bool:
    """Tell whether libsndfile would stop before the end of an MP3 file.

    It reads as many samples as the first frame says or lets expect, which is too few where files
    were joined, or where the bit rate varies and nothing was counted.
    """
    return file.format == "MP3" and _mp3_timesteps(path) > file.frames + 4 * 1152


def _mp3_timesteps(path: Path) -> int:
    """Add up the frames of an MP3 file, by their headers."""
    timesteps = 0
    with path.open("rb") as raw:
        _skip_id3(raw)
        while len(header := raw.read(4)) == 4:
            size, samples = _mp3_frame(header)
            timesteps += samples
            raw.seek(size - 4 if size else -3, io.SEEK_CUR)  # to the next one, or to look for it
    return timesteps


def _mp3_frame(header: bytes) -> tuple[int, int]:
    """Give the bytes and timesteps of a frame (ISO 11172-3, section 2.4.2.3); 0 if it is none."""
    first, high, low, _ = header
    version, rate_index, bitrate = high >> 3 & 3, low >> 2 & 3, low >> 4
    is_layer_3 = first == 0xFF and high & 0xE6 == 0xE2
    if not is_layer_3 or version == 1 or rate_index == 3:
        return 0, 0
    kbits = _KBITS_1[bitrate] if version == 3 else _KBITS_2[bitrate]
    if not kbits:
        return 0, 0
    sample_rate = (44100, 48000, 32000)[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    samples = 1152 if version == 3 else 576
    return samples // 8 * kbits * 1000 // sample_rate + (low >> 1 & 1), samples


_KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)


def _has_frame_count(path: Path) -> bool:
    """Tell whether an MP3 file begins with a Xing/Info frame, which counts the others."""
    with path.open("rb") as raw:
        _skip_id3(raw)
        frame = raw.read(2048)
    return b"Xing" in frame or b"Info" in frame


def _skip_id3(raw: io.BufferedReader) -> None:
    """Go behind the tag at the beginning of an MP3 file."""
    head = raw.read(10)
    size = -10
    if head.startswith(b"ID3"):
        size = 0
        for byte in head[6:]:  # seven bits in each
            size = size << 7 | byte
    raw.seek(10 + size)
