"""`docs/new-model.md`, followed literally."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
from helpers import denoise, fails, speech_like

from denoisecli.datasets.building import build
from denoisecli.datasets.recipe import Recipe
from denoisecli.models import registry
from denoisecli.models.folder import ModelFolder
from denoisecli.training.losses import waveform

PAGE = (Path(__file__).parents[1] / "docs" / "new-model.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the two files of the page, a dataset and a noisy recording."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine.json").write_text(blocks("json")[0])
    (folder / "mine.py").write_text(blocks("python")[0])
    rng = np.random.default_rng(0)
    for kind, count in (("clean", 9), ("noise", 4)):
        (folder / kind).mkdir()
        for number in range(count):
            sound = 0.05 * rng.normal(size=16000)
            if kind == "clean":
                sound = speech_like(1, 16000, 100 + 20 * number)
            soundfile.write(folder / kind / f"{number}.wav", sound, 16000)
    build(folder / "clean", folder / "noise", folder / "data", Recipe(snr_db=(0.0, 5.0)))
    soundfile.write(folder / "noisy.wav", 0.1 * rng.normal(size=16000), 16000)
    return folder


@pytest.fixture
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to the folder, with nothing allowed yet."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr(registry, "_own", {})
    monkeypatch.setattr(waveform, "LOSSES", waveform.LOSSES)
    for name in [name for name in waveform.LOSSES if ":" in name]:
        monkeypatch.delitem(waveform.LOSSES, name)
    return folder


@pytest.mark.slow
def test_the_commands_of_the_page(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        denoise(*shlex.split(line)[1:]) for line in blocks("sh")[0].splitlines() if line.strip()
    ]
    for result in results:
        assert result.exit_code == 0, result.output
    shown, trained, _, _ = results
    assert "BandGain" in shown.stdout
    assert re.findall(r"epoch (\d): \d", trained.stdout) == ["0", "1"]
    noisy, _ = soundfile.read("noisy.wav")
    clean, _ = soundfile.read("clean.wav")
    assert clean.shape == noisy.shape
    assert not np.array_equal(clean, noisy)
    model = ModelFolder(in_folder / "runs" / "mine" / "model")
    assert (model.spec.model, model.spec.options) == ("mine:Small", {"width": 8})
    spectrum = np.random.default_rng(0).normal(size=(1, 257, 9, 2)).astype("float32")
    masks = [
        onnxruntime.InferenceSession(path).run(["mask"], {"spectrum": spectrum})[0]
        for path in ("mine.onnx", model.onnx_path)
    ]
    np.testing.assert_array_equal(*masks)

    # The engine of Keras needs the class, and says so.
    keras = ["clean", "noisy.wav", "-o", "again.wav", "--model", "runs/mine", "--engine", "keras"]
    assert denoise(*keras, "--model-class", "mine:Small").exit_code == 0
    again, _ = soundfile.read("again.wav")
    np.testing.assert_allclose(again, clean, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["spec", "mine.json"],
            "class mine:Small, which is not part of denoise; --model-class",
        ),
        (["train", "mine.json"], "--model-class mine:Small runs its code"),
        (["train", "mine.json", "--model-class", "mine:Small"], "--loss mine:hiss runs it"),
        (["spec", "mine.json", "--model-class", "mine:Big"], "mine.py has no Big"),
        (["spec", "mine.json", "--model-class", "mine:hiss"], "is not a subclass of MaskNetwork"),
        (
            ["train", "tiny", "--callback", "mine:Small"],
            "mine:Small is not a subclass of keras.callbacks.Callback",
        ),
    ],
)
def test_code_is_run_only_if_the_command_names_it(
    arguments: list[str], message: str, in_folder: Path
) -> None:
    fails(denoise(*arguments), 2, message)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("return spectrum + 1.0", ", which cannot be exported; put it into a layer"),
        ("return keras.layers.Dense(3)(spectrum)", "returns the shape (None, 257, None, 3), but"),
        ("return keras.layers.Softmax()(spectrum)", "(Softmax) cannot be exported"),
    ],
)
def test_networks_that_cannot_be_used_are_refused_before_training(
    mask: str, message: str, in_folder: Path, request: pytest.FixtureRequest
) -> None:
    name = f"bad{request.node.callspec.indices['mask']}_of_mine"
    (in_folder / f"{name}.py").write_text(
        "import keras\nfrom denoisecli.models.network import MaskNetwork\n\n"
        f"class Bad(MaskNetwork):\n    @staticmethod\n    def build_mask(spec, spectrum):\n        "
        f"{mask}\n"
    )
    code = ["--model-class", f"{name}:Bad", "--loss", "mine:hiss"]
    result = denoise("train", "mine.json", *code, "--run", f"runs/{name}")
    fails(result, 1 if "Softmax" in mask else 2, message)
    assert not (in_folder / "runs" / name / "model").exists()
