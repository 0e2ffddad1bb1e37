"""A Wiener filter: what one did before there were trained networks, as a baseline for them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from denoisecli.audio.stft import istft, stft
from denoisecli.types import AudioVector

FRAME_SECONDS = 0.032
"""Length of a frame; they are half of it apart, as in both papers."""

_SMOOTHING = 0.98  # of the a-priori SNR from frame to frame (Ephraim and Malah)
_LOWEST_SNR = 10 ** (-15 / 10)  # a priori; it bounds the attenuation, and so the musical noise
_SNR_OF_SPEECH = 10 ** (15 / 10)  # what Gerkmann and Hendriks expect where there is speech
_NOISE_FRAMES = 5  # at the beginning, taken for noise to start from
_LEAST_POWER = 1e-12  # of noise, so that digital silence has an SNR

Power = Float[np.ndarray, "frequency"]


def wiener(audio: AudioVector, sample_rate: int) -> AudioVector:
    """Take noise that changes slowly out of speech.

    The Wiener gain with the decision-directed a-priori SNR of Ephraim and Malah, "Speech
    enhancement using a minimum mean-square error short-time spectral amplitude estimator", IEEE
    Trans. ASSP 32(6), 1984; the noise is tracked by :class:`NoiseTracker`.

    Args:
        audio: the noisy sound.
        sample_rate: Hz.

    Returns:
        The clean sound, as long as ``audio``.
    """
    hop_length = max(round(FRAME_SECONDS * sample_rate / 2), 1)
    options: dict[str, Any] = {
        "n_fft": 2 * hop_length,
        "hop_length": hop_length,
        "window": "sqrt_hann",
    }
    spectrum = stft(audio, **options)
    power = np.square(np.abs(spectrum, dtype=np.float64))
    tracker = NoiseTracker(power[:, :_NOISE_FRAMES].mean(axis=1))
    clean_power = np.zeros(len(power))
    gains = np.empty_like(power)
    for frame, noisy_power in enumerate(power.T):
        noise_power = tracker.update(noisy_power)
        now = np.maximum(noisy_power / noise_power - 1, 0)
        snr = _SMOOTHING * clean_power / noise_power + (1 - _SMOOTHING) * now
        snr = np.maximum(snr, _LOWEST_SNR)
        gains[:, frame] = snr / (1 + snr)
        clean_power = np.square(gains[:, frame]) * noisy_power
    return istft((gains * spectrum).astype(spectrum.dtype), length=audio.size, **options)


@dataclass
class NoiseTracker:
    """The power of the noise, frame by frame, while speech comes and goes.

    Gerkmann and Hendriks, "Unbiased MMSE-based noise power estimation with low complexity and low
    tracking delay", IEEE Trans. Audio, Speech and Language Processing 20(4), 2012.

    Attributes:
        power: of the noise at each frequency; what it is at first has to be given.
    """

    power: Power
    _presence: Power = field(init=False)

    def __post_init__(self) -> None:
        self.power = np.maximum(self.power, _LEAST_POWER)
        self._presence = np.full_like(self.power, 0.5)

    def update(self, noisy_power: Power) -> Power:
        """Take the power of the next frame; give the noise's share of it."""
        exponent = noisy_power / self.power * (_SNR_OF_SPEECH / (1 + _SNR_OF_SPEECH))
        speech = 1 / (1 + (1 + _SNR_OF_SPEECH) * np.exp(-np.minimum(exponent, 200)))
        self._presence = 0.9 * self._presence + 0.1 * speech
        # Where it has been sure of speech for long, it may have missed that the noise rose.
        speech = np.where(self._presence > 0.99, np.minimum(speech, 0.99), speech)
        noise = speech * self.power + (1 - speech) * noisy_power
        self.power = np.maximum(0.8 * self.power + 0.2 * noise, _LEAST_POWER)
        return self.power
