"""A differentiable ESTOI for training.

Follows Jensen and Taal, "An algorithm for predicting the intelligibility of speech masked by
modulated noise maskers", IEEE/ACM Trans. Audio Speech Lang. Process. 24(11), 2016: the envelopes in
third-octave bands, normalized along time and then along frequency, are correlated over 384 ms.
Differences from the paper:

- Audio is analysed at its own sample rate, in frames of the same duration; it is not resampled to
  10 kHz.
- Frames without speech are removed from the envelopes, not from the waveform.
- Segments start at every fifteenth frame, not at every frame.
"""

from functools import cache
from typing import Any

import numpy as np
from keras import ops

from denoisecli.audio.stft import window_vector
from denoisecli.models.ops import sliced
from denoisecli.training.losses.tensor_stft import framed

FRAME_SECONDS = 0.0256
"""Duration of a frame in s; frames overlap by half."""

SEGMENT = 30
"""Number of frames over which envelopes are correlated: 384 ms. Segments overlap by half."""

BANDS = 15
"""Number of third-octave bands."""

LOWEST_HZ = 150.0
"""Centre of the lowest third-octave band in Hz."""

SPEECH_DB = -40.0
"""Level of a frame relative to the loudest one, in dB, below which it holds no speech."""


def estoi(estimate: Any, clean: Any, sample_rate: int) -> Any:
    """Compute the extended short-time objective intelligibility.

    Args:
        estimate: Estimated speech.
        clean: Clean speech.
        sample_rate: Sample rate in Hz.

    Returns:
        About 0 (unintelligible) to 1 (equal).

    Shape:
        - estimate, clean: (batch, timesteps)
        - output: (batch,)
    """
    power, clean_power = _power(estimate, sample_rate), _power(clean, sample_rate)
    level = ops.sum(clean_power, axis=2, keepdims=True)
    loudest = ops.max(level, axis=1, keepdims=True)
    speech = ops.cast(level > 10 ** (SPEECH_DB / 10) * loudest, "float32")
    # Sort the frames with speech to the front, in their order; the others have no weight.
    count = ops.shape(speech)[1]
    rank = ops.cast(ops.arange(count), "float32")[None, :, None]
    order = ops.argsort(rank - ops.cast(count, "float32") * speech, axis=1)
    is_speech = _segments(ops.take_along_axis(speech, order, axis=1))
    x, y = (
        _normalized(_segments(ops.take_along_axis(bands, order, axis=1)), is_speech)
        for bands in (_envelopes(power, sample_rate), _envelopes(clean_power, sample_rate))
    )
    agreement = ops.sum(x * y * is_speech, axis=(1, 2, 3))
    return agreement / (ops.sum(is_speech, axis=(1, 2, 3)) + 1e-8)


def _power(audio: Any, sample_rate: int) -> Any:
    """Compute the power spectra of the frames.

    Shape:
        - audio: (batch, timesteps)
        - output: (batch, frames, bins)
    """
    half = _half_frame(sample_rate)
    count = 1 + ops.shape(audio)[1] // half
    window = ops.convert_to_tensor(window_vector("hann", 2 * half))
    frames = framed(audio, 2 * half, half, count) * window
    real, imaginary = ops.rfft(frames, fft_length=_fft_length(sample_rate))
    return ops.square(real) + ops.square(imaginary)


def _envelopes(power: Any, sample_rate: int) -> Any:
    """Compute the magnitudes in bands, relative to the mean of all of them.

    Shape:
        - power: (batch, frames, bins)
        - output: (batch, frames, BANDS)
    """
    power = ops.matmul(power, _bands(sample_rate))
    return ops.sqrt(power / (ops.mean(power, axis=(1, 2), keepdims=True) + 1e-8) + 1e-8)


def _half_frame(sample_rate: int) -> int:
    """Return half the length of a frame in samples."""
    return round(FRAME_SECONDS * sample_rate / 2)


def _fft_length(sample_rate: int) -> int:
    """Return the power of two that a frame is padded to."""
    return 1 << (2 * _half_frame(sample_rate) - 1).bit_length()


@cache
def _bands(sample_rate: int) -> np.ndarray:
    """Return the weights of the bins in third-octave bands.

    Shape:
        - output: (bins, BANDS)
    """
    length = _fft_length(sample_rate)
    step = sample_rate / length
    edges = LOWEST_HZ * 2 ** ((2 * np.arange(BANDS + 1) - 1) / 6) / step
    low = np.arange(length // 2 + 1)[:, None] - 0.5
    # The weight is the part of a bin within the band: the lowest bands are hardly wider than a bin.
    inside = np.minimum(low + 1, edges[1:]) - np.maximum(low, edges[:-1])
    return np.clip(inside, 0, 1).astype(np.float32)


def _segments(frames: Any) -> Any:
    """Cut into segments, with zeros at the end.

    Shape:
        - frames: (batch, frames, bands)
        - output: (batch, segments, SEGMENT, bands)
    """
    half = SEGMENT // 2
    count, bands = ops.shape(frames)[1], frames.shape[2]
    halves = -(-count // half) + 1
    frames = ops.pad(frames, ((0, 0), (0, halves * half - count), (0, 0)))
    frames = ops.reshape(frames, (-1, halves, half, bands))
    first, second = (sliced(frames, start, halves - 1) for start in (0, 1))
    return ops.concatenate([first, second], axis=2)


def _normalized(envelopes: Any, is_speech: Any) -> Any:
    """Normalize to mean 0 and norm 1 along time, over frames with speech, then along bands.

    Shape:
        - envelopes, output: (batch, segments, SEGMENT, BANDS)
        - is_speech: (batch, segments, SEGMENT, 1)
    """
    count = ops.maximum(ops.sum(is_speech, axis=2, keepdims=True), 1.0)
    mean = ops.sum(envelopes * is_speech, axis=2, keepdims=True) / count
    envelopes = (envelopes - mean) * is_speech
    norm = ops.rsqrt(ops.sum(ops.square(envelopes), axis=2, keepdims=True) + 1e-5)
    envelopes = envelopes * norm
    envelopes = envelopes - ops.mean(envelopes, axis=3, keepdims=True)
    return envelopes * ops.rsqrt(ops.sum(ops.square(envelopes), axis=3, keepdims=True) + 1e-5)
