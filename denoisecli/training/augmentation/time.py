"""Augmentations along time: speed (and with it pitch), shifts of the noise against the speech.

Shape of all signals: (batch, timesteps).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float
from keras import ops

from denoisecli.training.augmentation.ops import (
    Parameters,
    Values,
    draw_rows,
    replace_rows,
    select_rows,
    uniform,
)

LARGEST_INDEX = 2**31 - 1
"""Largest integer that all backends compute with."""


@dataclass(frozen=True)
class Speed:
    """Play some examples faster or slower, which changes their pitch as well.

    They are sampled at twice the rate by FFT, without what would be above the new Nyquist
    frequency, and then interpolated by a windowed sinc. What becomes too short starts again from
    the beginning; what becomes too long is cut.

    Attributes:
        probability: Probability that an example is changed.
        factor: Limits of the speed relative to the original, at most 2.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    factor: tuple[float, float]
    sample_rate: int
    TAPS = 10
    """Number of samples that are interpolated between; errors are below -70 dB."""

    PARTS = 16
    """Number of parts of a stretch for which it is computed which stretch they come from."""

    FADE_SECONDS = 0.005
    """Duration of the fades at both ends, which keep the repetition free of clicks."""

    def draw(self, batch: int, rng: np.random.Generator) -> Parameters:
        """Draw the examples and their speed factors.

        Shape:
            - rows, present, factor: (rows,)
        """
        rows = draw_rows(batch, self.probability, rng)
        return {**rows, "factor": uniform(rows["rows"].shape, self.factor, rng)}

    def phases(self, timesteps: int) -> int:
        """Return the number of points that are computed between two samples at twice the rate."""
        largest = LARGEST_INDEX // (4 * timesteps)
        return min(1024, 1 << (max(largest, 1).bit_length() - 1))

    def apply(self, signal: Any, parameters: Values) -> Any:
        """Change the speed; the number of timesteps stays the same."""
        timesteps = signal.shape[1]
        phases = self.phases(timesteps)
        factor = parameters["factor"][:, None]
        index = np.arange(timesteps, dtype=np.int32)
        from_ends = np.minimum(index, timesteps - 1 - index) / (
            self.FADE_SECONDS * self.sample_rate
        )
        fades = np.minimum(from_ends, 1).astype(np.float32)
        faded = ops.multiply(select_rows(signal, parameters), fades)
        spectrum = ops.rfft(faded, fft_length=timesteps)
        limit = timesteps / 2 / ops.maximum(factor, 1.0)
        kept = ops.cast(ops.less(np.arange(timesteps // 2 + 1, dtype=np.float32), limit), "float32")
        padding = ((0, 0), (0, timesteps - timesteps // 2))
        real, imaginary = (ops.pad(2 * part * kept, padding) for part in spectrum)
        doubled = ops.irfft((real, imaginary), fft_length=2 * timesteps)
        # Positions are multiples of 1 / phases, computed in integers, which do not round.
        step = ops.cast(ops.round(factor * (2 * phases)), "int32")
        position = ops.mod(index, 2 * timesteps * phases // step) * step
        changed = self._interpolate(doubled, position // phases, ops.mod(position, phases), phases)
        return replace_rows(signal, parameters, changed)

    def moved_bands(
        self, bands: Float[np.ndarray, "batch stretches"], parameters: Parameters
    ) -> Float[np.ndarray, "batch stretches"]:
        """Return the highest frequencies in Hz of stretches of equal length, after the change.

        They move together with the sound, and change with its speed unless they are Nyquist's. A
        stretch that gets sound from several others gets the lowest of their bands.
        """
        changed = bands.copy()
        count, nyquist = bands.shape[1], self.sample_rate // 2
        parts = (np.arange(count * self.PARTS) + 0.5) / (count * self.PARTS)
        drawn = zip(*(parameters[key] for key in ("rows", "present", "factor")), strict=True)
        for row, present, factor in drawn:
            if present:
                stretch = (parts * factor % 1 * count).astype(int)
                band = bands[row, stretch].reshape(count, self.PARTS).min(axis=1)
                scaled = np.minimum(band * factor, nyquist)
                changed[row] = np.where(band < nyquist, scaled, band)
        return changed

    def _interpolate(self, signal: Any, index: Any, phase: Any, phases: int) -> Any:
        """Compute samples between others, which repeat.

        Shape:
            - signal: (rows, samples)
            - index, phase, output: (rows, timesteps)
        """
        before, after = self.TAPS // 2 - 1, self.TAPS // 2
        signal = ops.concatenate([signal[:, -before:], signal, signal[:, :after]], axis=1)
        rows, samples = signal.shape
        flat = ops.reshape(signal, (-1,))
        start = ops.add(index, np.arange(rows, dtype=np.int32)[:, None] * samples)
        weights = interpolation_weights(phases, self.TAPS)
        total = 0.0
        for tap in range(self.TAPS):
            total += ops.take(flat, start + tap) * ops.take(weights[tap], phase)
        return total


@cache
def interpolation_weights(phases: int, taps: int) -> Float[np.ndarray, "taps phases"]:
    """Return a sinc with a Kaiser window, for a band of half the Nyquist frequency."""
    distance = np.arange(phases) / phases - np.arange(1 - taps // 2, taps // 2 + 1)[:, None]
    window = np.i0(7.0 * np.sqrt(np.maximum(1 - (2 * distance / taps) ** 2, 0))) / np.i0(7.0)
    return (np.sinc(distance) * window).astype(np.float32)


@dataclass(frozen=True)
class TimeShift:
    """Shift all noises of a batch by one random time against their speech, circularly."""

    def draw(self, timesteps: int, rng: np.random.Generator) -> Parameters:
        """Draw the shift in samples.

        Shape:
            - shift: ()
        """
        return {"shift": np.array(rng.integers(timesteps), np.int32)}

    def apply(self, noise: Any, parameters: Values) -> Any:
        """Shift the noise."""
        index = ops.subtract(np.arange(noise.shape[1], dtype=np.int32), parameters["shift"])
        return ops.take(noise, ops.mod(index, noise.shape[1]), axis=1)
