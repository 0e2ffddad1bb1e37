from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from denoisecli.errors import ModelError
from denoisecli.models.catalogue import PRETRAINED, load_spec
from denoisecli.models.export import onnx_graph
from denoisecli.models.export import onnx_network as export
from denoisecli.models.export.onnx_network import export_onnx
from denoisecli.models.registry import build_model
from denoisecli.spec.document import parse_spec

# That a whole U-Net of every kind gives what Keras gives is tested with the U-Net.


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def network_of(*layers: keras.layers.Layer, bins: int = 12) -> keras.Model:
    """Layers in a row, with weights that are neither zero nor one."""
    spectrum = x = keras.Input((bins, None, 2), name="spectrum")
    for layer in layers:
        x = layer(x)
    network = keras.Model(spectrum, x)
    generator = np.random.default_rng(0)
    network.set_weights([generator.uniform(0.2, 1, w.shape) for w in network.get_weights()])
    return network


def differences(network: keras.Model, path: Path) -> float:
    """Export and compare, with as many frames as divide by the strides."""
    export_onnx(network, path)
    session = onnxruntime.InferenceSession(path)
    spectrum = np.random.default_rng(1).normal(size=(2, network.inputs[0].shape[1], 24, 2))
    (found,) = session.run(["mask"], {"spectrum": spectrum.astype(np.float32)})
    expected = np.asarray(network(spectrum.astype(np.float32), training=False))
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


def names(graph: onnx.GraphProto) -> list[str]:
    """Names of all nodes, those of the bodies of loops included."""
    bodies = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
    return [node.name for node in graph.node] + [name for body in bodies for name in names(body)]


@pytest.mark.parametrize("path", sorted(PRETRAINED.glob("*/*.onnx")), ids=lambda p: str(p)[-30:])
def test_nodes_of_bundled_models_have_names_of_their_own(path: Path) -> None:
    """ONNX Runtime 1.20 and 1.21 load no graph without them."""
    found = names(onnx.load(path).graph)
    assert all(found)
    assert len({*found}) == len(found)


@pytest.mark.slow
def test_graph_of_a_bundled_spec(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    network = build_model(load_spec("tiny"))
    assert export_onnx(network, path) < 1e-4
    found = operators(path)
    # Along time, a loop of many small operators would take several times as long.
    assert (found["GRU"], found["Scan"]) == (1, 1)
    assert not set(found) & {"Loop", "If", "BatchNormalization"}
    assert found["Transpose"] <= 14
    assert path.stat().st_size < 4 * network.count_params() + 20_000

    model = onnx.load(path)
    nodes = names(model.graph)
    assert all(nodes)
    assert len({*nodes}) == len(nodes)
    assert [opset.version for opset in model.opset_import] == [onnx_graph.OPSET]
    for value, parts in ((model.graph.input, 2), (model.graph.output, 2)):
        sizes = [dim.dim_param or dim.dim_value for dim in value[0].type.tensor_type.shape.dim]
        assert sizes == ["batch", 257, "time", parts]
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("spectrum", "mask")


@pytest.mark.parametrize(
    ("size", "strides"),
    [
        *(((1, 1), (1, 1)), ((1, 1), (4, 3)), ((2, 3), (1, 1)), ((2, 3), (2, 1))),
        *(((3, 2), (4, 3)), ((4, 4), (3, 2)), ((5, 1), (2, 1)), ((8, 3), (4, 3))),
    ],
)
def test_padding(size: tuple[int, int], strides: tuple[int, int], tmp_path: Path) -> None:
    network = network_of(
        keras.layers.Conv2D(3, size, strides, padding="same"),
        keras.layers.Conv2DTranspose(2, size, strides, padding="same"),
    )
    with pytest.MonkeyPatch.context() as patch:
        # The comparison in the export takes 37 frames; these strides want a multiple.
        patch.setattr(export, "compare_with_keras", lambda *args: 0.0)
        # Outputs reach about 10 here; padding on the wrong side would differ by about that.
        assert differences(network, tmp_path / "model.onnx") < 1e-3


def test_batch_normalization_is_folded(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    layers = keras.layers
    network = network_of(
        layers.Conv2D(4, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3, padding="same", dilation_rate=(2, 3)),
        layers.BatchNormalization(),
        layers.Conv2DTranspose(3, (2, 1), (2, 1), padding="same"),
        layers.BatchNormalization(),
        layers.Dense(2),
        layers.BatchNormalization(),
    )
    assert differences(network, path) < 1e-3
    assert set(operators(path)) - {"Shape", "Slice", "Gather", "Concat", "Reshape"} == {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "Transpose",
        "Identity",
    }

    network = network_of(layers.Activation("tanh"), layers.BatchNormalization(), bins=5)
    assert differences(network, path) < 1e-5
    assert operators(path)["Mul"] == operators(path)["Add"] == 1


def test_a_map_that_is_used_twice_stays_as_it_is(tmp_path: Path) -> None:
    """A normalization changes only what passes it, and a map can be joined with itself."""
    layers = keras.layers
    spectrum = keras.Input((12, None, 2), name="spectrum")
    y = layers.Conv2D(4, 3, padding="same")(spectrum)
    z = layers.Conv2D(4, 3, padding="same")(layers.BatchNormalization()(y))
    network = keras.Model(spectrum, layers.Concatenate()([layers.Add()([y, z]), z, z]))
    generator = np.random.default_rng(0)
    network.set_weights([generator.uniform(0.2, 1, w.shape) for w in network.get_weights()])
    assert differences(network, tmp_path / "model.onnx") < 1e-3


def test_a_u_net_whose_innermost_level_is_linear(tmp_path: Path) -> None:
    levels = [{"filters": 4}, {"filters": 8, "activation": "linear"}]
    spec = {"name": "x", "downsampling": levels, "upsampling": [{"filters": 4}] * 2}
    assert export_onnx(build_model(parse_spec(spec)), tmp_path / "model.onnx") < 1e-4


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (keras.layers.Conv2D(2, 3, padding="same", activation="relu"), "activation='relu'"),
        (keras.layers.Conv2D(2, 3, padding="same", groups=2), "groups=2"),
        (keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), "depth_multiplier=2"),
        (keras.layers.Conv2DTranspose(2, 3), "padding='valid'"),
        (keras.layers.Dense(2, activation="tanh"), "activation='tanh'"),
        (keras.layers.Activation("softplus"), "activation='softplus'"),
        (keras.layers.BatchNormalization(scale=False), "scale=False"),
        (keras.layers.LayerNormalization(center=False), "center=False"),
        (keras.layers.MaxPooling2D(2, 1), r"strides=\(1, 1\)"),
        (keras.layers.UpSampling2D(2, interpolation="bilinear"), "interpolation='bilinear'"),
    ],
)
def test_settings_that_cannot_be_exported(
    layer: keras.layers.Layer, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"layer {layer.name} cannot be exported with {problem}"):
        export_onnx(network_of(layer), tmp_path / "model.onnx")


def test_layers_that_cannot_be_exported(tmp_path: Path) -> None:
    network = network_of(keras.layers.GaussianNoise(0.1, name="hiss"))
    with pytest.raises(ModelError, match=r"layer hiss \(GaussianNoise\) cannot be exported"):
        export_onnx(network, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("factor", [1.5, np.nan])
def test_wrong_graphs_are_not_written(
    factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = onnx_graph.Graph.linear

    def wrong(
        graph: Any, operator: str, x: str, weight: np.ndarray, *rest: Any, **more: Any
    ) -> str:
        return linear(graph, operator, x, np.float32(factor) * weight, *rest, **more)

    monkeypatch.setattr(onnx_graph.Graph, "linear", wrong)
    with pytest.raises(ModelError, match="the ONNX graph differs from Keras by"):
        export_onnx(network_of(keras.layers.Conv2D(2, 1)), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
