"""The STFT in front of a network, at the sample rate of the sound.

In frames of the same duration, the spectra of a sound at two sample rates have the same bins up to
the lower of the two highest frequencies. So a model cleans sound at any rate without resampling:
bins that the sound does not have are zeros for the network, and bins that the network does not know
get the gain of those below them.
"""

import math

import numpy as np
from jaxtyping import Complex, Float

from denoisecli.spec.document import Spec

_Bins = Complex[np.ndarray, "_ columns"]
"""Spectra, each of them a column: of frames, or of channels."""

GAIN_BAND = (0.79, 0.915)
"""Band whose mean gain is applied above the model's band, as shares of its highest frequency."""

ROLL_OFF = (0.93, 0.985)
"""Range in which the input of a network fades out if the sound has more bins; shares as above.

Recordings at the model's rate usually have this roll-off, from the resampler that made them.
"""


class Transform:
    """The STFT that sound at a sample rate is cleaned in.

    Its lengths are those of the model in seconds, rounded to whole samples: exactly at 8, 16, 32
    and 96 kHz for a model at 48 kHz, and 0.06 % too long at 44.1 kHz, where the network therefore
    hears all frequencies 0.06 % too high.

    Args:
        spec: Spec of the model.
        sample_rate: Sample rate of the sound in Hz.

    Attributes:
        sample_rate: Sample rate of the sound in Hz.
        stft: Lengths of the STFT at this rate.
        edge: Number of frames at the end of a block whose windows reach beyond it.
    """

    def __init__(self, spec: Spec, sample_rate: int) -> None:
        ratio = sample_rate / spec.audio.sample_rate
        hop_length = max(1, round(spec.stft.hop_length * ratio))
        n_fft = 2 * max(1, round(hop_length * spec.stft.n_fft / spec.stft.hop_length / 2))
        self.sample_rate = sample_rate
        self.stft = spec.stft.model_copy(update={"n_fft": n_fft, "hop_length": hop_length})
        self.edge = math.ceil(n_fft / 2 / hop_length)
        self._model_bins = spec.stft.bins
        self._scale = np.float32(spec.stft.n_fft / n_fft)
        frequency = np.linspace(0, 1, self._model_bins, dtype=np.float32)[:, None]
        phase = np.pi * np.interp(frequency, ROLL_OFF, (0, 1))
        self._known = np.float32(0.5) * (1 + np.cos(phase, dtype=np.float32))

    def split(self, spectrum: _Bins) -> tuple[_Bins, _Bins | None]:
        """Return what the network hears of a spectrum, and the rest.

        Returns:
            The bins up to the highest frequency of the model; and all bins of what the network does
            not hear, None if it hears everything.
        """
        if len(spectrum) <= self._model_bins:
            return spectrum, None
        heard = self._known * spectrum[: self._model_bins]
        rest = spectrum.copy()
        rest[: self._model_bins] -= heard
        return heard, rest

    def to_model(self, heard: _Bins) -> _Bins:
        """Return the spectrum as it would be at the model's rate."""
        if self.stft.bins == self._model_bins:
            return heard
        return np.pad(self._scale * heard, [(0, self._model_bins - len(heard)), (0, 0)])

    def from_model(self, cleaned: _Bins) -> _Bins:
        """Undo `to_model`."""
        if self.stft.bins == self._model_bins:
            return cleaned
        return cleaned[: self.stft.bins] / self._scale


def join(cleaned: _Bins, rest: _Bins | None, mask: _Bins) -> _Bins:
    """Undo `Transform.split`: add the rest with the mean gain of `GAIN_BAND`, at most 1.

    Args:
        cleaned: Cleaned bins up to the highest frequency of the model.
        rest: What the network did not hear; it is overwritten.
        mask: The model's complex factors for the same spectra.
    """
    if rest is None:
        return cleaned
    rest *= _gain_above(mask)
    rest[: len(cleaned)] += cleaned
    return rest


def linked(
    noisy: Complex[np.ndarray, "*bins_and_channels"],
    cleaned: Complex[np.ndarray, "*bins_and_channels"],
    axis: int,
) -> Complex[np.ndarray, "*bins_and_channels"]:
    """Apply one gain to all channels of a bin: that of their power from noisy to cleaned.

    Sound keeps its place between the channels, which it can lose where the network cleans each of
    them by itself.

    Args:
        noisy: Spectra of all channels.
        cleaned: The same spectra after the network.
        axis: Axis of the channels.
    """
    before, after = (
        np.square(np.abs(spectra)).sum(axis=axis, keepdims=True) for spectra in (noisy, cleaned)
    )
    # The quotient of the roots is finite where all channels are digitally silent.
    return noisy * (np.sqrt(after) / np.sqrt(np.maximum(before, np.finfo(np.float32).tiny)))


def _gain_above(mask: _Bins) -> Float[np.ndarray, " columns"]:
    low, high = (round(share * (len(mask) - 1)) for share in GAIN_BAND)
    gains = np.abs(mask[low : high + 1]).sum(axis=0)  # `mean` and `clip` take twice the time
    return np.minimum(gains / np.float32(high + 1 - low), np.float32(1))
