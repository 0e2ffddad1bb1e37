import contextlib
import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
import soundfile
import tensorflow as tf

from denoisecli.datasets.pairs import Recipe
from denoisecli.datasets.stored import build, load_manifest
from denoisecli.errors import DatasetError, ModelError, UsageError
from denoisecli.models.catalogue import load_spec
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training import progress, trainer
from denoisecli.training import waveform_model as task
from denoisecli.training.batches import open_batches
from denoisecli.training.checkpoint import load_checkpoint, save_checkpoint
from denoisecli.training.devices import Devices
from denoisecli.training.losses.spectral import total_loss
from denoisecli.training.observer import Interrupted
from denoisecli.training.run_folder import CHECKPOINT, list_runs, locked
from denoisecli.training.train import train
from denoisecli.training.trainer import Trainer

EPOCHS, STEPS = 3, 4
FILES = {"spec.json", "model.keras", "model.onnx", "metrics.json", "history.csv", "curves.png"}


def spec_of(description: str = "", **changes: Any) -> Spec:
    """A network with all that has a state: normalization, dropout, averaging; quick to trace."""
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
                "average_decay": 0.8,
                **changes,
            },
        }
    )


class Recorder:
    """An observer that keeps what it is told and does something at one moment."""

    def __init__(
        self, moment: tuple[int, int] | None = None, action: Callable[[], None] | None = None
    ) -> None:
        self.moment, self.action = moment, action
        self.notes: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.rows: list[dict[str, Any]] = []
        self.best: list[bool] = []

    def on_message(self, text: str) -> None:
        self.notes.append(text)

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None:
        self.notes.append(f"{epochs} epochs of {steps} steps from {epoch}")

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        assert set(logs) == {"loss", "si_sdr_improvement"}
        self.steps.append((epoch, step))
        self._act((epoch, step))

    def on_epoch_end(self, row: dict[str, Any], *, best: bool) -> None:
        self.rows.append(row)
        self.best.append(best)
        self._act((len(self.rows), 0))

    def _act(self, moment: tuple[int, int]) -> None:
        if moment == self.moment and self.action:
            self.action()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Killed(Exception):
    """Stands for a power cut: nothing is saved any more."""


def kill() -> None:
    raise Killed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
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


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    """A run without interruption."""
    recorder = Recorder()
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert train(spec_of(), data, run, recorder) == run / "model"
    return run, recorder


def weights(run: Path) -> list[np.ndarray]:
    return keras.saving.load_model(run / "model" / "model.keras").get_weights()


def history(run: Path) -> list[dict[str, float]]:
    with (run / "model" / "history.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        return [{key: float(value) for key, value in row.items() if value} for row in rows]


def test_model_folder(finished: tuple[Path, Recorder], data: Path) -> None:
    run, _ = finished
    model = run / "model"
    assert {path.name for path in model.iterdir()} == FILES
    assert {path.name for path in run.iterdir()} == {
        *("model", "spec.json", "run.json", "history.csv", "logs", ".lock")
    }
    assert load_spec(model) == load_spec(run) == spec_of()
    assert (model / "curves.png").read_bytes().startswith(b"\x89PNG")

    metrics = json.loads((model / "metrics.json").read_text())
    assert metrics["epochs"] == EPOCHS
    assert set(metrics["test"]) == {"loss", "si_sdr_improvement"}
    assert np.isfinite(list(metrics["test"].values())).all()
    assert metrics["onnx_difference"] < 1e-4
    assert metrics["versions"]["keras"] == keras.__version__
    assert metrics["seed"] == 0
    assert metrics["init_from"] is None
    best = history(run)[metrics["best_epoch"] - 1]
    assert metrics["validation"] == {name: best[name] for name in best if name[:4] == "val_"}

    facts = json.loads((run / "run.json").read_text())
    assert facts["dataset"] == metrics["dataset"] == load_manifest(data)["id"]
    assert facts["starts"][0]["code"] == metrics["code"]
    assert (run / "history.csv").read_text() == (model / "history.csv").read_text()
    assert [run.state for run in list_runs(run)] == ["finished"]
    assert any(path.name.startswith("events.out") for path in (run / "logs").iterdir())
    network = keras.saving.load_model(model / "model.keras")
    assert metrics["parameters"] == network.count_params()

    spectrum = np.random.default_rng(0).normal(size=(1, 17, 9, 2)).astype(np.float32)
    session = onnxruntime.InferenceSession(model / "model.onnx")
    (mask,) = session.run(["mask"], {"spectrum": spectrum})
    np.testing.assert_allclose(mask, network(spectrum, training=False), atol=1e-4)


def test_what_the_observer_is_told(finished: tuple[Path, Recorder]) -> None:
    run, recorder = finished
    assert recorder.notes[0].startswith(("training on the CPU (", "training on the GPU ("))
    assert recorder.notes[1:] == [f"{EPOCHS} epochs of {STEPS} steps from 0"]
    assert recorder.steps == [(e, s + 1) for e in range(EPOCHS) for s in range(STEPS)]
    rows = history(run)
    assert rows == [{key: float(value) for key, value in row.items()} for row in recorder.rows]
    assert list(rows[0]) == [
        *("epoch", "minutes", "audio_hours", "learning_rate"),
        *("loss", "si_sdr_improvement", "val_loss", "val_si_sdr_improvement"),
    ]
    segment = 12 * round(0.2 * 4000 / 12) / 4000
    hours = [(epoch + 1) * STEPS * 4 * segment / 3600 for epoch in range(EPOCHS)]
    assert [row["audio_hours"] for row in rows] == pytest.approx(hours, abs=1e-3)
    losses = [row["val_loss"] for row in rows]
    assert recorder.best == [loss == min(losses[: i + 1]) for i, loss in enumerate(losses)]
    metrics = json.loads((run / "model" / "metrics.json").read_text())
    assert metrics["best_epoch"] == 1 + int(np.argmin(losses))


def test_finished_run_is_refused(finished: tuple[Path, Recorder], data: Path) -> None:
    with pytest.raises(UsageError, match=r"whole is finished: .*--fresh starts over"):
        train(spec_of(), data, finished[0], Recorder())


def test_resuming_is_exact(
    finished: tuple[Path, Recorder],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interrupted four times at different moments, a run ends as if it had not been."""
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="stopped in epoch 1; the same command goes on") as raised:
        train(spec_of(), data, tmp_path, Recorder((0, 2), interrupt))
    assert raised.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is handler

    # Between the last batch and the validation; another description makes no other run.
    recorder = Recorder((0, STEPS), interrupt)
    with pytest.raises(Interrupted):
        train(spec_of("described"), data, tmp_path, recorder)
    assert recorder.steps == [(0, 3), (0, 4)]
    assert recorder.notes[1].startswith("resuming at epoch 1, step 2 after")
    assert recorder.rows == []

    # Killed: what counts is the last checkpoint, one step before.
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
        train(spec_of(), data, tmp_path, Recorder((1, 3), kill))

    # While an epoch ends.
    recorder = Recorder((1, 0), interrupt)
    with pytest.raises(Interrupted, match="stopped after epoch 2; the same command goes on"):
        train(spec_of(), data, tmp_path, recorder)
    assert recorder.steps == [(1, 3), (1, 4)]
    assert not (tmp_path / "model").exists()

    recorder = Recorder()
    train(spec_of(), data, tmp_path, recorder)
    assert recorder.steps == [(2, step + 1) for step in range(STEPS)]
    whole, _ = finished
    for found, expected in zip(weights(tmp_path), weights(whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for row, expected in zip(history(tmp_path), history(whole), strict=True):
        del row["minutes"], expected["minutes"]
        assert row == pytest.approx(expected, rel=1e-4)


class FakeScores:
    def __init__(self, clean: np.ndarray, estimates: np.ndarray, sample_rate: int) -> None:
        assert sample_rate == 4000
        assert clean.shape == estimates.shape
        self.error = float(np.mean(np.abs(estimates - clean)))

    def means(self) -> dict[str, float]:
        return {"pesq": 1 + self.error, "estoi": -self.error}


def test_choosing_by_ear(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PESQ and ESTOI, measured every second epoch and in the last, choose; also when resumed."""
    monkeypatch.setattr(
        trainer, "scoring", lambda *arguments: contextlib.nullcontext(FakeScores(*arguments))
    )
    spec = spec_of(monitor="val_estoi", perceptual_every=2)
    whole = Recorder()
    model = train(spec, data, tmp_path / "whole", whole)
    rows = history(tmp_path / "whole")
    scores = [row.get("val_estoi") for row in rows]
    assert scores[0] is None
    assert scores[1] is not None
    assert scores[2] is not None
    assert [row.get("val_pesq") for row in rows[1:]] == [1 - score for score in scores[1:]]
    assert whole.best == [False, True, scores[2] > scores[1]]
    metrics = json.loads((model / "metrics.json").read_text())
    assert metrics["best_epoch"] == 2 + (scores[2] > scores[1])
    assert metrics["validation"]["val_estoi"] == max(scores[1:])
    assert set(metrics["test"]) == {"loss", "si_sdr_improvement", "pesq", "estoi"}

    with pytest.raises(Interrupted):
        train(spec, data, tmp_path / "parts", Recorder((2, 0), interrupt))
    train(spec, data, tmp_path / "parts", Recorder())
    for row, expected in zip(history(tmp_path / "parts"), rows, strict=True):
        del row["minutes"], expected["minutes"]
        assert row == pytest.approx(expected, rel=1e-4)


def test_fresh(finished: tuple[Path, Recorder], data: Path, tmp_path: Path) -> None:
    """A run that is started over and interrupted can go on, and its old model stays until then."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.onnx").write_bytes(b"old")
    for fresh in (True, False):
        recorder = Recorder((0, 1 if fresh else 2), interrupt)
        with pytest.raises(Interrupted):
            train(spec_of(), data, tmp_path, recorder, fresh=fresh)
        assert (model / "model.onnx").read_bytes() == b"old"
    assert recorder.steps == [(0, 2)]


def trainer_of(spec: Spec, data: Path, run: Path) -> Trainer:
    return Trainer(spec, open_batches(data, spec), run, Recorder(), Devices("here"))


@pytest.fixture
def stopped(data: Path, tmp_path: Path) -> Path:
    """A run that was stopped before its first step, without the time that takes."""
    keras.utils.set_random_seed(0)
    made = trainer_of(spec_of(), data, tmp_path)
    made.save(made.task)
    return tmp_path


def test_another_spec_is_refused(stopped: Path, data: Path) -> None:
    changed = spec_of("described", learning_rate=0.1, augmentation=None)
    with pytest.raises(UsageError) as raised:
        train(changed, data, stopped, Recorder())
    message = str(raised.value)
    assert "these differ: training.augmentation, training.learning_rate; --fresh" in message
    assert load_checkpoint(stopped / CHECKPOINT)[1]["spec"] == spec_of().model_dump(mode="json")


def test_what_may_change_on_the_way(stopped: Path, data: Path) -> None:
    """Nothing of the past: how long a run is, once its learning rate does not depend on that."""
    spec = spec_of(schedule="constant")
    made = trainer_of(spec, data, stopped)
    made.state.epoch = 2
    made.save(made.task)
    longer = trainer_of(spec_of(schedule="constant", epochs=9, loss_limit=None), data, stopped)
    longer.resume()
    assert longer.state.epoch == 2
    with pytest.raises(UsageError, match=r"these differ: training\.schedule; --fresh"):
        trainer_of(spec_of(), data, stopped).resume()


def test_checkpoint_of_an_earlier_version(stopped: Path, data: Path) -> None:
    """It knows less: what is missing has its default."""
    arrays, progress = load_checkpoint(stopped / CHECKPOINT)
    for key in ("schedule", "decay_share", "perceptual_every", "loss_limit", "precision"):
        del progress["spec"]["training"][key]
    for key in ("loss_sum", "recent", "init_from"):
        del progress["state"][key]
    progress["state"] |= {"epoch": 1, "best": 0.5}
    del arrays["metrics"]
    save_checkpoint(stopped / CHECKPOINT, arrays, progress)
    made = trainer_of(spec_of(), data, stopped)
    made.resume()
    assert (made.state.epoch, made.state.best, made.state.recent) == (1, 0.5, [])


def test_a_run_in_use_is_refused(stopped: Path, data: Path) -> None:
    with locked(stopped), pytest.raises(UsageError, match="is in use: another process trains"):
        train(spec_of(), data, stopped, Recorder())


def test_another_dataset_is_refused(stopped: Path, data: Path) -> None:
    arrays, progress = load_checkpoint(stopped / CHECKPOINT)
    save_checkpoint(stopped / CHECKPOINT, arrays, {**progress, "dataset": "other"})
    with pytest.raises(UsageError, match="trained on another dataset; --fresh starts over"):
        train(spec_of(), data, stopped, Recorder())


def test_damaged_checkpoints(stopped: Path, data: Path) -> None:
    arrays, progress = load_checkpoint(stopped / CHECKPOINT)
    for changed in ({"task": arrays["task"][1:]}, {"optimizer": []}, {"best": []}):
        save_checkpoint(stopped / CHECKPOINT, {**arrays, **changed}, progress)
        with pytest.raises(ModelError, match="of another version of denoise; --fresh starts over"):
            train(spec_of(), data, stopped, Recorder())
    (stopped / CHECKPOINT).write_bytes(b"PK")
    with pytest.raises(ModelError, match="no checkpoint or is damaged"):
        train(spec_of(), data, stopped, Recorder())


def test_start_from_another_model(
    finished: tuple[Path, Recorder], data: Path, tmp_path: Path
) -> None:
    folder = finished[0] / "model"

    made = trainer_of(spec_of(seed=1), data, tmp_path)
    made.start_from(folder)
    for found, expected in zip(made.best, weights(finished[0]), strict=True):
        np.testing.assert_array_equal(found, expected)
    (note,) = made.observer.notes
    assert note.endswith(f"layers start with the weights of {folder}")

    assert made.state.init_from == str(folder)

    # A wider way up: what differs is said, the rest is taken.
    document = spec_of().model_dump(mode="json")
    made = trainer_of(parse_spec({**document, "upsampling": [{"filters": 5}]}), data, tmp_path)
    made.start_from(folder)
    (note,) = made.observer.notes
    assert note.endswith(f"{folder}; not in it: up0_0_convolution, up0_0_norm, output")

    narrow = {"downsampling": [{"filters": 5, "strides": [4, 1]}], "upsampling": [{"filters": 5}]}
    with pytest.raises(UsageError, match=r"no layer of .* matches one of 'test'"):
        trainer_of(parse_spec({**document, **narrow}), data, tmp_path).start_from(folder)
    with pytest.raises(ModelError, match=r"model\.keras cannot be loaded"):
        made.start_from(tmp_path)


def test_a_share_of_the_start_is_kept(
    finished: tuple[Path, Recorder], data: Path, tmp_path: Path
) -> None:
    before = finished[0] / "model"
    train(spec_of(epochs=2), data, tmp_path / "all", Recorder(), init_from=before)
    shared = spec_of(epochs=2, start_share=0.25)
    with pytest.raises(Interrupted):
        stop = Recorder((1, 0), interrupt)
        train(shared, data, tmp_path / "part", stop, init_from=before)
    train(shared, data, tmp_path / "part", Recorder())

    old, new, mean = weights(finished[0]), weights(tmp_path / "all"), weights(tmp_path / "part")
    assert any(np.abs(o - n).max() > 1e-3 for o, n in zip(old, new, strict=True))
    for o, n, m in zip(old, new, mean, strict=True):
        np.testing.assert_allclose(m, 0.25 * o + 0.75 * n, rtol=1e-5, atol=1e-6)


def test_a_share_of_the_start_needs_all_layers(
    finished: tuple[Path, Recorder], data: Path, tmp_path: Path
) -> None:
    document = spec_of(start_share=0.5).model_dump(mode="json")
    wider = parse_spec({**document, "upsampling": [{"filters": 5}]})
    with pytest.raises(UsageError, match=r"needs .* all layers of 'test'; not in .*: up0"):
        train(wider, data, tmp_path, Recorder(), init_from=finished[0] / "model")


def test_wrong_places(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is a file; a run needs a folder"):
        train(spec_of(), data, tmp_path / "file", Recorder())
    with pytest.raises(DatasetError, match="is no dataset"):
        train(spec_of(), tmp_path, tmp_path / "run", Recorder())
    assert not (tmp_path / "run").exists()


def test_no_number(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss still is a number when the weights no longer are; then it is none either."""
    factor, slope_factor = tf.Variable(1.0), tf.Variable(1.0)

    @tf.custom_gradient
    def same(value: Any) -> Any:
        return tf.identity(value), lambda slope: slope * slope_factor

    def loss(estimate: Any, *others: Any) -> Any:
        return factor * total_loss(same(estimate), *others)

    monkeypatch.setattr(task, "total_loss", loss)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    recorder = Recorder((0, 2), lambda: slope_factor.assign(np.nan))
    message = r"a weight is no longer a number in epoch 1, step 3; the last good state is in .*npz"
    with pytest.raises(ModelError, match=message):
        train(spec_of(), data, tmp_path, recorder)
    arrays, progress = load_checkpoint(tmp_path / CHECKPOINT)
    assert progress["state"]["step"] == 2
    assert all(np.isfinite(array).all() for group in arrays.values() for array in group)

    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 60.0)
    recorder = Recorder((0, 1), lambda: factor.assign(np.nan))
    message = (
        "the loss is no longer a number in epoch 1, step 2; nothing was saved yet; the batch is"
    )
    with pytest.raises(ModelError, match=message):
        slope_factor.assign(1.0)
        train(spec_of(), data, tmp_path, recorder, fresh=True)
    assert not (tmp_path / "model").exists()


def test_explosion(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch that did it is saved as it was, to the sample; the last state is kept."""
    factor, seen = tf.Variable(1.0), tf.Variable(tf.zeros((0, 0)), shape=(None, None))

    def loss(estimate: Any, clean: Any, noisy: Any, spec: Spec) -> Any:
        seen.assign(noisy)
        return factor * total_loss(estimate, clean, noisy, spec)

    monkeypatch.setattr(task, "total_loss", loss)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "ENOUGH", 3)
    recorder = Recorder((1, 1), lambda: factor.assign(1e6))
    message = (
        r"the loss of a batch jumped to [\d.]+e\+0\d in epoch 2, step 2; the last good state is in "
        r".*checkpoint\.npz; the batch is in .*bad_batch\.npz; try a lower learning_rate"
    )
    with pytest.raises(ModelError, match=message):
        train(spec_of(), data, tmp_path, recorder)
    kept = load_checkpoint(tmp_path / CHECKPOINT)[1]["state"]
    assert (kept["epoch"], kept["step"]) == (1, 1)
    with np.load(tmp_path / "bad_batch.npz") as batch:
        np.testing.assert_array_equal(batch["noisy"], seen)
        assert batch["clean"].shape == batch["noisy"].shape
        assert (batch["epoch"], batch["step"]) == (2, 2)
    assert [run.state for run in list_runs(tmp_path)] == ["stopped"]


def test_early_stopping(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "total_loss", lambda *args: 0 * total_loss(*args))
    recorder = Recorder()
    train(spec_of(epochs=9, steps_per_epoch=1, early_stopping=2), data, tmp_path, recorder)
    assert recorder.best == [True, False, False]
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert (metrics["epochs"], metrics["best_epoch"]) == (3, 1)
