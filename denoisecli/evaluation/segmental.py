"""Frame-wise measures: segmental SNR, log-likelihood ratio and weighted spectral slope.

They are the parts of the composite measure of Hu and Loizou, "Evaluation of objective quality
measures for speech enhancement", IEEE Trans. Audio, Speech and Language Processing 16(1), 2008,
with the constants of the authors' `composite.m`: Hann frames of 30 ms with a hop of 7.5 ms. All
three leave out frames in which the reference is silent, that is constant, because there is nothing
to compare with (`composite.m` scores its rounding errors there).
"""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from denoisecli.types import AudioVector

FRAME_SECONDS = 0.03
SNR_RANGE = (-10.0, 35.0)
"""Limits of the SNR of a frame in dB; beyond them differences are not audible."""

KEPT_SHARE = 0.95
"""LLR and WSS are means over the best frames, this share of all, so that outliers are dropped."""

# Centre frequencies and bandwidths in Hz of the critical bands of the WSS (Klatt 1982).
# fmt: off
_CENTRES = np.array([
    50, 120, 190, 260, 330, 400, 470, 540, 617.372, 703.378, 798.717, 904.128, 1020.38, 1148.30,
    1288.72, 1442.54, 1610.70, 1794.16, 1993.93, 2211.08, 2446.71, 2701.97, 2978.04, 3276.17,
    3597.63,
])
_BANDWIDTHS = np.array([
    70, 70, 70, 70, 70, 70, 70, 77.3724, 86.0056, 95.3398, 105.411, 116.256, 127.914, 140.423,
    153.823, 168.154, 183.457, 199.776, 217.153, 235.631, 255.255, 276.072, 298.126, 321.465,
    346.136,
])
# fmt: on
_LOWEST_ENERGY = 1e-10  # floor of the energy of a critical band, -100 dB
_PEAK_DB = 20.0  # Klatt's K_max: weight of bands relative to the global peak
_LOCAL_PEAK_DB = 1.0  # Klatt's K_locmax: weight of bands relative to the nearest peak

_BLOCK = 4096  # frames per block, so that memory does not grow with the recording

_Frames = Float[np.ndarray, "frames samples"]
_Lags = Float[np.ndarray, "frames lags"]
_Bands = Float[np.ndarray, "frames bands"]
_Slopes = Float[np.ndarray, "frames slopes"]
_PerFrame = Float[np.ndarray, "frames"]


def segmental_snr(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Compute the mean SNR of frames, each limited to SNR_RANGE.

    Args:
        reference: The clean sound.
        estimate: The sound to score, of the same length.
        sample_rate: Sample rate of both in Hz.

    Returns:
        dB, -10..35; NaN if the reference is silent in all frames.
    """
    snrs = []
    for clean, other in _frame_blocks(reference, estimate, sample_rate):
        signal = np.square(clean).sum(axis=1)
        error = np.square(clean - other).sum(axis=1)
        with np.errstate(divide="ignore"):
            snrs.append(np.clip(10 * np.log10(signal / error), *SNR_RANGE))
    return float(np.mean(np.concatenate(snrs))) if snrs else math.nan


def llr(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Compute the log-likelihood ratio (LLR), a distance of spectral envelopes.

    It is ``log((a_e R a_e) / (a_r R a_r))`` in each frame, where ``a_r`` and ``a_e`` are the linear
    prediction error filters of reference and estimate (order 16, or 10 below 10 kHz) and ``R`` is
    the autocorrelation of the reference. The result is the mean over the best 95 % of the frames.

    Args:
        reference: The clean sound.
        estimate: The sound to score, of the same length.
        sample_rate: Sample rate of both in Hz.

    Returns:
        0 for equal envelopes at any level, about 2 for poor estimates; NaN if the reference is
        silent in all frames.
    """
    order = 10 if sample_rate < 10_000 else 16
    ratios = []
    for clean, other in _frame_blocks(reference, estimate, sample_rate):
        lags = _autocorrelation(clean, order)
        own = _residual(_prediction_error_filters(lags), lags)
        others = _residual(_prediction_error_filters(_autocorrelation(other, order)), lags)
        ratios.append(np.log(others / own))
    return _mean_of_best(ratios)


def wss(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> float:
    """Compute the weighted spectral slope distance (WSS, Klatt 1982) over 25 critical bands.

    It is the weighted mean over bands of the squared difference of the spectral slopes (dB from
    band to band); a band has more weight the nearer its level is to the loudest band and to the
    nearest peak. The result is the mean over the best 95 % of the frames.

    Args:
        reference: The clean sound, full scale -1..1.
        estimate: The sound to score, of the same length.
        sample_rate: Sample rate of both in Hz.

    Returns:
        0 for equal spectra at any level, about 100 for poor estimates; NaN if the reference is
        silent in all frames.
    """
    distances = []
    for clean, other in _frame_blocks(reference, estimate, sample_rate):
        own_weights, own_slopes = _weighted_slopes(_band_levels(clean, sample_rate))
        weights, slopes = _weighted_slopes(_band_levels(other, sample_rate))
        weight = (own_weights + weights) / 2
        distance = weight * np.square(own_slopes - slopes)
        distances.append(distance.sum(axis=1) / weight.sum(axis=1))
    return _mean_of_best(distances)


def _frame_blocks(
    reference: AudioVector, estimate: AudioVector, sample_rate: int
) -> Iterator[tuple[_Frames, _Frames]]:
    """Yield blocks of windowed frames of both, without those in which the reference is silent."""
    length = round(FRAME_SECONDS * sample_rate)
    hop = length // 4
    frames = (reference.size - length) // hop  # like composite.m, without the last one
    if frames < 1:
        return
    window = np.hanning(length + 2)[1:-1]
    both = np.stack([reference, estimate]).astype(np.float64)
    framed = np.lib.stride_tricks.sliding_window_view(both, length, axis=1)[:, ::hop]
    for start in range(0, frames, _BLOCK):
        block = framed[:, start : min(start + _BLOCK, frames)]
        audible = np.ptp(block[0], axis=1) > 0
        if audible.any():
            clean, other = block[:, audible] * window
            yield clean, other


def _mean_of_best(blocks: list[Float[np.ndarray, "_"]]) -> float:
    if not blocks:
        return math.nan
    values = np.sort(np.concatenate(blocks))
    return float(values[: max(math.floor(KEPT_SHARE * values.size + 0.5), 1)].mean())


def _autocorrelation(frames: _Frames, order: int) -> _Lags:
    length = frames.shape[1]
    return np.stack(
        [
            np.einsum("ft,ft->f", frames[:, : length - lag], frames[:, lag:])
            for lag in range(order + 1)
        ],
        axis=1,
    )


def _prediction_error_filters(lags: _Lags) -> _Lags:
    """Run the Levinson-Durbin recursion on all frames; returns filters [1, a_1, ..., a_order]."""
    filters = np.zeros_like(lags)
    filters[:, 0] = 1
    error = lags[:, 0].copy()
    for i in range(1, lags.shape[1]):
        correlation = (filters[:, :i] * lags[:, i:0:-1]).sum(axis=1)
        # For digital silence the error is 0, and the filter stays as it is.
        reflection = -np.divide(correlation, error, out=np.zeros_like(error), where=error > 0)
        filters[:, 1 : i + 1] = (
            filters[:, 1 : i + 1] + reflection[:, None] * filters[:, i - 1 :: -1]
        )
        error *= 1 - reflection**2
    return filters


def _residual(filters: _Lags, lags: _Lags) -> _PerFrame:
    """Compute the prediction error energy of the filters on frames with these autocorrelations."""
    order = lags.shape[1] - 1
    matrix = lags[:, np.abs(np.subtract.outer(range(order + 1), range(order + 1)))]
    energy = np.einsum("fi,fij,fj->f", filters, matrix, filters)
    return np.maximum(
        energy, np.finfo(float).eps * lags[:, 0]
    )  # smaller values are rounding errors


def _band_levels(frames: _Frames, sample_rate: int) -> _Bands:
    """Compute the levels of the critical bands in dB, with Gaussian filters cut off at -30 dB."""
    n_fft = 2 ** math.ceil(math.log2(2 * frames.shape[1]))
    bins = np.arange(n_fft // 2)
    centres, bandwidths = (
        hertz / (sample_rate / 2) * bins.size for hertz in (_CENTRES, _BANDWIDTHS)
    )
    distances = (bins - np.floor(centres)[:, None]) / bandwidths[:, None]
    filters = np.exp(-11 * distances**2) * (_BANDWIDTHS[0] / _BANDWIDTHS)[:, None]
    filters[filters <= math.exp(-30 / (2 * 2.303))] = 0
    power = np.square(np.abs(np.fft.rfft(frames, n_fft)[:, : bins.size]))
    return 10 * np.log10(np.maximum(power @ filters.T, _LOWEST_ENERGY))


def _weighted_slopes(levels: _Bands) -> tuple[_Slopes, _Slopes]:
    """Compute Klatt's weights and the slopes, for all bands but the last."""
    slopes = np.diff(levels)
    lower = levels[:, :-1]
    # The nearest peak of a band, in the direction in which the spectrum rises.
    right, left = lower.copy(), lower.copy()
    for band in range(slopes.shape[1] - 2, -1, -1):
        rising = slopes[:, band + 1] > 0
        right[rising, band] = right[rising, band + 1]
    for band in range(1, slopes.shape[1]):
        falling = slopes[:, band - 1] <= 0
        left[falling, band] = left[falling, band - 1]
    peaks = np.where(slopes > 0, right, left)
    loudest = levels.max(axis=1, keepdims=True)
    weights = _PEAK_DB / (_PEAK_DB + loudest - lower)
    return weights * _LOCAL_PEAK_DB / (_LOCAL_PEAK_DB + peaks - lower), slopes
