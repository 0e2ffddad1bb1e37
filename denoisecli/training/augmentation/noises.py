"""Augmentations that add noises that need no recording: coloured, hum, clicks.

Shapes: noise is (batch, timesteps). Levels are relative to the noise of the recording, -80 dBFS
at least, so that they also sound where there was none.
"""

from dataclasses import dataclass
from math import pi
from typing import Any

import tensorflow as tf

from denoisecli.training.augmentation.tools import (
    SILENT_RMS,
    choose,
    frequencies,
    gain,
    log_uniform,
    put,
    rms,
    uniform,
    unit,
)


@dataclass(frozen=True)
class ColouredNoise:
    """Stationary noise whose power falls with a power of frequency: 0 white, 1 pink, 2 brown."""

    share: float
    level_db: tuple[float, float]
    sample_rate: int
    EXPONENT = (-0.5, 2.0)
    LOWEST_HZ = 20.0
    """Flat below, or brown noise would be nothing but drift."""

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Which examples, levels in dB, exponents of the power: (rows,) each."""
        seeds = tf.unstack(tf.random.split(seed, 4))
        rows = choose(batch, self.share, seeds[0])
        return {
            "rows": rows,
            "level_db": uniform([tf.size(rows)], self.level_db, seeds[1]),
            "exponent": uniform([tf.size(rows)], self.EXPONENT, seeds[2]),
            "seed": seeds[3],
        }

    def apply(self, noise: Any, parameters: dict[str, Any]) -> Any:
        """Add it."""
        timesteps = tf.shape(noise)[1]
        hertz = tf.maximum(frequencies(timesteps, self.sample_rate), self.LOWEST_HZ)
        response = tf.exp(-0.5 * parameters["exponent"][:, None] * tf.math.log(hertz))
        shape = [2, tf.size(parameters["rows"]), tf.size(hertz)]
        real, imaginary = tf.unstack(tf.random.stateless_normal(shape, parameters["seed"]))
        spectrum = tf.complex(real * response, imaginary * response)
        return _add(noise, parameters, tf.signal.irfft(spectrum, [timesteps]))


@dataclass(frozen=True)
class Hum:
    """Mains hum, 50 or 60 Hz and up to 1 % off, with harmonics of random levels."""

    share: float
    level_db: tuple[float, float]
    sample_rate: int
    HARMONICS = 12
    HARMONIC_DB = (-40.0, 0.0)

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Which examples, levels in dB, mains frequencies in Hz, amplitudes, phases in cycles."""
        seeds = tf.unstack(tf.random.split(seed, 6))
        rows = choose(batch, self.share, seeds[0])
        count = tf.size(rows)
        american = tf.random.stateless_uniform([count], seeds[2]) < 0.5
        shape = [count, self.HARMONICS]
        return {
            "rows": rows,
            "level_db": uniform([count], self.level_db, seeds[1]),
            "hertz": tf.where(american, 60.0, 50.0) * uniform([count], (0.99, 1.01), seeds[3]),
            "amplitude": gain(uniform(shape, self.HARMONIC_DB, seeds[4])),
            "phase": uniform(shape, (0.0, 1.0), seeds[5]),
        }

    def apply(self, noise: Any, parameters: dict[str, Any]) -> Any:
        """Add it."""
        seconds = tf.range(tf.shape(noise)[1], dtype=tf.float64) / self.sample_rate
        cycles = tf.cast(parameters["hertz"], tf.float64)[:, None] * seconds
        cycles = tf.cast(cycles % 1, tf.float32)  # single precision would smear long segments
        hum = tf.zeros_like(cycles)
        for harmonic in range(self.HARMONICS):
            phase = (harmonic + 1) * cycles + parameters["phase"][:, harmonic, None]
            hum += parameters["amplitude"][:, harmonic, None] * tf.sin(2 * pi * phase)
        return _add(noise, parameters, hum)


@dataclass(frozen=True)
class Clicks:
    """Impulses at random times that make something ring: crackle, keys, knocks.

    Each is a damped oscillation, exp(-t / decay) sin(2 pi f t).
    """

    share: float
    level_db: tuple[float, float]
    sample_rate: int
    PER_SECOND = (1.0, 30.0)
    HERTZ = (200.0, 4000.0)
    DECAY_SECONDS = (0.0003, 0.01)

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Which examples, levels in dB, rates per second, resonances in Hz, decays in s."""
        seeds = tf.unstack(tf.random.split(seed, 6))
        rows = choose(batch, self.share, seeds[0])
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
        """Add them."""
        timesteps = tf.shape(noise)[1]
        shape = [tf.size(parameters["rows"]), timesteps]
        chance = parameters["per_second"] / self.sample_rate
        drawn = tf.random.stateless_uniform(shape, parameters["seed"]) / chance
        impulses = tf.where(drawn < 1, 2 * drawn - 1, 0)  # amplitudes from -1 to 1
        # Laplace transform of the oscillation at s = j omega, per rad/s of the resonance.
        relative = frequencies(timesteps, self.sample_rate) / parameters["hertz"]
        damping = 1 / (2 * pi * parameters["hertz"] * parameters["decay"])
        ringing = tf.complex(damping + tf.zeros_like(relative), relative)
        spectrum = tf.signal.rfft(impulses) / (ringing * ringing + 1)
        return _add(noise, parameters, tf.signal.irfft(spectrum, [timesteps]))


def _add(noise: Any, parameters: dict[str, Any], other: Any) -> Any:
    recorded = tf.gather(noise, parameters["rows"])
    level = gain(parameters["level_db"]) * tf.maximum(rms(recorded), SILENT_RMS)
    return put(noise, parameters["rows"], recorded + level[:, None] * unit(other))
