"""Sound through pipes, which cannot seek and often do not know their length."""

import errno
import io
import select
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol, runtime_checkable

import soundfile

from denoisecli.audio.channels import default_mask
from denoisecli.audio.formats import BITS
from denoisecli.audio.integrity import is_unknown_size
from denoisecli.audio.joined import FLAC_STARTS
from denoisecli.audio.metadata import channel_mask_comment
from denoisecli.audio.reading import BLOCK_FRAMES, AudioReader, SequentialFile, reason_of
from denoisecli.audio.riff import KNOWN_CHUNKS, SHORTEST_SECONDS, read_mask, walk_chunks
from denoisecli.audio.writing import clamp, quantize
from denoisecli.errors import AudioError, DenoiseError, ReaderGone, UsageError, join_names
from denoisecli.types import AudioBlock

STDIN = Path("standard input")
STDOUT = Path("standard output")

BLOCK_SECONDS = 0.05
"""Length in seconds of the blocks read from a pipe."""

# First bytes of the formats that libsndfile reads from front to back.
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"fLaC")
_HEAD = 2**16
_LARGEST_HEAD = 2**25  # with the pictures of a FLAC
_CHUNK_HEADER = 24  # bytes, at most, of the header of a chunk, and of what is read again
_TAIL = 2**15
_FIXED_SIZE = ("ULAW", "ALAW", *(name for name in BITS if not name.startswith("ALAC")))
_WITH_SIZES = ("WAV", "WAVEX", "RF64", "AIFF", "AU")  # of the sound, in their headers
_ENDLESS = 2**62


@runtime_checkable
class ByteSource(Protocol):
    """A stream to read bytes from, such as ``sys.stdin.buffer``."""

    def read(self, size: int, /) -> bytes | None:
        """Return up to ``size`` bytes, none at the end; None if there are none yet."""


@runtime_checkable
class ByteSink(Protocol):
    """A stream to write bytes to, such as ``sys.stdout.buffer``."""

    def write(self, data: bytes, /) -> int | None:
        """Write bytes, and return how many; None for all of them."""

    def flush(self) -> None:
        """Send buffered bytes."""


_WAIT_SECONDS = 0.1
"""Interval in s at which the event is checked while a stream sends nothing."""


class UntilStopped:
    """A stream of bytes that ends when an event is set.

    Args:
        stream: The stream, from which nothing has been read yet. On Windows, and if it has no file
            descriptor, the event is not checked while a read waits for data.
        stop: The event.
    """

    def __init__(self, stream: ByteSource, stop: Event) -> None:
        # A buffered stream would wait until its buffer is full.
        self._stream: ByteSource = getattr(stream, "raw", stream)
        self._stop = stop
        self._descriptor = -1
        if isinstance(self._stream, io.FileIO) and sys.platform != "win32":
            self._descriptor = self._stream.fileno()

    def read(self, size: int, /) -> bytes | None:
        """Return up to ``size`` bytes, none at the end."""
        while not self._stop.is_set():
            if self._descriptor < 0 or select.select([self._descriptor], [], [], _WAIT_SECONDS)[0]:
                return self._stream.read(size)
        return b""


@dataclass(frozen=True)
class RawFormat:
    """The format of headerless samples in a pipe.

    Attributes:
        sample_rate: Sample rate in Hz.
        channels: Number of channels, whose samples are interleaved.
        subtype: Little-endian sample format as libsndfile names it, such as "PCM_16" or "FLOAT".
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
    """Read sound from a pipe as it arrives.

    Args:
        stream: WAV (also of unknown length, as ffmpeg writes it to pipes), FLAC, AIFF or AU.
        raw: Format of the samples if ``stream`` has no header.
        replace_nan: See :func:`denoisecli.audio.reading.reader`.
        keep_readable: See :func:`denoisecli.audio.reading.reader`.

    Raises:
        AudioError: The stream is empty, damaged, or of another format.
        UsageError: libsndfile does not support the format ``raw``.
    """
    forward = _Forward(stream)
    begins = forward.peek(4)
    forward.raise_interrupt()
    if forward.error is not None:
        raise AudioError(f"{STDIN} cannot be read: {forward.error}")
    if not begins:
        raise AudioError(f"{STDIN} is empty")
    file = _open_with_header(forward) if raw is None else _open_raw(forward, raw)
    promised = _promised_frames(file)
    if promised is None and file.format != "FLAC" and file.subtype not in _FIXED_SIZE:
        raise AudioError(
            f"{STDIN} is {file.subtype} of unknown length, which a pipe cannot carry; pass the "
            "recording as a file"
        )
    sound: _Sound | None = None
    if raw is None and file.subtype in _FIXED_SIZE and file.format in _WITH_SIZES:
        frame_bytes = file.channels * BITS.get(file.subtype, 8) // 8
        size = None if promised is None else _stated_size(forward.head, promised, frame_bytes)
        shortest = frame_bytes * max(1, round(SHORTEST_SECONDS * file.samplerate))
        sound = _Sound(forward, size, file.format, shortest)
        file = _Endless(file, sound, forward.head)
    reader = AudioReader(
        file,
        STDIN,
        mask=_mask(file, forward.head),
        head=b"" if raw is not None else forward.head,
        frames=promised or 0,
        promised=promised,
        stops=file.format == "FLAC",  # what follows, such as a tag, is not sound
        block_frames=min(max(1, round(BLOCK_SECONDS * file.samplerate)), BLOCK_FRAMES),
        read_error=lambda: forward.error,
        holds_another=lambda: forward.holds_flac() if sound is None else sound.holds_another,
        replace_nan=replace_nan,
        keep_readable=keep_readable,
    )
    if sound is not None:
        sound.on_wrong_size = reader.accept_length
        sound.on_chunks = lambda names: reader.warnings.append(
            f"not kept, because they follow the sound in a pipe: {join_names(names)}"
        )
    return reader


def _stated_size(head: bytes, frames: int, frame_bytes: int) -> int:
    """Return the size in bytes of the sound that a header states, which may end within a frame."""
    size = frames * frame_bytes
    for chunk in walk_chunks(io.BytesIO(head)):
        if chunk.name in (b"data", b"SSND"):
            stated = chunk.size - (8 if chunk.name == b"SSND" else 0)
            return stated if size <= stated < size + frame_bytes else size
    return size


def _mask(file: SequentialFile, head: bytes) -> int:
    """Return the channel mask in the beginning of a file; 0 if it is unknown, or a usual one."""
    if file.format in ("WAVEX", "RF64"):
        return read_mask(io.BytesIO(head))
    if file.format == "FLAC" and file.channels > 2:
        return channel_mask_comment(head) or default_mask(file.channels)
    return 0


def _open_with_header(stream: "_Forward") -> SequentialFile:
    # In any other format libsndfile would seek for ever.
    if stream.peek(4) not in _MAGIC:
        raise AudioError(
            f"{STDIN} has none of the formats that a pipe can carry: WAV, RF64, AIFF, AU of the "
            "usual byte order, and FLAC without a tag before it"
        )
    try:
        return SequentialFile(stream)
    except (soundfile.LibsndfileError, ValueError, TypeError) as error:
        stream.raise_interrupt()
        raise AudioError(f"{STDIN} is damaged: its header is invalid") from error


def _open_raw(stream: "_Forward", raw: RawFormat) -> SequentialFile:
    try:
        return SequentialFile(
            stream,
            format="RAW",
            subtype=raw.subtype.upper(),
            samplerate=raw.sample_rate,
            channels=raw.channels,
            endian="LITTLE",
        )
    except (soundfile.LibsndfileError, ValueError, TypeError) as error:
        channels = "1 channel" if raw.channels == 1 else f"{raw.channels} channels"
        raise UsageError(
            f"libsndfile cannot read headerless {raw.subtype} of {channels} at "
            f"{raw.sample_rate} Hz{reason_of(error)}"
        ) from error


class _Endless(SequentialFile):
    """The samples of a WAV, AIFF or AU, read as headerless ones.

    libsndfile trusts the size in the header and would stop there. It may be wrong, and it cannot
    exceed 4 GB: 3 hours of 48 kHz stereo as FLOAT.

    Args:
        header: The file as libsndfile opened it.
        stream: The pipe, positioned at the first sample.
        head: The first bytes of the file.
    """

    def __init__(self, header: SequentialFile, stream: "_Sound", head: bytes) -> None:
        self.header = header
        is_little = head.startswith((b"RIFF", b"RF64")) or header.endian == "LITTLE"
        super().__init__(
            _Forward(stream),
            format="RAW",
            subtype=header.subtype,
            samplerate=header.samplerate,
            channels=header.channels,
            endian="LITTLE" if is_little else "BIG",
        )

    @property
    def format(self) -> str:
        """The format that the header states."""
        return self.header.format

    def copy_metadata(self) -> dict[str, str]:
        """Return the tags in the header."""
        return self.header.copy_metadata()


class _Sound:
    """The sound of a WAV, AIFF or AU in a pipe, up to the chunk after it.

    Args:
        stream: The pipe, positioned at the first sample.
        size: Size of the sound in bytes that the header states; None if it states none.
        container: libsndfile's name of the format.
        shortest: Number of bytes behind the stated end from which on they are sound too.

    Attributes:
        on_wrong_size: Function that is called with a warning if the stated size is wrong.
        on_chunks: Function that is called with the names of the chunks behind the sound.
        holds_another: The header of another recording follows.
    """

    def __init__(self, stream: "_Forward", size: int | None, container: str, shortest: int) -> None:
        self.on_wrong_size: Callable[[str], None] = lambda warning: None
        self.on_chunks: Callable[[list[str]], None] = lambda names: None
        self._is_big = container == "AIFF"
        self._stream = stream
        self._left = _ENDLESS if size is None else size
        self._padding = (size or 0) % 2
        self._has_chunks = container != "AU"
        self._shortest = shortest
        self.holds_another = False
        self._ended = False
        self._kept = b""  # read to see what it is, and to be returned next
        self._headers = (36, 44, stream.tell(), stream.tell() - 8)

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        if self._left == 0 and not self._ended:
            self._read_on()
        if self._ended:
            return b""
        if self._kept:
            data, self._kept = self._kept[:size], self._kept[size:]
            return data
        data = self._stream.take(min(size, self._left))
        if not data and self._left in self._headers:
            self.on_wrong_size("the data size in its header includes the header itself")
            self._left = _ENDLESS
        self._left -= len(data)
        return data

    def _read_on(self) -> None:
        """Find out whether there is sound after the stated end, and read on or end."""
        data = self._stream.take(8 + self._padding)
        if data[:4] in KNOWN_CHUNKS:  # an odd chunk may lack the byte that pads it
            self._padding = 0
        name = data[self._padding : self._padding + 4]
        is_chunk = self._has_chunks and (name in KNOWN_CHUNKS or name.replace(b" ", b"").isalnum())
        if len(data) < 8 or is_chunk:
            self._ended = True
            self.holds_another = name in (b"RIFF", b"RF64", b"FORM")
            if is_chunk and not self.holds_another:
                self._name_chunks(data[self._padding :])
            return
        data += self._stream.take(max(0, self._shortest - len(data)))
        if len(data) < self._shortest:
            self.on_wrong_size(f"it contains {len(data)} bytes of unknown data after the audio")
            self._ended = True
            return
        self.on_wrong_size("its header states less sound than there is; all of it is read")
        self._left, self._kept = _ENDLESS, data

    def _name_chunks(self, begun: bytes) -> None:
        """Read the chunks behind the sound, whose first bytes are given, and name them."""
        names = []
        while len(begun) >= 8:
            name, size = struct.unpack_from(">4sI" if self._is_big else "<4sI", begun)
            names.append(name.decode("latin-1").strip())
            left = size + size % 2 - (len(begun) - 8)
            while left > 0 and (piece := self._stream.take(min(left, _HEAD))):
                left -= len(piece)
            begun = self._stream.take(8)
        if found := sorted(set(names) - {"JUNK", "PAD", "PEAK", "fact"}):
            self.on_chunks(found)


def _promised_frames(file: SequentialFile) -> int | None:
    """Return the number of frames that the header states, None if it states none."""
    if file.format != "FLAC" and file.subtype not in _FIXED_SIZE:  # its size is not known here
        return file.frames if file.frames < 2**32 else None
    size = file.frames * file.channels * BITS.get(file.subtype, 8) // 8
    if size > 2**48 or (file.format != "FLAC" and is_unknown_size(size)):
        return None
    return file.frames


def _end_of_metadata(head: bytes | bytearray) -> int:
    """Return the position up to which a FLAC has metadata, as far as its beginning tells; or 0."""
    if not head.startswith(FLAC_STARTS):
        return 0
    position = len(b"fLaC")
    while position + 4 <= len(head):
        is_last = head[position] & 0x80
        position += 4 + int.from_bytes(head[position + 1 : position + 4])
        if is_last:
            return position
    return position + 4


class _Forward(io.RawIOBase):
    """A pipe with as much seeking as libsndfile needs to read a header.

    The beginning is kept, to seek back to it. Seeking over a chunk of the header reads it. Beyond
    the samples there is nothing: libsndfile looks for chunks after them too, and finds none.

    Args:
        stream: Pipe.

    Attributes:
        error: Error that ended the pipe, if any.
    """

    def __init__(self, stream: ByteSource) -> None:
        self.error: BaseException | None = None
        self._stream = stream
        self._head = bytearray()
        self._kept = _HEAD  # number of bytes that are kept, at least
        self._tail = b""  # the last bytes of FLAC after the first ones
        self._recent = b""  # the last bytes taken from the stream
        self._reached = 0  # bytes taken from the stream
        self._position = 0

    @property
    def head(self) -> bytes:
        """The first bytes, which are kept."""
        return bytes(self._head)

    def peek(self, count: int) -> bytes:
        """Return the first bytes without consuming them."""
        buffer = bytearray(count)
        filled = self.readinto(buffer)
        self.seek(0)
        return bytes(buffer[:filled])

    def raise_interrupt(self) -> None:
        """Raise the exception that ended the pipe if it is not an OSError, such as Ctrl-C."""
        if self.error is not None and not isinstance(self.error, OSError):
            raise self.error

    def holds_flac(self) -> bool:
        """Return whether another FLAC stream follows the one that was read."""
        tail = self._tail + self.take(len(FLAC_STARTS[0]))
        return any(start in tail for start in FLAC_STARTS)

    def take(self, count: int) -> bytes:
        """Return the next bytes; fewer only at the end."""
        buffer = bytearray(count)
        return bytes(buffer[: self.readinto(buffer)])

    def readinto(self, buffer: Any) -> int:  # any writable buffer, such as that of cffi
        """Fill the buffer and return the number of bytes; it is smaller only at the end."""
        view = memoryview(buffer).cast("B")
        count = 0
        if self._position < self._reached:
            kept = bytes(self._head[self._position : self._position + len(view)])
            if not kept and (back := self._reached - self._position) <= len(self._recent):
                kept = self._recent[-back:][: len(view)]
            view[: len(kept)] = kept
            count = len(kept)
            self._position += count
        while count < len(view) and self._position == self._reached:
            try:
                data = self._stream.read(len(view) - count)
            except OSError as error:
                self.error, data = error, b""  # libsndfile sees the end of the file
            except BaseException as error:  # an exception would be lost inside of libsndfile
                self.error, data = error, b""
            if data is None:
                self.error = BlockingIOError("no data is available, and the pipe is non-blocking")
            if not data:
                break
            view[count : count + len(data)] = data
            count += len(data)
            self._position += len(data)
            self._reached += len(data)
            if self._head.startswith(FLAC_STARTS):
                self._tail = (self._tail + data)[-_TAIL:]
            if len(self._head) < self._kept:
                self._head += data
                if len(self._head) >= self._kept:
                    self._kept = max(_HEAD, min(_end_of_metadata(self._head), _LARGEST_HEAD))
            self._recent = (self._recent + data[-_CHUNK_HEADER:])[-_CHUNK_HEADER:]
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to any position; see the class for what can be read there."""
        # The header of the sound is 8 bytes, to which SSND adds 8 more.
        is_header = self._recent[-8:-4] != b"data" and self._recent[-16:-12] != b"SSND"
        if whence == io.SEEK_CUR and is_header and self._position == self._reached:
            while offset > 0 and (piece := self.take(min(offset, _HEAD))):
                offset -= len(piece)
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: _ENDLESS}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


class PipeWriter:
    """Write WAV, or headerless samples, to a pipe.

    Args:
        stream: Pipe.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        subtype: Sample format as libsndfile names it, one of ``SUBTYPES``, or of ``BARE_SUBTYPES``
            without a header.
        bare: Write no header.
        mask: Channel mask; 0 if it is unknown.

    Attributes:
        sample_rate: Sample rate in Hz.
        clipped: Number of samples beyond full scale that were clamped so far.
        frames: Number of samples per channel written so far.

    Raises:
        UsageError: The subtype cannot be written to a pipe.
        DenoiseError: The pipe is closed.
    """

    SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT")
    BARE_SUBTYPES = ("PCM_S8", *SUBTYPES)

    def __init__(
        self,
        stream: ByteSink,
        sample_rate: int,
        channels: int,
        subtype: str,
        *,
        bare: bool = False,
        mask: int = 0,
    ) -> None:
        known = self.BARE_SUBTYPES if bare else self.SUBTYPES
        if subtype not in known:
            raise UsageError(
                f"{subtype} cannot be written to a pipe; use one of {', '.join(known)}"
            )
        self.sample_rate = sample_rate
        self.clipped = 0
        self.frames = 0
        self._stream = stream
        self._subtype = subtype
        self._clamps = subtype != "FLOAT"
        if not bare:
            self._send(_wav_header(sample_rate, channels, subtype, mask))

    def write(self, block: AudioBlock) -> None:
        """Append samples, shape (channels, timesteps)."""
        if block.shape[1] == 0:
            return
        if self._clamps:
            block, clipped = clamp(block)
            self.clipped += clipped
        encoded = io.BytesIO()
        soundfile.write(
            encoded,
            quantize(block, self._subtype).T,
            self.sample_rate,
            subtype=self._subtype,
            endian="LITTLE",
            format="RAW",
        )
        self._send(encoded.getvalue())
        self.frames += block.shape[1]

    def _send(self, data: bytes) -> None:
        try:
            while data:
                count = self._stream.write(data)
                if count is None and isinstance(self._stream, io.RawIOBase):
                    raise BlockingIOError(errno.EAGAIN, "it is non-blocking, and full")
                if count == 0:
                    raise OSError(errno.EIO, "nothing more is accepted")
                data = b"" if count is None else data[count:]  # a file without buffer takes a part
            self._stream.flush()
        except OSError as error:
            kind = ReaderGone if isinstance(error, BrokenPipeError) else DenoiseError
            raise kind(f"cannot write to {STDOUT}: {error.strerror}") from error


def _wav_header(sample_rate: int, channels: int, subtype: str, mask: int) -> bytes:
    """Return a header whose sizes have all bits set: they are not known yet."""
    frame_bytes = channels * BITS[subtype] // 8
    code = 3 if subtype == "FLOAT" else 1
    rates = (sample_rate, sample_rate * frame_bytes, frame_bytes, BITS[subtype])
    layout = struct.pack("<HHIIHH", code, channels, *rates)
    if mask:
        guid = struct.pack("<H", code) + bytes.fromhex("000000001000800000aa00389b71")
        layout = b"\xfe\xff" + layout[2:] + struct.pack("<HHI", 22, BITS[subtype], mask) + guid
    unknown = b"\xff" * 4
    size = struct.pack("<I", len(layout))
    return b"RIFF" + unknown + b"WAVEfmt " + size + layout + b"data" + unknown
