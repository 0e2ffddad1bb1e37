from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from helpers import mostly_slow

from denoisecli.errors import ModelError
from denoisecli.models.export import onnx_stream
from denoisecli.models.export.onnx_stream import export_stream, stream_delay
from denoisecli.models.registry import build_model
from denoisecli.models.unet import UNet
from denoisecli.spec.document import parse_spec

GRU = {"block": "recurrent", "axis": "time", "units": 3, "bidirectional": False}
LSTM = {**GRU, "cell": "lstm"}
DILATED = {"block": "convolution", "filters": 4, "kernel_size": [3, 4], "dilation": [1, 3]}

STREAMS: dict[str, tuple[int, dict[str, Any]]] = {
    "causal": (
        0,
        {
            "causal": True,
            "features": {"bands": {"count": 8}},
            "downsampling": [
                {"filters": 4, "kernel_size": [3, 3], "kind": "residual"},
                {"filters": 4, "kernel_size": [4, 2], "kind": "depthwise_separable"},
            ],
            "valley": [GRU, DILATED, {**GRU, "axis": "frequency", "bidirectional": True}, LSTM],
            "upsampling": [{"filters": 4, "kernel_size": [2, 3]}, {"filters": 3}],
            "output": {
                "past_taps": 3,
                "gain": True,
                "expander": {"threshold_db": -3.0, "upper_ratio": 0.5, "above_hz": 4500.0},
            },
        },
    ),
    "looks ahead": (
        1 + 5 + 2,  # the first level, the dilated convolution, the two levels up
        {
            "downsampling": [
                {"filters": 4, "kernel_size": [8, 3], "strides": [4, 1], "normalization": "none"},
                {"filters": 4, "kernel_size": [3, 1]},
            ],
            "valley": [
                GRU,
                {**DILATED, "kind": "depthwise_separable"},
                LSTM,
                {"block": "attention", "axis": "frequency", "heads": 2, "key_dim": 3},
            ],
            "upsampling": [{"filters": 4, "skip": "add"}, {"filters": 3}],
            "output": {"past_taps": 1, "future_taps": 2},
        },
    ),
    "taps that look further ahead than the network": (
        3,
        {
            "downsampling": [{"filters": 3, "pooling": "max"}],
            "upsampling": [{"filters": 3, "upsampling": "nearest", "kernel_size": [3, 1]}],
            "output": {"past_taps": 2, "future_taps": 3},
        },
    ),
    "magnitude mask": (
        2,
        {
            "downsampling": [{"filters": 3, "normalization": "layer"}],
            "upsampling": [{"filters": 3, "skip": "none"}],
            "output": {"mask": "magnitude"},
        },
    ),
    "no memory": (
        0,
        {
            "downsampling": [{"filters": 3, "kernel_size": [3, 1]}],
            "upsampling": [{"filters": 3, "kernel_size": [3, 1]}],
        },
    ),
}


def trained(sections: dict[str, Any]) -> UNet:
    """A network whose weights are those of none that is untrained."""
    stft = {"n_fft": 64, "hop_length": 32}
    network = build_model(parse_spec({"name": "test", "stft": stft, **sections}))
    generator = np.random.default_rng(1)
    for weight in network.weights:
        values = generator.normal(0, 0.4, weight.shape)
        if weight.name == "moving_variance":
            values = 0.5 + np.abs(values)
        weight.assign(values)
    return network


@pytest.mark.parametrize("name", mostly_slow(STREAMS, "causal", "looks ahead"))
def test_frame_by_frame_equals_keras(name: str, tmp_path: Path) -> None:
    """From the first frame to the last: `export_stream` compares with Keras."""
    delay, sections = STREAMS[name]
    network = trained(sections)
    assert stream_delay(network) == delay
    path = tmp_path / "stream.onnx"
    assert export_stream(network, path) < 1e-4
    session = onnxruntime.InferenceSession(path)
    state = session.get_inputs()[1].shape[1]
    parts = network.spec.output.parts
    assert [(x.name, x.shape) for x in session.get_inputs()] == [
        ("spectrum", ["batch", 33, 1, 2]),
        ("state", ["batch", state]),
        *[("present", [1])] * (delay > 0),
    ]
    assert [(x.name, x.shape) for x in session.get_outputs()] == [
        ("cleaned", ["batch", 33, 1, 2]),
        ("next_state", ["batch", state]),
        ("mask", ["batch", 33, 1, parts]),
    ]
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["delay_frames"] == str(delay)
    assert (metadata["sample_rate"], metadata["n_fft"], metadata["hop_length"]) == (
        "16000",
        "64",
        "32",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"valley": [{**GRU, "bidirectional": True}]},
        {"valley": [{"block": "attention", "axis": "time"}]},
        {"downsampling": [{"filters": 3, "strides": [2, 2]}]},
    ],
)
def test_networks_that_need_more_than_a_frame_are_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    sections = {"downsampling": [{"filters": 3}], "upsampling": [{"filters": 3}], **change}
    network = trained(sections)
    assert stream_delay(network) is None
    with pytest.raises(ModelError, match="test cannot process a stream frame by frame"):
        export_stream(network, tmp_path / "stream.onnx")


def test_a_wrong_graph_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_stream, "_largest_difference", lambda *_: 0.1)
    with pytest.raises(ModelError, match=r"graph for streams differs from Keras by 0\.1"):
        export_stream(trained(STREAMS["no memory"][1]), tmp_path / "stream.onnx")
    assert list(tmp_path.iterdir()) == []
