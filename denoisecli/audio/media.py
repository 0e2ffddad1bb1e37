"""Sound in video and MPEG-4 files, read through PyAV (FFmpeg), which is optional."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from denoisecli.audio.av_frames import FORMAT, from_frame, open_input
from denoisecli.audio.channels import mask_of_names, wav_order
from denoisecli.errors import AudioError, UsageError
from denoisecli.system.extras import require
from denoisecli.types import AudioBlock

if TYPE_CHECKING:
    from av import AudioCodecContext, AudioFrame, AudioLayout, AudioStream, Packet
    from av.container import Container


LOSSLESS = {
    "pcm_u8": "PCM_U8",
    "pcm_s8": "PCM_S8",
    **{f"pcm_s{bits}{order}": f"PCM_{bits}" for bits in (16, 24, 32) for order in ("le", "be")},
    **{f"pcm_f32{order}": "FLOAT" for order in ("le", "be")},
    **{f"pcm_f64{order}": "DOUBLE" for order in ("le", "be")},
    **{codec: "PCM_16" for codec in ("flac", "alac", "wavpack", "tta", "ape", "truehd", "mlp")},
}
"""FFmpeg's names of lossless codecs, with libsndfile's name of the sample format."""

_DEEP = {(codec, f"s32{layout}") for codec in LOSSLESS for layout in ("", "p")} - {
    (f"pcm_s32{order}", "s32") for order in ("le", "be")
}
"""Codecs with the sample format in which they decode sound of more than 16 bits."""


_DEFAULT = 1  # FFmpeg's AV_DISPOSITION_DEFAULT

_WITHOUT_CLOCK = ("aac", "mp3", "avi", "ac3", "eac3", "dts", "amr", "flac", "ogg")
"""Containers whose timestamps are counted, estimated from the bit rate, or absent."""

_MP3_TAGS = (b"ID3", b"APETAGEX")  # between joined files

_LATE_SECONDS = 0.03  # by which sound begins later than the picture, or else it is a rounding
_GAP_SECONDS = (0.003, 0.03)  # the shortest gap is half a frame, within these limits
_JUMP_SECONDS = 0.1  # by which timestamps go back: a new part of the recording
_LONGEST_GAP = 86400.0
_ROUNDING_SECONDS = 0.01
_SILENCE_FRAMES = 2**16


class DecodingError(Exception):
    """FFmpeg failed in the middle of a file."""


class MediaFile:
    """An audio track of a media file, with the interface of ``reading.SequentialFile``.

    Where the track begins later than the picture, or has gaps, it is filled with silence, so that
    the sound fits the picture.

    Args:
        path: Media file.
        track: Number of the audio track, from 1 on (default: the one that is marked as the
            default, or the first).

    Attributes:
        samplerate: Sample rate in Hz.
        channels: Number of channels.
        frames: Estimated number of samples per channel; 0 if it is unknown.
        promised: Number of samples per channel that the container states; None if it states none.
        longest_frame: Number of samples of the longest frame so far.
        mask: Channel mask of more than two channels; 0 if it is unknown.
        warnings: A warning that names the chosen track, if there are several.
        format: FFmpeg's name of the container.
        codec: FFmpeg's name of the codec.
        subtype: libsndfile's name of the sample format if the codec is lossless, otherwise the
            name of the codec.

    Raises:
        UsageError: PyAV is not installed, or there is no such track.
        AudioError: The file is damaged, is of an unknown format, or has no audio track.
    """

    def __init__(self, path: Path, track: int | None = None) -> None:
        require("media", "av", purpose=f"reading {path}")
        import av

        self._errors = av.error.FFmpegError
        av.logging.set_level(av.logging.PANIC)  # FFmpeg's messages are not for users
        try:
            self._container = open_input(path)
        except self._errors as error:
            raise AudioError(f"{path} is damaged or not a media file of a known format") from error
        if not self._container.streams.audio:
            self._container.close()
            raise AudioError(f"{path} has no audio track")
        tracks = self._container.streams.audio
        try:
            self._index, self.warnings = choose_track(path, tracks, track)
        except UsageError:
            self._container.close()
            raise
        stream = tracks[self._index]
        if stream.codec_context is None:
            self._container.close()
            raise AudioError(f"{path} has sound of a codec that FFmpeg cannot decode")
        if stream.codec_context.format is None:  # FFmpeg takes any bytes for some codec
            self._container.close()
            raise AudioError(f"{path} is damaged or not a media file of a known format")
        self.samplerate = stream.rate
        names = channel_names(stream.codec_context)
        self.channels = len(names)
        if not names or not self.samplerate:
            self._container.close()
            raise AudioError(f"{path} is damaged or not a media file of a known format")
        self.mask = mask_of_names(names) if self.channels > 2 else 0
        self._order = wav_order(names)
        self.format = self._container.format.name
        self.codec = stream.codec_context.name
        self.subtype = LOSSLESS.get(self.codec, self.codec)
        if (self.codec, stream.codec_context.format.name) in _DEEP:
            self.subtype = "PCM_24"
        if (self.format, self.codec) == ("caf", "alac"):
            # FFmpeg trims the last packet as if it were full, even where it is already shorter.
            stream.codec_context.flags2 |= av.codec.context.Flags2.skip_manual
        self._tags = {**self._container.metadata, **stream.metadata}
        estimated = self.format in ("aac", "mp3")  # of a joined MP3, too
        seconds = None if estimated else _stated_seconds(stream)
        begin = self._end = start_of(self._container)
        self.longest_frame = 0
        self._in_tag = False
        if seconds is not None and stream.metadata.get("DURATION"):
            seconds -= begin  # Matroska states the last timestamp
        self.promised = None if seconds is None else round(seconds * self.samplerate)
        container_seconds = (self._container.duration or 0) / av.time_base
        self.frames = self.promised or round(container_seconds * self.samplerate)
        self._resampler = av.AudioResampler(format=FORMAT)  # keeps the sample rate and the layout
        self._decoded = self._decode()
        self._pending: AudioBlock = np.zeros((self.channels, 0), np.float32)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def rounding(self) -> int | None:
        """Number of samples by which the stated length may differ from the sound.

        It is a frame of the codec and the rounding of timestamps; None if it is unknown.
        """
        if self.format in _WITHOUT_CLOCK:
            return None
        frames = 3 if self.codec.startswith("mp3") else 1  # FFmpeg leaves out the delay of LAME
        return frames * self.longest_frame + round(_ROUNDING_SECONDS * self.samplerate)

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
            for packet in self._container.demux(audio=self._index):
                for decoded in self._frames(packet):
                    yield from self._silence_before(decoded)
                    try:
                        converted = self._resampler.resample(decoded)
                    except ValueError as error:
                        raise DecodingError("its sample format or layout changes") from error
                    for frame in converted:
                        part = from_frame(frame)
                        if part.shape[0] != self.channels or frame.sample_rate != self.samplerate:
                            raise DecodingError("its sample rate or number of channels changes")
                        yield part[self._order]
        except self._errors as error:
            raise DecodingError(error.strerror) from error

    def _silence_before(self, frame: "AudioFrame") -> Iterator[AudioBlock]:
        """Yield silence for the time between the last frame, or the beginning, and this one."""
        if frame.pts is None or frame.time_base is None:
            return
        seconds = frame.samples / self.samplerate
        begin = float(frame.pts * frame.time_base)
        if self.longest_frame == 0:
            shortest = _LATE_SECONDS
        else:
            low, high = _GAP_SECONDS
            shortest = max(low, 2 * float(frame.time_base), min(high, seconds / 2))
        gap = begin - self._end
        if self.longest_frame == 0 or not -_JUMP_SECONDS < gap < shortest:
            self._end = begin
        self._end += seconds  # of the sound itself, since timestamps are rounded
        self.longest_frame = max(self.longest_frame, frame.samples)
        if self.format in _WITHOUT_CLOCK or gap < shortest:
            return
        missing = round(gap * self.samplerate)
        if missing > _LONGEST_GAP * self.samplerate:
            raise DecodingError(f"its timestamps jump by {missing / self.samplerate:.0f} s")
        while missing > 0:
            part = min(missing, _SILENCE_FRAMES)
            yield np.zeros((self.channels, part), np.float32)
            missing -= part

    def _frames(self, packet: "Packet") -> "list[AudioFrame]":
        """Decode a packet; the tags between two joined MP3 files are not sound."""
        try:
            frames = packet.decode()
        except self._errors:
            if self.format == "mp3":
                self._in_tag = self._in_tag or any(tag in bytes(packet) for tag in _MP3_TAGS)
            if not self._in_tag:
                raise
            return []
        self._in_tag = False
        return frames  # type: ignore[return-value]


def channel_names(context: "AudioCodecContext") -> list[str]:
    """Return FFmpeg's names of the channels of a track, in their order; call it only once.

    PyAV crashes where a frame has a layout of unusual order, such as that of 7.1 in a MOV. The
    decoder gets one of the usual order instead, which does not change the order of the samples.
    """
    layout = context.layout  # the memory of an unusual one is released with it
    names = [channel.name for channel in layout.channels]
    if names:  # or else the file is damaged
        context.layout = wav_layout(names) or f"{len(names)}C"  # so many channels without positions
    return names


def wav_layout(names: list[str]) -> "AudioLayout | None":
    """Return the layout of channels that have been brought into the order of WAV files.

    It is None if WAV has no place for one of them.
    """
    from av import AudioLayout

    if not mask_of_names(names):
        return None
    return AudioLayout("+".join(names[place] for place in wav_order(names)))


def choose_track(
    path: Path, tracks: "Sequence[AudioStream]", track: int | None
) -> tuple[int, list[str]]:
    """Choose the audio track to read.

    Args:
        path: Media file, for messages.
        tracks: Its audio tracks.
        track: Number of the track, from 1 on (default: the one that is marked as the default, or
            the first).

    Returns:
        The index of the track, and a warning if there are several and none was asked for.

    Raises:
        UsageError: There is no such track.
    """
    count = len(tracks)
    if track is not None and not 1 <= track <= count:
        raise UsageError(f"{path} has no audio track {track}; it has {count}")
    default = [bool(stream.disposition & _DEFAULT) for stream in tracks]
    chosen = track or (default.index(True) if any(default) else 0) + 1
    if count == 1 or track is not None:
        return chosen - 1, []
    warning = (
        f"{path} has {count} audio tracks, of which track {chosen} is used; --track selects another"
    )
    return chosen - 1, [warning]


def start_of(container: "Container") -> float:
    """Return the time in s at which the picture begins, or the sound if there is none."""
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in container.streams.video or container.streams.audio
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=0.0)


def first_sample_time(stream: "AudioStream") -> float:
    """Return the time in s of the first sample that :class:`MediaFile` returns of a track."""
    begin = start_of(stream.container)
    if stream.start_time is None or stream.time_base is None:
        return begin
    own = float(stream.start_time * stream.time_base)
    filled = own - begin >= _LATE_SECONDS and stream.container.format.name not in _WITHOUT_CLOCK
    return begin if filled else own


def _stated_seconds(stream: "AudioStream") -> float | None:
    """Return the duration of an audio track in seconds, None if the container states none."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if match := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = match.groups()  # Matroska
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return None
