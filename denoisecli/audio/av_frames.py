"""What all uses of PyAV share: opening a file, and samples to and from audio frames.

The frames are interleaved: PyAV crashes when it returns the samples of eight planes.
"""

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from denoisecli.types import AudioBlock

if TYPE_CHECKING:
    from av import AudioFrame
    from av.container import InputContainer

FORMAT = "flt"
"""FFmpeg's name of the sample format: interleaved float32."""


def open_input(path: Path) -> "InputContainer":
    """Open a media file for reading; bytes of its tags that are not UTF-8 become U+FFFD.

    Raises:
        av.error.FFmpegError: It is damaged, or of an unknown format.
    """
    import av

    options: dict[str, Any] = {}
    if int(av.__version__.partition(".")[0]) < 19:  # later ones return lone surrogates instead
        options["metadata_errors"] = "replace"
    container = av.open(str(path), **options)
    for tagged in (container, *container.streams):
        tags = {_without_surrogates(k): _without_surrogates(v) for k, v in tagged.metadata.items()}
        tagged.metadata.clear()
        tagged.metadata.update(tags)
    return container


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


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
