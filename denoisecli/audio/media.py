"""Sound in video and MPEG-4 files, read through PyAV (FFmpeg), which is optional."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from denoisecli.errors import AudioError
from denoisecli.system.extras import require
from denoisecli.types import AudioBlock

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet


_LOSSLESS = {
    "pcm_u8": "PCM_U8",
    "pcm_s8": "PCM_S8",
    **{f"pcm_s{bits}{order}": f"PCM_{bits}" for bits in (16, 24, 32) for order in ("le", "be")},
    **{f"pcm_f32{order}": "FLOAT" for order in ("le", "be")},
    **{f"pcm_f64{order}": "DOUBLE" for order in ("le", "be")},
    **{codec: "PCM_16" for codec in ("flac", "alac", "wavpack", "tta", "ape", "truehd", "mlp")},
}
"""FFmpeg's names of lossless codecs, with libsndfile's name of the sample format."""

_DEEP = {(codec, f"s32{layout}") for codec in _LOSSLESS for layout in ("", "p")} - {
    (f"pcm_s32{order}", "s32") for order in ("le", "be")
}
"""Codecs with the sample format in which they decode sound of more than 16 bits."""


class DecodingError(Exception):
    """FFmpeg failed in the middle of a file."""


class MediaFile:
    """The first audio track of a media file, with the interface of ``reading.SequentialFile``.

    Args:
        path: Media file.

    Attributes:
        samplerate: Sample rate in Hz.
        channels: Number of channels.
        frames: Estimated number of samples per channel.
        promised: Number of samples per channel that the container states; None if it states none.
        format: FFmpeg's name of the container.
        codec: FFmpeg's name of the codec.
        subtype: libsndfile's name of the sample format if the codec is lossless, otherwise the
            name of the codec.

    Raises:
        UsageError: PyAV is not installed.
        AudioError: The file is damaged, is of an unknown format, or has no audio track.
    """

    def __init__(self, path: Path) -> None:
        require("media", "av", purpose=f"reading {path}")
        import av

        self._errors = av.error.FFmpegError
        av.logging.set_level(av.logging.PANIC)  # FFmpeg's messages are not for users
        try:
            self._container = av.open(str(path))
        except self._errors as error:
            raise AudioError(f"{path} is damaged or not a media file of a known format") from error
        if not self._container.streams.audio:
            self._container.close()
            raise AudioError(f"{path} has no audio track")
        stream = self._container.streams.audio[0]
        self.samplerate = stream.rate
        self.channels = stream.channels
        self.format = self._container.format.name
        self.codec = stream.codec_context.name
        self.subtype = _LOSSLESS.get(self.codec, self.codec)
        if (self.codec, stream.codec_context.format.name) in _DEEP:
            self.subtype = "PCM_24"
        self._tags = {**self._container.metadata, **stream.metadata}
        seconds = _stated_seconds(stream)
        self.promised = None if seconds is None else round(seconds * self.samplerate)
        container_seconds = (self._container.duration or 0) / av.time_base
        self.frames = self.promised or max(1, round(container_seconds * self.samplerate))
        self._resampler = av.AudioResampler(format="fltp")  # keeps the sample rate and the layout
        self._decoded = self._decode()
        self._pending: AudioBlock = np.zeros((self.channels, 0), np.float32)

    def __enter__(self) -> "MediaFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def copy_metadata(self) -> dict[str, str]:
        """Return the tags that soundfile has a name for."""
        names = ("title", "copyright", "artist", "comment", "date", "album", "genre")
        tags = {name.lower(): text for name, text in self._tags.items()}
        return {name: tags[name] for name in names if name in tags}

    def read_block(self, frames: int) -> AudioBlock:
        """Decode the next samples.

        Args:
            frames: Largest number of samples per channel to return.

        Returns:
            float32 samples, shape (channels, timesteps); no timesteps at the end of the file.

        Raises:
            DecodingError: The file is damaged.
        """
        parts = [self._pending]
        ready = self._pending.shape[1]
        while ready < frames and (part := next(self._decoded, None)) is not None:
            parts.append(part)
            ready += part.shape[1]
        sound = np.concatenate(parts, axis=1)
        self._pending = sound[:, frames:]
        return sound[:, :frames]

    def _decode(self) -> Iterator[AudioBlock]:
        try:
            for packet in self._container.demux(audio=0):
                for decoded in self._frames(packet):
                    for frame in self._resampler.resample(decoded):
                        part = frame.to_ndarray()
                        if part.shape[0] != self.channels or frame.sample_rate != self.samplerate:
                            raise DecodingError("its sample rate or number of channels changes")
                        yield part
        except self._errors as error:
            raise DecodingError(error.strerror) from error

    def _frames(self, packet: "Packet") -> "list[AudioFrame]":
        """Decode a packet; the tag between two joined MP3 files is no sound."""
        try:
            return packet.decode()  # type: ignore[return-value]
        except self._errors:
            if self.format == "mp3" and b"ID3" in bytes(packet):
                return []
            raise


def _stated_seconds(stream: "AudioStream") -> float | None:
    """Return the duration of an audio track in seconds, None if the container states none."""
    if stream.container.format.name == "aac":
        return None  # FFmpeg estimates it from the bit rate
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if match := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = match.groups()  # Matroska
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return None
