import json
from pathlib import Path
from typing import Any

import pytest
from helpers import denoise, fails

from denoisecli.cli import training as cli_training
from denoisecli.errors import SpecError
from denoisecli.models.catalogue import load_spec, spec_names
from denoisecli.models.folder import Metrics, ModelFolder
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.system import extras
from denoisecli.training.devices import Cluster, Device
from denoisecli.training.history import Row, write_history
from denoisecli.training.run_folder import locked, record_start


class FakeTraining:
    """Stands for `train`, which takes minutes and needs TensorFlow."""

    def __init__(self, gain: float | None = 4.1234) -> None:
        self.gain = gain
        self.calls: list[dict[str, Any]] = []

    def __call__(self, spec: Spec, data: Path, run: Path, observer: object, **options: Any) -> Path:
        self.calls.append({"spec": spec, "data": data, "run": run, **options})
        (run / "model").mkdir(parents=True, exist_ok=True)
        metrics = Metrics(epochs=3, audio_hours=2.06, minutes=1.53)
        metrics.test = {"loss": 0.5, "si_sdr_improvement": self.gain}
        ModelFolder(run / "model").write_metrics(metrics)
        return run / "model"


@pytest.fixture
def fake_training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr("denoisecli.training.train.train", fake)
    monkeypatch.setattr(cli_training, "load_keras", lambda purpose: None)
    return fake


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (4.1234, "4.12 dB better than that of the noisy input"),
        (-0.96, "0.96 dB worse than that of the noisy input"),
        (None, "not comparable with that of the noisy input"),
    ],
)
def test_train_reports_model_gain_and_curves(
    gain: float | None, words: str, fake_training: FakeTraining, tmp_path: Path
) -> None:
    fake_training.gain = gain
    result = denoise("train", "tiny", "--run", tmp_path / "run")
    assert result.exit_code == 0, result.output
    wrote, test, curves = result.stderr.splitlines()
    model = tmp_path / "run" / "model"
    assert wrote == f"wrote {model}: 3 epochs, 2.1 hours of audio, 1.5 minutes"
    assert test == (
        f"test set: the SI-SDR is {words} (mean over segments of 2 s; denoise evaluate takes the "
        "mean over whole files)"
    )
    assert curves == f"curves: {model / 'curves.png'}"


def test_train_overrides_the_spec(fake_training: FakeTraining, tmp_path: Path) -> None:
    result = denoise(
        *("train", "tiny", "--data", tmp_path, "--run", tmp_path / "run", "--minutes", "2.5"),
        *("--epochs", "5", "--learning-rate", "0.001", "--batch-size", "8", "--device", "cpu"),
        *("--init-from", "speech", "--fresh", "--cpu-parts", "2"),
    )
    assert result.exit_code == 0, result.output
    (call,) = fake_training.calls
    training = call["spec"].training
    assert (training.epochs, training.learning_rate, training.batch_size) == (5, 0.001, 8)
    assert call["data"] == tmp_path
    assert call["minutes"] == 2.5
    assert call["device"] is Device.CPU
    assert call["init_from"].name == "speech"
    assert call["fresh"]
    assert call["cpu_parts"] == 2
    assert call["cluster"] is None


def test_train_without_options(
    fake_training: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert denoise("train", "tiny").exit_code == 0
    (call,) = fake_training.calls
    assert (call["data"], call["run"]) == (Path("data"), Path("runs/tiny"))
    assert call["minutes"] is None
    assert call["spec"] == load_spec("tiny").model_copy(update={"search": None})


def test_train_in_several_processes(
    fake_training: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(extras, "find_spec", lambda name: object())
    arguments = ["train", "tiny", "--run", tmp_path, "--coordinator", "host:1", "--processes", "2"]
    result = denoise(*arguments, "--process", "1")
    assert result.exit_code == 0, result.output
    assert fake_training.calls[0]["cluster"] == Cluster("host:1", 2, 1)
    assert result.stderr == ""  # process 0 reports the result


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "2"], "several processes need --coordinator HOST:PORT"),
        (["--process", "1"], "several processes need --coordinator HOST:PORT"),
        (["--coordinator", "host", "--processes", "2"], "expected HOST:PORT"),
        (["--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'gpu'"),
        (["--learning-rate", "2"], "training.learning_rate"),
        (["--batch-size", "0"], "must be greater than or equal to 1"),
        (["--init-from", "nothing"], "no model 'nothing'"),
    ],
)
def test_wrong_options_of_train(
    options: list[str], message: str, fake_training: FakeTraining, tmp_path: Path
) -> None:
    result = denoise("train", "tiny", "--run", tmp_path / "run", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", "").split())
    assert fake_training.calls == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--music", "m"], "--music needs --clean and --noise"),
        (["--rooms", "3", "--cache", "c"], "--rooms, --cache need --clean and --noise"),
        (["--group-by", "folder"], "--group-by needs --clean and --noise"),
        (["--group-noise-by", "file"], "--group-noise-by needs --clean and --noise"),
        (["--clean-weight", "x=3"], "--clean-weight needs --clean and --noise"),
        (["--data", "d", "--noise-weight", "x=3"], "--noise-weight needs --clean and --noise"),
        (["--clean", "c"], "--clean and --noise belong together"),
        (["--clean", "c", "--noise", "n", "--data", "data"], "either --data, a stored dataset, or"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(
    options: list[str], message: str, fake_training: FakeTraining, tmp_path: Path
) -> None:
    fails(denoise("train", "tiny", "--run", tmp_path / "run", *options), 2, message)
    assert fake_training.calls == []


@pytest.mark.parametrize(
    ("missing", "options", "message"),
    [
        ("tensorflow", [], 'training needs TensorFlow: pip install "denoisecli[train]"'),
        (
            "jax",
            ["--coordinator", "host:1", "--processes", "2"],
            'training in several processes needs JAX: pip install "denoisecli[jax]"',
        ),
    ],
)
def test_train_names_the_missing_extra(
    missing: str,
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == missing else object())
    result = denoise("train", "tiny", "--run", tmp_path / "run", *options)
    fails(result, 2, message)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Make a folder with a finished run and one that has not ended its first epoch."""
    level = [{"filters": 4}]
    document = {"name": "test", "downsampling": level, "upsampling": level}
    spec = parse_spec({**document, "training": {"epochs": 7}})
    figures = {"val_loss": 0.25, "val_si_sdr_improvement": 4.125}
    first: Row = {"epoch": 1, "minutes": 0.5, "audio_hours": 1.25, **figures}
    rows = [first, {**first, "epoch": 2, "val_loss": 0.5}]
    for name, written in (("done", rows), ("new", [])):
        folder = tmp_path / "runs" / name
        with locked(folder):
            record_start(
                folder, spec, dataset="d", data=tmp_path, device="a CPU", init_from="speech"
            )
            write_history(written, folder / "history.csv")
    model = tmp_path / "runs" / "done" / "model"
    model.mkdir()
    write_history(rows, model / "history.csv")
    test = {"loss": 0.75, "si_sdr_improvement": 3.5}
    (model / "metrics.json").write_text(json.dumps({"test": test}))
    return tmp_path / "runs"


def test_runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = denoise("runs", runs)
    assert result.exit_code == 0, result.output
    header, done, new = result.stdout.splitlines()
    assert header.split() == [
        *("run", "state", "epochs", "audio", "hours", "minutes"),
        *("val", "loss", "val", "gain", "test", "loss", "test", "gain"),
    ]
    expected = ["done", "finished", "2/7", "1.2", "0.5", "0.2500", "4.12", "0.7500", "3.50"]
    assert done.split() == expected
    assert new.split() == ["new", "stopped", "0/7", "0.0", "0.0", *"----"]
    monkeypatch.chdir(runs.parent)
    assert denoise("runs").stdout == result.stdout


def test_runs_as_json(runs: Path) -> None:
    done, new = json.loads(denoise("runs", runs, "--json").stdout)
    assert (done["name"], done["state"], done["init_from"]) == ("done", "finished", "speech")
    assert done["best"]["epoch"] == 1
    assert done["test"]["loss"] == 0.75
    assert (new["state"], new["best"]) == ("stopped", {})


def test_runs_that_cannot_be_read_are_named(runs: Path) -> None:
    (runs / "foreign").mkdir()
    (runs / "foreign" / "spec.json").write_text('{"name": "theirs", "layers": 3}')
    result = denoise("runs", runs)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["run", "done", "new"]
    path = runs / "foreign" / "spec.json"
    assert result.stderr.startswith(f"warning: a run was left out: {path}: ")
    assert "layers" in result.stderr
    assert len(json.loads(denoise("runs", runs, "--json").stdout)) == 2

    fails(denoise("runs", runs / "foreign"), SpecError.exit_code, str(path), "layers")


def test_no_runs(tmp_path: Path) -> None:
    fails(denoise("runs", tmp_path / "none"), 2, "none does not exist; denoise train creates it")


def test_misspelt_key_of_a_spec(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    level = [{"filters": 8}]
    document = {"name": "x", "downsampling": level, "upsampling": level, "valey": []}
    spec.write_text(json.dumps(document))
    fails(denoise("train", spec), 2, "valey", "did you mean 'valley'")


def test_train_without_a_dataset(tmp_path: Path) -> None:
    result = denoise("train", "tiny", "--data", tmp_path, "--run", tmp_path / "run")
    fails(result, 1, str(tmp_path))


def test_unknown_spec_lists_the_bundled_ones() -> None:
    fails(denoise("train", "tinny"), 2, *spec_names())
