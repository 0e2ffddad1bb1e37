"""Augmentations that add noise without recordings of it: coloured noise, hum, clicks.

Shape of all signals: (batch, timesteps). Levels are relative to that of the recorded noise, or to
-80 dBFS if it is softer, so that the synthetic noise is there even where none was recorded.
"""

from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np
from keras import ops

from denoisecli.training.augmentation.ops import (
    SILENT_RMS,
    Parameters,
    Values,
    db_to_gain,
    draw_rows,
    fft_frequencies,
    log_uniform,
    normal,
    normalize,
    replace_rows,
    rms,
    select_rows,
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

    def draw(self, batch: int, timesteps: int, rng: np.random.Generator) -> Parameters:
        """Draw the examples, levels in dB, exponents and the spectra of white noise.

        Shape:
            - rows, present, level_db, exponent: (rows,)
            - real, imaginary: (rows, timesteps // 2 + 1)
        """
        rows = draw_rows(batch, self.probability, rng)
        shape = rows["rows"].shape
        return {
            **rows,
            "level_db": uniform(shape, self.level_db, rng),
            "exponent": uniform(shape, self.EXPONENT, rng),
            "real": normal((*shape, timesteps // 2 + 1), rng),
            "imaginary": normal((*shape, timesteps // 2 + 1), rng),
        }

    def apply(self, noise: Any, parameters: Values) -> Any:
        """Add the noise."""
        timesteps = noise.shape[1]
        hertz = np.maximum(fft_frequencies(timesteps, self.sample_rate), self.LOWEST_HZ)
        # The spectrum of noise whose power is 1 at 1 kHz.
        exponent = -0.5 * parameters["exponent"][:, None]
        response = ops.exp(ops.multiply(exponent, np.log(hertz / 1000)))
        response *= timesteps**0.5
        spectrum = (parameters["real"] * response, parameters["imaginary"] * response)
        return _add(noise, parameters, ops.irfft(spectrum, fft_length=timesteps))


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

    def draw(self, batch: int, rng: np.random.Generator) -> Parameters:
        """Draw the examples, levels in dB, mains frequencies, and levels and phases of harmonics.

        Shape:
            - rows, present, level_db: (rows,)
            - step: (rows,), mains frequency in cycles per sample, times 2 ** 32
            - harmonic_db, phase: (rows, HARMONICS), phases in cycles
        """
        rows = draw_rows(batch, self.probability, rng)
        shape = rows["rows"].shape
        hertz = np.where(rng.random(shape) < 0.5, 60.0, 50.0) * rng.uniform(0.99, 1.01, shape)
        return {
            **rows,
            "level_db": uniform(shape, self.level_db, rng),
            "step": np.rint(hertz / self.sample_rate * 2**32).astype(np.int32),
            "harmonic_db": uniform((*shape, self.HARMONICS), self.HARMONIC_DB, rng),
            "phase": uniform((*shape, self.HARMONICS), (0.0, 1.0), rng),
        }

    def apply(self, noise: Any, parameters: Values) -> Any:
        """Add the hum."""
        index = np.arange(noise.shape[1], dtype=np.int32)
        # Whole cycles are what overflows; float32 would be too coarse for long segments.
        cycles = ops.multiply(index, parameters["step"][:, None])
        amplitude = db_to_gain(parameters["harmonic_db"])
        hum = 0.0
        for harmonic in range(self.HARMONICS):
            phase = ops.cast((harmonic + 1) * cycles, "float32") * 2.0**-32
            phase += parameters["phase"][:, harmonic, None]
            hum += amplitude[:, harmonic, None] * ops.sin(2 * pi * phase)
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

    def draw(self, batch: int, timesteps: int, rng: np.random.Generator) -> Parameters:
        """Draw the examples, levels in dB, impulses from -1 to 1, resonances in Hz and decays in s.

        Shape:
            - rows, present, level_db: (rows,)
            - impulses: (rows, timesteps)
            - hertz, decay: (rows, 1)
        """
        rows = draw_rows(batch, self.probability, rng)
        count = rows["rows"].size
        chance = log_uniform((count, 1), self.PER_SECOND, rng) / self.sample_rate
        drawn = rng.random((count, timesteps), np.float32) / chance
        return {
            **rows,
            "level_db": uniform((count,), self.level_db, rng),
            "impulses": np.where(drawn < 1, 2 * drawn - 1, np.float32(0)),
            "hertz": log_uniform((count, 1), self.HERTZ, rng),
            "decay": log_uniform((count, 1), self.DECAY_SECONDS, rng),
        }

    def apply(self, noise: Any, parameters: Values) -> Any:
        """Add the clicks."""
        timesteps = noise.shape[1]
        # Laplace transform of the oscillation at s = j omega, relative to that of the resonance:
        # 1 / ((damping + j relative) ** 2 + 1).
        relative = ops.divide(fft_frequencies(timesteps, self.sample_rate), parameters["hertz"])
        damping = 1 / (2 * pi * parameters["hertz"] * parameters["decay"])
        a, b = damping * damping - relative * relative + 1, 2 * damping * relative
        real, imaginary = ops.rfft(parameters["impulses"], fft_length=timesteps)
        norm = a * a + b * b
        spectrum = ((real * a + imaginary * b) / norm, (imaginary * a - real * b) / norm)
        return _add(noise, parameters, ops.irfft(spectrum, fft_length=timesteps))


def _add(noise: Any, parameters: Values, synthetic: Any) -> Any:
    """Add synthetic noise to the drawn rows, at the drawn levels."""
    recorded = select_rows(noise, parameters)
    level = db_to_gain(parameters["level_db"]) * ops.maximum(rms(recorded), SILENT_RMS)
    changed = recorded + level[:, None] * normalize(synthetic)
    return replace_rows(noise, parameters, changed)
