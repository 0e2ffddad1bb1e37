from typing import Any

import keras
import numpy as np
import pytest

from denoisecli.models.registry import build_model
from denoisecli.models.summary import summarize_network
from denoisecli.spec.document import parse_spec

FORWARD = {"block": "recurrent", "axis": "time", "units": 4, "bidirectional": False}
DILATED = {"block": "convolution", "filters": 4, "kernel_size": [1, 5], "dilation": [1, 2]}


def spec_of(**sections: Any) -> Any:
    level = [{"filters": 4, "strides": [4, 1], "normalization": "none"}]
    up = [{"filters": 4, "normalization": "none"}]
    return parse_spec({"name": "test", "downsampling": level, "upsampling": up, **sections})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sections", "past", "future"),
    [
        ({}, 2, 2),
        ({"causal": True}, 4, 0),
        ({"valley": [DILATED]}, 6, 6),
        ({"valley": [FORWARD]}, np.inf, 2),
        ({"valley": [FORWARD], "causal": True}, np.inf, 0),
        ({"valley": [{**FORWARD, "bidirectional": True}]}, np.inf, np.inf),
        ({"valley": [{"block": "attention", "axis": "time", "heads": 1}]}, np.inf, np.inf),
        ({"valley": [{**FORWARD, "axis": "frequency"}]}, 2, 2),
    ],
)
def test_reach_is_how_far_a_changed_frame_has_an_effect(
    sections: dict[str, Any], past: float, future: float
) -> None:
    network = build_model(spec_of(**sections))
    summary = summarize_network(network)
    frame, window = 256 / 16000, 512 / 16000
    assert summary.past_seconds == pytest.approx(past * frame + window)
    assert summary.future_seconds == pytest.approx(future * frame + window)

    for seed, weight in enumerate(network.trainable_variables):
        weight.assign(keras.random.normal(weight.shape, stddev=0.5, seed=seed))
    spectrum = np.random.default_rng(0).normal(size=(1, 257, 31, 2)).astype(np.float32)
    changed = spectrum.copy()
    changed[:, :, 15] += 1
    difference = np.abs(np.asarray(network(changed)) - np.asarray(network(spectrum)))
    affected = np.flatnonzero(difference.max(axis=(0, 1, 3)) > 0)
    assert affected.min() == max(15 - future, 0)
    assert affected.max() == min(15 + past, 30) or past == np.inf


def test_taps_widen_the_reach() -> None:
    spec = spec_of(output={"past_taps": 5, "future_taps": 1})
    summary = summarize_network(build_model(spec))
    frame, window = 256 / 16000, 512 / 16000
    assert summary.past_seconds == pytest.approx(5 * frame + window)
    assert summary.future_seconds == pytest.approx(2 * frame + window)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ({"strides": [4, 2]}, {}),
        ({"strides": [4, 2], "pooling": "average"}, {"upsampling": "nearest"}),
        ({"strides": [1, 3], "kernel_size": [3, 4]}, {"upsampling": "nearest"}),
    ],
)
def test_reach_with_strides_along_time(down: dict[str, Any], up: dict[str, Any]) -> None:
    linear = {"filters": 4, "normalization": "none", "activation": "linear"}
    levels, ups = [{**linear, **down}] * 2, [{**linear, **up}] * 2
    spec = parse_spec({"name": "test", "downsampling": levels, "upsampling": ups})
    network = build_model(spec)
    summary = summarize_network(network)
    frame, window = 256 / 16000, 512 / 16000
    stride = spec.total_strides[1]
    spectrum = np.random.default_rng(0).normal(size=(1, 257, 12 * stride, 2)).astype(np.float32)
    mask = np.asarray(network(spectrum))
    before, after = [], []
    for changed in range(6 * stride, 7 * stride):
        other = spectrum.copy()
        other[:, :, changed] += 1
        difference = np.abs(np.asarray(network(other)) - mask)
        affected = np.flatnonzero(difference.max(axis=(0, 1, 3)) > 0)
        before.append(changed - affected.min())
        after.append(affected.max() - changed)
    assert summary.future_seconds == pytest.approx(max(before) * frame + window)
    assert summary.past_seconds == pytest.approx(max(after) * frame + window)


def test_arithmetic_of_a_convolution() -> None:
    network = build_model(spec_of())
    summary = summarize_network(network)
    rows = {row.name: row for row in summary.layers}
    first = rows["down0_0_convolution"]
    # 257 bins are padded to 260, 65 positions; 3 x 3 taps of 3 channels for each of 4 filters.
    assert first.macs_per_second == pytest.approx(65 * 62.5 * 4 * 27)
    assert first.parameters == 27 * 4 + 4
    # The most is held while it runs: its input and output, and the features, which are cropped to.
    assert summary.bytes_per_second == pytest.approx(4 * 62.5 * (260 * 3 + 65 * 4 + 257 * 3))
    assert summary.carries
    assert summary.macs_per_second == pytest.approx(
        sum(row.macs_per_second for row in summary.layers)
    )
    assert summary.parameters == network.count_params()
