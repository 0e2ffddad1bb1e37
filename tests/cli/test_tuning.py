import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY_SPEC, denoise, fails
from rich.console import Console
from typer.testing import Result

from denoisecli.cli import console, displays
from denoisecli.models.summary import NetworkSummary
from denoisecli.tuning import tune, worker
from denoisecli.tuning.trials import Status, TrialResult
from denoisecli.tuning.worker import TrialTrainer

SPACE = {
    "downsampling.*.filters": {"kind": "int", "min": 4, "max": 64, "step": 4},
    "training.learning_rate": {"kind": "float", "min": 0.001, "max": 0.01, "log": True},
}


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that train nothing and draw nothing."""

    def train(self: TrialTrainer, spec: Any, *arguments: Any) -> list[dict[str, Any]]:
        return [{"epoch": 1, "val_si_sdr_improvement": float(spec.downsampling[0].filters)}]

    network = NetworkSummary((), 1, 1.0, 0.0, 0.0)
    monkeypatch.setattr(TrialTrainer, "_train", train)
    monkeypatch.setattr(worker, "build_model", lambda spec: None)
    monkeypatch.setattr(worker, "summarize_network", lambda model: network)
    monkeypatch.setattr(tune, "plot_trials", lambda results, search, path: None)


def run_tune(data: Path, folder: Path, *options: str) -> Result:
    path = folder / "spec.json"
    path.write_text(json.dumps(TINY_SPEC | {"search": {"space": SPACE}}))
    return denoise(
        *("tune", path, "--data", data, "--run", folder / "run", "--method", "random", *options)
    )


@pytest.mark.slow
def test_table_and_json(untrained: None, tiny_dataset: Path, tmp_path: Path) -> None:
    shown = run_tune(tiny_dataset, tmp_path, "--trials", "2")
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0].split()[:6] == ["trial", "status", "objective", "filters", "learning", "rate"]
    assert len(lines) == 3
    objectives = [float(line.split()[2]) for line in lines[1:]]
    assert objectives == sorted(objectives, reverse=True)
    assert "trial 0000 completed: objective" in shown.stderr
    assert "wrote" in shown.stderr and "has the best val_si_sdr_improvement" in shown.stderr
    shown = run_tune(tiny_dataset, tmp_path, "--trials", "3", "--json")
    results = json.loads(shown.stdout)
    assert [result["status"] for result in results] == ["completed"] * 3
    assert set(results[0]["values"]) == set(SPACE)


def test_errors(tiny_dataset: Path, tmp_path: Path) -> None:
    fails(denoise("tune", "seed", "--data", tiny_dataset), 2, "no `search` section")
    for option, value in (("--trials", "0"), ("--method", "grid"), ("--minutes", "-1")):
        fails(run_tune(tiny_dataset, tmp_path, option, value), 2, option)
    for option in ("--chief", "--worker"):
        for address in ("localhost", ":80", "host:port", "host:", "host:99999"):
            fails(run_tune(tiny_dataset, tmp_path, option, address), 2, option, "HOST:PORT")
    addresses = ("--chief", "localhost:1", "--worker", "localhost:1")
    fails(run_tune(tiny_dataset, tmp_path, *addresses), 2, "either the chief or a worker")


@pytest.mark.parametrize("extra", ["tune", "train"])
def test_without_an_extra_one_sentence_says_what_to_install(
    extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"tune": "keras_tuner", "train": "tensorflow"}[extra]
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(
        "denoisecli.system.extras.find_spec", lambda name: None if name == module else name
    )
    brings = {"tune": "KerasTuner", "train": "TensorFlow"}[extra]
    message = f'tuning needs {brings}: pip install "denoisecli[{extra}]"'
    fails(denoise("tune", "tiny"), 2, message)


@pytest.mark.parametrize("width", [120, 80, 50])
def test_live_table(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(
        file=io.StringIO(), force_terminal=True, width=width, height=12, highlight=False
    )
    monkeypatch.setattr(console, "err", terminal)
    values = {
        "downsampling.0.filters": 4,
        "downsampling.2.filters": 32,
        "training.learning_rate": 0.002,
        "training.losses.2.weight": 0.05,
        "valley.1.bidirectional": True,
    }
    results = [
        TrialResult(f"{n:04}", Status.COMPLETED, values, objective=n / 4, macs=2e6, seconds=3.0)
        for n in range(20)
    ]
    with displays.SearchDisplay() as display:
        display.on_results([*results, TrialResult("0020", Status.RUNNING, values)])
        display.on_progress("0020", "epoch 1 of 2")
        terminal.print(display.render())
    assert isinstance(terminal.file, io.StringIO)
    shown = terminal.file.getvalue()
    for text in ("trial", "status", "objective", "filters", "0019", "4.75", "completed", "running"):
        assert text in shown
    assert "trial 0020: epoch 1 of 2" in shown
    assert "0003" not in shown  # as many of the last ones as there is room for
    assert ("bidirectional" in shown) == (width > 50)
    assert "…" not in shown
