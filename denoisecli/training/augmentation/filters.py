"""Augmentations that filter: equalization, band limits, removal of rumble.

Shape of all signals: (batch, timesteps).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from denoisecli.training.augmentation.ops import (
    apply_response,
    db_to_gain,
    draw_rows,
    fft_frequencies,
    highpass_response,
    log_uniform,
    replace_rows,
    rms,
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

    def draw(self, batch: Any, seed: Any) -> Any:
        """Draw the gains in dB.

        Shape:
            - output: (batch, POINTS)
        """
        return uniform([batch, self.POINTS], (-self.range_db, self.range_db), seed)

    def apply(self, signal: Any, gains_db: Any) -> Any:
        """Filter with zero phase, and keep the RMS."""
        bins = tf.shape(signal)[1] // 2 + 1
        position = tf.sqrt(tf.linspace(0.0, 1.0, bins)) * (self.POINTS - 1)
        low = tf.minimum(tf.cast(position, tf.int32), self.POINTS - 2)
        weight = position - tf.cast(low, tf.float32)
        curve = tf.gather(gains_db, low, axis=1) * (1 - weight)
        curve += tf.gather(gains_db, low + 1, axis=1) * weight
        changed = apply_response(signal, db_to_gain(curve))
        return changed * (rms(signal) / tf.maximum(rms(changed), 1e-8))[:, None]


@dataclass(frozen=True)
class BandLimit:
    """Remove the highs of some examples, and of half of those the lows: old, muffled, telephone.

    Attributes:
        probability: Probability that an example is changed.
        low_cut_hz: Limits of the lower cutoff in Hz.
        high_cut_hz: Limits of the upper cutoff in Hz.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    low_cut_hz: tuple[float, float]
    high_cut_hz: tuple[float, float]
    sample_rate: int
    STEEPNESS = (8.0, 64.0)
    """Limits of the slope in units of 6 dB per octave."""

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Draw the examples, their cutoffs in Hz and slopes; a lower cutoff of almost 0 is none.

        Shape:
            - rows: (rows,)
            - low_cut, high_cut, steepness: (rows, 1)
        """
        seeds = tf.unstack(tf.random.split(seed, 5))
        rows = draw_rows(batch, self.probability, seeds[0])
        shape = [tf.size(rows), 1]
        both = tf.random.stateless_uniform(shape, seeds[4]) < 0.5
        return {
            "rows": rows,
            "low_cut": tf.where(both, log_uniform(shape, self.low_cut_hz, seeds[1]), 1e-3),
            "high_cut": log_uniform(shape, self.high_cut_hz, seeds[2]),
            "steepness": log_uniform(shape, self.STEEPNESS, seeds[3]),
        }

    def apply(self, noisy: Any, clean: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
        """Filter both signals alike, with zero phase."""
        rows, steepness = parameters["rows"], parameters["steepness"]
        hertz = fft_frequencies(tf.shape(noisy)[1], self.sample_rate)
        response = highpass_response(hertz, parameters["low_cut"], steepness)
        response *= 1 - highpass_response(hertz, parameters["high_cut"], steepness)
        noisy = replace_rows(noisy, rows, apply_response(tf.gather(noisy, rows), response))
        clean = replace_rows(clean, rows, apply_response(tf.gather(clean, rows), response))
        return noisy, clean


def remove_rumble(signal: Any, cutoff_hz: float, sample_rate: int) -> Any:
    """Remove what lies below a cutoff (-6 dB there) with zero phase.

    Args:
        signal: Signals.
        cutoff_hz: Cutoff frequency in Hz.
        sample_rate: Sample rate in Hz.
    """
    hertz = fft_frequencies(tf.shape(signal)[1], sample_rate)
    response = highpass_response(hertz, cutoff_hz, RUMBLE_STEEPNESS)
    return apply_response(signal, response[None])
