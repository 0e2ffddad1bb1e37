"""Sound in video and MPEG-4 files, read through PyAV (FFmpeg), which is optional."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from denoisecli.errors import AudioError, UsageError


class DecodingError(Exception):
    """FFmpeg failed in the middle of a file."""


class MediaFile:
    """The first audio track of a media file, with the part of soundfile's interface that we use.

    Args:
        path: the file.

    Attributes:
        samplerate: Hz.
        channels: number of channels.
        frames: estimated number of samples per channel.
        promised: how many the container says there are; None where it says nothing about sound.
        format: FFmpeg's name of the container.
        subtype: FFmpeg's name of the codec.

    Raises:
        UsageError: PyAV is not installed.
        AudioError: the file is damaged, of no known kind, or has no sound in it.
    """

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError as error:
            raise UsageError(
                f"{path}: reading {path.suffix} needs PyAV: pip install 'denoisecli[media]'"
            ) from error
        self._path = path
        self._errors = av.error.FFmpegError
        av.logging.set_level(av.logging.PANIC)  # its messages are not for users
        try:
            self._container = av.open(str(path))
        except self._errors as error:
            raise AudioError(f"{path} is damaged or no media file of a known kind") from error
        if not self._container.streams.audio:
            self._container.close()
            raise AudioError(f"{path} has no audio track")
        stream = self._container.streams.audio[0]
        self.samplerate = stream.rate
        self.channels = stream.channels
        self.format = self._container.format.name
        self.subtype = stream.codec_context.name
        self._tags = {**self._container.metadata, **stream.metadata}
        seconds = _seconds(stream)
        self.promised = None if seconds is None else round(seconds * self.samplerate)
        whole = (self._container.duration or 0) / av.time_base  # perhaps that of the video
        self.frames = self.promised or max(1, round(whole * self.samplerate))
        self._resampler = av.AudioResampler(format="fltp")  # the format only: rate and layout stay
        self._decoded = self._decode()
        self._pending = np.zeros((self.channels, 0), np.float32)

    def __enter__(self) -> "MediaFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._container.close()

    def copy_metadata(self) -> dict[str, str]:
        """Give the tags that soundfile has a name for."""
        names = ("title", "copyright", "artist", "comment", "date", "album", "genre")
        tags = {name.lower(): text for name, text in self._tags.items()}
        return {name: tags[name] for name in names if name in tags}

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """Give up to ``frames`` samples per channel, float32 (timesteps, channels).

        Raises:
            DecodingError: the file is damaged.
        """
        parts = [self._pending]
        ready = self._pending.shape[1]
        while ready < frames and (part := next(self._decoded, None)) is not None:
            parts.append(part)
            ready += part.shape[1]
        sound = np.concatenate(parts, axis=1)
        self._pending = sound[:, frames:]
        return sound[:, :frames].T

    def _decode(self) -> Iterator[np.ndarray]:
        try:
            for frame in self._container.decode(audio=0):
                for one in self._resampler.resample(frame):
                    part = one.to_ndarray()
                    if part.shape[0] != self.channels or one.sample_rate != self.samplerate:
                        raise DecodingError("its sample rate or channels change midway")
                    yield part
        except self._errors as error:
            raise DecodingError(error.strerror) from error


def _seconds(stream: Any) -> float | None:
    """Give the length of an audio stream in the words of its container."""
    if stream.container.format.name == "aac":
        return None  # a guess from the bit rate
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if match := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = match.groups()  # Matroska
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return None
