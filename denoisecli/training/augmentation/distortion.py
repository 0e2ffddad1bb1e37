"""Augmentations of the input alone, which the target does not share: clipping and masking.

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
    replace_rows,
    uniform,
)


@dataclass(frozen=True)
class Clipping:
    """Clip some inputs at a threshold below their peak.

    Attributes:
        probability: Probability that an example is changed.
        threshold_db: Limits of the threshold relative to the peak in dB.
    """

    probability: float
    threshold_db: tuple[float, float]

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Draw the examples and their thresholds in dB.

        Shape:
            - rows, threshold_db: (rows,)
        """
        seeds = tf.unstack(tf.random.split(seed, 2))
        rows = draw_rows(batch, self.probability, seeds[0])
        threshold_db = uniform([tf.size(rows)], self.threshold_db, seeds[1])
        return {"rows": rows, "threshold_db": threshold_db}

    def apply(self, noisy: Any, parameters: dict[str, Any]) -> Any:
        """Clip the input."""
        chosen = tf.gather(noisy, parameters["rows"])
        peak = tf.reduce_max(tf.abs(chosen), axis=1)
        limit = (db_to_gain(parameters["threshold_db"]) * peak)[:, None]
        clipped = tf.clip_by_value(chosen, -limit, limit)
        return replace_rows(noisy, parameters["rows"], clipped)


@dataclass(frozen=True)
class Masking:
    """Attenuate stretches of time and bands of frequency of some inputs.

    What SpecAugment does to spectrograms (Park et al. 2019), with smooth gains on the waveform.

    Attributes:
        probability: Probability that an example is changed.
        gain_db: Limits of the gain in dB.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    gain_db: tuple[float, float]
    sample_rate: int
    STRETCHES = 2
    SECONDS = (0.02, 0.2)
    """Limits of the duration of a stretch in s."""

    BANDS = 2
    WIDTH = (0.03, 0.15)
    """Limits of the width of a band on the square root of frequency, relative to Nyquist's."""

    EDGE_SECONDS = 0.005
    """Duration of the slope at either end of a stretch in s."""

    EDGE_WIDTH = 0.01
    """Width of the slope at either end of a band."""

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Draw the examples, and the centres (from 0 to 1), widths and gains of the masks.

        Shape:
            - rows: (rows,)
            - time, seconds, time_gain: (rows, STRETCHES)
            - frequency, width, frequency_gain: (rows, BANDS)
        """
        seeds = tf.unstack(tf.random.split(seed, 7))
        rows = draw_rows(batch, self.probability, seeds[0])
        stretches, bands = [tf.size(rows), self.STRETCHES], [tf.size(rows), self.BANDS]
        return {
            "rows": rows,
            "time": uniform(stretches, (0.0, 1.0), seeds[1]),
            "seconds": uniform(stretches, self.SECONDS, seeds[2]),
            "time_gain": db_to_gain(uniform(stretches, self.gain_db, seeds[3])),
            "frequency": uniform(bands, (0.0, 1.0), seeds[4]),
            "width": uniform(bands, self.WIDTH, seeds[5]),
            "frequency_gain": db_to_gain(uniform(bands, self.gain_db, seeds[6])),
        }

    def apply(self, noisy: Any, parameters: dict[str, Any]) -> Any:
        """Attenuate the input."""
        timesteps = tf.shape(noisy)[1]
        hertz = fft_frequencies(timesteps, self.sample_rate)
        response = _mask_gains(
            tf.sqrt(hertz / (0.5 * self.sample_rate)),
            parameters["frequency"],
            parameters["width"],
            parameters["frequency_gain"],
            self.EDGE_WIDTH,
        )
        changed = apply_response(tf.gather(noisy, parameters["rows"]), response)
        seconds = tf.range(timesteps, dtype=tf.float32) / self.sample_rate
        duration = tf.cast(timesteps, tf.float32) / self.sample_rate
        changed *= _mask_gains(
            seconds,
            duration * parameters["time"],
            parameters["seconds"],
            parameters["time_gain"],
            self.EDGE_SECONDS,
        )
        return replace_rows(noisy, parameters["rows"], changed)


def _mask_gains(axis: Any, centres: Any, widths: Any, gains: Any, edge: float) -> Any:
    """Compute the product of masks with sloping edges along an axis.

    Shape:
        - axis: (points,)
        - centres, widths, gains: (rows, masks)
        - output: (rows, points)
    """
    distance = tf.abs(axis - centres[..., None])
    inside = tf.clip_by_value((0.5 * widths[..., None] - distance) / edge + 0.5, 0, 1)
    return tf.reduce_prod(1 - inside * (1 - gains[..., None]), axis=1)
