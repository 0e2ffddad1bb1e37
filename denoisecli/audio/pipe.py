"""Sound through pipes: no seeking, and often no length in the header."""

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import soundfile

from denoisecli.audio.formats import BITS
from denoisecli.audio.integrity import is_unknown_size
from denoisecli.audio.reading import AudioReader, SequentialFile, because
from denoisecli.audio.writing import clamp
from denoisecli.errors import AudioError, DenoiseError, UsageError
from denoisecli.types import AudioBlock

STDIN = Path("standard input")
STDOUT = Path("standard output")

BLOCK_SECONDS = 0.05
"""How much is read from a pipe at a time."""

_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"fLaC")  # read from front to back
_HEAD = 2**16
_ENDLESS = 2**62


@runtime_checkable
class ByteSource(Protocol):
    """What bytes are read from, such as ``sys.stdin.buffer``."""

    def read(self, size: int, /) -> bytes | None:
        """Give up to so many bytes; none at the end."""


@runtime_checkable
class ByteSink(Protocol):
    """What bytes are written to, such as ``sys.stdout.buffer``."""

    def write(self, data: bytes, /) -> int | None:
        """Append bytes."""

    def flush(self) -> None:
        """Send them on."""


@dataclass(frozen=True)
class RawFormat:
    """What a header would say: the format of bare samples in a pipe.

    Attributes:
        sample_rate: Hz.
        channels: their samples take turns.
        subtype: libsndfile's name, such as "PCM_16", "PCM_24", "FLOAT"; little endian.
    """

    sample_rate: int
    channels: int = 1
    subtype: str = "PCM_16"


def pipe_reader(
    stream: ByteSource,
    raw: RawFormat | None = None,
    *,
    replace_nan: bool = False,
    keep_readable: bool = False,
) -> AudioReader:
    """Read sound from a pipe as it comes.

    Args:
        stream: WAV (also of unknown length, as ffmpeg writes it to pipes), FLAC, AIFF or AU.
        raw: what ``stream`` holds if it has no header.
        replace_nan: see :func:`denoisecli.audio.reading.reader`.
        keep_readable: likewise.

    Raises:
        AudioError: it holds something else.
        UsageError: ``raw`` makes no sense.
    """
    options: dict[str, Any] = {}
    forward = _Forward(stream)
    if raw is None:
        # Any other format has to be sought in; libsndfile would do so for ever.
        magic = forward.peek(4)
        if forward.error is not None:
            raise AudioError(f"{STDIN} cannot be read: {forward.error}")
        if not magic:
            raise AudioError(f"{STDIN} is empty")
        if magic not in _MAGIC:
            raise AudioError(f"{STDIN} holds no WAV or FLAC, which is what a pipe takes")
    else:
        options = {
            "format": "RAW",
            "subtype": raw.subtype.upper(),
            "samplerate": raw.sample_rate,
            "channels": raw.channels,
            "endian": "LITTLE",
        }
    try:
        file = SequentialFile(forward, **options)
    except (soundfile.LibsndfileError, ValueError, TypeError) as error:
        if raw is not None:
            raise UsageError(f"samples cannot be read as {raw}{because(error)}") from error
        raise AudioError(f"{STDIN} is damaged: its header makes no sense") from error
    promised = _promised_frames(file)
    if promised is None and raw is None and magic == b"RIFF":
        file = _EndlessWav(file, forward)
    return AudioReader(
        file,
        STDIN,
        frames=promised or 0,
        promised=promised,
        block_frames=max(1, round(BLOCK_SECONDS * file.samplerate)),
        broken=lambda: forward.error,
        replace_nan=replace_nan,
        keep_readable=keep_readable,
    )


class _EndlessWav(SequentialFile):
    """The samples of a WAV of unknown length, read as bare ones.

    libsndfile takes the size in the header, which cannot count more than 4 GB, for the truth, and
    would end there: after 3 hours of 48 kHz stereo as FLOAT.

    Args:
        header: the file as libsndfile opened it.
        stream: it stands in front of the first sample.
    """

    def __init__(self, header: SequentialFile, stream: "_Forward") -> None:
        self._header = header
        super().__init__(
            _Forward(stream),
            format="RAW",
            subtype=header.subtype,
            samplerate=header.samplerate,
            channels=header.channels,
            endian="LITTLE",
        )

    @property
    def format(self) -> str:
        """What the header says."""
        return self._header.format

    def copy_metadata(self) -> dict[str, str]:
        """Give the tags in the header."""
        return self._header.copy_metadata()


def _promised_frames(file: soundfile.SoundFile) -> int | None:
    size = file.frames * file.channels * BITS.get(file.subtype, 8) // 8
    if size > 2**48 or (file.format != "FLAC" and is_unknown_size(size)):
        return None
    return file.frames


class _Forward(io.RawIOBase):
    """A pipe that can be sought in as far as libsndfile does while it reads a header.

    Its beginning is kept to go back to. Anywhere else there is nothing: a header is looked for
    behind the samples too, and is not found.
    """

    def __init__(self, stream: ByteSource) -> None:
        self.error: OSError | None = None
        self._stream = stream
        self._head = b""
        self._reached = 0  # bytes taken from the stream
        self._position = 0

    def peek(self, count: int) -> bytes:
        """Give the first bytes and stay in front of them."""
        buffer = bytearray(count)
        filled = self.readinto(buffer)
        self.seek(0)
        return bytes(buffer[:filled])

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; less comes only at the end."""
        view = memoryview(buffer).cast("B")
        count = 0
        if self._position < self._reached:
            kept = self._head[self._position : self._position + len(view)]
            view[: len(kept)] = kept
            count = len(kept)
            self._position += count
        while count < len(view) and self._position == self._reached:
            try:
                data = self._stream.read(len(view) - count)
            except OSError as error:
                self.error, data = error, b""  # libsndfile takes it for the end
            if data is None:
                self.error = BlockingIOError("it has nothing to read yet, and does not wait")
            if not data:
                break
            view[count : count + len(data)] = data
            count += len(data)
            self._position += len(data)
            self._reached += len(data)
            if len(self._head) < _HEAD:
                self._head += data
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go anywhere; see the class for what is there."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: _ENDLESS}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Give the position."""
        return self._position


class PipeWriter:
    """Writes WAV, or bare samples, to a pipe.

    Args:
        stream: where to.
        sample_rate: Hz.
        channels: number of channels.
        subtype: libsndfile's name of the sample format, one of SUBTYPES.
        bare: write no header.

    Attributes:
        clipped: how many samples so far passed full scale and were clamped to it.
        frames: how many samples per channel were written.

    Raises:
        UsageError: the subtype cannot be written to a pipe.
    """

    SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT")

    def __init__(
        self,
        stream: ByteSink,
        sample_rate: int,
        channels: int,
        subtype: str,
        *,
        bare: bool = False,
    ) -> None:
        if subtype not in self.SUBTYPES:
            known = ", ".join(self.SUBTYPES)
            raise UsageError(f"{subtype} cannot be written to a pipe; use one of {known}")
        self.clipped = 0
        self.frames = 0
        self._stream = stream
        self._options = {"samplerate": sample_rate, "format": "RAW", "subtype": subtype}
        self._clamps = subtype != "FLOAT"
        if not bare:
            self._send(_wav_header(sample_rate, channels, subtype))

    def write(self, block: AudioBlock) -> None:
        """Append samples (channels, timesteps)."""
        if block.shape[1] == 0:
            return
        if self._clamps:
            block, clipped = clamp(block)
            self.clipped += clipped
        encoded = io.BytesIO()
        soundfile.write(encoded, block.T, endian="LITTLE", **self._options)
        self._send(encoded.getvalue())
        self.frames += block.shape[1]

    def _send(self, data: bytes) -> None:
        try:
            self._stream.write(data)
            self._stream.flush()
        except OSError as error:
            raise DenoiseError(f"cannot write to {STDOUT}: {error.strerror}") from error


def _wav_header(sample_rate: int, channels: int, subtype: str) -> bytes:
    """Make a header of 44 bytes; all bits set are the sizes, which nobody knows yet."""
    frame_bytes = channels * BITS[subtype] // 8
    code = 3 if subtype == "FLOAT" else 1
    rates = (sample_rate, sample_rate * frame_bytes, frame_bytes, BITS[subtype])
    layout = struct.pack("<HHIIHH", code, channels, *rates)
    unknown = b"\xff" * 4
    return b"RIFF" + unknown + b"WAVEfmt \x10\0\0\0" + layout + b"data" + unknown
