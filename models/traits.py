"""Traits of layers that the ONNX exporter and the summary of a network rely on.

The layers of this package have these traits as methods; Keras's own layers get theirs here.
"""
# ruff: noqa: D102 - the methods of the subclasses are documented in `Traits`

import math
from collections import Counter
from typing import Any

import keras
import numpy as np

from denoisecli.errors import ModelError
from denoisecli.models.export.onnx_graph import Graph, Map
from denoisecli.models.export.stream_graph import StreamGraph
from denoisecli.models.reach import Reach


class Traits:
    """Base class of the traits of a layer."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        """Append the nodes of the layer to an ONNX graph.

        Args:
            graph: Graph that the nodes are appended to.
            inputs: Inputs of the layer.

        Returns:
            The output of the layer.
        """
        raise NotImplementedError

    def stream_nodes(self, graph: StreamGraph, *inputs: Map) -> Map:
        """Append the nodes of the layer to a graph of one frame per run.

        By default they are those of `onnx_nodes`, which suit every layer that looks at no other
        frame and has one input.

        Args:
            graph: Graph that the nodes are appended to, which keeps what the layer remembers.
            inputs: Inputs of the layer, each behind the spectrum by its `Reach.future` frames.

        Returns:
            The output of the layer.
        """
        return self.onnx_nodes(graph, *inputs)

    def reach(self, inputs: Reach) -> Reach:
        """Return the reach of the output, given that of the inputs; by default the same."""
        return inputs

    def macs_per_output(self, context: float) -> float:
        """Return the number of multiply-accumulates per output value; by default 0.

        Args:
            context: Number of frames that a layer which looks at all frames is counted for.
        """
        return 0


def traits_of(layer: keras.layers.Layer) -> Traits:
    """Return the traits of a layer of this package or of Keras."""
    if isinstance(layer, Traits):
        return layer
    for kind in type(layer).__mro__:
        if kind in _KERAS_LAYERS:
            return _KERAS_LAYERS[kind](layer)
    return KerasTraits(layer)


def write_layers(network: keras.Model, graph: Graph) -> dict[int, Map]:
    """Append the nodes of all layers to a graph.

    Returns:
        Their outputs by the ``id`` of the tensors.

    Raises:
        ModelError: A layer cannot be exported.
    """
    reaches, shared = reaches_of(network), _shared_outputs(network)
    maps: dict[int, Map] = {}
    for layer in network.layers:
        if isinstance(layer, keras.layers.InputLayer):
            output = Map(graph, last="spectrum")
        else:
            inputs = [maps[id(tensor)] for tensor in keras.tree.flatten(layer.input)]
            traits = traits_of(layer)
            if isinstance(graph, StreamGraph):
                output = traits.stream_nodes(graph, *inputs)
            else:
                output = traits.onnx_nodes(graph, *inputs)
            at_starts, at_ends = zip(*(x.cropped for x in (output, *inputs)), strict=True)
            output.cropped = max(at_starts), max(at_ends)
        output.reach = reaches[id(layer.output)]
        if id(layer.output) in shared:
            graph.foldable.pop(output.name, None)
        _, bands, _, channels = layer.output.shape
        output.shape = bands - sum(output.padding), channels
        maps[id(layer.output)] = output
    return maps


def _shared_outputs(network: keras.Model) -> set[int]:
    """Return the ``id`` of the tensors that are used more than once."""
    uses = Counter(map(id, network.outputs))
    for layer in network.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            uses.update(map(id, keras.tree.flatten(layer.input)))
    return {tensor for tensor, count in uses.items() if count > 1}


def reaches_of(network: keras.Model) -> dict[int, Reach]:
    """Return the frames of the spectrum that the output of each layer depends on.

    The keys are the ``id`` of the tensors.
    """
    reaches: dict[int, Reach] = {}
    for layer in network.layers:
        if isinstance(layer, keras.layers.InputLayer):
            reaches[id(layer.output)] = Reach()
            continue
        inputs = [reaches[id(tensor)] for tensor in keras.tree.flatten(layer.input)]
        reaches[id(layer.output)] = traits_of(layer).reach(Reach.joined(*inputs))
    return reaches


class KerasTraits(Traits):
    """Traits of a layer of Keras; without a subclass it cannot be exported."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        """Raise ModelError, since the layer has no counterpart in ONNX yet."""
        raise ModelError(
            f"layer {self.layer.name} ({type(self.layer).__name__}) cannot be exported"
        )

    def require(self, **values: Any) -> None:
        """Raise ModelError if an attribute of the layer differs; functions are compared by name."""
        for name, expected in values.items():
            value = getattr(self.layer, name)
            value = getattr(value, "__name__", value)
            if value != expected:
                instead = "; add a layer Activation" if name == "activation" else ""
                raise ModelError(
                    f"layer {self.layer.name} cannot be exported with {name}={value!r}, only with "
                    f"{expected!r}{instead}"
                )

    @property
    def bias(self) -> np.ndarray | None:
        """Bias of the layer, if it has one."""
        return self.layer.bias.numpy() if self.layer.use_bias else None


class Convolution(KerasTraits):
    """Conv2D. Maps are padded to multiples of the strides before the first one."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        self._check()
        (x,) = inputs
        layer, kernel = self.layer, self.layer.kernel.numpy()
        options: dict[str, Any] = {
            "kernel_shape": list(kernel.shape[:2]),
            "strides": list(layer.strides),
            "dilations": list(layer.dilation_rate),
            "pads": _halves([self._padding(axis) for axis in (0, 1)]),
        }
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            options["group"] = kernel.shape[2]
            kernel = kernel.transpose(2, 3, 0, 1)
        else:
            kernel = kernel.transpose(3, 2, 0, 1)
        return Map(graph, first=graph.linear("Conv", x.first, kernel, self.bias, 0, **options))

    def stream_nodes(self, graph: StreamGraph, *inputs: Map) -> Map:
        self._check()
        (x,) = inputs
        layer, kernel = self.layer, self.layer.kernel.numpy()
        size, taps, channels, _ = kernel.shape
        # The frames are channels of a convolution along frequency: then they are moved as a whole.
        span = self._span(1)
        rows = graph.recent(graph.gated(x) if span else x, span, layer.dilation_rate[1])
        options: dict[str, Any] = {}
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            if taps > 1:
                order = np.arange(taps * channels).reshape(taps, channels).T
                by_channel = graph.integers(*order.reshape(-1).tolist())
                rows = graph.add("Gather", rows, by_channel, axis=1)
            options["group"] = channels
            kernel = kernel.transpose(2, 3, 1, 0).reshape(-1, taps, 1, size)
        else:
            kernel = kernel.transpose(3, 1, 2, 0).reshape(-1, taps * channels, 1, size)
        below, above = x.padding
        if layer.padding == "same":
            _, below, _, above = _halves([0, self._padding(0)])
        y = graph.linear(
            "Conv",
            rows,
            kernel,
            self.bias,
            0,
            kernel_shape=[1, size],
            strides=[1, layer.strides[0]],
            dilations=[1, layer.dilation_rate[0]],
            pads=[0, below, 0, above],
            **options,
        )
        return Map(graph, first=y)

    def _check(self) -> None:
        self.require(activation="linear", groups=1)

    def _span(self, axis: int) -> int:
        """Return the distance between the first and the last tap of the kernel."""
        return (self.layer.kernel_size[axis] - 1) * self.layer.dilation_rate[axis]

    def _padding(self, axis: int) -> int:
        """Return the number of zeros at both ends together."""
        if self.layer.padding != "same":
            return 0
        return max(self._span(axis) + 1 - self.layer.strides[axis], 0)

    def reach(self, inputs: Reach) -> Reach:
        past = self._padding(1) // 2
        wider = inputs.widened(past, self._span(1) - past)
        return wider.downsampled(self.layer.strides[1])

    def macs_per_output(self, context: float) -> float:
        return math.prod(self.layer.kernel.shape[:3])


class DepthwiseConvolution(Convolution):
    """DepthwiseConv2D."""

    def _check(self) -> None:
        self.require(activation="linear", depth_multiplier=1)

    def macs_per_output(self, context: float) -> float:
        return math.prod(self.layer.kernel.shape[:2])


class TransposedConvolution(KerasTraits):
    """Conv2DTranspose with padding "same"."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        self.require(activation="linear", padding="same", dilation_rate=(1, 1))
        x = graph.right_frames(*inputs)  # wrong frames need not be upsampled
        layer, kernel = self.layer, self.layer.kernel.numpy()
        sizes = graph.ordered(*zip(kernel.shape[:2], layer.strides, strict=True))
        y = graph.linear(
            "ConvTranspose",
            x.first,
            kernel.transpose(3, 2, *graph.ordered(0, 1)),
            self.bias,
            1,
            kernel_shape=[size for size, _ in sizes],
            strides=[stride for _, stride in sizes],
            pads=_halves([max(size - stride, 0) for size, stride in sizes]),
            output_padding=[max(stride - size, 0) for size, stride in sizes],
        )
        output = Map(graph, first=y)
        output.cropped = x.cropped
        return output

    def reach(self, inputs: Reach) -> Reach:
        size, stride = self.layer.kernel_size[1], self.layer.strides[1]
        future = max(size - stride, 0) // 2
        return inputs.upsampled(stride).widened(size - 1 - future, future)

    def macs_per_output(self, context: float) -> float:
        height, width, _, channels = self.layer.kernel.shape
        return height * width * channels / math.prod(self.layer.strides)


class Dense(KerasTraits):
    """Dense."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        self.require(activation="linear")
        (x,) = inputs
        shape = graph.slice(graph.add("Shape", x.last), 0, 0, 3)
        return self._product(graph, x, graph.add("Concat", shape, graph.integers(-1), axis=0))

    def stream_nodes(self, graph: StreamGraph, *inputs: Map) -> Map:
        self.require(activation="linear")
        (x,) = inputs
        _, bands, _, channels = self.layer.output.shape
        return self._product(graph, x, graph.integers(-1, bands, 1, channels))

    def _product(self, graph: Graph, x: Map, shape: str) -> Map:
        """Append a single node for the product and the bias, which only matrices have."""
        kernel = self.layer.kernel.numpy()
        rows = graph.add("Reshape", x.last, graph.integers(-1, len(kernel)))
        y = graph.linear("Gemm", rows, kernel, self.bias, 1)
        z = graph.add("Reshape", y, shape)
        graph.foldable[z] = graph.foldable.pop(y)
        return Map(graph, last=z)

    def macs_per_output(self, context: float) -> float:
        return self.layer.kernel.shape[0]


class BatchNormalization(KerasTraits):
    """BatchNormalization, folded into the linear layer before it if there is one."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        self.require(center=True, scale=True)
        (x,) = inputs
        layer = self.layer
        scale = layer.gamma.numpy() / np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
        shift = layer.beta.numpy() - layer.moving_mean.numpy() * scale
        if graph.fold(x.name, scale, shift):
            return x
        shape = [-1] if x.channels_last else [-1, 1, 1]
        scaled = x.elementwise("Mul", graph.constant(scale.reshape(shape)))
        return scaled.elementwise("Add", graph.constant(shift.reshape(shape)))


class LayerNormalization(KerasTraits):
    """LayerNormalization over the channels."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        self.require(center=True, scale=True)
        (x,) = inputs
        layer = self.layer
        scale, shift = (graph.constant(weight.numpy()) for weight in (layer.gamma, layer.beta))
        y = graph.add("LayerNormalization", x.last, scale, shift, axis=-1, epsilon=layer.epsilon)
        return Map(graph, last=y)


class Activation(KerasTraits):
    """Activation."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        (x,) = inputs
        name = self.layer.activation.__name__
        if name == "silu":
            return x.elementwise("Mul", x.elementwise("Sigmoid").name)
        operators = {
            "relu": "Relu",
            "leaky_relu": "LeakyRelu",
            "elu": "Elu",
            "gelu": "Gelu",
            "sigmoid": "Sigmoid",
            "tanh": "Tanh",
        }
        if name not in operators:
            known = ", ".join(["silu", *operators])
            raise ModelError(
                f"layer {self.layer.name} cannot be exported with activation={name!r}, only with "
                f"{known}"
            )
        options = {"alpha": 0.2} if name == "leaky_relu" else {}
        return x.elementwise(operators[name], **options)


class Pooling(KerasTraits):
    """MaxPooling2D and AveragePooling2D with strides equal to the size of the pool."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        (x,) = inputs
        self.require(strides=self.layer.pool_size, padding="valid")
        is_max = isinstance(self.layer, keras.layers.MaxPooling2D)
        size = graph.ordered(*self.layer.pool_size)
        operator = "MaxPool" if is_max else "AveragePool"
        return Map(graph, first=graph.add(operator, x.first, kernel_shape=size, strides=size))

    def reach(self, inputs: Reach) -> Reach:
        size = self.layer.pool_size[1]
        return inputs.widened(0, size - 1).downsampled(size)


class UpSampling(KerasTraits):
    """UpSampling2D by repetition."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        self.require(interpolation="nearest")
        (x,) = inputs
        y = graph.add(
            "Resize",
            x.first,
            "",
            graph.constant([1, 1, *graph.ordered(*self.layer.size)]),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        return Map(graph, first=y)

    def reach(self, inputs: Reach) -> Reach:
        size = self.layer.size[1]
        return inputs.upsampled(size).widened(size - 1, 0)


class Add(KerasTraits):
    """Add of two maps."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        x, y = graph.aligned(*inputs)
        if x.channels_last and y.channels_last:
            return Map(graph, last=graph.add("Add", x.last, y.last))
        return Map(graph, first=graph.add("Add", x.first, y.first))


class Concatenate(KerasTraits):
    """Concatenate along the channels."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        names = [x.first for x in graph.aligned(*inputs)]
        return Map(graph, first=graph.merged(names) or graph.add("Concat", *names, axis=1))


class Identity(KerasTraits):
    """A layer that acts during training only."""

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        (x,) = inputs
        return x


def _halves(totals: list[int]) -> list[int]:
    """Divide the padding of each axis as Keras does, the smaller half first."""
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


_KERAS_LAYERS: dict[type, type[KerasTraits]] = {
    keras.layers.Conv2D: Convolution,
    keras.layers.DepthwiseConv2D: DepthwiseConvolution,
    keras.layers.Conv2DTranspose: TransposedConvolution,
    keras.layers.Dense: Dense,
    keras.layers.BatchNormalization: BatchNormalization,
    keras.layers.LayerNormalization: LayerNormalization,
    keras.layers.Activation: Activation,
    keras.layers.MaxPooling2D: Pooling,
    keras.layers.AveragePooling2D: Pooling,
    keras.layers.UpSampling2D: UpSampling,
    keras.layers.Add: Add,
    keras.layers.Concatenate: Concatenate,
    keras.layers.SpatialDropout2D: Identity,
}
