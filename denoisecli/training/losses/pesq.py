"""A differentiable wide-band PESQ for training.

Follows the perceptual model of ITU-T P.862 and P.862.2 as described in Beerends et al., "PESQ, the
new ITU standard for end-to-end speech quality assessment, part II: psychoacoustic model", J. Audio
Eng. Soc. 50(10), 2002, at 16 kHz. Differences from the standard:

- Formulas take the place of its tables of bands, hearing thresholds and filters.
- The estimate is assumed to be aligned in time, and silence at the ends is not left out.
- Thresholds are steep instead of steps, and a small slope remains beyond the limits of the dead
  zone and of the disturbance of a frame, so that there is a gradient everywhere.

Shape of the spectra below: (batch, frequency, frames).
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from denoisecli.models.ops import raised, sliced
from denoisecli.spec.network import Stft
from denoisecli.spec.training import PERCEPTUAL_SAMPLE_RATE as SAMPLE_RATE
from denoisecli.training.losses.tensor_stft import stft

FRAMES = Stft(n_fft=512, hop_length=256, window="hann")
"""Frames of the analysis."""

BANDS = 48
"""Number of critical bands."""

ALIGNED_POWER = 1e7
"""Mean square between 325 and 3250 Hz to which both signals are scaled."""

INTERVAL = 20
"""Number of frames of a "split second", in which the worst ones dominate; they overlap by half."""

DEAD_ZONE = 0.25
"""Ratio of a difference to the softer loudness below which it is inaudible."""

DEAD_ZONE_SLOPE = 0.05
"""Slope of the disturbance within the dead zone."""

FRAME_LIMIT = 45.0
"""Largest disturbance of a frame."""

FRAME_LIMIT_SLOPE = 0.02
"""Slope of the disturbance above the limit."""


def disturbance(estimate: Any, clean: Any) -> tuple[Any, Any]:
    """Compute the symmetric and the asymmetric disturbance: loudness differences and added noise.

    Both range from 0 (equal signals) to a little above `FRAME_LIMIT` and do not depend on the level
    of either signal.

    Shape:
        - estimate, clean: (batch, timesteps) at `SAMPLE_RATE`
        - output: (batch,) each
    """
    model = _model()
    power, clean_power = _power(estimate), _power(clean)
    clean_level = _level(clean_power, clean, 1e-10)
    # An estimate close to silence is not scaled to the full level: its gradient would be unbounded.
    level = _level(power, estimate, 1e-4 * clean_level)
    density = ops.matmul(model.bands, power) * (ALIGNED_POWER / level)
    clean_density = ops.matmul(model.bands, clean_power) * (ALIGNED_POWER / clean_level)

    # Compensate for linear filtering within 20 dB: give clean the mean spectrum of the estimate.
    loud = _audible(clean_density, 100.0)
    speech = ops.cast(ops.sum(loud, axis=1, keepdims=True) > 1e7, "float32")
    mean = ops.mean(_audible(density, 100.0) * speech, axis=2, keepdims=True)
    clean_mean = ops.mean(loud * speech, axis=2, keepdims=True)
    clean_density = clean_density * ops.clip((mean + 1e3) / (clean_mean + 1e3), 0.01, 100.0)

    # Compensate for slow changes of gain.
    energy = ops.sum(_audible(density, 1.0), axis=1, keepdims=True)
    clean_energy = ops.sum(_audible(clean_density, 1.0), axis=1, keepdims=True)
    gain = (clean_energy + 5e3) / (energy + 5e3)
    density = density * ops.clip(_smooth(gain), 3e-4, 5.0)

    loudness, clean_loudness = _loudness(density), _loudness(clean_density)
    difference = ops.abs(loudness - clean_loudness)
    audible = difference - DEAD_ZONE * ops.minimum(loudness, clean_loudness)
    audible = ops.maximum(audible, DEAD_ZONE_SLOPE * difference) * model.widths
    # What is added is more annoying than what is missing.
    factor = raised((density + 50) / (clean_density + 50), 1.2)
    factor = ops.where(factor > 3, ops.minimum(factor, 12.0), 0.0)
    symmetric = ops.sqrt(ops.sum(model.widths) * ops.sum(ops.square(audible), axis=1) + 1e-10)
    asymmetric = ops.sum(factor * audible, axis=1)

    weight = raised((clean_energy[:, 0] + 1e5) / 1e7, -0.04)
    return _over_time(symmetric * weight), _over_time(asymmetric * weight)


def degradation(estimate: Any, clean: Any) -> Any:
    """Compute the difference between 4.5, the best raw PESQ score, and the score of the estimate.

    Returns:
        0 (equal) to about 6.

    Shape:
        - estimate, clean: (batch, timesteps) at `SAMPLE_RATE`
        - output: (batch,)
    """
    symmetric, asymmetric = disturbance(estimate, clean)
    return 0.1 * symmetric + 0.0309 * asymmetric


class _Model(NamedTuple):
    """Constants of the model of hearing; tensors that broadcast with (batch, frequency, frames).

    Attributes:
        aligned: Weights of the bins in the power by which signals are scaled.
        bands: (BANDS, bins), from |X|² of `_power` to power densities per Bark.
        widths: Widths of the bands in Bark.
        threshold: Threshold of hearing as a power density.
        exponent: Exponent of the loudness.
    """

    aligned: Any
    bands: Any
    widths: Any
    threshold: Any
    exponent: Any


def _model() -> _Model:
    """Return the constants as tensors."""
    return _Model(*map(ops.convert_to_tensor, _arrays()))


@cache
def _arrays() -> tuple[np.ndarray, ...]:
    """Compute the constants, in the order of `_Model`."""
    hertz = np.arange(FRAMES.bins) * SAMPLE_RATE / FRAMES.n_fft
    widths = np.geomspace(0.32, 0.59, BANDS)
    edges = 0.16 + np.concatenate([[0.0], np.cumsum(widths)])
    centres = (edges[1:] + edges[:-1]) / 2
    inside = np.digitize(_bark(hertz), edges) == 1 + np.arange(BANDS)[:, None]
    fine = np.arange(10000.0)
    hertz_per_bark = np.diff(np.interp(edges, _bark(fine), fine)) / widths
    bands = inside / inside.sum(1, keepdims=True) * hertz_per_bark[:, None]

    angle = np.pi * np.maximum(hertz, 1.0) / SAMPLE_RATE
    differences = (2 * np.sin(angle)) ** 4  # power response of two first differences
    # Input filter of P.862.2: a second-order Butterworth high-pass at 100 Hz with a gain of 9 dB.
    high_pass = 10**0.9 / (1 + (np.tan(np.pi * 100 / SAMPLE_RATE) / np.tan(angle)) ** 4)
    # Calibration of P.862: 1 kHz at 40 dB SPL has an amplitude of 29.54 and a density of 40 dB.
    window = np.hanning(FRAMES.n_fft + 1)[:-1]
    tone = 29.54 * np.sin(2 * np.pi * 1000 / SAMPLE_RATE * np.arange(FRAMES.n_fft))
    bands *= 1e4 / (bands @ np.abs(np.fft.rfft(tone * window)) ** 2).max()

    # Threshold (to about 2 dB) and exponent of P.862.
    threshold_db = 75 * np.exp(-centres / 1.73) + 59 * np.exp(-centres / 0.135) - 4.5
    exponent = 0.23 * np.clip(6 / (centres + 2), 1, 2) ** 0.15
    speech_band = (hertz >= 325) & (hertz <= 3250)
    per_bin = 2 / (FRAMES.n_fft * np.sum(window**2))  # Parseval
    constants = (
        per_bin * (speech_band / differences)[:, None],
        bands * high_pass / differences,
        widths[:, None],
        10 ** (threshold_db / 10)[:, None],
        exponent[:, None],
    )
    return tuple(constant.astype(np.float32) for constant in constants)


def _bark(hertz: np.ndarray) -> np.ndarray:
    """Convert Hz to the critical-band rate in Bark.

    Source: Zwicker and Terhardt, "Analytical expressions for critical-band rate and critical
    bandwidth as a function of frequency", 1980.
    """
    return 13 * np.arctan(0.76e-3 * hertz) + 3.5 * np.arctan((hertz / 7500) ** 2)


def _power(audio: Any) -> Any:
    """Compute |X|² of the second difference, so that rumble does not leak into the bands above it.

    The differences are the zeros of the high-pass; its poles are part of the weights of the bands.

    Shape:
        - audio: (batch, timesteps)
        - output: (batch, frequency, frames)
    """
    once = audio - _delayed(audio)
    real, imaginary = stft(once - _delayed(once), FRAMES)
    return ops.transpose(ops.square(real) + ops.square(imaginary), (0, 2, 1))


def _delayed(audio: Any) -> Any:
    """Delay by one sample."""
    return sliced(ops.pad(audio, ((0, 0), (1, 0))), 0, ops.shape(audio)[1])


def _level(power: Any, audio: Any, least: Any) -> Any:
    """Compute the mean square in the speech band, no less than -30 dB of that of the whole band.

    Shape:
        - power: (batch, frequency, frames)
        - audio: (batch, timesteps)
        - output: (batch, 1, 1)
    """
    whole = ops.mean(ops.square(audio), axis=1)[:, None, None]
    aligned = ops.mean(ops.sum(power * _model().aligned, axis=1, keepdims=True), 2, keepdims=True)
    return ops.maximum(ops.maximum(aligned, 1e-3 * whole), least)


def _audible(density: Any, factor: float) -> Any:
    """Compute the power density where it is above a multiple of the threshold of hearing."""
    ratio = ops.minimum(density / (factor * _model().threshold), 10.0)
    step = ops.square(ops.square(ratio))
    return density * step / (1 + step)


def _smooth(gain: Any) -> Any:
    """Smooth along time: 0.8 of each frame, the rest of the two before it.

    Shape:
        - gain, output: (batch, 1, frames)
    """
    last = ops.concatenate([gain[:, :, :1], gain[:, :, :-1]], axis=2)
    last_but_one = ops.concatenate([last[:, :, :1], last[:, :, :-1]], axis=2)
    return 0.8 * gain + 0.16 * last + 0.04 * last_but_one


def _loudness(density: Any) -> Any:
    """Compute the loudness density in sone per Bark by Zwicker's law."""
    model = _model()
    scale = 0.1866 * (2 * model.threshold) ** model.exponent
    ratio = density / model.threshold
    return scale * ops.relu(raised(0.5 + 0.5 * ratio, model.exponent) - 1)


def _over_time(frames: Any) -> Any:
    """Average: the L6 norm within each interval, then the root mean square of the intervals.

    Shape:
        - frames: (batch, frames)
        - output: (batch,)
    """
    over = ops.relu(frames - FRAME_LIMIT)
    limited = ops.minimum(frames, FRAME_LIMIT) + FRAME_LIMIT_SLOPE * over
    sixth = ops.square(limited * limited * limited)
    half = INTERVAL // 2
    count = -(-ops.shape(frames)[1] // half)
    sixth = ops.pad(sixth, ((0, 0), (0, (count + 1) * half - ops.shape(frames)[1])))
    halves = ops.sum(ops.reshape(sixth, (-1, count + 1, half)), axis=2)
    intervals = ((halves[:, 1:] + halves[:, :-1]) / INTERVAL + 1e-18) ** (1 / 6)
    return ops.sqrt(ops.mean(ops.square(intervals), axis=1))
