import json
import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from denoisecli.errors import ModelError, SpecError
from denoisecli.models.catalogue import find_model, load_spec, model_names
from denoisecli.models.folder import Metrics, ModelFolder
from denoisecli.models.registry import build_model


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_bundled_models_load(name: str) -> None:
    """That of speech-live-16k was written before the package had rooms."""
    folder = find_model(name)
    network = folder.load_network()
    assert network.spec == folder.spec
    spectrum = (
        np.random.default_rng(0)
        .normal(size=(1, folder.spec.stft.n_fft // 2 + 1, 12, 2))
        .astype(np.float32)
    )
    (expected,) = onnxruntime.InferenceSession(folder.onnx_path).run(
        ["mask"], {"spectrum": spectrum}
    )
    np.testing.assert_allclose(network(spectrum, training=False), expected, atol=1e-4)
    metrics = folder.read_metrics()
    assert metrics.parameters == network.count_params()
    if metrics.test:  # the mean of two models has none
        assert metrics.test["si_sdr_improvement"] > 10


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    network = build_model(load_spec("tiny"))
    metrics = Metrics(
        epochs=3, test={"loss": math.nan}, onnx_difference=folder.write_network(network)
    )
    folder.write_metrics(metrics)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["metrics.json", "model.keras", "model.onnx", "spec.json"]
    assert folder.spec == load_spec("tiny").model_copy(update={"search": None})
    assert folder.load_network().count_params() == network.count_params()
    assert "NaN" not in folder.metrics_path.read_text()
    assert folder.read_metrics() == metrics.model_copy(update={"test": {"loss": None}})
    assert 0 <= folder.read_metrics().onnx_difference < 1e-4


@pytest.mark.parametrize(
    ("path", "name"), [("runs/a/model", "runs/a"), ("runs/a", "runs/a"), ("model/model", "model")]
)
def test_the_model_of_a_run_has_its_name(path: str, name: str) -> None:
    assert ModelFolder(Path(path)).named_path == Path(name)


def test_metrics_of_other_versions_are_read(tmp_path: Path) -> None:
    """Fields that a version does not know are left out, and missing ones are None."""
    folder = ModelFolder(tmp_path)
    folder.metrics_path.write_text(json.dumps({"test": {"loss": 0.5}, "planets": 9}))
    assert folder.read_metrics() == Metrics(test={"loss": 0.5})
    folder.metrics_path.write_text('{"test": {"loss": NaN}}')  # earlier versions wrote NaN
    assert math.isnan(folder.read_metrics().test["loss"])


def test_damaged_folders(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    with pytest.raises(ModelError, match=r"metrics\.json cannot be read: No such file"):
        folder.read_metrics()
    for text, reason in {
        '{"test": ': "JSON",
        "[]": "object",
        '{"test": null}': "test: ",
        '{"parameters": "many"}': "parameters: ",
    }.items():
        folder.metrics_path.write_text(text)
        with pytest.raises(ModelError, match=rf"metrics\.json is damaged: .*{reason}"):
            folder.read_metrics()
    with pytest.raises(SpecError, match=r"spec\.json: cannot be read"):
        _ = folder.spec
