"""What a spec amounts to: layers, parameters, arithmetic, receptive field; nothing is trained."""

import math
from dataclasses import dataclass
from typing import Any

import keras

from denoisecli.models.registry import build_model
from denoisecli.spec.document import Spec


@dataclass(frozen=True)
class LayerFacts:
    """One layer of a network.

    Attributes:
        name: of the layer.
        kind: its class.
        shape: (frequency, frames per second, channels) of its output.
        parameters: weights, those not trained included.
        macs: multiply-accumulates per second of audio.
    """

    name: str
    kind: str
    shape: tuple[int, float, int]
    parameters: int
    macs: float


@dataclass(frozen=True)
class Description:
    """A network in figures.

    Attributes:
        layers: in the order of computation, those without weights or arithmetic left out.
        parameters: of all layers.
        macs: multiply-accumulates per second of audio; attention along time counts one second
            of context.
        past: seconds of sound before a sample that can change it; inf for a recurrent network.
        future: seconds behind it. Both hold a window of the STFT: half of it around the frames that
            the network sees, half around those that the sample is put together of.
    """

    layers: tuple[LayerFacts, ...]
    parameters: int
    macs: float
    past: float
    future: float


def describe(spec: Spec) -> Description:
    """Build the network of a spec and count."""
    network = build_model(spec)
    rate = spec.audio.sample_rate / spec.stft.hop_length
    # Shapes for a number of frames that all time strides divide.
    frames = 8 * spec.total_strides[1]
    inside = keras.Model(network.inputs, [layer.output for layer in network.layers])
    shapes = inside.compute_output_spec(keras.KerasTensor((1, spec.stft.bins, frames, 2)))
    rows = []
    for layer, output in zip(network.layers, shapes, strict=True):
        _, frequency, time, channels = output.shape
        per_second = rate * time / frames
        macs = _macs(layer, frequency * per_second * channels, per_second)
        if macs or layer.count_params():
            rows.append(
                LayerFacts(
                    layer.name,
                    type(layer).__name__,
                    (frequency, per_second, channels),
                    layer.count_params(),
                    macs,
                )
            )
    past, future = _reach(spec)
    window = spec.stft.n_fft / spec.audio.sample_rate
    return Description(
        tuple(rows),
        network.count_params(),
        sum(row.macs for row in rows),
        past / rate + window,
        future / rate + window,
    )


def _macs(layer: Any, outputs: float, frames: float) -> float:
    """Per second of audio; ``outputs`` are the numbers that the layer gives in that time."""
    if isinstance(layer, keras.layers.Conv2DTranspose):
        height, width, _, inward = layer.kernel.shape
        return outputs * height * width * inward / math.prod(layer.strides)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return outputs * math.prod(layer.kernel.shape[:2])
    if isinstance(layer, keras.layers.Conv2D):
        return outputs * math.prod(layer.kernel.shape[:3])
    if isinstance(layer, keras.layers.Dense):
        return outputs * layer.kernel.shape[0]
    kind = type(layer).__name__
    if kind == "AxisRecurrent":
        gates = {"gru": 3, "lstm": 4}[layer.cell]
        return outputs * gates * (layer.input.shape[-1] + layer.units)
    if kind == "AxisAttention":
        size = layer.heads * layer.key_dim
        steps = layer.input.shape[1] if layer.axis == "frequency" else frames
        return outputs * 4 * size + outputs / layer.input.shape[-1] * 2 * steps * size
    if kind == "FrequencyMatrix":
        return outputs * layer.matrix.shape[0]
    return 0.0


def _reach(spec: Spec) -> tuple[float, float]:
    """Frames before and behind one that the network sees; with strides along time, at most."""
    total = 0.0
    scale = 1
    endless_past = endless_future = False

    def convolutions(stack: Any, dilation: int = 1) -> float:
        return float(stack.convolutions * (stack.kernel_size[1] - 1) * dilation * scale)

    for level in spec.downsampling:
        total += convolutions(level)
        scale *= level.strides[1]
    for block in spec.valley:
        if block.block == "convolution":
            total += convolutions(block, block.dilation[1])
        elif block.axis == "time":
            endless_past = True
            endless_future |= block.block == "attention" or block.bidirectional
    for up, level in zip(spec.upsampling, reversed(spec.downsampling), strict=True):
        if level.pooling != "stride":
            scale //= level.strides[1]
        total += convolutions(up)
        if level.pooling == "stride":
            scale //= level.strides[1]
    past, future = (total, 0.0) if spec.causal else (total / 2, total / 2)
    group = spec.total_strides[1] - 1  # a frame may be the first or the last of those in one step
    past, future = past + group, future + group  # 0 for a causal network, which has no such strides
    past = max(past, float(spec.output.past_taps))
    future = max(future, float(spec.output.future_taps))
    return math.inf if endless_past else past, math.inf if endless_future else future
