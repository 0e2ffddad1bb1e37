"""An ONNX graph as it is put together: nodes, constants, inputs, and maps in two orders of axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx.utils
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 9
Frames = int | float
"""A number of frames, or infinity."""


class Graph:
    """Nodes and constants as they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.foldable: dict[str, tuple[str, str, int]] = {}
        """Output of a linear node -> its weight, its bias, the weight's axis of outputs."""
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.second_stage = 0
        """Number of the node that `split` cuts in front of."""

    def add(self, operator: str, *inputs: str, output: str | None = None, **options: Any) -> str:
        """Append a node with one output; returns the name of that."""
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **options))
        return output

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Append a constant; returns its name."""
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def integers(self, *values: int) -> str:
        """Append a vector of integers."""
        return self.constant(values, np.int64)

    def input(self, name: str, default: np.ndarray, shape: Sequence[int | str]) -> str:
        """Add an input that need not be given, if it is not there yet."""
        if name not in self.constants:
            self.constants[name] = default
            kind = helper.np_dtype_to_tensor_dtype(default.dtype)
            self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def slice(self, x: str, axis: int, start: int, stop: int) -> str:
        """Append a slice along one axis."""
        return self.add("Slice", x, *(self.integers(value) for value in (start, stop, axis)))

    def linear(
        self, operator: str, x: str, weight: np.ndarray, bias: Any, axis: int, **options: Any
    ) -> str:
        """Append a linear node whose weights a batch normalization behind may be folded into."""
        w = self.constant(weight)
        b = self.constant(np.zeros(weight.shape[axis]) if bias is None else bias)
        if operator == "MatMul":
            y = self.add("Add", self.add("MatMul", x, w), b)
        else:
            y = self.add(operator, x, w, b, **options)
        self.foldable[y] = w, b, axis
        return y

    def model(self, input_shape: Sequence[Any], output_shape: Sequence[Any]) -> onnx.ModelProto:
        """Put the graph together."""
        graph = helper.make_graph(
            self.nodes,
            "denoise",
            [_value("spectrum", input_shape), *self.inputs],
            [_value("mask", output_shape), *self.outputs],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="denoise"
        )


class Map:
    """A map in the graph, in either order of axes; the other one is made when it is needed.

    Its first ``past`` and last ``future`` frames depend on what is before and behind the block.
    """

    def __init__(self, graph: Graph, *, first: str | None = None, last: str | None = None):
        self._graph, self._first, self._last = graph, first, last
        self.past: Frames = 0
        self.future: Frames = 0

    @property
    def first(self) -> str:
        """Name as (batch, channels, frequency, time)."""
        if self._first is None:
            assert self._last is not None
            self._first = self._graph.add("Transpose", self._last, perm=[0, 3, 1, 2])
        return self._first

    @property
    def last(self) -> str:
        """Name as (batch, frequency, time, channels)."""
        if self._last is None:
            assert self._first is not None
            self._last = self._graph.add("Transpose", self._first, perm=[0, 2, 3, 1])
        return self._last

    @property
    def channels_last(self) -> bool:
        """Whether it is there with its channels at the end."""
        return self._last is not None

    def elementwise(self, operator: str, *others: str, **options: Any) -> "Map":
        """What an operator that does not look at axes makes of it, in the order it is in."""
        if self.channels_last:
            return Map(self._graph, last=self._graph.add(operator, self.last, *others, **options))
        return Map(self._graph, first=self._graph.add(operator, self.first, *others, **options))


def _value(name: str, shape: Sequence[Any]) -> onnx.ValueInfoProto:
    dims = ["batch", shape[1], "time", shape[3]]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def split(model: onnx.ModelProto, second_stage: int) -> list[onnx.ModelProto]:
    """Cut a model in two; the second takes what the first gives, by name.

    Args:
        model: the model.
        second_stage: number of the first node of the second one.
    """
    graph = model.graph
    made = {name for node in graph.node[:second_stage] for name in node.output}
    inputs = [value.name for value in graph.input]
    outputs = [value.name for value in graph.output]
    used = {name for node in graph.node[second_stage:] for name in node.input}
    between = sorted(used & made)
    parts = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
    first = {name for node in graph.node[:second_stage] for name in node.input}
    return [
        parts.extract_model(
            [name for name in inputs if name in first],
            between + [name for name in outputs if name in made],
        ),
        parts.extract_model(
            between + [name for name in inputs if name in used],
            [name for name in outputs if name not in made],
        ),
    ]
