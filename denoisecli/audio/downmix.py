"""The mean of the channels of a recording, or its loudest one if they cancel each other out.

They do if one of two has inverted polarity: in the mean, nothing is left of a voice in both.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from denoisecli.audio.level import LevelMeter
from denoisecli.types import AudioBlock, AudioChannels

CANCELLING_DB = 12.0
"""Channels cancel each other out if the level of their mean is this much lower than theirs.

The mean of uncorrelated channels is 3 dB below two channels, and 9 dB below eight.
"""


class Downmix:
    """The mean of the channels of a recording, block by block; its level is compared with theirs.

    Args:
        blocks: The recording.
    """

    def __init__(self, blocks: Iterable[AudioBlock]) -> None:
        self._blocks = blocks
        self._channels, self._mean = LevelMeter(), LevelMeter()

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield the blocks, shape (1, timesteps)."""
        for block in self._blocks:
            if len(block) == 1:
                yield block
                continue
            mean = block.mean(axis=0, keepdims=True)
            self._channels.add(block)
            self._mean.add(mean)
            yield mean

    @property
    def lost_db(self) -> float:
        """Level of the channels so far above that of their mean; 0 for a single channel."""
        if not self._channels.powers.any():
            return 0.0
        return self._channels.dbfs - self._mean.dbfs

    @property
    def cancels(self) -> bool:
        """Whether the channels so far cancel each other out."""
        return self.lost_db > CANCELLING_DB

    @property
    def loudest(self) -> int:
        """Number of the loudest channel so far, from 0 on."""
        return int(np.argmax(self._channels.powers))


def mono_blocks(read: Callable[[], Iterable[AudioBlock]]) -> list[AudioBlock]:
    """Read a recording as the mean of its channels, or as its loudest one.

    Args:
        read: Function that reads the recording; it is called again if its channels cancel each
            other out.

    Returns:
        Blocks of the shape (1, timesteps).
    """
    mean = Downmix(read())
    blocks = list(mean)
    if not mean.cancels:
        return blocks
    return [block[mean.loudest : mean.loudest + 1] for block in read()]


def heard_channels(sound: AudioChannels) -> list[int]:
    """Return the channels whose mean stands for a sound: all, or the loudest if they cancel out."""
    mean = Downmix([sound])
    list(mean)
    return [mean.loudest] if mean.cancels else list(range(len(sound)))
