"""Audio files read block by block, and the errors in them."""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile

from denoisecli.audio.channels import default_mask, from_ogg_order, read_caf_mask
from denoisecli.audio.formats import FORMATS, MEDIA
from denoisecli.audio.integrity import (
    UNKNOWN_FRAMES,
    holds_more,
    lacks_its_end,
    promised_frames,
    skip_id3,
)
from denoisecli.audio.joined import second_start, with_all_flac
from denoisecli.audio.media import DecodingError, MediaFile
from denoisecli.audio.metadata import channel_mask_comment
from denoisecli.audio.ogg import ogg_links
from denoisecli.audio.riff import (
    FileSlice,
    Patched,
    SoundLayout,
    as_libsndfile_knows,
    read_mask,
    sound_layout,
    with_all_sound,
)
from denoisecli.errors import AudioError, UsageError
from denoisecli.system.interrupts import raise_pending
from denoisecli.types import AudioBlock, AudioChannels

BLOCK_FRAMES = 2**16
"""Default samples per channel in a block: 1.4 s at 48 kHz."""

LARGEST_SAMPLE = 1e10
"""Largest magnitude of a valid sample.

It is above the full scale of 32-bit integers, which some programs store as floating-point numbers.
Larger samples are damage, and their spectra and powers would overflow.
"""

_OWN = ("wav", "aiff", "au", "caf", "w64", "flac")  # libsndfile fails where these are damaged
_UNSUPPORTED = (4, 18)  # libsndfile's codes for ALAC in CAF from FFmpeg, and FLAC of 20 bits
_MP3 = "MPEG_LAYER_III"
_SALVAGE_FRAMES = 2**12  # the block in which a file breaks off is lost


@dataclass(frozen=True)
class AudioInfo:
    """Facts from the header of a recording.

    Attributes:
        path: Audio file.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        frames: Samples per channel; an estimate for what PyAV reads (``formats.MEDIA``), and 0
            for an open file or a pipe whose header does not state it.
        format: libsndfile's or FFmpeg's name of the format.
        subtype: libsndfile's name of the sample format, or FFmpeg's of the codec.
        tags: Title, artist and the other tags that soundfile knows.
        mask: Channel mask as in WAV files (``denoisecli.audio.channels``); 0 if it is unknown.
        head: First bytes of a pipe, which may hold metadata; empty for a file.
    """

    path: Path
    sample_rate: int
    channels: int
    frames: int
    format: str
    subtype: str
    tags: Mapping[str, str] = field(default_factory=dict)
    mask: int = 0
    head: bytes = field(default=b"", repr=False)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


class SequentialFile(soundfile.SoundFile):
    """A sound file that is read from front to back.

    soundfile seeks after every block to where libsndfile already is, which fails in pipes and at
    the end of a FLAC stream of unknown length.
    """

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek."""
        return False

    def read_block(self, frames: int) -> AudioBlock:
        """Read up to ``frames`` samples per channel as float32, shape (channels, timesteps)."""
        block = np.ascontiguousarray(self.read(frames, dtype="float32", always_2d=True).T)
        return from_ogg_order(block) if self.format == "OGG" and self.has_positions else block

    @property
    def has_positions(self) -> bool:
        """Whether channels have positions; those of Opus need not (RFC 7845, section 5.1.1)."""
        family = re.search(r"^ *Channel Mapping *: (\d+)", self.extra_info, re.MULTILINE)
        return family is None or family[1] in ("0", "1")


class ChainedFile:
    """A chained Ogg file, whose links are read one after the other as `SequentialFile` reads one.

    Args:
        path: The file.
        links: Positions of the first byte of each link and of the byte after its last one.

    Raises:
        soundfile.LibsndfileError: libsndfile cannot read the first link.
        AudioError: A further link is damaged, or the links have different sample rates or numbers
            of channels.
    """

    def __init__(self, path: Path, links: Sequence[tuple[int, int]]) -> None:
        self._path = path
        self._left = deque[tuple[int, int]]()
        self.frames = 0
        for number, link in enumerate(links, 1):
            try:
                with self._opened(link) as file:
                    if number == 1:
                        self.samplerate, self.channels = file.samplerate, file.channels
                        self.format, self.subtype = file.format, file.subtype
                        self.has_positions = file.has_positions
                        self._tags = file.copy_metadata()
                    layout, frames = (file.samplerate, file.channels), file.frames
            except soundfile.LibsndfileError as error:
                if number == len(links) and lacks_its_end(path, "OGG"):
                    break  # in its header; it is reported as cut off
                if number == 1:
                    raise
                raise AudioError(
                    f"{path} is damaged: recording {number} of its {len(links)} cannot be opened"
                ) from error
            if layout != (self.samplerate, self.channels):
                raise AudioError(
                    f"{path} is a chain of recordings with different sample rates or numbers of "
                    "channels; convert it to one recording first"
                )
            self._left.append(link)
            self.frames += frames
        # The link that is read; there may be more of them than files may be open.
        self._open = ExitStack()
        self._file = self._open.enter_context(self._opened(self._left.popleft()))

    @contextmanager
    def _opened(self, link: tuple[int, int]) -> Iterator[SequentialFile]:
        with FileSlice(self._path, *link) as part, closing(SequentialFile(part)) as file:
            yield file

    def copy_metadata(self) -> dict[str, str]:
        """Return the tags of the first link."""
        return self._tags

    def read_block(self, frames: int) -> AudioBlock:
        """Read up to ``frames`` samples per channel as float32, shape (channels, timesteps)."""
        block = self._file.read_block(frames)
        while block.shape[1] == 0 and self._left:
            self._open.close()
            self._file = self._open.enter_context(self._opened(self._left.popleft()))
            block = self._file.read_block(frames)
        return block

    def close(self) -> None:
        """Close the file."""
        self._open.close()


class AudioReader:
    """An open recording to iterate over block by block; see :func:`reader`.

    Args:
        file: Open file.
        path: Name of the recording in messages.
        frames: Samples per channel; 0 if unknown.
        promised: Samples per channel that the header states; None if it states none.
        slack: Number of promised samples that may be missing.
        stops: Stop at the stated number of samples; what follows is not sound.
        ended: The file has its end mark, if its format requires one.
        mask: Channel mask; 0 if it is unknown.
        head: First bytes of a pipe.
        block_frames: Samples per channel in a block.
        replace_nan: See :func:`reader`.
        keep_readable: See :func:`reader`.
        warnings: Warnings about the file, all of whose sound can be read.
        read_error: Function that returns the error that ended a pipe early, if any.
        holds_another: Function that returns whether another recording follows. It is called before
            the first block of a file, and after the last one of a pipe.

    Attributes:
        info: Facts from the header.
        warnings: Warnings about the file, all of whose sound can be read.
        replaced: Number of invalid samples that were set to zero so far.
        problem: Why the recording is incomplete, set when all readable samples were read; only
            with ``keep_readable``, otherwise it is raised.
    """

    def __init__(
        self,
        file: SequentialFile | ChainedFile | MediaFile,
        path: Path,
        *,
        frames: int,
        promised: int | None,
        slack: int = 0,
        stops: bool = False,
        ended: bool = True,
        mask: int = 0,
        head: bytes = b"",
        warnings: Sequence[str] = (),
        block_frames: int = BLOCK_FRAMES,
        replace_nan: bool = False,
        keep_readable: bool = False,
        read_error: Callable[[], BaseException | None] = lambda: None,
        holds_another: Callable[[], bool] = lambda: False,
    ) -> None:
        self.info = AudioInfo(
            path,
            file.samplerate,
            file.channels,
            frames,
            file.format,
            file.subtype,
            file.copy_metadata(),
            mask,
            head,
        )
        self.warnings = list(warnings)
        self.replaced = 0
        self.problem: str | None = None
        self._file = file
        self._promised = promised
        self._slack = slack
        self._stops = stops
        self._ended = ended
        self._block_frames = min(block_frames, _SALVAGE_FRAMES) if keep_readable else block_frames
        self._replace_nan = replace_nan
        self._keep_readable = keep_readable
        self._read_error = read_error
        self._holds_another = holds_another
        self._version_at_start = self._version()

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield float32 samples (channels, timesteps) at the file's own sample rate.

        Raises:
            AudioError: The recording is damaged or cut off, or has invalid samples.
        """
        # A file whose header contradicts its size is refused before any work is done.
        available = self._file.frames
        lacking = self._promised is not None and available < self._promised - self._slack
        if lacking or not self._ended:
            self._report_cut_off(available)
        if self._version_at_start is not None and self._holds_another():
            self._report_another()
        position = 0
        while True:
            frames = self._block_frames
            if self._stops and self._promised is not None:
                frames = min(frames, self._promised - position)
                if frames == 0:
                    break
            try:
                block = self._file.read_block(frames)
            except (soundfile.LibsndfileError, DecodingError) as error:
                seconds = position / self.info.sample_rate
                self._report(
                    f"{self.info.path} is damaged at {seconds:.0f} s or later{reason_of(error)}"
                )
                break
            finally:
                self._raise_interrupt()
            if block.shape[1] == 0:
                break
            yield self._finite(block, position)
            position += block.shape[1]
        self._check_end(position)

    def accept_length(self, warning: str) -> None:
        """Take what can be read for all of the recording, whatever its header states."""
        self.warnings.append(warning)
        self._promised = None

    def _check_end(self, position: int) -> None:
        path = self.info.path
        if (error := self._read_error()) is not None:
            seconds = position / self.info.sample_rate
            self._report(f"{path} cannot be read beyond {seconds:.1f} s: {error}")
        if position == 0:  # `keep_readable` has nothing to keep
            raise AudioError(self.problem or f"{path} is damaged: no samples can be decoded")
        if self.problem is None:
            if self._version_at_start is None and self._holds_another():
                self._report_another()
            lacking = 0 if self._promised is None else self._promised - position
            if lacking > self._slack:
                self._report_cut_off(position)
            elif isinstance(self._file, MediaFile) and lacking > (self._file.rounding or lacking):
                seconds = lacking / self.info.sample_rate
                self.warnings.append(
                    f"{path} ends {seconds:.2f} s before the end that its header states; it may be "
                    "cut off"
                )
        if self._version() != self._version_at_start:
            raise AudioError(f"{path} was changed while it was read")

    def _raise_interrupt(self) -> None:
        """Raise what libsndfile has swallowed while it read through Python, such as Ctrl-C."""
        raise_pending()
        error = self._read_error()
        if error is not None and not isinstance(error, OSError):
            raise error

    def _version(self) -> tuple[int, int] | None:
        """Return the size and modification time of a file, None for a pipe."""
        if not self.info.path.is_file():
            return None
        status = self.info.path.stat()
        return status.st_size, status.st_mtime_ns

    def _finite(self, block: AudioBlock, position: int) -> AudioBlock:
        if not self._replace_nan:
            where = str(self.info.path)
            require_valid(block, self.info.sample_rate, where=where, start=position)
            return block
        valid = np.abs(block) <= LARGEST_SAMPLE
        self.replaced += int(valid.size - np.count_nonzero(valid))
        return np.where(valid, block, np.float32(0))

    def _report_cut_off(self, available: int) -> None:
        rate = self.info.sample_rate
        read, promised = f"{available / rate:.1f} s", f"{(self._promised or 0) / rate:.1f} s"
        if read == promised:
            read, promised = f"{available} samples", f"{self._promised} samples"
        problem = f"{self.info.path} is cut off"
        if self._promised is not None and self._promised > available:
            problem += f": {read} can be read of the {promised} that its header promises"
        self._report(problem)

    def _report_another(self) -> None:
        self._report(
            f"{self.info.path} holds several recordings that were joined byte by byte; join them "
            "with ffmpeg or sox instead"
        )

    def _report(self, problem: str) -> None:
        if not self._keep_readable:
            raise AudioError(problem)
        self.problem = problem


@contextmanager
def reader(
    path: Path | str,
    *,
    block_frames: int = BLOCK_FRAMES,
    replace_nan: bool = False,
    keep_readable: bool = False,
    track: int | None = None,
) -> Iterator[AudioReader]:
    """Open an audio file to read it block by block.

    Args:
        path: Audio file.
        block_frames: Samples per channel in a block; the last block may be shorter.
        replace_nan: Set samples that are NaN, infinite or above `LARGEST_SAMPLE` to zero and count
            them, instead of raising.
        keep_readable: Read what can be read of a damaged or cut-off file and set ``problem``,
            instead of raising.
        track: Number of the audio track of a media file, from 1 on (default: the one that is
            marked as the default, or the first).

    Raises:
        UsageError: The file does not exist, is a folder, or has no such track.
        AudioError: The file is not an audio file, has no samples, or was changed while it was
            read.
    """
    path = Path(path)
    with _open(path, track) as (file, warnings):
        stops = False
        if isinstance(file, MediaFile):
            promised = file.promised
            ended = file.format != "mp3" or not lacks_its_end(path, "MP3")
            # Containers round the length, and coders count their padding differently.
            slack = min(file.samplerate // 2, (promised or 0) // 10 + 1200)
            if file.format == "caf":
                slack, stops = slack + 4096, True  # FFmpeg states a whole last packet
        elif isinstance(file, ChainedFile):
            promised, slack, ended = file.frames, 0, not lacks_its_end(path, file.format)
        else:
            promised = file.frames if warnings else promised_frames(path, file)
            ended = not lacks_its_end(path, file.format)
            slack = 2 * 1152 if file.subtype == _MP3 else 0  # its coders count differently
            stops = file.format == "FLAC"
        yield AudioReader(
            file,
            path,
            frames=file.frames if file.frames < UNKNOWN_FRAMES else 0,
            promised=promised,
            slack=slack,
            stops=stops,
            ended=ended,
            mask=_mask(path, file),
            warnings=warnings,
            block_frames=block_frames,
            replace_nan=replace_nan,
            keep_readable=keep_readable,
            holds_another=lambda: second_start(path) is not None,
        )


def _mask(path: Path, file: SequentialFile | ChainedFile | MediaFile) -> int:
    """Return the channel mask of a file; 0 if it is unknown, or the usual one of two channels."""
    if isinstance(file, MediaFile):
        return file.mask
    if file.format in ("WAVEX", "RF64", "W64"):
        with path.open("rb") as raw:
            return read_mask(raw)
    if file.format == "CAF" and file.channels > 2:
        with path.open("rb") as raw:
            return read_caf_mask(raw)
    if file.channels <= 2 or file.format not in ("FLAC", "OGG") or not file.has_positions:
        return 0
    stated = channel_mask_comment(path) if file.format == "FLAC" else 0
    return stated or default_mask(file.channels)


def require_valid(
    audio: AudioChannels, sample_rate: int, *, where: str = "the audio", start: int = 0
) -> None:
    """Raise AudioError if there are samples that are NaN, infinite or above `LARGEST_SAMPLE`.

    Args:
        audio: Samples, shape (channels, timesteps).
        sample_rate: Sample rate in Hz.
        where: Name of the sound in the message.
        start: Position of the first sample of ``audio`` in the sound.

    Raises:
        AudioError: Names the time in seconds and the channel of the first such sample.
    """
    if audio.size == 0 or (audio.min() >= -LARGEST_SAMPLE and audio.max() <= LARGEST_SAMPLE):
        return
    invalid = ~(np.abs(audio) <= LARGEST_SAMPLE)
    channel, timestep = np.argwhere(invalid)[np.argmin(np.nonzero(invalid)[1])]
    value = audio[channel, timestep]
    kind = f"sample of {value:.3g}" if np.isfinite(value) else "NaN or infinite sample"
    seconds = (start + timestep) / sample_rate
    raise AudioError(f"{where} has a {kind} at {seconds:.3f} s, channel {channel + 1}")


@contextmanager
def _open(
    path: Path, track: int | None
) -> Iterator[tuple[SequentialFile | ChainedFile | MediaFile, list[str]]]:
    """Open a file, and yield it with warnings about its header."""
    _check_readable(path)
    if path.suffix.lower() in MEDIA or _is_adts(path):
        with closing(MediaFile(path, track)) as media:
            yield media, media.warnings
        return
    with ExitStack() as stack:
        source: Path | Patched | FileSlice = path
        warnings: list[str] = []
        layout = sound_layout(path)
        second = second_start(path, in_flac=False)
        if second is not None:  # libsndfile refuses some of these
            source = stack.enter_context(FileSlice(path, 0, second))
        elif flac := with_all_flac(path):
            source, stated, found, rate = flac
            stack.enter_context(source)
            warnings.append(_states_too_little(path, stated / rate, found / rate))
        elif layout is not None and (warning := _wrong_size(path, layout)):
            source, warnings = stack.enter_context(with_all_sound(path, layout)), [warning]
        elif layout is not None and layout.trailing:
            warnings.append(
                f"{path} contains {layout.trailing} bytes of unknown data after the audio"
            )
        if layout is not None and layout.is_w64 and source is path:
            # libsndfile would read what pads the sound, and the chunks behind it.
            end = layout.start + min(layout.stated, layout.available)
            source = stack.enter_context(FileSlice(path, 0, end))
        if source is path and (patched := as_libsndfile_knows(path)):
            source = stack.enter_context(patched)
        links = ogg_links(path)
        try:
            # libsndfile itself would read the first link only, or nothing if the last is cut off.
            file: SequentialFile | ChainedFile = stack.enter_context(
                closing(ChainedFile(path, links)) if len(links) > 1 else SequentialFile(source)
            )
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless raw audio
            media = stack.enter_context(closing(_open_other(path, track, error)))
            yield media, media.warnings
            return
        if track not in (None, 1):
            raise UsageError(f"{path} has no audio track {track}; it has 1")
        if file.format == "RAW":  # libsndfile takes any bytes for sound if the suffix is .au
            raise AudioError(f"{path} is damaged: it has no header")
        if file.frames == 0:
            raise AudioError(f"{path} has no samples")
        if isinstance(file, SequentialFile) and holds_more(path, file):
            yield stack.enter_context(closing(MediaFile(path))), []
        else:
            yield file, warnings


def _wrong_size(path: Path, layout: SoundLayout) -> str | None:
    """Return a warning if the header of a WAV states another size than that of its sound."""
    seconds = layout.available / (layout.byte_rate or 1)
    if layout.counts_header:
        return (
            f"the data size in the header of {path} includes the header itself; all "
            f"{seconds:.1f} s are read"
        )
    if layout.states_too_little:
        stated = layout.stated / (layout.byte_rate or 1)
        return _states_too_little(path, stated, seconds)
    return None


def _states_too_little(path: Path, stated: float, seconds: float) -> str:
    return f"the header of {path} states {stated:.1f} s of sound; all {seconds:.1f} s are read"


def _is_adts(path: Path) -> bool:
    """Return whether a file is a bare stream of AAC, which libsndfile takes for MP3."""
    with path.open("rb") as raw:
        skip_id3(raw)
        sync = raw.read(2)
    return len(sync) == 2 and sync[0] == 0xFF and sync[1] & 0xF6 == 0xF0  # layer 0


def _open_other(path: Path, track: int | None, error: Exception) -> MediaFile:
    """Open a file that libsndfile does not know through PyAV, by its content.

    Raises:
        AudioError: It is not a media file either, or PyAV is not installed.
    """
    if find_spec("av") is not None:
        with suppress(AudioError):
            media = MediaFile(path, track)
            is_supported = getattr(error, "code", None) not in _UNSUPPORTED
            own_codecs = ("pcm_", "flac", "alac") if is_supported else ("pcm_",)
            if media.format not in _OWN or not media.codec.startswith(own_codecs):
                return media
            media.close()
    raise AudioError(
        f"{path} is damaged or not an audio file of a known format ({' '.join(FORMATS)})"
    ) from error


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; an audio file is needed")
    if not path.is_file():
        raise UsageError(f"{path} is a pipe or a device; an audio file is needed")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise AudioError(f"{path} has a name that is not UTF-8 text; rename the file") from error
    try:
        with path.open("rb") as raw:
            empty = not raw.read(1)
    except OSError as error:
        raise AudioError(f"cannot read {path}: {error.strerror}") from error
    if empty:
        raise AudioError(f"{path} is empty")


def reason_of(error: Exception) -> str:
    """Return the reason in an error of libsndfile as the end of a sentence; it may be empty."""
    reason = getattr(error, "error_string", str(error)).removeprefix("Error : ").strip(" .")
    return f": {reason}" if reason else ""
