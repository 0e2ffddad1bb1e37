"""`denoise models`, `denoise spec` and `denoise export` as a user calls them."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from helpers import constant_mask, denoise, fails

from denoisecli.models.catalogue import model_names
from denoisecli.system import extras


@pytest.fixture
def local(
    model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with a model as train writes it, and one whose figures are lost."""
    monkeypatch.chdir(tmp_path)
    metrics = {
        "parameters": 12345,
        "macs_per_second": 1.5e8,
        "audio_hours": 53.3,
        "init_from": "runs/first/model",
        "test": {"si_sdr_improvement": 7.25},
    }
    model = model_folder(constant_mask(0.5))
    (model / "metrics.json").write_text(json.dumps(metrics))
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
    assert "metrics.json is damaged" in shown.stderr


def test_models_as_json(local: Path) -> None:
    found = json.loads(denoise("models", local, "--json").stdout)
    mine = next(model for model in found if model["parameters"] == 12345)
    assert (mine["audio_hours_of_last_run"], mine["init_from"]) == (53.3, "runs/first/model")
    assert mine["macs_per_second"] == 1.5e8
    assert mine["delay_seconds"] > 0
    assert mine["folder"] == "model0"
    for name in model_names():
        bundled = next(model for model in found if model["name"] == name)
        assert bundled["parameters"] > 10_000
        assert bundled["mib"] > 0.1


def test_what_training_did_not_record_is_left_open(local: Path) -> None:
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


def test_local_models_are_in_runs_by_default(local: Path) -> None:
    Path("runs/mine").mkdir(parents=True)
    Path("model0").rename("runs/mine/model")
    found = json.loads(denoise("models", "--json").stdout)
    assert [model["name"] for model in found if model["parameters"] == 12345] == ["runs/mine"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    fails(denoise("models", tmp_path / "none"), 2, "none", "folder")


def test_spec_shows_the_network() -> None:
    shown = denoise("spec", "speech-live-16k")
    assert shown.exit_code == 0, shown.output
    row = next(line for line in shown.stdout.splitlines() if "down0_0_convolution" in line)
    # 257 bins are padded to 272, and 8 x 3 taps of 3 channels are taken for each of 32 filters.
    assert row.split()[1:] == ["Conv2D", "68", "62.5", "32", "2,304", "9.8"]
    assert "264,165 parameters, 356 million multiply-accumulates" in shown.stderr
    assert "depends on everything before it and 32 ms after it" in shown.stderr
    assert "files are cleaned in blocks of 6.5 s, which take about " in shown.stderr


def test_spec_as_json() -> None:
    summary = json.loads(denoise("spec", "seed", "--json").stdout)
    assert summary["future_seconds"] == pytest.approx(1.744)
    parameters = sum(layer["parameters"] for layer in summary["layers"])
    assert parameters == summary["parameters"]
    assert json.loads(denoise("spec", "tiny", "--json").stdout)["past_seconds"] is None


def test_resolved_spec_and_schema() -> None:
    resolved = json.loads(denoise("spec", "tiny", "--resolved").stdout)
    assert resolved["stft"] == {"n_fft": 512, "hop_length": 256, "window": "sqrt_hann"}
    assert "Stft" in json.loads(denoise("spec", "--schema").stdout)["$defs"]
    fails(denoise("spec"), 2, "--schema")


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["spec", "nosuch"], 2),
        (["export", "nosuch", "-o", "there.onnx"], 2),
        (["spec", "tiny", "--resolved"], 0),
        (["spec", "--schema"], 0),
        (["models"], 0),
    ],
)
def test_what_needs_the_training_packages_says_so(
    arguments: list[str], exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    shown = denoise(*arguments)
    assert shown.exit_code == exit_code
    assert ('TensorFlow: pip install "denoisecli[train]"' in shown.stderr) == (exit_code == 2)


@pytest.mark.parametrize("format", ["onnx", "onnx-stream", "sherpa-onnx", "saved_model"])
def test_export_refuses_frames_that_have_no_effect(format: str, tmp_path: Path) -> None:
    target = tmp_path / "x"
    result = denoise("export", "speech", "-o", target, "--format", format, "--frames", "64")
    fails(result, 2, "--frames applies to --format litert only")


@pytest.mark.slow
def test_export_of_a_bundled_model(tmp_path: Path) -> None:
    target = tmp_path / "speech.onnx"
    shown = denoise("export", "speech", "-o", target)
    assert shown.exit_code == 0, shown.output
    assert "largest difference from Keras" in shown.stderr
    assert onnx.load(target).graph.output[0].name == "mask"
    fails(denoise("export", "speech", "-o", target), 2, "--overwrite")
    fails(denoise("export", "speech", "-o", target, "--format", "tflite"), 2, "litert")
