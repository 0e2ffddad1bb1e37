import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from denoisecli.cli import training as cli_training
from denoisecli.cli.app import app
from denoisecli.spec.document import parse_spec
from denoisecli.training.run_folder import locked, record_start, write_history

run_cli = CliRunner().invoke


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    level = [{"filters": 4}]
    document = {"name": "test", "downsampling": level, "upsampling": level}
    spec = parse_spec({**document, "training": {"epochs": 7}})
    figures = {"val_loss": 0.25, "val_si_sdr_improvement": 4.125}
    row = {"epoch": 1, "minutes": 0.5, "audio_hours": 1.25, **figures}
    for name, rows in (("done", [row, {**row, "epoch": 2, "val_loss": 0.5}]), ("new", [])):
        folder = tmp_path / "runs" / name
        with locked(folder):
            record_start(
                folder, spec, dataset="d", data=tmp_path, device="a CPU", init_from="speech"
            )
            write_history(rows, folder / "history.csv")
    model = tmp_path / "runs" / "done" / "model"
    model.mkdir()
    write_history([row, {**row, "epoch": 2, "val_loss": 0.5}], model / "history.csv")
    test = {"loss": 0.75, "si_sdr_improvement": 3.5}
    (model / "metrics.json").write_text(json.dumps({"test": test}))
    return tmp_path / "runs"


def test_runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_cli(app, ["runs", str(runs)])
    assert result.exit_code == 0, result.output
    header, done, new = result.stdout.splitlines()
    assert header.split()[:5] == ["run", "state", "epochs", "hours", "min"]
    expected = [
        "done",
        "finished",
        "2/7",
        "1.2",
        "0.5",
        "0.2500",
        "4.12",
        "0.7500",
        "3.50",
    ]
    assert done.split() == expected
    assert new.split() == ["new", "stopped", "0/7", "0.0", "0.0", *"----"]
    monkeypatch.chdir(runs.parent)
    assert run_cli(app, ["runs"]).stdout == result.stdout


def test_runs_as_json(runs: Path) -> None:
    result = run_cli(app, ["runs", str(runs), "--json"])
    done, new = json.loads(result.stdout)
    assert (done["name"], done["state"], done["init_from"]) == ("done", "finished", "speech")
    assert done["best"]["epoch"] == 1
    assert done["test"]["loss"] == 0.75
    assert (new["state"], new["best"]) == ("stopped", {})


def test_no_runs(tmp_path: Path) -> None:
    result = run_cli(app, ["runs", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "there is no folder" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "2"], "several processes need --coordinator HOST:PORT"),
        (["--process", "1"], "several processes need --coordinator HOST:PORT"),
        (["--coordinator", "host:1", "--processes", "2"], "pip install 'denoisecli[jax]'"),
        (["--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'gpu'"),
    ],
)
def test_wrong_use_of_train(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(name: str) -> Any:
        assert name == "jax"

    monkeypatch.setattr(cli_training, "find_spec", none)
    result = run_cli(app, ["train", "tiny", "--run", str(tmp_path / "run"), *options])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", "").split())
    assert not (tmp_path / "run").exists()
