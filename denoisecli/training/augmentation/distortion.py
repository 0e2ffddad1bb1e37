"""Augmentations of the input alone, which the target does not share: clipping and masking.

Shape of all signals: (batch, timesteps).
"""

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
    replace_rows,
    select_rows,
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

    def draw(self, batch: int, rng: np.random.Generator) -> Parameters:
        """Draw the examples and their thresholds in dB.

        Shape:
            - rows, present, threshold_db: (rows,)
        """
        rows = draw_rows(batch, self.probability, rng)
        return {**rows, "threshold_db": uniform(rows["rows"].shape, self.threshold_db, rng)}

    def apply(self, noisy: Any, parameters: Values) -> Any:
        """Clip the input."""
        chosen = select_rows(noisy, parameters)
        peak = ops.max(ops.abs(chosen), axis=1)
        limit = (db_to_gain(parameters["threshold_db"]) * peak)[:, None]
        return replace_rows(noisy, parameters, ops.clip(chosen, -limit, limit))


@dataclass(frozen=True)
class Masking:
    """Attenuate stretches of time and bands of frequency of some inputs.

    This is like SpecAugment (Park et al. 2019), but with smooth gains applied to the waveform.

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
    """Limits of a band's width on a square-root frequency scale; 1 is the Nyquist frequency."""

    EDGE_SECONDS = 0.005
    """Duration of the slope at either end of a stretch in s."""

    EDGE_WIDTH = 0.01
    """Width of the slope at either end of a band."""

    def draw(self, batch: int, rng: np.random.Generator) -> Parameters:
        """Draw the examples, and the centres (from 0 to 1), widths and gains of the masks.

        Shape:
            - rows, present: (rows,)
            - time, seconds, time_gain_db: (rows, STRETCHES)
            - frequency, width, frequency_gain_db: (rows, BANDS)
        """
        rows = draw_rows(batch, self.probability, rng)
        count = rows["rows"].size
        stretches, bands = (count, self.STRETCHES), (count, self.BANDS)
        return {
            **rows,
            "time": uniform(stretches, (0.0, 1.0), rng),
            "seconds": uniform(stretches, self.SECONDS, rng),
            "time_gain_db": uniform(stretches, self.gain_db, rng),
            "frequency": uniform(bands, (0.0, 1.0), rng),
            "width": uniform(bands, self.WIDTH, rng),
            "frequency_gain_db": uniform(bands, self.gain_db, rng),
        }

    def apply(self, noisy: Any, parameters: Values) -> Any:
        """Attenuate the input."""
        timesteps = noisy.shape[1]
        hertz = fft_frequencies(timesteps, self.sample_rate)
        response = _mask_gains(
            np.sqrt(hertz / (0.5 * self.sample_rate)),
            parameters["frequency"],
            parameters["width"],
            db_to_gain(parameters["frequency_gain_db"]),
            self.EDGE_WIDTH,
        )
        changed = apply_response(select_rows(noisy, parameters), response)
        changed *= _mask_gains(
            np.arange(timesteps, dtype=np.float32) / self.sample_rate,
            timesteps / self.sample_rate * parameters["time"],
            parameters["seconds"],
            db_to_gain(parameters["time_gain_db"]),
            self.EDGE_SECONDS,
        )
        return replace_rows(noisy, parameters, changed)


def _mask_gains(axis: Any, centres: Any, widths: Any, gains: Any, edge: float) -> Any:
    """Compute the product of masks with sloping edges along an axis.

    Shape:
        - axis: (points,)
        - centres, widths, gains: (rows, masks)
        - output: (rows, points)
    """
    distance = ops.abs(ops.subtract(axis.astype(np.float32), centres[..., None]))
    inside = ops.clip((0.5 * widths[..., None] - distance) / edge + 0.5, 0.0, 1.0)
    return ops.prod(1 - inside * (1 - gains[..., None]), axis=1)
