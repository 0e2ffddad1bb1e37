"""Wide-band PESQ in `keras.ops`: differentiable, in batches, for training.

Follows the perceptual model of ITU-T P.862 and P.862.2 as Beerends et al. describe it ("PESQ, the
new ITU standard for end-to-end speech quality assessment, part II: psychoacoustic model", J. Audio
Eng. Soc. 50(10), 2002), at 16 kHz. Different here:

- Formulas stand for the tables of bands, hearing threshold and filters.
- The estimate is taken to be aligned in time, and silence at the ends is not left out.
- Thresholds are steep, not steps, and past the limits of the dead zone and of a frame's disturbance
  a small slope is left, so that the gradient shows a way back from everywhere.

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
BANDS = 48
ALIGNED_POWER = 1e7
"""Mean square between 325 and 3250 Hz that both sounds are brought to."""

INTERVAL = 20
"""Frames in a "split second", within which the worst ones count; half of it apart."""

DEAD_ZONE = 0.25
"""Share of the softer loudness that a difference must pass to be heard."""

DEAD_ZONE_SLOPE = 0.05
FRAME_LIMIT = 45.0
FRAME_LIMIT_SLOPE = 0.02


def disturbance(estimate: Any, clean: Any) -> tuple[Any, Any]:
    """Symmetric and asymmetric disturbance: differences of loudness, and noises added.

    Both are 0 for equal sounds and end a little above `FRAME_LIMIT`; neither depends on the level
    of either sound.

    Shape:
        - estimate, clean: (batch, timesteps) at `SAMPLE_RATE`
        - output: (batch,) each
    """
    model = _model()
    power, clean_power = _power(estimate), _power(clean)
    clean_level = _level(clean_power, clean, 1e-10)
    # A vanishing estimate is not brought to full level: its gradient would have no bound.
    level = _level(power, estimate, 1e-4 * clean_level)
    density = ops.matmul(model.bands, power) * (ALIGNED_POWER / level)
    clean_density = ops.matmul(model.bands, clean_power) * (ALIGNED_POWER / clean_level)

    # Colouring is forgiven: the clean sound gets the mean spectrum of the estimate, within 20 dB.
    loud = _audible(clean_density, 100.0)
    speech = ops.cast(ops.sum(loud, axis=1, keepdims=True) > 1e7, "float32")
    mean = ops.mean(_audible(density, 100.0) * speech, axis=2, keepdims=True)
    clean_mean = ops.mean(loud * speech, axis=2, keepdims=True)
    clean_density *= ops.clip((mean + 1e3) / (clean_mean + 1e3), 0.01, 100.0)

    # Changes of gain from frame to frame are forgiven too, where they are not too sudden.
    energy = ops.sum(_audible(density, 1.0), axis=1, keepdims=True)
    clean_energy = ops.sum(_audible(clean_density, 1.0), axis=1, keepdims=True)
    gain = (clean_energy + 5e3) / (energy + 5e3)
    density *= ops.clip(_smooth(gain), 3e-4, 5.0)

    loudness, clean_loudness = _loudness(density), _loudness(clean_density)
    difference = ops.abs(loudness - clean_loudness)
    heard = difference - DEAD_ZONE * ops.minimum(loudness, clean_loudness)
    heard = ops.maximum(heard, DEAD_ZONE_SLOPE * difference) * model.widths
    # Sound added is worse than sound missing.
    factor = raised((density + 50) / (clean_density + 50), 1.2)
    factor = ops.where(factor > 3, ops.minimum(factor, 12.0), 0.0)
    symmetric = ops.sqrt(np.sum(model.widths) * ops.sum(ops.square(heard), axis=1) + 1e-10)
    asymmetric = ops.sum(factor * heard, axis=1)

    weight = raised((clean_energy[:, 0] + 1e5) / 1e7, -0.04)
    return _over_time(symmetric * weight), _over_time(asymmetric * weight)


def degradation(estimate: Any, clean: Any) -> Any:
    """Give what is lost of 4.5, the best of the raw PESQ scale: 0 (nothing) to about 6.

    Shape:
        - estimate, clean: (batch, timesteps) at `SAMPLE_RATE`
        - output: (batch,)
    """
    symmetric, asymmetric = disturbance(estimate, clean)
    return 0.1 * symmetric + 0.0309 * asymmetric


def mos_lqo(estimate: Any, clean: Any) -> Any:
    """Estimate the score of wide-band PESQ (P.862.2), about 1 (bad) to 4.64 (no difference).

    Shape:
        - estimate, clean: (batch, timesteps) at `SAMPLE_RATE`
        - output: (batch,)
    """
    raw = 4.5 - degradation(estimate, clean)
    return 0.999 + 4 / (1 + ops.exp(3.8224 - 1.3669 * raw))


class _Model(NamedTuple):
    """Constants of the ear: arrays that broadcast with (batch, frequency, frames)."""

    aligned: np.ndarray  # weights of bins in the power that sounds are aligned by
    bands: np.ndarray  # (BANDS, bins), from |X|² of `_power` to power densities per Bark
    widths: np.ndarray  # of the bands, in Bark
    threshold: np.ndarray  # of hearing, as a power density
    exponent: np.ndarray  # of loudness


@cache
def _model() -> _Model:
    hertz = np.arange(FRAMES.bins) * SAMPLE_RATE / FRAMES.n_fft
    widths = np.geomspace(0.32, 0.59, BANDS)
    edges = 0.16 + np.concatenate([[0.0], np.cumsum(widths)])
    centres = (edges[1:] + edges[:-1]) / 2
    inside = np.digitize(_bark(hertz), edges) == 1 + np.arange(BANDS)[:, None]
    fine = np.arange(10000.0)
    hertz_per_bark = np.diff(np.interp(edges, _bark(fine), fine)) / widths
    bands = inside / inside.sum(1, keepdims=True) * hertz_per_bark[:, None]

    angle = np.pi * np.maximum(hertz, 1.0) / SAMPLE_RATE
    differences = (2 * np.sin(angle)) ** 4  # power response of taking differences twice
    # Input filter of P.862.2: a Butterworth high-pass at 100 Hz, second order, +9 dB.
    high_pass = 10**0.9 / (1 + (np.tan(np.pi * 100 / SAMPLE_RATE) / np.tan(angle)) ** 4)
    # Calibration of P.862: 1 kHz at 40 dB SPL has an amplitude of 29.54 and a density of 40 dB.
    window = np.hanning(FRAMES.n_fft + 1)[:-1]
    tone = 29.54 * np.sin(2 * np.pi * 1000 / SAMPLE_RATE * np.arange(FRAMES.n_fft))
    bands *= 1e4 / (bands @ np.abs(np.fft.rfft(tone * window)) ** 2).max()

    # The threshold and exponent of P.862, the threshold to about 2 dB.
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
    return _Model(*(constant.astype(np.float32) for constant in constants))


def _bark(hertz: np.ndarray) -> np.ndarray:
    """Critical-band rate by Zwicker and Terhardt 1980."""
    return 13 * np.arctan(0.76e-3 * hertz) + 3.5 * np.arctan((hertz / 7500) ** 2)


def _power(audio: Any) -> Any:
    """|X|² of the twice differenced sound, so that no rumble leaks into the bands above it.

    Those differences are the zeros of the high-pass; its poles are among the weights of the bands.
    """
    once = audio - _before(audio)
    real, imaginary = stft(once - _before(once), FRAMES)
    return ops.transpose(ops.square(real) + ops.square(imaginary), (0, 2, 1))


def _before(audio: Any) -> Any:
    """Every sample's predecessor."""
    return sliced(ops.pad(audio, ((0, 0), (1, 0))), 0, ops.shape(audio)[1])


def _level(power: Any, audio: Any, least: Any) -> Any:
    """Mean square in the speech band, at least -30 dB of the whole: (batch, 1, 1)."""
    whole = ops.mean(ops.square(audio), axis=1)[:, None, None]
    aligned = ops.mean(ops.sum(power * _model().aligned, axis=1, keepdims=True), 2, keepdims=True)
    return ops.maximum(ops.maximum(aligned, 1e-3 * whole), least)


def _audible(density: Any, factor: float) -> Any:
    """What lies above a multiple of the hearing threshold."""
    ratio = ops.minimum(density / (factor * _model().threshold), 10.0)
    step = ops.square(ops.square(ratio))
    return density * step / (1 + step)


def _smooth(gain: Any) -> Any:
    """0.8 of the frame, the rest of the ones before it: (batch, 1, frames)."""
    before = ops.concatenate([gain[:, :, :1], gain[:, :, :-1]], axis=2)
    long_before = ops.concatenate([before[:, :, :1], before[:, :, :-1]], axis=2)
    return 0.8 * gain + 0.16 * before + 0.04 * long_before


def _loudness(density: Any) -> Any:
    """Loudness density in sone per Bark by Zwicker's law."""
    model = _model()
    scale = 0.1866 * (2 * model.threshold) ** model.exponent
    ratio = density / model.threshold
    return scale * ops.relu(raised(0.5 + 0.5 * ratio, model.exponent) - 1)


def _over_time(frames: Any) -> Any:
    """The sixth-power mean of every interval, then the root mean square of those: (batch,)."""
    over = ops.relu(frames - FRAME_LIMIT)
    limited = ops.minimum(frames, FRAME_LIMIT) + FRAME_LIMIT_SLOPE * over
    sixth = ops.square(limited * limited * limited)
    half = INTERVAL // 2
    count = -(-ops.shape(frames)[1] // half)
    sixth = ops.pad(sixth, ((0, 0), (0, (count + 1) * half - ops.shape(frames)[1])))
    halves = ops.sum(ops.reshape(sixth, (-1, count + 1, half)), axis=2)
    intervals = ((halves[:, 1:] + halves[:, :-1]) / INTERVAL + 1e-18) ** (1 / 6)
    return ops.sqrt(ops.mean(ops.square(intervals), axis=1))
