"""The short-time Fourier transform and its inverse: as in librosa, but quick to import."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from denoisecli.audio.choices import Window
from denoisecli.errors import AudioError, UsageError
from denoisecli.types import AudioVector, ComplexSpectrogram

MAX_N_FFT = 2**20

_FRAMES = 64  # transformed at a time


@lru_cache(maxsize=32)
def window_vector(name: str, n_fft: int) -> AudioVector:
    """Return a periodic analysis window.

    Args:
        name: Name of a window of ``scipy.signal.get_window`` without parameters, such as "hann",
            or "sqrt_hann", whose squares add up to 1 with an overlap of one half.
        n_fft: Length in samples; even, 2 or more.

    Returns:
        The window, float32, read-only; its largest value is 1.

    Raises:
        UsageError: The window is unknown, or ``n_fft`` is out of range.
    """
    if not 2 <= n_fft <= MAX_N_FFT or n_fft % 2:
        raise UsageError(f"n_fft must be an even number from 2 to {MAX_N_FFT}, not {n_fft}")
    if name == "sqrt_hann":
        window = np.sin(np.pi * np.arange(n_fft) / n_fft)
    else:
        from scipy.signal import get_window  # slow to import

        try:
            window = get_window(name, n_fft)
        except ValueError as error:
            raise UsageError(
                f"there is no window '{name}'; use one of {', '.join(Window)}"
            ) from error
    window = window.astype(np.float32)
    window.flags.writeable = False  # all callers share it
    return window


def stft(
    audio: AudioVector,
    *,
    n_fft: int = 512,
    hop_length: int = 256,
    window: str = "sqrt_hann",
    center: bool = True,
) -> ComplexSpectrogram:
    """Compute the short-time Fourier transform, as ``librosa.stft`` does with zero padding.

    Args:
        audio: Sound, shape (timesteps,), at least one sample.
        n_fft: Length of the window and the transform in samples; even.
        hop_length: Samples from one frame to the next.
        window: Name of the window, see :func:`window_vector`.
        center: Pad with zeros on both sides, so that frame t is centred on sample
            ``t * hop_length``. Otherwise frame t starts there, and only complete frames are
            computed.

    Returns:
        complex64, shape (frequency, frames): ``n_fft // 2 + 1`` frequencies, of which number k is
        ``k * sample_rate / n_fft`` Hz, by ``1 + len(audio) // hop_length`` frames, or
        ``1 + (len(audio) - n_fft) // hop_length`` without ``center``.

    Raises:
        UsageError: ``n_fft``, ``hop_length`` or ``window`` is invalid.
        AudioError: There are no samples, or without ``center`` fewer than ``n_fft``.
    """
    taper = window_vector(window, n_fft)
    check_hop_length(hop_length)
    if audio.size < (1 if center else n_fft):
        raise AudioError(f"{audio.size} samples are too few for a spectrogram")
    audio = audio.astype(np.float32, copy=False)
    padded = np.pad(audio, n_fft // 2) if center else audio
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    spectrum = np.empty((n_fft // 2 + 1, len(frames)), np.complex64)
    for part in _parts(len(frames)):
        spectrum[:, part] = np.fft.rfft(frames[part] * taper, axis=1).T
    return spectrum


def istft(
    spectrum: ComplexSpectrogram,
    *,
    n_fft: int = 512,
    hop_length: int = 256,
    window: str = "sqrt_hann",
    length: int,
) -> AudioVector:
    """Invert ``stft``, as ``librosa.istft`` does.

    The overlap-add of the windowed frames is divided by the sum of the squared windows, which
    gives the sound whose transform is nearest to ``spectrum`` in the least-squares sense (Griffin
    and Lim, IEEE TASSP 32(2), 1984).

    If ``length`` is not a multiple of ``hop_length``, up to ``hop_length - 1`` samples after the
    middle of the last frame lie under the tail of its window only, which magnifies rounding errors
    and changes of the spectrum. To avoid this, pad the sound to a multiple of ``hop_length``.

    Args:
        spectrum: Transform by ``stft``, possibly modified, shape (frequency, frames).
        n_fft: The value used for ``stft``.
        hop_length: The value used for ``stft``.
        window: The value used for ``stft``.
        length: Length of the result in samples.

    Returns:
        The sound, float32, shape (length,); zero where no frame reaches.

    Raises:
        UsageError: ``n_fft``, ``hop_length`` or ``window`` is invalid, does not fit the shape of
            ``spectrum``, or leaves gaps between the windows.
    """
    taper = window_vector(window, n_fft)
    check_invertible(n_fft, hop_length, window)
    if spectrum.shape[0] != n_fft // 2 + 1:
        raise UsageError(
            f"a spectrum of {spectrum.shape[0]} rows does not come from n_fft {n_fft}, "
            f"which gives {n_fft // 2 + 1}"
        )
    count, ends = spectrum.shape[1], -(-n_fft // hop_length)
    sound = np.zeros((count + ends - 1, hop_length), np.float32)
    for part in _parts(count):
        frames = np.fft.irfft(spectrum[:, part].astype(np.complex64).T, n_fft, axis=1)
        frames *= taper
        _overlap_add(frames, sound[part.start : part.stop + ends - 1])
    # All hops but those at the ends have the same weights.
    few = np.broadcast_to(taper**2, (min(count, 2 * ends), n_fft))
    weights = np.zeros((len(few) + ends - 1, hop_length), np.float32)
    _overlap_add(few, weights)
    if len(weights) < len(sound):
        _divide(sound[ends:-ends], weights[ends])
        _divide(sound[:ends], weights[:ends])
        _divide(sound[-ends:], weights[-ends:])
    else:
        _divide(sound, weights)
    sound = sound.reshape(-1)[n_fft // 2 :][:length]
    return np.pad(sound, (0, length - sound.size)) if sound.size < length else sound


def _divide(sound: np.ndarray, weights: np.ndarray) -> None:
    """Divide hops in place by their weights; where these are zero, the sound is zero as well."""
    np.divide(sound, weights, out=sound, where=weights > np.finfo(np.float32).tiny)


def check_hop_length(hop_length: int) -> None:
    """Raise UsageError if ``hop_length`` is not positive."""
    if hop_length < 1:
        raise UsageError(f"hop_length must be at least 1 sample, not {hop_length}")


@lru_cache(maxsize=32)
def check_invertible(n_fft: int, hop_length: int, window: str) -> None:
    """Raise UsageError if the sum of the squared windows is nearly zero somewhere."""
    check_hop_length(hop_length)
    squares = np.broadcast_to(window_vector(window, n_fft) ** 2, (1, n_fft))
    sums = np.zeros((-(-n_fft // hop_length), hop_length), np.float32)
    _overlap_add(squares, sums)
    one_hop = sums.sum(axis=0)
    if one_hop.min() < 1e-4 * one_hop.max():
        raise UsageError(
            f"a spectrogram with n_fft {n_fft}, hop_length {hop_length} and window {window} cannot "
            f"be inverted: there are gaps between the windows; use a hop_length of {n_fft // 4}"
        )


def _parts(count: int) -> Iterator[slice]:
    """Yield slices of frames that are short enough for the cache of the processor."""
    for start in range(0, count, _FRAMES):
        yield slice(start, min(start + _FRAMES, count))


def _overlap_add(
    frames: Float[np.ndarray, "frames n_fft"], total: Float[np.ndarray, "hops hop_length"]
) -> None:
    """Add frames that start one hop apart to sound, which is cut into hops.

    Piece i of frame t, each of them as long as a hop, goes to hop t + i.
    """
    hops, hop_length = total.shape
    for i in range(hops - len(frames) + 1):
        piece = frames[:, i * hop_length : (i + 1) * hop_length]
        total[i : i + len(frames), : piece.shape[1]] += piece
