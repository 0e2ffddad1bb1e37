"""Augmentations of the input only, which the target does not share: clipping, masking.

Shapes: noisy is (batch, timesteps).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from denoisecli.training.augmentation.tools import choose, filtered, frequencies, gain, put, uniform


@dataclass(frozen=True)
class Clipping:
    """Some inputs are cut off at a level below their peak."""

    share: float
    threshold_db: tuple[float, float]

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Which examples, and thresholds in dB relative to the peak: (rows,) each."""
        seeds = tf.unstack(tf.random.split(seed, 2))
        rows = choose(batch, self.share, seeds[0])
        threshold_db = uniform([tf.size(rows)], self.threshold_db, seeds[1])
        return {"rows": rows, "threshold_db": threshold_db}

    def apply(self, noisy: Any, parameters: dict[str, Any]) -> Any:
        """Cut off."""
        picked = tf.gather(noisy, parameters["rows"])
        peak = tf.reduce_max(tf.abs(picked), axis=1)
        limit = (gain(parameters["threshold_db"]) * peak)[:, None]
        return put(noisy, parameters["rows"], tf.clip_by_value(picked, -limit, limit))


@dataclass(frozen=True)
class Masking:
    """Stretches of time and bands of frequency of some inputs are attenuated.

    As SpecAugment (Park et al. 2019) does to spectrograms, here as smooth gains on the signal.
    """

    share: float
    gain_db: tuple[float, float]
    sample_rate: int
    STRETCHES = 2
    SECONDS = (0.02, 0.2)
    BANDS = 2
    WIDTH = (0.03, 0.15)
    """Of a band, on the square root of frequency; half the sample rate is one."""

    EDGE_SECONDS = 0.005
    EDGE_WIDTH = 0.01

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Which examples; centres (both axes go from 0 to 1), widths and gains of the masks."""
        seeds = tf.unstack(tf.random.split(seed, 7))
        rows = choose(batch, self.share, seeds[0])
        stretches, bands = [tf.size(rows), self.STRETCHES], [tf.size(rows), self.BANDS]
        return {
            "rows": rows,
            "time": uniform(stretches, (0.0, 1.0), seeds[1]),
            "seconds": uniform(stretches, self.SECONDS, seeds[2]),
            "time_gain": gain(uniform(stretches, self.gain_db, seeds[3])),
            "frequency": uniform(bands, (0.0, 1.0), seeds[4]),
            "width": uniform(bands, self.WIDTH, seeds[5]),
            "frequency_gain": gain(uniform(bands, self.gain_db, seeds[6])),
        }

    def apply(self, noisy: Any, parameters: dict[str, Any]) -> Any:
        """Attenuate."""
        timesteps = tf.shape(noisy)[1]
        hertz = frequencies(timesteps, self.sample_rate)
        response = _gains(
            tf.sqrt(hertz / (0.5 * self.sample_rate)),
            parameters["frequency"],
            parameters["width"],
            parameters["frequency_gain"],
            self.EDGE_WIDTH,
        )
        changed = filtered(tf.gather(noisy, parameters["rows"]), response)
        seconds = tf.range(timesteps, dtype=tf.float32) / self.sample_rate
        duration = tf.cast(timesteps, tf.float32) / self.sample_rate
        changed *= _gains(
            seconds,
            duration * parameters["time"],
            parameters["seconds"],
            parameters["time_gain"],
            self.EDGE_SECONDS,
        )
        return put(noisy, parameters["rows"], changed)


def _gains(axis: Any, centres: Any, widths: Any, gains: Any, edge: float) -> Any:
    """Product of masks with sloping edges: (points,), thrice (rows, masks) -> (rows, points)."""
    distance = tf.abs(axis - centres[..., None])
    inside = tf.clip_by_value((0.5 * widths[..., None] - distance) / edge + 0.5, 0, 1)
    return tf.reduce_prod(1 - inside * (1 - gains[..., None]), axis=1)
