"""A trained Keras network as an ONNX graph, written layer by layer.

General converters turn a recurrent layer into a loop of many small operators, which takes most of
the time of a small network; ONNX has operators of its own for GRU and LSTM. Batch normalization is
folded into the convolution before it. Inside the graph maps are (batch, channels, frequency, time),
ONNX's own order.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from denoisecli.errors import ModelError
from denoisecli.models import layers

OPSET = 20
IR_VERSION = 9
TOLERANCE = 1e-2
"""A graph further from Keras than this is wrong; rounding alone stays far below, also on GPUs."""


def export_onnx(network: keras.Model, path: Path) -> float:
    """Write the network as ONNX and compare it with Keras.

    The graph takes `spectrum` (batch, frequency, time, 2) and gives `mask` (batch, frequency,
    time, 1 or 2), both float32, with any batch and time.

    Returns:
        The largest difference from Keras on random input.

    Raises:
        ModelError: a layer cannot be exported, or the graph computes something else.
    """
    graph = _Graph()
    names: dict[int, str] = {}
    for layer in network.layers:
        write = _WRITERS.get(type(layer).__name__)
        if write is None:
            raise ModelError(f"layer {layer.name} ({type(layer).__name__}) cannot be exported")
        if isinstance(layer, keras.layers.InputLayer):
            names[id(layer.output)] = write(graph, layer)
            continue
        inputs = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
        names[id(layer.output)] = write(graph, layer, *(names[id(tensor)] for tensor in inputs))
    mask = network.outputs[0]
    graph.add("Transpose", names[id(mask)], perm=[0, 2, 3, 1], output="mask")
    model = graph.model(network.inputs[0].shape, mask.shape)
    onnx.checker.check_model(model, full_check=True)
    difference = _largest_difference(network, model)
    if not difference < TOLERANCE:
        raise ModelError(f"the ONNX graph differs from Keras by {difference:.2g}")
    path.write_bytes(model.SerializeToString())
    return difference


def _largest_difference(network: keras.Model, model: onnx.ModelProto) -> float:
    generator = np.random.default_rng(0)
    shape = (2, network.inputs[0].shape[1], 37, 2)
    spectrum = generator.normal(size=shape).astype(np.float32)
    expected = keras.ops.convert_to_numpy(network(spectrum, training=False))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"spectrum": spectrum})
    return float(np.abs(expected - found).max())


class _Graph:
    """Nodes and constants as they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.foldable: dict[str, tuple[str, str, int]] = {}
        """Output of a linear node -> its weight, its bias, the weight's axis of outputs."""

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

    def linear(
        self, operator: str, x: str, weight: np.ndarray, bias: Any, axis: int, **options: Any
    ) -> str:
        """Append a convolution whose weights a batch normalization behind may be folded into."""
        groups = options.get("group", 1)
        size = weight.shape[axis] * (groups if operator == "ConvTranspose" else 1)
        w = self.constant(weight)
        b = self.constant(np.zeros(size) if bias is None else bias)
        y = self.add(operator, x, w, b, **options)
        self.foldable[y] = w, b, axis
        return y

    def model(self, input_shape: Sequence[Any], output_shape: Sequence[Any]) -> onnx.ModelProto:
        """Put the graph together."""
        graph = helper.make_graph(
            self.nodes,
            "denoise",
            [_value("spectrum", input_shape)],
            [_value("mask", output_shape)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="denoise"
        )


def _value(name: str, shape: Sequence[Any]) -> onnx.ValueInfoProto:
    dims = ["batch", shape[1], "time", shape[3]]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def _input(graph: _Graph, layer: Any) -> str:
    return graph.add("Transpose", "spectrum", perm=[0, 3, 1, 2])


def _features(graph: _Graph, layer: Any, x: str) -> str:
    power = graph.add("ReduceSum", graph.add("Mul", x, x), graph.integers(1), keepdims=1)
    power = graph.add("Add", power, graph.constant(layers.EPSILON))
    gain = graph.add("Pow", power, graph.constant((layer.compression - 1) / 2))
    parts = graph.add("Mul", x, gain)
    chosen = []
    for channel in layer.channels:
        if channel == "magnitude":
            chosen.append(graph.add("Pow", power, graph.constant(layer.compression / 2)))
        else:
            index = ("real", "imaginary").index(channel)
            chosen.append(_slice(graph, parts, 1, index, index + 1))
    return graph.add("Concat", *chosen, axis=1)


def _slice(graph: _Graph, x: str, axis: int, start: int, stop: int) -> str:
    limits = (graph.integers(value) for value in (start, stop, axis))
    return graph.add("Slice", x, *limits)


def _frequency_matrix(graph: _Graph, layer: Any, x: str) -> str:
    return graph.add("MatMul", graph.constant(layer.matrix.T), x)


def _pad_to_multiple(graph: _Graph, layer: Any, x: str) -> str:
    frequency = -layer.input.shape[1] % layer.multiples[0]
    if layer.multiples[1] == 1:
        return graph.add("Pad", x, graph.integers(0, 0, 0, 0, 0, 0, frequency, 0))
    frames = _slice(graph, graph.add("Shape", x), 0, 3, 4)
    time = graph.add("Mod", graph.add("Neg", frames), graph.integers(layer.multiples[1]))
    return graph.add(
        "Pad", x, graph.add("Concat", graph.integers(0, 0, 0, 0, 0, 0, frequency), time, axis=0)
    )


def _crop_like(graph: _Graph, layer: Any, x: str, reference: str) -> str:
    ends = _slice(graph, graph.add("Shape", reference), 0, 2, 4)
    return graph.add("Slice", x, graph.integers(0, 0), ends, graph.integers(2, 3))


def _causal_pad(graph: _Graph, layer: Any, x: str) -> str:
    low = layer.frequency // 2
    pads = (0, 0, low, layer.frames, 0, 0, layer.frequency - low, 0)
    return graph.add("Pad", x, graph.integers(*pads))


def _convolution(graph: _Graph, layer: Any, x: str) -> str:
    kernel = _numpy(layer.kernel)
    options: dict[str, Any] = {
        "kernel_shape": list(kernel.shape[:2]),
        "strides": list(layer.strides),
        "dilations": list(layer.dilation_rate),
        "pads": [0, 0, 0, 0],
    }
    if layer.padding == "same":
        totals = [
            # Sizes are multiples of the strides here, so the padding does not depend on them.
            max((size - 1) * dilation + 1 - stride, 0)
            for size, stride, dilation in zip(
                kernel.shape[:2], layer.strides, layer.dilation_rate, strict=True
            )
        ]
        options["pads"] = _halves(totals)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        options["group"] = kernel.shape[2]
        kernel = kernel.transpose(2, 3, 0, 1)
    else:
        kernel = kernel.transpose(3, 2, 0, 1)
    return graph.linear("Conv", x, kernel, _bias(layer), 0, **options)


def _transposed(graph: _Graph, layer: Any, x: str) -> str:
    kernel = _numpy(layer.kernel)
    sizes = list(zip(kernel.shape[:2], layer.strides, strict=True))
    return graph.linear(
        "ConvTranspose",
        x,
        kernel.transpose(3, 2, 0, 1),
        _bias(layer),
        1,
        kernel_shape=list(kernel.shape[:2]),
        strides=list(layer.strides),
        pads=_halves([max(size - stride, 0) for size, stride in sizes]),
        output_padding=[max(stride - size, 0) for size, stride in sizes],
    )


def _dense(graph: _Graph, layer: Any, x: str) -> str:
    kernel = _numpy(layer.kernel).T[:, :, None, None]
    return graph.linear("Conv", x, kernel, _bias(layer), 0, kernel_shape=[1, 1])


def _batch_normalization(graph: _Graph, layer: Any, x: str) -> str:
    scale = _numpy(layer.gamma) / np.sqrt(_numpy(layer.moving_variance) + layer.epsilon)
    shift = _numpy(layer.beta) - _numpy(layer.moving_mean) * scale
    if x not in graph.foldable:
        x = graph.add("Mul", x, graph.constant(scale[:, None, None]))
        return graph.add("Add", x, graph.constant(shift[:, None, None]))
    weight, bias, axis = graph.foldable[x]
    shape = [1] * 4
    shape[axis] = -1
    graph.constants[weight] = graph.constants[weight] * scale.reshape(shape)
    graph.constants[bias] = graph.constants[bias] * scale + shift
    return x


def _layer_normalization(graph: _Graph, layer: Any, x: str) -> str:
    x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    scale, shift = (graph.constant(_numpy(weight)) for weight in (layer.gamma, layer.beta))
    x = graph.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=layer.epsilon)
    return graph.add("Transpose", x, perm=[0, 3, 1, 2])


def _activation(graph: _Graph, layer: Any, x: str) -> str:
    name = layer.activation.__name__
    if name == "silu":
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    operator, options = {
        "relu": ("Relu", {}),
        "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
        "elu": ("Elu", {}),
        "gelu": ("Gelu", {}),
        "tanh": ("Tanh", {}),
    }[name]
    return graph.add(operator, x, **options)


def _pooling(operator: str) -> Callable[[_Graph, Any, str], str]:
    def write(graph: _Graph, layer: Any, x: str) -> str:
        size = list(layer.pool_size)
        return graph.add(operator, x, kernel_shape=size, strides=size)

    return write


def _nearest(graph: _Graph, layer: Any, x: str) -> str:
    scales = graph.constant([1, 1, *layer.size])
    return graph.add(
        "Resize",
        x,
        "",
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _add(graph: _Graph, layer: Any, *inputs: str) -> str:
    return graph.add("Add", *inputs)


def _concatenate(graph: _Graph, layer: Any, *inputs: str) -> str:
    return graph.add("Concat", *inputs, axis=1)


def _identity(graph: _Graph, layer: Any, x: str) -> str:
    return x


_TO_SEQUENCES = {"time": [3, 0, 2, 1], "frequency": [2, 0, 3, 1]}
"""(batch, channels, frequency, time) -> (steps, batch, other axis, channels)."""


def _recurrent(graph: _Graph, layer: Any, x: str) -> str:
    channels = layer.input.shape[-1]
    x = graph.add("Transpose", x, perm=_TO_SEQUENCES[layer.axis])
    shape = _slice(graph, graph.add("Shape", x), 0, 0, 3)
    rows = graph.add("Reshape", x, graph.integers(0, -1, channels))
    both = [layer.recurrent]
    if layer.bidirectional:
        both = [layer.recurrent.forward_layer, layer.recurrent.backward_layer]
    parts = [_gates(one, layer.cell) for one in both]
    weights = (graph.constant(np.stack(arrays)) for arrays in zip(*parts, strict=True))
    options = {"linear_before_reset": 1} if layer.cell == "gru" else {}
    y = graph.add(
        layer.cell.upper(),
        rows,
        *weights,
        hidden_size=layer.units,
        direction="bidirectional" if layer.bidirectional else "forward",
        **options,
    )  # (steps, directions, rows, units)
    y = graph.add("Transpose", y, perm=[0, 2, 1, 3])
    size = graph.integers(layer.units * len(both))
    y = graph.add("Reshape", y, graph.add("Concat", shape, size, axis=0))
    back = np.argsort(_TO_SEQUENCES[layer.axis])
    return graph.add("Transpose", y, perm=back.tolist())


def _gates(layer: Any, cell: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input weights, recurrent weights and biases in ONNX's order of gates."""
    kernel, recurrent, bias = (_numpy(weight) for weight in layer.weights)
    if cell == "gru":  # both update, reset, candidate
        return kernel.T, recurrent.T, bias.reshape(-1)
    order = [0, 3, 1, 2]  # Keras: input, forget, cell, output; ONNX: input, output, forget, cell
    kernel, recurrent, bias = (
        np.concatenate([np.split(array, 4, axis=-1)[gate] for gate in order], axis=-1)
        for array in (kernel, recurrent, bias)
    )
    return kernel.T, recurrent.T, np.concatenate([bias, np.zeros_like(bias)])


def _attention(graph: _Graph, layer: Any, x: str) -> str:
    heads, size = layer.heads, layer.key_dim
    x = graph.add("Transpose", x, perm=_TO_SEQUENCES[layer.axis])
    x = graph.add("Transpose", x, perm=[1, 2, 0, 3])  # batch, other axis, steps, channels
    shape = _slice(graph, graph.add("Shape", x), 0, 0, 3)
    if layer.axis == "frequency":
        x = graph.add("Add", x, graph.constant(_numpy(layer.positions)))
    split = graph.add(
        "Reshape",
        graph.add("MatMul", x, graph.constant(_numpy(layer.inward))),
        graph.add("Concat", shape, graph.integers(3, heads, size), axis=0),
    )
    split = graph.add("Transpose", split, perm=[3, 0, 1, 4, 2, 5])
    query, key, value = (
        graph.add("Squeeze", _slice(graph, split, 0, i, i + 1), graph.integers(0))
        for i in range(3)
    )
    key = graph.add("Transpose", key, perm=[0, 1, 2, 4, 3])
    query = graph.add("Mul", query, graph.constant(size**-0.5))
    scores = graph.add("Softmax", graph.add("MatMul", query, key), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", scores, value), perm=[0, 1, 3, 2, 4])
    mixed = graph.add(
        "Reshape", mixed, graph.add("Concat", shape, graph.integers(heads * size), axis=0)
    )
    mixed = graph.add("MatMul", mixed, graph.constant(_numpy(layer.outward)))
    mixed = graph.add("Transpose", mixed, perm=[2, 0, 1, 3])
    return graph.add("Transpose", mixed, perm=np.argsort(_TO_SEQUENCES[layer.axis]).tolist())


def _bounded_mask(graph: _Graph, layer: Any, x: str) -> str:
    bounded = graph.add("Tanh" if layer.mask == "complex" else "Sigmoid", x)
    return graph.add("Mul", bounded, graph.constant(layer.limit))


def _numpy(weight: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(weight), np.float32)


def _bias(layer: Any) -> np.ndarray | None:
    return _numpy(layer.bias) if layer.use_bias else None


def _halves(totals: list[int]) -> list[int]:
    """Padding as Keras divides it: the smaller half first."""
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


_WRITERS: dict[str, Callable[..., str]] = {
    "InputLayer": _input,
    "Features": _features,
    "FrequencyMatrix": _frequency_matrix,
    "PadToMultiple": _pad_to_multiple,
    "CropLike": _crop_like,
    "CausalPad": _causal_pad,
    "Conv2D": _convolution,
    "DepthwiseConv2D": _convolution,
    "Conv2DTranspose": _transposed,
    "Dense": _dense,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "Activation": _activation,
    "MaxPooling2D": _pooling("MaxPool"),
    "AveragePooling2D": _pooling("AveragePool"),
    "UpSampling2D": _nearest,
    "Add": _add,
    "Concatenate": _concatenate,
    "Dropout": _identity,
    "AxisRecurrent": _recurrent,
    "AxisAttention": _attention,
    "BoundedMask": _bounded_mask,
}
