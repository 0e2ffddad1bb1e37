"""The STFT in front of a network, at the rate of the model or, where possible, at a lower rate.

A spectrum of sound at a lower rate, in frames of the same duration, is the lower part of the
spectrum at the model's rate. So a model for 48 kHz cleans sound at 8, 16 or 32 kHz without
resampling: the network gets zeros for the frequencies that such sound does not have.
"""

import math

import numpy as np
from jaxtyping import Shaped

from denoisecli.spec.document import Spec


class Transform:
    """The STFT that sound at a sample rate is cleaned in.

    Args:
        spec: Spec of the model.
        sample_rate: Sample rate of the sound in Hz.

    Attributes:
        sample_rate: Rate of the STFT in Hz: that of the sound, or that of the model if there is no
            STFT at the rate of the sound with whole numbers of samples.
        stft: Lengths of the STFT at this rate.
        edge: Number of frames at the end of a block whose windows reach beyond it.
    """

    def __init__(self, spec: Spec, sample_rate: int) -> None:
        native = spec.stft_at(sample_rate)
        self.sample_rate = spec.audio.sample_rate if native is None else sample_rate
        self.stft = native or spec.stft
        self.edge = math.ceil(self.stft.n_fft / 2 / self.stft.hop_length)
        self._model_bins = spec.stft.bins
        self._scale = np.float32(spec.stft.n_fft / self.stft.n_fft)

    def to_model(
        self, spectrum: Shaped[np.ndarray, "..."], *, axis: int
    ) -> Shaped[np.ndarray, "..."]:
        """Return a spectrum as it would be at the model's rate, given its axis of frequencies."""
        missing = self._model_bins - spectrum.shape[axis]
        if missing == 0:
            return spectrum
        padding = [(0, 0)] * spectrum.ndim
        padding[axis] = (0, missing)
        return np.pad(spectrum * self._scale, padding)

    def from_model(
        self, spectrum: Shaped[np.ndarray, "..."], *, axis: int
    ) -> Shaped[np.ndarray, "..."]:
        """Undo `to_model`."""
        if self.stft.bins == self._model_bins:
            return spectrum
        part = [slice(None)] * spectrum.ndim
        part[axis] = slice(self.stft.bins)
        return spectrum[tuple(part)] / self._scale
