"""The graph for streams in the form that the speech denoiser of sherpa-onnx loads.

sherpa-onnx (https://github.com/k2-fsa/sherpa-onnx) has bindings for C, C++, C#, Dart, Go, Java,
JavaScript, Kotlin, Pascal, Python, Rust and Swift. Its model type "gtcrn" runs any network of this
form, frame by frame, offline and online:

- inputs, by their order: a frame of the STFT (1, bins, 1, 2) and three caches
- outputs, by their order: the clean frame and the next values of the caches
- metadata: settings of the STFT, and the shapes of the caches, which are zero at the beginning

All of our state is the first cache; the other two are not used. The online denoiser begins with
zeros like ours, so that its output is ours. The offline one reflects the first half window of the
sound.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from denoisecli.errors import ModelError
from denoisecli.models.export.onnx_stream import stream_delay, stream_model

if TYPE_CHECKING:
    from denoisecli.models.unet import UNet

_NAMES = {
    "spectrum": "mix",
    "state": "conv_cache",
    "cleaned": "enh",
    "next_state": "conv_cache_out",
}
_UNUSED = ("tra_cache", "inter_cache")


def export_sherpa(network: "UNet", path: Path) -> float:
    """Write the graph of a network for sherpa-onnx, and compare it with Keras.

    Returns:
        The largest difference from the cleaned spectrum of Keras, on random input.

    Raises:
        ModelError: The network or its STFT does not suit sherpa-onnx, or cannot be exported.
    """
    spec = network.spec
    delay = stream_delay(network)
    if delay:
        raise ModelError(
            f"the model {spec.name} looks {delay} frames ahead, and sherpa-onnx would return its "
            "sound late by them; export a causal model"
        )
    if spec.stft.window != "sqrt_hann" or 2 * spec.stft.hop_length != spec.stft.n_fft:
        raise ModelError(
            "sherpa-onnx does not divide by the sum of the squared windows, which needs the window "
            f"sqrt_hann and an n_fft of two hops; the model {spec.name} has {spec.stft.window}, "
            f"{spec.stft.n_fft} and {spec.stft.hop_length}"
        )
    model, difference = stream_model(network)
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [_NAMES.get(name, name) for name in names]
    size = graph.input[1].type.tensor_type.shape.dim[1].dim_value
    for name in _UNUSED:
        graph.node.append(
            helper.make_node("Identity", [name], [f"{name}_out"], name=f"Identity_{name}")
        )
    frame, state = [1, spec.stft.bins, 1, 2], [1, size]
    del graph.input[:], graph.output[:], model.metadata_props[:]
    inputs = {"mix": frame, "conv_cache": state, **{name: [1] for name in _UNUSED}}
    outputs = {"enh": frame, "conv_cache_out": state, **{f"{name}_out": [1] for name in _UNUSED}}
    graph.input.extend(_values(inputs))
    graph.output.extend(_values(outputs))
    metadata = {
        "model_type": "gtcrn",
        "version": "1",
        "comment": f"{spec.name}, a U-Net of denoise",
        "sample_rate": str(spec.audio.sample_rate),
        "n_fft": str(spec.stft.n_fft),
        "hop_length": str(spec.stft.hop_length),
        "window_length": str(spec.stft.n_fft),
        "window_type": "hann_sqrt",
        "conv_cache_shape": f"1,{size}",
        "tra_cache_shape": "1",
        "inter_cache_shape": "1",
    }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return difference


def _values(shapes: dict[str, list[int]]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
