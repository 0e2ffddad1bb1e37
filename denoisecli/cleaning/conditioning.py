"""Input of the network: sound without its DC offset, and not far below the usual level.

A DC offset spreads into the lowest bands of the STFT and hides what is there, and networks are
trained at usual levels. The estimates look back only and are computed on a fixed grid, so that
blocks of any size, files and streams give the same result. Where loud sound follows silence, the
gain falls at once. It is undone after the network, sample by sample, so that it cannot be heard to
change.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from denoisecli.types import AudioBlock

_CELL_SECONDS = 0.016  # in which a mean and a power are computed
_MEMORY_SECONDS = 2.0  # time constant of the estimates
_LOWEST_LEVEL = 10 ** (-35 / 20)  # RMS to which quieter sound is raised for the network
_HIGHEST_GAIN = 10 ** (45 / 20)  # the noise of a digital recording is not raised to the usual level
_HIGHEST_PEAK = np.float32(10 ** (-10 / 20))  # to which a gain raises a sample

# Pairs of a time in s and a share: a mean over that time counts as an offset if its share of the
# RMS is larger. Over a short time, low frequencies have a mean as well.
_LARGE_SHARE = ((0.1, 0.85), (0.75, 0.6), (2.0, 0.5))
_NEUTRAL = (0.0, 1.0)  # the offset and the gain of sound that needs neither
_PARTLY = 0.1  # range of shares above it in which only part of the offset is removed

_Peaks = Float[np.ndarray, "channels _"]


class Conditioner:
    """Conditions a stream of sound for the network, and restores the level of what comes out.

    Every channel is conditioned by itself.

    Args:
        channels: Number of channels.
        sample_rate: Sample rate in Hz.
        lead_in: Length in s of the beginning of the recording, which the estimates, like the
            network, process in reverse first. Nothing is returned until it has arrived.
    """

    def __init__(self, channels: int, sample_rate: int, lead_in: float = 0.0) -> None:
        cell = max(1, round(_CELL_SECONDS * sample_rate))
        self._estimate = _Estimate(channels, cell, sample_rate)
        self._lead_in = int(lead_in * sample_rate)
        # What has come of the lead-in so far.
        self._ahead: AudioBlock = np.zeros((channels, 0), np.float32)
        # The sound that is not restored yet, with its gain; None where the gain is 1.
        self._waiting: deque[tuple[AudioBlock, AudioBlock | None]] = deque()

    def process(self, sound: AudioBlock) -> AudioBlock:
        """Take the next samples, and return the input of the network for the sound so far."""
        if self._lead_in:
            sound = self._ahead = np.concatenate([self._ahead, sound], axis=1)
            if sound.shape[1] <= self._lead_in:
                return sound[:, :0]
            return self.finish()
        curves = self._estimate(sound)
        if curves is None:
            self._waiting.append((sound, None))
            return sound
        offset, gain = curves
        self._waiting.append((sound, gain))
        return (sound - offset) * gain

    def finish(self) -> AudioBlock:
        """Return the input of the network for the sound up to the end of the lead-in."""
        sound, self._ahead = self._ahead, self._ahead[:, :0]
        self._estimate(sound[:, self._lead_in : 0 : -1])
        self._lead_in = 0
        return self.process(sound)

    def restore(self, clean: AudioBlock) -> tuple[AudioBlock, AudioBlock]:
        """Return the original of the next clean samples, and these with the gain undone."""
        originals, restored, start = [], [], 0
        while start < clean.shape[1]:
            sound, gain = self._waiting.popleft()
            part = clean[:, start : start + sound.shape[1]]
            count = part.shape[1]
            if count < sound.shape[1]:
                self._waiting.appendleft(
                    (sound[:, count:], None if gain is None else gain[:, count:])
                )
            originals.append(sound[:, :count])
            restored.append(part if gain is None else part / gain[:, :count])
            start += count
        return _joined(originals, clean), _joined(restored, clean)


def _joined(parts: Sequence[AudioBlock], like: AudioBlock) -> AudioBlock:
    """Return the parts, one after the other; without any, an empty block of as many channels."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([like[:, :0], *parts], axis=1)


class _Estimate:
    """The offset of every channel of a stream, and the gain to the lowest level.

    Args:
        channels: Number of channels.
        cell: Number of samples for which the mean and the power are computed at a time.
        sample_rate: Sample rate in Hz.
    """

    def __init__(self, channels: int, cell: int, sample_rate: int) -> None:
        self._cell = cell
        self._cell_seconds = cell / sample_rate
        self._decay = math.exp(-self._cell_seconds / _MEMORY_SECONDS)
        self._count = 0
        # Decaying sums of the means and powers of the cells, for every channel.
        self._sums = [(0.0, 0.0)] * channels
        self._part: AudioBlock = np.zeros((channels, 0), np.float32)  # of the cell so far
        # Peaks of the last two cells, which limit the gain, since frames of the STFT reach as far.
        self._peaks: _Peaks = np.zeros((channels, 2), np.float32)
        # Offset and gain of every channel at the beginning and the end of the cell, which follow
        # from earlier cells.
        self._ends: list[list[tuple[float, float]]] = [[_NEUTRAL] * channels] * 2

    def __call__(self, sound: AudioBlock) -> tuple[AudioBlock, AudioBlock] | None:
        """Take the next samples.

        Returns:
            Their offset and gain, both of the same shape; None if all are 0 and 1.
        """
        before = self._part.shape[1]
        joined = np.concatenate([self._part, sound], axis=1)
        channels, timesteps = joined.shape
        complete = timesteps // self._cell
        whole = complete * self._cell
        cells = joined[:, :whole].reshape(channels, complete, self._cell)
        self._part = joined[:, whole:]
        all_ends = [*self._ends, *self._estimates(cells)]
        self._ends = all_ends[-2:]
        if all(pair is _NEUTRAL for pairs in all_ends for pair in pairs):
            self._hold(np.abs(cells).max(axis=2))
            return None
        ends = np.transpose(np.array(all_ends, np.float32))
        steps = np.arange(self._cell, dtype=np.float32) / np.float32(self._cell)
        count = -(-timesteps // self._cell)
        starts, changes = ends[:, :, :count, None], np.diff(ends)[:, :, :count, None]
        offset, gain = starts + changes * steps
        padded = np.pad(joined, [(0, 0), (0, count * self._cell - timesteps)])
        so_far = np.abs(padded.reshape(offset.shape) - offset)
        np.maximum.accumulate(so_far, axis=2, out=so_far)
        held = self._hold(so_far[:, :complete, -1])
        peaks = np.maximum(so_far, held[:, :count, None])
        limit = np.maximum(_HIGHEST_PEAK / np.maximum(peaks, np.float32(1e-30)), np.float32(1))
        gain = np.minimum(gain, limit)
        offset, gain = (curve.reshape(channels, -1) for curve in (offset, gain))
        return offset[:, before:timesteps], gain[:, before:timesteps]

    def _hold(self, peaks: _Peaks) -> _Peaks:
        """Take the peaks of the next cells.

        Returns:
            The highest peak of the two cells before each of them, and before the one after them.
        """
        held = np.concatenate([self._peaks, peaks], axis=1)
        self._peaks = held[:, -2:]
        return np.maximum(held[:, :-1], held[:, 1:])

    def _estimates(
        self, cells: Float[np.ndarray, "channels cells samples"]
    ) -> Iterator[list[tuple[float, float]]]:
        """Yield the offset and the gain of every channel after each of the next cells.

        Live sound comes a cell at a time, for which plain numbers are faster than arrays.
        """
        means = np.add.reduce(cells, axis=2, dtype=np.float64) / self._cell
        powers = np.einsum("csn,csn->cs", cells, cells, dtype=np.float64) / self._cell
        for cell in zip(means.T.tolist(), powers.T.tolist(), strict=True):
            self._count += 1
            # At the beginning the weights of the cells do not add up to one yet.
            scale = (1 - self._decay) / (1 - self._decay**self._count)
            large = _large_share(self._count * self._cell_seconds)
            pairs = []
            for channel, (mean, power) in enumerate(zip(*cell, strict=True)):
                sums = self._sums[channel]
                sums = self._sums[channel] = (
                    self._decay * sums[0] + mean,
                    self._decay * sums[1] + power,
                )
                pairs.append(_correction(scale * sums[0], scale * sums[1], large))
            yield pairs


def _correction(mean: float, power: float, large: float) -> tuple[float, float]:
    """Return the offset and the gain for a mean and a power, given the share of an offset."""
    variance = power - mean**2
    if mean**2 <= large**2 * power and variance >= _LOWEST_LEVEL**2:  # nearly always
        return _NEUTRAL
    share = abs(mean) / math.sqrt(max(power, 1e-30))
    offset = mean * min(max((share - large) / _PARTLY, 0.0), 1.0)
    level = math.sqrt(max(variance, 1e-30))
    return offset, min(max(_LOWEST_LEVEL / level, 1.0), _HIGHEST_GAIN)


def _large_share(seconds: float) -> float:
    """Return the share of the RMS above which a mean over this time is an offset."""
    longest, least = _LARGE_SHARE[-1]
    if seconds >= longest:  # nearly always
        return least
    times, shares = zip(*_LARGE_SHARE, strict=True)
    return float(np.interp(seconds, times, shares, left=np.inf))
