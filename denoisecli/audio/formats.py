"""Names of audio formats: file suffixes, containers, and how samples are stored in them."""

from pathlib import Path

import soundfile

from denoisecli.errors import UsageError

FORMATS = {
    ".wav": "WAV",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
    ".aiff": "AIFF",
    ".aif": "AIFF",
    ".w64": "W64",
    ".rf64": "RF64",
    ".caf": "CAF",
    ".au": "AU",
}
"""File suffixes that are read and written, and the libsndfile format of each."""

MEDIA = (".m4a", ".aac", ".mp4", ".m4v", ".mov", ".mkv", ".mka", ".webm")
"""File suffixes that are read through PyAV, and not written."""

BITS = {
    "PCM_S8": 8,
    "PCM_U8": 8,
    "PCM_16": 16,
    "PCM_24": 24,
    "PCM_32": 32,
    "FLOAT": 32,
    "DOUBLE": 64,
    "ALAC_16": 16,
    "ALAC_20": 20,
    "ALAC_24": 24,
    "ALAC_32": 32,
}
"""Bits per sample of the subtypes that hold samples as they are; lossy ones are not here."""

COMPRESSION = {"MPEG_LAYER_III": 0.0, "VORBIS": 0.2, "OPUS": 0.5}
"""How much lossy codecs compress, 0..1: little, as what is cleaned will often be encoded again."""

FLOATING = ("FLOAT", "DOUBLE")
"""Subtypes that hold samples beyond full scale."""

# Lossy subtypes kept when source and target share them; ADPCM and its like pad the length.
_KEPT = ("ULAW", "ALAW", "VORBIS", "OPUS", "MPEG_LAYER_III")


def format_of(path: Path | str) -> str:
    """Give the libsndfile format for a file name.

    Raises:
        UsageError: the suffix is not one of FORMATS.
    """
    suffix = Path(path).suffix.lower()
    if suffix in MEDIA:
        raise UsageError(f"{path}: {suffix} is read, but not written; write {' '.join(FORMATS)}")
    if suffix not in FORMATS:
        raise UsageError(f"{path}: unknown audio format '{suffix}'; known are {' '.join(FORMATS)}")
    return FORMATS[suffix]


def default_subtype(path: Path | str) -> str:
    """Give the sample format usual for a file name: 16 bits, or the codec of a lossy format."""
    if Path(path).suffix.lower() == ".opus":
        return "OPUS"
    return soundfile.default_subtype(format_of(path))


def nearest_subtype(path: Path | str, like: str) -> str:
    """Give the sample format for ``path`` nearest to the subtype ``like``.

    That is the same one where the format of ``path`` has it; else the smallest that loses no
    bits; else the best there is. A lossy source or target takes the target's default.
    """
    available = _subtypes(path)
    keeps = like in BITS or like in _KEPT
    if keeps and like in available and Path(path).suffix.lower() != ".opus":
        return like
    choices = [name for name in BITS if name in available and not name.startswith("ALAC")]
    if like not in BITS or not choices:
        return default_subtype(path)
    return next((name for name in choices if BITS[name] >= BITS[like]), choices[-1])


def require_subtype(path: Path | str, subtype: str) -> str:
    """Give libsndfile's name for a sample format that was asked for, such as "pcm_24".

    Raises:
        UsageError: the format of ``path`` has no such subtype.
    """
    available = _subtypes(path)
    if subtype.upper() not in available:
        raise UsageError(f"{path}: there is no subtype {subtype} here; use {', '.join(available)}")
    return subtype.upper()


def _subtypes(path: Path | str) -> list[str]:
    """Give the sample formats that can be written to ``path``.

    libsndfile also lists layers of MPEG that it only reads.
    """
    container = format_of(path)
    codecs = ("MPEG_LAYER_III",) if container == "MP3" else ()
    available = soundfile.available_subtypes(container)
    return [name for name in available if not name.startswith("MPEG") or name in codecs]
