"""Augmentations of levels: speech over time, noises relative to speech (SNR), and the mixture.

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
    draw_rows,
    normalize,
    replace_rows,
    rms,
    select_rows,
    uniform,
)

FURTHER_NOISE_DB = (-10.0, 0.0)
"""Limits of the level of a second or third noise relative to the first one in dB."""


CHANGE_SECONDS = 0.1
"""Time in which the level of the speech changes."""


@dataclass(frozen=True)
class LevelChange:
    """Make a part of the speech louder or softer, as when a speaker shouts or turns away.

    Attributes:
        probability: Share of the examples that are changed.
        change_db: Limits of the change in dB.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    change_db: tuple[float, float]
    sample_rate: int

    def draw(self, batch: int, rng: np.random.Generator) -> Parameters:
        """Draw the changes, and where they begin and end, as shares of the length.

        A change can begin before the example or end after it.

        Shape:
            - rows, present, change_db, start, end: (rows,)
        """
        rows = draw_rows(batch, self.probability, rng)
        count = len(rows["rows"])
        start, end = np.sort(uniform((2, count), (-0.25, 1.25), rng), axis=0)
        return {
            **rows,
            "change_db": uniform((count,), self.change_db, rng),
            "start": start,
            "end": end,
        }

    def apply(self, signal: Any, parameters: Values) -> Any:
        """Change the level of a signal."""
        timesteps = signal.shape[1]
        time = ops.convert_to_tensor(np.arange(timesteps, dtype=np.float32)[None] / timesteps)
        steepness = timesteps / (CHANGE_SECONDS * self.sample_rate)
        start, end, change = (
            ops.convert_to_tensor(parameters[name])[:, None]
            for name in ("start", "end", "change_db")
        )
        share = ops.clip(steepness * ops.minimum(time - start, end - time), 0, 1)
        return replace_rows(
            signal, parameters, select_rows(signal, parameters) * db_to_gain(change * share)
        )


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
            if shift < batch:  # a batch has no more noises than examples
                weights[rows, np.roll(order, shift)] += np.where(present, gain, 0)
        return {
            "weights": weights,
            "snr_db": uniform((batch,), self.snr_db, rng),
            "speech_gain": (kind >= self.noise_only).astype(np.float32),
            "noise_gain": (kind < 1 - self.clean_only).astype(np.float32),
        }

    def apply(self, speech: Any, noise: Any, parameters: Values) -> tuple[Any, Any]:
        """Return the speech and the new noise, whose levels differ by the SNR."""
        noise = ops.matmul(parameters["weights"], normalize(noise))
        noise /= ops.maximum(rms(noise), 1.0)[:, None]  # the first noise has 1, or is nearly silent
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
