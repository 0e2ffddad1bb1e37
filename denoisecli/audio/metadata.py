"""Metadata of recordings: tags, pictures, chapters, and chunks of WAV and AIFF files.

Between files of one kind everything is copied. From one kind to another go the usual tags and
pictures; what cannot be kept is named.
"""

import base64
import io
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum, auto
from importlib.util import find_spec
from pathlib import Path

import mutagen
import soundfile
from mutagen.easyid3 import EasyID3
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, COMM, ID3, TXXX, Frame, ID3NoHeaderError
from mutagen.mp4 import MP4
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis

from denoisecli.audio.av_frames import open_input
from denoisecli.audio.riff import walk_chunks
from denoisecli.errors import join_names

_LARGEST_CHUNK = 2**26
_LARGEST_RIFF = 2**32 - 2**16

# Chunks that describe the stored samples, or nothing: libsndfile writes those that are needed.
_OF_SAMPLES = (b"fmt ", b"data", b"ds64", b"fact", b"PEAK", b"levl", b"MD5 ", b"COMM", b"SSND")
_PADDING = (b"JUNK", b"junk", b"PAD ", b"FLLR", b"filr", b"FVER")
_OF_CHANNELS = (b"chna", b"axml", b"CHNL")  # which they describe one by one
_AIFF_TEXTS = (b"NAME", b"AUTH", b"(c) ", b"ANNO")
_PICTURE = "metadata_block_picture"
_MASK = "waveformatextensible_channel_mask"
_DROPPED_COMMENTS = (_PICTURE, _MASK, "encoder", "encoder_options")
_DROPPED_FRAMES = ("TLEN", "TSSE", "TENC")
_LEVEL_FRAMES = ("RVA2", "RVAD", "RGAD")
_LEVEL_TAGS = ("replaygain_", "r128_", "itunnorm")
_BEXT_LEVELS = slice(412, 422)  # EBU Tech 3285: five values, since version 2
_UNKNOWN_LEVEL = b"\xff\x7f"
_SOUNDFILE_INFO = ("INAM", "ICOP", "ISFT", "IART", "ICMT", "ICRD", "IPRD", "ITRK", "IGNR")
_INFO = {
    **{"IENG": "engineer", "ISBJ": "subject", "IKEY": "keywords", "ITCH": "technician"},
    **{"ILNG": "language", "IMED": "medium", "ISRC": "source", "IARL": "archive"},
}
"""Fields of LIST INFO that soundfile does not read, and the names of tags for them."""
_CUE_SHEET = "cue sheet"  # label of a block whose positions count samples
_HELD = "tags"  # label of what tags and pictures hold as well

ATTACHED_PICTURE = 1024
"""FFmpeg's AV_DISPOSITION_ATTACHED_PIC: the picture is the cover of a recording."""

_IMAGES = {"mjpeg": "jpeg"}  # FFmpeg's names of codecs that differ from the MIME type
_COMMENTS = ("", "ID3v1 Comment")  # descriptions of comments: none, and mutagen's of an ID3v1

_TECHNICAL = (
    *("major_brand", "minor_version", "compatible_brands", "encoder", "creation_time"),
    *("handler_name", "vendor_id", "duration", "encoded_by"),
)
"""Tags of containers that are not about the recording."""

_BEXT_TAGS = (
    *("originator", "originator_reference", "origination_date", "origination_time"),
    *("time_reference", "umid", "coding_history", "loudness_value", "loudness_range"),
    *("max_true_peak_level", "max_momentary_loudness", "max_short_term_loudness", "description"),
)
"""FFmpeg's names of the fields of the chunk bext."""

_TAG_ERRORS = (
    *(mutagen.MutagenError, ValueError, TypeError, LookupError, OverflowError, struct.error),
)
"""What mutagen raises for tags that it cannot read or write."""

SOUNDFILE_TAGS = (
    *("title", "copyright", "software", "artist", "comment", "date", "album", "license"),
    *("tracknumber", "genre"),
)
"""Tags that soundfile writes to most formats, with the names that Vorbis comments have too."""


class Kind(Enum):
    """Kinds of files whose metadata differ."""

    RIFF = auto()
    AIFF = auto()
    COMMENTS = auto()
    ID3 = auto()
    OTHER = auto()


_KINDS = {
    **dict.fromkeys(("WAV", "WAVEX", "RF64"), Kind.RIFF),
    "AIFF": Kind.AIFF,
    **dict.fromkeys(("FLAC", "OGG"), Kind.COMMENTS),
    **dict.fromkeys(("MP3", "mp3"), Kind.ID3),
}


@dataclass(frozen=True)
class Metadata:
    """Metadata of a recording.

    Attributes:
        kind: Kind of its file.
        comments: Tags and their values, by the names that Vorbis comments have, in lower case.
        pictures: Pictures, such as that of a cover.
        chunks: Chunks of a WAV or AIFF by their names, ID3 frames by what they hold, and blocks
            of a FLAC, which only a file of the same kind can hold.
        lost: Names of metadata that no file can take over.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
    """

    kind: Kind = Kind.OTHER
    comments: tuple[tuple[str, str], ...] = ()
    pictures: tuple[Picture, ...] = ()
    chunks: tuple[tuple[str, bytes | Frame | object], ...] = ()
    lost: tuple[str, ...] = ()
    sample_rate: int = 1
    channels: int = 1

    def soundfile_tags(self, container: str, tags: dict[str, str]) -> dict[str, str]:
        """Return the tags that libsndfile has to write; it need not if all of them are copied."""
        if _kind_of(container) is self.kind and self.chunks:
            return {}
        own = {name: text for name, text in self.comments if name in SOUNDFILE_TAGS}
        return own | {name: text for name, text in tags.items() if text}


def read_metadata(
    source: Path | bytes, container: str, sample_rate: int, channels: int
) -> Metadata:
    """Read the metadata of an audio file, except what describes the level of its sound.

    That level is another one after cleaning, and players would amplify the sound by it.

    Args:
        source: Audio file, or the first bytes of one that comes through a pipe.
        container: libsndfile's name of its format.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
    """
    kind = _kind_of(container)
    found = Metadata(kind, sample_rate=sample_rate, channels=channels)
    with suppress(OSError, StopIteration, *_TAG_ERRORS):
        if kind in (Kind.RIFF, Kind.AIFF):
            return _read_chunks(source, found)
        if kind is Kind.ID3:
            return _read_id3(source, found)
        if kind is Kind.COMMENTS:
            return _read_comments(source, found)
        if isinstance(source, Path) and container.islower() and find_spec("av") is not None:
            return _read_media(source, found)  # the container has FFmpeg's name
    return found


def write_metadata(
    metadata: Metadata,
    path: Path,
    container: str,
    sample_rate: int,
    channels: int,
    tags: Mapping[str, str],
) -> list[str]:
    """Add metadata to a complete audio file.

    Args:
        metadata: The metadata of another file.
        path: Audio file.
        container: libsndfile's name of its format.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        tags: ``Metadata.soundfile_tags``, which libsndfile was to write to the file.

    Returns:
        Names of what the file cannot hold.
    """
    kind = _kind_of(container)
    lost = list(metadata.lost)
    try:
        if kind is metadata.kind and kind in (Kind.RIFF, Kind.AIFF):
            lost += _write_chunks(metadata, path, sample_rate, channels)
        elif kind is Kind.COMMENTS:
            lost += _write_comments(metadata, path, container, sample_rate)
        elif kind is Kind.ID3:
            lost += _write_id3(metadata, path)
        else:
            lost += [name for name, _ in metadata.comments if name not in SOUNDFILE_TAGS]
            lost += ["pictures"] * bool(metadata.pictures)
            lost += [name for name, _ in metadata.chunks if name not in ("LIST INFO", _HELD)]
        if kind not in (Kind.COMMENTS, Kind.ID3):  # whose tags mutagen has written
            lost += _unwritten(tags, path)
    except _TAG_ERRORS:
        lost.append("tags")
    return sorted({name or "a tag without a name" for name in lost})


def _unwritten(tags: Mapping[str, str], path: Path) -> list[str]:
    """Return the names of the tags that libsndfile has no place for in a file."""
    if not tags:
        return []
    with soundfile.SoundFile(path) as file:
        written = file.copy_metadata()
    return [name for name, text in tags.items() if text and not written.get(name)]


def blocks_of(metadata: Metadata) -> list[str]:
    """Return the names of chunks and blocks, which FFmpeg does not copy."""
    if metadata.kind not in (Kind.RIFF, Kind.AIFF, Kind.COMMENTS):
        return []
    labels = [label for label, chunk in metadata.chunks if not isinstance(chunk, Frame)]
    return [label for label in (*labels, *metadata.lost) if label not in ("LIST INFO", _HELD)]


def copy_mpeg4_tags(source: Path, target: Path) -> None:
    """Copy the tags from one MPEG-4 file to another that FFmpeg has not copied."""
    with suppress(OSError, *_TAG_ERRORS):
        tags, file = MP4(source).tags or {}, MP4(target)
        if file.tags is None:
            file.add_tags()
        missing = {
            name: values
            for name, values in tags.items()
            if name not in file.tags and not _is_of_encoding(name.split(":")[-1])
        }
        if missing:
            file.tags.update(missing)
            file.save()


def _is_of_encoding(name: str) -> bool:
    return name in ("\xa9too", "iTunSMPB", "Encoding Params") or is_of_level(name)


def missing_tags(source: Mapping[str, str], target: Path) -> list[str]:
    """Return the names of the tags of a media file that another one lacks.

    Args:
        source: Tags that PyAV reads from a file.
        target: Media file.
    """
    with open_input(target) as container:
        kept = {name.lower() for name in container.metadata}
        for stream in container.streams:
            kept |= {name.lower() for name in stream.metadata}
    ignored = {*kept, *_TECHNICAL, *_BEXT_TAGS, "itunsmpb", "timecode"}
    return [name for name in source if name.lower() not in ignored and not is_of_level(name)]


def not_kept(container: str, names: list[str]) -> str:
    """Return a warning about metadata that a file does not keep."""
    return f"not kept in the {container} file: {join_names(names)}"


def channel_mask_comment(source: Path | bytes) -> int:
    """Return the channel mask in the comments of a FLAC file or its beginning; 0 without one."""
    with suppress(OSError, *_TAG_ERRORS), _opened(source) as file:
        for name, value in FLAC(file).tags or ():
            if name.lower() == _MASK:
                return int(value, 16)
    return 0


def write_channel_mask_comment(path: Path, mask: int) -> None:
    """Write the channel mask to the comments of a FLAC file."""
    file = FLAC(path)
    if file.tags is None:
        file.add_tags()
    file.tags[_MASK] = f"0x{mask:04X}"
    file.save()


def _kind_of(container: str) -> Kind:
    return _KINDS.get(container, Kind.OTHER)


def is_of_level(name: str) -> bool:
    """Return whether a tag of this name describes the level of the sound."""
    return name.lower().startswith(_LEVEL_TAGS)


def _opened(source: Path | bytes) -> io.BufferedIOBase:
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)


# Chunks of WAV and AIFF


def _read_chunks(source: Path | bytes, found: Metadata) -> Metadata:
    chunks: list[tuple[str, object]] = []
    lost = []
    with _opened(source) as file:
        for chunk in walk_chunks(file):
            if chunk.name in (b"RIFF", b"RF64", b"BW64", b"FORM"):
                break  # another recording
            if chunk.name in _OF_SAMPLES or chunk.name in _PADDING:
                continue
            label = chunk.name.decode("latin-1").strip()
            file.seek(chunk.start)
            if chunk.size > _LARGEST_CHUNK:
                lost.append(label)
                continue
            content = file.read(chunk.size)
            if len(content) < chunk.size:
                lost += [label] * isinstance(source, bytes)  # or else the file is cut off
                continue
            if chunk.name == b"LIST":
                label = f"LIST {content[:4].decode('latin-1').strip()}"
                if label == "LIST INFO":
                    found = replace(found, comments=(*found.comments, *_info_tags(content)))
            elif chunk.name.upper() == b"ID3 ":
                label = _HELD
                content, found = _read_id3_chunk(content, found)
            elif chunk.name in _AIFF_TEXTS and found.kind is Kind.AIFF:
                label = _HELD  # soundfile reads them as tags
            elif chunk.name == b"bext" and content[346:348] >= b"\2":  # its version
                levels = _UNKNOWN_LEVEL * 5
                content = content[: _BEXT_LEVELS.start] + levels + content[_BEXT_LEVELS.stop :]
            chunks.append((label, chunk.name + content))
    return replace(found, chunks=(*chunks, *found.chunks), lost=tuple(lost))


def _info_tags(content: bytes) -> list[tuple[str, str]]:
    """Return the fields of LIST INFO that soundfile does not read, as tags."""
    fields = io.BytesIO(b"RIFF" + bytes(4) + content)  # it has the form of a RIFF
    tags = []
    for chunk in walk_chunks(fields):
        name = chunk.name.decode("latin-1")
        if name not in _SOUNDFILE_INFO:
            fields.seek(chunk.start)
            text = fields.read(chunk.size).rstrip(b"\0").decode("utf-8", "replace")
            tags.append((_INFO.get(name, name.lower().strip()), text))
    return tags


def _read_id3_chunk(content: bytes, found: Metadata) -> tuple[bytes, Metadata]:
    """Return an ID3 tag without frames of the level, and ``found`` with its tags and pictures."""
    with suppress(*_TAG_ERRORS):
        found = _read_id3(content, found)
        tags = ID3(io.BytesIO(content))
        levels = [name for name, frame in tags.items() if _is_level_frame(frame)]
        if levels:
            for name in levels:
                del tags[name]
            written = io.BytesIO()
            tags.save(written)
            content = written.getvalue()
    return content, found


def _write_chunks(metadata: Metadata, path: Path, sample_rate: int, channels: int) -> list[str]:
    """Append chunks to a file, and return the names of those that do not fit it."""
    factor = sample_rate / metadata.sample_rate
    order = "<" if metadata.kind is Kind.RIFF else ">"
    lost: list[str] = []
    with path.open("r+b") as file:
        is_rf64 = file.read(4) == b"RF64"
        for label, chunk in metadata.chunks:
            if not isinstance(chunk, bytes):
                continue
            name, content = chunk[:4], chunk[4:]
            scaled: bytes | None = None
            with suppress(struct.error):
                scaled = content if factor == 1 else _scaled(label, content, factor)
            size = file.seek(0, 2)
            fits = is_rf64 or size + len(content) + 9 < _LARGEST_RIFF
            of_other_channels = name in _OF_CHANNELS and channels != metadata.channels
            if scaled is None or of_other_channels or not fits:
                lost.append(label)
                continue
            file.write(b"\0" * (size % 2))
            file.write(struct.pack(f"{order}4sI", name, len(scaled)) + scaled)
            file.write(b"\0" * (len(scaled) % 2))
        size = file.seek(0, 2) - 8
        file.seek(20 if is_rf64 else 4)
        file.write(struct.pack("<Q" if is_rf64 else f"{order}I", size))
    return lost


def _scaled(label: str, content: bytes, factor: float) -> bytes | None:
    """Return a chunk whose positions count samples of another rate; None if that is unknown."""
    changed = bytearray(content)

    def scale(position: int, layout: str) -> None:
        (value,) = struct.unpack_from(layout, changed, position)
        struct.pack_into(layout, changed, position, round(value * factor))

    if label in ("smpl", "inst", "plst", "MARK", "INST"):
        return None
    if label == "bext":
        scale(338, "<Q")  # EBU Tech 3285: TimeReference
    elif label == "cue":
        for index in range(struct.unpack_from("<I", changed)[0]):
            scale(4 + 24 * index + 4, "<I")
            scale(4 + 24 * index + 20, "<I")
    elif label == "LIST adtl":
        before = b"RIFF" + bytes(4)  # its content has the form of that of a RIFF
        for chunk in walk_chunks(io.BytesIO(before + content)):
            if chunk.name == b"ltxt":
                scale(chunk.start - len(before) + 4, "<I")
    return bytes(changed)


# Vorbis comments


def _read_comments(source: Path | bytes, found: Metadata) -> Metadata:
    with _opened(source) as opened:
        file = mutagen.File(opened)
    if file is None or (file.tags is None and not isinstance(file, FLAC)):
        return found
    comments: list[tuple[str, str]] = []
    pictures: list[Picture] = []
    for name, value in file.tags or ():
        if name.lower() == _PICTURE:
            with suppress(*_TAG_ERRORS):
                pictures.append(Picture(base64.b64decode(value)))
        elif name.lower() not in _DROPPED_COMMENTS and not is_of_level(name):
            comments.append((name.lower(), value))
    blocks: list[tuple[str, object]] = []
    if isinstance(file, FLAC):
        pictures += file.pictures
        kept = {2: "application block", 5: _CUE_SHEET}
        blocks = [(kept[b.code], b) for b in file.metadata_blocks if b.code in kept]
    return replace(found, comments=tuple(comments), pictures=tuple(pictures), chunks=tuple(blocks))


def _write_comments(metadata: Metadata, path: Path, container: str, sample_rate: int) -> list[str]:
    """Write comments, pictures and blocks to a FLAC or Ogg file, and return what does not fit."""
    lost = []
    file: FLAC | OggOpus | OggVorbis
    if container == "FLAC":
        file = FLAC(path)
        for label, block in metadata.chunks:
            of_other_rate = label == _CUE_SHEET and sample_rate != metadata.sample_rate
            if metadata.kind is Kind.COMMENTS and not of_other_rate:
                file.metadata_blocks.append(block)
            elif label not in ("LIST INFO", _HELD):
                lost.append(label)
    else:
        opened = mutagen.File(path, (OggOpus, OggVorbis))
        if opened is None:
            return ["tags"]
        file = opened
        lost += [label for label, _ in metadata.chunks if label not in ("LIST INFO", _HELD)]
    if not (metadata.comments or metadata.pictures or metadata.chunks):
        return lost
    if file.tags is None:
        file.add_tags()
    comments = [(name, value) for name, value in metadata.comments if _is_comment_name(name)]
    lost += [name for name, _ in metadata.comments if not _is_comment_name(name)]
    for name in {name for name, _ in comments} & {key.lower() for key, _ in file.tags}:
        del file.tags[name]
    file.tags.extend(comments)
    for picture in metadata.pictures:
        if isinstance(file, FLAC):
            file.add_picture(picture)
        else:
            file.tags.append((_PICTURE, base64.b64encode(picture.write()).decode()))
    file.save()
    return lost


def _is_comment_name(name: str) -> bool:
    """Return whether a Vorbis comment may have this name (Vorbis I, section 5.2.2)."""
    return bool(name) and all(" " <= character <= "}" for character in name) and "=" not in name


# Media files


def _read_media(path: Path, found: Metadata) -> Metadata:
    comments: list[tuple[str, str]] = []
    pictures: list[Picture] = []
    with open_input(path) as container:
        for name, value in container.metadata.items():
            name = name.lower()
            if name not in _TECHNICAL and not is_of_level(name):
                comments.append(("tracknumber" if name == "track" else name, value))
        lost = ["chapters"] * bool(container.chapters())
        for stream in container.streams.video:
            if stream.disposition & ATTACHED_PICTURE:
                picture = Picture()
                codec = str(stream.name)
                picture.type, picture.mime = 3, f"image/{_IMAGES.get(codec, codec)}"
                picture.data = next(bytes(packet) for packet in container.demux(stream))
                pictures.append(picture)
    return replace(found, comments=tuple(comments), pictures=tuple(pictures), lost=tuple(lost))


# ID3


def _read_id3(source: Path | bytes, found: Metadata) -> Metadata:
    with _opened(source) as file:
        try:
            tags = ID3(file)
        except ID3NoHeaderError:
            return found
        file.seek(0)
        easy = EasyID3(file)
    for name in _DROPPED_FRAMES:
        tags.delall(name)
    for name in [name for name, frame in tags.items() if _is_level_frame(frame)]:
        del tags[name]
    comments = [(name, value) for name in easy for value in easy[name] if not is_of_level(name)]
    for frame in tags.getall("TXXX"):
        comments += [(frame.desc.lower(), str(value)) for value in frame.text]
    for frame in tags.getall("COMM"):
        comments += [("comment", str(value)) for value in frame.text if frame.desc in _COMMENTS]
    pictures = []
    for frame in tags.getall("APIC"):
        picture = Picture()
        picture.type, picture.mime, picture.desc = int(frame.type), frame.mime, frame.desc
        picture.data = frame.data
        pictures.append(picture)
    values = {value for _, value in comments}
    frames = []
    for name, frame in tags.items():
        if name[:4] in ("CHAP", "CTOC"):
            frames.append(("chapters", frame))
        elif name[:4] == "APIC" or values.issuperset(map(str, getattr(frame, "text", (None,)))):
            frames.append((_HELD, frame))
        else:
            frames.append((name, frame))
    return replace(
        found,
        comments=(*found.comments, *comments),
        pictures=tuple(pictures),
        chunks=(*found.chunks, *frames),
    )


def _is_level_frame(frame: Frame) -> bool:
    return frame.FrameID in _LEVEL_FRAMES or is_of_level(getattr(frame, "desc", ""))


def _write_id3(metadata: Metadata, path: Path) -> list[str]:
    """Write tags and pictures to an MP3 file."""
    if metadata.kind is Kind.ID3:
        tags = ID3()
        for _, frame in metadata.chunks:
            tags.add(frame)
        if metadata.chunks:
            tags.save(path)
        return []
    easy = EasyID3()
    others: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for name, _ in metadata.comments):
        values = [value for other, value in metadata.comments if other == name]
        try:
            easy[name] = values
        except _TAG_ERRORS:
            others[name] = values
    if easy:
        easy.save(path)
    try:
        tags = ID3(path, load_v1=False)
    except ID3NoHeaderError:
        tags = ID3()
    for name, values in others.items():
        if name == "comment":  # which has no name in EasyID3; the language is that of LAME
            tags.add(COMM(encoding=3, lang="eng", desc="", text=values))
        else:
            tags.add(TXXX(encoding=3, desc=name, text=values))
    for picture in metadata.pictures:
        tags.add(
            APIC(
                encoding=3,
                mime=picture.mime,
                type=picture.type,
                desc=picture.desc,
                data=picture.data,
            )
        )
    lost = []
    for label, chunk in metadata.chunks:
        if isinstance(chunk, Frame):
            tags.setdefault(chunk.HashKey, chunk)
        elif label not in ("LIST INFO", _HELD):
            lost.append(label)
    if tags:
        tags.save(path)
    return lost
