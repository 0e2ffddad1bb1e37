import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner

from denoisecli.cli import console, displays
from denoisecli.cli.app import app
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.stored import build
from denoisecli.errors import DatasetError, DenoiseError, ModelError, UsageError
from denoisecli.models.catalogue import load_spec
from denoisecli.models.describe import describe
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.spec.search_space import with_values
from denoisecli.training import trainer
from denoisecli.training.devices import Devices
from denoisecli.training.observer import Interrupted
from denoisecli.training.train import train
from denoisecli.tuning import tune, tuner
from denoisecli.tuning.hypermodel import SpecHyperModel, TrialWatch
from denoisecli.tuning.oracles import STATE, TRIALS, SearchOracle
from denoisecli.tuning.trials import TrialResult
from denoisecli.tuning.tune import tune as search

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


def document(**section: Any) -> dict[str, Any]:
    return {
        "name": "test",
        "audio": {"sample_rate": 4000},
        "stft": {"n_fft": 32, "hop_length": 16},
        "downsampling": [{"filters": 4, "strides": [4, 1]}],
        "upsampling": [{"filters": 4}],
        "training": {
            "losses": [{"kind": "waveform_l1", "weight": 1.0}],
            "batch_size": 4,
            "segment_seconds": 0.2,
            "epochs": 2,
            "steps_per_epoch": 1,
            "average_decay": 0.5,
        },
        "search": {"space": SPACE, "max_macs": 1e6, **section},
    }


def spec_of(**section: Any) -> Spec:
    return parse_spec(document(**section))


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self, action: Callable[[], None] = lambda: None) -> None:
        self.action = action
        self.notes: list[str] = []
        self.texts: list[str] = []
        self.results: Sequence[TrialResult] = []

    def on_message(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, trial: str, text: str) -> None:
        self.texts.append(f"{trial} {text}")
        self.action()

    def trials(self, results: Sequence[TrialResult]) -> None:
        self.results = results

    def on_epoch_end(self, row: dict[str, Any], *, best: bool) -> None:
        self.notes.append(f"epoch {row['epoch']}")

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None: ...

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None: ...


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    rng = np.random.default_rng(0)
    t = np.arange(4000) / 4000
    for kind, count in (("clean", 8), ("noise", 4)):
        (folder / kind).mkdir()
        for number in range(count):
            sound = 0.1 * rng.normal(size=t.size)
            if kind == "clean":
                sound = 0.2 * np.sin(2 * np.pi * 150 * (number + 1) * t)
            soundfile.write(folder / kind / f"{number}.wav", sound, 4000)
    recipe = Recipe(snr_db=(0.0, 5.0), sample_rate=4000)
    build(folder / "clean", folder / "noise", folder / "data", recipe)
    return folder / "data"


@pytest.fixture(scope="module", autouse=True)
def seeded() -> Iterator[None]:
    """Seed once more right before a network is built.

    Keras draws initial weights with Python's random numbers, and so does beartype what it checks.
    """
    seeds: list[int] = []
    set_seed, build_network = keras.utils.set_random_seed, trainer.build_network

    def noted(seed: int) -> None:
        seeds.append(seed)
        set_seed(seed)

    def built(*arguments: Any) -> Any:
        set_seed(seeds[-1])
        return build_network(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.utils, "set_random_seed", noted)
        patch.setattr(trainer, "build_network", built)
        yield


@pytest.fixture(scope="module")
def searched(
    data: Path, tmp_path_factory: pytest.TempPathFactory, seeded: None
) -> tuple[Path, list[TrialResult], Recorder]:
    """A search through the whole space, nothing faked."""
    folder, recorder = tmp_path_factory.mktemp("search"), Recorder()
    return folder, search(spec_of(), data, folder, recorder, method="random"), recorder


class TestSearch:
    def test_every_trial_is_accounted_for(
        self, searched: tuple[Path, list[TrialResult], Recorder]
    ) -> None:
        _, results, recorder = searched
        assert [result.name for result in results] == [f"{n:04}" for n in range(len(results))]
        assert results == recorder.results
        assert len({json.dumps(result.values) for result in results}) == len(results)
        first = results[0]
        assert first.is_spec
        assert first.status == "completed"
        assert first.objective == first.figures["val_si_sdr_improvement"]
        described = describe(spec_of())
        assert (first.macs, first.parameters) == (described.macs, described.parameters)
        for result in results[1:]:
            filters, hop_length, segment = result.values.values()
            if hop_length == 32:
                assert result.status == "infeasible"
                assert "hop_length 32 leaves gaps" in result.message
                assert result.macs is None
            elif filters == 64:
                assert result.status == "infeasible"
                assert "is above max_macs 1,000,000" in result.message
                assert result.macs is not None and result.macs > 1e6
            else:
                assert segment == 50
                assert result.status == "failed"
                assert "less than a segment of 50 s" in result.message
            assert result.objective is None
        statuses = [result.status for result in results]
        assert statuses.count("completed") == statuses.count("failed") == 1
        assert statuses.count("infeasible") >= 4  # draws that collide too often end a search

    def test_what_it_leaves(self, searched: tuple[Path, list[TrialResult], Recorder]) -> None:
        folder, results, recorder = searched
        files = {path.name for path in folder.iterdir()}
        assert files == {"best.json", "trials.csv", "trials.png", STATE, TRIALS, ".lock"}
        best = load_spec(folder / "best.json")
        assert best == with_values(spec_of(), {"name": best.name, "description": best.description})
        assert best.training.epochs == 2
        assert (folder / "trials.png").read_bytes().startswith(b"\x89PNG")
        with (folder / "trials.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["status"] for row in rows] == [result.status for result in results]
        assert float(rows[0]["val_loss"]) == results[0].figures["val_loss"]
        assert list(folder.glob(f"{TRIALS}/*/checkpoint.npz")) == []
        assert recorder.texts[-1].startswith("0000 epoch 2 of 2, step 1 of 1, loss 0.")

    def test_a_trial_trains_as_train_does(
        self, searched: tuple[Path, list[TrialResult], Recorder], data: Path, tmp_path: Path
    ) -> None:
        folder, results, _ = searched
        train(spec_of(), data, tmp_path / "run", Recorder())

        def history(path: Path) -> list[dict[str, str]]:
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            return [{k: v for k, v in row.items() if k != "minutes"} for row in rows]

        expected = history(tmp_path / "run" / "history.csv")
        assert history(folder / TRIALS / "trial_0000" / "history.csv") == expected
        best = max(float(row["val_si_sdr_improvement"]) for row in expected)
        assert results[0].objective == pytest.approx(best)

    def test_the_same_call_has_nothing_more_to_do(
        self, searched: tuple[Path, list[TrialResult], Recorder], data: Path
    ) -> None:
        folder, results, _ = searched
        recorder = Recorder()
        again = search(spec_of(), data, folder, recorder, method="random", trials=1)
        assert again == results
        assert recorder.notes == [f"going on after {len(results)} trials"]

    def test_another_search_is_refused(
        self, searched: tuple[Path, list[TrialResult], Recorder], data: Path
    ) -> None:
        folder, _, _ = searched
        with pytest.raises(UsageError, match=r"these differ: spec.search.max_macs; --fresh starts"):
            search(spec_of(max_macs=2e6), data, folder, Recorder(), method="random")
        with pytest.raises(UsageError, match=r"these differ: epochs, method"):
            search(spec_of(), data, folder, Recorder(), method="bayesian", epochs=1)


def figure(self: Any, hp: Any, model: Any) -> dict[str, float]:
    """In place of training: one step, and a figure that depends on the values."""
    self.watch.on_batch_end(0, 1, {"loss": 1.0})
    value = float(self.values_of(hp)["downsampling.*.filters"])
    return {self.search.objective: value, "epochs": 1.0}


def nothing(self: Any, hp: Any, folder: Path, watch: TrialWatch) -> None:
    self.watch = watch


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Trials that train nothing."""
    monkeypatch.setattr(SpecHyperModel, "build", nothing)
    monkeypatch.setattr(SpecHyperModel, "fit", figure)
    monkeypatch.setattr(tuner, "PAUSE_SECONDS", 0.0)
    return monkeypatch


class TestTrials:
    @pytest.mark.parametrize("method", ["bayesian", "hyperband", "random"])
    def test_methods(
        self, method: Any, untrained: pytest.MonkeyPatch, data: Path, tmp_path: Path
    ) -> None:
        results = search(spec_of(space=WIDE), data, tmp_path, Recorder(), method=method, trials=4)
        assert [result.status for result in results] == ["completed"] * 4
        best = max(result.objective or 0 for result in results)
        assert load_spec(tmp_path / "best.json").downsampling[0].filters == best

    def test_failures_do_not_end_a_search(
        self, untrained: pytest.MonkeyPatch, data: Path, tmp_path: Path
    ) -> None:
        errors: dict[str, Exception] = {
            "0000": ModelError("the loss is no longer a number"),
            "0001": MemoryError("all is used"),
            "0002": ValueError("no such shape"),
        }

        def fail(self: Any, hp: Any, model: Any) -> dict[str, float]:
            if self.watch.name in errors:
                raise errors[self.watch.name]
            return figure(self, hp, model)

        untrained.setattr(SpecHyperModel, "fit", fail)
        results = search(spec_of(space=WIDE), data, tmp_path, Recorder(), method="random", trials=4)
        assert [r.status for r in results] == ["failed"] * 3 + ["completed"]
        assert [r.message for r in results] == [
            "the loss is no longer a number",
            "MemoryError: all is used",
            "ValueError: no such shape",
            "",
        ]

    def test_none_succeeds(self, untrained: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> None:
        def fail(self: Any, hp: Any, model: Any) -> dict[str, float]:
            raise ModelError("it exploded")

        untrained.setattr(SpecHyperModel, "fit", fail)
        with pytest.raises(DenoiseError, match=r"none of 2 trials .*, 0001: it exploded"):
            search(spec_of(space=WIDE), data, tmp_path, Recorder(), method="random", trials=2)
        assert (tmp_path / "trials.csv").read_text().count("it exploded") == 2
        assert not (tmp_path / "best.json").exists()

    def test_ctrl_c_leaves_the_trial_for_the_next_call(
        self, untrained: pytest.MonkeyPatch, data: Path, tmp_path: Path
    ) -> None:
        def interrupted(self: Any, hp: Any, model: Any) -> dict[str, float]:
            if self.watch.name == "0001":
                raise Interrupted("stopped in epoch 1")
            return figure(self, hp, model)

        untrained.setattr(SpecHyperModel, "fit", interrupted)
        options: dict[str, Any] = {"method": "random", "trials": 3}
        recorder = Recorder()
        with pytest.raises(Interrupted, match="stopped in epoch 1"):
            search(spec_of(space=WIDE), data, tmp_path, recorder, **options)
        assert [result.status for result in recorder.results] == ["completed", "waiting"]
        values = recorder.results[1].values
        assert "waiting" in (tmp_path / "trials.csv").read_text()

        untrained.setattr(SpecHyperModel, "fit", figure)
        results = search(spec_of(space=WIDE), data, tmp_path, Recorder(), **options)
        assert [result.status for result in results] == ["completed"] * 3
        assert results[0] == recorder.results[0]
        assert results[1].values == values

    def test_time_is_up_in_the_middle_of_a_trial(
        self, untrained: pytest.MonkeyPatch, data: Path, tmp_path: Path
    ) -> None:
        time_is_up = threading.Event()

        def endless(self: Any, hp: Any, model: Any) -> dict[str, float]:
            while self.watch.name == "0001":
                time_is_up.set()
                self.watch.on_batch_end(0, 1, {"loss": 1.0})
                time.sleep(0.01)
            return figure(self, hp, model)

        untrained.setattr(SpecHyperModel, "fit", endless)
        untrained.setattr(tuner, "HEARTBEAT_SECONDS", 0.05)
        untrained.setattr(SearchOracle, "out_of_time", property(lambda self: time_is_up.is_set()))
        options: dict[str, Any] = {"method": "random", "trials": 3}
        results = search(spec_of(space=WIDE), data, tmp_path, Recorder(), **options)
        assert [result.status for result in results] == ["completed", "waiting"]
        assert (tmp_path / "best.json").exists()
        time_is_up.clear()
        untrained.setattr(SpecHyperModel, "fit", figure)
        results = search(spec_of(space=WIDE), data, tmp_path, Recorder(), **options)
        assert [result.status for result in results] == ["completed"] * 3

    def test_fresh_starts_over(
        self, untrained: pytest.MonkeyPatch, data: Path, tmp_path: Path
    ) -> None:
        options: dict[str, Any] = {"method": "random", "trials": 1}
        search(spec_of(space=WIDE), data, tmp_path, Recorder(), **options)
        (tmp_path / TRIALS / "old").mkdir()
        recorder = Recorder()
        search(spec_of(space=WIDE, max_macs=2e6), data, tmp_path, recorder, fresh=True, **options)
        assert recorder.notes == []
        assert not (tmp_path / TRIALS / "old").exists()


def test_hyperband_goes_on_with_what_it_has_trained(data: Path, tmp_path: Path) -> None:
    """An epoch, then another one on its checkpoint, is the same as two epochs at once."""
    model = SpecHyperModel(spec_of(), data, Devices("here"))
    hp = keras_tuner.HyperParameters()
    model.declare_hyperparameters(hp)
    hp.values = dict(model.own_values() or {})

    def run(folder: Path, until: int | None) -> dict[str, float]:
        folder.mkdir(exist_ok=True)
        watch = TrialWatch("0000", until, threading.Event(), Recorder())
        return model.fit(hp, model.build(hp, folder, watch))

    whole = run(tmp_path / "whole", None)
    assert run(tmp_path / "parts", 1)["epochs"] == 1.0
    assert run(tmp_path / "parts", 1)["epochs"] == 1  # its process died before it could say so
    rest = run(tmp_path / "parts", 2)
    assert rest == pytest.approx(whole)


def test_values_of_all_kinds(data: Path) -> None:
    space = {
        "features.channels": {"kind": "choice", "values": [["magnitude"], ["real", "imaginary"]]},
        "training.early_stopping": {"kind": "choice", "values": [None, 3]},
        "training.augmentation.remix": {"kind": "boolean"},
        "training.batch_size": {"kind": "int", "min": 4, "max": 12, "step": 4},
        "training.learning_rate": {"kind": "float", "min": 1e-4, "max": 1e-2, "log": True},
    }
    model = SpecHyperModel(spec_of(space=space), data, Devices("here"), epochs=1)
    assert model.own_values() is None  # the spec has another list of channels
    space["features.channels"]["values"] = [["real", "imaginary", "magnitude"], ["magnitude"]]
    model = SpecHyperModel(spec_of(space=space), data, Devices("here"), epochs=1)
    hp = keras_tuner.HyperParameters()
    model.declare_hyperparameters(hp)
    own = model.own_values()
    assert own is not None and set(own) == set(hp.values)
    hp.values = own
    assert model.spec_of(hp).training == spec_of().training.model_copy(update={"epochs": 1})
    hp.values = {
        "features.channels": '["magnitude"]',
        "training.early_stopping": "3",
        "training.augmentation.remix": False,
        "training.batch_size": 8,
        "training.learning_rate": 0.00123456789,
    }
    spec = model.spec_of(hp)
    assert spec.features.channels == ("magnitude",)
    assert spec.training.early_stopping == 3
    assert spec.training.augmentation is not None and not spec.training.augmentation.remix
    assert spec.training.batch_size == 8
    assert spec.training.learning_rate == 0.00123457


def test_wrong_use(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(error: type[DenoiseError], words: str, spec: Spec, **other: Any) -> None:
        options = {"data": data, "folder": tmp_path / "run", "observer": Recorder()} | other
        with pytest.raises(error, match=words):
            search(spec, **options)

    bare = parse_spec({k: v for k, v in document().items() if k != "search"})
    refused(UsageError, "'test' has no search section", bare)
    refused(DatasetError, "nowhere", spec_of(), data=tmp_path / "nowhere")
    for address in ("localhost", ":80", "host:port", "host:"):
        refused(UsageError, "address is HOST:PORT, found", spec_of(), chief=address)
    refused(UsageError, "not both", spec_of(), chief="a:1", worker="a:1")
    refused(UsageError, "cannot listen at 127.0.0.1:99999", spec_of(), chief="127.0.0.1:99999")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        refused(UsageError, f"cannot listen at {address}", spec_of(), chief=address)
    monkeypatch.setattr(tune, "CHIEF_SECONDS", 0.1)
    refused(DenoiseError, "no chief answers at 127.0.0.1:1$", spec_of(), worker="127.0.0.1:1")
    assert not any(name.startswith("KERASTUNER") for name in os.environ)
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    refused(UsageError, "KERASTUNER_ORACLE_IP is set, but KERASTUNER_ORACLE_PORT", spec_of())
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker")
    refused(DenoiseError, "no chief answers at 127.0.0.1:1$", spec_of())
    monkeypatch.setattr(tune, "find_spec", lambda name: None)
    refused(UsageError, r"pip install 'denoisecli\[tune\]'", spec_of())


PROCESS = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_tune as t
from denoisecli.tuning import oracles

def slow(self, hp, model):
    for step in range(10):
        time.sleep(0.1)
        self.watch.on_batch_end(0, step, {{"loss": 1.0}})
    return t.figure(self, hp, model)

t.SpecHyperModel.build, t.SpecHyperModel.fit = t.nothing, slow
t.tuner.HEARTBEAT_SECONDS, oracles.LOST_SECONDS = 0.5, 5.0
data, folder, options = sys.argv[1:]
t.search(t.spec_of(space=t.WIDE), Path(data), Path(folder), t.Recorder(), method="random", trials=5,
         **json.loads(options))
"""


def start(data: Path, folder: Path, **options: Any) -> "subprocess.Popen[bytes]":
    """A search in another process, whose trials take a second."""
    code = PROCESS.format(tests=str(Path(__file__).parent))
    arguments = [str(data), str(folder), json.dumps(options)]
    return subprocess.Popen([sys.executable, "-c", code, *arguments])


def wait_until(folder: Path, reached: Callable[[dict[str, Any]], bool]) -> None:
    """Wait for a state of a search."""
    for _ in range(1200):
        if (folder / STATE).exists() and reached(json.loads((folder / STATE).read_text())):
            return
        time.sleep(0.1)
    raise AssertionError("that state was never reached")


def statuses(state: dict[str, Any]) -> list[str]:
    return [trial["status"] for trial in state["trials"]]


def test_kill_9(untrained: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> None:
    process = start(data, tmp_path)
    wait_until(tmp_path, lambda state: statuses(state) == ["COMPLETED", "RUNNING"])
    process.kill()
    process.wait()
    before = json.loads((tmp_path / STATE).read_text())["trials"]
    recorder = Recorder()
    results = search(spec_of(space=WIDE), data, tmp_path, recorder, method="random", trials=5)
    assert recorder.notes == ["going on after 2 trials"]
    assert [result.status for result in results] == ["completed"] * 5
    after = json.loads((tmp_path / STATE).read_text())["trials"]
    assert after[0] == before[0]
    assert after[1]["hyperparameters"]["values"] == before[1]["hyperparameters"]["values"]


def test_a_chief_and_two_workers_one_of_them_killed(data: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    chief = start(data, tmp_path, chief=address)
    wait_until(tmp_path, lambda state: True)
    workers = [start(data, tmp_path, worker=address) for _ in range(2)]
    processes = [chief, *workers]
    try:
        wait_until(tmp_path, lambda state: len(state["ongoing_trials"]) == 2)
        workers[0].send_signal(signal.SIGKILL)
        state = json.loads((tmp_path / STATE).read_text())
        assert chief.wait(120) == 0
        assert workers[1].wait(30) == 0
    finally:
        for process in processes:
            process.kill()
    end = json.loads((tmp_path / STATE).read_text())
    assert statuses(end) == ["COMPLETED"] * 5
    assert sorted(end["end_order"]) == [f"{n:04}" for n in range(5)]
    assert sorted(end["attempts"].values()) == [1, 1, 1, 1, 2]
    twice = next(name for name, attempts in end["attempts"].items() if attempts == 2)
    assert twice in state["ongoing_trials"].values()
    assert end["end_order"][-1] == twice or end["end_order"].index(twice) >= 1
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["completed"] * 5
    assert (tmp_path / "best.json").exists()


class TestCommand:
    def run(self, data: Path, folder: Path, *options: str) -> Any:
        path = folder / "spec.json"
        path.write_text(json.dumps(document(space=WIDE)))
        arguments = ["tune", str(path), "--data", str(data), "--run", str(folder / "run")]
        return CliRunner().invoke(app, [*arguments, "--method", "random", *options])

    def test_table_and_json(
        self, untrained: pytest.MonkeyPatch, data: Path, tmp_path: Path
    ) -> None:
        shown = self.run(data, tmp_path, "--trials", "2")
        assert shown.exit_code == 0, shown.output
        lines = shown.stdout.splitlines()
        assert lines[0].split()[:3] == ["trial", "status", "objective"]
        assert lines[0].split()[-2:] == ["filters", "learning_rate"]
        assert len(lines) == 3
        assert "trial 0000 completed: objective 4, epochs 1" in shown.stderr
        assert "wrote" in shown.stderr and "the spec as it is has 4" in shown.stderr
        shown = self.run(data, tmp_path, "--trials", "3", "--json")
        results = json.loads(shown.stdout)
        assert [result["status"] for result in results] == ["completed"] * 3
        assert results[0]["values"]["training.learning_rate"] == 0.002

    def test_errors(self, data: Path, tmp_path: Path) -> None:
        shown = CliRunner().invoke(app, ["tune", "seed", "--data", str(data)])
        assert shown.exit_code == 2
        assert "no search section" in shown.stderr
        assert self.run(data, tmp_path, "--chief", "here").exit_code == 2
        assert self.run(data, tmp_path, "--trials", "0").exit_code == 2
        assert self.run(data, tmp_path, "--method", "grid").exit_code == 2

    def test_live_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Console(
            file=io.StringIO(), force_terminal=True, width=100, height=12, highlight=False
        )
        monkeypatch.setattr(console, "err", terminal)
        values = {"downsampling.*.filters": 4, "training.learning_rate": 0.002}
        results = [
            TrialResult(f"{n:04}", "completed", values, objective=n / 4, macs=2e6, seconds=3.0)
            for n in range(20)
        ]
        with displays.SearchDisplay() as display:
            display.trials([*results, TrialResult("0020", "running", values)])
            display.progress("0020", "epoch 1 of 2")
            terminal.print(display.render())
        shown = terminal.file.getvalue()  # type: ignore[attr-defined]
        for text in ("filters", "learning_rate", "0019", "4.75", "running", "epoch 1 of 2"):
            assert text in shown
        assert "0003" not in shown  # as many of the last ones as there is room for
