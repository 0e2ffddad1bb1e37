import csv
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY_SPEC

from denoisecli.errors import Interrupted, ModelError
from denoisecli.models.registry import build_model
from denoisecli.models.summary import summarize_network
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training.devices import Devices
from denoisecli.training.history import Row
from denoisecli.tuning import worker
from denoisecli.tuning.trials import NoTrial, Proposal, Status, TrialResult
from denoisecli.tuning.worker import TRACEBACK, TrialTrainer, run_trials

VALUES: dict[str, Any] = {
    "downsampling.*.filters": 4,
    "stft.hop_length": 16,
    "training.segment_seconds": 0.2,
}
"""Those of TINY_SPEC."""

NEVER = threading.Event()


def spec_with(**section: Any) -> Spec:
    space = {
        "downsampling.*.filters": {"kind": "int", "min": 4, "max": 64, "step": 4},
        "stft.hop_length": {"kind": "choice", "values": [16, 32]},
        "training.segment_seconds": {"kind": "choice", "values": [0.2, 50.0]},
    }
    return parse_spec(TINY_SPEC | {"search": {"space": space, "max_macs": 1e6, **section}})


class Recorder:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.on_step: Callable[[], None] = lambda: None

    def on_message(self, text: str) -> None: ...

    def on_progress(self, trial: str, text: str) -> None:
        self.texts.append(f"{trial}: {text}")
        self.on_step()

    def on_results(self, results: Any) -> None: ...


@pytest.fixture
def make(tiny_dataset: Path, tmp_path: Path) -> Callable[..., TrialTrainer]:
    def make(epochs: int | None = None, **section: Any) -> TrialTrainer:
        return TrialTrainer(
            spec_with(**section),
            tiny_dataset,
            tmp_path,
            Devices("here"),
            Recorder(),
            epochs,
        )

    return make


def read_history(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: text for name, text in row.items() if name != "minutes"} for row in rows]


@pytest.mark.slow
def test_a_trial_in_parts_trains_as_train_does(
    make: Callable[..., TrialTrainer], tiny_run: Path, tmp_path: Path
) -> None:
    """As Hyperband asks: one epoch, then another trial that continues from its checkpoint.

    The other trial runs out of time after one of its two steps.
    """
    trainer = make()
    assert isinstance(trainer.observer, Recorder)
    first = trainer.train(Proposal("0000", VALUES, until=1), NEVER)
    assert (first.status, first.epochs) == (Status.COMPLETED, 1)
    assert trainer.observer.texts[-1].startswith("0000: epoch 1 of 1, step 2 of 2, loss 0.")
    network = summarize_network(build_model(spec_with()))
    assert (first.macs, first.parameters) == (network.macs_per_second, network.parameters)
    assert first.seconds is not None and first.seconds > 0
    again = trainer.train(Proposal("0000", VALUES, until=1), NEVER)  # the first report was lost
    assert len(trainer.observer.texts) == 2
    assert replace(again, seconds=None) == replace(first, seconds=None)

    stop = threading.Event()
    trainer.observer.on_step = stop.set
    second = Proposal("0001", VALUES, until=2, continues="0000")
    with pytest.raises(Interrupted, match="stopped in epoch 2"):
        trainer.train(second, stop)
    assert len(trainer.observer.texts) == 3
    rest = trainer.train(second, NEVER)
    assert len(trainer.observer.texts) == 4
    assert (rest.status, rest.epochs) == (Status.COMPLETED, 2)
    rows, expected = (
        read_history(folder / "history.csv") for folder in (tmp_path / "trial_0001", tiny_run)
    )
    assert rows == expected
    objective = max(float(row["val_si_sdr_improvement"]) for row in expected)
    assert rest.objective == rest.metrics["val_si_sdr_improvement"] == pytest.approx(objective)


def test_values_that_cannot_be_trained(
    make: Callable[..., TrialTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*arguments: Any) -> Any:
        raise AssertionError("nothing is trained")

    monkeypatch.setattr(TrialTrainer, "_train", forbidden)
    gaps = make().train(Proposal("0000", VALUES | {"stft.hop_length": 32}), NEVER)
    assert gaps.status == Status.INFEASIBLE
    assert "hop_length 32 leaves gaps" in gaps.message
    assert gaps.macs is None
    large = Proposal("0001", VALUES | {"downsampling.*.filters": 64})
    result = make().train(large, NEVER)
    assert result.status == Status.INFEASIBLE
    assert "is above max_macs 1,000,000" in result.message
    assert result.macs is not None and result.macs > 1e6
    result = make(max_macs=None, max_parameters=100).train(large, NEVER)
    assert "is above max_parameters 100" in result.message
    assert result.objective is None


@pytest.mark.slow
def test_a_dataset_that_does_not_suit_a_trial(make: Callable[..., TrialTrainer]) -> None:
    long = Proposal("0000", VALUES | {"training.segment_seconds": 50.0})
    result = make().train(long, NEVER)
    assert result.status == Status.FAILED
    assert "less than a segment of 50 s" in result.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModelError("the loss is not finite"), "the loss is not finite"),
        (MemoryError("all is used"), "MemoryError: all is used"),
        (ValueError("no such shape"), "ValueError: no such shape"),
    ],
)
def test_failures_become_results(
    error: Exception,
    message: str,
    make: Callable[..., TrialTrainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(TrialTrainer, "_train", fail)
    result = make().train(Proposal("0000", VALUES), NEVER)
    assert (result.status, result.message) == (Status.FAILED, message)
    assert result.objective is None
    assert result.parameters == build_model(spec_with()).count_params()
    trace = tmp_path / "trial_0000" / TRACEBACK
    assert trace.exists() == (not isinstance(error, ModelError))


@pytest.mark.slow
def test_the_best_epoch_counts(
    make: Callable[..., TrialTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    history: list[Row] = [
        {"epoch": 1, "loss": 0.5, "val_loss": 0.2, "val_si_sdr_improvement": 2.0},
        {"epoch": 2, "loss": 0.4, "val_loss": 0.1, "val_si_sdr_improvement": 1.0},
    ]
    monkeypatch.setattr(TrialTrainer, "_train", lambda *arguments: history)
    result = make().train(Proposal("0000", VALUES), NEVER)
    assert (result.objective, result.epochs) == (2.0, 2)
    assert result.metrics == {"val_loss": 0.2, "val_si_sdr_improvement": 2.0}
    result = make(objective="val_loss").train(Proposal("0000", VALUES), NEVER)
    assert result.objective == 0.1
    history[:] = [{"epoch": 1, "loss": 0.5}]
    result = make().train(Proposal("0000", VALUES), NEVER)
    assert result.status == Status.FAILED
    assert result.message == "no epoch measured val_si_sdr_improvement"


def test_epochs_of_a_trial(make: Callable[..., TrialTrainer]) -> None:
    assert make().spec_of(Proposal("0000", VALUES)).training.epochs == 2
    trainer = make(epochs=5)
    assert trainer.spec_of(Proposal("0000", VALUES)).training.epochs == 5
    assert trainer.spec_of(Proposal("0000", VALUES)).search is None


class Source:
    """Hands out one answer after the other and keeps what it is told."""

    def __init__(self, *answers: Proposal | NoTrial) -> None:
        self.answers = list(answers)
        self.calls: list[str] = []
        self.out_of_time = threading.Event()

    def next_trial(self, worker: str) -> Proposal | NoTrial:
        return self.answers.pop(0)

    def heartbeat(self, worker: str) -> bool:
        return not self.out_of_time.is_set()

    def report(self, worker: str, result: TrialResult) -> None:
        self.calls.append(f"report {worker} {result.name}")

    def release(self, worker: str) -> None:
        self.calls.append(f"release {worker}")


def completed(proposal: Proposal, stop: threading.Event) -> TrialResult:
    return TrialResult(proposal.name, Status.COMPLETED, proposal.values, objective=1.0)


def test_trials_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(worker.time, "sleep", pauses.append)
    first, second = Proposal("0000", {}), Proposal("0001", {})
    source = Source(first, NoTrial.WAIT, NoTrial.WAIT, second, NoTrial.DONE)
    run_trials(source, "me", completed)
    assert source.calls == ["report me 0000", "report me 0001"]
    assert pauses == [worker.WAIT_SECONDS] * 2


@pytest.mark.parametrize("error", [Interrupted("stopped"), KeyboardInterrupt()])
def test_ctrl_c_releases_the_trial(error: BaseException) -> None:
    def interrupted(proposal: Proposal, stop: threading.Event) -> TrialResult:
        raise error

    source = Source(Proposal("0000", {}))
    with pytest.raises(type(error)):
        run_trials(source, "me", interrupted)
    assert source.calls == ["release me"]


def test_time_is_up_in_the_middle_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.01)
    source = Source(Proposal("0000", {}), NoTrial.DONE)

    def endless(proposal: Proposal, stop: threading.Event) -> TrialResult:
        source.out_of_time.set()
        assert stop.wait(60)
        raise Interrupted("stopped")

    run_trials(source, "me", endless)
    assert source.calls == ["release me"]
    assert source.answers == []
