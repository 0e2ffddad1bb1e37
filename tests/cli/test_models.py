"""`denoise models` and `denoise export` as a user calls them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from helpers import constant_mask, denoise, fails

from denoisecli.models.catalogue import model_names


@pytest.fixture
def local(
    model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with a model as train writes it, and one whose figures are lost."""
    monkeypatch.chdir(tmp_path)
    facts = {
        "parameters": 12345,
        "macs_per_second": 1.5e8,
        "audio_hours": 53.3,
        "test": {"si_sdr_improvement": 7.25},
    }
    model = model_folder(constant_mask(0.5))
    (model / "metrics.json").write_text(json.dumps(facts))
    damaged = model_folder(constant_mask(0.5))
    (damaged / "metrics.json").write_text("no JSON")
    return Path()


def test_bundled_and_local_models(local: Path) -> None:
    shown = denoise("models", local)
    assert shown.exit_code == 0, shown.output
    assert [name for name in model_names() if name not in shown.stdout] == []
    row = next(line for line in shown.stdout.splitlines() if "12,345" in line)
    for text in ("model0", "16000 Hz", " 150 ", "7.2 dB", "53 h", "MiB"):
        assert text in row
    assert "metrics.json cannot be read" in shown.stderr


def test_models_as_json(local: Path) -> None:
    found = json.loads(denoise("models", local, "--json").stdout)
    mine = next(one for one in found if one["parameters"] == 12345)
    assert mine["macs_per_second"] == 1.5e8
    assert mine["delay_seconds"] > 0
    assert mine["folder"] == "model0"
    for name in model_names():
        bundled = next(one for one in found if one["name"] == name)
        assert bundled["parameters"] > 10_000
        assert bundled["mib"] > 0.1


def test_what_training_did_not_note_is_left_open(local: Path) -> None:
    (local / "model0" / "metrics.json").write_text("{}")
    shown = denoise("models", local)
    row = next(line for line in shown.stdout.splitlines() if "model0" in line)
    assert row.split().count("-") == 4


@pytest.mark.parametrize("text", ["[]", '{"test": null}', "{"])
def test_one_damaged_model_does_not_hide_the_others(local: Path, text: str) -> None:
    (local / "model0" / "metrics.json").write_text(text)
    shown = denoise("models", local)
    assert shown.exit_code == 0
    assert "speech" in shown.stdout
    assert "model0" not in shown.stdout
    assert "warning" in shown.stderr and "metrics.json" in shown.stderr


def test_runs_is_where_local_models_are(local: Path) -> None:
    Path("runs/mine").mkdir(parents=True)
    Path("model0").rename("runs/mine/model")
    found = json.loads(denoise("models", "--json").stdout)
    assert [one["name"] for one in found if one["parameters"] == 12345] == ["runs/mine"]


def test_no_such_folder(tmp_path: Path) -> None:
    fails(denoise("models", tmp_path / "none"), 2, "none", "folder")


def test_models_never_loads_tensorflow(local: Path) -> None:
    code = (
        "import sys; from denoisecli.cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, "models", str(local)], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_export_of_a_bundled_model(tmp_path: Path) -> None:
    target = tmp_path / "speech.onnx"
    shown = denoise("export", "speech", "-o", target)
    assert shown.exit_code == 0, shown.output
    assert "largest difference from Keras" in shown.stderr
    assert onnx.load(target).graph.output[0].name == "mask"
    fails(denoise("export", "speech", "-o", target), 2, "--overwrite")
    fails(denoise("export", "speech", "-o", target, "--format", "tflite"), 2, "litert")
