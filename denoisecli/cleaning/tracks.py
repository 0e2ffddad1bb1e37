"""Tracks of sound on their way to a file or a pipe: resampled, and scaled down if wanted."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from denoisecli.audio.resampling import StreamResampler, fit_length, resampled_length
from denoisecli.errors import StorageError
from denoisecli.types import AudioBlock

_SPOOL_FRAMES = 2**16


@runtime_checkable
class Sink(Protocol):
    """A file or a pipe that is written block by block.

    Attributes:
        sample_rate: Sample rate in Hz at which the sound is stored.
        clipped: Number of samples beyond full scale that were clamped so far.
    """

    sample_rate: int
    clipped: int

    def write(self, block: AudioBlock) -> None:
        """Append samples (channels, timesteps)."""


class Track:
    """A stream of sound that is resampled and written to a sink.

    Args:
        sink: Sink that the sound is written to.
        channels: Number of channels.
        sample_rate: Sample rate of the sound in Hz.
        target_rate: Sample rate in Hz of the sound that the sink gets.
        spool_folder: Folder of a temporary file that keeps the sound in floating point until
            :func:`finish_tracks`, which may scale it; None writes the sound at once.

    Attributes:
        sink: The sink.
        channels: Number of channels.
        target_rate: Sample rate in Hz of the sound that the sink gets.
        peak: Largest absolute sample so far; only with a spool.
    """

    def __init__(
        self,
        sink: Sink,
        channels: int,
        sample_rate: int,
        target_rate: int,
        spool_folder: Path | None = None,
    ) -> None:
        self.sink = sink
        self.peak = 0.0
        self.channels = channels
        self.target_rate = target_rate
        self._rates = sample_rate, target_rate
        self._resample = StreamResampler(sample_rate, target_rate, channels)
        self._received = self._passed = 0  # samples per channel
        # The file has no name, so that it is gone however the process ends.
        self._spool = tempfile.TemporaryFile(dir=spool_folder) if spool_folder else None  # noqa: SIM115

    def write(self, block: AudioBlock) -> None:
        """Append samples (channels, timesteps)."""
        self._received += block.shape[1]
        self._pass_on(self._resample(block))

    def flush(self) -> None:
        """Pass on the samples that the resampler still holds."""
        length = resampled_length(self._received, *self._rates)
        self._pass_on(fit_length(self._resample.finish(), max(length - self._passed, 0)))

    def spooled(self) -> Iterator[AudioBlock]:
        """Yield the sound in the spool from its beginning, nothing if there is no spool."""
        if self._spool is None:
            return
        self._spool.seek(0)
        while data := self._spool.read(_SPOOL_FRAMES * self.channels * 4):
            yield np.frombuffer(data, np.float32).reshape(-1, self.channels).T

    def close(self) -> None:
        """Delete the spool."""
        if self._spool is not None:
            with suppress(OSError):  # the disk is full
                self._spool.close()

    def _pass_on(self, block: AudioBlock) -> None:
        self._passed += block.shape[1]
        if self._spool is None:
            self.sink.write(block)
        elif block.size:
            self.peak = max(self.peak, float(np.abs(block).max()))
            try:
                self._spool.write(np.ascontiguousarray(block.T).tobytes())
            except OSError as error:
                raise StorageError(f"cannot store the sound until its end: {error}") from error


def finish_tracks(tracks: Sequence[Track]) -> float:
    """Write what the tracks still hold, scaled down together if one exceeds full scale.

    Returns:
        The gain of the tracks, which is below 1 only if they have spools.
    """
    for track in tracks:
        track.flush()
    peak = max(track.peak for track in tracks)
    gain = (1 - 1e-6) / peak if peak > 1 else 1.0  # rounding must not exceed full scale again
    for track in tracks:
        for block in track.spooled():
            track.sink.write(block * np.float32(gain))
    return gain
