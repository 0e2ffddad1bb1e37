"""Augmentations along time: speed (and with it pitch), shifts of the noise against the speech.

Shape of all signals: (batch, timesteps).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from denoisecli.training.augmentation.ops import draw_rows, replace_rows, uniform


@dataclass(frozen=True)
class Speed:
    """Play some examples faster or slower, which changes their pitch as well.

    They are resampled by FFT, so that nothing is mirrored around the Nyquist frequency. What
    becomes too short starts again from the beginning; what becomes too long is cut.

    Attributes:
        probability: Probability that an example is changed.
        factor: Limits of the speed relative to the original.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    factor: tuple[float, float]
    sample_rate: int
    STEP = 48
    """New lengths are multiples of this number of samples, for which an FFT is fast."""

    FADE_SECONDS = 0.005
    """Duration of the fades at both ends, which keep the repetition free of clicks."""

    def draw(self, batch: Any, seed: Any) -> dict[str, Any]:
        """Draw the examples and their speed factors.

        Shape:
            - rows, factor: (rows,)
        """
        seeds = tf.unstack(tf.random.split(seed, 2))
        rows = draw_rows(batch, self.probability, seeds[0])
        return {"rows": rows, "factor": uniform([tf.size(rows)], self.factor, seeds[1])}

    def apply(self, signal: Any, parameters: dict[str, Any]) -> Any:
        """Change the speed; the number of timesteps, which must be static, stays the same."""
        rows = parameters["rows"]
        timesteps = signal.shape[1]  # static, since there may be no row to infer it from
        length = float(timesteps)
        wanted = tf.cast(tf.round(length / parameters["factor"] / self.STEP), tf.int32) * self.STEP
        index = tf.range(length)
        from_ends = tf.minimum(index, length - 1 - index)
        fade = tf.minimum(from_ends / (self.FADE_SECONDS * self.sample_rate), 1)
        spectra = tf.signal.rfft(tf.gather(signal, rows) * fade)

        def resample(spectrum_and_length: Any) -> Any:
            spectrum, new = spectrum_and_length
            once = tf.signal.irfft(spectrum, [new]) * (tf.cast(new, tf.float32) / length)
            return tf.ensure_shape(tf.tile(once, [2])[:timesteps], [timesteps])

        output = tf.TensorSpec([timesteps], tf.float32)
        changed = tf.map_fn(resample, (spectra, wanted), fn_output_signature=output)
        return replace_rows(signal, rows, changed)


@dataclass(frozen=True)
class TimeShift:
    """Shift all noises of a batch by one random time against their speech, circularly."""

    def draw(self, timesteps: Any, seed: Any) -> Any:
        """Draw the shift in samples, a scalar."""
        return tf.random.stateless_uniform([], seed, 0, timesteps, tf.int32)

    def apply(self, noise: Any, shift: Any) -> Any:
        """Shift the noise."""
        return tf.roll(noise, shift, axis=1)
