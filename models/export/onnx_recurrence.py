"""Recurrent layers on ONNX's own GRU and LSTM; their state is carried on where it can be."""

import math
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from denoisecli.models.export.onnx_graph import Graph, Map


def carries(layer: Any) -> bool:
    """Whether a recurrent layer's state can be handed from block to block."""
    return layer.axis == "time" and layer.cell == "gru" and not layer.bidirectional


_TO_SEQUENCES = {"time": [2, 0, 1, 3], "frequency": [1, 0, 2, 3]}
"""(batch, frequency, time, channels) -> (steps, batch, other axis, channels); moving one axis
alone is what ONNX Runtime does fast."""


def recurrent(graph: Graph, layer: Any, x: Map) -> Map:
    """Append a recurrent layer on the operator of its cell."""
    channels = layer.input.shape[-1]
    carried = carries(layer) and math.isfinite(x.past)
    if carried:
        graph.second_stage = len(graph.nodes)
    steps_first = graph.add("Transpose", x.last, perm=_TO_SEQUENCES[layer.axis])
    shape = graph.slice(graph.add("Shape", steps_first), 0, 0, 3)
    rows = graph.add("Reshape", steps_first, graph.integers(0, -1, channels))
    both = [layer.recurrent]
    if layer.bidirectional:
        both = [layer.recurrent.forward_layer, layer.recurrent.backward_layer]
    parts = [_gates(one, layer.cell) for one in both]
    weights = (graph.constant(np.stack(arrays)) for arrays in zip(*parts, strict=True))
    options: dict[str, Any] = {
        "hidden_size": layer.units,
        "direction": "bidirectional" if layer.bidirectional else "forward",
    }
    if layer.cell == "gru":
        options["linear_before_reset"] = 1
    size = graph.integers(layer.units * len(both))
    if carried:
        y = _carried(graph, layer, x, rows, shape, list(weights), options)
    else:
        y = graph.add(layer.cell.upper(), rows, *weights, **options)
        # (steps, directions, rows, units)
        y = graph.add("Transpose", y, perm=[0, 2, 1, 3])
    y = graph.add("Reshape", y, graph.add("Concat", shape, size, axis=0))
    back = np.argsort(_TO_SEQUENCES[layer.axis])
    return Map(graph, last=graph.add("Transpose", y, perm=back.tolist()))


def _carried(
    graph: Graph,
    layer: Any,
    x: Map,
    rows: str,
    shape: str,
    weights: list[str],
    options: dict[str, Any],
) -> str:
    """A GRU that goes on from an earlier block; what is wrong at the block's start it leaves out.

    ``rows`` is (steps, rows, channels), ``shape`` holds steps, batch and bands. The output is
    (steps, 1, rows, units), with zeros where the input was wrong.
    """
    index = len(graph.outputs)
    one = np.ones(1, np.int64)
    begins = graph.input("begins", one, [1])
    keep = graph.input("keep", 0 * one, [1])
    sizes = ["state_batch", f"state_bands_{index}", layer.units]
    nothing = np.zeros((1, 1, layer.units), np.float32)
    state = graph.input(f"state_{index}", nothing, sizes)

    units = graph.integers(layer.units)
    state_shape = graph.add("Concat", graph.slice(shape, 0, 1, 3), units, axis=0)
    state = graph.add("Expand", state, state_shape)
    state = graph.add("Reshape", state, graph.integers(1, -1, layer.units))
    past = graph.integers(int(x.past))
    skip = graph.add("Mul", graph.add("Sub", graph.integers(1), begins), past)
    end, axis = graph.integers(np.iinfo(np.int64).max), graph.integers(0)
    right = graph.add("Slice", rows, skip, end, axis)
    y = graph.add("GRU", right, *weights, "", state, **options)

    last = graph.add("Sub", graph.add("Add", keep, past), graph.add("Add", skip, graph.integers(1)))
    # Beyond the block there is nothing to be known, and nobody to be told.
    final = graph.add("Sub", graph.slice(graph.add("Shape", y), 0, 0, 1), graph.integers(1))
    last = graph.add("Max", graph.add("Min", last, final), graph.integers(0))
    state = graph.add("Reshape", graph.add("Gather", y, last, axis=0), state_shape)
    name = graph.add("Identity", state, output=f"next_state_{index}")
    graph.outputs.append(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sizes[1:]])
    )
    pads = graph.add("Concat", skip, graph.integers(0, 0, 0, 0, 0, 0, 0), axis=0)
    return graph.add("Pad", y, pads)


def _gates(layer: Any, cell: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input weights, recurrent weights and biases in ONNX's order of gates."""
    kernel, recurrent, bias = (weight.numpy() for weight in layer.weights)
    if cell == "gru":  # both update, reset, candidate
        return kernel.T, recurrent.T, bias.reshape(-1)
    order = [0, 3, 1, 2]  # Keras: input, forget, cell, output; ONNX: input, output, forget, cell
    kernel, recurrent, bias = (
        np.concatenate([np.split(array, 4, axis=-1)[gate] for gate in order], axis=-1)
        for array in (kernel, recurrent, bias)
    )
    return kernel.T, recurrent.T, np.concatenate([bias, np.zeros_like(bias)])
