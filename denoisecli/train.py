"""Train a model by its spec on a stored dataset: resumable, the best weights kept."""

import csv
import json
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np

from denoisecli.checkpoint import load_checkpoint, save_checkpoint
from denoisecli.curves import plot_history
from denoisecli.errors import DenoiseError, ModelError, UsageError
from denoisecli.export import export_onnx
from denoisecli.files import replacing
from denoisecli.losses import SILENCE, si_sdr_db, total_loss
from denoisecli.models import build_model, load_network
from denoisecli.models.layers import apply_mask
from denoisecli.pipeline import Batches, open_batches
from denoisecli.spec import Spec, save_spec
from denoisecli.tensor_stft import istft, stft

CHECKPOINT_SECONDS = 180.0
"""How long at most until work is safe on disk."""

CHECKPOINT = "checkpoint.npz"
MODEL = "model"


@runtime_checkable
class Observer(Protocol):
    """Is told how training goes."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def start(self, epochs: int, steps: int, epoch: int) -> None:
        """Training begins, or goes on, at this epoch (from 0)."""

    def step(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """A batch is done: the means over the epoch so far."""

    def epoch(self, row: dict[str, Any], *, best: bool) -> None:
        """An epoch is done: its line of history.csv."""


class Interrupted(DenoiseError):
    """Training was stopped by Ctrl-C; what was done is on disk."""

    exit_code = 130


class Task(keras.Model):
    """A mask network with all around it: noisy waveform in, estimate of the clean one out.

    Shape:
        - input and output: (batch, timesteps)
    """

    def __init__(self, spec: Spec, network: keras.Model):
        super().__init__(name="task")
        self.spec = spec
        self.network = network
        self.improvement = keras.metrics.Mean(name="si_sdr_improvement")

    def call(self, noisy: Any, training: bool | None = None) -> Any:
        """Denoise a batch of waveforms."""
        spectrum = stft(noisy, self.spec.stft)
        mask = self.network(spectrum, training=training)
        length = keras.ops.shape(noisy)[1]
        return istft(apply_mask(mask, spectrum), self.spec.stft, length)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Weighted sum of the spec's losses."""
        return total_loss(y_pred, y, x, self.spec)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Improvement of SI-SDR over the noisy input, in dB, where there is speech."""
        heard = keras.ops.mean(keras.ops.square(y), axis=1) > SILENCE
        noise = keras.ops.mean(keras.ops.square(y - x), axis=1) > SILENCE * 1e-3
        weight = keras.ops.cast(keras.ops.logical_and(heard, noise), "float32")
        self.improvement.update_state(si_sdr_db(y_pred, y) - si_sdr_db(x, y), weight)
        return self.get_metrics_result()


@dataclass
class _State:
    """Where a run stands, apart from the weights."""

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = -1
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def train(
    spec: Spec,
    data: Path,
    run: Path,
    observer: Observer,
    *,
    fresh: bool = False,
    init_from: Path | None = None,
) -> Path:
    """Train until the last epoch or early stopping, going on where an earlier call stopped.

    Args:
        spec: the model and how to train it.
        data: folder with the stored training and test set.
        run: folder of this run; checkpoints, history and at the end the model folder go there.
        observer: is told how it goes.
        fresh: throw away what an earlier call left in ``run``.
        init_from: a model folder whose weights a new run starts with, where layers match.

    Returns:
        The model folder: spec.json, model.keras, model.onnx, metrics.json, history.csv and
        curves.png.

    Raises:
        UsageError: ``run`` holds a finished run or one of another spec.
        DatasetError: the data cannot be used.
        ModelError: the loss stopped being a number, the last checkpoint is kept; or the checkpoint
            is damaged.
        Interrupted: by Ctrl-C, after saving a checkpoint.
    """
    observer.note(f"training on {use_device()}")
    batches = open_batches(data, spec)
    checkpoint = run / CHECKPOINT
    if run.is_file():
        raise UsageError(f"{run} is a file; a run needs a folder")
    if fresh:
        checkpoint.unlink(missing_ok=True)
    elif (run / MODEL).exists() and not checkpoint.exists():
        raise UsageError(f"{run} is finished: {run / MODEL} is there; --fresh starts over")
    keras.utils.set_random_seed(spec.training.seed)
    trainer = _Trainer(spec, batches, checkpoint, observer)
    if checkpoint.exists():
        trainer.resume()
    elif init_from is not None:
        trainer.start_from(init_from)
    run.mkdir(parents=True, exist_ok=True)
    save_spec(spec, run / "spec.json")
    with warnings.catch_warnings():
        # Keras does not know how long the datasets are, and takes their ends for a mistake.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        trainer.fit()
        return trainer.finish(run / MODEL)


def use_device() -> str:
    """Name the device that training runs on; GPU memory is taken as it is needed."""
    if keras.backend.backend() != "tensorflow":
        return f"the devices of {keras.backend.backend()}"
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with suppress(RuntimeError):  # it is too late for that: the GPU is in use already
            tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return f"the GPU ({details.get('device_name', gpus[0].name)})"
    return f"the CPU ({os.cpu_count()} cores; no GPU found)"


def make_optimizer(spec: Spec, total_steps: int) -> keras.optimizers.Optimizer:
    """AdamW or Muon, warm-up then cosine, with gradient clipping and weight averaging."""
    training = spec.training
    warmup = min(training.warmup_steps, total_steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else training.learning_rate,
        decay_steps=max(1, total_steps - warmup),
        alpha=training.final_learning_rate,
        warmup_target=training.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizers = keras.optimizers
    optimizer = optimizers.AdamW if training.optimizer == "adamw" else optimizers.Muon
    return optimizer(
        learning_rate=schedule,
        weight_decay=training.weight_decay,
        global_clipnorm=training.gradient_clip,
        use_ema=training.average_decay > 0,
        ema_momentum=training.average_decay or 0.99,
    )


class _Trainer:
    """The network, its optimizer and the state of the run."""

    def __init__(self, spec: Spec, batches: Batches, checkpoint: Path, observer: Observer):
        self.spec, self.batches, self.observer = spec, batches, observer
        self.checkpoint = checkpoint
        self.state = _State()
        self.clock = time.monotonic()
        self.network = build_model(spec)
        self.task = Task(spec, self.network)
        self.optimizer = make_optimizer(spec, batches.train_steps * spec.training.epochs)
        self.task.compile(optimizer=self.optimizer, jit_compile=False)
        self.task.build((None, batches.segment))
        self.optimizer.build(self.task.trainable_variables)
        self.best = _arrays(self.network.weights)

    def resume(self) -> None:
        """Go on from the checkpoint."""
        arrays, progress = load_checkpoint(self.checkpoint)
        changed = _differences(progress["spec"], self.spec.model_dump(mode="json"))
        changed = [key for key in changed if key != "description"]
        if changed:
            raise UsageError(
                f"{self.checkpoint} is of another spec; these differ: {', '.join(changed)}; "
                "--fresh starts over, --run gives another folder"
            )
        if progress["dataset"] != self.batches.dataset_id:
            raise UsageError(
                f"{self.checkpoint} was trained on another dataset; --fresh starts over"
            )
        try:
            _assign(self.task.variables, arrays["task"])
            _assign(self.optimizer.variables, arrays["optimizer"])
            metrics = self.task.metrics_variables  # which earlier versions did not save
            _assign(metrics, arrays.get("metrics", _arrays(metrics)))
            self.best = arrays["best"]
            self.state = _State(**progress["state"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{self.checkpoint} is of another version of denoise; --fresh starts over"
            ) from error
        self.observer.note(
            f"resuming at epoch {self.state.epoch + 1}, step {self.state.step} "
            f"after {self.state.seconds / 60:.0f} min"
        )

    def start_from(self, folder: Path) -> None:
        """Take the weights of a trained model, layer by layer, where name and shapes match."""
        other = {layer.name: layer for layer in load_network(folder / "model.keras").layers}
        left = []
        matched = 0
        for layer in self.network.layers:
            shapes = [weight.shape for weight in layer.weights]
            if not shapes:
                continue
            source = other.get(layer.name)
            if source is None or [weight.shape for weight in source.weights] != shapes:
                left.append(layer.name)
                continue
            layer.set_weights(source.get_weights())
            matched += 1
        if not matched:
            raise UsageError(f"no layer of {folder} matches one of {self.spec.name!r}")
        self.best = _arrays(self.network.weights)
        names = f"; not in it: {', '.join(left)}" if left else ""
        self.observer.note(f"{matched} layers start with the weights of {folder}{names}")

    def save(self, task: keras.Model) -> None:
        """Put all there is on disk."""
        arrays = {
            "task": _arrays(task.variables),
            "optimizer": _arrays(task.optimizer.variables),
            "metrics": _arrays(task.metrics_variables),
            "best": self.best,
        }
        if not all(np.isfinite(array).all() for array in arrays["task"]):
            raise self.diverged("a weight")  # the loss will show it one step later
        progress = {
            "spec": self.spec.model_dump(mode="json"),
            "dataset": self.batches.dataset_id,
            "state": vars(self.state),
        }
        save_checkpoint(self.checkpoint, arrays, progress)

    def fit(self) -> None:
        """Run the epochs that are left."""
        training, state = self.spec.training, self.state
        self.observer.start(training.epochs, self.batches.train_steps, state.epoch)
        with _ctrl_c() as stop:
            while state.epoch < training.epochs and not self._stopped_improving():
                self._epoch(stop)
                if stop.is_set():
                    raise Interrupted(
                        f"stopped after epoch {state.epoch}; the same command goes on from there"
                    )

    def tick(self) -> None:
        """Count the time since the last tick as training time."""
        now = time.monotonic()
        self.state.seconds += now - self.clock
        self.clock = now

    def _epoch(self, stop: threading.Event) -> None:
        state = self.state
        watch = _Watch(self, stop)
        logs: dict[str, Any] = {}
        if state.step < self.batches.train_steps:
            fitted = self.task.fit(
                self.batches.training(state.epoch, skip=state.step),
                # Else a step is tried without data, which moves the optimizer and the seeds on.
                steps_per_epoch=self.batches.train_steps - state.step,
                shuffle=False,
                verbose=0,
                callbacks=[watch],
            )
            logs = {name: values[-1] for name, values in fitted.history.items()}
            # fit() ends by putting the averaged weights in place: validate those, train the others.
            raw = watch.raw
        else:  # stopped between the last batch and its validation
            logs = self.task.get_metrics_result()
            raw = _arrays(self.task.variables)
            self.optimizer.finalize_variable_values(self.task.trainable_variables)
        measured = self.task.evaluate(self.batches.validation(), verbose=0, return_dict=True)
        self.tick()
        row = {
            "epoch": state.epoch + 1,
            "minutes": round(state.seconds / 60, 2),
            "audio_hours": round(self._audio_hours(), 3),
            **{name: float(value) for name, value in logs.items()},
            **{f"val_{name}": float(value) for name, value in measured.items()},
        }
        if not all(math.isfinite(value) for value in row.values()):
            raise self.diverged("a figure of the validation")
        state.history.append(row)
        better = self._is_best(row[self.spec.training.monitor])
        if better:
            state.best, state.best_epoch = row[self.spec.training.monitor], state.epoch
            self.best = _arrays(self.network.weights)
        _assign(self.task.variables, raw)
        state.epoch, state.step = state.epoch + 1, 0
        self.save(self.task)
        self.observer.epoch(row, best=better)

    def diverged(self, what: str) -> ModelError:
        """The error that says what is no longer a number, and what there is to go on from."""
        kept = "nothing was saved yet"
        if self.checkpoint.exists():
            kept = f"the last good state is in {self.checkpoint}"
        return ModelError(
            f"{what} is no longer a number in epoch {self.state.epoch + 1}, "
            f"step {self.state.step}; {kept}; try a lower learning_rate"
        )

    def _audio_hours(self) -> float:
        training = self.spec.training
        batch = training.batch_size * self.batches.segment / self.spec.audio.sample_rate
        return (self.state.epoch + 1) * self.batches.train_steps * batch / 3600

    def _is_best(self, value: float) -> bool:
        if self.state.best is None:
            return True
        if self.spec.training.monitor == "val_loss":
            return value < self.state.best
        return value > self.state.best

    def _stopped_improving(self) -> bool:
        patience = self.spec.training.early_stopping
        return patience is not None and self.state.epoch - self.state.best_epoch > patience

    def finish(self, folder: Path) -> Path:
        """Test the best weights and write the model folder."""
        _assign(self.network.weights, self.best)
        tested = self.task.evaluate(self.batches.test(), verbose=0, return_dict=True)
        state = self.state
        metrics = {
            "epochs": state.epoch,
            "best_epoch": state.best_epoch + 1,
            "minutes": round(state.seconds / 60, 2),
            "audio_hours": state.history[-1]["audio_hours"] if state.history else 0.0,
            "dataset": self.batches.dataset_id,
            "parameters": self.network.count_params(),
            "test": {name: float(value) for name, value in tested.items()},
            "versions": {name: version(name) for name in ("denoisecli", "keras", "numpy")},
        }
        with replacing(folder, overwrite=True) as part:
            part.mkdir()
            metrics["onnx_difference"] = write_model(self.network, part)
            (part / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
            with (part / "history.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(state.history[-1]))
                writer.writeheader()
                writer.writerows(state.history)
            plot_history(state.history, part / "curves.png")
        self.checkpoint.unlink(missing_ok=True)
        return folder


def write_model(network: keras.Model, folder: Path) -> float:
    """Write spec.json, model.keras and model.onnx of a network into an existing folder.

    Returns:
        The largest difference between the masks of ONNX Runtime and Keras.
    """
    save_spec(network.spec, folder / "spec.json")
    network.save(folder / "model.keras")
    return export_onnx(network, folder / "model.onnx")


class _Watch(keras.callbacks.Callback):
    """Between batches: report, stop on Ctrl-C or NaN, keep the disk up to date."""

    def __init__(self, trainer: _Trainer, stop: threading.Event):
        super().__init__()
        self.trainer, self.stop = trainer, stop
        self.saved = time.monotonic()
        self.means = _arrays(trainer.task.metrics_variables)
        self.raw: list[np.ndarray] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.trainer.state.step > 0:  # fit() has reset what the epoch's means are made of
            _assign(self.trainer.task.metrics_variables, self.means)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        state, logs = self.trainer.state, dict(logs or {})
        state.step += 1
        if not math.isfinite(logs.get("loss", 0.0)):
            raise self.trainer.diverged("the loss")
        self.trainer.observer.step(state.epoch, state.step, logs)
        now = time.monotonic()
        if self.stop.is_set() or now - self.saved > CHECKPOINT_SECONDS:
            self.saved = now
            self.trainer.tick()
            self.trainer.save(self.model)  # which Keras brings up to date for JAX
        if self.stop.is_set():
            raise Interrupted(
                f"stopped in epoch {state.epoch + 1}; the same command goes on from there"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.raw = _arrays(self.trainer.task.variables)


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Let Ctrl-C (or a polite kill) wait for the end of the batch; a second one does not wait."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _arrays(variables: Any) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def _assign(variables: Any, arrays: list[np.ndarray]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Paths in two JSON documents at which they differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            d for key in keys for d in _differences(old.get(key), new.get(key), f"{path}.{key}")
        ]
    return [] if old == new else [path.removeprefix(".")]
