"""Augmentations of the mixture: which noises it has, at which SNR, and its level.

Shape of all signals: (batch, timesteps).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from denoisecli.training.augmentation.ops import (
    SILENT_RMS,
    Parameters,
    Values,
    db_to_gain,
    normalize,
    rms,
    uniform,
)

FURTHER_NOISE_DB = (-10.0, 0.0)
"""Limits of the level of a second or third noise relative to the first one in dB."""


@dataclass(frozen=True)
class Remix:
    """Shuffle the noises in the batch and mix them with the speech at new SNRs.

    Source: Défossez et al. 2020, "Real time speech enhancement in the waveform domain". Since the
    noise is the difference of noisy and clean, a mixture is hardly ever seen twice.

    Attributes:
        snr_db: Limits of the SNR in dB.
        second_noise: Probability that an example has a second noise.
        third_noise: Probability that an example with a second noise has a third one.
        clean_only: Probability that an example has no noise.
        noise_only: Probability that an example has no speech.
    """

    snr_db: tuple[float, float]
    second_noise: float = 0.0
    third_noise: float = 0.0
    clean_only: float = 0.0
    noise_only: float = 0.0

    def draw(self, batch: int, rng: np.random.Generator) -> Parameters:
        """Draw the weights of all noises in every example, SNRs in dB, and gains of 0 or 1.

        Shape:
            - weights: (batch, batch), examples by noises
            - snr_db, speech_gain, noise_gain: (batch,)
        """
        kind = rng.random(batch)
        second = rng.random(batch) < self.second_noise
        third = second & (rng.random(batch) < self.third_noise)
        order, rows = rng.permutation(batch), np.arange(batch)
        weights = np.zeros((batch, batch), np.float32)
        weights[rows, order] = 1
        for shift, present in enumerate((second, third), 1):
            gain = 10 ** (rng.uniform(*FURTHER_NOISE_DB, batch) / 20)
            weights[rows, np.roll(order, shift)] += np.where(present, gain, 0)
        return {
            "weights": weights,
            "snr_db": uniform((batch,), self.snr_db, rng),
            "speech_gain": (kind >= self.noise_only).astype(np.float32),
            "noise_gain": (kind < 1 - self.clean_only).astype(np.float32),
        }

    def apply(self, speech: Any, noise: Any, parameters: Values) -> tuple[Any, Any]:
        """Return the speech and the new noise, whose levels differ by the SNR."""
        noise = normalize(ops.matmul(parameters["weights"], normalize(noise)))
        level = ops.maximum(rms(speech), SILENT_RMS)  # silent speech gets a faint noise
        level *= parameters["noise_gain"] * db_to_gain(-parameters["snr_db"])
        return parameters["speech_gain"][:, None] * speech, level[:, None] * noise


@dataclass(frozen=True)
class Level:
    """Scale mixtures to random RMS levels, or lower where the peak would pass full scale.

    Attributes:
        level_dbfs: Limits of the level in dBFS.
    """

    level_dbfs: tuple[float, float]

    def draw(self, batch: int, rng: np.random.Generator) -> Parameters:
        """Draw the levels in dBFS.

        Shape:
            - level_dbfs: (batch,)
        """
        return {"level_dbfs": uniform((batch,), self.level_dbfs, rng)}

    def apply(self, noisy: Any, clean: Any, parameters: Values) -> tuple[Any, Any]:
        """Scale both signals alike."""
        factor = db_to_gain(parameters["level_dbfs"]) / ops.maximum(rms(noisy), SILENT_RMS)
        peak = ops.max(ops.abs(noisy), axis=1)
        factor = ops.minimum(factor, 0.99 / ops.maximum(peak, 1e-6))[:, None]
        return noisy * factor, clean * factor
