"""Size and cost of a network: layers, parameters, arithmetic, receptive field."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from denoisecli.models.traits import reaches_of, traits_of


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a network.

    Attributes:
        name: Name of the layer.
        kind: Class of the layer.
        shape: (frequency, frames per second, channels) of the output.
        parameters: Number of weights, including those that are not trained.
        macs_per_second: Multiply-accumulates per second of audio.
    """

    name: str
    kind: str
    shape: tuple[int, float, int]
    parameters: int
    macs_per_second: float


@dataclass(frozen=True)
class NetworkSummary:
    """Size and cost of a network.

    The receptive field includes a window of the STFT on either side: half of it around the frames
    that the network looks at, half of it around the frames that a sample is synthesized from.

    Attributes:
        layers: Layers with weights or arithmetic, in the order of computation.
        parameters: Number of weights.
        macs_per_second: Multiply-accumulates per second of audio; attention along time is counted
            for one second of context.
        past_seconds: Earlier sound that a sample depends on; infinite for a network that is
            recurrent along time.
        future_seconds: Later sound that a sample depends on.
        carries: Whether the network carries its state from block to block of a recording.
        bytes_per_second: Memory of the maps that are needed at the same time, per second of audio,
            without that of attention along time (`Spec.attention_bytes`).
    """

    layers: tuple[LayerSummary, ...]
    parameters: int
    macs_per_second: float
    past_seconds: float
    future_seconds: float
    carries: bool = False
    bytes_per_second: float = 0.0


def summarize_network(network: keras.Model) -> NetworkSummary:
    """Return the figures of a network, trained or not."""
    spec = network.spec
    rate = spec.audio.sample_rate / spec.stft.hop_length
    # Shapes for a number of frames that all time strides divide.
    frames = 8 * spec.total_strides[1]
    seconds = frames / rate
    inside = keras.Model(network.inputs, [layer.output for layer in network.layers])
    shapes = inside.compute_output_spec(keras.KerasTensor((1, spec.stft.bins, frames, 2)))
    layers = []
    for layer, output in zip(network.layers, shapes, strict=True):
        _, bands, time, channels = output.shape
        per_second = rate * time / frames
        macs = traits_of(layer).macs_per_output(per_second) * bands * per_second * channels
        if macs or layer.count_params():
            layers.append(
                LayerSummary(
                    name=layer.name,
                    kind=type(layer).__name__,
                    shape=(bands, per_second, channels),
                    parameters=layer.count_params(),
                    macs_per_second=macs,
                )
            )
    reaches = reaches_of(network)
    reach = reaches[id(network.outputs[0])]
    past = math.inf if reach.stateful else max(reach.past, spec.output.past_taps)
    future = max(reach.future, spec.output.future_taps)
    window = spec.stft.n_fft / spec.audio.sample_rate
    return NetworkSummary(
        layers=tuple(layers),
        parameters=network.count_params(),
        macs_per_second=sum(layer.macs_per_second for layer in layers),
        past_seconds=past / rate + window,
        future_seconds=future / rate + window,
        carries=math.isfinite(reach.past + reach.future)
        and all(each.stride == 1 for each in reaches.values()),
        bytes_per_second=4 * _values_at_once(network, [shape.shape for shape in shapes]) / seconds,
    )


def _values_at_once(network: keras.Model, shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the largest number of values in maps that are needed at the same time.

    Args:
        network: The network.
        shapes: Shape of the output of each layer.
    """
    last_use = {
        id(tensor): index
        for index, layer in enumerate(network.layers)
        for tensor in keras.tree.flatten(layer.input)
    }
    sizes: dict[int, int] = {}
    most = 0
    for index, (layer, shape) in enumerate(zip(network.layers, shapes, strict=True)):
        sizes[id(layer.output)] = math.prod(shape)
        most = max(most, sum(sizes.values()))
        sizes = {key: size for key, size in sizes.items() if last_use.get(key, math.inf) > index}
    return most
