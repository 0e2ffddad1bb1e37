"""What the augmentations share: levels, seeded draws, choosing examples, filtering."""

from math import log
from typing import Any

import tensorflow as tf

SILENT_RMS = 1e-4
"""Below this (-80 dBFS) a signal is not scaled up to reach a level or an SNR."""


def rms(signal: Any) -> Any:
    """Root mean square: (batch, timesteps) -> (batch,)."""
    return tf.sqrt(tf.reduce_mean(tf.square(signal), axis=1))


def unit(signal: Any) -> Any:
    """Scale to an RMS of one, silence excepted."""
    return signal / tf.maximum(rms(signal), SILENT_RMS)[:, None]


def gain(decibels: Any) -> Any:
    """Factor of an amplitude."""
    return tf.exp(decibels * (log(10) / 20))  # much faster than a power


def uniform(shape: Any, limits: tuple[float, float], seed: Any) -> Any:
    """Uniform between two limits."""
    return tf.random.stateless_uniform(shape, seed, limits[0], limits[1])


def log_uniform(shape: Any, limits: tuple[float, float], seed: Any) -> Any:
    """Uniform on the logarithm, as fits frequencies; both limits are positive."""
    return tf.exp(uniform(shape, (log(limits[0]), log(limits[1])), seed))


def choose(batch: Any, share: float, seed: Any) -> Any:
    """Indices of the examples to change, each taken with the probability `share`: (rows,)."""
    return tf.where(tf.random.stateless_uniform([batch], seed) < share)[:, 0]


def put(signal: Any, rows: Any, changed: Any) -> Any:
    """Replace the chosen examples: (batch, timesteps), (rows,), (rows, timesteps)."""
    return tf.tensor_scatter_nd_update(signal, rows[:, None], changed)


def frequencies(timesteps: Any, sample_rate: int) -> Any:
    """Centres in Hz of the bins of a real FFT of so many samples."""
    return tf.range(timesteps // 2 + 1, dtype=tf.float32) * (
        sample_rate / tf.cast(timesteps, tf.float32)
    )


def filtered(signal: Any, response: Any) -> Any:
    """Filter with zero phase by a response per bin: (batch, timesteps), (batch or 1, bins).

    The segment is taken as a loop, whose end sounds on at its beginning.
    """
    spectrum = tf.signal.rfft(signal) * tf.cast(response, tf.complex64)
    return tf.signal.irfft(spectrum, [tf.shape(signal)[1]])


def highpass_response(hertz: Any, cut_hz: Any, steepness: Any) -> Any:
    """Response 1 / (1 + (cut / f)^steepness): -6 dB at the cut.

    That is a Butterworth filter of order ``steepness / 2`` run forwards and backwards.
    """
    return tf.sigmoid(steepness * tf.math.log(tf.maximum(hertz, 1e-3) / cut_hz))
