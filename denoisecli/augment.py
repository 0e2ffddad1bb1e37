"""What is done to a batch of (noisy, clean) pairs while training, as TensorFlow graph code.

Each class draws its parameters apart from applying them, so that a batch can be replayed. All
randomness comes from the stateless seed that `augment_batch` is given.

Shapes: noisy, clean, speech and noise are (batch, timesteps).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from denoisecli.spec import Augmentation

SILENT_RMS = 1e-4
"""Below this (-80 dBFS) a signal is not scaled up to reach a level or an SNR."""

SECOND_NOISE_DB = (-10.0, 0.0)
"""Level of a second noise relative to the first."""


@dataclass(frozen=True)
class Remix:
    """Shuffle the noises in the batch, mix at new SNRs (Défossez et al. 2020).

    Since noise = noisy - clean, no mixture is ever seen twice. Sometimes two noises are summed,
    sometimes there is no noise, sometimes no speech.
    """

    snr_db: tuple[float, float]
    second_noise: float = 0.0
    clean_only: float = 0.0
    noise_only: float = 0.0

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Parameters for a batch of this size."""
        seeds = tf.unstack(tf.random.split(seed, 6))
        kind = tf.random.stateless_uniform([batch], seeds[0])
        second = tf.random.stateless_uniform([batch], seeds[1])
        second_gain = 10 ** (_uniform(batch, SECOND_NOISE_DB, seeds[5]) / 20)
        return {
            "first": _permutation(batch, seeds[2]),
            "second": _permutation(batch, seeds[3]),
            "second_gain": tf.where(second < self.second_noise, second_gain, 0.0),
            "snr_db": _uniform(batch, self.snr_db, seeds[4]),
            "speech_gain": tf.cast(kind >= self.noise_only, tf.float32),
            "noise_gain": tf.cast(kind < 1 - self.clean_only, tf.float32),
        }

    def apply(self, speech: Any, noise: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
        """(speech, noise) -> (speech, noise) whose levels differ by the SNR drawn."""
        first = _unit(tf.gather(noise, parameters["first"]))
        second = _unit(tf.gather(noise, parameters["second"]))
        noise = _unit(first + parameters["second_gain"][:, None] * second)
        ratio = 10 ** (-parameters["snr_db"] / 20)
        level = tf.maximum(rms(speech), SILENT_RMS)  # silent speech: a faint noise, not an error
        noise_level = parameters["noise_gain"] * ratio * level
        return parameters["speech_gain"][:, None] * speech, noise_level[:, None] * noise


@dataclass(frozen=True)
class Equalization:
    """A random smooth frequency response, another for every example.

    Gains at `POINTS` frequencies, evenly spaced on the square root of frequency so that speech
    gets most of them, joined linearly in dB.
    """

    range_db: float
    POINTS = 8

    def draw(self, batch: Any, seed: Any) -> Any:
        """Gains in dB: (batch, POINTS)."""
        return tf.random.stateless_uniform(
            [batch, self.POINTS], seed, -self.range_db, self.range_db
        )

    def apply(self, signal: Any, gains_db: Any) -> Any:
        """Filter by multiplication in the frequency domain (zero phase, RMS kept)."""
        length = tf.shape(signal)[1]
        spectrum = tf.signal.rfft(signal)
        bins = tf.shape(spectrum)[1]
        position = tf.sqrt(tf.linspace(0.0, 1.0, bins)) * (self.POINTS - 1)
        low = tf.minimum(tf.cast(position, tf.int32), self.POINTS - 2)
        share = position - tf.cast(low, tf.float32)
        curve = tf.gather(gains_db, low, axis=1) * (1 - share)
        curve += tf.gather(gains_db, low + 1, axis=1) * share
        gain = tf.cast(10 ** (curve / 20), tf.complex64)
        filtered = tf.signal.irfft(spectrum * gain, [length])
        return filtered * (rms(signal) / tf.maximum(rms(filtered), 1e-8))[:, None]


@dataclass(frozen=True)
class Level:
    """A random RMS level of the mix, lowered where the peak would pass full scale."""

    level_dbfs: tuple[float, float]

    def draw(self, batch: Any, seed: Any) -> Any:
        """RMS levels in dBFS: (batch,)."""
        return _uniform(batch, self.level_dbfs, seed)

    def apply(self, noisy: Any, clean: Any, level_dbfs: Any) -> tuple[Any, Any]:
        """Scale both alike."""
        gain = 10 ** (level_dbfs / 20) / tf.maximum(rms(noisy), SILENT_RMS)
        peak = tf.reduce_max(tf.abs(noisy), axis=1)
        gain = tf.minimum(gain, 0.99 / tf.maximum(peak, 1e-6))[:, None]
        return noisy * gain, clean * gain


def augment_batch(noisy: Any, clean: Any, settings: Augmentation, seed: Any) -> tuple[Any, Any]:
    """Apply what the spec's `training.augmentation` asks for.

    Args:
        noisy: (batch, timesteps).
        clean: (batch, timesteps).
        settings: the section of the spec.
        seed: (2,) integers; the same seed gives the same result.
    """
    seeds = tf.unstack(tf.random.split(seed, 4))
    batch = tf.shape(noisy)[0]
    speech, noise = clean, noisy - clean
    if settings.equalization_db > 0:
        equalization = Equalization(settings.equalization_db)
        speech = equalization.apply(speech, equalization.draw(batch, seeds[0]))
        noise = equalization.apply(noise, equalization.draw(batch, seeds[1]))
    if settings.remix:
        remix = Remix(
            settings.snr_db, settings.second_noise, settings.clean_only, settings.noise_only
        )
        speech, noise = remix.apply(speech, noise, remix.draw(batch, seeds[2]))
    noisy, clean = speech + noise, speech
    if settings.level_dbfs is not None:
        level = Level(settings.level_dbfs)
        noisy, clean = level.apply(noisy, clean, level.draw(batch, seeds[3]))
    return noisy, clean


def rms(signal: Any) -> Any:
    """Root mean square: (batch, timesteps) -> (batch,)."""
    return tf.sqrt(tf.reduce_mean(tf.square(signal), axis=1))


def _unit(signal: Any) -> Any:
    """Scale to an RMS of one, silence excepted."""
    return signal / tf.maximum(rms(signal), SILENT_RMS)[:, None]


def _uniform(batch: Any, limits: tuple[float, float], seed: Any) -> Any:
    return tf.random.stateless_uniform([batch], seed, limits[0], limits[1])


def _permutation(batch: Any, seed: Any) -> Any:
    return tf.argsort(tf.random.stateless_uniform([batch], seed))
