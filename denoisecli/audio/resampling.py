"""Resampling of whole sounds and of streams."""

import numpy as np
import soxr
from jaxtyping import Float

from denoisecli.types import AudioBlock

# One or several channels, before and after the number of timesteps has changed.
_Audio = Float[np.ndarray, "*channels timesteps"]
_NewLength = Float[np.ndarray, "*channels new_timesteps"]


def resample(audio: _Audio, orig_sr: int, target_sr: int) -> _NewLength:
    """Resample (soxr, high quality, linear phase: time-aligned) along the last axis.

    Args:
        audio: samples (timesteps,) or (channels, timesteps).
        orig_sr: their rate in Hz.
        target_sr: the rate wanted in Hz.

    Returns:
        Samples of the same kind; ``n`` timesteps become round(n * target_sr / orig_sr), but at
        least one.
    """
    if orig_sr == target_sr:
        return audio
    length = resampled_length(audio.shape[-1], orig_sr, target_sr)
    return fit_length(soxr.resample(audio.T, orig_sr, target_sr).T, length)


def resampled_length(timesteps: int, orig_sr: int, target_sr: int) -> int:
    """Give the number of samples after resampling: rounded to the nearest, but not to none."""
    exact = (2 * timesteps * target_sr + orig_sr) // (2 * orig_sr)
    return max(exact, min(timesteps, 1))


def fit_length(audio: _Audio, length: int) -> _NewLength:
    """Cut audio, or pad it with zeros, to ``length`` timesteps."""
    missing = max(length - audio.shape[-1], 0)
    padding = [(0, 0)] * (audio.ndim - 1) + [(0, missing)]
    return np.ascontiguousarray(np.pad(audio[..., :length], padding))


class StreamResampler:
    """Resample a stream block by block: the same samples as :func:`resample` of the whole.

    Args:
        orig_sr: rate of what comes in, Hz.
        target_sr: rate of what goes out, Hz.
        channels: number of channels.
    """

    def __init__(self, orig_sr: int, target_sr: int, channels: int) -> None:
        self._channels = channels
        self._stream = (
            None
            if orig_sr == target_sr
            else soxr.ResampleStream(orig_sr, target_sr, channels, dtype="float32")
        )

    def __call__(self, block: AudioBlock) -> AudioBlock:
        """Take float32 samples (channels, timesteps); give those that are ready, maybe none."""
        return self._resample(block)

    def finish(self) -> AudioBlock:
        """End the stream: give the samples still held back."""
        return self._resample(np.zeros((self._channels, 0), np.float32), last=True)

    def _resample(self, block: AudioBlock, last: bool = False) -> AudioBlock:
        if self._stream is None:
            return block
        return self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T
