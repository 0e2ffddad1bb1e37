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

from denoisecli.audio.av_frames import open_input, to_frame
from denoisecli.audio.formats import CONTAINERS, MEDIA
from denoisecli.audio.loudness import LAYOUTS
from denoisecli.audio.media import (
    LOSSLESS,
    channel_names,
    choose_track,
    first_sample_time,
    wav_layout,
)
from denoisecli.audio.metadata import (
    ATTACHED_PICTURE,
    Metadata,
    blocks_of,
    copy_mpeg4_tags,
    is_of_level,
    missing_tags,
    not_kept,
)
from denoisecli.audio.resampling import StreamResampler
from denoisecli.audio.writing import clamp
from denoisecli.errors import AudioError, StorageError, UsageError
from denoisecli.system.atomic_files import replacing
from denoisecli.system.extras import require
from denoisecli.types import AudioBlock

if TYPE_CHECKING:
    from av import AudioCodecContext, AudioStream, Packet
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
        self._layout = ""
        replaced = source.streams.audio[track]
        for stream in source.streams:
            if stream is replaced or stream.index == replaced.index:
                self._sound = self._add_sound(replaced, sample_rate, channels)
            else:
                self._copy(stream)
        output.metadata.update(_tags(source.metadata))
        if chapters := source.chapters():
            output.set_chapters(chapters)
        output.start_encoding()  # an error belongs before the work
        self._packets = self._copied_packets(source)
        self._waiting = next(self._packets, None)
        self.sample_rate = rate = self._sound.codec_context.sample_rate
        if rate != sample_rate:
            self.warnings.append(
                f"the sound is stored at {rate} Hz, since its codec does not support "
                f"{sample_rate} Hz"
            )
        self._resample = StreamResampler(sample_rate, rate, channels)
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
        self._layout = self._choose_layout(codec, rate, replaced.codec_context, channels)
        sound = self._output.add_stream(codec, rate=rate, layout=self._layout)
        assert isinstance(sound, AudioStream)
        name = replaced.codec_context.name
        is_media = Path(replaced.container.name).suffix.lower() in MEDIA
        if codec not in LOSSLESS and name in LOSSLESS and is_media:
            self.warnings.append(
                f"the sound is lossless ({name}) and was stored with the lossy codec {codec}"
            )
        if codec not in LOSSLESS:
            bits = max(BITS_PER_SECOND * channels, _LOWEST_BIT_RATE)
            sound.bit_rate = min(bits, _BITS_PER_SAMPLE * rate * channels)
        elif replaced.codec_context.format is not None and codec in ("flac", "alac"):
            wide = replaced.codec_context.format.name.startswith(("s32", "flt", "dbl"))
            planar = "p" if codec == "alac" else ""
            sound.format = ("s32" if wide else "s16") + planar
        sound.time_base = Fraction(1, rate)
        tags = {k: text for k, text in replaced.metadata.items() if not k.startswith(_TIMES)}
        sound.metadata.update(_tags(tags))
        sound.disposition = replaced.disposition
        return sound

    def _choose_layout(
        self, codec: str, rate: int, context: "AudioCodecContext", channels: int
    ) -> str:
        """Return the channel layout of the source, or the usual one if the codec has none like it.

        A warning states that channels get other positions.
        """
        usual = LAYOUTS[channels]
        layout = wav_layout(channel_names(context))
        if layout is None or layout.nb_channels != channels or layout.name == usual:
            return usual
        if _supports(codec, rate, layout.name):
            return layout.name
        self.warnings.append(
            f"the channel layout {layout.name} was changed to {usual}, because {codec} does not "
            "support it"
        )
        return usual

    def _copy(self, stream: "Stream") -> None:
        """Add a stream that is copied, if the container can hold it."""
        codec = None if stream.codec_context is None else stream.codec_context.codec
        container = self._output.format.name
        if stream.type == "data" and codec is None and self._is_written_anew(stream):
            return
        copy = None
        can_hold = (
            stream.type == "attachment" and container == "matroska"
            if codec is None
            else codec.canonical_name in self._output.supported_codecs
        )
        if can_hold:
            with suppress(ValueError, *_av_errors()):
                copy = self._output.add_stream_from_template(stream)
        if copy is None:
            is_cover = bool(stream.disposition & ATTACHED_PICTURE)
            kind = "picture" if stream.type == "video" else f"{stream.type} stream"
            name = "" if codec is None else f" ({codec.canonical_name})"
            message = f"the {kind}{name} cannot be copied into a {container} file"
            if stream.type in ("video", "audio") and not is_cover:
                raise UsageError(f"{message}; choose the suffix of the source, or .mkv")
            self.warnings.append(f"{message}, and was left out")
            return
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition
        self._copies[stream.index] = copy

    def _is_written_anew(self, stream: "Stream") -> bool:
        """Return whether a stream holds the text of chapters or a timecode, which are tags too."""
        keeps_timecode = self._output.format.name in ("mov", "mp4", "matroska")
        return bool(stream.container.chapters()) or (
            "timecode" in stream.metadata and keeps_timecode
        )

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
        if block.shape[1] == 0:
            return
        frame = to_frame(block, self._layout, self.sample_rate, self._position)
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
    metadata: Metadata | None = None,
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
        metadata: Metadata of the source; a warning names those that FFmpeg does not copy.
        overwrite: Replace an existing file.

    Raises:
        UsageError: PyAV is not installed, the source is not a file, or the target exists or cannot
            hold the picture or the number of channels.
        StorageError: The target cannot be written.
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
            original = stack.enter_context(open_input(source))
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
            tags = dict(original.metadata)
            stack.close()  # writes the index
            if container in ("ipod", "mp4"):
                copy_mpeg4_tags(source, part)
            lost = blocks_of(metadata or Metadata()) + missing_tags(tags, part)
            if lost:
                writer.warnings.append(not_kept(target.suffix[1:].upper(), sorted(set(lost))))
        except _av_errors() as error:
            reason = getattr(error, "strerror", None) or error
            raise StorageError(f"cannot write {target}: {reason}") from error


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    """Return the tags that are copied: none of the container or the level."""
    return {
        name: text
        for name, text in metadata.items()
        if name not in _NOT_TAGS and not is_of_level(name)
    }


def _supports(codec: str, rate: int, layout: str) -> bool:
    """Return whether an encoder takes a channel layout."""
    from av import AudioCodecContext, CodecContext

    context = CodecContext.create(codec, "w")
    assert isinstance(context, AudioCodecContext)
    context.sample_rate, context.layout = rate, layout
    if formats := context.codec.audio_formats:
        context.format = formats[0]
    try:
        context.open()
    except _av_errors():
        return False
    return True


def _codec(name: str, output: "OutputContainer") -> str:
    """Return the encoder for sound that was encoded with a codec."""
    if name == "flac" and output.format.name == "mov":
        return "alac"  # FFmpeg lists FLAC for MOV, and refuses it
    if name in LOSSLESS and name in output.supported_codecs and _has_encoder(name):
        return name
    if name in LOSSLESS and output.format.name == "matroska":
        return "flac"
    if name == "flac" and "alac" in output.supported_codecs:
        return "alac"
    if output.format.name == "webm" or (output.format.name == "matroska" and name in _ENCODERS):
        return "libopus"
    return "aac"


def _has_encoder(name: str) -> bool:
    from av.codec import codecs_available

    return name in codecs_available and name.startswith(("pcm_", "flac", "alac"))


def _av_errors() -> tuple[type[Exception], ...]:
    from av.error import FFmpegError

    return (FFmpegError,)
