import csv
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY_SPEC

from denoisecli.errors import DatasetError, DenoiseError, Interrupted, ModelError, UsageError
from denoisecli.models.catalogue import load_spec
from denoisecli.models.summary import NetworkSummary
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.spec.search_space import with_values
from denoisecli.tuning import cluster, worker
from denoisecli.tuning import tune as tune_module
from denoisecli.tuning.method import Method
from denoisecli.tuning.scheduler import STATE, Scheduler
from denoisecli.tuning.trials import Proposal, TrialResult
from denoisecli.tuning.tune import BEST, PICTURE, TABLE, TRIALS, tune
from denoisecli.tuning.worker import TrialTrainer

SPACE = {
    "downsampling.*.filters": {"kind": "int", "min": 4, "max": 64, "step": 60},
    "stft.hop_length": {"kind": "choice", "values": [16, 32]},
    "training.segment_seconds": {"kind": "choice", "values": [0.2, 50.0]},
}
"""Eight combinations: one can be trained; one fails, as the clips are too short; six are refused,
as windows would not overlap or there would be too much arithmetic."""

WIDE = {
    "downsampling.*.filters": {"kind": "int", "min": 4, "max": 64, "step": 4},
    "training.learning_rate": {"kind": "float", "min": 0.001, "max": 0.01, "log": True},
}
"""Anything goes."""


def spec_with(space: dict[str, Any] = SPACE, max_macs: float | None = 1e6) -> Spec:
    return parse_spec(TINY_SPEC | {"search": {"space": space, "max_macs": max_macs}})


WIDE_SPEC = spec_with(WIDE, max_macs=None)


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.results: Sequence[TrialResult] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_progress(self, trial: str, text: str) -> None: ...

    def on_results(self, results: Sequence[TrialResult]) -> None:
        self.results = results


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def searched(
    tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[TrialResult], Recorder]:
    """A search through the whole of SPACE, nothing faked."""
    folder, recorder = tmp_path_factory.mktemp("search"), Recorder()
    results = tune(spec_with(), tiny_dataset, folder, recorder, method=Method.RANDOM)
    return folder, results, recorder


@pytest.mark.slow
class TestSearch:
    def test_every_trial_is_accounted_for(
        self, searched: tuple[Path, list[TrialResult], Recorder]
    ) -> None:
        _, results, recorder = searched
        assert [result.name for result in results] == [f"{n:04}" for n in range(len(results))]
        assert results == recorder.results
        assert len({json.dumps(result.values) for result in results}) == len(results)
        assert results[0].is_spec
        for result in results:
            filters, hop_length, segment = result.values.values()
            if hop_length == 32 or filters == 64:
                assert result.status == "infeasible"
            else:
                assert result.status == ("completed" if segment == 0.2 else "failed")
            assert (result.objective is not None) == (result.status == "completed")
        statuses = [result.status for result in results]
        assert statuses.count("completed") == statuses.count("failed") == 1
        assert statuses.count("infeasible") >= 4  # draws that collide too often end a search

    def test_files(self, searched: tuple[Path, list[TrialResult], Recorder]) -> None:
        folder, results, _ = searched
        files = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        assert files == {BEST, TABLE, PICTURE, STATE, TRIALS}
        best = load_spec(folder / BEST)
        assert best == with_values(
            spec_with(), {"name": best.name, "description": best.description}
        )
        assert best.training.epochs == 2
        assert (folder / PICTURE).read_bytes().startswith(b"\x89PNG")
        rows = read_table(folder)
        assert [row["status"] for row in rows] == [result.status for result in results]
        assert float(rows[0]["val_loss"]) == results[0].metrics["val_loss"]
        assert list(folder.glob(f"{TRIALS}/*/checkpoint.npz")) == []

    def test_the_same_call_has_nothing_more_to_do(
        self, searched: tuple[Path, list[TrialResult], Recorder], tiny_dataset: Path
    ) -> None:
        folder, results, _ = searched
        recorder = Recorder()
        again = tune(spec_with(), tiny_dataset, folder, recorder, method=Method.RANDOM, trials=1)
        assert again == results
        assert recorder.messages == [f"resuming after {len(results)} trials"]

    def test_another_search_is_refused(
        self, searched: tuple[Path, list[TrialResult], Recorder], tiny_dataset: Path
    ) -> None:
        folder, _, _ = searched
        other = spec_with(max_macs=2e6)
        with pytest.raises(UsageError, match=r"these differ: spec.search.max_macs. Use --fresh"):
            tune(other, tiny_dataset, folder, Recorder(), method=Method.RANDOM)
        with pytest.raises(UsageError, match=r"these differ: epochs, method"):
            tune(spec_with(), tiny_dataset, folder, Recorder(), epochs=1)


def test_the_number_of_epochs_is_set_in_one_place(tiny_dataset: Path, tmp_path: Path) -> None:
    spec = spec_with({"training.epochs": {"kind": "int", "min": 1, "max": 4}})
    with pytest.raises(UsageError, match="hyperband itself decides how long a trial is trained"):
        tune(spec, tiny_dataset, tmp_path, Recorder(), method=Method.HYPERBAND)
    with pytest.raises(UsageError, match=r"searches training\.epochs, so --epochs cannot"):
        tune(spec, tiny_dataset, tmp_path, Recorder(), epochs=2)


Fake = Callable[[Spec, Proposal, threading.Event], float]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fake], None]:
    """Return ``fake(objective)``, which makes trials train nothing and reach that objective.

    No network is built and no picture is drawn either.
    """
    network = NetworkSummary((), 1, 1.0, 0.0, 0.0)
    monkeypatch.setattr(worker, "build_model", lambda spec: None)
    monkeypatch.setattr(worker, "summarize_network", lambda model: network)
    monkeypatch.setattr(worker, "_free_memory", lambda: None)
    monkeypatch.setattr(tune_module, "plot_trials", lambda results, search, path: None)

    def fake(objective: Fake) -> None:
        def train(
            self: TrialTrainer, spec: Spec, proposal: Proposal, folder: Path, stop: Any
        ) -> list[dict[str, Any]]:
            return [{"epoch": 1, "val_si_sdr_improvement": objective(spec, proposal, stop)}]

        monkeypatch.setattr(TrialTrainer, "_train", train)

    fake(filters)
    return fake


def filters(spec: Spec, proposal: Proposal, stop: Any) -> float:
    return float(spec.downsampling[0].filters)


class TestTrials:
    @pytest.mark.parametrize("method", Method)
    def test_methods(
        self, method: Method, fake: Callable[[Fake], None], tiny_dataset: Path, tmp_path: Path
    ) -> None:
        results = tune(WIDE_SPEC, tiny_dataset, tmp_path, Recorder(), method=method, trials=4)
        assert [result.status for result in results] == ["completed"] * 4
        best = max(result.objective or 0 for result in results)
        assert load_spec(tmp_path / BEST).downsampling[0].filters == best

    def test_failures_do_not_end_a_search(
        self, fake: Callable[[Fake], None], tiny_dataset: Path, tmp_path: Path
    ) -> None:
        def fail(spec: Spec, proposal: Proposal, stop: Any) -> float:
            if proposal.name == "0000":
                raise ModelError("the loss is not finite")
            if proposal.name == "0001":
                raise ValueError("no such shape")
            return 1.0

        fake(fail)
        results = tune(
            WIDE_SPEC, tiny_dataset, tmp_path, Recorder(), method=Method.RANDOM, trials=3
        )
        assert [r.status for r in results] == ["failed", "failed", "completed"]
        assert [r.message for r in results] == [
            "the loss is not finite",
            "ValueError: no such shape",
            "",
        ]

    def test_none_completes(
        self, fake: Callable[[Fake], None], tiny_dataset: Path, tmp_path: Path
    ) -> None:
        def fail(spec: Spec, proposal: Proposal, stop: Any) -> float:
            raise ModelError("it exploded")

        fake(fail)
        with pytest.raises(
            DenoiseError, match=r"no trial completed \(2 failed\); trial 0001: it exploded"
        ):
            tune(WIDE_SPEC, tiny_dataset, tmp_path, Recorder(), method=Method.RANDOM, trials=2)
        assert (tmp_path / TABLE).read_text().count("it exploded") == 2
        assert not (tmp_path / BEST).exists()

    def test_ctrl_c_leaves_the_trial_for_the_next_call(
        self, fake: Callable[[Fake], None], tiny_dataset: Path, tmp_path: Path
    ) -> None:
        def interrupted(spec: Spec, proposal: Proposal, stop: Any) -> float:
            if proposal.name == "0001":
                raise Interrupted("stopped in epoch 1")
            return filters(spec, proposal, stop)

        fake(interrupted)
        options: dict[str, Any] = {"method": Method.RANDOM, "trials": 3}
        recorder = Recorder()
        with pytest.raises(Interrupted, match="stopped in epoch 1"):
            tune(WIDE_SPEC, tiny_dataset, tmp_path, recorder, **options)
        assert [result.status for result in recorder.results] == ["completed", "waiting"]
        assert [row["status"] for row in read_table(tmp_path)] == ["completed", "waiting"]

        fake(filters)
        results = tune(WIDE_SPEC, tiny_dataset, tmp_path, Recorder(), **options)
        assert [result.status for result in results] == ["completed"] * 3
        assert results[0] == recorder.results[0]
        assert results[1].values == recorder.results[1].values

    def test_time_is_up_in_the_middle_of_a_trial(
        self,
        fake: Callable[[Fake], None],
        tiny_dataset: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        time_is_up = threading.Event()

        def endless(spec: Spec, proposal: Proposal, stop: threading.Event) -> float:
            if proposal.name == "0001":
                time_is_up.set()
                assert stop.wait(60)
                raise Interrupted("stopped in epoch 1")
            return filters(spec, proposal, stop)

        fake(endless)
        monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.05)
        monkeypatch.setattr(Scheduler, "out_of_time", property(lambda self: time_is_up.is_set()))
        options: dict[str, Any] = {"method": Method.RANDOM, "trials": 3}
        results = tune(WIDE_SPEC, tiny_dataset, tmp_path, Recorder(), **options)
        assert [result.status for result in results] == ["completed", "waiting"]
        assert (tmp_path / BEST).exists()
        time_is_up.clear()
        fake(filters)
        results = tune(WIDE_SPEC, tiny_dataset, tmp_path, Recorder(), **options)
        assert [result.status for result in results] == ["completed"] * 3

    def test_fresh_starts_over(
        self, fake: Callable[[Fake], None], tiny_dataset: Path, tmp_path: Path
    ) -> None:
        options: dict[str, Any] = {"method": Method.RANDOM, "trials": 1}
        tune(WIDE_SPEC, tiny_dataset, tmp_path, Recorder(), **options)
        (tmp_path / TRIALS / "old").mkdir(parents=True)
        recorder = Recorder()
        other = spec_with(WIDE, max_macs=2e6)
        tune(other, tiny_dataset, tmp_path, recorder, fresh=True, **options)
        assert recorder.messages == []
        assert not (tmp_path / TRIALS / "old").exists()


def test_wrong_use(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(error: type[DenoiseError], words: str, spec: Spec, **other: Any) -> None:
        options = {"data": tiny_dataset, "folder": tmp_path, "observer": Recorder()} | other
        with pytest.raises(error, match=words):
            tune(spec, **options)

    refused(UsageError, "'test' has no `search` section", parse_spec(TINY_SPEC))
    fixed = WIDE_SPEC.training.model_copy(update={"fixed_normalization": True})
    spec = WIDE_SPEC.model_copy(update={"training": fixed})
    refused(UsageError, "fixed_normalization needs a model to start from", spec)
    refused(DatasetError, "nowhere", WIDE_SPEC, data=tmp_path / "nowhere")
    refused(UsageError, "either the chief or a worker", WIDE_SPEC, chief="a:1", worker="a:1")
    monkeypatch.setattr(cluster, "CHIEF_SECONDS", 0.1)
    refused(DenoiseError, "no chief answers at 127.0.0.1:1$", WIDE_SPEC, worker="127.0.0.1:1")


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_worker_needs_the_folder_and_the_search_of_its_chief(
    fake: Callable[[Fake], None],
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "CHECK_SECONDS", 0.05)
    address, recorder = free_address(), Recorder()
    options: dict[str, Any] = {"method": Method.RANDOM, "trials": 2}
    chief = threading.Thread(
        target=tune,
        args=(WIDE_SPEC, tiny_dataset, tmp_path / "shared", recorder),
        kwargs={**options, "chief": address},
    )
    chief.start()
    options["worker"] = address
    with pytest.raises(UsageError, match="a worker needs the folder of its chief"):
        tune(WIDE_SPEC, tiny_dataset, tmp_path / "mine", Recorder(), **options)
    other = spec_with(WIDE, max_macs=2e6)
    with pytest.raises(UsageError, match=r"these differ: spec.search.max_macs"):
        tune(other, tiny_dataset, tmp_path / "shared", Recorder(), **options)
    mine = Recorder()
    assert tune(WIDE_SPEC, tiny_dataset, tmp_path / "shared", mine, **options) == []
    chief.join(60)
    assert not chief.is_alive()
    assert recorder.messages == [f"waiting for workers on {address}"]
    assert [result.status for result in recorder.results] == ["completed"] * 2
    assert [result.objective for result in mine.results] == [
        result.objective for result in recorder.results
    ]
    assert (tmp_path / "shared" / BEST).exists()


PROCESS = """
import json, sys, time
from pathlib import Path
from denoisecli.spec.document import parse_spec
from denoisecli.tuning import scheduler, worker
from denoisecli.tuning.tune import tune

class Observer:
    def on_message(self, text): ...
    def on_progress(self, trial, text): ...
    def on_results(self, results): ...

def train(self, spec, proposal, folder, stop):
    time.sleep(1)
    return [{"epoch": 1, "val_si_sdr_improvement": float(spec.downsampling[0].filters)}]

worker.TrialTrainer._train = train
worker.HEARTBEAT_SECONDS, scheduler.LOST_SECONDS = 0.5, 5.0
spec, data, folder, options = sys.argv[1:]
tune(parse_spec(json.loads(spec)), Path(data), Path(folder), Observer(), **json.loads(options))
"""


@pytest.fixture
def start(tiny_dataset: Path, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Return ``start(**options)``: a search in another process, whose trials take a second."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(**options: Any) -> "subprocess.Popen[bytes]":
        options = {"method": "random", "trials": 5, **options}
        document = json.dumps(WIDE_SPEC.model_dump(mode="json"))
        arguments = [document, str(tiny_dataset), str(tmp_path), json.dumps(options)]
        processes.append(subprocess.Popen([sys.executable, "-c", PROCESS, *arguments]))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait_until(folder: Path, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait for a state of a search and return it."""
    for _ in range(1200):
        if (folder / STATE).exists():
            state: dict[str, Any] = json.loads((folder / STATE).read_text())
            if reached(state):
                return state
        time.sleep(0.1)
    raise AssertionError("that state was never reached")


def statuses(state: dict[str, Any]) -> list[str]:
    return [result["status"] for result in state["results"]]


@pytest.mark.slow
def test_kill_9(
    start: Callable[..., "subprocess.Popen[bytes]"],
    fake: Callable[[Fake], None],
    tiny_dataset: Path,
    tmp_path: Path,
) -> None:
    process = start()
    wait_until(tmp_path, lambda state: statuses(state) == ["completed", "running"])
    process.kill()
    process.wait()
    before = json.loads((tmp_path / STATE).read_text())["results"]
    recorder = Recorder()
    results = tune(WIDE_SPEC, tiny_dataset, tmp_path, recorder, method=Method.RANDOM, trials=5)
    assert recorder.messages == ["resuming after 2 trials"]
    assert [result.status for result in results] == ["completed"] * 5
    after = json.loads((tmp_path / STATE).read_text())["results"]
    assert after[0] == before[0]
    assert after[1]["values"] == before[1]["values"]


@pytest.mark.slow
def test_a_chief_and_two_workers_one_of_them_killed(
    start: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    address = free_address()
    chief, *workers = start(chief=address), start(worker=address), start(worker=address)
    state = wait_until(tmp_path, lambda state: statuses(state).count("running") == 2)
    workers[0].send_signal(signal.SIGKILL)
    assert chief.wait(120) == 0
    assert workers[1].wait(30) == 0
    end = json.loads((tmp_path / STATE).read_text())
    assert statuses(end) == ["completed"] * 5
    assert sorted(end["attempts"].values()) == [1, 1, 1, 1, 2]
    twice = next(name for name, attempts in end["attempts"].items() if attempts == 2)
    assert twice in [r["name"] for r in state["results"] if r["status"] == "running"]
    assert [row["status"] for row in read_table(tmp_path)] == ["completed"] * 5
    assert (tmp_path / BEST).exists()
