"""Layers of the U-Net that Keras does not have, in pure ``keras.ops``.

Maps are (batch, frequency, time, channels) throughout.
"""
# ruff: noqa: D102 - the methods override those of Keras and of `Traits`, where they are documented

from typing import Any

import keras
import numpy as np
from keras import ops

from denoisecli.models.export.onnx_graph import Graph, Map
from denoisecli.models.export.stream_graph import StreamGraph
from denoisecli.models.ops import raised
from denoisecli.models.reach import Reach
from denoisecli.models.traits import Traits

EPSILON = 1e-12
"""Added to powers before a root, so that the gradient at digital silence is finite."""

register = keras.saving.register_keras_serializable(package="denoise")


@register
class Features(Traits, keras.layers.Layer):
    """Power-law compressed parts of a complex spectrum.

    Args:
        compression: Exponent applied to the magnitudes, in (0, 1]; phases are kept.
        channels: Output channels in order: any of "real", "imaginary" and "magnitude".

    Shape:
        - input: (batch, frequency, time, 2), real and imaginary part
        - output: (batch, frequency, time, len(channels))
    """

    def __init__(self, compression: float, channels: tuple[str, ...], **kwargs: Any):
        super().__init__(**kwargs)
        self.compression = compression
        self.channels = tuple(channels)

    def call(self, spectrum: Any) -> Any:
        power = ops.sum(ops.square(spectrum), axis=-1, keepdims=True) + EPSILON
        gain = raised(power, (self.compression - 1) / 2)
        real, imaginary = ops.split(spectrum * gain, 2, axis=-1)
        parts = {"real": real, "imaginary": imaginary, "magnitude": gain * ops.sqrt(power)}
        return ops.concatenate([parts[channel] for channel in self.channels], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], len(self.channels))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "compression": self.compression,
            "channels": list(self.channels),
        }

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        (x,) = inputs
        squares = graph.add("Mul", x.first, x.first)
        power = graph.add("Add", *(graph.slice(squares, 1, index, index + 1) for index in (0, 1)))
        power = graph.add("Add", power, graph.constant(EPSILON))
        # ONNX Runtime computes a logarithm and an exponential in half of the time of a power.
        exponent = graph.constant((self.compression - 1) / 2)
        gain = graph.add("Exp", graph.add("Mul", graph.add("Log", power), exponent))
        parts = graph.add("Mul", x.first, gain)
        chosen = []
        for channel in self.channels:
            if channel == "magnitude":
                chosen.append(graph.add("Mul", gain, graph.add("Sqrt", power)))
            else:
                index = ("real", "imaginary").index(channel)
                chosen.append(graph.slice(parts, 1, index, index + 1))
        return Map(graph, first=graph.add("Concat", *chosen, axis=1))


@register
class FrequencyMatrix(Traits, keras.layers.Layer):
    """Product of the frequency axis and a fixed matrix: bins to bands, or bands to bins.

    Low frequencies that the matrix leaves as they are cost nothing.

    Args:
        matrix: Array or nested lists of shape (frequency in, frequency out).

    Shape:
        - input: (batch, frequency in, time, channels)
        - output: (batch, frequency out, time, channels)
    """

    def __init__(self, matrix: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.matrix = np.asarray(matrix, "float32")
        self.kept = _identity_size(self.matrix)

    def call(self, inputs: Any) -> Any:
        low, high = ops.split(inputs, [self.kept], axis=1)
        batch, frequency, time, channels = ops.shape(high)
        high = ops.reshape(high, (batch, frequency, time * channels))
        high = ops.matmul(ops.cast(self.matrix[self.kept :, self.kept :].T, high.dtype), high)
        high = ops.reshape(high, (batch, self.matrix.shape[1] - self.kept, time, channels))
        return ops.concatenate([low, high], axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.matrix.shape[1], *input_shape[2:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "matrix": self.matrix.tolist()}

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        (x,) = inputs
        size_in, size_out = self.matrix.shape
        if size_out < size_in or self.kept == 0:
            return self._nodes(graph, x)
        # The mask is wanted with its channels last, and there are fewer bands to transpose.
        low = graph.slice(x.last, 1, 0, self.kept)
        high = graph.slice(x.last, 1, self.kept, size_in)
        matrix = graph.constant(self.matrix[self.kept :, self.kept :].T)
        high = graph.add("Reshape", high, graph.integers(0, size_in - self.kept, -1))
        high = graph.add("MatMul", matrix, high)
        channels = self.output.shape[-1]
        high = graph.add("Reshape", high, graph.integers(0, size_out - self.kept, -1, channels))
        return Map(graph, last=graph.add("Concat", low, high, axis=1))

    def stream_nodes(self, graph: StreamGraph, *inputs: Map) -> Map:
        return self._nodes(graph, *inputs)

    def _nodes(self, graph: Graph, x: Map) -> Map:
        axis, matrix = graph.frequency_axis, self.matrix[self.kept :, self.kept :]

        def product(high: str) -> str:
            factors = (
                (graph.constant(matrix.T), high) if axis == 2 else (high, graph.constant(matrix))
            )
            return graph.add("MatMul", *factors)

        if self.kept == 0:
            return Map(graph, first=product(x.first))
        low = graph.slice(x.first, axis, 0, self.kept)
        high = product(graph.slice(x.first, axis, self.kept, len(self.matrix)))
        return Map(graph, first=graph.add("Concat", low, high, axis=axis))

    def macs_per_output(self, context: float) -> float:
        size_in, size_out = self.matrix.shape
        return (size_in - self.kept) * (size_out - self.kept) / size_out


def _identity_size(matrix: np.ndarray) -> int:
    """Return the number of leading rows and columns that are those of an identity matrix."""
    size = min(matrix.shape)
    same = matrix[:size, :size] == np.eye(size)
    beyond = (matrix[:size, size:] == 0).all(axis=1) & (matrix[size:, :size] == 0).all(axis=0)
    differs = ~(same.all(axis=0) & same.all(axis=1) & beyond)
    return int(np.argmax(differs)) if differs.any() else size


@register
class PadToMultiple(Traits, keras.layers.Layer):
    """Zeros at the end of frequency and time, up to multiples of the strides of the network.

    Args:
        multiples: Numbers that the sizes of frequency and time are made multiples of.

    Shape:
        - input: (batch, frequency, time, channels)
        - output: (batch, padded frequency, padded time, channels)
    """

    def __init__(self, multiples: tuple[int, int], **kwargs: Any):
        super().__init__(**kwargs)
        self.multiples = tuple(multiples)

    def call(self, inputs: Any) -> Any:
        shape = ops.shape(inputs)
        frequency = -inputs.shape[1] % self.multiples[0]
        time = -shape[2] % self.multiples[1] if self.multiples[1] > 1 else 0
        return ops.pad(inputs, ((0, 0), (0, frequency), (0, time), (0, 0)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, frequency, time, channels = input_shape
        if time is not None:
            time += -time % self.multiples[1]
        return batch, frequency + -frequency % self.multiples[0], time, channels

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "multiples": list(self.multiples)}

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        (x,) = inputs
        frequency = -self.input.shape[1] % self.multiples[0]
        pads = graph.integers(0, 0, 0, 0, 0, 0, *graph.ordered(frequency, 0))
        if self.multiples[1] > 1:
            frames = graph.slice(graph.add("Shape", x.first), 0, 3, 4)
            time = graph.add("Mod", graph.add("Neg", frames), graph.integers(self.multiples[1]))
            pads = graph.add("Concat", graph.integers(0, 0, 0, 0, 0, 0, frequency), time, axis=0)
        return Map(graph, first=graph.add("Pad", x.first, pads))


@register
class CropLike(Traits, keras.layers.Layer):
    """Cut off the ends of frequency and time, down to the size of a reference.

    Shape:
        - inputs: (batch, padded frequency, padded time, channels) and the reference
          (batch, frequency, time, any)
        - output: (batch, frequency, time, channels)
    """

    def call(self, inputs: Any, reference: Any) -> Any:
        batch, _, time, _ = ops.shape(reference)
        size = (batch, reference.shape[1], time, inputs.shape[3])
        return ops.slice(inputs, (0, 0, 0, 0), size)  # see `ops.sliced`

    def compute_output_shape(self, inputs_shape: Any, reference_shape: Any) -> Any:
        return (*reference_shape[:3], inputs_shape[3])

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        x, reference = inputs
        if graph.divisible:  # its strides along time are 1
            return Map(graph, first=graph.slice(x.first, 2, 0, self.output.shape[1]))
        ends = graph.slice(graph.add("Shape", reference.first), 0, 2, 4)
        cropped = graph.add("Slice", x.first, graph.integers(0, 0), ends, graph.integers(2, 3))
        return Map(graph, first=cropped)

    def stream_nodes(self, graph: StreamGraph, *inputs: Map) -> Map:
        x, _ = inputs  # of the reference only the shape matters, which need not be delayed
        cropped = graph.slice(x.first, graph.frequency_axis, 0, self.output.shape[1])
        return Map(graph, first=cropped)


@register
class CausalPad(Traits, keras.layers.Layer):
    """Zeros before the first frame, so that the next convolution does not look ahead.

    Args:
        frequency: Number of zeros along frequency, half of them at either end.
        frames: Number of zeros before the first frame.

    Shape:
        - input: (batch, bands, time, channels)
        - output: (batch, bands + frequency, time + frames, channels)
    """

    def __init__(self, frequency: int, frames: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.frequency = frequency
        self.frames = frames

    def call(self, inputs: Any) -> Any:
        low = self.frequency // 2
        return ops.pad(inputs, ((0, 0), (low, self.frequency - low), (self.frames, 0), (0, 0)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, bands, time, channels = input_shape
        time = None if time is None else time + self.frames
        return batch, bands + self.frequency, time, channels

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "frequency": self.frequency, "frames": self.frames}

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        (x,) = inputs
        low = self.frequency // 2
        pads = graph.integers(0, 0, low, self.frames, 0, 0, self.frequency - low, 0)
        return Map(graph, first=graph.add("Pad", x.first, pads))

    def stream_nodes(self, graph: StreamGraph, *inputs: Map) -> Map:
        (x,) = inputs
        y = Map(graph, first=x.first)
        low = self.frequency // 2
        y.padding = low, self.frequency - low  # the convolution also keeps the earlier frames
        return y

    def reach(self, inputs: Reach) -> Reach:
        return inputs.widened(self.frames, -self.frames)


class AlongAxis(Traits, keras.layers.Layer):
    """Base class of layers that process every row along one axis of a map as a sequence.

    Args:
        axis: "frequency" or "time".
    """

    def __init__(self, axis: str, **kwargs: Any):
        super().__init__(**kwargs)
        if axis not in ("frequency", "time"):
            raise ValueError(f"axis must be 'frequency' or 'time', found {axis!r}")
        self.axis = axis

    def to_sequences(self, inputs: Any) -> Any:
        """Reshape (batch, frequency, time, channels) to (rows, steps, channels)."""
        if self.axis == "frequency":
            inputs = ops.transpose(inputs, (0, 2, 1, 3))
        shape = ops.shape(inputs)
        return ops.reshape(inputs, (-1, shape[2], inputs.shape[3]))

    def from_sequences(self, sequences: Any, inputs: Any) -> Any:
        """Undo `to_sequences`, given the map that it was applied to."""
        _, frequency, time, _ = ops.shape(inputs)
        channels = sequences.shape[-1]
        if self.axis == "time":
            return ops.reshape(sequences, (-1, frequency, time, channels))
        return ops.transpose(ops.reshape(sequences, (-1, time, frequency, channels)), (0, 2, 1, 3))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


@register
class BoundedMask(Traits, keras.layers.Layer):
    """Bound the output of the network, so that no bin is amplified without limit.

    A complex mask is bounded to +-limit in its real and imaginary parts by a scaled tanh, a
    magnitude mask to 0..limit by a scaled sigmoid.

    Args:
        mask: "complex" or "magnitude".
        limit: Bound of the mask.
        gain: Whether to multiply the mask by a gain from 0 to 1, the sigmoid of the last channel.
        ratio: Ratio of an expander of the gain below its threshold, in dB per dB; 1 for none.
        upper_ratio: Ratio of the expander above its threshold.
        threshold_db: Gain in dB at which the ratio changes.
        first_band: Index of the lowest frequency at which it works.

    Shape:
        - input and output: (batch, frequency, time, 2 * taps) if complex, otherwise
          (batch, frequency, time, 1); with a gain the input has one more channel
    """

    def __init__(
        self,
        mask: str,
        limit: float,
        gain: bool = False,
        *,
        ratio: float = 1.0,
        upper_ratio: float = 1.0,
        threshold_db: float = 0.0,
        first_band: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.mask = mask
        self.limit = limit
        self.gain = gain
        self.ratio = ratio
        self.upper_ratio = upper_ratio
        self.threshold_db = threshold_db
        self.first_band = first_band

    def call(self, inputs: Any) -> Any:
        bound = ops.tanh if self.mask == "complex" else ops.sigmoid
        if not self.gain:
            return self.limit * bound(inputs)
        inputs, gain = ops.split(inputs, [inputs.shape[-1] - 1], axis=-1)
        return self.limit * self.expanded(gain) * bound(inputs)

    def expanded(self, logits: Any) -> Any:
        """Return the gain, shape (batch, frequency, time, 1), from its logits."""
        if self.ratio == 1:
            return ops.sigmoid(logits)
        level = ops.log_sigmoid(logits)  # in nepers, as is the threshold
        below = ops.minimum(level - self.threshold, 0)
        above, more = self.slopes(logits.shape[1])
        return ops.exp(above * level + more * below)

    @property
    def threshold(self) -> float:
        """The threshold of the expander in Np."""
        return self.threshold_db / 20 * float(np.log(10))

    def slopes(self, bands: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the factors of the level, and of its part below the threshold, of every band.

        Their shapes are (bands, 1, 1).
        """
        expands = (np.arange(bands) >= self.first_band)[:, None, None]
        above = np.where(expands, self.upper_ratio, 1).astype("float32")
        return above, (self.ratio - self.upper_ratio) * expands.astype("float32")

    def identity_bias(self) -> list[float]:
        """Return the input for which the mask is one, so that it changes nothing."""
        if self.mask == "complex":
            return [float(np.arctanh(1 / self.limit)), 0.0]
        return [float(-np.log(self.limit - 1))]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], input_shape[-1] - self.gain)

    def get_config(self) -> dict[str, Any]:
        names = ("mask", "limit", "gain", "ratio", "upper_ratio", "threshold_db", "first_band")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def onnx_nodes(self, graph: Graph, *inputs: Map) -> Map:
        (x,) = inputs
        gain = graph.constant(self.limit)
        if self.gain:
            axis = 3 if x.channels_last else 1
            channels, parts = x.name, self.output.shape[-1]
            logits = graph.slice(channels, axis, parts, parts + 1)
            gain = graph.add("Mul", self._expanded_nodes(graph, logits, x.channels_last), gain)
            factors = graph.slice(channels, axis, 0, parts)
            x = Map(graph, last=factors) if x.channels_last else Map(graph, first=factors)
        bounded = x.elementwise("Tanh" if self.mask == "complex" else "Sigmoid")
        return bounded.elementwise("Mul", gain)

    def _expanded_nodes(self, graph: Graph, logits: str, channels_last: bool) -> str:
        if self.ratio == 1:
            return graph.add("Sigmoid", logits)
        # The operator Softplus would take three times as long.
        exponential = graph.add("Exp", graph.add("Neg", graph.add("Abs", logits)))
        attenuation = graph.add("Log", graph.add("Add", exponential, graph.constant(1)))
        attenuation = graph.add("Add", attenuation, graph.add("Relu", graph.add("Neg", logits)))
        below = graph.add("Relu", graph.add("Add", attenuation, graph.constant(self.threshold)))
        slopes = [-slope for slope in self.slopes(self.output.shape[1])]
        if not channels_last:
            slopes = [slope.reshape(graph.ordered(-1, 1)) for slope in slopes]
        above, more = (graph.constant(slope) for slope in slopes)
        more = graph.add("Mul", below, more)
        if self.upper_ratio == 1:
            return graph.add("Exp", graph.add("Sub", more, attenuation))
        return graph.add("Exp", graph.add("Add", more, graph.add("Mul", attenuation, above)))
