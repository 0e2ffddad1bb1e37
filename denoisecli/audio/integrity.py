"""The number of samples that an audio file claims to hold, to detect one that is cut off."""

import io
import re
import struct
from pathlib import Path

import soundfile

from denoisecli.audio.riff import sound_layout, walk_chunks

UNKNOWN_FRAMES = 2**62
"""libsndfile reports this many frames or more for a FLAC stream without a length."""

# libsndfile's log of a header whose sizes exceed the file:
# "data : 768000 (should be 460782)", in AIFF "SSND", in W64 "riff", in AU "Data Size".
_SIZES = re.compile(r"^ *(?:data|SSND|riff|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_TAG_HEADER = 32  # bytes of the longer one, that of APE
_IS_HEADER = 1 << 29  # among the flags of APEv2
_TAG_OR_FRAME = re.compile(
    rb"ID3[\x02-\x04].{2}[\x00-\x7f]{4}|APETAGEX.{24}|\xff[\xe2-\xff]", re.DOTALL
)
_TAIL = 2**17  # an Ogg page has at most 65307 bytes


def promised_frames(path: Path, file: soundfile.SoundFile) -> int | None:
    """Return the number of frames that the header of a file states, None if it states none.

    If the file is cut off, it is more than can be read.
    """
    if file.frames >= UNKNOWN_FRAMES:
        return None
    if file.format == "MP3" and not has_frame_count(path):
        return None  # libsndfile estimates it from the bit rate
    if file.format in ("RF64", "W64", "CAF") and (sound := _sound_sizes(path)) is not None:
        stated, available = sound
        return max(file.frames, -(-file.frames * stated // max(available, 1)))
    if sizes := _SIZES.search(file.extra_info):
        promised, present = int(sizes[1]), int(sizes[2])
        if present == 0 or is_unknown_size(promised):
            return None
        if promised > present:
            return -(-file.frames * promised // present)  # a part of a frame is missing at least
    return file.frames


def _sound_sizes(path: Path) -> tuple[int, int] | None:
    """Return the stated size of the sound in bytes, and that of the file from its start on."""
    if (layout := sound_layout(path)) is not None:
        return layout.stated, layout.available
    with path.open("rb") as raw:
        file_size = raw.seek(0, io.SEEK_END)
        for chunk in walk_chunks(raw):
            if chunk.name == b"data":
                return chunk.size - 4, file_size - chunk.start - 4  # behind the number of edits
    return None


def is_unknown_size(size: int) -> bool:
    """Return whether a size in bytes is a placeholder for a stream that has not ended yet.

    ffmpeg writes 2**32 - 1 or 0, sox 0x7F000000 or 0x7FFFF000, and arecord 2**31. Some programs
    subtract the size of the header, or round down to whole frames.
    """
    placeholders = (0x7F00_0000, 2**31, 2**32)
    return size == 0 or any(limit - 2**16 <= size <= limit + 8 for limit in placeholders)


def lacks_its_end(path: Path, container: str) -> bool:
    """Return whether a file was cut off, as its content shows.

    An Ogg file lacks the page that is marked as the last one; an MP3 file has fewer bytes than its
    Xing header states.
    """
    if container == "MP3":
        return _lacks_bytes(path)
    if container != "OGG":
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
    """Return whether libsndfile would stop before the end of an MP3 file.

    libsndfile trusts the first frame: it reads as many samples as its Xing header states, or as
    its bit rate suggests. That is too few for joined files, and for a variable bit rate without
    a header.
    """
    if file.format != "MP3":
        return False
    slack = 4 * 1152 if has_frame_count(path) else 0  # the delay and the padding of the coder
    return _mp3_timesteps(path) > file.frames + slack


def _mp3_timesteps(path: Path) -> int:
    """Return the number of timesteps of an MP3 file, summed over its frames.

    mutagen is not a substitute: its length comes from the first frame as well, and is 1/3 of the
    true one for three joined files, and 0.2 to 0.4 of it for a variable bit rate without a header.
    """
    timesteps = 0
    with path.open("rb") as raw:
        skip_id3(raw)
        while len(header := raw.read(4)) == 4:
            size, samples = _mp3_frame(header)
            timesteps += samples
            raw.seek(size - 4 if size else -4, io.SEEK_CUR)
            if not size and not _seek_mp3_frame(raw):
                break
    return timesteps


def _seek_mp3_frame(raw: io.BufferedReader) -> bool:
    """Move past tags and other bytes to the next frame that another one of its kind follows.

    Returns:
        False if there is none.
    """
    position = raw.tell()
    while len(data := raw.read(2**16)) >= _TAG_HEADER:
        step = len(data) - _TAG_HEADER + 1  # the header of a tag may be cut off
        for match in _TAG_OR_FRAME.finditer(data):
            if size := _tag_size(match[0]):
                step = match.start() + size
                break
            if _is_followed(raw, position + match.start()):
                raw.seek(position + match.start())
                return True
        position += step
        raw.seek(position)
    return False


def _tag_size(head: bytes) -> int:
    """Return the size in bytes of an ID3v2 or APE tag from its header on; 0 for anything else.

    The footer of an APE tag, which may have no header, follows what it describes.
    """
    if head.startswith(b"ID3"):
        return 10 + _id3_size(head)
    if head.startswith(b"APETAGEX"):
        size, _, flags = struct.unpack("<III", head[12:24])
        return _TAG_HEADER + (size if flags & _IS_HEADER else 0)
    return 0


def _is_followed(raw: io.BufferedReader, position: int) -> bool:
    """Return whether a frame is at a position, and another one of its kind or the end after it."""
    raw.seek(position)
    header = raw.read(4)
    size, _ = _mp3_frame(header)
    if not size:
        return False
    raw.seek(position + size)
    after = raw.read(4)
    same_kind = after[1:2] == header[1:2] and after[2:3] and not (after[2] ^ header[2]) & 0x0C
    return not after or bool(same_kind and _mp3_frame(after)[0])


def _mp3_frame(header: bytes) -> tuple[int, int]:
    """Return the size in bytes and the timesteps of an MP3 frame; 0 if ``header`` starts none.

    See ISO 11172-3, section 2.4.2.3.
    """
    if len(header) < 4:
        return 0, 0
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


def has_frame_count(path: Path) -> bool:
    """Return whether an MP3 file begins with a Xing or Info header, which counts its frames."""
    with path.open("rb") as raw:
        skip_id3(raw)
        frame = raw.read(2048)
    return b"Xing" in frame or b"Info" in frame


def _lacks_bytes(path: Path) -> bool:
    """Return whether an MP3 file has fewer bytes than its Xing header states, if it has one."""
    with path.open("rb") as raw:
        skip_id3(raw)
        start = raw.tell()
        frame = raw.read(2048)
    if (match := re.search(rb"(?:Xing|Info)(.{4})(.{4})(.{4})", frame, re.DOTALL)) is None:
        return False
    flags, _, stated = (int.from_bytes(part, "big") for part in match.groups())
    return flags & 3 == 3 and path.stat().st_size - start < stated


def skip_id3(raw: io.BufferedReader) -> None:
    """Move past the ID3v2 tag at the beginning of a file, if there is one."""
    head = raw.read(10)
    raw.seek(10 + _id3_size(head) if head.startswith(b"ID3") else 0)


def _id3_size(head: bytes) -> int:
    """Return the size in bytes of an ID3v2 tag without its first ten bytes, which are given."""
    size = 0
    for byte in head[6:10]:  # seven bits per byte
        size = size << 7 | byte & 0x7F
    return size
