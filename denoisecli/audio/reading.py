"""Audio files read block by block, and the errors in them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from denoisecli.audio.formats import FORMATS, MEDIA
from denoisecli.audio.integrity import UNKNOWN_FRAMES, holds_more, lacks_its_end, promised_frames
from denoisecli.audio.media import DecodingError, MediaFile
from denoisecli.errors import AudioError, UsageError
from denoisecli.types import AudioBlock, AudioChannels

BLOCK_FRAMES = 2**16
"""Default samples per channel in a block: 1.4 s at 48 kHz."""

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
    """

    path: Path
    sample_rate: int
    channels: int
    frames: int
    format: str
    subtype: str
    tags: Mapping[str, str] = field(default_factory=dict)

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
        return np.ascontiguousarray(self.read(frames, dtype="float32", always_2d=True).T)


class AudioReader:
    """An open recording to iterate over block by block; see :func:`reader`.

    Args:
        file: Open file.
        path: Name of the recording in messages.
        frames: Samples per channel; 0 if unknown.
        promised: Samples per channel that the header states; None if it states none.
        slack: How many of the promised samples may be missing.
        ended: The file has its end mark, if its format requires one.
        block_frames: Samples per channel in a block.
        replace_nan: See :func:`reader`.
        keep_readable: See :func:`reader`.
        read_error: Function that returns the error that ended a pipe early, if any.

    Attributes:
        info: Facts from the header.
        replaced: Number of NaN and infinite samples that were set to zero so far.
        problem: Why the recording is incomplete, set when all readable samples were read; only
            with ``keep_readable``, otherwise it is raised.
    """

    def __init__(
        self,
        file: SequentialFile | MediaFile,
        path: Path,
        *,
        frames: int,
        promised: int | None,
        slack: int = 0,
        ended: bool = True,
        block_frames: int = BLOCK_FRAMES,
        replace_nan: bool = False,
        keep_readable: bool = False,
        read_error: Callable[[], OSError | None] = lambda: None,
    ) -> None:
        self.info = AudioInfo(
            path,
            file.samplerate,
            file.channels,
            frames,
            file.format,
            file.subtype,
            file.copy_metadata(),
        )
        self.replaced = 0
        self.problem: str | None = None
        self._file = file
        self._promised = promised
        self._slack = slack
        self._ended = ended
        self._block_frames = min(block_frames, _SALVAGE_FRAMES) if keep_readable else block_frames
        self._replace_nan = replace_nan
        self._keep_readable = keep_readable
        self._read_error = read_error
        self._version_at_start = self._version()

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield float32 samples (channels, timesteps) at the file's own sample rate.

        Raises:
            AudioError: The recording is damaged or cut off, or has NaN or infinite samples.
        """
        # A file whose header contradicts its size is refused before any work is done.
        available = self._file.frames
        if (self._promised is not None and available < self._promised) or not self._ended:
            self._report_cut_off(available)
        position = 0
        while True:
            try:
                block = self._file.read_block(self._block_frames)
            except (soundfile.LibsndfileError, DecodingError) as error:
                seconds = position / self.info.sample_rate
                self._report(
                    f"{self.info.path} is damaged at {seconds:.0f} s or later{reason_of(error)}"
                )
                break
            if block.shape[1] == 0:
                break
            yield self._finite(block, position)
            position += block.shape[1]
        self._check_end(position)

    def _check_end(self, position: int) -> None:
        path = self.info.path
        if (error := self._read_error()) is not None:
            seconds = position / self.info.sample_rate
            self._report(f"{path} cannot be read beyond {seconds:.1f} s: {error}")
        if self.problem is None:
            if position == 0:
                raise AudioError(f"{path} is damaged: no samples can be decoded")
            if self._promised is not None and position < self._promised - self._slack:
                self._report_cut_off(position)
        if self._version() != self._version_at_start:
            raise AudioError(f"{path} was changed while it was read")

    def _version(self) -> tuple[int, int] | None:
        """Return the size and modification time of a file, None for a pipe."""
        if not self.info.path.is_file():
            return None
        status = self.info.path.stat()
        return status.st_size, status.st_mtime_ns

    def _finite(self, block: AudioBlock, position: int) -> AudioBlock:
        if not self._replace_nan:
            where = str(self.info.path)
            require_finite(block, self.info.sample_rate, where=where, start=position)
            return block
        finite = np.isfinite(block)
        self.replaced += int(finite.size - np.count_nonzero(finite))
        return np.where(finite, block, np.float32(0))

    def _report_cut_off(self, available: int) -> None:
        rate = self.info.sample_rate
        sizes = f"{available / rate:.1f} s can be read"
        if self._promised is not None and self._promised > available:
            sizes += f" of the {self._promised / rate:.1f} s that its header promises"
        self._report(f"{self.info.path} is cut off: {sizes}")

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
) -> Iterator[AudioReader]:
    """Open an audio file to read it block by block.

    Args:
        path: Audio file.
        block_frames: Samples per channel in a block; the last block may be shorter.
        replace_nan: Set NaN and infinite samples to zero and count them, instead of raising.
        keep_readable: Read what can be read of a damaged or cut-off file and set ``problem``,
            instead of raising.

    Raises:
        UsageError: The file does not exist, or is a folder.
        AudioError: The file is not an audio file, has no samples, or was changed while it was
            read.
    """
    path = Path(path)
    with _open(path) as file:
        if isinstance(file, SequentialFile):
            promised, ended = promised_frames(path, file), not lacks_its_end(path, file)
            slack = 2 * 1152 if file.format == "MP3" else 0  # its coders count differently
        else:
            promised, ended = file.promised, True
            slack = file.samplerate // 2  # containers round the length
        yield AudioReader(
            file,
            path,
            frames=file.frames if file.frames < UNKNOWN_FRAMES else 0,
            promised=promised,
            slack=slack,
            ended=ended,
            block_frames=block_frames,
            replace_nan=replace_nan,
            keep_readable=keep_readable,
        )


def require_finite(
    audio: AudioChannels, sample_rate: int, *, where: str = "the audio", start: int = 0
) -> None:
    """Raise AudioError if there are NaN or infinite samples.

    Args:
        audio: Samples, shape (channels, timesteps).
        sample_rate: Sample rate in Hz.
        where: Name of the sound in the message.
        start: Position of the first sample of ``audio`` in the sound.

    Raises:
        AudioError: Names the time in seconds and the channel of the first such sample.
    """
    finite = np.isfinite(audio)
    if not finite.all():
        channel, timestep = np.argwhere(~finite)[np.argmin(np.nonzero(~finite)[1])]
        seconds = (start + timestep) / sample_rate
        raise AudioError(
            f"{where} has a NaN or infinite sample at {seconds:.3f} s, channel {channel + 1}"
        )


@contextmanager
def _open(path: Path) -> Iterator[SequentialFile | MediaFile]:
    _check_readable(path)
    if path.suffix.lower() in MEDIA:
        with MediaFile(path) as media:
            yield media
        return
    try:
        file = SequentialFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless raw audio
        raise AudioError(
            f"{path} is damaged or not an audio file of a known format ({' '.join(FORMATS)})"
        ) from error
    with file:
        if file.frames == 0:
            raise AudioError(f"{path} has no samples")
        if not holds_more(path, file):
            yield file
            return
    with MediaFile(path) as media:
        yield media


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; an audio file is needed")
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
