"""Samples to and from the audio frames of PyAV, which is optional.

The frames are interleaved: PyAV crashes when it returns the samples of eight planes.
"""

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from denoisecli.types import AudioBlock

if TYPE_CHECKING:
    from av import AudioFrame

FORMAT = "flt"
"""FFmpeg's name of the sample format: interleaved float32."""


def to_frame(block: AudioBlock, layout: str, sample_rate: int, position: int) -> "AudioFrame":
    """Return a frame of samples.

    Args:
        block: Samples, shape (channels, timesteps).
        layout: FFmpeg's name of the channel layout.
        sample_rate: Sample rate in Hz.
        position: Time of the first one in samples.
    """
    from av import AudioFrame

    samples = np.ascontiguousarray(block.T, np.float32).reshape(1, -1)
    frame = AudioFrame.from_ndarray(samples, format=FORMAT, layout=layout)
    frame.sample_rate, frame.time_base = sample_rate, Fraction(1, sample_rate)
    frame.pts = position
    return frame


def from_frame(frame: "AudioFrame") -> AudioBlock:
    """Return the samples of a frame of FORMAT, shape (channels, timesteps)."""
    return frame.to_ndarray().reshape(frame.samples, -1).T
