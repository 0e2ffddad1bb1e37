"""Videos whose sound is replaced, while all else is copied, through PyAV (FFmpeg).

Picture, subtitles, chapters, other audio tracks, attachments and tags are copied as they are, not
decoded. The new sound begins where :class:`denoisecli.audio.media.MediaFile` begins to read it, so
that every sample keeps its place beside the picture.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from denoisecli.audio.formats import CONTAINERS
from denoisecli.audio.loudness import LAYOUTS
from denoisecli.audio.media import LOSSLESS, choose_track, first_sample_time
from denoisecli.audio.resampling import StreamResampler
from denoisecli.audio.writing import clamp
from denoisecli.errors import AudioError, DenoiseError, UsageError
from denoisecli.system.atomic_files import replacing
from denoisecli.system.extras import require
from denoisecli.types import AudioBlock

if TYPE_CHECKING:
    from av import AudioStream, Packet
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

BITS_PER_SECOND = 96_000
"""Bit rate of each channel of a lossy codec."""

_LOWEST_BIT_RATE = 128_000
_BITS_PER_SAMPLE = 6  # limit of AAC
_ENCODERS = {"opus": "libopus", "vorbis": "libopus"}  # FFmpeg's own Opus encoder is experimental
_NOT_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder")
_TIMES = ("DURATION", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES", "BPS")  # of Matroska's old sound


class RemuxWriter:
    """An open media file whose sound is written block by block; see :func:`remuxed`.

    Args:
        source: Open file that all but the sound is copied from.
        output: Open file to write.
        track: Index of the audio track that is replaced.
        sample_rate: Sample rate of the sound in Hz.
        channels: Number of channels.

    Attributes:
        sample_rate: Sample rate in Hz at which the sound is stored.
        clipped: Number of samples beyond full scale that were clamped so far.
        warnings: Warnings about streams that could not be copied, and about another sample rate.
    """

    def __init__(
        self,
        source: "InputContainer",
        output: "OutputContainer",
        track: int,
        sample_rate: int,
        channels: int,
    ) -> None:
        self.clipped = 0
        self.warnings: list[str] = []
        self._output = output
        self._copies: dict[int, Stream] = {}
        replaced = source.streams.audio[track]
        for stream in source.streams:
            if stream is replaced or stream.index == replaced.index:
                self._sound = self._add_sound(replaced, sample_rate, channels)
            else:
                self._copy(stream)
        output.metadata.update(
            {key: text for key, text in source.metadata.items() if key not in _NOT_TAGS}
        )
        if chapters := source.chapters():
            output.set_chapters(chapters)
        self._packets = self._copied_packets(source)
        self._waiting = next(self._packets, None)
        self.sample_rate = rate = self._sound.codec_context.sample_rate
        if rate != sample_rate:
            self.warnings.append(
                f"the sound is stored at {rate} Hz, since its codec does not support "
                f"{sample_rate} Hz"
            )
        self._resample = StreamResampler(sample_rate, rate, channels)
        self._layout = LAYOUTS[channels]
        self._position = round(first_sample_time(replaced) * rate)

    def write(self, block: AudioBlock) -> None:
        """Append samples, shape (channels, timesteps)."""
        if not self._sound.codec_context.name.startswith("pcm_f"):  # floating point
            block, clipped = clamp(block)
            self.clipped += clipped
        self._encode(self._resample(block))

    def finish(self) -> None:
        """Write what is left of the sound and of the other streams."""
        self._encode(self._resample.finish())
        for packet in self._sound.encode(None):
            self._mux(packet)
        while self._waiting is not None:
            self._mux_copy()

    def _add_sound(self, replaced: "AudioStream", sample_rate: int, channels: int) -> "AudioStream":
        if channels not in LAYOUTS:
            raise UsageError(f"a video holds sound of 1 to 8 channels, not of {channels}")
        from av import AudioStream, Codec

        codec = _codec(replaced.codec_context.name, self._output)
        rates = Codec(codec, "w").audio_rates or [sample_rate]
        rate = min((r for r in rates if r >= sample_rate), default=max(rates))
        sound = self._output.add_stream(codec, rate=rate, layout=LAYOUTS[channels])
        assert isinstance(sound, AudioStream)
        if codec not in LOSSLESS:
            bits = max(BITS_PER_SECOND * channels, _LOWEST_BIT_RATE)
            sound.bit_rate = min(bits, _BITS_PER_SAMPLE * rate * channels)
        elif replaced.codec_context.format is not None and codec in ("flac", "alac"):
            wide = replaced.codec_context.format.name.startswith("s32")
            planar = "p" if codec == "alac" else ""
            sound.format = ("s32" if wide else "s16") + planar
        sound.time_base = Fraction(1, rate)
        tags = {k: text for k, text in replaced.metadata.items() if not k.startswith(_TIMES)}
        sound.metadata.update(tags)
        sound.disposition = replaced.disposition
        return sound

    def _copy(self, stream: "Stream") -> None:
        """Add a stream that is copied, if the container can hold it."""
        codec = None if stream.codec_context is None else stream.codec_context.codec
        if stream.type == "data" and codec is None and stream.container.chapters():
            return  # the text of the chapters, which are written anew
        copy = None
        if codec is None or codec.canonical_name in self._output.supported_codecs:
            with suppress(ValueError, *_av_errors()):
                copy = self._output.add_stream_from_template(stream)
        if copy is None:
            kind = "picture" if stream.type == "video" else f"{stream.type} stream"
            name = "" if codec is None else f" ({codec.canonical_name})"
            message = f"the {kind}{name} cannot be copied into a {self._output.format.name} file"
            if stream.type in ("video", "audio"):
                raise UsageError(f"{message}; choose the suffix of the source, or .mkv")
            self.warnings.append(f"{message}, and was left out")
            return
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition
        self._copies[stream.index] = copy

    def _copied_packets(self, source: "InputContainer") -> "Iterator[tuple[float, Packet]]":
        """Yield the packets of the other streams with their times in s."""
        streams = [source.streams[index] for index in self._copies]
        if not streams:
            return
        time = 0.0
        for packet in source.demux(*streams):
            if packet.size == 0:
                continue  # it ends the stream
            stamp = packet.dts if packet.dts is not None else packet.pts
            if stamp is not None and packet.time_base is not None:
                time = float(stamp * packet.time_base)
            packet.stream = self._copies[packet.stream.index]
            yield time, packet

    def _encode(self, block: AudioBlock) -> None:
        from av import AudioFrame

        if block.shape[1] == 0:
            return
        samples = np.ascontiguousarray(block, np.float32)
        frame = AudioFrame.from_ndarray(samples, format="fltp", layout=self._layout)
        frame.sample_rate = self.sample_rate
        frame.time_base = Fraction(1, self.sample_rate)
        frame.pts = self._position
        self._position += block.shape[1]
        for packet in self._sound.encode(frame):
            self._mux(packet)

    def _mux(self, packet: "Packet") -> None:
        """Write a packet of the sound after what comes before it."""
        if packet.dts is not None and packet.time_base is not None:
            time = float(packet.dts * packet.time_base)
            while self._waiting is not None and self._waiting[0] <= time:
                self._mux_copy()
        self._output.mux(packet)

    def _mux_copy(self) -> None:
        assert self._waiting is not None
        self._output.mux(self._waiting[1])
        self._waiting = next(self._packets, None)


@contextmanager
def remuxed(
    target: Path,
    source: Path,
    sample_rate: int,
    channels: int,
    *,
    track: int | None = None,
    overwrite: bool = False,
) -> Iterator[RemuxWriter]:
    """Open a copy of a media file to write other sound into it.

    The copy appears when the ``with`` block succeeds. Its codec is lossless if that of the source
    is and the container allows it, otherwise the usual one of the container: AAC, or Opus in WebM
    and for sound that was Opus or Vorbis in Matroska.

    Args:
        target: File to write; its suffix is one of ``formats.CONTAINERS``.
        source: File that all but the sound is copied from.
        sample_rate: Sample rate of the sound in Hz.
        channels: Number of channels.
        track: Number of the audio track that is replaced, from 1 on (default: the one that is
            marked as the default, or the first).
        overwrite: Replace an existing file.

    Raises:
        UsageError: PyAV is not installed, the source is not a file, or the target exists or cannot
            hold the picture or the number of channels.
        DenoiseError: The target cannot be written.
    """
    require("media", "av", purpose=f"writing {target}")
    import av

    if not source.is_file():
        raise UsageError(
            f"{target}: the picture is copied from the source, but {source} is not a file"
        )
    av.logging.set_level(av.logging.PANIC)
    with replacing(target, overwrite=overwrite, source=source) as part, ExitStack() as stack:
        try:
            original = stack.enter_context(av.open(str(source), metadata_errors="replace"))
        except _av_errors() as error:
            raise AudioError(f"{source} is damaged or not a media file") from error
        index, _ = choose_track(source, original.streams.audio, track)
        apple = any(key.startswith("com.") for key in original.metadata)
        options = {"movflags": "use_metadata_tags"} if apple else {}
        container = CONTAINERS[target.suffix.lower()]
        if container == "ipod" and original.streams.video:
            container = "mp4"  # FFmpeg's M4A writer refuses the picture of a cover
        try:
            output = stack.enter_context(av.open(str(part), "w", format=container, options=options))
            writer = RemuxWriter(original, output, index, sample_rate, channels)
            yield writer
            writer.finish()
            stack.close()  # writes the index
        except _av_errors() as error:
            reason = getattr(error, "strerror", None) or error
            raise DenoiseError(f"cannot write {target}: {reason}") from error


def _codec(name: str, output: "OutputContainer") -> str:
    """Return the encoder for sound that was encoded with a codec."""
    if name in LOSSLESS and name in output.supported_codecs and _has_encoder(name):
        return name
    if output.format.name == "webm" or (output.format.name == "matroska" and name in _ENCODERS):
        return "libopus"
    return "aac"


def _has_encoder(name: str) -> bool:
    from av.codec import codecs_available

    return name in codecs_available and name.startswith(("pcm_", "flac", "alac"))


def _av_errors() -> tuple[type[Exception], ...]:
    from av.error import FFmpegError

    return (FFmpegError,)
