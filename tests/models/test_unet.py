from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from helpers import mostly_slow

from denoisecli.models.export.onnx_network import export_onnx
from denoisecli.models.layers import BoundedMask
from denoisecli.models.registry import build_model
from denoisecli.models.unet import UNet, band_matrices
from denoisecli.spec.document import parse_spec
from denoisecli.training.waveform_model import WaveformModel

SMALL = {"n_fft": 64, "hop_length": 32}  # 33 bins
EVEN = {"n_fft": 62, "hop_length": 31}  # 32 bins
GRU = {"block": "recurrent", "axis": "time", "units": 3}

EXPANDER = {"ratio": 2.0, "threshold_db": -3.0, "above_hz": 1500.0}

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {
        "stft": SMALL,
        "downsampling": [{"filters": 4, "kernel_size": [8, 3], "strides": [4, 1]}, {"filters": 6}],
        "valley": [
            {**GRU, "axis": "frequency"},
            GRU,
            {**GRU, "axis": "frequency", "bidirectional": False},
        ],
        "upsampling": [{"filters": 4}, {"filters": 3}],
    },
    "pooled": {
        "stft": EVEN,
        "downsampling": [
            {"filters": 3, "pooling": "max", "strides": [2, 2], "normalization": "none"},
            {"filters": 5, "pooling": "average", "strides": [3, 2], "dropout": 0.2},
        ],
        "valley": [{"block": "convolution", "filters": 6, "residual_input": False}],
        "upsampling": [
            {"filters": 4, "upsampling": "nearest", "activation": "leaky_relu"},
            {"filters": 3, "skip": "add", "normalization": "none", "activation": "elu"},
        ],
        "output": {"mask": "magnitude"},
    },
    "residual": {
        "stft": SMALL,
        "downsampling": [
            {"filters": 4, "kind": "residual", "convolutions": 2, "activation": "silu"},
            {"filters": 4, "kind": "residual", "normalization": "layer", "strides": [2, 2]},
        ],
        "valley": [
            {"block": "convolution", "filters": 4, "dilation": [2, 3], "kind": "residual"},
            {"block": "attention", "axis": "frequency", "heads": 2, "key_dim": 3},
        ],
        "upsampling": [
            {"filters": 4, "skip": "add", "upsampling_size": 3},
            {"filters": 3, "skip": "convolution", "upsampling_size": 1},
        ],
    },
    "separable": {
        "stft": EVEN,
        "features": {"channels": ["magnitude"], "compression": 0.5},
        "downsampling": [
            {"filters": 4, "kind": "depthwise_separable", "activation": "gelu"},
            {"filters": 5, "kind": "depthwise_separable", "strides": [3, 2], "pooling": "max"},
        ],
        "valley": [
            {"block": "attention", "axis": "time", "heads": 2, "normalization": "layer"},
            {**GRU, "cell": "lstm", "dropout": 0.1, "normalization": "none"},
        ],
        "upsampling": [
            {"filters": 4, "skip": "none", "kind": "depthwise_separable", "activation": "linear"},
            {"filters": 3, "skip": "convolution", "upsampling": "nearest"},
        ],
    },
    "erb bands": {
        "stft": {"n_fft": 128, "hop_length": 64},
        "features": {"bands": {"kind": "erb", "count": 12, "above_hz": 1000.0}},
        "downsampling": [{"filters": 4, "strides": [3, 1], "activation": "tanh"}],
        "valley": [{**GRU, "cell": "lstm", "axis": "frequency", "bidirectional": False}],
        "upsampling": [{"filters": 3, "skip": "none"}],
        "output": {"mask": "magnitude", "limit": 1.5, "gain": True, "expander": EXPANDER},
    },
    "mel bands": {
        "stft": SMALL,
        "features": {"bands": {"kind": "mel", "count": 1, "above_hz": 3000.0}},
        "downsampling": [{"filters": 4, "strides": [1, 3], "kernel_size": [2, 5]}],
        "upsampling": [{"filters": 3}],
        "output": {"past_taps": 2, "future_taps": 1},
    },
    "causal": {
        "causal": True,
        "stft": SMALL,
        "features": {"bands": {"count": 8}},
        "downsampling": [
            {"filters": 4, "kernel_size": [3, 3], "kind": "residual"},
            {"filters": 4, "kernel_size": [4, 2], "kind": "depthwise_separable"},
        ],
        "valley": [
            {**GRU, "bidirectional": False},
            {"block": "convolution", "filters": 4, "kernel_size": [3, 4], "dilation": [1, 3]},
            {**GRU, "axis": "frequency"},
        ],
        "upsampling": [{"filters": 4, "kernel_size": [2, 3]}, {"filters": 3}],
        "output": {"past_taps": 3, "gain": True, "expander": EXPANDER | {"upper_ratio": 0.5}},
    },
    "causal pooled": {
        "causal": True,
        "stft": SMALL,
        "downsampling": [{"filters": 4, "pooling": "max"}],
        "valley": [
            {**GRU, "cell": "lstm", "bidirectional": False, "normalization": "layer"},
            {"block": "attention", "axis": "frequency"},
        ],
        "upsampling": [{"filters": 4, "upsampling": "nearest", "kernel_size": [3, 3]}],
        "output": {"mask": "magnitude"},
    },
}


def randomize(network: keras.Model) -> None:
    """Weights as after training: nothing is zero, no variance is one."""
    generator = np.random.default_rng(1)
    for weight in network.weights:
        values = generator.normal(0, 0.4, weight.shape)
        if weight.name == "moving_variance":
            values = 0.5 + np.abs(values)
        weight.assign(values)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape[-2]).normal(size=shape).astype(np.float32)


def spectra(network: UNet) -> Iterator[np.ndarray]:
    for batch, frames in ((1, 1), (3, 13)):
        yield noise(batch, network.spec.stft.bins, frames, 2)


@cache
def compiled(network: UNet) -> Callable[[np.ndarray], tf.Tensor]:
    """Trace a network once, because recurrence is slow without a graph."""
    shape = tf.TensorSpec((None, network.spec.stft.bins, None, 2))
    return tf.function(lambda spectrum: network(spectrum, training=False), input_signature=[shape])


def run(network: UNet, spectrum: np.ndarray) -> np.ndarray:
    return np.asarray(compiled(network)(spectrum))


@pytest.fixture(
    scope="module", params=mostly_slow(VARIANTS, "plain", "separable", "mel bands", "causal")
)
def network(request: pytest.FixtureRequest) -> UNet:
    network = build_model(parse_spec({"name": "test", **VARIANTS[request.param]}))
    randomize(network)
    return network


def test_variants_use_all_options() -> None:
    choices: dict[str, set[Any]] = defaultdict(set)
    used: dict[str, set[Any]] = defaultdict(set)
    for document in VARIANTS.values():
        spec = parse_spec({"name": "test", **document})
        sections = (*spec.downsampling, *spec.valley, *spec.upsampling, spec.features.bands)
        for section in (*sections, spec.output):
            for name, field in getattr(type(section), "model_fields", {}).items():
                if get_origin(field.annotation) is Literal:
                    choices[name].update(get_args(field.annotation))
                    used[name].add(getattr(section, name))
    assert used == choices
    assert choices["block"] == {"convolution", "recurrent", "attention"}


def test_any_number_of_frames(network: UNet) -> None:
    parts = network.spec.output.parts
    limit = network.spec.output.limit
    low = -limit if network.spec.output.mask == "complex" else 0
    for spectrum in spectra(network):
        mask = run(network, spectrum)
        assert mask.shape == (*spectrum.shape[:3], parts)
        assert network.compute_output_shape(spectrum.shape) == mask.shape
        assert ((mask >= low) & (mask <= limit)).all()
        assert mask.std() > 1e-3


def test_silence_and_extremes(network: UNet) -> None:
    for level in (0, 1e-20, 1e6):
        mask = run(network, np.float32(level) * noise(1, network.spec.stft.bins, 9, 2))
        assert np.isfinite(mask).all()


@pytest.mark.slow
def test_saved_and_loaded(network: UNet, tmp_path: Path) -> None:
    network.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert isinstance(loaded, UNet)
    assert loaded.spec == network.spec
    for spectrum in spectra(network):
        found, expected = (model(spectrum, training=False) for model in (loaded, network))
        np.testing.assert_array_equal(found, expected)


def test_onnx_equals_keras(network: UNet, tmp_path: Path) -> None:
    difference = export_onnx(network, tmp_path / "model.onnx")
    assert 0 <= difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for spectrum in spectra(network):
        (mask,) = session.run(["mask"], {"spectrum": spectrum})
        np.testing.assert_allclose(mask, run(network, spectrum), atol=1e-4)


def test_the_future_does_not_change_the_past(network: UNet) -> None:
    spectrum = noise(1, network.spec.stft.bins, 16, 2)
    mask = run(network, spectrum)
    for now in (1, 11):
        changed = spectrum.copy()
        changed[:, :, now:] = 3 * noise(1, network.spec.stft.bins, 16 - now, 2)
        difference = np.abs(run(network, changed) - mask).max(axis=(0, 1, 3))
        assert difference[now:].max() > 1e-3
        if network.spec.causal:
            assert difference[:now].max() < 1e-5


def test_all_weights_learn(network: UNet) -> None:
    spectrum = noise(2, network.spec.stft.bins, 12, 2)
    with tf.GradientTape() as tape:
        mask = network(spectrum, training=True)
        value = tf.reduce_sum(mask * noise(*mask.shape))
    gradients = tape.gradient(value, [weight.value for weight in network.trainable_weights])
    for weight, gradient in zip(network.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
        assert np.abs(gradient).max() > 0, weight.path


def test_identity(network: UNet) -> None:
    """A network whose last layer says one gives back what it gets."""
    before = network.get_weights()
    bias = next(x for x in network.layers if isinstance(x, BoundedMask)).identity_bias()
    for layer in network.layers:
        if layer.name in ("output", "taps", "gain"):
            layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    network.get_layer("output").bias.assign(np.float32(bias))
    if network.spec.output.gain:
        network.get_layer("gain").bias.assign([20.0])
    for timesteps in (500, 1024):
        audio = 0.3 * noise(2, timesteps, 1)[..., 0]
        estimate = WaveformModel(network.spec, network)(audio, training=False)
        np.testing.assert_allclose(estimate, audio, atol=1e-4)
    network.set_weights(before)


def test_untrained_changes_little() -> None:
    for name in ("pooled", "erb bands", "mel bands"):
        spec = parse_spec({"name": "test", **VARIANTS[name]})
        audio = 0.1 * noise(1, 2000, 1)[..., 0]
        estimate = np.asarray(WaveformModel(spec, build_model(spec))(audio, training=False))
        assert np.square(estimate - audio).sum() < 0.1 * np.square(audio).sum()


@pytest.mark.parametrize("name", ["erb bands", "mel bands", "causal"])
def test_band_matrices(name: str) -> None:
    spec = parse_spec({"name": "test", **VARIANTS[name]})
    to_bands, to_bins = band_matrices(spec)
    assert to_bands.shape == to_bins.shape[::-1] == (spec.stft.bins, spec.feature_bands)
    np.testing.assert_allclose(to_bands.sum(axis=0), 1, atol=1e-6)  # a mean of bins
    np.testing.assert_allclose(to_bins.sum(axis=0), 1, atol=1e-6)  # between two bands
    kept = np.eye(spec.kept_bins)
    np.testing.assert_array_equal(to_bands[: spec.kept_bins, : spec.kept_bins], kept)
    assert to_bands[: spec.kept_bins].sum() == spec.kept_bins


def test_the_seed_decides() -> None:
    spec = parse_spec({"name": "test", **VARIANTS["causal pooled"]})
    weights = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        weights.append(build_model(spec).get_weights())
    for first, again in zip(weights[0], weights[1], strict=True):
        np.testing.assert_array_equal(first, again)
    assert any((first != other).any() for first, other in zip(weights[0], weights[2], strict=True))


def test_dropout_leaves_out_whole_maps() -> None:
    stack = {"filters": 200, "dropout": 0.4}
    spec = parse_spec(
        {"name": "x", "stft": SMALL, "downsampling": [{"filters": 4}], "upsampling": [stack]}
    )
    drop = build_model(spec).get_layer("up0_0_dropout")
    maps = keras.ops.convert_to_numpy(drop(np.ones((3, 5, 7, 200), np.float32), training=True))
    assert (maps == maps[:, :1, :1]).all()
    share = (maps[:, 0, 0] == 0).mean(axis=1)
    assert ((share > 0.25) & (share < 0.55)).all()
    np.testing.assert_allclose(maps.max(), 1 / 0.6, rtol=1e-6)
