"""An audio file written block by block."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import soundfile

from denoisecli.audio.formats import BITS, COMPRESSION, FLOATING, default_subtype, format_of
from denoisecli.audio.reading import SequentialFile, because
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.system import atomic_files as files
from denoisecli.types import AudioBlock

_WRITE_FRAMES = 2**16  # libsndfile's Vorbis encoder overflows its stack on large writes
_SYSTEM_ERROR = 2  # libsndfile's SF_ERR_SYSTEM
_MAX_BYTES = {"WAV": 2**32 - 2**16, "AIFF": 2**32 - 2**16}  # 32-bit sizes in the header


class AudioWriter:
    """An open audio file that takes one block after another; made by :func:`writer`.

    Attributes:
        clipped: how many samples so far passed full scale and were clamped to it.
        frames: how many samples per channel were written.
    """

    def __init__(self, file: soundfile.SoundFile) -> None:
        self.clipped = 0
        self.frames = 0
        self._file = file
        self._clamps = file.subtype not in FLOATING
        frame_bytes = file.channels * BITS.get(file.subtype, 0) // 8
        limit = _MAX_BYTES.get(file.format)
        self._max_frames = limit // frame_bytes if limit and frame_bytes else None

    def write(self, block: AudioBlock) -> None:
        """Append samples (channels, timesteps)."""
        if self._clamps:
            block, clipped = clamp(block)
            self.clipped += clipped
        self.frames += block.shape[1]
        if self._max_frames is not None and self.frames > self._max_frames:
            raise DenoiseError(f"{self._file.format} holds no more than 4 GB; write .w64 or .rf64")
        for start in range(0, block.shape[1], _WRITE_FRAMES):
            self._file.write(block[:, start : start + _WRITE_FRAMES].T)


def clamp(block: AudioBlock) -> tuple[AudioBlock, int]:
    """Limit samples to full scale; give how many were beyond it."""
    # Positive full scale itself is one step too high for PCM, but no audible clipping.
    return np.clip(block, -1, 1), int(np.count_nonzero(np.abs(block) > 1))


@contextmanager
def writer(
    path: Path | str,
    sample_rate: int,
    channels: int,
    *,
    frames: int,
    subtype: str | None = None,
    tags: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Iterator[AudioWriter]:
    """Open an audio file to be written block by block; it appears when the block succeeds.

    ``frames`` is the expected length (samples per channel): a WAV of 4 GB and more is written
    as RF64. Of the ``tags`` (soundfile's names) those are written that the format takes.
    The other arguments and the errors are those of :func:`denoisecli.audio.files.write`.
    """
    path = Path(path)
    container = format_of(path)
    subtype = subtype or default_subtype(path)
    size = frames * channels * BITS.get(subtype, 16) // 8
    if size > _MAX_BYTES.get(container, size):
        if container != "WAV":
            raise UsageError(f"{path}: {container} holds no more than 4 GB; write .wav or .w64")
        container = "RF64"
    what = f"{channels} channels at {sample_rate} Hz as {container}/{subtype}"
    with files.replacing(path, overwrite=overwrite) as part:
        try:
            file = soundfile.SoundFile(
                part,
                "w",
                sample_rate,
                channels,
                subtype,
                format=container,
                compression_level=COMPRESSION.get(subtype),
            )
        except (soundfile.LibsndfileError, ValueError) as error:
            raise UsageError(f"{path}: cannot write {what}{because(error)}") from error
        try:
            with file:
                for tag, text in (tags or {}).items():
                    with suppress(soundfile.LibsndfileError):  # the format has no such tag
                        setattr(file, tag, text)
                output = AudioWriter(file)
                yield output
            _require_whole(part, output.frames)
        except soundfile.LibsndfileError as error:
            if error.code == _SYSTEM_ERROR:
                raise DenoiseError(f"cannot write {path}; is the disk full?") from error
            raise DenoiseError(f"{path}: cannot write {what}{because(error)}") from error


def _require_whole(part: Path, frames: int) -> None:
    """Look whether the last sample is there: closing a file does not say that the disk is full."""
    if frames == 0:
        return
    with SequentialFile(part) as file:
        # The decoder of MP3 complains on stderr when it begins in the middle.
        position = 0 if file.format == "MP3" else file.seek(frames - 1)
        while read := len(file.read(_WRITE_FRAMES)):
            position += read
        if position != frames or file.frames != frames:
            raise OSError("the disk did not take all of it")
