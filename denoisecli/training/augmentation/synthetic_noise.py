"""Augmentations that add noise without recordings of it: coloured noise, hum, clicks.

Shape of all signals: (batch, timesteps). Levels are relative to that of the recorded noise, or to
-80 dBFS if it is softer, so that the synthetic noise is there even where none was recorded.
"""

from dataclasses import dataclass
from math import pi
from typing import Any

import tensorflow as tf

from denoisecli.training.augmentation.ops import (
    SILENT_RMS,
    db_to_gain,
    draw_rows,
    fft_frequencies,
    log_uniform,
    normalize,
    replace_rows,
    rms,
    uniform,
)


@dataclass(frozen=True)
class ColouredNoise:
    """Add stationary noise whose power is inversely proportional to a power of the frequency.

    Attributes:
        probability: Probability that an example is changed.
        level_db: Limits of the level relative to the recorded noise in dB.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    level_db: tuple[float, float]
    sample_rate: int
    EXPONENT = (-0.5, 2.0)
    """Limits of the exponent: 0 is white noise, 1 pink and 2 brown."""

    LOWEST_HZ = 20.0
    """Frequency below which the spectrum is flat; else brown noise would be nothing but drift."""

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Draw the examples, levels in dB, exponents and the seed of the noise itself.

        Shape:
            - rows, level_db, exponent: (rows,)
            - seed: (2,)
        """
        seeds = tf.unstack(tf.random.split(seed, 4))
        rows = draw_rows(batch, self.probability, seeds[0])
        return {
            "rows": rows,
            "level_db": uniform([tf.size(rows)], self.level_db, seeds[1]),
            "exponent": uniform([tf.size(rows)], self.EXPONENT, seeds[2]),
            "seed": seeds[3],
        }

    def apply(self, noise: Any, parameters: dict[str, Any]) -> Any:
        """Add the noise."""
        timesteps = tf.shape(noise)[1]
        hertz = tf.maximum(fft_frequencies(timesteps, self.sample_rate), self.LOWEST_HZ)
        response = tf.exp(-0.5 * parameters["exponent"][:, None] * tf.math.log(hertz))
        shape = [2, tf.size(parameters["rows"]), tf.size(hertz)]
        real, imaginary = tf.unstack(tf.random.stateless_normal(shape, parameters["seed"]))
        spectrum = tf.complex(real * response, imaginary * response)
        return _add(noise, parameters, tf.signal.irfft(spectrum, [timesteps]))


@dataclass(frozen=True)
class Hum:
    """Add mains hum of 50 or 60 Hz, up to 1 % off, with harmonics of random levels.

    Attributes:
        probability: Probability that an example is changed.
        level_db: Limits of the level relative to the recorded noise in dB.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    level_db: tuple[float, float]
    sample_rate: int
    HARMONICS = 12
    HARMONIC_DB = (-40.0, 0.0)
    """Limits of the level of a harmonic in dB."""

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Draw the examples, levels in dB, mains frequencies in Hz, amplitudes, phases in cycles.

        Shape:
            - rows, level_db, hertz: (rows,)
            - amplitude, phase: (rows, HARMONICS)
        """
        seeds = tf.unstack(tf.random.split(seed, 6))
        rows = draw_rows(batch, self.probability, seeds[0])
        count = tf.size(rows)
        american = tf.random.stateless_uniform([count], seeds[2]) < 0.5
        shape = [count, self.HARMONICS]
        return {
            "rows": rows,
            "level_db": uniform([count], self.level_db, seeds[1]),
            "hertz": tf.where(american, 60.0, 50.0) * uniform([count], (0.99, 1.01), seeds[3]),
            "amplitude": db_to_gain(uniform(shape, self.HARMONIC_DB, seeds[4])),
            "phase": uniform(shape, (0.0, 1.0), seeds[5]),
        }

    def apply(self, noise: Any, parameters: dict[str, Any]) -> Any:
        """Add the hum."""
        seconds = tf.range(tf.shape(noise)[1], dtype=tf.float64) / self.sample_rate
        cycles = tf.cast(parameters["hertz"], tf.float64)[:, None] * seconds
        cycles = tf.cast(cycles % 1, tf.float32)  # float32 is too coarse for long segments
        hum = tf.zeros_like(cycles)
        for harmonic in range(self.HARMONICS):
            phase = (harmonic + 1) * cycles + parameters["phase"][:, harmonic, None]
            hum += parameters["amplitude"][:, harmonic, None] * tf.sin(2 * pi * phase)
        return _add(noise, parameters, hum)


@dataclass(frozen=True)
class Clicks:
    """Add impulses at random times that excite a resonance: crackle, keystrokes, knocks.

    Each is a damped oscillation, exp(-t / decay) sin(2 pi f t).

    Attributes:
        probability: Probability that an example is changed.
        level_db: Limits of the level relative to the recorded noise in dB.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    level_db: tuple[float, float]
    sample_rate: int
    PER_SECOND = (1.0, 30.0)
    """Limits of the mean number of clicks per second."""

    HERTZ = (200.0, 4000.0)
    """Limits of the resonance frequency in Hz."""

    DECAY_SECONDS = (0.0003, 0.01)
    """Limits of the time constant of the decay in s."""

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Draw the examples, levels in dB, rates per second, resonances in Hz and decays in s.

        Shape:
            - rows, level_db: (rows,)
            - per_second, hertz, decay: (rows, 1)
            - seed: (2,), that of the times and amplitudes
        """
        seeds = tf.unstack(tf.random.split(seed, 6))
        rows = draw_rows(batch, self.probability, seeds[0])
        shape = [tf.size(rows), 1]
        return {
            "rows": rows,
            "level_db": uniform([tf.size(rows)], self.level_db, seeds[1]),
            "per_second": log_uniform(shape, self.PER_SECOND, seeds[2]),
            "hertz": log_uniform(shape, self.HERTZ, seeds[3]),
            "decay": log_uniform(shape, self.DECAY_SECONDS, seeds[4]),
            "seed": seeds[5],
        }

    def apply(self, noise: Any, parameters: dict[str, Any]) -> Any:
        """Add the clicks."""
        timesteps = tf.shape(noise)[1]
        shape = [tf.size(parameters["rows"]), timesteps]
        chance = parameters["per_second"] / self.sample_rate
        drawn = tf.random.stateless_uniform(shape, parameters["seed"]) / chance
        impulses = tf.where(drawn < 1, 2 * drawn - 1, 0)  # amplitudes from -1 to 1
        # Laplace transform of the oscillation at s = j omega, relative to that of the resonance.
        relative = fft_frequencies(timesteps, self.sample_rate) / parameters["hertz"]
        damping = 1 / (2 * pi * parameters["hertz"] * parameters["decay"])
        ringing = tf.complex(damping + tf.zeros_like(relative), relative)
        spectrum = tf.signal.rfft(impulses) / (ringing * ringing + 1)
        return _add(noise, parameters, tf.signal.irfft(spectrum, [timesteps]))


def _add(noise: Any, parameters: dict[str, Any], synthetic: Any) -> Any:
    """Add synthetic noise to the drawn rows, at the drawn levels."""
    recorded = tf.gather(noise, parameters["rows"])
    level = db_to_gain(parameters["level_db"]) * tf.maximum(rms(recorded), SILENT_RMS)
    changed = recorded + level[:, None] * normalize(synthetic)
    return replace_rows(noise, parameters["rows"], changed)
