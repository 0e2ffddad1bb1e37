"""A trained Keras network as an ONNX graph, written layer by layer.

General converters turn a recurrent layer into a loop of many small operators, which takes most of
the time of a small network; ONNX has operators of its own for GRU and LSTM. Only a GRU along the
frequencies, with few steps of many rows, is faster as a loop. Batch normalization is folded into
the convolution before it. Convolutions take maps as (batch, channels, frequency, time), recurrent
and dense layers as (batch, frequency, time, channels); a map is transposed only where it has to be,
since that costs as much as a convolution.

A network whose only unlimited memory is that of GRUs that run forward along time can process a long
recording block by block, and the result is exactly that for the whole recording. Its graph has more
inputs, whose defaults mean "this block is the whole recording":

- ``begins``: 0 if the recording has an earlier block, otherwise 1
- ``ends``: 0 if the recording has a later block, otherwise 1; a causal network does not need it
- ``keep``: the frame of this block that the next block begins with
- ``state_0``, ``state_1``, ...: states of the GRUs at the start of the block, which the run for the
  earlier block returned as ``next_state_0``, ``next_state_1``, ...

If the recording has an earlier block, the mask lacks the first frames of the block, which would be
wrong; if it has a later one, the mask lacks the last frames. Their numbers are in the metadata
``past_frames`` and ``future_frames``, and blocks have to overlap by them. Inside the graph, such
frames are cut off where that saves time. The metadata ``second_stage`` is the index of the node
where the last of these GRUs begins: two threads can work on two blocks, one after the other in the
network.

The other metadata are those of `metadata.network_metadata`.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from denoisecli.errors import ModelError
from denoisecli.models.export.metadata import network_metadata
from denoisecli.models.export.onnx_graph import Graph
from denoisecli.models.network import MaskNetwork
from denoisecli.models.traits import reaches_of, write_layers

TOLERANCE = 1e-2
"""Largest allowed difference from Keras; rounding alone stays far below it, also on GPUs."""


def export_onnx(network: keras.Model, path: Path) -> float:
    """Write a network as ONNX and compare it with Keras.

    The graph takes ``spectrum`` (batch, frequency, time, 2) and returns ``mask`` (batch, frequency,
    time, parts), where the spec's `Output.parts` is the number of parts. Both are float32 and have
    any batch size and number of frames. The docstring of this module describes further inputs.

    Args:
        network: Trained network.
        path: File to write.

    Returns:
        The largest difference from the masks of Keras on random input.

    Raises:
        ModelError: A layer cannot be exported, or the graph computes something else.
    """
    mask, reaches = network.outputs[0], reaches_of(network)
    reach = reaches[id(mask)]
    blocks_align = all(each.stride == 1 for each in reaches.values())
    divisible = blocks_align and math.isfinite(reach.past) and math.isfinite(reach.future)
    graph = Graph(divisible=divisible)
    output = graph.right_frames(write_layers(network, graph)[id(mask)])
    graph.add("Identity", output.last, output="mask")
    model = graph.model([_value("spectrum", network.inputs[0].shape)], [_value("mask", mask.shape)])
    metadata = network_metadata(network.spec) if isinstance(network, MaskNetwork) else {}
    if divisible:
        metadata |= {
            "past_frames": str(reach.past),
            "future_frames": str(reach.future),
            "second_stage": str(graph.second_stage),
        }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every input that has a default
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    difference = compare_with_keras(
        network, lambda x: session.run(["mask"], {"spectrum": x})[0], "the ONNX graph"
    )
    path.write_bytes(content)
    return difference


def _value(name: str, shape: Sequence[int | None]) -> onnx.ValueInfoProto:
    dims = ["batch", shape[1], "time", shape[3]]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def compare_with_keras(
    network: keras.Model,
    compute: Callable[[np.ndarray], Any],
    form: str,
    sizes: tuple[int, int] = (2, 37),
) -> float:
    """Return the largest difference between the masks of Keras and of another form of a network.

    Args:
        network: The network.
        compute: Function from a random spectrum to the mask of the other form.
        form: Name of the other form, for the error message.
        sizes: Batch size and number of frames of the spectrum.

    Raises:
        ModelError: The difference is above `TOLERANCE`.
    """
    batch, frames = sizes
    shape = (batch, network.inputs[0].shape[1], frames, 2)
    spectrum = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = keras.ops.convert_to_numpy(network(spectrum, training=False))
    difference = float(np.abs(expected - np.asarray(compute(spectrum))).max())
    if not difference < TOLERANCE:
        raise ModelError(f"{form} differs from Keras by {difference:.2g}")
    return difference
