"""An ONNX graph under construction: nodes, constants, inputs, and maps in two orders of axes."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from denoisecli.models.reach import Reach

_END = np.iinfo(np.int64).max

OPSET = 20
IR_VERSION = 9


class Graph:
    """An ONNX graph that grows node by node.

    Args:
        divisible: Whether the graph can process a recording block by block. Then it has the inputs
            ``begins`` and ``ends`` of `onnx_network`.
    """

    frequency_axis = 2
    """Axis of the frequencies in `Map.first`; time is the other one of axes 2 and 3."""

    def __init__(self, *, divisible: bool = False) -> None:
        self.divisible = divisible
        self._numbers = count()  # of names
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.foldable: dict[str, tuple[str, str, int]] = {}
        """Output of a linear node -> its weight, its bias, the output axis of the weight."""
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._crops: dict[tuple[str, tuple[int, int]], Map] = {}
        self.second_stage = 0
        """Index of the node that the second stage begins with; see `onnx_stages`."""

    def subgraph(self) -> "Graph":
        """Return an empty graph for the body of a loop, whose names do not occur in this graph."""
        inner = Graph()
        inner._numbers = self._numbers
        return inner

    def add(self, operator: str, *inputs: str, output: str | None = None, **options: Any) -> str:
        """Append a node with one output and return the name of that output."""
        output = output or f"{operator.lower()}_{next(self._numbers)}"
        self.add_node(operator, inputs, [output], **options)
        return output

    def add_node(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **options: Any
    ) -> None:
        """Append a node with several outputs; an empty name leaves an output out."""
        # Releases of ONNX Runtime before 1.22 fuse nodes without names into nodes of one name.
        options["name"] = f"{operator}_{next(self._numbers)}"
        self.nodes.append(helper.make_node(operator, inputs, outputs, **options))

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Append a constant and return its name."""
        name = f"constant_{next(self._numbers)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def integers(self, *values: int) -> str:
        """Append a vector of integers and return its name."""
        return self.constant(values, np.int64)

    def input(self, name: str, default: np.ndarray, shape: Sequence[int | str]) -> str:
        """Append an optional input, unless the graph already has it, and return its name."""
        if name not in self.constants:
            self.constants[name] = default
            kind = helper.np_dtype_to_tensor_dtype(default.dtype)
            self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def slice(self, x: str, axis: int, start: int, stop: int) -> str:
        """Append a slice along one axis and return the name of its output."""
        return self.add("Slice", x, *(self.integers(value) for value in (start, stop, axis)))

    def ordered(self, frequency: Any, time: Any) -> list[Any]:
        """Return values for frequency and time in the order of the axes of `Map.first`."""
        return [frequency, time] if self.frequency_axis == 2 else [time, frequency]

    def right_frames(self, x: "Map") -> "Map":
        """Return a map without the frames that lack context in a block of a recording."""
        if not self.divisible:
            return x
        return self._cropped(x, (max(int(x.reach.past), 0), max(int(x.reach.future), 0)))

    def aligned(self, *maps: "Map") -> "list[Map]":
        """Return the maps reduced to the frames that all of them have."""
        starts, ends = zip(*(x.cropped for x in maps), strict=True)
        return [self._cropped(x, (max(starts), max(ends))) for x in maps]

    def _cropped(self, x: "Map", frames: tuple[int, int]) -> "Map":
        """Return a map that lacks these numbers of frames; see `Map.cropped`."""
        if frames == x.cropped:
            return x
        if (x.name, frames) not in self._crops:
            at_start, at_end = (n - done for n, done in zip(frames, x.cropped, strict=True))
            start = self._chosen("begins", at_start, 0) if at_start else self.integers(0)
            end = self._chosen("ends", -at_end, _END) if at_end else self.integers(_END)
            axis = 2 if x.channels_last else 3
            y = x.elementwise("Slice", start, end, self.integers(axis))
            y.reach, y.shape, y.cropped = x.reach, x.shape, frames
            self._crops[x.name, frames] = y
        return self._crops[x.name, frames]

    def _chosen(self, flag: str, *values: int) -> str:
        """Return the name of the value at the index that is the input ``begins`` or ``ends``."""
        index = self.input(flag, np.ones(1, np.int64), [1])
        return self.add("Gather", self.integers(*values), index)

    def linear(
        self, operator: str, x: str, weight: np.ndarray, bias: Any, axis: int, **options: Any
    ) -> str:
        """Append a linear node that `fold` can change later, and return the name of its output.

        Args:
            operator: ONNX operator.
            x: Name of the input.
            weight: Weight of the operator.
            bias: Bias of the operator; None for zeros.
            axis: Axis of the weight that the output channels lie along.
            options: Attributes of the node.
        """
        w = self.constant(weight)
        b = self.constant(np.zeros(weight.shape[axis]) if bias is None else bias)
        y = self.add(operator, x, w, b, **options)
        self.foldable[y] = w, b, axis
        return y

    def fold(self, name: str, scale: np.ndarray, shift: np.ndarray) -> bool:
        """Fold a scale and a shift per channel into the linear node with this output.

        Returns:
            False if there is no such node; then nothing is changed.
        """
        if name not in self.foldable:
            return False
        weight, bias, axis = self.foldable[name]
        shape = [1] * self.constants[weight].ndim
        shape[axis] = -1
        self.constants[weight] = self.constants[weight] * scale.reshape(shape)
        self.constants[bias] = self.constants[bias] * scale + shift
        return True

    def merged(self, names: Sequence[str]) -> str | None:
        """Replace convolutions of the same map by a single one, and return the name of its output.

        Args:
            names: Outputs of the convolutions, which no other node takes.

        Returns:
            Name of their outputs, concatenated along the channels; None if they are anything but
            convolutions that differ in their weights only.
        """
        nodes = {node.output[0]: node for node in self.nodes}
        if not all(name in self.foldable for name in names):
            return None
        found = [nodes[name] for name in names]
        if len({(node.op_type, node.input[0], str(node.attribute)) for node in found}) > 1:
            return None
        weights, biases, axes = zip(*(self.foldable.pop(name) for name in names), strict=True)
        weight = np.concatenate([self.constants.pop(name) for name in weights], axis=axes[0])
        bias = np.concatenate([self.constants.pop(name) for name in biases])
        self.nodes = [node for node in self.nodes if node not in found]
        (node,) = found[:1]
        options = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        return self.linear(node.op_type, node.input[0], weight, bias, axes[0], **options)

    def model(
        self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Return the finished model.

        Args:
            inputs: Inputs before those that `input` appended.
            outputs: Outputs before those in the attribute `outputs`.
        """
        graph = helper.make_graph(
            self.nodes,
            "denoise",
            [*inputs, *self.inputs],
            [*outputs, *self.outputs],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="denoise"
        )


class Map:
    """A map in the graph; it is transposed only when its other order of axes is needed.

    Args:
        graph: Graph that the map belongs to.
        first: Name of the map as (batch, channels, frequency, time), or with these two axes in the
            other order; see `Graph.ordered`.
        last: Name of the map as (batch, frequency, time, channels).
    """

    def __init__(self, graph: Graph, *, first: str | None = None, last: str | None = None):
        self._graph, self._first, self._last = graph, first, last
        self.reach = Reach()
        """Frames of the spectrum that a frame of the map depends on."""
        self.shape = (0, 0)
        """Number of frequency bands and of channels."""
        self.cropped = (0, 0)
        """Number of frames that the map lacks at the start of a block that is not the first one of
        a recording, and at the end of one that is not the last one."""
        self.padding = (0, 0)
        """Zeros that the next convolution of a stream has to add below and above the bands."""

    @property
    def first(self) -> str:
        """Return the name of the map with the channels as the first of its axes."""
        if self._first is None:
            assert self._last is not None
            order = [0, 3, *self._graph.ordered(1, 2)]
            self._first = self._graph.add("Transpose", self._last, perm=order)
        return self._first

    @property
    def last(self) -> str:
        """Return the name of the map as (batch, frequency, time, channels)."""
        if self._last is None:
            assert self._first is not None
            order = [0, *self._graph.ordered(2, 3), 1]
            self._last = self._graph.add("Transpose", self._first, perm=order)
        return self._last

    @property
    def channels_last(self) -> bool:
        """Whether the map exists as (batch, frequency, time, channels)."""
        return self._last is not None

    @property
    def name(self) -> str:
        """Return the name in an order that already exists."""
        return self.last if self.channels_last else self.first

    def elementwise(self, operator: str, *others: str, **options: Any) -> "Map":
        """Apply an operator that does not depend on the order of the axes."""
        y = self._graph.add(operator, self.name, *others, **options)
        return Map(self._graph, last=y) if self.channels_last else Map(self._graph, first=y)
