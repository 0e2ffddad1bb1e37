"""Augmentations along time: speed with pitch, shift of the noise against the speech.

Shapes: all signals are (batch, timesteps).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from denoisecli.training.augmentation.tools import choose, put, uniform


@dataclass(frozen=True)
class Speed:
    """Some examples are played faster or slower, which changes the pitch too.

    Resampled by FFT: nothing is mirrored around the Nyquist frequency. The segment is taken as a
    loop: what becomes too short begins anew, what becomes too long is cut.
    """

    share: float
    factor: tuple[float, float]
    sample_rate: int
    STEP = 48
    """New lengths are multiples of this, for which an FFT is fast."""

    FADE_SECONDS = 0.005
    """At both ends, so that the loop has no click."""

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Which examples, and how much faster: (rows,) each."""
        seeds = tf.unstack(tf.random.split(seed, 2))
        rows = choose(batch, self.share, seeds[0])
        return {"rows": rows, "factor": uniform([tf.size(rows)], self.factor, seeds[1])}

    def apply(self, signal: Any, parameters: dict[str, Any]) -> Any:
        """The same number of samples."""
        rows = parameters["rows"]
        timesteps = signal.shape[1]  # has to be known: the output may have no rows to tell it
        length = float(timesteps)
        wanted = tf.cast(tf.round(length / parameters["factor"] / self.STEP), tf.int32) * self.STEP
        index = tf.range(length)
        from_ends = tf.minimum(index, length - 1 - index)
        fade = tf.minimum(from_ends / (self.FADE_SECONDS * self.sample_rate), 1)
        spectra = tf.signal.rfft(tf.gather(signal, rows) * fade)

        def play(spectrum_and_length: Any) -> Any:
            spectrum, new = spectrum_and_length
            once = tf.signal.irfft(spectrum, [new]) * (tf.cast(new, tf.float32) / length)
            return tf.ensure_shape(tf.tile(once, [2])[:timesteps], [timesteps])

        output = tf.TensorSpec([timesteps], tf.float32)
        return put(signal, rows, tf.map_fn(play, (spectra, wanted), fn_output_signature=output))


@dataclass(frozen=True)
class TimeShift:
    """Roll all noises of a batch by one random time against their speech."""

    def draw(self, timesteps: Any, seed: Any) -> Any:
        """Shift in samples."""
        return tf.random.stateless_uniform([], seed, 0, timesteps, tf.int32)

    def apply(self, noise: Any, shift: Any) -> Any:
        """What leaves at the end comes back at the beginning."""
        return tf.roll(noise, shift, axis=1)
