"""Augmentation that turns voices into whispers.

Shape of all signals: (batch, timesteps).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops

from denoisecli.audio.stft import window_vector
from denoisecli.spec.network import Stft
from denoisecli.training.augmentation.ops import (
    Parameters,
    Values,
    draw_rows,
    normal,
    replace_rows,
    rms,
    select_rows,
    uniform,
)
from denoisecli.training.losses.tensor_stft import istft, stft

FRAME_SECONDS = 0.02
"""Shortest duration of a frame in s, which a power of two of samples is chosen for."""

NOISE_FLOOR = 1e-4
"""Power that is added to that of every frame before its envelope is computed, relative to it."""


@dataclass(frozen=True)
class Whisper:
    """Replace the voice of some examples by noise through the envelope of its own spectrum.

    The envelope is that of linear prediction (Makhoul, "Linear prediction: a tutorial review",
    1975). A voice has less highs than the turbulence of a whisper, so the spectrum is tilted.

    Attributes:
        probability: Probability that an example is changed.
        sample_rate: Sample rate in Hz.
    """

    probability: float
    sample_rate: int
    TILT_DB = (0.0, 6.0)
    """Limits of the tilt towards high frequencies in dB per octave."""

    TILT_FROM_HZ = 100.0
    """Frequency below which the spectrum is not tilted."""

    @cached_property
    def order(self) -> int:
        """Number of coefficients: two for every formant, of which there is one per kHz."""
        return min(2 + self.sample_rate // 1000, 32)

    @cached_property
    def frames(self) -> Stft:
        """STFT in which the noise is filtered."""
        n_fft = 1 << round(FRAME_SECONDS * self.sample_rate).bit_length()
        return Stft(n_fft=n_fft, hop_length=n_fft // 4, window="hann")

    def draw(self, batch: int, timesteps: int, rng: np.random.Generator) -> Parameters:
        """Draw the examples, their tilts in dB per octave, and white noise.

        Shape:
            - rows, present, tilt_db: (rows,)
            - noise: (rows, timesteps)
        """
        rows = draw_rows(batch, self.probability, rng)
        shape = rows["rows"].shape
        return {
            **rows,
            "tilt_db": uniform(shape, self.TILT_DB, rng),
            "noise": normal((*shape, timesteps), rng),
        }

    def apply(self, speech: Any, target: Any, parameters: Values) -> tuple[Any, Any]:
        """Replace the voice by a whisper without reverberation; the RMS stays the same.

        Args:
            speech: Speech as it is heard.
            target: Target for the speech, which the whisper is made of.
            parameters: Random parameters.

        Returns:
            The speech and its target.
        """
        whispered = self._whisper(select_rows(target, parameters), parameters)
        return (
            replace_rows(speech, parameters, whispered),
            replace_rows(target, parameters, whispered),
        )

    def _whisper(self, voiced: Any, parameters: Values) -> Any:
        """Return the whisper of the drawn examples.

        Shape:
            - voiced, output: (rows, timesteps)
        """
        timesteps, n_fft = voiced.shape[1], self.frames.n_fft
        real, imaginary = stft(voiced, self.frames)
        envelope = self._envelope(ops.square(real) + ops.square(imaginary))
        hertz = np.fft.rfftfreq(n_fft, 1 / self.sample_rate)
        octaves = np.log2(np.maximum(hertz, self.TILT_FROM_HZ) / self.TILT_FROM_HZ)
        slope = (np.log(10) / 20 * octaves).astype(np.float32)
        exponent = ops.multiply(parameters["tilt_db"][:, None], slope)
        envelope *= ops.exp(exponent)[:, None, :]
        noise = stft(ops.convert_to_tensor(parameters["noise"]), self.frames)
        spectrum = (noise[0] * envelope, noise[1] * envelope)
        whispered = istft(spectrum, self.frames, timesteps)
        return whispered * (rms(voiced) / ops.maximum(rms(whispered), 1e-8))[:, None]

    def _envelope(self, power: Any) -> Any:
        """Compute the magnitudes by which white noise gets the smoothed spectra of frames.

        Shape:
            - power, output: (rows, frames, bins)
        """
        n_fft = self.frames.n_fft
        window = window_vector(self.frames.window, n_fft)
        floor = 1e-10 * float(np.sum(np.square(window)))
        autocorrelation = ops.irfft((power, ops.zeros_like(power)), fft_length=n_fft)
        lags = autocorrelation[:, :, 1 : self.order + 1]
        error = autocorrelation[:, :, :1] * (1 + NOISE_FLOOR) + floor
        # Levinson's recursion: the filter [1, *filter] whitens the frame, `error` is left.
        filter = -lags[:, :, :1] / error
        error *= 1 - ops.square(filter)
        for number in range(1, self.order):
            flipped = ops.flip(filter, axis=2)
            inner = ops.sum(flipped * lags[:, :, :number], axis=2, keepdims=True)
            reflection = -(lags[:, :, number : number + 1] + inner) / error
            filter = ops.concatenate([filter + reflection * flipped, reflection], axis=2)
            error *= 1 - ops.square(reflection)
        padded = ops.pad(filter, ((0, 0), (0, 0), (1, n_fft - self.order - 1)))
        real, imaginary = ops.rfft(padded, fft_length=n_fft)
        response = ops.square(1 + real) + ops.square(imaginary)
        return ops.sqrt(error / response / float(np.sum(np.square(window))))
