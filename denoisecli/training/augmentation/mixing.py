"""Augmentations of the mix: which noises, how loud, and the level of all.

Shapes: all signals are (batch, timesteps).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from denoisecli.training.augmentation.tools import SILENT_RMS, gain, rms, uniform, unit

FURTHER_NOISE_DB = (-10.0, 0.0)
"""Level of a second and a third noise relative to the first."""


@dataclass(frozen=True)
class Remix:
    """Shuffle the noises in the batch, mix at new SNRs (Défossez et al. 2020).

    Since noise = noisy - clean, no mixture is ever seen twice. Sometimes two or three noises are
    summed, sometimes there is no noise, sometimes no speech.
    """

    snr_db: tuple[float, float]
    second_noise: float = 0.0
    third_noise: float = 0.0
    clean_only: float = 0.0
    noise_only: float = 0.0

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Parameters for a batch of this size; `weights` says which noises each example gets."""
        seeds = tf.unstack(tf.random.split(seed, 7))
        kind = tf.random.stateless_uniform([batch], seeds[0])
        second = tf.random.stateless_uniform([batch], seeds[1]) < self.second_noise
        third = second & (tf.random.stateless_uniform([batch], seeds[2]) < self.third_noise)
        order = tf.argsort(tf.random.stateless_uniform([batch], seeds[3]))
        weights = tf.one_hot(order, batch)
        for shift, (present, level_seed) in enumerate([(second, seeds[4]), (third, seeds[5])], 1):
            level = tf.where(present, gain(uniform([batch], FURTHER_NOISE_DB, level_seed)), 0.0)
            weights += level[:, None] * tf.one_hot(tf.roll(order, shift, axis=0), batch)
        return {
            "weights": weights,
            "snr_db": uniform([batch], self.snr_db, seeds[6]),
            "speech_gain": tf.cast(kind >= self.noise_only, tf.float32),
            "noise_gain": tf.cast(kind < 1 - self.clean_only, tf.float32),
        }

    def apply(self, speech: Any, noise: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
        """(speech, noise) -> (speech, noise) whose levels differ by the SNR drawn."""
        noise = unit(parameters["weights"] @ unit(noise))
        level = tf.maximum(rms(speech), SILENT_RMS)  # silent speech: a faint noise, not an error
        level *= parameters["noise_gain"] * gain(-parameters["snr_db"])
        return parameters["speech_gain"][:, None] * speech, level[:, None] * noise


@dataclass(frozen=True)
class Level:
    """A random RMS level of the mix, lowered where the peak would pass full scale."""

    level_dbfs: tuple[float, float]

    def draw(self, batch: Any, seed: Any) -> Any:
        """RMS levels in dBFS: (batch,)."""
        return uniform([batch], self.level_dbfs, seed)

    def apply(self, noisy: Any, clean: Any, level_dbfs: Any) -> tuple[Any, Any]:
        """Scale both alike."""
        factor = gain(level_dbfs) / tf.maximum(rms(noisy), SILENT_RMS)
        peak = tf.reduce_max(tf.abs(noisy), axis=1)
        factor = tf.minimum(factor, 0.99 / tf.maximum(peak, 1e-6))[:, None]
        return noisy * factor, clean * factor
