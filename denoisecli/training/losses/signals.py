"""Signals that the losses compare: estimate, clean speech and mixture, in several views."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops

from denoisecli.spec.document import Spec, erb_rate
from denoisecli.spec.training import PERCEPTUAL_SAMPLE_RATE
from denoisecli.training.losses.tensor_stft import istft, stft

SILENCE = 1e-6
"""Variance (-60 dBFS) below which an example is silent, and ratios to it are not computed."""

PAUSE = 3e-5
"""Power of a frame, relative to the loudest one, below which it is a pause in the speech.

Most clean recordings of a narrow band have noise at -47 to -50 dB.
"""

REFERENCE_N_FFT = 512
"""Length of the frames to which all spectra are scaled: a sine has the magnitude that it has in
frames of this length, whatever the spec's are."""


@dataclass(frozen=True)
class Signals:
    """A batch of estimates, with what they are compared to.

    Args:
        estimate: Estimated speech.
        clean: Clean speech.
        noisy: Mixtures.
        spec: Spec of the model.
        bandwidth: Highest frequency in Hz at which each stretch of the clean recordings has sound
            (default: all have the full band). Above it, nothing is known about the speech: there,
            the estimate is replaced by the clean part, except in pauses, which are silent at all
            frequencies.

    Shape:
        - estimate, clean, noisy: (batch, timesteps), full scale is -1..1
        - bandwidth: (batch, stretches), stretches of equal length
    """

    estimate: Any
    clean: Any
    noisy: Any
    spec: Spec
    bandwidth: Any = None

    def __post_init__(self) -> None:
        if self.bandwidth is not None:
            known = within_band(self.estimate, self.clean, self.spec, self.bandwidth)
            object.__setattr__(self, "estimate", known)

    @cached_property
    def audible(self) -> Any:
        """Whether the clean part of each example is not silent, shape (batch,)."""
        return ops.var(self.clean, axis=1) > SILENCE

    @cached_property
    def spectra(self) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Spectra of the estimate and of the clean part.

        Shape:
            - each real and each imaginary part: (batch, frames, frequency)
        """
        scale = REFERENCE_N_FFT / self.spec.stft.n_fft
        estimate, clean = (
            stft(audio * scale, self.spec.stft) for audio in (self.estimate, self.clean)
        )
        return estimate, clean

    @cached_property
    def bin_weights(self) -> Any:
        """Weights of the bins: 1 up to 8 kHz, then 8 kHz / f, as hearing resolves less up there.

        They are scaled such that the bins up to 8 kHz have a mean weight of one when they are
        averaged with all others, as if there were no others. Shape (frequency,).
        """
        hertz = _frequencies(self.spec)
        nyquist = PERCEPTUAL_SAMPLE_RATE / 2
        low = np.count_nonzero(hertz <= nyquist)
        weights = np.minimum(1, nyquist / np.maximum(hertz, 1)) * len(hertz) / low
        return ops.convert_to_tensor(weights.astype("float32"))

    @cached_property
    def band_means(self) -> np.ndarray:
        """Weights that average the bins of each band, shape (frequency, bands).

        Bands are half an ERB wide (see `erb_rate`); those without a bin are left out.
        """
        band = np.floor([2 * erb_rate(float(hertz)) for hertz in _frequencies(self.spec)])
        member = (band[:, None] == np.unique(band)).astype("float32")
        return member / member.sum(axis=0)

    @cached_property
    def at_16k(self) -> tuple[Any, Any]:
        """Estimate and clean part at 16 kHz.

        From a higher rate, they are the inverse STFT of the bins up to 8 kHz, with frames and hops
        of the same duration.

        Raises:
            ValueError: The spec has no such STFT (see `Spec.stft_at`).
        """
        stft_16k = self.spec.stft_at(PERCEPTUAL_SAMPLE_RATE)
        if stft_16k is None:
            raise ValueError(f"the STFT of the spec {self.spec.name!r} does not exist at 16 kHz")
        if stft_16k == self.spec.stft:
            return self.estimate, self.clean
        length = self.estimate.shape[1] * PERCEPTUAL_SAMPLE_RATE // self.spec.audio.sample_rate
        scale = stft_16k.n_fft / REFERENCE_N_FFT
        estimate, clean = (
            istft(tuple(scale * part[:, :, : stft_16k.bins] for part in spectrum), stft_16k, length)
            for spectrum in self.spectra
        )
        return estimate, clean


def within_band(estimate: Any, clean: Any, spec: Spec, bandwidth: Any) -> Any:
    """Return an estimate with the clean part in its place where the speech is not known.

    Args:
        estimate: Estimated speech, or the mixture.
        clean: Clean speech.
        spec: Spec of the model.
        bandwidth: See `Signals`.

    Shape:
        - estimate, clean, output: (batch, timesteps)
        - bandwidth: (batch, stretches), stretches of equal length
    """
    spectrum, clean_spectrum = stft(estimate, spec.stft), stft(clean, spec.stft)
    known = _known(clean_spectrum, spec, bandwidth)
    mixed = tuple(
        known * x + (1 - known) * y for x, y in zip(spectrum, clean_spectrum, strict=True)
    )
    return istft(mixed, spec.stft, ops.shape(estimate)[1])


def _known(clean: tuple[Any, Any], spec: Spec, bandwidth: Any) -> Any:
    """Return 1 where the clean spectrum is known, elsewhere 0, (batch, frames, frequency)."""
    power = ops.sum(ops.square(clean[0]) + ops.square(clean[1]), axis=2, keepdims=True)
    pause = power <= PAUSE * ops.max(power, axis=1, keepdims=True)
    frames = ops.shape(power)[1]
    stretch = ops.arange(frames) * bandwidth.shape[1] // frames
    top = ops.take(bandwidth, stretch, axis=1)[:, :, None]
    within = ops.less_equal(_frequencies(spec), ops.cast(top, "float32"))
    return ops.cast(ops.logical_or(within, pause), "float32")


def _frequencies(spec: Spec) -> np.ndarray:
    """Return the frequencies of the bins in Hz."""
    width = spec.audio.sample_rate / spec.stft.n_fft
    return (np.arange(spec.stft.bins) * width).astype("float32")
