"""Augmentations of the mixture: which noises it has, at which SNR, and its level.

Shape of all signals: (batch, timesteps).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from denoisecli.training.augmentation.ops import SILENT_RMS, db_to_gain, normalize, rms, uniform

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

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Draw the weights of all noises in every example, SNRs in dB, and gains of 0 or 1.

        Shape:
            - weights: (batch, batch), examples by noises
            - snr_db, speech_gain, noise_gain: (batch,)
        """
        seeds = tf.unstack(tf.random.split(seed, 7))
        kind = tf.random.stateless_uniform([batch], seeds[0])
        second = tf.random.stateless_uniform([batch], seeds[1]) < self.second_noise
        third = second & (tf.random.stateless_uniform([batch], seeds[2]) < self.third_noise)
        order = tf.argsort(tf.random.stateless_uniform([batch], seeds[3]))
        weights = tf.one_hot(order, batch)
        for shift, (present, level_seed) in enumerate([(second, seeds[4]), (third, seeds[5])], 1):
            gain = db_to_gain(uniform([batch], FURTHER_NOISE_DB, level_seed))
            level = tf.where(present, gain, 0.0)
            weights += level[:, None] * tf.one_hot(tf.roll(order, shift, axis=0), batch)
        return {
            "weights": weights,
            "snr_db": uniform([batch], self.snr_db, seeds[6]),
            "speech_gain": tf.cast(kind >= self.noise_only, tf.float32),
            "noise_gain": tf.cast(kind < 1 - self.clean_only, tf.float32),
        }

    def apply(self, speech: Any, noise: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
        """Return the speech and the new noise, whose levels differ by the SNR."""
        noise = normalize(parameters["weights"] @ normalize(noise))
        level = tf.maximum(rms(speech), SILENT_RMS)  # silent speech gets a faint noise
        level *= parameters["noise_gain"] * db_to_gain(-parameters["snr_db"])
        return parameters["speech_gain"][:, None] * speech, level[:, None] * noise


@dataclass(frozen=True)
class Level:
    """Scale mixtures to random RMS levels, or lower where the peak would pass full scale.

    Attributes:
        level_dbfs: Limits of the level in dBFS.
    """

    level_dbfs: tuple[float, float]

    def draw(self, batch: Any, seed: Any) -> Any:
        """Draw the levels in dBFS.

        Shape:
            - output: (batch,)
        """
        return uniform([batch], self.level_dbfs, seed)

    def apply(self, noisy: Any, clean: Any, level_dbfs: Any) -> tuple[Any, Any]:
        """Scale both signals alike."""
        factor = db_to_gain(level_dbfs) / tf.maximum(rms(noisy), SILENT_RMS)
        peak = tf.reduce_max(tf.abs(noisy), axis=1)
        factor = tf.minimum(factor, 0.99 / tf.maximum(peak, 1e-6))[:, None]
        return noisy * factor, clean * factor
