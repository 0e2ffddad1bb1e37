"""Augmentation that puts speech into simulated rooms.

Shape of all signals: (batch, timesteps).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from denoisecli.datasets.rooms import EARLY_SECONDS
from denoisecli.training.augmentation.ops import (
    db_to_gain,
    draw_rows,
    replace_rows,
    rms,
    uniform,
)

FIRST_REFLECTION_SECONDS = 0.003
"""Time from the direct sound to the first reflection."""

DENSE_SECONDS = 0.04
"""Time at which reflections are as dense as samples; their density grows with its square."""


@dataclass(frozen=True)
class Reverberation:
    """Put some examples into a room: exponentially decaying noise follows the direct sound.

    This is the model of Polack, "La transmission de l'énergie sonore dans les salles" (1988), with
    few and strong early reflections, as in rooms of any shape (Kuttruff, "Room Acoustics").

    Attributes:
        probability: Probability that an example is changed.
        rt60_seconds: Limits of the time in s in which reverberation decays by 60 dB.
        direct_to_reverberant_db: Limits of the energy ratio of direct sound to reflections in dB.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    rt60_seconds: tuple[float, float]
    direct_to_reverberant_db: tuple[float, float]
    sample_rate: int

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Draw the examples, and the impulse responses of their rooms without the direct sound.

        Shape:
            - rows: (rows,)
            - tail: (rows, samples of the longest RT60)
        """
        seeds = tf.unstack(tf.random.split(seed, 5))
        rows = draw_rows(batch, self.probability, seeds[0])
        shape = [tf.size(rows), 1]
        rt60 = uniform(shape, self.rt60_seconds, seeds[1])
        reverberant = db_to_gain(-uniform(shape, self.direct_to_reverberant_db, seeds[2]))
        timesteps = round(self.rt60_seconds[1] * self.sample_rate)
        seconds = tf.range(timesteps, dtype=tf.float32) / self.sample_rate
        shape = [tf.size(rows), timesteps]
        density = tf.clip_by_value((seconds / DENSE_SECONDS) ** 2, 0.01, 1)
        density *= tf.cast(seconds >= FIRST_REFLECTION_SECONDS, tf.float32)
        present = tf.random.stateless_uniform(shape, seeds[3]) < density
        tail = tf.random.stateless_normal(shape, seeds[4]) * db_to_gain(-60 * seconds / rt60)
        tail = tf.where(present, tail * tf.math.rsqrt(tf.maximum(density, 0.01)), 0)
        energy = tf.reduce_sum(tf.square(tail), axis=1, keepdims=True)
        return {"rows": rows, "tail": tail * reverberant / tf.sqrt(tf.maximum(energy, 1e-8))}

    def apply(self, speech: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
        """Add the reflections.

        Returns:
            The speech with all reflections at its own RMS, and the same speech with the reflections
            of the first `EARLY_SECONDS` only, which is the target.
        """
        rows, tail = parameters["rows"], parameters["tail"]
        timesteps = tf.shape(speech)[1]
        tail = tail[:, :timesteps]
        tail = tf.pad(tail, [[0, 0], [0, timesteps - tf.shape(tail)[1]]])
        is_early = tf.range(timesteps) < round(EARLY_SECONDS * self.sample_rate)
        dry = tf.gather(speech, rows)
        spectrum = tf.signal.rfft(dry)

        def convolve(response: Any) -> Any:
            return tf.signal.irfft(spectrum * tf.signal.rfft(response), [timesteps])

        early = dry + convolve(tf.where(is_early, tail, 0))
        wet = early + convolve(tf.where(~is_early, tail, 0))
        level = (rms(dry) / tf.maximum(rms(wet), 1e-8))[:, None]
        return replace_rows(speech, rows, level * wet), replace_rows(speech, rows, level * early)
