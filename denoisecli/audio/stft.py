"""The short-time Fourier transform and its inverse; the same as librosa's, but fast to load."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from denoisecli.errors import AudioError, UsageError
from denoisecli.types import AudioVector, ComplexSpectrogram

MAX_N_FFT = 2**20


@lru_cache(maxsize=32)
def window_vector(name: str, n_fft: int) -> AudioVector:
    """Give a periodic analysis window.

    Args:
        name: A window of ``scipy.signal.get_window`` that needs no parameter ("hann", "hamming",
            "blackman", ...), or "sqrt_hann", which with an overlap of one half has windows that,
            applied twice, add up to 1.
        n_fft: Length in samples.

    Returns:
        The window, float32, read-only; the largest value is 1.

    Raises:
        UsageError: there is no such window, or ``n_fft`` is not an even number from 2 on.
    """
    if not 2 <= n_fft <= MAX_N_FFT or n_fft % 2:
        raise UsageError(f"n_fft must be an even number from 2 to {MAX_N_FFT}, not {n_fft}")
    if name == "sqrt_hann":
        window = np.sin(np.pi * np.arange(n_fft) / n_fft)
    else:
        from scipy.signal import get_window  # takes half a second: not for the default window

        try:
            window = get_window(name, n_fft)
        except ValueError as error:
            known = "hann, sqrt_hann, hamming, blackman, blackmanharris, bartlett, boxcar"
            raise UsageError(f"there is no window '{name}'; try one of {known}") from error
    window = window.astype(np.float32)
    window.flags.writeable = False  # it is shared by all callers
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
        audio: Sound, at least one sample.
        n_fft: Window and transform length in samples, even.
        hop_length: Samples from one column to the next.
        window: A name that ``window_vector`` knows.
        center: Pad with zeros on both sides so that frame t is centred on sample
            ``t * hop_length``; if false, frame t starts there, and only whole frames are taken.

    Returns:
        complex64, ``n_fft // 2 + 1`` frequencies by ``1 + len(audio) // hop_length`` frames (by
        ``1 + (len(audio) - n_fft) // hop_length`` if not ``center``). Row k is at
        ``k * sample_rate / n_fft`` Hz.

    Raises:
        UsageError: ``n_fft``, ``hop_length`` or ``window`` make no sense.
        AudioError: there are no samples, or fewer than ``n_fft`` and no padding.
    """
    taper = window_vector(window, n_fft)
    check_hop_length(hop_length)
    if audio.size < (1 if center else n_fft):
        raise AudioError(f"{audio.size} samples are too few to make a spectrogram of")
    audio = audio.astype(np.float32, copy=False)
    padded = np.pad(audio, n_fft // 2) if center else audio
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    return np.fft.rfft(frames * taper, axis=1).T


def istft(
    spectrum: ComplexSpectrogram,
    *,
    n_fft: int = 512,
    hop_length: int = 256,
    window: str = "sqrt_hann",
    length: int,
) -> AudioVector:
    """Invert ``stft``, as ``librosa.istft`` does.

    Overlap-add of windowed frames divided by the sum of the squared windows: the sound whose
    transform is nearest in the least-squares sense (Griffin and Lim, IEEE TASSP 32(2), 1984).

    When ``hop_length`` is not a divisor of the length, up to ``hop_length - 1`` samples after the
    middle of the last frame see only the tail of its window, and rounding or changes made to the
    spectrum come out magnified there. Pad the sound to a multiple of ``hop_length`` to avoid it.

    Args:
        spectrum: What ``stft`` gave, perhaps changed: ``n_fft // 2 + 1`` rows.
        n_fft: As it was for ``stft``.
        hop_length: As it was for ``stft``.
        window: As it was for ``stft``.
        length: Samples wanted.

    Returns:
        The sound, float32, ``length`` samples; zeros where no frame reaches.

    Raises:
        UsageError: ``n_fft``, ``hop_length`` or ``window`` make no sense, leave gaps between the
            windows, or do not fit the rows of ``spectrum``.
    """
    taper = window_vector(window, n_fft)
    check_invertible(n_fft, hop_length, window)
    if spectrum.shape[0] != n_fft // 2 + 1:
        raise UsageError(
            f"a spectrum of {spectrum.shape[0]} rows does not come from n_fft {n_fft}, "
            f"which gives {n_fft // 2 + 1}"
        )
    frames = np.fft.irfft(spectrum.astype(np.complex64, copy=False).T, n_fft, axis=1)
    frames *= taper
    weight = _overlap_add(np.broadcast_to(taper**2, frames.shape), hop_length)
    sound = _overlap_add(frames, hop_length)
    np.divide(sound, weight, out=sound, where=weight > np.finfo(np.float32).tiny)
    sound = sound[n_fft // 2 :][:length]
    return np.pad(sound, (0, length - sound.size))


def check_hop_length(hop_length: int) -> None:
    """Refuse what is no number of samples."""
    if hop_length < 1:
        raise UsageError(f"hop_length must be at least 1 sample, not {hop_length}")


@lru_cache(maxsize=32)
def check_invertible(n_fft: int, hop_length: int, window: str) -> None:
    """Refuse windows that, squared and added up, come down to nothing somewhere."""
    check_hop_length(hop_length)
    squares = np.broadcast_to(window_vector(window, n_fft) ** 2, (1, n_fft))
    one_hop = _overlap_add(squares, hop_length).reshape(-1, hop_length).sum(axis=0)
    if one_hop.min() < 1e-4 * one_hop.max():
        raise UsageError(
            f"a spectrogram of {window} windows of {n_fft} samples every {hop_length} samples "
            f"cannot be inverted: there are gaps; hop_length {n_fft // 4} would do"
        )


def _overlap_add(frames: Float[np.ndarray, "frames n_fft"], hop_length: int) -> AudioVector:
    """Add up frames that start ``hop_length`` samples apart."""
    count, n_fft = frames.shape
    # In pieces one hop long all frames can be added at once: piece i of frame t goes to t + i.
    pieces = -(-n_fft // hop_length)
    total = np.zeros((count + pieces - 1, hop_length), dtype=np.float32)
    for i in range(pieces):
        piece = frames[:, i * hop_length : (i + 1) * hop_length]
        total[i : i + count, : piece.shape[1]] += piece
    return total.reshape(-1)
