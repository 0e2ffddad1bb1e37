from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from denoisecli.errors import ModelError, UsageError
from denoisecli.models.export import ExportFormat, convert
from denoisecli.models.export.convert import export_model
from denoisecli.models.registry import build_model
from denoisecli.spec.document import parse_spec

BINS = 33


def build(*valley: dict[str, Any]) -> keras.Model:
    spec = {
        "name": "small",
        "stft": {"n_fft": 2 * BINS - 2, "hop_length": BINS - 1},
        "downsampling": [{"filters": 4, "strides": [2, 1]}],
        "valley": list(valley),
        "upsampling": [{"filters": 4}],
    }
    return build_model(parse_spec(spec))


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A U-Net with what is hard for a converter: recurrence both ways, normalization."""
    return build({"block": "recurrent", "axis": "time", "units": 4})


def model_folder(network: keras.Model, tmp_path: Path) -> Path:
    """Write as much of a model folder as an export reads."""
    folder = tmp_path / "model"
    folder.mkdir()
    network.save(folder / "model.keras")
    (folder / "model.onnx").touch()
    return folder


@pytest.fixture
def folder(network: keras.Model, tmp_path: Path) -> Path:
    return model_folder(network, tmp_path)


@pytest.fixture
def plain_folder(tmp_path: Path) -> Path:
    """The folder of a model that is quick to convert."""
    return model_folder(build(), tmp_path)


def onnx(path: Path, frames: int) -> Callable[[np.ndarray], np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    return lambda spectrum: session.run(["mask"], {"spectrum": spectrum})[0]


def litert(path: Path, frames: int) -> Callable[[np.ndarray], np.ndarray]:
    interpreter = tf.lite.Interpreter(model_path=str(path))
    given = interpreter.get_input_details()[0]
    assert list(given["shape"]) == [1, BINS, frames, 2]
    run = interpreter.get_signature_runner()
    return lambda spectrum: run(spectrum=spectrum)["mask"]


def saved_model(path: Path, frames: int) -> Callable[[np.ndarray], np.ndarray]:
    run = tf.saved_model.load(str(path)).signatures["serving_default"]
    return lambda spectrum: run(spectrum=tf.constant(spectrum))["mask"].numpy()


@pytest.mark.parametrize(
    "read",
    [
        onnx,
        pytest.param(litert, marks=pytest.mark.slow),
        pytest.param(saved_model, marks=pytest.mark.slow),
    ],
)
def test_the_file_gives_what_keras_gives(
    read: Callable[..., Callable[[np.ndarray], np.ndarray]],
    network: keras.Model,
    folder: Path,
    tmp_path: Path,
) -> None:
    """Read back as another program would."""
    format = ExportFormat(read.__name__)
    target = tmp_path / f"there{format.suffix}"
    difference = export_model(folder, target, format, frames=21)
    assert difference < 1e-5
    spectrum = np.random.default_rng(1).normal(size=(1, BINS, 21, 2)).astype(np.float32)
    found = read(target, 21)(spectrum)
    np.testing.assert_allclose(found, network(spectrum, training=False), atol=1e-5)
    with pytest.raises(UsageError, match="already exists"):
        export_model(folder, target, format)
    assert {path.name for path in tmp_path.iterdir()} == {"model", target.name}


@pytest.mark.parametrize("format", [ExportFormat.ONNX_STREAM, ExportFormat.SHERPA_ONNX])
def test_formats_for_streams(format: ExportFormat, tmp_path: Path) -> None:
    spec = {
        "name": "live",
        "causal": True,
        "downsampling": [{"filters": 2, "strides": [4, 1]}],
        "upsampling": [{"filters": 2}],
    }
    folder = model_folder(build_model(parse_spec(spec)), tmp_path)
    assert export_model(folder, tmp_path / "there.onnx", format) < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "there.onnx")
    assert session.get_modelmeta().custom_metadata_map["sample_rate"] == "16000"


def test_wrong_use(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "there.onnx"
    for message, arguments in {
        "must end in .tflite": (folder, target, ExportFormat.LITERT),
        "must end in .onnx": (folder, tmp_path / "there", ExportFormat.ONNX),
        "no model 'nosuch'": ("nosuch", target),
    }.items():
        with pytest.raises(UsageError, match=message):
            export_model(*arguments)
    with pytest.raises(UsageError, match="at least 1, not 0"):
        export_model(folder, tmp_path / "there.tflite", ExportFormat.LITERT, frames=0)
    (folder / "model.keras").write_text("no model")
    with pytest.raises(ModelError, match=r"model.keras cannot be loaded"):
        export_model(folder, target)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
def test_what_a_format_cannot_hold(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converter fails on layers that LiteRT lacks: here on a number of frames left open."""
    save = convert._save
    monkeypatch.setattr(convert, "_save", lambda *args: save(*args[:2], (None, None)))
    with pytest.raises(ModelError, match="LiteRT has no operators for this network"):
        export_model(folder, tmp_path / "there.tflite", ExportFormat.LITERT)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "factor"), [(ExportFormat.LITERT, 1.5), (ExportFormat.SAVED_MODEL, np.nan)]
)
def test_what_computes_something_else_is_not_written(
    format: ExportFormat,
    factor: float,
    plain_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensor = keras.ops.convert_to_numpy
    monkeypatch.setattr(keras.ops, "convert_to_numpy", lambda x: 1 + factor * tensor(x))
    with pytest.raises(ModelError, match="the exported network differs from Keras by"):
        export_model(plain_folder, tmp_path / f"there{format.suffix}", format)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
