"""A trained Keras network as an ONNX graph for a stream: a frame in, a cleaned frame out.

The mask and its taps are applied inside the graph. Its inputs and outputs are float32; a batch
holds the channels of a recording:

- ``spectrum`` (batch, bins, 1, 2): the next frame of the STFT, real and imaginary part
- ``state`` (batch, size): zeros for the first frame, then ``next_state`` of the frame before
- ``cleaned`` (batch, bins, 1, 2): the frame ``delay_frames`` before, cleaned
- ``next_state`` (batch, size)
- ``mask`` (batch, bins, 1, parts): what was applied, as the graph of `onnx_network` returns it

A causal network has a delay of 0. With a delay there is one more input, ``present`` (1,), which is
1. At the end of the sound, ``delay_frames`` runs more with zeros as ``spectrum`` and as ``present``
return the last frames.

The metadata are those of `metadata.stream_metadata`.
"""

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from denoisecli.errors import ModelError
from denoisecli.models.export.metadata import stream_metadata
from denoisecli.models.export.onnx_graph import Map
from denoisecli.models.export.onnx_network import TOLERANCE
from denoisecli.models.export.stream_graph import StreamGraph
from denoisecli.models.ops import apply_mask
from denoisecli.models.traits import reaches_of, write_layers
from denoisecli.spec.document import Spec

if TYPE_CHECKING:
    from denoisecli.models.unet import UNet


def stream_delay(network: "UNet") -> int | None:
    """Return the number of frames by which a stream is behind its input.

    None means that the network cannot process a stream frame by frame: it strides along time, runs
    backwards along time, or attends along time.
    """
    reaches = reaches_of(network)
    future = reaches[id(network.outputs[0])].future
    if not math.isfinite(future) or any(reach.stride > 1 for reach in reaches.values()):
        return None
    return max(int(future), network.spec.output.future_taps)


def export_stream(network: "UNet", path: Path, *, whole: Path | None = None) -> float:
    """Write the graph of a network for a stream, and compare it with Keras.

    Args:
        network: Trained network.
        path: File to write.
        whole: The ``model.onnx`` of the network, whose SHA-256 becomes part of the metadata.

    Returns:
        The largest difference from the cleaned spectrum of Keras, on random input.

    Raises:
        ModelError: The network cannot process a stream, a layer cannot be exported, or the graph
            computes something else.
    """
    model, difference = stream_model(network)
    if whole is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = "whole", hashlib.sha256(whole.read_bytes()).hexdigest()
    path.write_bytes(model.SerializeToString())
    return difference


def stream_model(network: "UNet") -> tuple[onnx.ModelProto, float]:
    """Return the graph of a network for a stream, and its largest difference from Keras.

    Raises:
        ModelError: As `export_stream` raises it.
    """
    delay = stream_delay(network)
    if delay is None:
        raise ModelError(
            f"the model {network.spec.name} cannot process a stream frame by frame: it strides, "
            "attends or runs backwards along time"
        )
    model = _stream_model(network, delay)
    helper.set_model_props(model, stream_metadata(network.spec, delay))
    onnx.checker.check_model(model, full_check=True)
    difference = _largest_difference(network, model, delay)
    if not difference < TOLERANCE:
        raise ModelError(f"the ONNX graph for streams differs from Keras by {difference:.2g}")
    return model, difference


def _stream_model(network: "UNet", delay: int) -> onnx.ModelProto:
    graph = StreamGraph(delay)
    maps = write_layers(network, graph)
    spectrum, mask = maps[id(network.inputs[0])], maps[id(network.outputs[0])]
    mask = graph.delayed(mask, int(delay - mask.reach.future))
    graph.add("Identity", mask.last, output="mask")
    _append_filter(graph, network.spec, mask, spectrum)
    graph.next_state()
    bins, parts = network.spec.stft.bins, network.spec.output.parts
    inputs = [_value("spectrum", bins, 1, 2), _value("state", graph.state_size)]
    if delay:
        inputs.append(helper.make_tensor_value_info("present", TensorProto.FLOAT, [1]))
    return graph.model(
        inputs,
        [
            _value("cleaned", bins, 1, 2),
            _value("next_state", graph.state_size),
            _value("mask", bins, 1, parts),
        ],
    )


def _append_filter(graph: StreamGraph, spec: Spec, mask: Map, spectrum: Map) -> None:
    """Append the product of the mask and the frames of the spectrum that its taps apply to."""
    output = spec.output
    # Frames outside the sound are zero.
    frames = graph.recent(spectrum, graph.delay + output.past_taps)
    indices = [2 * (output.past_taps + offset) for offset in output.offsets]  # of the real parts
    if output.mask == "magnitude":
        frame = graph.slice(frames, 1, indices[0], indices[0] + 2)
        product = Map(graph, first=graph.add("Mul", frame, mask.first))
        graph.add("Identity", product.last, output="cleaned")
        return
    # (a + ib)(c + id): the products a c and b d, then a d and b c, and their sums.
    parts = [index + part for index in indices for part in (0, 1)]
    swapped = [index + part for index in indices for part in (1, 0)]
    chosen = graph.add("Gather", frames, graph.integers(*parts, *swapped), axis=1)
    factors = graph.add("Concat", mask.first, mask.first, axis=1)
    products = graph.add("Mul", chosen, factors)  # (batch, products, 1, bins)
    sums = np.zeros((2, 2, len(parts)), np.float32)
    sums[0, 0] = np.tile([1, -1], len(indices))
    sums[1, 1] = 1
    rows = graph.add("Reshape", products, graph.integers(0, 2 * len(parts), -1))
    rows = graph.add("MatMul", graph.constant(sums.reshape(2, -1)), rows)
    rows = graph.add("Transpose", rows, perm=[0, 2, 1])
    graph.add("Reshape", rows, graph.integers(0, -1, 1, 2), output="cleaned")


def _value(name: str, *sizes: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sizes])


def _largest_difference(network: "UNet", model: onnx.ModelProto, delay: int) -> float:
    """Return the largest difference from the cleaned spectrum of Keras on random input."""
    shape = (2, network.spec.stft.bins, 37, 2)
    spectrum = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    parts = (spectrum[..., 0].swapaxes(1, 2), spectrum[..., 1].swapaxes(1, 2))
    mask = network(spectrum, training=False)
    expected = [
        keras.ops.convert_to_numpy(part).swapaxes(1, 2)
        for part in apply_mask(mask, parts, network.spec.output.offsets)
    ]
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    state = np.zeros((2, session.get_inputs()[1].shape[1]), np.float32)
    padded = np.pad(spectrum, [(0, 0), (0, 0), (0, delay), (0, 0)])
    found = []
    for index in range(padded.shape[2]):
        inputs = {"spectrum": padded[:, :, index : index + 1], "state": state}
        if delay:
            inputs["present"] = np.array([index < spectrum.shape[2]], np.float32)
        cleaned, state = session.run(["cleaned", "next_state"], inputs)
        found.append(cleaned)
    cleaned = np.concatenate(found, axis=2)[:, :, delay:]
    return float(np.abs(cleaned - np.stack(expected, axis=-1)).max())
