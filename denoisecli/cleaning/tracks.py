"""Where clean sound goes: at the rate wanted, within full scale, to one target or two."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from denoisecli.audio.resampling import StreamResampler, fit_length, resampled_length
from denoisecli.errors import DenoiseError
from denoisecli.types import AudioBlock

CLIPS = ("none", "clamp", "rescale")

_SPOOL_FRAMES = 2**16


@runtime_checkable
class Sink(Protocol):
    """A file or a pipe that takes one block after another."""

    clipped: int
    frames: int

    def write(self, block: AudioBlock) -> None:
        """Append samples (channels, timesteps)."""


class Output:
    """Writes tracks of sound, stacked along the channels, each to its own sink.

    Args:
        sinks: one per track.
        channels: number of channels of each track.
        sample_rate: rate of the sound, Hz.
        target_rate: rate to be written, Hz.
        spool: a folder to keep all sound in until the end, as floating point, to scale the tracks
            down together if one of them passes full scale; None to write at once.

    Attributes:
        gain: what the tracks were scaled with.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        channels: int,
        sample_rate: int,
        target_rate: int,
        spool: Path | None = None,
    ) -> None:
        self.gain = 1.0
        self._sinks = sinks
        self._rates = sample_rate, target_rate
        self._channels = channels * len(sinks)
        self._resample = StreamResampler(sample_rate, target_rate, self._channels)
        self._taken = self._given = 0
        self._peak = 0.0
        # It has no name, so nothing of it is left behind, whatever happens.
        self._spool = tempfile.TemporaryFile(dir=spool) if spool else None  # noqa: SIM115

    def write(self, tracks: AudioBlock) -> None:
        """Append samples (tracks * channels, timesteps)."""
        self._taken += tracks.shape[1]
        self._put(self._resample(tracks))

    def finish(self) -> None:
        """Write what was held back: the resampler's rest, or all of it."""
        rest = self._resample.finish()
        length = resampled_length(self._taken, *self._rates)
        self._put(fit_length(rest, max(length - self._given, 0)))
        if self._spool is None:
            return
        if self._peak > 1:
            self.gain = (1 - 1e-6) / self._peak  # rounding must not take it beyond 1 again
        with self._spool as spool:
            spool.seek(0)
            while data := spool.read(_SPOOL_FRAMES * self._channels * 4):
                tracks = np.frombuffer(data, np.float32).reshape(-1, self._channels).T
                self._split(tracks * np.float32(self.gain))

    def _put(self, tracks: AudioBlock) -> None:
        self._given += tracks.shape[1]
        if self._spool is None:
            self._split(tracks)
        elif tracks.size:
            self._peak = max(self._peak, float(np.abs(tracks).max()))
            try:
                self._spool.write(np.ascontiguousarray(tracks.T).tobytes())
            except OSError as error:
                raise DenoiseError(f"cannot keep the sound to rescale it: {error}") from error

    def _split(self, tracks: AudioBlock) -> None:
        for sink, track in zip(self._sinks, np.split(tracks, len(self._sinks)), strict=True):
            sink.write(track)
