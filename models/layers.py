"""The building blocks of the U-Net that Keras does not have, in pure `keras.ops`.

Maps are (batch, frequency, time, channels) throughout.
"""
# ruff: noqa: D102 - the methods are Keras's own; what they do here is said by their class

from typing import Any

import keras
import numpy as np
from keras import ops

from denoisecli.models.ops import raised
from denoisecli.models.recurrence import Gru

EPSILON = 1e-12
"""Added to powers before a root, so that the gradient at digital silence is finite."""

register = keras.saving.register_keras_serializable(package="denoise")


@register
class Features(keras.layers.Layer):
    """Power-law compressed parts of a complex spectrum.

    Args:
        compression: power that magnitudes are raised to, in (0, 1]; phases are kept.
        channels: any of "real", "imaginary" and "magnitude", in the order wanted.

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


@register
class FrequencyMatrix(keras.layers.Layer):
    """Multiply the frequency axis with a fixed matrix: bins to bands, or bands back to bins.

    Args:
        matrix: (frequency in, frequency out), as an array or nested lists.

    Shape:
        - input: (batch, frequency in, time, channels)
        - output: (batch, frequency out, time, channels)
    """

    def __init__(self, matrix: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.matrix = np.asarray(matrix, "float32")

    def call(self, inputs: Any) -> Any:
        return ops.einsum("bftc,fg->bgtc", inputs, self.matrix)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.matrix.shape[1], *input_shape[2:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "matrix": self.matrix.tolist()}


@register
class PadToMultiple(keras.layers.Layer):
    """Zeros at the end of both axes until they divide by the network's strides.

    Shape:
        - input: (batch, frequency, time, channels)
        - output: (batch, frequency', time', channels), multiples of `multiples`
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


@register
class CropLike(keras.layers.Layer):
    """Cut the ends of frequency and time off to the size of a reference.

    Shape:
        - inputs: (batch, frequency', time', channels) and the reference (batch, frequency, time, _)
        - output: (batch, frequency, time, channels)
    """

    def call(self, inputs: Any, reference: Any) -> Any:
        batch, _, time, _ = ops.shape(reference)
        size = (batch, reference.shape[1], time, inputs.shape[3])
        return ops.slice(inputs, (0, 0, 0, 0), size)  # see `sliced`

    def compute_output_shape(self, inputs_shape: Any, reference_shape: Any) -> Any:
        return (*reference_shape[:3], inputs_shape[3])


@register
class CausalPad(keras.layers.Layer):
    """Zeros before the first frame, so that a convolution behind it sees no future.

    Args:
        frequency: zeros along frequency, half of them on either side.
        frames: zeros before the first frame.

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


class AlongAxis(keras.layers.Layer):
    """Base of layers that treat every row along one axis of a map as a sequence."""

    def __init__(self, axis: str, **kwargs: Any):
        super().__init__(**kwargs)
        if axis not in ("frequency", "time"):
            raise ValueError(f"axis must be 'frequency' or 'time', found {axis!r}")
        self.axis = axis

    def to_sequences(self, inputs: Any) -> Any:
        """(batch, frequency, time, channels) -> (rows, steps, channels)."""
        if self.axis == "frequency":
            inputs = ops.transpose(inputs, (0, 2, 1, 3))
        shape = ops.shape(inputs)
        return ops.reshape(inputs, (-1, shape[2], inputs.shape[3]))

    def from_sequences(self, sequences: Any, inputs: Any) -> Any:
        """Undo `to_sequences`, with the map that it was given as the reference for the shape."""
        _, frequency, time, _ = ops.shape(inputs)
        channels = sequences.shape[-1]
        if self.axis == "time":
            return ops.reshape(sequences, (-1, frequency, time, channels))
        return ops.transpose(ops.reshape(sequences, (-1, time, frequency, channels)), (0, 2, 1, 3))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


@register
class AxisRecurrent(AlongAxis):
    """A GRU or LSTM along the frequency or the time axis, weights shared over the other.

    Args:
        axis: "frequency" or "time".
        cell: "gru" or "lstm".
        units: per direction.
        bidirectional: run both ways and concatenate.

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


@register
class AxisAttention(AlongAxis):
    """Multi-head self-attention along the frequency or the time axis (Vaswani et al. 2017).

    Along frequency, learned position vectors tell the bands apart.

    Args:
        axis: "frequency" or "time".
        heads: number of heads.
        key_dim: size of a query, key and value in one head.

    Shape:
        - input and output: (batch, frequency, time, channels)
    """

    def __init__(self, axis: str, heads: int, key_dim: int, **kwargs: Any):
        super().__init__(axis, **kwargs)
        self.heads = heads
        self.key_dim = key_dim

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        size = self.heads * self.key_dim
        if self.axis == "frequency":
            self.positions = self.add_weight(
                shape=(input_shape[1], channels), initializer="zeros", name="positions"
            )
        self.inward = self.add_weight(
            shape=(channels, 3 * size), initializer="glorot_uniform", name="inward"
        )
        self.outward = self.add_weight(
            shape=(size, channels), initializer="glorot_uniform", name="outward"
        )

    def call(self, inputs: Any) -> Any:
        rows = self.to_sequences(inputs)
        if self.axis == "frequency":
            rows = rows + self.positions
        steps = ops.shape(rows)[1]
        split = ops.reshape(rows @ self.inward, (-1, steps, 3, self.heads, self.key_dim))
        query, key, value = (ops.transpose(split[:, :, i], (0, 2, 1, 3)) for i in range(3))
        scores = query @ ops.transpose(key, (0, 1, 3, 2)) * self.key_dim**-0.5
        heads = ops.transpose(ops.softmax(scores) @ value, (0, 2, 1, 3))
        mixed = ops.reshape(heads, (-1, steps, self.heads * self.key_dim)) @ self.outward
        return self.from_sequences(mixed, inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "key_dim": self.key_dim}


@register
class BoundedMask(keras.layers.Layer):
    """Bound the network's output, so that no bin is amplified without limit.

    A complex mask is bounded to +-limit in its real and imaginary parts by a scaled tanh, a
    magnitude mask to 0..limit by a scaled sigmoid. A gain of 0 to 1, a sigmoid, may multiply them.

    Shape:
        - input and output: (batch, frequency, time, 2 * taps) or (batch, frequency, time, 1); with
          a gain the input has one channel more, the last
    """

    def __init__(self, mask: str, limit: float, gain: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.mask = mask
        self.limit = limit
        self.gain = gain

    def call(self, inputs: Any) -> Any:
        bound = ops.tanh if self.mask == "complex" else ops.sigmoid
        if not self.gain:
            return self.limit * bound(inputs)
        inputs, gain = ops.split(inputs, [inputs.shape[-1] - 1], axis=-1)
        return self.limit * ops.sigmoid(gain) * bound(inputs)

    def identity_bias(self) -> list[float]:
        """What the layer before must give for a mask of one, which changes nothing."""
        if self.mask == "complex":
            return [float(np.arctanh(1 / self.limit)), 0.0]
        return [float(-np.log(self.limit - 1))]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], input_shape[-1] - self.gain)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mask": self.mask, "limit": self.limit, "gain": self.gain}
