"""Cleans sound between a device that delivers it and one that takes it.

A device may deliver a burst of sound when it starts. What still waits for the output beyond the
buffer after two seconds is left out, because it would remain as a delay. The two devices have
clocks of their own: if the waiting sound grows or shrinks later, the next blocks are made shorter
or longer by less than one percent, so that the delay stays the same.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from denoisecli.audio.level import dbfs
from denoisecli.cleaning.stream import DenoiseStream, Piece
from denoisecli.types import AudioBlock

_WATCHED_SECONDS = 2.0  # over which the smallest amount of waiting sound is observed
_TOLERANCE_SECONDS = 0.006  # of that amount; beyond it, blocks are stretched
_STRETCH = 0.005  # by this share
_FADE_SECONDS = 0.005  # from the sound before what is left out to the sound after it
_MOST_SECONDS = 0.25  # of sound that may wait, before some of it is left out
_METER_SECONDS = 0.3  # time constant of the meters


@dataclass
class Meters:
    """Measurements of a live filter; levels are in dBFS, smoothed.

    Attributes:
        level_in: RMS of the input.
        level_out: RMS of the output.
        load: CPU time of the filter as a share of the time of the sound, smoothed.
        seconds: Length of the sound so far.
        cpu_seconds: CPU time of the filter so far.
        dropouts: Number of gaps in the output, because the filter or the computer was too slow.
        lost: Number of times that input was lost, because the device or the filter was too slow.
        stretched: Samples that were added (or left out, if negative) so that the delay stays.
        waiting: Seconds of clean sound that wait for the output.
    """

    level_in: float = -np.inf
    level_out: float = -np.inf
    load: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    dropouts: int = 0
    lost: int = 0
    stretched: int = 0
    waiting: float = 0.0

    @property
    def gain(self) -> float:
        """Level of the output relative to the input in dB."""
        return self.level_out - self.level_in if np.isfinite(self.level_in) else 0.0


class LiveFilter:
    """A stream that is cleaned between two callbacks of a sound card.

    `put` and `get` return at once, as callbacks have to; a thread cleans what waits between them.
    Use it as a context manager, which starts and ends the thread.

    Args:
        stream: Stream of the model.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        buffer: Seconds of clean sound that are kept waiting, to survive a busy computer.
        on_piece: Function that is called with every piece, for instance to record it.

    Attributes:
        bypass: Return the noisy sound, with the same delay.
        meters: Measurements.
        error: Error that ended the thread early, if any.
    """

    def __init__(
        self,
        stream: DenoiseStream,
        sample_rate: int,
        channels: int,
        *,
        buffer: float = 0.01,
        on_piece: Callable[[Piece], None] | None = None,
    ) -> None:
        self.bypass = False
        self.meters = Meters()
        self.error: Exception | None = None
        self._stream = stream
        self._rate = sample_rate
        self._buffer = round(buffer * sample_rate)
        self._on_piece = on_piece
        self._in: queue.SimpleQueue[AudioBlock | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._out: AudioBlock = np.zeros((channels, 0), np.float32)
        self._primed = False  # enough sound waits for the output to begin
        self._settled = False  # the initial surplus has been left out
        self._least = _Least(round(_WATCHED_SECONDS * sample_rate))
        self._clean_share = 1.0  # in the output; 0 in the bypass
        self._thread = threading.Thread(target=self._run, name="denoise-live", daemon=True)

    def __enter__(self) -> "LiveFilter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._in.put(None)
        self._thread.join()

    def put(self, block: AudioBlock, *, lost: bool = False) -> None:
        """Take the next input; the block is copied.

        Args:
            block: Samples (channels, timesteps).
            lost: Whether the device has lost sound before the block.
        """
        self.meters.lost += lost
        if self._in.qsize() * block.shape[1] > _MOST_SECONDS * self._rate:
            self.meters.lost += 1
            return
        self._in.put(np.array(block, np.float32, order="C"))

    def restart(self) -> None:
        """Drop the sound that waits for the output, and wait for the buffer to be filled again.

        For devices that were opened again, which no sound passes through yet.
        """
        with self._lock:
            self._out = self._out[:, :0]
        self._unprime()

    def _unprime(self) -> None:
        self._primed = self._settled = False
        self._least.reset()

    def get(self, timesteps: int, *, lost: bool = False) -> AudioBlock:
        """Return the next samples of the output, or silence if there are not enough yet.

        Args:
            timesteps: Number of samples.
            lost: Whether the device has had no sound before these samples.
        """
        self.meters.dropouts += lost and self._primed
        with self._lock:
            silence = np.zeros((len(self._out), timesteps), np.float32)
            if not self._primed:
                if self._out.shape[1] < timesteps + self._buffer:
                    return silence
                self._primed = True
            block, self._out = self._out[:, :timesteps], self._out[:, timesteps:]
            waiting = self._out.shape[1]
        self.meters.waiting = waiting / self._rate
        self._least.add(waiting, timesteps)
        if block.shape[1] < timesteps:
            self.meters.dropouts += 1
            self._unprime()
            silence[:, : block.shape[1]] = block
            return silence
        return block

    def _run(self) -> None:
        try:
            while self.clean_next():
                pass
        except Exception as error:  # of the model, or of a file that is recorded to
            self.error = error

    def clean_next(self) -> bool:
        """Clean the next block of the input, which the thread does; return False at the end."""
        block = self._in.get()
        if block is None:
            self._record_rest()
            return False
        start = time.thread_time()
        for piece in self._stream.pieces(block):
            if piece.clean.shape[1]:
                self._deliver(piece)
        self._measure_load(time.thread_time() - start, block.shape[1])
        return True

    def _record_rest(self) -> None:
        """Pass on what the model still holds, which no output waits for any more."""
        if self._on_piece is None:
            return
        for piece in self._stream.last_pieces():
            if piece.clean.shape[1]:
                self._on_piece(piece)

    def _deliver(self, piece: Piece) -> None:
        block = self._mixed(piece)
        timesteps = block.shape[1]
        self.meters.level_in = self._smoothed(self.meters.level_in, piece.noisy)
        self.meters.level_out = self._smoothed(self.meters.level_out, block)
        self._settle()
        block = self._stretched(block)
        self.meters.stretched += block.shape[1] - timesteps
        with self._lock:
            waiting = np.concatenate([self._out, block], axis=1)
            excess = waiting.shape[1] - round(_MOST_SECONDS * self._rate) - self._buffer
            if excess > 0:  # the output has stopped taking sound
                waiting = waiting[:, -self._buffer - timesteps :]
            self._out = waiting
        if self._on_piece is not None:  # last, since a disk may be slow
            self._on_piece(piece)

    def _mixed(self, piece: Piece) -> AudioBlock:
        """Return the clean or the noisy sound, or fade from one to the other over the piece."""
        wanted = 0.0 if self.bypass else 1.0
        if wanted == self._clean_share:
            return piece.clean if wanted else piece.noisy
        fade = np.linspace(self._clean_share, wanted, piece.clean.shape[1], dtype=np.float32)
        self._clean_share = wanted
        return piece.noisy + fade * (piece.clean - piece.noisy)

    def _settle(self) -> None:
        """Leave out what waits beyond the buffer, once after each start of the output."""
        least = self._least.value()
        if self._settled or least is None:
            return
        self._settled = True
        excess = round(least) - self._buffer
        if excess <= _TOLERANCE_SECONDS * self._rate:
            return
        fade = round(_FADE_SECONDS * self._rate)
        with self._lock:
            before, after = self._out[:, :fade], self._out[:, excess : excess + fade]
            if after.shape[1] < fade:
                return
            faded = before + np.linspace(0, 1, fade, dtype=np.float32) * (after - before)
            self._out = np.concatenate([faded, self._out[:, excess + fade :]], axis=1)
            self._least.reset()
        self.meters.stretched -= excess

    def _stretched(self, block: AudioBlock) -> AudioBlock:
        """Return the block, longer or shorter by a few samples if the clocks have drifted."""
        least = self._least.value()
        if least is None or abs(least - self._buffer) <= _TOLERANCE_SECONDS * self._rate:
            return block
        timesteps = block.shape[1]
        change = max(1, round(_STRETCH * timesteps))
        length = timesteps + (change if least < self._buffer else -change)
        positions = np.arange(length) * (timesteps / length)
        rows = [np.interp(positions, np.arange(timesteps), channel) for channel in block]
        return np.stack(rows).astype(np.float32)

    def _smoothed(self, level: float, block: AudioBlock) -> float:
        power = float(np.square(block).mean())
        keep = np.exp(-block.shape[1] / (_METER_SECONDS * self._rate))
        before = 10 ** (level / 10)
        return dbfs(float(np.sqrt(keep * before + (1 - keep) * power)))

    def _measure_load(self, cpu_seconds: float, timesteps: int) -> None:
        seconds = timesteps / self._rate
        keep = np.exp(-seconds / _METER_SECONDS)
        meters = self.meters
        meters.load = float(keep * meters.load + (1 - keep) * cpu_seconds / seconds)
        meters.seconds += seconds
        meters.cpu_seconds += cpu_seconds


class _Least:
    """The smallest of the values in a span of samples, known once the span has passed.

    Args:
        span: Number of samples.
    """

    def __init__(self, span: int) -> None:
        self._span = span
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._passed, self._running, self._least = 0, np.inf, np.inf

    def add(self, value: int, timesteps: int) -> None:
        """Take the value that holds for the next samples."""
        self._running = min(self._running, value)
        self._passed += timesteps
        if self._passed >= self._span:
            self._least, self._running, self._passed = self._running, np.inf, 0

    def value(self) -> float | None:
        """Return the smallest value of the last span, or None if there was none yet."""
        least = self._least  # which another thread may reset at any moment
        return float(least) if np.isfinite(least) else None
