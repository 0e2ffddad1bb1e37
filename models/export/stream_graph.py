"""An ONNX graph that processes one frame per run and carries its state from run to run."""

import math
from collections.abc import Sequence

import numpy as np

from denoisecli.models.export.onnx_graph import Graph, Map

_END = np.iinfo(np.int64).max


class StreamGraph(Graph):
    """An ONNX graph in which every map has one frame.

    The frequencies are the last axis of `Map.first`, where convolutions are fastest.

    What the layers remember of earlier frames is one vector per channel of sound, which the graph
    takes as ``state`` and returns as ``next_state``; it is zero before the first frame.

    If a layer looks ahead, its map is behind the spectrum by `Reach.future` frames. Then the frame
    of the map lies before the beginning of the sound in the first runs, and after its end in the
    last ones. `gated` sets such frames to zero, as the padding of a whole recording does.

    Args:
        delay: Number of frames by which the output is behind the spectrum.
    """

    frequency_axis = 3

    def __init__(self, delay: int) -> None:
        super().__init__()
        self.delay = delay
        self._sizes: list[int] = []  # of the parts of the state
        self._next_parts: list[str] = []
        self._gates: dict[int, str] = {}
        if delay:
            # Whether there is a frame of sound, for this run and the earlier ones.
            earlier = self.remembered(delay)
            batch = self.add("Shape", self.slice("state", 1, 0, 1))
            present = self.add("Expand", "present", batch)
            self._presence = self.add("Concat", earlier, present, axis=1)
            self.remember(self.slice(self._presence, 1, 1, _END))

    def remembered(self, size: int) -> str:
        """Append a part of the state of this many values, and return its name.

        `remember` has to store the next values of the parts in the same order.
        """
        self._sizes.append(size)
        return f"state_{len(self._sizes) - 1}"

    def remember(self, part: str) -> None:
        """Store the next value of a part of the state; see `remembered`."""
        self._next_parts.append(self.add("Flatten", part, axis=1))

    @property
    def state_size(self) -> int:
        """Length of the state so far."""
        return sum(self._sizes)

    def next_state(self) -> None:
        """Append the next state; no part may be remembered after that."""
        if not self._next_parts:
            self.add("Identity", "state", output="next_state")
            return
        parts = [f"state_{index}" for index in range(len(self._sizes))]
        self.add_node("Split", ["state", self.integers(*self._sizes)], parts, axis=1)
        self.nodes.insert(0, self.nodes.pop())
        self.add("Concat", *self._next_parts, axis=1, output="next_state")

    def recent(self, x: Map, frames: int, step: int = 1) -> str:
        """Return the name of the frames of a map up to this one.

        Args:
            x: The map.
            frames: Number of earlier frames, a multiple of ``step``.
            step: Distance of the frames that are taken.

        Returns:
            Name of a tensor (batch, (frames / step + 1) * channels, 1, bands), the earliest frame
            first.
        """
        if frames == 0:
            return x.first
        bands, channels = x.shape
        # Parts of the state are taken as they are: slices of it would be copied once more.
        if step == 1:
            lengths = taken = [1, frames - 1] if frames > 1 else [1]
            parts = self._remember_frames(x, lengths)
        else:
            taken = [1] * (frames // step)
            parts = self._remember_frames(x, [1, step - 1] * len(taken))[::2]
        earlier = [
            self.add("Reshape", part, self.integers(-1, length * channels, 1, bands))
            for part, length in zip(parts, taken, strict=True)
        ]
        return self.add("Concat", *earlier, x.first, axis=1)

    def delayed(self, x: Map, frames: int) -> Map:
        """Return the map of some frames ago."""
        if frames == 0:
            return x
        bands, channels = x.shape
        part, *_ = self._remember_frames(x, [1, frames - 1] if frames > 1 else [1])
        return Map(self, first=self.add("Reshape", part, self.integers(-1, channels, 1, bands)))

    def _remember_frames(self, x: Map, lengths: Sequence[int]) -> list[str]:
        """Append the earlier frames of a map to the state, and store those of the next run.

        Args:
            x: The map.
            lengths: Numbers of frames, the first one 1; their sum is the number of earlier frames.

        Returns:
            Names of so many frames each, (batch, frames * channels * bands), the earliest first.
        """
        size = math.prod(x.shape)
        parts = [self.remembered(length * size) for length in lengths]
        self._next_parts += [*parts[1:], self.add("Flatten", x.first, axis=1)]
        return parts

    def aligned(self, *maps: Map) -> list[Map]:
        """Return the maps at the same frame: those that look ahead less are delayed."""
        latest = max(x.reach.future for x in maps)
        return [self.delayed(x, int(latest - x.reach.future)) for x in maps]

    def gated(self, x: Map) -> Map:
        """Return the map, with zeros instead of a frame before or after the sound."""
        if not self.delay:
            return x
        y = x.elementwise("Mul", self._gate(int(x.reach.future)))
        y.reach, y.shape = x.reach, x.shape
        return y

    def _gate(self, delay: int) -> str:
        """Return the name of a tensor that is 1 if there was a frame some frames ago, otherwise 0.

        Its shape is (batch, 1, 1, 1).
        """
        if delay not in self._gates:
            index = self.delay - delay
            gate = self.slice(self._presence, 1, index, index + 1)
            self._gates[delay] = self.add("Reshape", gate, self.integers(-1, 1, 1, 1))
        return self._gates[delay]
