"""The receptive field along time."""

import math
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class Reach:
    """The input frames that one frame of a map depends on.

    Frame ``i`` of the map depends at most on the input frames from ``i * stride - past`` to
    ``i * stride + future``.

    Attributes:
        past: Number of earlier input frames, or infinity.
        future: Number of later input frames, or infinity.
        stride: Number of input frames per frame of the map.
        stateful: Whether the frame also depends on a recurrent state that one block of sound can
            hand to the next. ``past`` does not count the frames behind that state.
    """

    past: float = 0
    future: float = 0
    stride: int = 1
    stateful: bool = False

    def widened(self, past: float, future: float) -> Self:
        """Return the reach of a layer that looks at several frames of its input.

        Args:
            past: Number of earlier frames; negative if the layer shifts its input.
            future: Number of later frames; negative if the layer shifts its input.
        """
        return replace(
            self, past=self.past + past * self.stride, future=self.future + future * self.stride
        )

    def downsampled(self, stride: int) -> Self:
        """Return the reach of a layer that keeps every ``stride``-th frame."""
        return replace(self, stride=self.stride * stride)

    def upsampled(self, stride: int) -> Self:
        """Return the reach of a layer that makes ``stride`` frames of each."""
        return replace(self, stride=self.stride // stride)

    def with_state(self) -> Self:
        """Return the reach of a recurrent layer whose state is handed from block to block."""
        return replace(self, stateful=True)

    @classmethod
    def joined(cls, *reaches: Self) -> Self:
        """Return the reach of a layer that combines maps of one stride frame by frame."""
        return replace(
            reaches[0],
            past=max(reach.past for reach in reaches),
            future=max(reach.future for reach in reaches),
            stateful=any(reach.stateful for reach in reaches),
        )


ALL = math.inf
"""Number of frames of a layer that looks at all of them."""
