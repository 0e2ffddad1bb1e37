"""A classical Wiener filter for speech, a baseline to compare networks with."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from denoisecli.audio.stft import istft, stft
from denoisecli.types import AudioVector

FRAME_SECONDS = 0.032
"""Length of a frame in s; the hop is half of it, as in both papers."""

_SMOOTHING = 0.98  # smoothing of the a-priori SNR over frames (Ephraim and Malah)
_LOWEST_SNR = 10 ** (-15 / 10)  # of the a-priori SNR; it limits attenuation and musical noise
_SPEECH_SNR = 10 ** (15 / 10)  # a-priori SNR of speech, the constant of Gerkmann and Hendriks
_NOISE_FRAMES = 5  # frames at the beginning that initialize the noise estimate
_LOWEST_POWER = 1e-12  # of the noise, so that the SNR of digital silence is defined

Power = Float[np.ndarray, "frequency"]


def wiener(audio: AudioVector, sample_rate: int) -> AudioVector:
    """Remove slowly varying noise from speech.

    The gain is that of a Wiener filter with the decision-directed a-priori SNR of Ephraim and
    Malah, "Speech enhancement using a minimum mean-square error short-time spectral amplitude
    estimator", IEEE Trans. ASSP 32(6), 1984. :class:`NoiseTracker` estimates the noise.

    Args:
        audio: The noisy sound.
        sample_rate: Its sample rate in Hz.

    Returns:
        The cleaned sound, of the same length.
    """
    hop_length = max(round(FRAME_SECONDS * sample_rate / 2), 1)
    n_fft = 2 * hop_length
    spectrum = stft(audio, n_fft=n_fft, hop_length=hop_length, window="sqrt_hann")
    power = np.square(np.abs(spectrum, dtype=np.float64))
    tracker = NoiseTracker(power[:, :_NOISE_FRAMES].mean(axis=1))
    clean_power = np.zeros(len(power))
    gains = np.empty_like(power)
    for frame, noisy_power in enumerate(power.T):
        noise_power = tracker.update(noisy_power)
        instantaneous = np.maximum(noisy_power / noise_power - 1, 0)
        snr = _SMOOTHING * clean_power / noise_power + (1 - _SMOOTHING) * instantaneous
        snr = np.maximum(snr, _LOWEST_SNR)
        gains[:, frame] = snr / (1 + snr)
        clean_power = np.square(gains[:, frame]) * noisy_power
    return istft(
        (gains * spectrum).astype(spectrum.dtype),
        n_fft=n_fft,
        hop_length=hop_length,
        window="sqrt_hann",
        length=audio.size,
    )


@dataclass
class NoiseTracker:
    """Estimate of the noise power from noisy frames, with or without speech.

    Gerkmann and Hendriks, "Unbiased MMSE-based noise power estimation with low complexity and low
    tracking delay", IEEE Trans. Audio, Speech and Language Processing 20(4), 2012.

    Attributes:
        power: Noise power at each frequency; its initial value is required.
    """

    power: Power
    _presence: Power = field(init=False)

    def __post_init__(self) -> None:
        self.power = np.maximum(self.power, _LOWEST_POWER)
        self._presence = np.full_like(self.power, 0.5)

    def update(self, noisy_power: Power) -> Power:
        """Update the estimate with the power of the next noisy frame, and return it."""
        exponent = noisy_power / self.power * (_SPEECH_SNR / (1 + _SPEECH_SNR))
        speech = 1 / (1 + (1 + _SPEECH_SNR) * np.exp(-np.minimum(exponent, 200)))
        self._presence = 0.9 * self._presence + 0.1 * speech
        # If speech has been present for long, the noise may have risen unnoticed.
        speech = np.where(self._presence > 0.99, np.minimum(speech, 0.99), speech)
        noise = speech * self.power + (1 - speech) * noisy_power
        self.power = np.maximum(0.8 * self.power + 0.2 * noise, _LOWEST_POWER)
        return self.power
