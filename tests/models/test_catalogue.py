import subprocess
import sys
from pathlib import Path

import pytest

from denoisecli.errors import SpecError, UsageError
from denoisecli.models import catalogue
from denoisecli.models.catalogue import (
    find_model,
    find_spec,
    for_sample_rate,
    load_spec,
    local_models,
    model_names,
    spec_names,
)
from denoisecli.models.folder import ModelFolder


def test_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert {"seed", "speech", "tiny"} <= set(spec_names())
    monkeypatch.setattr(catalogue, "PRETRAINED", tmp_path)
    assert model_names() == []
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "spec.json").write_text("{}")
    (tmp_path / "README").write_text("")
    assert model_names() == ["some"]


def test_find_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_spec("tiny") == catalogue.SPECS / "tiny.json"
    (tmp_path / "tiny").mkdir()
    assert (
        find_spec("tiny") == catalogue.SPECS / "tiny.json"
    )  # a folder without a spec hides nothing
    (tmp_path / "tiny" / "spec.json").write_text("{}")
    assert find_spec("tiny") == find_spec(Path("tiny")) == Path("tiny/spec.json")
    (tmp_path / "mine.json").write_text("{}")
    assert find_spec("mine.json") == Path("mine.json")
    for missing in ("mine", "mine.json/spec.json", "../other"):
        with pytest.raises(SpecError, match=r"no spec '.*tiny|does not exist") as raised:
            find_spec(missing)
        assert missing in str(raised.value)


def test_find_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundled = tmp_path / "pretrained" / "speech"
    for folder in (bundled, tmp_path / "run" / "model", tmp_path / "folder"):
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"")
        (folder / "spec.json").write_text("{}")
    monkeypatch.setattr(catalogue, "PRETRAINED", bundled.parent)
    assert find_model("speech").path == bundled
    assert find_model("run").path == find_model("run/model").path == Path("run/model")
    assert find_model("folder").path == Path("folder")
    assert [model.path.name for model in local_models(tmp_path)] == ["folder", "speech", "model"]
    written = tmp_path / "run" / ".model.0123.denoise-part" / "part" / "model.onnx"
    written.parent.mkdir(parents=True)
    written.write_bytes(b"")
    assert [model.path.name for model in local_models(tmp_path)] == ["folder", "speech", "model"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty is not a model folder: it contains no model.onnx"):
        find_model("empty")
    with pytest.raises(UsageError, match=r"no model 'speach': .* \(speech\)"):
        find_model("speach")


def test_load_spec_checks_the_search_space(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    level = '[{"filters": 4}]'
    search = '{"space": {"training.epoch": {"kind": "choice", "values": [1, 2]}}}'
    path.write_text(
        f'{{"name": "x", "downsampling": {level}, "upsampling": {level}, "search": {search}}}'
    )
    with pytest.raises(SpecError, match=r"spec\.json: search\.space\.training\.epoch: ") as raised:
        load_spec(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys; from denoisecli.models import catalogue;"
        "catalogue.load_spec('tiny'); catalogue.find_model('speech').spec;"
        "print(sorted({'keras', 'librosa', 'onnx', 'tensorflow'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert result.stdout.strip() == b"[]"


def test_a_bundled_model_can_have_a_counterpart_for_low_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "PRETRAINED", tmp_path / "pretrained")
    for name in ("one", "one-16k", "other"):
        (tmp_path / "pretrained" / name).mkdir(parents=True)
        (tmp_path / "pretrained" / name / "spec.json").write_text("{}")

    def chosen(name: str, rate: int) -> str:
        model = ModelFolder(tmp_path / "pretrained" / name)
        return for_sample_rate(model, rate).path.name

    assert [chosen("one", rate) for rate in (8000, 16000)] == ["one-16k"] * 2
    assert chosen("one", 22050) == chosen("one", 48000) == "one"
    assert chosen("one-16k", 16000) == "one-16k"
    assert chosen("other", 16000) == "other"
    own = ModelFolder(tmp_path / "one")
    assert for_sample_rate(own, 16000) is own
