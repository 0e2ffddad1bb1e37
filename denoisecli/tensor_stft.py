"""The STFT of spectrogram.py in `keras.ops`: in batches and differentiable, for training."""

from typing import Any

from keras import ops

from denoisecli.spec_network import Stft
from denoisecli.stft import window_vector


def stft(audio: Any, settings: Stft) -> Any:
    """Short-time Fourier transform, frames centred and padded with zeros.

    Shape:
        - audio: (batch, timesteps)
        - output: (batch, frequency, frames, 2), real and imaginary part, where
          frequency = n_fft // 2 + 1 and frames = 1 + timesteps // hop_length
    """
    half = settings.n_fft // 2
    real, imaginary = ops.stft(
        ops.pad(audio, ((0, 0), (half, half))),
        sequence_length=settings.n_fft,
        sequence_stride=settings.hop_length,
        fft_length=settings.n_fft,
        window=window_vector(settings.window, settings.n_fft),
        center=False,
    )
    return ops.transpose(ops.stack([real, imaginary], axis=-1), (0, 2, 1, 3))


def istft(spectrum: Any, settings: Stft, length: Any) -> Any:
    """Inverse of `stft`: least squares (Griffin and Lim 1984, equation 6).

    `length` in samples is a number, or a scalar tensor in graphs for any length.

    Shape:
        - spectrum: (batch, frequency, frames, 2)
        - output: (batch, length)
    """
    window = window_vector(settings.window, settings.n_fft)
    spectrum = ops.transpose(spectrum, (0, 2, 1, 3))
    real, imaginary = ops.unstack(spectrum, axis=-1)
    frames = ops.irfft((real, imaginary), fft_length=settings.n_fft)
    audio = _overlap_add(frames * window, settings)
    weight = _overlap_add(ops.ones_like(frames[:1]) * window**2, settings)
    half = settings.n_fft // 2
    audio = audio[:, half : half + length]
    return audio / ops.maximum(weight[:, half : half + length], 1e-8)


def _overlap_add(frames: Any, settings: Stft) -> Any:
    """Sum (batch, frames, n_fft) where they overlap -> (batch, at least all samples)."""
    hop = settings.hop_length
    parts = -(-settings.n_fft // hop)
    frames = ops.pad(frames, ((0, 0), (0, 0), (0, parts * hop - settings.n_fft)))
    count = ops.shape(frames)[1]
    frames = ops.reshape(frames, (-1, count, parts, hop))
    total = sum(
        ops.pad(frames[:, :, part], ((0, 0), (part, parts - 1 - part), (0, 0)))
        for part in range(parts)
    )
    return ops.reshape(total, (-1, (count + parts - 1) * hop))
