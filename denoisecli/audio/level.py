"""Levels of sound without its mean: RMS, dBFS and signal-to-noise ratio."""

import math

import numpy as np
from jaxtyping import Float

from denoisecli.types import AudioBlock, AudioChannels, AudioVector


def rms(audio: AudioVector | AudioChannels) -> float:
    """Return the root mean square of the deviations from the mean of each channel.

    A DC offset is not sound: a constant has an RMS of 0, and so has an array without samples.
    """
    return float(np.sqrt(np.mean(np.var(audio, axis=-1, dtype=np.float64)))) if audio.size else 0.0


def dbfs(amplitude: float) -> float:
    """Convert an amplitude or RMS (full scale is 1) to dBFS; 0 becomes -inf."""
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


class LevelMeter:
    """Measures the level of a stream of blocks, without the mean of each channel, as :func:`rms`.

    Attributes:
        timesteps: Number of samples per channel so far.
    """

    def __init__(self) -> None:
        self.timesteps = 0
        self._sums = np.zeros(1)
        self._energies = np.zeros(1)

    def add(self, block: AudioBlock) -> None:
        """Add samples, shape (channels, timesteps)."""
        self.timesteps += block.shape[1]
        precise = block.astype(np.float64)
        self._sums = self._sums + precise.sum(axis=1)
        # np.dot would start threads of BLAS, which spin when they are idle.
        self._energies = self._energies + np.einsum("cn,cn->c", precise, precise)

    @property
    def powers(self) -> Float[np.ndarray, "channels"]:
        """Mean square of all blocks of each channel; 0 without samples."""
        count = max(self.timesteps, 1)
        powers = (self._energies - self._sums**2 / count) / count
        # What remains of a constant is rounding.
        powers[powers * count < 1e-12 * self._energies] = 0
        return powers

    @property
    def dbfs(self) -> float:
        """Level of all blocks in dBFS; -inf without samples."""
        return dbfs(math.sqrt(self.powers.mean()))


def snr_db(noisy: AudioVector, clean: AudioVector) -> float:
    """Return the signal-to-noise ratio of a pair, whose noise is ``noisy - clean``.

    The mean of either is left out, as in :func:`rms`.

    Args:
        noisy: The noisy sound, shape (timesteps,).
        clean: The clean sound, shape (timesteps,).

    Returns:
        The SNR in dB: inf if there is no noise, otherwise -inf if the clean sound is silent.
    """
    noise_rms = rms(noisy - clean)
    return dbfs(rms(clean) / noise_rms) if noise_rms else math.inf
