"""ESTOI in `keras.ops`: differentiable, in batches, for training.

Follows Jensen and Taal, "An algorithm for predicting the intelligibility of speech masked by
modulated noise maskers", IEEE/ACM Trans. Audio Speech Lang. Process. 24(11), 2016: envelopes in
third-octave bands, normalized along time and then along frequency, are correlated over 384 ms.
Different here:

- Sound is taken at its own rate, in frames of the same duration, and not resampled to 10 kHz.
- Frames without speech are left out of the envelopes; there they are cut out of the sound.
- Segments begin at every fifteenth frame, not at every one.
"""

from functools import cache
from typing import Any

import numpy as np
from keras import ops

from denoisecli.audio.stft import window_vector
from denoisecli.models.ops import sliced
from denoisecli.training.losses.tensor_stft import framed

FRAME_SECONDS = 0.0256
SEGMENT = 30
"""Frames over which envelopes are correlated, half overlapping: 384 ms."""

BANDS = 15
LOWEST_HZ = 150.0
"""Centre of the lowest third-octave band."""

SPEECH_DB = -40.0
"""A frame counts if its level is no lower than this, relative to the loudest one."""


def estoi(estimate: Any, clean: Any, sample_rate: int) -> Any:
    """Extended short-time objective intelligibility, about 0 (nothing understood) to 1 (equal).

    Shape:
        - estimate, clean: (batch, timesteps)
        - output: (batch,)
    """
    power, clean_power = _power(estimate, sample_rate), _power(clean, sample_rate)
    level = ops.sum(clean_power, axis=2, keepdims=True)
    loudest = ops.max(level, axis=1, keepdims=True)
    speech = ops.cast(level > 10 ** (SPEECH_DB / 10) * loudest, "float32")
    # Frames with speech first, in their order; what is behind them counts for nothing.
    count = ops.shape(speech)[1]
    rank = ops.cast(ops.arange(count), "float32")[None, :, None]
    order = ops.argsort(rank - ops.cast(count, "float32") * speech, axis=1)
    heard = _segments(ops.take_along_axis(speech, order, axis=1))
    x, y = (
        _normalized(_segments(ops.take_along_axis(bands, order, axis=1)), heard)
        for bands in (_envelopes(power, sample_rate), _envelopes(clean_power, sample_rate))
    )
    agreement = ops.sum(x * y * heard, axis=(1, 2, 3))
    return agreement / (ops.sum(heard, axis=(1, 2, 3)) + 1e-8)


def _power(audio: Any, sample_rate: int) -> Any:
    """|X|² of frames of 25.6 ms, half overlapping: (batch, frames, bins)."""
    half = _half(sample_rate)
    count = 1 + ops.shape(audio)[1] // half
    frames = framed(audio, 2 * half, half, count) * window_vector("hann", 2 * half)
    real, imaginary = ops.rfft(frames, fft_length=_fft_length(sample_rate))
    return ops.square(real) + ops.square(imaginary)


def _envelopes(power: Any, sample_rate: int) -> Any:
    """Magnitudes in bands, relative to the mean of all of them: (batch, frames, BANDS)."""
    power = ops.matmul(power, _bands(sample_rate))
    return ops.sqrt(power / (ops.mean(power, axis=(1, 2), keepdims=True) + 1e-8) + 1e-8)


def _half(sample_rate: int) -> int:
    """Half a frame, in samples."""
    return round(FRAME_SECONDS * sample_rate / 2)


def _fft_length(sample_rate: int) -> int:
    return 1 << (2 * _half(sample_rate) - 1).bit_length()


@cache
def _bands(sample_rate: int) -> np.ndarray:
    """Weights of bins in third-octave bands: (bins, BANDS)."""
    length = _fft_length(sample_rate)
    step = sample_rate / length
    edges = LOWEST_HZ * 2 ** ((2 * np.arange(BANDS + 1) - 1) / 6) / step
    low = np.arange(length // 2 + 1)[:, None] - 0.5
    # A bin counts as far as it lies within the band: the lowest bands are hardly wider than a bin.
    inside = np.minimum(low + 1, edges[1:]) - np.maximum(low, edges[:-1])
    return np.clip(inside, 0, 1).astype(np.float32)


def _segments(frames: Any) -> Any:
    """(batch, frames, bands) -> (batch, segments, SEGMENT, bands), with zeros at the end."""
    half = SEGMENT // 2
    count, bands = ops.shape(frames)[1], frames.shape[2]
    halves = -(-count // half) + 1
    frames = ops.pad(frames, ((0, 0), (0, halves * half - count), (0, 0)))
    frames = ops.reshape(frames, (-1, halves, half, bands))
    first, second = (sliced(frames, start, halves - 1) for start in (0, 1))
    return ops.concatenate([first, second], axis=2)


def _normalized(envelopes: Any, heard: Any) -> Any:
    """Mean 0 and norm 1 along time, over frames that are heard, and then along bands."""
    count = ops.maximum(ops.sum(heard, axis=2, keepdims=True), 1.0)
    mean = ops.sum(envelopes * heard, axis=2, keepdims=True) / count
    envelopes = (envelopes - mean) * heard
    envelopes *= ops.rsqrt(ops.sum(ops.square(envelopes), axis=2, keepdims=True) + 1e-5)
    envelopes -= ops.mean(envelopes, axis=3, keepdims=True)
    return envelopes * ops.rsqrt(ops.sum(ops.square(envelopes), axis=3, keepdims=True) + 1e-5)
