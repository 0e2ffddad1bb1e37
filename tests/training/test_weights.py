from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from denoisecli.errors import ModelError, UsageError
from denoisecli.models import registry
from denoisecli.models.layers import Features
from denoisecli.models.network import MaskNetwork
from denoisecli.models.registry import build_model
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training.checkpoint import Checkpoint, State, save_checkpoint
from denoisecli.training.waveform_model import build_network
from denoisecli.training.weights import assign, get_arrays, transfer_weights


def spec_of(**sections: Any) -> Spec:
    return parse_spec(
        {
            "name": "test",
            "stft": {"n_fft": 32, "hop_length": 16},
            "downsampling": [{"filters": 4, "strides": [4, 1]}],
            "upsampling": [{"filters": 4}],
            **sections,
        }
    )


def network_of(seed: int, **sections: Any) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return build_model(spec_of(**sections))


def same(left: keras.Model, right: keras.Model) -> list[bool]:
    pairs = zip(get_arrays(left.weights), get_arrays(right.weights), strict=True)
    return [bool(np.array_equal(a, b)) for a, b in pairs]


def test_arrays_are_copies() -> None:
    variable = keras.Variable(np.zeros(3))
    (array,) = get_arrays([variable])
    variable.assign(np.ones(3))
    assert array.sum() == 0
    assign([variable], [array])
    assert np.asarray(variable).sum() == 0
    with pytest.raises(ValueError, match="shorter"):
        assign([variable], [])
    with pytest.raises(ValueError, match="shape"):
        assign([variable], [np.zeros(4)])


def test_from_a_model_and_from_an_unfinished_run(tmp_path: Path) -> None:
    trained = network_of(1)
    trained.save(tmp_path / "model.keras")
    network = network_of(2)
    assert not all(same(network, trained))
    assert transfer_weights(network, tmp_path) == (5, [], [])
    assert all(same(network, trained))

    best = network_of(3)
    checkpoint = Checkpoint(
        spec=spec_of(),
        dataset="",
        state=State(),
        task=[np.zeros(1)],
        optimizer=[np.zeros(1)],
        metrics=[np.zeros(1)],
        best=get_arrays(best.weights),
    )
    save_checkpoint(tmp_path / "checkpoint.npz", checkpoint)
    assert transfer_weights(network, tmp_path) == (5, [], [])
    assert all(same(network, best))

    wrong = replace(checkpoint, best=checkpoint.best[1:])
    save_checkpoint(tmp_path / "checkpoint.npz", wrong)
    with pytest.raises(ModelError, match=r"checkpoint\.npz was written by an incompatible version"):
        transfer_weights(network, tmp_path)


def test_layers_that_do_not_match(tmp_path: Path) -> None:
    trained = network_of(1)
    trained.save(tmp_path / "model.keras")
    wider = network_of(2, upsampling=[{"filters": 5}])
    matched, left, _ = transfer_weights(wider, tmp_path)
    assert left == ["up0_0_convolution", "up0_0_norm", "output"]
    assert matched == 2
    other = {"downsampling": [{"filters": 5, "strides": [4, 1]}], "upsampling": [{"filters": 5}]}
    with pytest.raises(UsageError, match=r"no layer of .* matches a layer of 'test'"):
        transfer_weights(network_of(2, **other), tmp_path)
    with pytest.raises(ModelError, match=r"model\.keras cannot be loaded"):
        transfer_weights(trained, tmp_path / "nowhere")


@pytest.fixture
def own_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of the user's own, whose layers have the names that Keras numbers."""

    @keras.saving.register_keras_serializable("test")
    class Own(MaskNetwork):
        @staticmethod
        def build_mask(spec: Spec, spectrum: Any) -> Any:
            x = Features(spec.features.compression, spec.features.channels)(spectrum)
            x = keras.layers.Conv2D(4, 3, padding="same")(x)
            return keras.layers.Conv2D(2, 3, padding="same")(x)

    monkeypatch.setitem(registry._own, "own:Own", Own)


@pytest.mark.usefixtures("own_class")
def test_layers_without_names_are_matched_by_their_order(tmp_path: Path) -> None:
    trained = network_of(1, model="own:Own")
    trained.save(tmp_path / "model.keras")
    network = network_of(2, model="own:Own")
    assert {layer.name for layer in trained.layers} != {layer.name for layer in network.layers}
    assert transfer_weights(network, tmp_path)[:2] == (2, [])
    assert all(same(network, trained))


@pytest.mark.usefixtures("own_class")
def test_half_precision_spares_features_and_mask() -> None:
    network = build_network(spec_of(model="own:Own"), "mixed_float16")
    policies = [layer.dtype_policy.name for layer in network.layers[1:]]
    assert policies == ["float32", "mixed_float16", "float32"]


def test_taps_of_other_frames_do_not_match(tmp_path: Path) -> None:
    network_of(1, output={"past_taps": 1, "future_taps": 1}).save(tmp_path / "model.keras")
    other = network_of(2, output={"past_taps": 2, "limit": 3.0})
    assert transfer_weights(other, tmp_path) == (5, ["taps"], ["output.limit 2.0 (here 3.0)"])


def test_weights_of_another_rate_or_frame_are_reported(tmp_path: Path) -> None:
    """They fit in shape, but their bands are others."""
    network_of(1).save(tmp_path / "model.keras")
    stft = {"n_fft": 32, "hop_length": 8}
    other = network_of(2, audio={"sample_rate": 8000}, stft=stft)
    assert transfer_weights(other, tmp_path) == (
        5,
        [],
        ["audio.sample_rate 16000 (here 8000)", "stft.hop_length 16 (here 8)"],
    )


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_a_causal_network_keeps_frames_in_line(tmp_path: Path, frames: int) -> None:
    level = {"filters": 4, "kernel_size": [3, frames], "normalization": "none"}
    dilation = [1, 1 + frames % 2]  # an even kernel with gaps lies between frames
    block = {"block": "convolution", "dilation": dilation, **level, "kind": "depthwise_separable"}
    sections = {"downsampling": [{**level, "strides": [4, 1]}], "upsampling": [level]}
    ahead = frames - 1 - (frames - 1) // 2

    trained = network_of(1, valley=[block], **sections)
    live = network_of(2, valley=[block], causal=True, **sections)

    def transfer() -> None:
        trained.save(tmp_path / "model.keras")
        assert transfer_weights(live, tmp_path)[1] == []

    # In a steady sound, looking ahead makes no difference except near its ends.
    spectrum = np.random.default_rng(0).normal(size=(1, 17, 20, 2)).astype("float32")
    steady = np.repeat(spectrum[:, :, :1], 40, axis=2)
    transfer()
    middle = slice(20, 25)
    expected = np.asarray(trained(steady))[:, :, middle]
    np.testing.assert_allclose(np.asarray(live(steady))[:, :, middle], expected, atol=1e-6)

    # It makes none either where the kernels ignore it.
    for layer in trained.layers:
        if "convolution" in layer.name or "depthwise" in layer.name:
            kernel = np.asarray(layer.kernel).copy()
            kernel[:, frames - ahead :] = 0
            layer.kernel.assign(kernel)
    transfer()
    np.testing.assert_allclose(live(spectrum), trained(spectrum), atol=1e-6)
