"""Audio formats: file suffixes, sample formats and their limits."""

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
"""File suffixes that can be read and written, with libsndfile's name of the format."""

MEDIA = (
    *(".m4a", ".m4b", ".aac", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".mka", ".webm"),
    *(".wma", ".wmv", ".asf", ".avi", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".flv"),
    *(".amr", ".ac3", ".eac3", ".dts", ".mp2", ".wv", ".ape", ".tta", ".spx", ".ogv"),
)
"""File suffixes that are read through PyAV; only those in ``CONTAINERS`` can be written."""

SUFFIXES = (*FORMATS, *MEDIA)
"""File suffixes of everything that may be a recording, in lower case."""

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".m4a": "ipod",
    ".mov": "mov",
    ".mkv": "matroska",
    ".mka": "matroska",
    ".webm": "webm",
}
"""Media suffixes that can be written, as copies with other sound, with FFmpeg's format names."""

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
"""Bits per sample of the lossless subtypes."""

COMPRESSION = {"MPEG_LAYER_III": 0.0, "VORBIS": 0.2, "OPUS": 0.5}
"""Compression level (0..1) of lossy subtypes: low, as cleaned sound is often encoded again."""

FLOATING = ("FLOAT", "DOUBLE")
"""Subtypes that can hold samples beyond full scale."""

# libsndfile itself only says "Format not recognised", or crashes (Vorbis).
_MAX_CHANNELS = {"MP3": 2, "FLAC": 8, "OGG": 255}
_MAX_VORBIS_RATE = 200_000  # in Hz; above it, libsndfile crashes

# Lossy subtypes that are kept from source to target; ADPCM and similar ones pad the length.
_KEPT = ("ULAW", "ALAW", "VORBIS", "OPUS", "MPEG_LAYER_III")


def format_of(path: Path | str) -> str:
    """Return libsndfile's name of the format that a file suffix stands for.

    Raises:
        UsageError: The suffix is not one of ``FORMATS``.
    """
    _require_suffix(path, tuple(FORMATS))
    return FORMATS[Path(path).suffix.lower()]


def require_writable(path: Path | str) -> None:
    """Raise UsageError if a recording cannot be cleaned into a file of this suffix."""
    _require_suffix(path, (*FORMATS, *CONTAINERS))


def _require_suffix(path: Path | str, suffixes: tuple[str, ...]) -> None:
    suffix = Path(path).suffix.lower()
    if suffix in suffixes:
        return
    known = " ".join(suffixes)
    if suffix in MEDIA:
        raise UsageError(f"{path}: {suffix} files can be read but not written; use one of {known}")
    raise UsageError(f"{path}: unknown audio format '{suffix}'; use one of {known}")


def default_subtype(path: Path | str) -> str:
    """Return the usual subtype for a file name: 16 bits, or the codec of a lossy format."""
    if Path(path).suffix.lower() == ".opus":
        return "OPUS"
    return soundfile.default_subtype(format_of(path))


def nearest_subtype(path: Path | str, like: str) -> str:
    """Return the subtype for ``path`` that comes nearest to the subtype ``like``.

    It is ``like`` itself if the format of ``path`` supports it, otherwise the smallest one that
    loses no bits, otherwise the best one. For a lossy source or target it is the default.
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
    """Return libsndfile's name of a requested subtype, which may be in lower case.

    Raises:
        UsageError: The format of ``path`` does not support the subtype.
    """
    available = _subtypes(path)
    if subtype.upper() not in available:
        raise UsageError(
            f"{path}: {format_of(path)} does not support the subtype {subtype}; "
            f"use one of {', '.join(available)}"
        )
    return subtype.upper()


def require_channels(path: Path | str, channels: int) -> None:
    """Raise UsageError if the format of ``path`` cannot hold this number of channels."""
    container = format_of(path)
    limit = _MAX_CHANNELS.get(container, channels)
    if channels > limit:
        raise UsageError(
            f"{path}: {container} holds at most {limit} channels, the sound has {channels}; "
            "write .wav or another format with more, or mix the channels down to one (--mono)"
        )


def require_sample_rate(path: Path | str, sample_rate: int, subtype: str) -> None:
    """Raise UsageError if libsndfile would crash on this sample rate, instead of refusing it."""
    if subtype == "VORBIS" and sample_rate > _MAX_VORBIS_RATE:
        raise UsageError(
            f"{path}: Vorbis supports sample rates up to {_MAX_VORBIS_RATE} Hz, the sound has "
            f"{sample_rate} Hz; choose another one with --sample-rate"
        )


def _subtypes(path: Path | str) -> list[str]:
    """Return the subtypes that can be written to ``path``."""
    container = format_of(path)
    available = soundfile.available_subtypes(container)
    # libsndfile lists MPEG layers that it only reads, and ALAC of more than 16 bits, which it
    # writes wrongly where a packet cannot be compressed.
    writable = "MPEG_LAYER_III" if container == "MP3" else "ALAC_16"
    return [name for name in available if name[:4] not in ("MPEG", "ALAC") or name == writable]
