"""A trained Keras network as an ONNX graph, written layer by layer.

General converters turn a recurrent layer into a loop of many small operators, which takes most of
the time of a small network; ONNX has operators of its own for GRU and LSTM. Batch normalization is
folded into the convolution before it. Convolutions take maps as (batch, channels, frequency, time),
recurrent and dense layers as (batch, frequency, time, channels); a map is brought into the other
order only where it has to be, since that costs as much as a convolution.

A network whose only memory without end is of GRUs that run forward along time can work on long
sound block by block and give exactly what it gives for the whole. Its graph has more inputs, all
with defaults that mean "the whole sound": `begins`, 0 where there was sound before this block;
`keep`, the frame of this block that the next block begins with; `state_0`, `state_1`, ...: what the
GRUs knew. `next_state_0`, ... are what they will know. The first and last frames of a mask, as
many as the metadata `past_frames` and `future_frames` say, are wrong where the sound goes on
there, so blocks have to overlap by them; GRUs leave out what is wrong before them. The metadata
`second_stage` is the number of the node where the last of these GRUs begins: two threads can work
on two blocks, one behind the other in the network.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
from onnx import helper

from denoisecli.errors import ModelError
from denoisecli.models import layers
from denoisecli.models.export.onnx_graph import Frames, Graph, Map
from denoisecli.models.export.onnx_recurrence import carries, recurrent

TOLERANCE = 1e-2
"""A graph further from Keras than this is wrong; rounding alone stays far below, also on GPUs."""


def export_onnx(network: keras.Model, path: Path) -> float:
    """Write the network as ONNX and compare it with Keras.

    The graph takes `spectrum` (batch, frequency, time, 2) and gives `mask` (batch, frequency,
    time, parts), parts as `spec.output` says, both float32, with any batch and time; see above for
    its further inputs.

    Returns:
        The largest difference from Keras on random input.

    Raises:
        ModelError: a layer cannot be exported, or the graph computes something else.
    """
    graph = Graph()
    maps: dict[int, Map] = {}
    for layer in network.layers:
        if isinstance(layer, keras.layers.InputLayer):
            maps[id(layer.output)] = Map(graph, last="spectrum")
            continue
        write = _WRITERS.get(type(layer).__name__)
        if write is None:
            raise ModelError(f"layer {layer.name} ({type(layer).__name__}) cannot be exported")
        tensors = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
        inputs = [maps[id(tensor)] for tensor in tensors]
        past, future = _reach(layer)
        output = write(graph, layer, *inputs)
        output.past = past + max(x.past for x in inputs)
        output.future = future + max(x.future for x in inputs)
        maps[id(layer.output)] = output
    mask = network.outputs[0]
    graph.add("Identity", maps[id(mask)].last, output="mask")
    model = graph.model(network.inputs[0].shape, mask.shape)
    reach = {"past_frames": maps[id(mask)].past, "future_frames": maps[id(mask)].future}
    if all(map(math.isfinite, reach.values())):
        facts = {**reach, "second_stage": graph.second_stage}
        helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
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
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every input that has a default
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["mask"], {"spectrum": spectrum})
    return float(np.abs(expected - found).max())


def _reach(layer: Any) -> tuple[Frames, Frames]:
    """Frames before and behind a frame that a layer looks at, apart from a state to carry on."""
    kind = type(layer).__name__
    if kind == "CausalPad":
        return layer.frames, -layer.frames  # the convolution behind it takes them off again
    if kind == "AxisRecurrent" and layer.axis == "time":
        return (0, 0) if carries(layer) else (math.inf, math.inf)
    if kind == "AxisAttention" and layer.axis == "time":
        return math.inf, math.inf
    if kind in ("MaxPooling2D", "AveragePooling2D"):
        return (0, 0) if layer.pool_size[1] == 1 else (math.inf, math.inf)
    if kind == "UpSampling2D":
        return (0, 0) if layer.size[1] == 1 else (math.inf, math.inf)
    if kind not in ("Conv2D", "DepthwiseConv2D", "Conv2DTranspose"):
        return 0, 0
    if layer.strides[1] > 1:
        return math.inf, math.inf
    frames = (layer.kernel_size[1] - 1) * layer.dilation_rate[1]
    if kind == "Conv2DTranspose":
        return frames // 2 + frames % 2, frames // 2
    if layer.padding == "same":
        return frames // 2, frames - frames // 2
    return 0, frames


def _features(graph: Graph, layer: Any, x: Map) -> Map:
    power = graph.add("ReduceSum", graph.add("Mul", x.first, x.first), graph.integers(1))
    power = graph.add("Add", power, graph.constant(layers.EPSILON))
    gain = graph.add("Pow", power, graph.constant((layer.compression - 1) / 2))
    parts = graph.add("Mul", x.first, gain)
    chosen = []
    for channel in layer.channels:
        if channel == "magnitude":
            chosen.append(graph.add("Pow", power, graph.constant(layer.compression / 2)))
        else:
            index = ("real", "imaginary").index(channel)
            chosen.append(graph.slice(parts, 1, index, index + 1))
    return Map(graph, first=graph.add("Concat", *chosen, axis=1))


def _frequency_matrix(graph: Graph, layer: Any, x: Map) -> Map:
    return Map(graph, first=graph.add("MatMul", graph.constant(layer.matrix.T), x.first))


def _pad_to_multiple(graph: Graph, layer: Any, x: Map) -> Map:
    frequency = -layer.input.shape[1] % layer.multiples[0]
    pads = graph.integers(0, 0, 0, 0, 0, 0, frequency, 0)
    if layer.multiples[1] > 1:
        frames = graph.slice(graph.add("Shape", x.first), 0, 3, 4)
        time = graph.add("Mod", graph.add("Neg", frames), graph.integers(layer.multiples[1]))
        pads = graph.add("Concat", graph.integers(0, 0, 0, 0, 0, 0, frequency), time, axis=0)
    return Map(graph, first=graph.add("Pad", x.first, pads))


def _crop_like(graph: Graph, layer: Any, x: Map, reference: Map) -> Map:
    ends = graph.slice(graph.add("Shape", reference.first), 0, 2, 4)
    cropped = graph.add("Slice", x.first, graph.integers(0, 0), ends, graph.integers(2, 3))
    return Map(graph, first=cropped)


def _causal_pad(graph: Graph, layer: Any, x: Map) -> Map:
    low = layer.frequency // 2
    pads = graph.integers(0, 0, low, layer.frames, 0, 0, layer.frequency - low, 0)
    return Map(graph, first=graph.add("Pad", x.first, pads))


def _convolution(graph: Graph, layer: Any, x: Map) -> Map:
    kernel = layer.kernel.numpy()
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
    return Map(graph, first=graph.linear("Conv", x.first, kernel, _bias(layer), 0, **options))


def _transposed(graph: Graph, layer: Any, x: Map) -> Map:
    kernel = layer.kernel.numpy()
    sizes = list(zip(kernel.shape[:2], layer.strides, strict=True))
    y = graph.linear(
        "ConvTranspose",
        x.first,
        kernel.transpose(3, 2, 0, 1),
        _bias(layer),
        1,
        kernel_shape=list(kernel.shape[:2]),
        strides=list(layer.strides),
        pads=_halves([max(size - stride, 0) for size, stride in sizes]),
        output_padding=[max(stride - size, 0) for size, stride in sizes],
    )
    return Map(graph, first=y)


def _dense(graph: Graph, layer: Any, x: Map) -> Map:
    return Map(graph, last=graph.linear("MatMul", x.last, layer.kernel.numpy(), _bias(layer), 1))


def _batch_normalization(graph: Graph, layer: Any, x: Map) -> Map:
    scale = layer.gamma.numpy() / np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
    shift = layer.beta.numpy() - layer.moving_mean.numpy() * scale
    name = x.last if x.channels_last else x.first
    if name in graph.foldable:
        weight, bias, axis = graph.foldable[name]
        shape = [1] * graph.constants[weight].ndim
        shape[axis] = -1
        graph.constants[weight] = graph.constants[weight] * scale.reshape(shape)
        graph.constants[bias] = graph.constants[bias] * scale + shift
        return x
    shape = [-1] if x.channels_last else [-1, 1, 1]
    scaled = x.elementwise("Mul", graph.constant(scale.reshape(shape)))
    return scaled.elementwise("Add", graph.constant(shift.reshape(shape)))


def _layer_normalization(graph: Graph, layer: Any, x: Map) -> Map:
    scale, shift = (graph.constant(weight.numpy()) for weight in (layer.gamma, layer.beta))
    y = graph.add("LayerNormalization", x.last, scale, shift, axis=-1, epsilon=layer.epsilon)
    return Map(graph, last=y)


def _activation(graph: Graph, layer: Any, x: Map) -> Map:
    name = layer.activation.__name__
    if name == "silu":
        name_in_order = x.last if x.channels_last else x.first
        return x.elementwise("Mul", graph.add("Sigmoid", name_in_order))
    operator, options = {
        "relu": ("Relu", {}),
        "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
        "elu": ("Elu", {}),
        "gelu": ("Gelu", {}),
        "tanh": ("Tanh", {}),
    }[name]
    return x.elementwise(operator, **options)


def _pooling(operator: str) -> Callable[[Graph, Any, Map], Map]:
    def write(graph: Graph, layer: Any, x: Map) -> Map:
        size = list(layer.pool_size)
        return Map(graph, first=graph.add(operator, x.first, kernel_shape=size, strides=size))

    return write


def _nearest(graph: Graph, layer: Any, x: Map) -> Map:
    y = graph.add(
        "Resize",
        x.first,
        "",
        graph.constant([1, 1, *layer.size]),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return Map(graph, first=y)


def _add(graph: Graph, layer: Any, x: Map, y: Map) -> Map:
    if x.channels_last and y.channels_last:
        return Map(graph, last=graph.add("Add", x.last, y.last))
    return Map(graph, first=graph.add("Add", x.first, y.first))


def _concatenate(graph: Graph, layer: Any, *inputs: Map) -> Map:
    return Map(graph, first=graph.add("Concat", *(x.first for x in inputs), axis=1))


def _identity(graph: Graph, layer: Any, x: Map) -> Map:
    return x


def _attention(graph: Graph, layer: Any, x: Map) -> Map:
    heads, size = layer.heads, layer.key_dim
    to_rows = [0, 1, 2, 3] if layer.axis == "time" else [0, 2, 1, 3]  # its own inverse
    rows = graph.add("Transpose", x.last, perm=to_rows)  # batch, other axis, steps, channels
    shape = graph.slice(graph.add("Shape", rows), 0, 0, 3)
    if layer.axis == "frequency":
        rows = graph.add("Add", rows, graph.constant(layer.positions.numpy()))
    split = graph.add(
        "Reshape",
        graph.add("MatMul", rows, graph.constant(layer.inward.numpy())),
        graph.add("Concat", shape, graph.integers(3, heads, size), axis=0),
    )
    split = graph.add("Transpose", split, perm=[3, 0, 1, 4, 2, 5])
    query, key, value = (
        graph.add("Squeeze", graph.slice(split, 0, i, i + 1), graph.integers(0)) for i in range(3)
    )
    key = graph.add("Transpose", key, perm=[0, 1, 2, 4, 3])
    query = graph.add("Mul", query, graph.constant(size**-0.5))
    scores = graph.add("Softmax", graph.add("MatMul", query, key), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", scores, value), perm=[0, 1, 3, 2, 4])
    mixed = graph.add(
        "Reshape", mixed, graph.add("Concat", shape, graph.integers(heads * size), axis=0)
    )
    mixed = graph.add("MatMul", mixed, graph.constant(layer.outward.numpy()))
    return Map(graph, last=graph.add("Transpose", mixed, perm=to_rows))


def _bounded_mask(graph: Graph, layer: Any, x: Map) -> Map:
    gain = graph.constant(layer.limit)
    if layer.gain:
        axis, channels = (3, x.last) if x.channels_last else (1, x.first)
        parts = layer.output.shape[-1]
        opened = graph.add("Sigmoid", graph.slice(channels, axis, parts, parts + 1))
        gain = graph.add("Mul", opened, gain)
        factors = graph.slice(channels, axis, 0, parts)
        x = Map(graph, last=factors) if x.channels_last else Map(graph, first=factors)
    bounded = x.elementwise("Tanh" if layer.mask == "complex" else "Sigmoid")
    return bounded.elementwise("Mul", gain)


def _bias(layer: Any) -> np.ndarray | None:
    return layer.bias.numpy() if layer.use_bias else None


def _halves(totals: list[int]) -> list[int]:
    """Padding as Keras divides it: the smaller half first."""
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


_WRITERS: dict[str, Callable[..., Map]] = {
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
    "SpatialDropout2D": _identity,
    "AxisRecurrent": recurrent,
    "AxisAttention": _attention,
    "BoundedMask": _bounded_mask,
}
