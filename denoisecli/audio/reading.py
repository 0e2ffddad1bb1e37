"""An audio file read block by block, and what can be wrong with it."""

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
"""Samples per channel that are read at a time: 1.4 s at 48 kHz."""

_SALVAGE_FRAMES = 2**12  # a block in which the file breaks is lost


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    ``frames`` is an estimate for what PyAV reads (see formats.MEDIA), and 0 where an open file or
    a pipe does not say it. ``tags`` are title, artist, and whatever else soundfile exposes.
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

    soundfile seeks after every block to where libsndfile is anyway, which fails at the end of a
    FLAC stream of unknown length, and in pipes.
    """

    def seekable(self) -> bool:
        """Tell soundfile not to."""
        return False


class AudioReader:
    """An open recording that gives one block after another; made by :func:`reader`.

    Attributes:
        info: what its header says.
        replaced: how many samples so far were NaN or infinite and were set to zero.
        problem: why this is not the whole recording, once all that can be read was read; only
            with ``keep_readable``, otherwise it is an error.
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
        broken: Callable[[], OSError | None] = lambda: None,
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
        self._broken = broken
        self._opened = self._version()

    def __iter__(self) -> Iterator[AudioBlock]:
        """Give float32 samples (channels, timesteps) at the file's own rate.

        Raises:
            AudioError: damaged, cut off, or with NaN or infinite samples.
        """
        # A file whose header contradicts its size is refused before any work is done.
        there = self._file.frames
        if (self._promised is not None and there < self._promised) or not self._ended:
            self._cut_off(there)
        position = 0
        while True:
            try:
                block = self._file.read(self._block_frames, dtype="float32", always_2d=True).T
            except (soundfile.LibsndfileError, DecodingError) as error:
                self._damaged(position, error)
                break
            if block.shape[1] == 0:
                break
            yield self._finite(np.ascontiguousarray(block), position)
            position += block.shape[1]
        if (broken := self._broken()) is not None:
            seconds = position / self.info.sample_rate
            self._fail(f"{self.info.path} cannot be read on after {seconds:.1f} s: {broken}")
        if self.problem is None:
            if position == 0:  # the header promised samples that cannot be decoded
                raise AudioError(f"{self.info.path} is damaged: no samples can be read")
            if self._promised is not None and position < self._promised - self._slack:
                self._cut_off(position)
        if self._version() != self._opened:
            raise AudioError(f"{self.info.path} was changed while it was read")

    def _version(self) -> tuple[int, int] | None:
        """Give what changes with a file: its size and time; a pipe has none."""
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

    def _cut_off(self, there: int) -> None:
        rate = self.info.sample_rate
        sizes = f"{there / rate:.1f} s can be read"
        if self._promised is not None and self._promised > there:
            sizes += f" of the {self._promised / rate:.1f} s that its header promises"
        self._fail(f"{self.info.path} is cut off: {sizes}")

    def _damaged(self, position: int, error: Exception) -> None:
        seconds = position / self.info.sample_rate
        self._fail(f"{self.info.path} is damaged at {seconds:.0f} s or later{because(error)}")

    def _fail(self, problem: str) -> None:
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
    """Open an audio file to be read block by block.

    Args:
        path: the file.
        block_frames: samples per channel in a block; the last one may be shorter.
        replace_nan: set NaN and infinite samples to zero and count them, where it is an error
            otherwise.
        keep_readable: take what can be read of a damaged or cut-off file and say what the problem
            was, where it is an error otherwise.

    Raises:
        UsageError: there is no such file, or it is a folder.
        AudioError: no audio, without samples, or changed by someone while it was read.
    """
    path = Path(path)
    with _opened(path) as file:
        if isinstance(file, soundfile.SoundFile):
            promised, ended = promised_frames(path, file), not lacks_its_end(path, file)
            slack = 2 * 1152 if file.format == "MP3" else 0  # its coders count differently
        else:  # containers round the length
            promised, ended, slack = file.promised, True, file.samplerate // 2
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
    """Refuse NaN and infinite samples.

    Args:
        audio: samples (channels, timesteps).
        sample_rate: Hz.
        where: name of the signal for the message.
        start: position of the first sample in it.

    Raises:
        AudioError: says at which second, in which channel.
    """
    finite = np.isfinite(audio)
    if not finite.all():
        channel, timestep = np.argwhere(~finite)[np.argmin(np.nonzero(~finite)[1])]
        seconds = (start + timestep) / sample_rate
        raise AudioError(
            f"{where} has a sample that is no number (NaN or infinite) at {seconds:.3f} s, "
            f"channel {channel + 1}"
        )


@contextmanager
def _opened(path: Path) -> Iterator[SequentialFile | MediaFile]:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; an audio file is needed")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise AudioError(f"{path} has a name that is no UTF-8 text; rename the file") from error
    try:
        with path.open("rb") as bare:
            empty = not bare.read(1)
    except OSError as error:
        raise AudioError(f"cannot read {path}: {error.strerror}") from error
    if empty:
        raise AudioError(f"{path} is empty")
    if path.suffix.lower() in MEDIA:
        with MediaFile(path) as media:
            yield media
        return
    try:
        file = SequentialFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless raw audio
        known = " ".join(FORMATS)
        raise AudioError(f"{path} is damaged or no audio file of a known kind ({known})") from error
    with file:
        if file.frames == 0:
            raise AudioError(f"{path} has no samples")
        if not holds_more(path, file):
            yield file
            return
    with MediaFile(path) as media:
        yield media


def because(error: Exception) -> str:
    """Give libsndfile's reason to be put behind a sentence; it is often empty."""
    reason = getattr(error, "error_string", str(error)).removeprefix("Error : ").strip(" .")
    return f": {reason}" if reason else ""
