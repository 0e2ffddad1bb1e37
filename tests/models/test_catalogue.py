import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from denoisecli.errors import ModelError, SpecError, UsageError
from denoisecli.models import catalogue as models
from denoisecli.models.catalogue import (
    find_model,
    find_spec,
    load_spec,
    model_names,
    read_metrics,
    spec_names,
)
from denoisecli.models.registry import build_model, load_network
from denoisecli.spec.document import Spec


def test_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert {"seed", "speech", "tiny"} <= set(spec_names())
    monkeypatch.setattr(models, "PRETRAINED", tmp_path)
    assert model_names() == []
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "spec.json").write_text("{}")
    (tmp_path / "README").write_text("")
    assert model_names() == ["some"]


def test_every_class_can_be_built() -> None:
    assert set(models.CLASSES) == set(Spec.model_fields["model"].annotation.__args__)
    assert type(build_model(load_spec("tiny"))).__name__ == "UNet"


def test_load_network(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    network = build_model(load_spec("tiny"))
    network.save(tmp_path / "model.keras")
    code = (
        "import sys; from pathlib import Path;"
        "from denoisecli.models.catalogue import load_network;"
        "network = load_network(Path(sys.argv[1]));"
        "print(type(network).__name__, float(network.weights[0][0, 0, 0, 0]))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "model.keras")]
    result = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert result.stdout.split() == ["UNet", str(float(network.weights[0][0, 0, 0, 0]))]


def test_networks_that_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with pytest.raises(ModelError, match=r"model\.keras cannot be loaded"):
        load_network(path)
    path.write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"model\.keras cannot be loaded"):
        load_network(path)
    # A layer that would run the code of a stranger.
    code = keras.layers.Lambda(lambda x: x + 1, output_shape=(2,))
    keras.Sequential([keras.Input((2,)), code]).save(path)
    with pytest.raises(ModelError, match=r"(?s)cannot be loaded: .*[Ll]ambda"):
        load_network(path)


def test_find_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_spec("tiny") == models.SPECS / "tiny.json"
    (tmp_path / "tiny").mkdir()
    assert find_spec("tiny") == models.SPECS / "tiny.json"  # a folder without a spec hides nothing
    (tmp_path / "tiny" / "spec.json").write_text("{}")
    assert find_spec("tiny") == find_spec(Path("tiny")) == Path("tiny/spec.json")
    (tmp_path / "mine.json").write_text("{}")
    assert find_spec("mine.json") == Path("mine.json")
    for missing in ("mine", "mine.json/spec.json", "../other"):
        with pytest.raises(SpecError, match=r"no spec '.*tiny") as raised:
            find_spec(missing)
        assert missing in str(raised.value)


def test_find_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundled = tmp_path / "pretrained" / "speech"
    for folder in (bundled, tmp_path / "run" / "model", tmp_path / "folder"):
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"")
        (folder / "spec.json").write_text("{}")
    monkeypatch.setattr(models, "PRETRAINED", bundled.parent)
    assert find_model("speech") == bundled
    assert find_model("run") == find_model("run/model") == Path("run/model")
    assert find_model("folder") == Path("folder")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty is no model folder: it holds no model.onnx"):
        find_model("empty")
    with pytest.raises(UsageError, match=r"no model 'speach': .* \(speech\)"):
        find_model("speach")


def test_read_metrics(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"test": {"loss": 0.5}}))
    assert read_metrics(tmp_path) == {"test": {"loss": 0.5}}
    (tmp_path / "metrics.json").write_text('{"test": ')
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ModelError, match=r"metrics\.json cannot be read"):
            read_metrics(folder)


def test_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys; from denoisecli.spec.document import load_spec; load_spec('tiny');"
        "from denoisecli.models.catalogue import spec_names, model_names;"
        "spec_names(); model_names();"
        "print([name for name in ('keras', 'tensorflow', 'librosa') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert result.stdout.strip() == b"[]"
