"""The STFT of ``audio.stft`` for batches of tensors, differentiable, in ``keras.ops``.

A spectrum is a pair of its real and its imaginary part. Their axes are in the order in which the
FFT returns them; nothing is copied until a network needs the spectrum as one map.

Shape of either part:
    - (batch, frames, frequency), where frequency = n_fft // 2 + 1 and
      frames = 1 + timesteps // hop_length
"""

from typing import Any

from keras import ops

from denoisecli.audio.stft import window_vector
from denoisecli.models.ops import sliced
from denoisecli.spec.network import Stft


def stft(audio: Any, settings: Stft) -> tuple[Any, Any]:
    """Compute the short-time Fourier transform; frames are centred and padded with zeros.

    Shape:
        - audio: (batch, timesteps)
        - output: real and imaginary part, (batch, frames, frequency) each
    """
    n_fft, hop_length = settings.n_fft, settings.hop_length
    count = 1 + ops.shape(audio)[1] // hop_length
    frames = framed(ops.pad(audio, ((0, 0), (n_fft // 2, 0))), n_fft, hop_length, count)
    window = ops.convert_to_tensor(window_vector(settings.window, n_fft))
    return ops.rfft(frames * window, fft_length=n_fft)


def framed(audio: Any, length: int, hop_length: int, count: Any) -> Any:
    """Cut audio into overlapping frames, with zeros after its end.

    `keras.ops.stft` does so sample by sample where hop and length have no common divisor, and takes
    a third longer, including its gradient, where they have one.

    Args:
        audio: Audio to cut.
        length: Length of a frame in samples.
        hop_length: Samples from one frame to the next.
        count: Number of frames; the last one may end up to a frame after the audio.

    Shape:
        - audio: (batch, timesteps)
        - output: (batch, count, length)
    """
    parts = -(-length // hop_length)
    needed = (count + parts - 1) * hop_length
    audio = sliced(ops.pad(audio, ((0, 0), (0, parts * hop_length))), 0, needed)
    hops = ops.reshape(audio, (-1, count + parts - 1, hop_length))
    frames = ops.concatenate([sliced(hops, part, count) for part in range(parts)], axis=2)
    return frames[:, :, :length]


def as_map(spectrum: tuple[Any, Any]) -> Any:
    """Return a spectrum as networks take it.

    Shape:
        - spectrum: real and imaginary part, (batch, frames, frequency) each
        - output: (batch, frequency, frames, 2)
    """
    return ops.transpose(ops.stack(spectrum, axis=-1), (0, 2, 1, 3))


def istft(spectrum: tuple[Any, Any], settings: Stft, length: Any) -> Any:
    """Compute the inverse of `stft`, in the sense of least squares.

    Source: Griffin and Lim, "Signal estimation from modified short-time Fourier transform", 1984,
    equation 6.

    Args:
        spectrum: Real and imaginary part.
        settings: STFT that the spectrum comes from.
        length: Length of the result in samples; a scalar tensor in graphs for any length.

    Shape:
        - spectrum: (batch, frames, frequency) each
        - output: (batch, length)
    """
    window = ops.convert_to_tensor(window_vector(settings.window, settings.n_fft))
    frames = ops.irfft(spectrum, fft_length=settings.n_fft)
    audio = _overlap_add(frames * window, settings)
    weight = _overlap_add(ops.ones_like(frames[:1]) * window**2, settings)
    half = settings.n_fft // 2
    return sliced(audio, half, length) / ops.maximum(sliced(weight, half, length), 1e-8)


def _overlap_add(frames: Any, settings: Stft) -> Any:
    """Add up overlapping frames.

    Shape:
        - frames: (batch, frames, n_fft)
        - output: (batch, timesteps), at least as long as the audio
    """
    hop = settings.hop_length
    parts = -(-settings.n_fft // hop)
    frames = ops.pad(frames, ((0, 0), (0, 0), (0, parts * hop - settings.n_fft)))
    count = ops.shape(frames)[1]
    total = sum(
        ops.pad(part, ((0, 0), (index, parts - 1 - index), (0, 0)))
        for index, part in enumerate(ops.split(frames, parts, axis=2))
    )
    return ops.reshape(total, (-1, (count + parts - 1) * hop))
