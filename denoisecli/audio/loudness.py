"""Loudness and true peak of sound (EBU R 128, ITU-R BS.1770), measured and limited by FFmpeg.

The filters ``ebur128`` and ``alimiter`` run block by block through PyAV, which is optional. Levels
are in LUFS (loudness) and in dBFS of the true peak (dBTP).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from denoisecli.audio.av_frames import FORMAT, from_frame, to_frame
from denoisecli.audio.level import dbfs
from denoisecli.errors import UsageError
from denoisecli.system.extras import require
from denoisecli.types import AudioBlock

if TYPE_CHECKING:
    from av import AudioFrame

SILENCE_LUFS = -70.0
"""The absolute gate of BS.1770: what is quieter than this does not count."""

BLOCKS_PER_SECOND = 10
"""Number of momentary loudness values per second, each measured over 0.4 s."""

RELATIVE_GATE_LU = 10.0
"""The relative gate of BS.1770: blocks further below the mean do not count."""

LAYOUTS = {
    1: "mono",
    2: "stereo",
    3: "3.0",
    4: "quad",
    5: "5.0",
    6: "5.1",
    7: "6.1",
    8: "7.1",
}
"""FFmpeg's names of the layouts that BS.1770 has weights for, by number of channels."""

Momentary = Float[np.ndarray, "blocks"]
"""Momentary loudness in LUFS, one for each block; -inf where there is no sound."""

_ATTACK_MS, _RELEASE_MS = 5, 50
_LOWEST_LIMIT = 0.0625  # of FFmpeg's alimiter
_PAUSE_LU = 20.0  # a block that is further below the speech is a pause
_MIN_PAUSES = 5
_LOWEST_SPEECH = 0.1  # share of the power of a block that is speech at least


def block_samples(sample_rate: int) -> int:
    """Return the number of samples from one momentary loudness to the next, as FFmpeg counts it."""
    return max(sample_rate // BLOCKS_PER_SECOND, 1)


def is_installed() -> bool:
    """Return whether the optional package is installed."""
    return find_spec("av") is not None


@dataclass(frozen=True)
class Loudness:
    """Loudness of a whole sound.

    Attributes:
        integrated: Integrated loudness in LUFS; -inf if no block passes the absolute gate.
        true_peak: True peak in dBFS, from an amplitude that FFmpeg rounds to 0.001; -inf for
            silence, NaN if it was not measured.
        momentary: Momentary loudness.
    """

    integrated: float
    true_peak: float
    momentary: Momentary


class LoudnessMeter:
    """Measures the loudness of a stream of sound.

    Args:
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        true_peak: Measure the true peak as well, which takes three times as long.

    Raises:
        UsageError: PyAV is not installed, or there are more than eight channels.
    """

    def __init__(self, sample_rate: int, channels: int, *, true_peak: bool = True) -> None:
        peak = "true" if true_peak else "none"
        options = f"metadata=1:framelog=quiet:peak={peak}"
        self._filter = _Filter("ebur128", options, sample_rate, channels)
        self._has_peak = true_peak
        self._channels = channels
        self._block = block_samples(sample_rate)
        self._momentary: list[float] = []
        self._integrated: list[float] = []
        self._peak = 0.0

    def add(self, block: AudioBlock) -> None:
        """Add samples, shape (channels, timesteps)."""
        self._read(self._filter.push(block))

    def finish(self) -> Loudness:
        """Return the loudness of all that was added."""
        complete, rest = divmod(self._filter.position, self._block)
        if self._has_peak and self._filter.position:
            # The peak is known at the end of a block, and the filter that finds it has a delay.
            self.add(np.zeros((self._channels, 2 * self._block - rest), np.float32))
        self._read(self._filter.finish())
        momentary = np.array(self._momentary[:complete])
        momentary[momentary <= -120] = -math.inf
        sounds = bool((momentary > SILENCE_LUFS).any())
        return Loudness(
            integrated=self._integrated[complete - 1] if sounds else -math.inf,
            true_peak=dbfs(self._peak) if self._has_peak else math.nan,
            momentary=momentary,
        )

    def _read(self, frames: "Iterator[AudioFrame]") -> None:
        for frame in frames:
            values = frame.metadata
            if "lavfi.r128.M" not in values:
                continue
            self._momentary.append(float(values["lavfi.r128.M"]))
            self._integrated.append(float(values["lavfi.r128.I"]))
            self._peak = float(values.get("lavfi.r128.true_peak", 0.0))


class Limiter:
    """Keeps a stream of sound below a level, with a short look-ahead and no delay.

    Args:
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        ceiling_db: Largest sample in dBFS, -24 or more (below it, -24 is taken). The true peak
            between samples can be higher.

    Raises:
        UsageError: PyAV is not installed, or there are more than eight channels.
    """

    def __init__(self, sample_rate: int, channels: int, ceiling_db: float) -> None:
        limit = max(10 ** (ceiling_db / 20), _LOWEST_LIMIT)
        options = (
            f"limit={limit:.6f}:level=false:latency=true:attack={_ATTACK_MS}:release={_RELEASE_MS}"
        )
        self._filter = _Filter("alimiter", options, sample_rate, channels)

    def process(self, block: AudioBlock) -> Iterator[AudioBlock]:
        """Take samples, shape (channels, timesteps), and yield those that are ready."""
        for frame in self._filter.push(block):
            yield from_frame(frame)

    def finish(self) -> Iterator[AudioBlock]:
        """Yield the remaining samples: as many come out as went in."""
        for frame in self._filter.finish():
            yield from_frame(frame)


def speech_gain_db(noisy: Momentary, clean: Momentary) -> float:
    """Return the gain that makes cleaned speech as loud as it is in the noisy sound.

    Speech is where the clean sound is within the relative gate of BS.1770, a pause where it is far
    below. The noise in the speech is taken to be as loud as that in the pauses, and is subtracted.

    Args:
        noisy: Momentary loudness of the noisy sound.
        clean: That of the cleaned sound, of as many blocks.

    Returns:
        The gain in dB; 0 if there is no speech.
    """
    before, after = 10 ** (noisy / 10), 10 ** (clean / 10)
    sounds = clean > SILENCE_LUFS
    if not sounds.any():
        return 0.0
    ungated = 10 * math.log10(after[sounds].mean())
    speech = sounds & (clean > ungated - RELATIVE_GATE_LU)
    pauses = (noisy > SILENCE_LUFS) & (clean < ungated - _PAUSE_LU)
    noise = before[pauses].mean() if np.count_nonzero(pauses) >= _MIN_PAUSES else 0.0
    power = before[speech].mean()
    return 10 * math.log10(max(power - noise, _LOWEST_SPEECH * power) / after[speech].mean())


class _Filter:
    """A filter of FFmpeg between a source and a sink of floating-point samples."""

    def __init__(self, name: str, options: str, sample_rate: int, channels: int) -> None:
        require("media", "av", purpose="measuring loudness")
        if channels not in LAYOUTS:
            raise UsageError(f"loudness is defined for 1 to 8 channels, not for {channels}")
        import av
        from av.filter import Graph

        av.logging.set_level(av.logging.PANIC)
        self._rate = sample_rate
        self._layout = LAYOUTS[channels]
        self.position = 0
        self._nothing_yet = (av.error.BlockingIOError, av.error.EOFError)
        self._graph = Graph()
        steps = [
            self._graph.add_abuffer(
                sample_rate=sample_rate,
                format=FORMAT,
                layout=self._layout,
                time_base=Fraction(1, sample_rate),
            ),
            self._graph.add(name, options),
            self._graph.add("aformat", f"sample_fmts={FORMAT}:sample_rates={sample_rate}"),
            self._graph.add("abuffersink"),
        ]
        self._graph.link_nodes(*steps).configure()

    def push(self, block: AudioBlock) -> "Iterator[AudioFrame]":
        """Pass samples to the filter and yield the frames that are ready."""
        if block.shape[1] == 0:
            return
        self._graph.push(to_frame(block, self._layout, self._rate, self.position))
        self.position += block.shape[1]
        yield from self._pull()

    def finish(self) -> "Iterator[AudioFrame]":
        """End the stream and yield the remaining frames."""
        if self.position:
            self._graph.push(None)
            yield from self._pull()

    def _pull(self) -> "Iterator[AudioFrame]":
        while True:
            try:
                yield self._graph.pull()  # type: ignore[misc]
            except self._nothing_yet:
                return
