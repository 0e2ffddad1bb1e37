"""Resampling of whole sounds and of streams."""

import numpy as np
import soxr
from jaxtyping import Float

from denoisecli.types import AudioBlock

# One or more channels, before and after the number of timesteps changes.
_Audio = Float[np.ndarray, "*channels timesteps"]
_NewLength = Float[np.ndarray, "*channels new_timesteps"]


def resample(audio: _Audio, orig_sr: int, target_sr: int) -> _NewLength:
    """Resample audio along its last axis (soxr, high quality, linear phase: no delay).

    Args:
        audio: Samples, shape (timesteps,) or (channels, timesteps).
        orig_sr: Sample rate of ``audio`` in Hz.
        target_sr: Sample rate of the result in Hz.

    Returns:
        The samples at ``target_sr``, as many as :func:`resampled_length` says.
    """
    if orig_sr == target_sr:
        return audio
    length = resampled_length(audio.shape[-1], orig_sr, target_sr)
    return fit_length(soxr.resample(audio.T, orig_sr, target_sr).T, length)


def resampled_length(timesteps: int, orig_sr: int, target_sr: int) -> int:
    """Return ``timesteps * target_sr / orig_sr``, rounded, but at least 1 if there are samples."""
    timesteps, orig_sr, target_sr = int(timesteps), int(orig_sr), int(target_sr)  # may be NumPy's
    exact = (2 * timesteps * target_sr + orig_sr) // (2 * orig_sr)
    return max(exact, min(timesteps, 1))


def fit_length(audio: _Audio, length: int) -> _NewLength:
    """Truncate audio, or pad it with zeros at its end, to ``length`` timesteps."""
    missing = max(length - audio.shape[-1], 0)
    padding = [(0, 0)] * (audio.ndim - 1) + [(0, missing)]
    return np.ascontiguousarray(np.pad(audio[..., :length], padding))


class StreamResampler:
    """Resample a stream block by block, to the same samples as :func:`resample` of the whole.

    Args:
        orig_sr: Sample rate of the input in Hz.
        target_sr: Sample rate of the output in Hz.
        channels: Number of channels.
    """

    def __init__(self, orig_sr: int, target_sr: int, channels: int) -> None:
        self._channels = channels
        self._stream = (
            None
            if orig_sr == target_sr
            else soxr.ResampleStream(orig_sr, target_sr, channels, dtype="float32")
        )

    def __call__(self, block: AudioBlock, *, last: bool = False) -> AudioBlock:
        """Take float32 samples (channels, timesteps) and return those that are ready, if any."""
        if self._stream is None:
            return block
        return self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last).T

    def finish(self) -> AudioBlock:
        """End the stream and return the remaining samples."""
        return self(np.zeros((self._channels, 0), np.float32), last=True)
