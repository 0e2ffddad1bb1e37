"""Functions that the augmentations share: random numbers, and operations on batches of signals."""

from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np
from jaxtyping import Float
from keras import ops

Parameters = dict[str, np.ndarray]
"""Random parameters of an augmentation for one batch, by name."""

Values = dict[str, Any]
"""The same as arrays or as tensors of a program."""

SILENT_RMS = 1e-4
"""RMS (-80 dBFS) below which a signal is not scaled up to a level or an SNR."""


def uniform(
    shape: Sequence[int], limits: tuple[float, float], rng: np.random.Generator
) -> Float[np.ndarray, "..."]:
    """Draw from a uniform distribution."""
    return rng.uniform(*limits, shape).astype(np.float32)


def log_uniform(
    shape: Sequence[int], limits: tuple[float, float], rng: np.random.Generator
) -> Float[np.ndarray, "..."]:
    """Draw from a distribution that is uniform in the logarithm, between positive limits."""
    return np.exp(rng.uniform(log(limits[0]), log(limits[1]), shape)).astype(np.float32)


def normal(shape: Sequence[int], rng: np.random.Generator) -> Float[np.ndarray, "..."]:
    """Draw from the standard normal distribution."""
    return rng.standard_normal(tuple(shape), np.float32)


def draw_rows(batch: int, probability: float, rng: np.random.Generator) -> Parameters:
    """Draw the examples of a batch that are changed.

    Their number is the same for every batch, because compiled programs need fixed shapes: it is the
    expected number, rounded up. Where that is rounded, the last example is changed in some batches
    only, such that each example is changed with the given probability.

    Args:
        batch: Number of examples.
        probability: Probability with which each of them is changed.
        rng: Source of the random numbers.

    Returns:
        Indices of the examples ("rows"), and whether each of them is changed ("present").

    Shape:
        - rows, present: (rows,)
    """
    expected = round(probability * batch, 6)
    count = int(np.ceil(expected))
    rows = rng.permutation(batch)[:count].astype(np.int32)
    present = np.ones(count, bool)
    present[-1:] = rng.random() < expected - (count - 1)
    return {"rows": rows, "present": present}


def select_rows(signal: Any, parameters: Values) -> Any:
    """Return the drawn examples.

    Shape:
        - signal: (batch, timesteps)
        - output: (rows, timesteps)
    """
    return ops.take(signal, parameters["rows"], axis=0)


def replace_rows(signal: Any, parameters: Values, changed: Any) -> Any:
    """Replace the drawn examples that are present.

    Shape:
        - signal, output: (batch, timesteps)
        - changed: (rows, timesteps)
    """
    present = ops.convert_to_tensor(parameters["present"])[:, None]
    changed = ops.where(present, changed, select_rows(signal, parameters))
    rows = ops.convert_to_tensor(parameters["rows"])
    return ops.scatter_update(signal, rows[:, None], changed)


def rms(signal: Any) -> Any:
    """Compute the root mean square of a signal without its mean.

    Shape:
        - signal: (batch, timesteps)
        - output: (batch,)
    """
    offset = ops.mean(signal, axis=1, keepdims=True)
    return ops.sqrt(ops.mean(ops.square(signal - offset), axis=1))


def normalize(signal: Any) -> Any:
    """Scale to an RMS of one; silence stays silent.

    Shape:
        - signal, output: (batch, timesteps)
    """
    return signal / ops.maximum(rms(signal), SILENT_RMS)[:, None]


def db_to_gain(decibels: Any) -> Any:
    """Convert dB to an amplitude ratio."""
    return ops.exp(decibels * (log(10) / 20))  # much faster than a power


def fft_frequencies(timesteps: int, sample_rate: int) -> Float[np.ndarray, "bins"]:
    """Return the frequencies in Hz of the bins of a real FFT.

    Shape:
        - output: (timesteps // 2 + 1,)
    """
    return np.fft.rfftfreq(timesteps, 1 / sample_rate).astype(np.float32)


def apply_response(signal: Any, response: Any) -> Any:
    """Filter with zero phase by a real frequency response.

    The filtering is circular: the end of a segment rings on at its beginning.

    Shape:
        - signal, output: (batch, timesteps)
        - response: (batch or 1, timesteps // 2 + 1)
    """
    timesteps = signal.shape[1]
    real, imaginary = ops.rfft(signal, fft_length=timesteps)
    return ops.irfft((real * response, imaginary * response), fft_length=timesteps)


def highpass_response(hertz: Any, cutoff_hz: Any, steepness: Any) -> Any:
    """Compute the response 1 / (1 + (cutoff / f) ** steepness), which is -6 dB at the cutoff.

    It is that of a Butterworth filter of order ``steepness / 2`` run forwards and backwards.

    Args:
        hertz: Frequencies in Hz.
        cutoff_hz: Cutoff frequencies in Hz.
        steepness: Slope in units of 6 dB per octave.
    """
    return ops.sigmoid(steepness * ops.log(ops.divide(np.maximum(hertz, 1e-3), cutoff_hz)))
