"""Recurrent layers along one axis of a map, and a GRU that trains faster than Keras's."""
# ruff: noqa: D102 - the methods override those of Keras and of `Traits`, where they are documented

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx
from keras import ops
from onnx import TensorProto, helper, numpy_helper

from denoisecli.models.export.onnx_graph import Graph, Map
from denoisecli.models.export.stream_graph import StreamGraph
from denoisecli.models.layers import AlongAxis, register
from denoisecli.models.reach import ALL, Reach

_TO_SEQUENCES = {"time": [2, 0, 1, 3], "frequency": [1, 0, 2, 3]}
"""Transposition of (batch, frequency, time, channels) to (steps, batch, other axis, channels).

ONNX Runtime is fast at moving a single axis.
"""


@register
class GruCell(keras.layers.GRUCell):
    """`keras.layers.GRUCell` with all options at their defaults, whose gates are split.

    Keras slices them. The gradient of a slice is an array of zeros that is filled and added up for
    every gate of every step; the gradient of a split is one concatenation.

    Source: Cho et al. 2014, with the reset gate applied after the matrix product.

    Shape:
        - inputs: (rows, channels); state and output: (rows, units)
    """

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        (state,) = states
        bias, recurrent_bias = ops.unstack(self.bias, axis=0)
        split = [2 * self.units]
        gates, candidate = ops.split(ops.matmul(inputs, self.kernel) + bias, split, axis=1)
        inner = ops.matmul(state, self.recurrent_kernel) + recurrent_bias
        inner_gates, memory = ops.split(inner, split, axis=1)
        update, reset = ops.split(ops.sigmoid(gates + inner_gates), 2, axis=1)
        candidate = ops.tanh(candidate + reset * memory)
        state = candidate + update * (state - candidate)
        return state, [state]


@register
class Gru(keras.layers.GRU):
    """`keras.layers.GRU` of `GruCell`, with all options at their defaults.

    Shape:
        - input: (rows, steps, channels)
        - output: (rows, steps, units)
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(units, **kwargs)
        self.cell = GruCell(units, name="gru_cell", dtype=self.dtype_policy)


@register
class AxisRecurrent(AlongAxis):
    """A GRU or LSTM along the frequency or the time axis, its weights shared over the other axis.

    Args:
        axis: "frequency" or "time".
        cell: "gru" or "lstm".
        units: Number of units per direction.
        bidirectional: Whether to run in both directions and concatenate the outputs.

    Shape:
        - input: (batch, frequency, time, channels)
        - output: (batch, frequency, time, units * directions)
    """

    def __init__(self, axis: str, cell: str, units: int, bidirectional: bool, **kwargs: Any):
        super().__init__(axis, **kwargs)
        self.cell = cell
        self.units = units
        self.bidirectional = bidirectional
        kind = {"gru": Gru, "lstm": keras.layers.LSTM}[cell]
        layer = kind(units, return_sequences=True, name="forward")
        self.recurrent = keras.layers.Bidirectional(layer, name="both") if bidirectional else layer
        # Bidirectional copies the layer. While a model is loaded, Keras takes one layer for another
        # that was recorded at the same address in memory, so this one must not be freed.
        self._keep_alive = lambda: layer

    def build(self, input_shape: Any) -> None:
        self.recurrent.build((None, None, input_shape[-1]))

    def call(self, inputs: Any) -> Any:
        return self.from_sequences(self.recurrent(self.to_sequences(inputs)), inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:3], self.units * (2 if self.bidirectional else 1))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "cell": self.cell,
            "units": self.units,
            "bidirectional": self.bidirectional,
        }

    def macs_per_output(self, context: float) -> float:
        gates = {"gru": 3, "lstm": 4}[self.cell]
        return gates * (self.input.shape[-1] + self.units)

    def reach(self, inputs: Reach) -> Reach:
        if self.axis != "time":
            return inputs
        if self._carries_state(inputs):
            return inputs.with_state()
        return inputs.widened(ALL, ALL if self.bidirectional else 0)

    def _carries_state(self, inputs: Reach) -> bool:
        """Return whether the ONNX layer hands its state from block to block.

        Its input must be exact from some frame of the block on, and blocks must not have to begin
        at multiples of a stride.
        """
        runs_forward = self.axis == "time" and self.cell == "gru" and not self.bidirectional
        return runs_forward and math.isfinite(inputs.past) and inputs.stride == 1

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        (x,) = inputs
        carries_state = graph.divisible and self._carries_state(x.reach)
        if carries_state:
            graph.second_stage = len(graph.nodes)
            x = graph.right_frames(x)
        order = _TO_SEQUENCES[self.axis]
        shape = graph.add("Gather", graph.add("Shape", x.last), graph.integers(*order[:3]))
        bands, channels = self.input.shape[1], self.input.shape[-1]
        if self.axis == "frequency":
            # ONNX Runtime would merge a transposition of four axes with that of the map, and the
            # result would take seven times as long.
            flat = graph.add("Reshape", x.last, graph.integers(0, bands, -1))
            steps_first = graph.add("Transpose", flat, perm=[1, 0, 2])
        else:
            steps_first = graph.add("Transpose", x.last, perm=order)
        rows = graph.add("Reshape", steps_first, graph.integers(0, -1, channels))
        size = graph.integers(self.output.shape[-1])
        if self.axis == "frequency" and self.cell == "gru":
            y = _scan_gru(graph, rows, self._directions)
        elif carries_state:
            weights, options = self._onnx_arguments(graph)
            y = self._stateful_gru(graph, x, rows, shape, weights, options)
        else:
            weights, options = self._onnx_arguments(graph)
            y = graph.add(self.cell.upper(), rows, *weights, **options)
            # (steps, directions, rows, units)
            y = graph.add("Transpose", y, perm=[0, 2, 1, 3])
        y = graph.add("Reshape", y, graph.add("Concat", shape, size, axis=0))
        output = Map(graph, last=graph.add("Transpose", y, perm=np.argsort(order).tolist()))
        output.cropped = x.cropped
        return output

    @property
    def _directions(self) -> list[Any]:
        """The layer that runs forward, and the one that runs backward if there is one."""
        if self.bidirectional:
            return [self.recurrent.forward_layer, self.recurrent.backward_layer]
        return [self.recurrent]

    def _onnx_arguments(self, graph: Graph) -> tuple[list[str], dict[str, Any]]:
        """Return the weights and the attributes of the operator."""
        parts = [_onnx_weights(layer, self.cell) for layer in self._directions]
        weights = [graph.constant(np.stack(arrays)) for arrays in zip(*parts, strict=True)]
        options: dict[str, Any] = {
            "hidden_size": self.units,
            "direction": "bidirectional" if self.bidirectional else "forward",
        }
        if self.cell == "gru":
            options["linear_before_reset"] = 1
        return weights, options

    def stream_nodes(self, graph: StreamGraph, *inputs: Map) -> Map:
        (x,) = inputs
        weights, options = self._onnx_arguments(graph)
        bands = self.output.shape[1]
        if self.axis == "frequency":
            rows = graph.add("Reshape", x.last, graph.integers(-1, bands, self.input.shape[-1]))
            steps = graph.add("Transpose", rows, perm=[1, 0, 2])
            y = graph.add(self.cell.upper(), steps, *weights, **options)
            y = graph.add("Transpose", y, perm=[2, 0, 1, 3])
            by_band = graph.integers(-1, bands, 1, self.output.shape[-1])
            return Map(graph, last=graph.add("Reshape", y, by_band))
        rows = graph.add("Reshape", x.last, graph.integers(1, -1, self.input.shape[-1]))
        by_row = graph.integers(1, -1, self.units)
        states = []
        for _ in range(1 if self.cell == "gru" else 2):  # the LSTM has the state of its cell, too
            state = graph.remembered(bands * self.units)
            states.append(graph.add("Reshape", state, by_row))
        by_band = graph.integers(-1, bands, 1, self.units)
        outputs = [f"{self.name}_{value}" for value in ("output", "cell")[: len(states)]]
        graph.add_node(
            self.cell.upper(),
            [rows, *weights, "", *states],
            ["", *outputs],
            **options,
        )
        maps = [Map(graph, last=graph.add("Reshape", y, by_band)) for y in outputs]
        for y in maps:
            y.reach = x.reach
            graph.remember(graph.gated(y).last)  # the state stays zero before the sound
        return maps[0]

    def _stateful_gru(
        self,
        graph: Graph,
        x: Map,
        rows: str,
        shape: str,
        weights: list[str],
        options: dict[str, Any],
    ) -> str:
        """Append a GRU that continues from an earlier block, and return its output.

        Args:
            graph: Graph that the nodes are appended to.
            x: Input of the layer.
            rows: Name of the input (steps, rows, channels).
            shape: Name of the vector (steps, batch, bands).
            weights: Names of the weights of the operator.
            options: Attributes of the operator.

        Returns:
            Name of the output (steps, 1, rows, units).
        """
        index = len(graph.outputs)
        one = np.ones(1, np.int64)
        begins = graph.input("begins", one, [1])
        keep = graph.input("keep", 0 * one, [1])
        sizes = ["state_batch", f"state_bands_{index}", self.units]
        nothing = np.zeros((1, 1, self.units), np.float32)
        state = graph.input(f"state_{index}", nothing, sizes)

        units = graph.integers(self.units)
        state_shape = graph.add("Concat", graph.slice(shape, 0, 1, 3), units, axis=0)
        state = graph.add("Expand", state, state_shape)
        state = graph.add("Reshape", state, graph.integers(1, -1, self.units))
        y = graph.add("GRU", rows, *weights, "", state, **options)

        # Frame of the output before that of `keep`; only in the first block it has all frames.
        last = graph.add("Mul", begins, graph.integers(x.cropped[0]))
        last = graph.add("Sub", graph.add("Add", keep, last), graph.integers(1))
        # After the last block of a recording, `keep` may lie beyond the end; the state is unused.
        final = graph.add("Sub", graph.slice(graph.add("Shape", y), 0, 0, 1), graph.integers(1))
        last = graph.add("Max", graph.add("Min", last, final), graph.integers(0))
        state = graph.add("Reshape", graph.add("Gather", y, last, axis=0), state_shape)
        name = graph.add("Identity", state, output=f"next_state_{index}")
        graph.outputs.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sizes[1:]])
        )
        return y


def _scan_gru(graph: Graph, rows: str, directions: Sequence[Any]) -> str:
    """Append a GRU as a loop over its steps.

    With few steps and more than about 40 rows, the loop takes two thirds of the time of ONNX
    Runtime's GRU operator, which computes the activations more slowly than Sigmoid and Tanh do on
    whole matrices. With a single row it takes twice as long; see `stream_nodes`.

    Args:
        graph: Graph that the nodes are appended to.
        rows: Name of the input (steps, rows, channels).
        directions: The GRU that runs forward, and the one that runs backward if there is one.

    Returns:
        Name of the output (steps, rows, units * directions).
    """
    loop = graph.subgraph()
    states, steps, next_states, outputs = [], [], [], []
    for index, layer in enumerate(directions):
        state, step = f"{rows}_state{index}", f"{rows}_step{index}"
        kernel, recurrent, bias = _onnx_weights(layer, "gru")
        size = 2 * layer.units  # of the gates, update and reset; then the candidate
        (w_gates, w_new), (r_gates, r_new) = (
            (loop.constant(matrix[:size].T), loop.constant(matrix[size:].T))
            for matrix in (kernel, recurrent)
        )
        bias, recurrent_bias = np.split(bias, 2)
        both = loop.add("Gemm", step, w_gates, loop.constant((bias + recurrent_bias)[:size]))
        opened = loop.add("Sigmoid", loop.add("Gemm", state, r_gates, both))
        update, reset = f"{opened}_update", f"{opened}_reset"
        loop.add_node("Split", [opened], [update, reset], axis=1, num_outputs=2)
        new = loop.add("Gemm", step, w_new, loop.constant(bias[size:]))
        memory = loop.add("Gemm", state, r_new, loop.constant(recurrent_bias[size:]))
        new = loop.add("Tanh", loop.add("Add", new, loop.add("Mul", reset, memory)))
        change = loop.add("Mul", update, loop.add("Sub", state, new))
        next_states.append(loop.add("Add", new, change))
        outputs.append(loop.add("Identity", next_states[-1]))
        states.append(state)
        steps.append(step)
    units = directions[0].units
    body = helper.make_graph(
        loop.nodes,
        "gru_step",
        [
            *(_matrix(name, units) for name in states),
            *(_matrix(name, len(kernel.T)) for name in steps),
        ],
        [_matrix(name, units) for name in (*next_states, *outputs)],
        [numpy_helper.from_array(value, name) for name, value in loop.constants.items()],
    )
    count = graph.slice(graph.add("Shape", rows), 0, 1, 2)
    shape = graph.add("Concat", count, graph.integers(units), axis=0)
    zeros = graph.add("ConstantOfShape", shape)
    found = [f"{rows}_direction{index}" for index in range(len(directions))]
    runs = [0, 1][: len(directions)]  # forward, backward
    graph.add_node(
        "Scan",
        [*[zeros] * len(directions), *[rows] * len(directions)],
        [*(f"{name}_end" for name in found), *found],
        body=body,
        num_scan_inputs=len(directions),
        scan_input_directions=runs,
        scan_output_directions=runs,
    )
    return graph.add("Concat", *found, axis=2)


def _matrix(name: str, columns: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", columns])


def _onnx_weights(layer: Any, cell: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return input weights, recurrent weights and biases in ONNX's order of gates."""
    kernel, recurrent, bias = (weight.numpy() for weight in layer.weights)
    if cell == "gru":  # both order the gates as update, reset, candidate
        return kernel.T, recurrent.T, bias.reshape(-1)
    order = [0, 3, 1, 2]  # Keras: input, forget, cell, output; ONNX: input, output, forget, cell
    kernel, recurrent, bias = (
        np.concatenate([np.split(array, 4, axis=-1)[gate] for gate in order], axis=-1)
        for array in (kernel, recurrent, bias)
    )
    return kernel.T, recurrent.T, np.concatenate([bias, np.zeros_like(bias)])
