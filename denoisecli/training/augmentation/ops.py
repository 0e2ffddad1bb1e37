"""Operations on batches of signals that the augmentations share."""

from math import log
from typing import Any

import tensorflow as tf

SILENT_RMS = 1e-4
"""RMS (-80 dBFS) below which a signal is not scaled up to a level or an SNR."""


def rms(signal: Any) -> Any:
    """Compute the root mean square.

    Shape:
        - signal: (batch, timesteps)
        - output: (batch,)
    """
    return tf.sqrt(tf.reduce_mean(tf.square(signal), axis=1))


def normalize(signal: Any) -> Any:
    """Scale to an RMS of one; silence stays silent.

    Shape:
        - signal, output: (batch, timesteps)
    """
    return signal / tf.maximum(rms(signal), SILENT_RMS)[:, None]


def db_to_gain(decibels: Any) -> Any:
    """Convert dB to an amplitude ratio."""
    return tf.exp(decibels * (log(10) / 20))  # much faster than a power


def uniform(shape: Any, limits: tuple[float, float], seed: Any) -> Any:
    """Draw from a uniform distribution."""
    return tf.random.stateless_uniform(shape, seed, limits[0], limits[1])


def log_uniform(shape: Any, limits: tuple[float, float], seed: Any) -> Any:
    """Draw from a distribution that is uniform in the logarithm, between positive limits."""
    return tf.exp(uniform(shape, (log(limits[0]), log(limits[1])), seed))


def draw_rows(batch: Any, probability: float, seed: Any) -> Any:
    """Draw the examples of a batch that are changed.

    Args:
        batch: Number of examples.
        probability: Probability with which each of them is drawn.
        seed: Stateless seed.

    Shape:
        - output: (rows,) indices, in ascending order
    """
    return tf.where(tf.random.stateless_uniform([batch], seed) < probability)[:, 0]


def replace_rows(signal: Any, rows: Any, changed: Any) -> Any:
    """Replace the given examples.

    Shape:
        - signal, output: (batch, timesteps)
        - rows: (rows,)
        - changed: (rows, timesteps)
    """
    return tf.tensor_scatter_nd_update(signal, rows[:, None], changed)


def fft_frequencies(timesteps: Any, sample_rate: int) -> Any:
    """Compute the frequencies in Hz of the bins of a real FFT.

    Shape:
        - output: (timesteps // 2 + 1,)
    """
    return tf.range(timesteps // 2 + 1, dtype=tf.float32) * (
        sample_rate / tf.cast(timesteps, tf.float32)
    )


def apply_response(signal: Any, response: Any) -> Any:
    """Filter with zero phase by a real frequency response.

    The filtering is circular: the end of a segment rings on at its beginning.

    Shape:
        - signal, output: (batch, timesteps)
        - response: (batch or 1, timesteps // 2 + 1)
    """
    spectrum = tf.signal.rfft(signal) * tf.cast(response, tf.complex64)
    return tf.signal.irfft(spectrum, [tf.shape(signal)[1]])


def highpass_response(hertz: Any, cutoff_hz: Any, steepness: Any) -> Any:
    """Compute the response 1 / (1 + (cutoff / f) ** steepness), which is -6 dB at the cutoff.

    It is that of a Butterworth filter of order ``steepness / 2`` run forwards and backwards.

    Args:
        hertz: Frequencies in Hz.
        cutoff_hz: Cutoff frequencies in Hz.
        steepness: Slope in units of 6 dB per octave.
    """
    return tf.sigmoid(steepness * tf.math.log(tf.maximum(hertz, 1e-3) / cutoff_hz))
