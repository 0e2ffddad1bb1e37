import contextlib
import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
import soundfile
import tensorflow as tf
from helpers import build_once

from denoisecli.datasets.manifest import load_manifest
from denoisecli.errors import DatasetError, Interrupted, ModelError, UsageError
from denoisecli.models.catalogue import PRETRAINED
from denoisecli.models.folder import ModelFolder
from denoisecli.models.registry import build_model
from denoisecli.models.summary import summarize_network
from denoisecli.spec.document import Spec, parse_spec, read_spec, save_spec
from denoisecli.training import checkpoint, trainer, waveform_model
from denoisecli.training.batches import open_batches
from denoisecli.training.checkpoint import State, load_checkpoint, save_checkpoint
from denoisecli.training.devices import Devices
from denoisecli.training.history import Row, read_history
from denoisecli.training.losses.waveform import total_loss
from denoisecli.training.mixed_batches import Mixing
from denoisecli.training.recordings import Folders
from denoisecli.training.run_folder import CHECKPOINT, RECORDINGS, list_runs, locked, trained_on
from denoisecli.training.train import _open_logs, train
from denoisecli.training.trainer import Trainer

EPOCHS, STEPS = 2, 3
FILES = {
    *("spec.json", "model.keras", "model.onnx", "stream.onnx"),
    *("metrics.json", "history.csv", "curves.png"),
}
FIGURES = {"loss", "si_sdr_improvement"}


def spec_of(description: str = "", **training: Any) -> Spec:
    """Return a spec that is quick to build and to trace."""
    return parse_spec(
        {
            "name": "test",
            "description": description,
            "audio": {"sample_rate": 4000},
            "stft": {"n_fft": 32, "hop_length": 16},
            "downsampling": [{"filters": 4, "strides": [4, 1], "dropout": 0.2}],
            "upsampling": [{"filters": 4}],
            "training": {
                "losses": [{"kind": "waveform_l1", "weight": 1.0}],
                "batch_size": 4,
                "segment_seconds": 0.2,
                "epochs": EPOCHS,
                "steps_per_epoch": STEPS,
                "warmup_steps": 2,
                "average_decay": 0.0,
                "augmentation": None,
                **training,
            },
        }
    )


AUGMENTATION = {
    "snr_db": [-5.0, 20.0],
    "second_noise": 0.3,
    "third_noise": 0.3,
    "level_dbfs": [-45.0, -12.0],
}
"""An augmentation that leaves nothing to the dataset."""


def full_spec(description: str = "", **training: Any) -> Spec:
    """Return a spec with everything that has a state or is random."""
    return spec_of(description, average_decay=0.8, augmentation=AUGMENTATION, **training)


class Recorder:
    """An observer that keeps what it receives and calls a function at one moment."""

    def __init__(
        self, moment: tuple[int, int] | None = None, action: Callable[[], None] | None = None
    ) -> None:
        self.moment, self.action = moment, action
        self.messages: list[str] = []
        self.begins: list[tuple[int, int, int]] = []
        self.steps: list[tuple[int, int]] = []
        self.rows: list[Row] = []
        self.best: list[bool] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None:
        self.begins.append((epochs, steps, epoch))

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        assert set(logs) == FIGURES
        self.steps.append((epoch, step))
        self._act((epoch, step))

    def on_epoch_end(self, row: Row, *, best: bool) -> None:
        self.rows.append(row)
        self.best.append(best)
        self._act((int(row["epoch"]), 0))

    def _act(self, moment: tuple[int, int]) -> None:
        if moment == self.moment and self.action:
            self.action()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Killed(Exception):
    """Stands for a power cut, after which nothing is saved."""


def kill() -> None:
    raise Killed


@pytest.fixture(scope="session")
def finished(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    """Train without interruption."""

    def build(folder: Path) -> None:
        recorder, run = Recorder(), folder / "whole"
        assert train(full_spec(), tiny_dataset, run, recorder) == run / "model"
        (folder / "recorder").write_bytes(pickle.dumps(vars(recorder)))

    folder, recorder = build_once(tmp_path_factory, "finished", build), Recorder()
    vars(recorder).update(pickle.loads((folder / "recorder").read_bytes()))
    return folder / "whole", recorder


@pytest.fixture
def no_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the time that logs for TensorBoard and the picture of the curves take."""
    monkeypatch.setattr("denoisecli.training.train._open_logs", lambda *arguments: None)
    monkeypatch.setattr(trainer, "plot_history", lambda rows, path: path.touch())


@pytest.fixture
def untraced() -> Iterator[None]:
    """Compute each operation at once, because tracing takes longer than a few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def few_steps(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that trains for a few steps only."""
    # TensorFlow warns that it traces the functions of its datasets all the same.
    mark = pytest.mark.filterwarnings("ignore:Even though the `tf.config:UserWarning")
    return pytest.mark.usefixtures("untraced")(mark(test))


def weights(run: Path) -> list[np.ndarray]:
    return ModelFolder(run / "model").load_network().get_weights()


def history(run: Path) -> list[Row]:
    return read_history(run / "model" / "history.csv")


def without_time(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "minutes"}


def metrics_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "model" / "metrics.json").read_text())


class TestFinishedRun:
    def test_files(self, finished: tuple[Path, Recorder], tiny_dataset: Path) -> None:
        run, _ = finished
        assert {path.name for path in (run / "model").iterdir()} == FILES
        assert {path.name for path in run.iterdir()} == {
            *("model", "spec.json", "run.json", "history.csv", "logs")
        }
        for folder in (run, run / "model"):
            assert read_spec(folder / "spec.json") == full_spec()
        assert (run / "history.csv").read_text() == (run / "model" / "history.csv").read_text()
        assert [run.state for run in list_runs(run)[0]] == ["finished"]
        assert any(path.name.startswith("events.out") for path in (run / "logs").iterdir())

    def test_metrics(self, finished: tuple[Path, Recorder], tiny_dataset: Path) -> None:
        run, _ = finished
        metrics = metrics_of(run)
        assert metrics["epochs"] == EPOCHS
        assert set(metrics["test"]) == FIGURES
        assert np.isfinite(list(metrics["test"].values())).all()
        assert metrics["onnx_difference"] < 1e-4
        assert metrics["versions"]["keras"] == keras.__version__
        assert metrics["seed"] == 0
        assert metrics["init_from"] is None
        best = history(run)[metrics["best_epoch"] - 1]
        assert metrics["validation"] == {name: best[name] for name in best if name[:4] == "val_"}
        facts = json.loads((run / "run.json").read_text())
        assert facts["dataset"] == metrics["dataset"] == load_manifest(tiny_dataset).id
        assert facts["starts"][0]["code"] == metrics["code"]
        hashes = load_manifest(tiny_dataset).source_hashes("train", "valid")
        assert set(metrics["training_sources"].split()) == hashes
        network = ModelFolder(run / "model").load_network()
        assert metrics["parameters"] == network.count_params()
        assert metrics["macs_per_second"] == summarize_network(network).macs_per_second

    def test_onnx_equals_keras(self, finished: tuple[Path, Recorder]) -> None:
        model = ModelFolder(finished[0] / "model")
        spectrum = np.random.default_rng(0).normal(size=(1, 17, 9, 2)).astype(np.float32)
        session = onnxruntime.InferenceSession(model.onnx_path)
        (mask,) = session.run(["mask"], {"spectrum": spectrum})
        expected = model.load_network()(spectrum, training=False)
        np.testing.assert_allclose(mask, expected, atol=1e-4)

    def test_observer(self, finished: tuple[Path, Recorder]) -> None:
        run, recorder = finished
        device, mixtures = recorder.messages
        assert device.startswith(("training on the CPU (", "training on the GPU ("))
        assert mixtures.startswith("training mixtures: SNR -5 to 20 dB")
        assert recorder.begins == [(EPOCHS, STEPS, 0)]
        assert recorder.steps == [(e, s + 1) for e in range(EPOCHS) for s in range(STEPS)]
        rows = history(run)
        assert rows == recorder.rows
        assert list(rows[0]) == [
            *("epoch", "minutes", "audio_hours", "learning_rate"),
            *("loss", "si_sdr_improvement", "val_loss", "val_si_sdr_improvement"),
        ]
        segment = 12 * round(0.2 * 4000 / 12) / 4000
        hours = [(epoch + 1) * STEPS * 4 * segment / 3600 for epoch in range(EPOCHS)]
        assert [row["audio_hours"] for row in rows] == pytest.approx(hours, abs=1e-3)
        losses = [row["val_loss"] for row in rows]
        assert recorder.best == [loss == min(losses[: i + 1]) for i, loss in enumerate(losses)]
        assert metrics_of(run)["best_epoch"] == 1 + int(np.argmin(losses))

    def test_it_is_not_trained_again(
        self, finished: tuple[Path, Recorder], tiny_dataset: Path
    ) -> None:
        with pytest.raises(UsageError, match=r"whole is finished, .*--fresh starts over"):
            train(full_spec(), tiny_dataset, finished[0], Recorder())


@pytest.mark.slow
def test_resuming_is_exact(
    finished: tuple[Path, Recorder],
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interrupted at four different moments, a run ends as if it had not been."""
    handler = signal.getsignal(signal.SIGINT)
    message = "stopped in epoch 1; the same command resumes there"
    with pytest.raises(Interrupted, match=message) as raised:
        train(full_spec(), tiny_dataset, tmp_path, Recorder((0, 2), interrupt))
    assert raised.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is handler

    # Between the last batch and the validation; another description makes no other run.
    recorder = Recorder((0, STEPS), interrupt)
    with pytest.raises(Interrupted):
        train(full_spec("described"), tiny_dataset, tmp_path, recorder)
    assert recorder.steps == [(0, 3)]
    assert recorder.messages[-1].startswith("resuming at epoch 1, step 2 after")
    assert recorder.rows == []

    # While an epoch ends.
    recorder = Recorder((1, 0), interrupt)
    message = "stopped after epoch 1; the same command resumes there"
    with pytest.raises(Interrupted, match=message):
        train(full_spec(), tiny_dataset, tmp_path, recorder)
    assert recorder.steps == []
    assert not (tmp_path / "model").exists()

    # Killed: the last checkpoint counts, one step before.
    recorder = Recorder((1, 2), kill)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
        train(full_spec(), tiny_dataset, tmp_path, recorder)
    assert recorder.steps == [(1, 1), (1, 2)]

    recorder = Recorder()
    train(full_spec(), tiny_dataset, tmp_path, recorder)
    assert recorder.steps == [(1, 2), (1, 3)]
    whole, _ = finished
    for found, expected in zip(weights(tmp_path), weights(whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for row, other in zip(history(tmp_path), history(whole), strict=True):
        assert without_time(row) == pytest.approx(without_time(other), rel=1e-4)


@pytest.mark.slow
def test_time_limit(tiny_dataset: Path, tmp_path: Path, no_logs: None) -> None:
    """The epoch in progress is cut short and validated; earlier calls count."""
    with pytest.raises(Interrupted):
        train(spec_of(), tiny_dataset, tmp_path, Recorder((0, 1), interrupt), minutes=60.0)
    recorder = Recorder()
    train(spec_of(), tiny_dataset, tmp_path, recorder, minutes=1e-6)
    assert recorder.steps == [(0, 2)]
    (row,) = recorder.rows
    assert row["epoch"] == 1
    assert row["audio_hours"] == pytest.approx(2 * 4 * 0.2 / 3600, abs=1e-3)
    assert recorder.best == [True]
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES
    metrics = metrics_of(tmp_path)
    assert (metrics["epochs"], metrics["best_epoch"]) == (1, 1)
    (run,), _ = list_runs(tmp_path)
    assert (run.state, run.epochs, run.planned_epochs) == ("finished", 1, EPOCHS)
    with pytest.raises(UsageError, match="is finished"):
        train(spec_of(), tiny_dataset, tmp_path, Recorder(), minutes=60.0)


class FakeScores:
    def __init__(self, clean: np.ndarray, estimates: np.ndarray, sample_rate: int) -> None:
        assert sample_rate == 4000
        assert clean.shape == estimates.shape
        self.error = float(np.mean(np.abs(estimates - clean)))

    def __call__(self) -> dict[str, float]:
        return {"pesq": 1 + self.error, "estoi": -self.error}


@pytest.mark.slow
def test_scores_select_the_best_epoch(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_logs: None
) -> None:
    """PESQ and ESTOI are measured every second epoch and in the last; also when resumed."""
    monkeypatch.setattr(
        trainer, "scoring", lambda *arguments: contextlib.nullcontext(FakeScores(*arguments))
    )
    spec = spec_of(monitor="val_estoi", perceptual_every=2, epochs=3, steps_per_epoch=1)
    first, second = Recorder((2, 0), interrupt), Recorder()
    with pytest.raises(Interrupted):
        train(spec, tiny_dataset, tmp_path, first)
    train(spec, tiny_dataset, tmp_path, second)
    rows = history(tmp_path)
    assert "val_estoi" not in rows[0]
    scores = [row["val_estoi"] for row in rows[1:]]
    assert [row["val_pesq"] for row in rows[1:]] == [1 - score for score in scores]
    assert first.best == [False, True]
    assert second.best == [scores[1] > scores[0]]
    metrics = metrics_of(tmp_path)
    assert metrics["best_epoch"] == 2 + (scores[1] > scores[0])
    assert metrics["validation"]["val_estoi"] == max(scores)
    assert set(metrics["test"]) == FIGURES | {"pesq", "estoi"}


@pytest.mark.slow
@few_steps
@pytest.mark.parametrize("ended_by", ["time", "callback in the epoch", "callback after it"])
def test_a_run_that_ends_before_its_monitor_is_measured_keeps_what_it_trained(
    ended_by: str, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last epoch is scored, unless a callback ends the run after its validation."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = ended_by == "callback in the epoch"

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.validated = self.model.network.get_weights()
            self.model.stop_training = ended_by == "callback after it"

    stop = Stop()
    spec = spec_of(monitor="val_estoi", perceptual_every=5, epochs=9, steps_per_epoch=1)
    minutes = 1e-6 if ended_by == "time" else None
    made = trainer_of(spec, tiny_dataset, tmp_path, minutes=minutes, callbacks=[stop])
    monkeypatch.setattr(made, "evaluate", lambda batches: {"loss": 1.0})
    monkeypatch.setattr(made, "_evaluate_and_score", lambda *_: {"loss": 1.0, "estoi": 0.5})
    initial = made.best
    made.fit()
    assert made.state.epoch == 1
    assert made.state.best == (None if ended_by == "callback after it" else 0.5)
    assert made.state.best_epoch == 0
    for found, trained in zip(made.best, stop.validated, strict=True):
        np.testing.assert_array_equal(found, trained)
    assert any((a != b).any() for a, b in zip(made.best, initial, strict=True))


@pytest.mark.slow
@few_steps
def test_starting_over_keeps_the_old_model_until_the_end(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.onnx").write_bytes(b"old")
    for fresh in (True, False):
        recorder = Recorder((0, 1 if fresh else 2), interrupt)
        with pytest.raises(Interrupted):
            train(spec_of(), tiny_dataset, tmp_path, recorder, fresh=fresh)
        assert (model / "model.onnx").read_bytes() == b"old"
    assert recorder.steps == [(0, 2)]


@pytest.mark.slow
def test_starting_over_and_killed_at_once_is_not_finished(
    tiny_dataset: Path, tmp_path: Path, no_logs: None
) -> None:
    """The old model does not pass for that of the new spec, and the run can be resumed."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_bytes(b"old")
    save_spec(spec_of("old"), tmp_path / "spec.json")
    with pytest.raises(UsageError, match=r"another --run with --init-from .* starts with its"):
        train(spec_of(), tiny_dataset, tmp_path, Recorder())
    with pytest.raises(Killed):
        train(spec_of(), tiny_dataset, tmp_path, Recorder((0, 1), kill), fresh=True)
    assert [run.state for run in list_runs(tmp_path)[0]] == ["stopped"]
    with pytest.raises(Interrupted, match="the same command without --fresh resumes there"):
        train(spec_of(), tiny_dataset, tmp_path, Recorder((0, 1), interrupt), fresh=True)
    recorder = Recorder((0, 2), terminate)
    with pytest.raises(Interrupted, match="the same command resumes there") as raised:
        train(spec_of(), tiny_dataset, tmp_path, recorder)
    assert raised.value.exit_code == 143
    assert recorder.steps == [(0, 2)]


class Watcher(keras.callbacks.Callback):
    """A callback of a user's, which ends the training in the middle of its second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[object] = []
        self.rows: list[Row] = []
        self.weights: list[list[np.ndarray]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.events.append("begin")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.events.append(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        assert logs["loss"] > 0
        self.events.append((self.events[-1], batch) if batch == 0 else batch)
        if len(self.rows) == 1 and batch == 1:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.rows.append(logs)
        self.weights.append(self.model.network.get_weights())

    def on_train_end(self, logs: Any = None) -> None:
        self.events.append("end")


@pytest.mark.slow
def test_callbacks_of_the_user(tiny_dataset: Path, tmp_path: Path, no_logs: None) -> None:
    """They see the epochs of the run and the validated weights, and can end the training."""
    watcher = Watcher()
    spec = spec_of(epochs=5, average_decay=0.5, learning_rate=1e-9, schedule="constant")
    train(spec, tiny_dataset, tmp_path, Recorder(), callbacks=[watcher])
    assert watcher.events == ["begin", 0, (0, 0), 1, 2, 1, (1, 0), 1, "end"]
    assert watcher.rows == history(tmp_path)
    assert metrics_of(tmp_path)["epochs"] == 2
    # At this rate only the normalizations change, so that any epoch can be the best one.
    best = int(np.argmin([row["val_loss"] for row in watcher.rows]))
    for found, expected in zip(weights(tmp_path), watcher.weights[best], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def trainer_of(spec: Spec, data: Path, run: Path, **options: Any) -> Trainer:
    return Trainer(spec, open_batches(data, spec), run, Recorder(), Devices("here"), **options)


def test_recurrent_layers_are_not_compiled_on_a_gpu(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XLA has no counterpart of cuDNN's recurrent layers."""
    spec = spec_of(jit_compile=True)
    valley = [{"block": "recurrent", "axis": "time", "units": 2}]
    recurrent = build_model(parse_spec({**spec.model_dump(mode="json"), "valley": valley}))
    made = trainer_of(spec, tiny_dataset, tmp_path)
    assert made._jit_compile(recurrent)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    assert made._jit_compile(made.network)
    assert made.observer.messages == []
    assert not made._jit_compile(recurrent)
    assert made.observer.messages == [
        "training.jit_compile is ignored: XLA cannot compile recurrent layers on a GPU"
    ]


def test_the_last_epoch_of_a_short_trial_is_scored(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hyperband compares trials after their first epochs, by whatever the objective is."""
    trial = trainer_of(spec_of(perceptual_every=5, epochs=9), tiny_dataset, tmp_path)
    monkeypatch.setattr(trial, "evaluate", lambda batches: {})
    monkeypatch.setattr(trial, "_evaluate_and_score", lambda batches, clips: {"pesq": 1.0})
    figures: list[dict[str, float]] = []

    def run_epoch(stop: Any) -> None:
        figures.append(trial._validate())
        trial.state.epoch += 1

    monkeypatch.setattr(trial, "_run_epoch", run_epoch)
    for until in (1, 3, 9):
        trial.fit(until=until)
    scored = [epoch for epoch, row in enumerate(figures, 1) if row]
    assert scored == [1, 3, 5, 9]


@pytest.fixture(scope="module")
def first_checkpoint(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a run of `full_spec` that was stopped before its first step."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("stopped")
    trainer_of(full_spec(), tiny_dataset, folder).save()
    return folder / CHECKPOINT


@pytest.fixture
def stopped(first_checkpoint: Path, tmp_path: Path) -> Path:
    """Return the folder of a run that can be resumed."""
    shutil.copy(first_checkpoint, tmp_path)
    return tmp_path


class TestResume:
    def test_another_spec_is_refused(self, stopped: Path, tiny_dataset: Path) -> None:
        changed = spec_of("described", learning_rate=0.1, augmentation=None, average_decay=0.8)
        with pytest.raises(UsageError) as raised:
            train(changed, tiny_dataset, stopped, Recorder())
        message = str(raised.value)
        assert "differs in training.augmentation, training.learning_rate; to resume" in message
        assert load_checkpoint(stopped / CHECKPOINT).spec == full_spec()

    def test_what_past_steps_do_not_depend_on_may_change(
        self, stopped: Path, tiny_dataset: Path
    ) -> None:
        """Such as the length of a run whose learning rate does not depend on it."""
        saved = load_checkpoint(stopped / CHECKPOINT)
        constant = full_spec(schedule="constant")
        saved = replace(saved, spec=constant, state=State(epoch=2))
        save_checkpoint(stopped / CHECKPOINT, saved)
        longer = full_spec(schedule="constant", epochs=9, loss_limit=None)
        resumed = trainer_of(longer, tiny_dataset, stopped)
        resumed.resume()
        assert resumed.state.epoch == 2
        resumed.spec = full_spec()
        message = r"differs in training\.schedule; to resume it, give its own spec, .*spec\.json"
        with pytest.raises(UsageError, match=message):
            resumed.resume()

    def test_checkpoint_of_an_earlier_version(self, stopped: Path, tiny_dataset: Path) -> None:
        """It has fewer keys, and those that are missing have their defaults."""
        with np.load(stopped / CHECKPOINT) as file:
            arrays = {name: file[name] for name in file.files}
        progress = json.loads(arrays["progress"].tobytes())
        for key in ("schedule", "decay_share", "perceptual_every", "loss_limit", "precision"):
            del progress["spec"]["training"][key]
        for key in ("loss_sum", "recent", "init_from"):
            del progress["state"][key]
        progress["state"] |= {"epoch": 1, "best": 0.5}
        arrays["progress"] = np.frombuffer(json.dumps(progress).encode(), np.uint8)
        with (stopped / CHECKPOINT).open("wb") as file:
            np.savez(file, **arrays)
        resumed = trainer_of(full_spec(), tiny_dataset, stopped)
        resumed.resume()
        assert (resumed.state.epoch, resumed.state.best, resumed.state.recent) == (1, 0.5, [])

    def test_a_run_in_use_is_refused(self, stopped: Path, tiny_dataset: Path) -> None:
        with locked(stopped), pytest.raises(UsageError, match="is in use: another process trains"):
            train(full_spec(), tiny_dataset, stopped, Recorder())

    def test_another_dataset_is_refused(self, stopped: Path, tiny_dataset: Path) -> None:
        saved = load_checkpoint(stopped / CHECKPOINT)
        save_checkpoint(stopped / CHECKPOINT, replace(saved, dataset="other"))
        with pytest.raises(UsageError, match="trained on another dataset; --fresh starts over"):
            train(full_spec(), tiny_dataset, stopped, Recorder())

    def test_damaged_checkpoints(self, stopped: Path, tiny_dataset: Path) -> None:
        saved = load_checkpoint(stopped / CHECKPOINT)
        resumed = trainer_of(full_spec(), tiny_dataset, stopped)
        for name in ("task", "optimizer", "metrics", "best"):
            changed = replace(saved, **{name: getattr(saved, name)[1:]})
            save_checkpoint(stopped / CHECKPOINT, changed)
            with pytest.raises(ModelError, match="incompatible version; --fresh starts over"):
                resumed.resume()
        (stopped / CHECKPOINT).write_bytes(b"PK")
        with pytest.raises(ModelError, match="damaged or not a checkpoint"):
            resumed.resume()

    def test_a_run_with_a_time_limit_keeps_its_schedule_without_one(
        self, stopped: Path, tiny_dataset: Path
    ) -> None:
        limited = trainer_of(full_spec(), tiny_dataset, stopped, minutes=1.0)
        limited.resume()
        limited.schedule.stretch(5)
        limited.save()
        resumed = trainer_of(full_spec(), tiny_dataset, stopped)
        resumed.resume()
        assert float(np.asarray(resumed.schedule.total)) == 5
        rates = []
        for made in (limited, resumed):
            made.optimizer.iterations.assign(4)
            rates.append(float(np.asarray(made.optimizer.learning_rate)))
        assert rates[0] == rates[1]

    def test_nothing_is_trained_when_the_time_is_up(
        self, stopped: Path, tiny_dataset: Path
    ) -> None:
        saved = load_checkpoint(stopped / CHECKPOINT)
        state = State(epoch=1, seconds=61, history=[{"epoch": 1}])
        save_checkpoint(stopped / CHECKPOINT, replace(saved, state=state))
        resumed = trainer_of(full_spec(), tiny_dataset, stopped, minutes=1.0)
        resumed.resume()
        resumed.fit()
        assert resumed.observer.steps == []
        assert resumed.state.epoch == 1


@pytest.mark.parametrize("until_time_is_up", [True, False])
def test_a_run_without_a_number_of_epochs_ends_with_its_time(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until_time_is_up: bool
) -> None:
    made = trainer_of(
        spec_of(), tiny_dataset, tmp_path, minutes=60.0, until_time_is_up=until_time_is_up
    )
    epochs = iter(range(1, 7))

    def run_epoch(stop: object) -> None:
        made.state.epoch = next(epochs)
        made.state.history.append({})
        made.state.seconds += 600
        made.pace = (0, made.clock - 1.0)
        made.fit_schedule()

    monkeypatch.setattr(made, "_run_epoch", run_epoch)
    made.fit()
    assert made.observer.begins[0][0] == (0 if until_time_is_up else EPOCHS)
    assert made.state.epoch == (6 if until_time_is_up else EPOCHS)
    total = float(np.asarray(made.schedule.total))
    assert (total > EPOCHS * STEPS) == until_time_is_up


def test_the_lock_is_taken_before_recordings_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, decoded = tmp_path / "run", []
    monkeypatch.setattr("denoisecli.training.train.mix_batches", decoded.append)
    with locked(run), pytest.raises(UsageError, match="is in use: another process trains there"):
        train(spec_of(), Mixing(Folders(tmp_path, tmp_path)), run, Recorder())
    assert not decoded
    with pytest.raises(DatasetError, match="is not a dataset"):
        train(spec_of(), tmp_path / "missing", run, Recorder())
    assert not run.exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs the list of mapped files")
def test_decoded_recordings_are_removed_once_they_are_not_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows cannot remove them before."""
    rng = np.random.default_rng(0)
    for kind in ("clean", "noise"):
        (tmp_path / kind).mkdir()
        for number in range(12):
            sound = rng.normal(0, 0.1, 32000)
            soundfile.write(tmp_path / kind / f"{number}.wav", sound, 16000)
    run, folders = tmp_path / "run", Folders(tmp_path / "clean", tmp_path / "noise")
    remove, mapped = shutil.rmtree, []

    def look(path: Path, **options: Any) -> None:
        if path == run / RECORDINGS:
            mapped.append(str(path) in Path("/proc/self/maps").read_text("utf-8"))
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", look)
    train(spec_of(epochs=1, steps_per_epoch=1), Mixing(folders), run, Recorder())
    assert mapped == [False]
    assert not (run / RECORDINGS).exists()


def test_only_tensorflow_writes_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert _open_logs(tmp_path / "logs", spec_of(), Recorder()) is None


class TestStartFromAnotherModel:
    def test_weights_are_copied(
        self,
        finished: tuple[Path, Recorder],
        tiny_dataset: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        folder = finished[0] / "model"
        new = trainer_of(spec_of(seed=1), tiny_dataset, tmp_path)
        new.start_from(folder)
        for found, expected in zip(new.best, weights(finished[0]), strict=True):
            np.testing.assert_array_equal(found, expected)
        (message,) = new.observer.messages  # nothing of its own validation set
        assert message.startswith("initialized ")
        assert message.endswith(f" layers from {folder}")
        assert new.state.init_from == str(folder)
        monkeypatch.setattr(trainer, "PRETRAINED", folder.parent)
        new.start_from(folder)
        assert new.state.init_from == folder.name  # a bundled model, wherever it is
        with pytest.raises(ModelError, match=r"model\.keras cannot be loaded"):
            new.start_from(tmp_path)

    def test_recordings_of_the_test_set_that_it_knows_are_a_warning(
        self,
        finished: tuple[Path, Recorder],
        tiny_dataset: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        folder = ModelFolder(tmp_path / "model")
        shutil.copytree(finished[0] / "model", folder.path)
        manifest = load_manifest(tiny_dataset)
        new = trainer_of(spec_of(), tiny_dataset, tmp_path)
        sets = {name: manifest.source_hashes(name) for name in ("train", "test")}
        sets["valid"] = {"0" * 8, "1" * 8}
        monkeypatch.setattr(
            type(new.batches),
            "source_hashes",
            lambda self, *names: set.union(*(sets[name] for name in names)),
        )
        in_test = f"2 of the {len(sets['test'])} in the test set"
        known = {*sets["train"], *sorted(sets["test"])[:2]}
        for dataset, sources, words in (
            ("other", known, in_test),
            (manifest.id, known | sets["valid"], f"the names of {in_test}"),
            ("other", sets["valid"], "the names of 2 of the 2 in the validation set; if"),
            ("other", known | sets["valid"], f"in the validation set and {in_test}"),
            ("other", set(), "does not record all its training recordings"),
            ("other", {"?", "2" * 8}, "does not record all its training recordings"),
        ):
            update = {"training_sources": " ".join(sources), "dataset": dataset}
            folder.write_metrics(folder.read_metrics().model_copy(update=update))
            new._warn_of_leak(folder.path)
            assert words in new.observer.messages[-1]
            new.state.init_from = str(folder.path)
            assert ("?" in new.training_sources().split()) == ("not record" in words)

    def test_another_start_has_no_effect_on_a_run_that_is_resumed(
        self, tiny_dataset: Path, tmp_path: Path
    ) -> None:
        trainer = trainer_of(spec_of(), tiny_dataset, tmp_path)
        trainer.check_start(PRETRAINED / "speech")
        assert (
            "this run began with new weights, so --init-from speech has no effect"
            in (trainer.observer.messages[-1])
        )
        trainer.state.init_from = "speech"
        trainer.check_start(tmp_path / "other")
        assert "with the weights of speech, so --init-from" in trainer.observer.messages[-1]
        count = len(trainer.observer.messages)
        trainer.check_start(PRETRAINED / "speech")
        assert len(trainer.observer.messages) == count

    @pytest.mark.slow
    def test_an_unfinished_run_knows_its_recordings(
        self, tiny_dataset: Path, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        with pytest.raises(Interrupted):
            train(spec_of(), tiny_dataset, run, Recorder((0, 1), interrupt))
        manifest = load_manifest(tiny_dataset)
        assert trained_on(str(run)) == (manifest.id, manifest.source_hashes("train", "valid"))
        (run / "run.json").unlink()
        assert trained_on(str(run)) == (None, {"?"})

    def test_more_gradient_steps_than_steps_would_change_nothing(
        self, tiny_dataset: Path, tmp_path: Path
    ) -> None:
        message = r"gradient_steps 1000 is more than the \d+ steps of the run"
        with pytest.raises(UsageError, match=message):
            trainer_of(spec_of(gradient_steps=1000), tiny_dataset, tmp_path)

    def test_layers_that_differ_are_named(
        self, finished: tuple[Path, Recorder], tiny_dataset: Path, tmp_path: Path
    ) -> None:
        wider = {"upsampling": [{"filters": 5}]}
        missing = "up0_0_convolution, up0_0_norm, output"
        for settings in ({"start_share": 0.5}, {"fixed_normalization": True}):
            document = spec_of(**settings).model_dump(mode="json")
            new = trainer_of(parse_spec({**document, **wider}), tiny_dataset, tmp_path)
            message = rf"needs a model with all layers of 'test'; missing in .*model: {missing}"
            with pytest.raises(UsageError, match=message):
                new.start_from(finished[0] / "model")
        new.spec = spec_of()
        new.start_from(finished[0] / "model")
        (message,) = new.observer.messages
        assert message.endswith(f"; layers not found in it: {missing}")

    @pytest.mark.slow
    def test_a_share_of_the_start_is_kept(
        self, finished: tuple[Path, Recorder], tiny_dataset: Path, tmp_path: Path, no_logs: None
    ) -> None:
        before = finished[0] / "model"
        settings = {"epochs": 1, "steps_per_epoch": 2, "learning_rate": 0.02}
        train(spec_of(**settings), tiny_dataset, tmp_path / "all", Recorder(), init_from=before)
        shared = spec_of(**settings, start_share=0.25)
        with pytest.raises(Interrupted):
            stop = Recorder((0, 1), interrupt)
            train(shared, tiny_dataset, tmp_path / "part", stop, init_from=before)
        train(shared, tiny_dataset, tmp_path / "part", Recorder())

        old, new = weights(finished[0]), weights(tmp_path / "all")
        mean = weights(tmp_path / "part")
        assert any(np.abs(o - n).max() > 1e-3 for o, n in zip(old, new, strict=True))
        paths = [one.path for one in ModelFolder(tmp_path / "part/model").load_network().weights]
        for path, o, n, m in zip(paths, old, new, mean, strict=True):
            # The statistics are those of the averaged weights, not averages themselves.
            is_average = np.allclose(m, 0.25 * o + 0.75 * n, rtol=1e-5, atol=1e-6)
            assert is_average == ("/moving_" not in path), path

    @pytest.mark.slow
    def test_fixed_normalizations_stay_as_they_are(
        self, finished: tuple[Path, Recorder], tiny_dataset: Path, tmp_path: Path, no_logs: None
    ) -> None:
        settings = {"epochs": 1, "steps_per_epoch": 2, "learning_rate": 0.02}
        spec = spec_of(**settings, fixed_normalization=True)
        for needs in (spec, spec_of(**settings, start_share=0.5)):
            with pytest.raises(UsageError, match=r"^training\.\w+ needs a model to start from"):
                train(needs, tiny_dataset, tmp_path / "run", Recorder())
        before = finished[0] / "model"
        train(spec, tiny_dataset, tmp_path / "run", Recorder(), init_from=before)
        old = ModelFolder(before).load_network()
        new = ModelFolder(tmp_path / "run/model").load_network()
        for first, second in zip(old.weights, new.weights, strict=True):
            is_same = np.array_equal(first, second)
            assert is_same == ("_norm/" in first.path), first.path


def test_wrong_paths(tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is a file; a run needs a folder"):
        train(spec_of(), tiny_dataset, tmp_path / "file", Recorder())
    with pytest.raises(DatasetError, match="is not a dataset"):
        train(spec_of(), tmp_path, tmp_path / "run", Recorder())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@few_steps
def test_values_that_are_not_finite(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_logs: None
) -> None:
    """At first the loss is finite although the weights are not; then it is not either."""
    factor, slope_factor = tf.Variable(1.0), tf.Variable(1.0)

    @tf.custom_gradient
    def same(value: Any) -> Any:
        return tf.identity(value), lambda slope: slope * slope_factor

    def loss(estimate: Any, *others: Any) -> Any:
        return factor * total_loss(same(estimate), *others)

    monkeypatch.setattr(waveform_model, "total_loss", loss)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    recorder = Recorder((0, 2), lambda: slope_factor.assign(np.nan))
    message = r"a weight is not finite in epoch 1, step 3; the last good state is in .*npz"
    with pytest.raises(ModelError, match=message):
        train(spec_of(), tiny_dataset, tmp_path, recorder)
    saved = load_checkpoint(tmp_path / CHECKPOINT)
    assert saved.state.step == 2
    for group in (saved.task, saved.optimizer, saved.best):
        assert all(np.isfinite(array).all() for array in group)

    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 3600.0)
    recorder = Recorder((0, 1), lambda: factor.assign(np.nan))
    message = (
        "the loss is not finite in epoch 1, step 2; no checkpoint was saved yet; the batch is in"
    )
    slope_factor.assign(1.0)
    with pytest.raises(ModelError, match=message):
        train(spec_of(), tiny_dataset, tmp_path, recorder, fresh=True)
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
@few_steps
def test_outlier_of_the_loss(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_logs: None
) -> None:
    """The batch that caused it is saved, to the sample; the last state is kept."""
    factor, seen = tf.Variable(1.0), tf.Variable(tf.zeros((0, 0)), shape=(None, None))

    def loss(estimate: Any, clean: Any, noisy: Any, *others: Any) -> Any:
        seen.assign(noisy)
        return factor * total_loss(estimate, clean, noisy, *others)

    monkeypatch.setattr(waveform_model, "total_loss", loss)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "MIN_LOSSES", 3)
    recorder = Recorder((1, 1), lambda: factor.assign(1e6))
    message = (
        r"the loss of a batch jumped to [\d.]+e\+0\d in epoch 2, step 2; the last good state is in "
        r".*checkpoint\.npz; the batch is in .*bad_batch\.npz; try a lower learning_rate"
    )
    with pytest.raises(ModelError, match=message):
        train(spec_of(augmentation=AUGMENTATION), tiny_dataset, tmp_path, recorder)
    state = load_checkpoint(tmp_path / CHECKPOINT).state
    assert (state.epoch, state.step) == (1, 1)
    with np.load(tmp_path / "bad_batch.npz") as batch:
        np.testing.assert_array_equal(batch["noisy"], seen)
        assert batch["clean"].shape == batch["noisy"].shape
        assert (batch["epoch"], batch["step"]) == (2, 2)
    assert [run.state for run in list_runs(tmp_path)[0]] == ["stopped"]


class Lazy:
    """A figure on a device that is busy: reading it takes until the step is done."""

    def __init__(self, value: float, read: Callable[[], None]) -> None:
        self.value, self.read = value, read

    def __float__(self) -> float:
        self.read()
        return float(self.value)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [None, 13])
def test_losses_are_read_after_some_steps_only(
    bad: int | None, tiny_dataset: Path, tmp_path: Path
) -> None:
    """A bad one is found with the next ones, and its own step is named."""
    made = trainer_of(spec_of(steps_per_epoch=23, epochs=1), tiny_dataset, tmp_path)
    made.model.make_train_function()
    step_of_model = made.model.train_function
    done = [0]
    reads: list[int] = []

    def step(batch: Any) -> dict[str, Lazy]:
        done[0] += 1
        logs = step_of_model(batch) | ({"loss": np.nan} if done[0] == bad else {})
        return {name: Lazy(value, lambda: reads.append(done[0])) for name, value in logs.items()}

    made.model.train_function = step
    if bad is None:
        made.fit()
        assert set(reads) == {1, 5, 10, 20, 23}
    else:
        with pytest.raises(ModelError, match=f"the loss is not finite in epoch 1, step {bad};"):
            made.fit()
        assert set(reads) == {1, 5, 10, 20}
    assert (tmp_path / CHECKPOINT).exists() == (bad is None)


@pytest.mark.slow
def test_early_stopping(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_logs: None
) -> None:
    monkeypatch.setattr(waveform_model, "total_loss", lambda *args: 0 * total_loss(*args))
    recorder = Recorder()
    spec = spec_of(epochs=9, steps_per_epoch=1, early_stopping=2)
    train(spec, tiny_dataset, tmp_path, recorder)
    assert recorder.best == [True, False, False]
    metrics = metrics_of(tmp_path)
    assert (metrics["epochs"], metrics["best_epoch"]) == (3, 1)
