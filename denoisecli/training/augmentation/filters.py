"""Augmentations that filter: equalization, band limits, removal of rumble.

Shape of all signals: (batch, timesteps).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from denoisecli.training.augmentation.ops import (
    Parameters,
    Values,
    apply_response,
    db_to_gain,
    draw_rows,
    fft_frequencies,
    highpass_response,
    log_uniform,
    replace_rows,
    rms,
    select_rows,
    uniform,
)

RUMBLE_STEEPNESS = 8.0
"""Slope of the filter against rumble: 48 dB per octave."""


@dataclass(frozen=True)
class Equalization:
    """Apply a random smooth frequency response, a different one to every example.

    The response joins the gains at `POINTS` frequencies linearly in dB. These are evenly spaced on
    the square root of frequency, which puts most of them where speech is.

    Attributes:
        range_db: Largest gain and attenuation in dB.
    """

    range_db: float
    POINTS = 8

    def draw(self, batch: int, rng: np.random.Generator) -> Parameters:
        """Draw the gains in dB.

        Shape:
            - gains_db: (batch, POINTS)
        """
        limits = (-self.range_db, self.range_db)
        return {"gains_db": uniform((batch, self.POINTS), limits, rng)}

    def apply(self, signals: Sequence[Any], parameters: Values) -> list[Any]:
        """Filter signals alike with zero phase, by responses that keep the RMS of the first one."""
        first = signals[0]
        bins = first.shape[1] // 2 + 1
        position = np.sqrt(np.linspace(0.0, 1.0, bins)) * (self.POINTS - 1)
        # The curve is linear in the gains: hat functions around the points.
        hats = np.maximum(1 - np.abs(position - np.arange(self.POINTS)[:, None]), 0)
        curve = ops.matmul(parameters["gains_db"], hats.astype(np.float32))
        changed = [apply_response(signal, db_to_gain(curve)) for signal in signals]
        gain = (rms(first) / ops.maximum(rms(changed[0]), 1e-8))[:, None]
        return [signal * gain for signal in changed]


@dataclass(frozen=True)
class BandLimit:
    """Low-pass some examples, and high-pass half of those: old, muffled or telephone sound.

    Attributes:
        probability: Probability that an example is changed.
        low_cut_hz: Limits of the lower cutoff in Hz.
        high_cut_hz: Limits of the upper cutoff in Hz, which is at most the Nyquist frequency.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    low_cut_hz: tuple[float, float]
    high_cut_hz: tuple[float, float]
    sample_rate: int
    STEEPNESS = (8.0, 64.0)
    """Limits of the slope in units of 6 dB per octave."""

    def draw(self, batch: int, rng: np.random.Generator) -> Parameters:
        """Draw the examples, their cutoffs in Hz and slopes; a lower cutoff of almost 0 is none.

        Shape:
            - rows, present: (rows,)
            - low_cut, high_cut, steepness: (rows, 1)
        """
        rows = draw_rows(batch, self.probability, rng)
        shape = (rows["rows"].size, 1)
        low, high = (min(cutoff, self.sample_rate / 2) for cutoff in self.high_cut_hz)
        low_cut = log_uniform(shape, self.low_cut_hz, rng)
        return {
            **rows,
            "low_cut": np.where(rng.random(shape) < 0.5, low_cut, np.float32(1e-3)),
            "high_cut": log_uniform(shape, (low, high), rng),
            "steepness": log_uniform(shape, self.STEEPNESS, rng),
        }

    def apply(self, noisy: Any, clean: Any, parameters: Values) -> tuple[Any, Any]:
        """Filter both signals alike, with zero phase."""
        steepness = parameters["steepness"]
        hertz = fft_frequencies(noisy.shape[1], self.sample_rate)
        response = highpass_response(hertz, parameters["low_cut"], steepness)
        response *= 1 - highpass_response(hertz, parameters["high_cut"], steepness)
        return _filter_rows(noisy, clean, parameters, response)


@dataclass(frozen=True)
class LowPass:
    """Remove all above one of a few frequencies from some examples, as a low sample rate does.

    Attributes:
        probability: Probability that an example is changed.
        cutoffs_hz: Frequencies in Hz to choose from. Those that are not below the Nyquist frequency
            are left out; without any, nothing is changed.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    cutoffs_hz: tuple[float, ...]
    sample_rate: int
    PASSBAND = 0.94
    """End of the band that is kept, relative to the cutoff; resamplers are about as steep."""

    @property
    def usable_hz(self) -> tuple[float, ...]:
        """Cutoffs in Hz that remove something."""
        limit = self.PASSBAND * self.sample_rate / 2
        return tuple(cutoff for cutoff in self.cutoffs_hz if cutoff < limit)

    def draw(self, batch: int, rng: np.random.Generator) -> Parameters:
        """Draw the examples and their cutoffs in Hz.

        Shape:
            - rows, present: (rows,)
            - cutoff: (rows, 1)
        """
        rows = draw_rows(batch if self.usable_hz else 0, self.probability, rng)
        cutoffs = rng.choice(self.usable_hz or (1.0,), (rows["rows"].size, 1))
        return {**rows, "cutoff": cutoffs.astype(np.float32)}

    def apply(self, noisy: Any, clean: Any, parameters: Values) -> tuple[Any, Any]:
        """Filter both signals alike, with zero phase."""
        if not self.usable_hz:
            return noisy, clean
        hertz = fft_frequencies(noisy.shape[1], self.sample_rate)
        slope = (1 - ops.divide(hertz, parameters["cutoff"])) / (1 - self.PASSBAND)
        response = ops.square(ops.sin(np.pi / 2 * ops.clip(slope, 0.0, 1.0)))
        return _filter_rows(noisy, clean, parameters, response)


def _filter_rows(noisy: Any, clean: Any, parameters: Values, response: Any) -> tuple[Any, Any]:
    """Filter the drawn examples of both signals.

    Shape:
        - response: (rows, bins)
    """

    def filtered(signal: Any) -> Any:
        changed = apply_response(select_rows(signal, parameters), response)
        return replace_rows(signal, parameters, changed)

    return filtered(noisy), filtered(clean)


def remove_rumble(signal: Any, cutoff_hz: float, sample_rate: int) -> Any:
    """Remove what lies below a cutoff (-6 dB there) with zero phase.

    Args:
        signal: Signals.
        cutoff_hz: Cutoff frequency in Hz.
        sample_rate: Sample rate in Hz.
    """
    hertz = fft_frequencies(signal.shape[1], sample_rate)
    response = highpass_response(hertz, cutoff_hz, RUMBLE_STEEPNESS)
    return apply_response(signal, response[None])
