"""The training loop: epochs, validation, checkpoints, and what stops it."""

import math
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from denoisecli.errors import DatasetError, ModelError, SpecError, UsageError
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.system.atomic_files import replacing
from denoisecli.training.batches import Batches
from denoisecli.training.checkpoint import load_checkpoint, save_checkpoint
from denoisecli.training.devices import Devices
from denoisecli.training.excerpts import Excerpts, estimate, sample
from denoisecli.training.observer import Interrupted, Observer, ctrl_c
from denoisecli.training.optimizer import make_optimizer
from denoisecli.training.progress import State, forbidden_changes
from denoisecli.training.run_folder import (
    BAD_BATCH,
    CHECKPOINT,
    HISTORY,
    Row,
    is_better,
    write_history,
)
from denoisecli.training.scoring import CLIPS, SCORES, scoring
from denoisecli.training.statistics import STATISTICS_BATCHES, Statistics
from denoisecli.training.tensorboard import Logs
from denoisecli.training.waveform_model import Task, build_network
from denoisecli.training.weights import arrays_of, assign, take_weights

CHECKPOINT_SECONDS = 180.0
"""How long at most until work is safe on disk."""

CLIP_TIMES = 20
"""About how often in a run its clips are logged: each time takes about a megabyte."""


class Trainer:
    """The network, its optimizer and the state of the run.

    Args:
        spec: the model and how to train it.
        batches: what to train it with.
        run: folder of the run, which exists.
        observer: is told how it goes.
        devices: where to train.
        logs: where TensorBoard's logs go, if anywhere.
    """

    def __init__(
        self,
        spec: Spec,
        batches: Batches,
        run: Path,
        observer: Observer,
        devices: Devices,
        logs: Logs | None = None,
    ):
        self.spec, self.batches, self.observer = spec, batches, observer
        self.run, self.devices, self.logs = run, devices, logs
        self.checkpoint = run / CHECKPOINT
        self.state = State()
        self.clock = time.monotonic()
        training = spec.training
        if training.batch_size % devices.replicas:
            raise UsageError(
                f"training.batch_size {training.batch_size} cannot be shared evenly by "
                f"{devices.replicas} devices"
            )
        # A copy in full precision on one device: what is saved, and what makes the clips.
        self.plain = Task(spec, build_network(spec))
        on_tensorflow = keras.backend.backend() == "tensorflow"
        # What JAX does not compile, it computes operation by operation.
        compiled = training.jit_compile if on_tensorflow else "auto"
        self.plain.compile(jit_compile=compiled)
        with devices.scope():
            self.network = build_network(spec, training.precision)
            # Of several devices, TensorFlow's sum up what each gives; JAX's act as one.
            summed = devices.replicas if on_tensorflow else 1
            self.task = Task(spec, self.network, summed)
            self.optimizer = make_optimizer(
                training,
                batches.train_steps * training.epochs,
                self.network.trainable_variables,
                summed,
            )
            self.task.compile(optimizer=self.optimizer, jit_compile=compiled)
            self.task.build((None, batches.segment))
            self.optimizer.build(self.task.trainable_variables)
            self.statistics = Statistics(self.task)
            self.statistics.compile(jit_compile=compiled)
        self.best = arrays_of(self.network.weights)
        self.start: list[np.ndarray] = []

    def resume(self) -> None:
        """Go on from the checkpoint."""
        arrays, progress = load_checkpoint(self.checkpoint)
        try:
            before = parse_spec(progress["spec"])  # an earlier version knew fewer keys
            state = State(**progress["state"])
        except (KeyError, TypeError, SpecError) as error:
            raise self.other_version() from error
        steps = self.batches.train_steps
        changed = forbidden_changes(before, self.spec, state.epoch * steps + state.step, steps)
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
            assign(self.task.variables, arrays["task"])
            assign(self.optimizer.variables, arrays["optimizer"])
            metrics = self.task.metrics_variables  # which earlier versions did not save
            assign(metrics, arrays.get("metrics", arrays_of(metrics)))
            assign(self.plain.network.weights, arrays["best"])
        except (KeyError, TypeError, ValueError) as error:
            raise self.other_version() from error
        self.best, self.start, self.state = arrays["best"], arrays.get("start", []), state
        self.observer.on_message(
            f"resuming at epoch {state.epoch + 1}, step {state.step} "
            f"after {state.seconds / 60:.0f} min"
        )

    def other_version(self) -> ModelError:
        """The error about a checkpoint that does not fit."""
        return ModelError(
            f"{self.checkpoint} is of another version of denoise; --fresh starts over"
        )

    def start_from(self, folder: Path) -> None:
        """Take the weights of a trained model, where they fit."""
        matched, left = take_weights(self.network, folder)
        self.best = arrays_of(self.network.weights)
        if self.spec.training.start_share:
            if left:
                raise UsageError(
                    f"training.start_share needs a model with all layers of {self.spec.name!r}; "
                    f"not in {folder}: {', '.join(left)}"
                )
            self.start = self.best
        self.state.init_from = str(folder)
        names = f"; not in it: {', '.join(left)}" if left else ""
        self.observer.on_message(f"{matched} layers start with the weights of {folder}{names}")

    def save(self, task: keras.Model) -> None:
        """Put all there is on disk."""
        arrays = {
            "task": arrays_of(task.variables),
            "optimizer": arrays_of(task.optimizer.variables),
            "metrics": arrays_of(task.metrics_variables),
            "best": self.best,
            "start": self.start,
        }
        if not all(np.isfinite(array).all() for array in arrays["task"]):
            # The loss will show it one step later.
            raise self.diverged("a weight is no longer a number", batch=self.state.step > 0)
        if self.devices.process > 0:
            return
        progress = {
            "spec": self.spec.model_dump(mode="json"),
            "dataset": self.batches.dataset_id,
            "state": vars(self.state),
        }
        save_checkpoint(self.checkpoint, arrays, progress)

    def fit(self, *, until: int | None = None, stop: threading.Event | None = None) -> None:
        """Train for the remaining epochs.

        Args:
            until: Number of epochs after which to return early (default: those of the spec).
            stop: Event that, when set, ends training as Ctrl-C does.

        Raises:
            Interrupted: By Ctrl-C or by `stop`, after saving a checkpoint.
        """
        training, state = self.spec.training, self.state
        last = min(training.epochs, until or training.epochs)
        self.observer.on_train_begin(last, self.batches.train_steps, state.epoch)
        with ctrl_c(stop) as stop:
            while state.epoch < last and not self._stopped_improving():
                self._epoch(stop)
                if stop.is_set():
                    raise Interrupted(
                        f"stopped after epoch {state.epoch}; the same command goes on from there"
                    )

    def final_weights(self) -> list[np.ndarray]:
        """The best weights, with their share of those of the start.

        Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models".
        """
        if not self.start:
            return self.best
        share = np.float32(self.spec.training.start_share)
        both = zip(self.start, self.best, strict=True)
        return [share * start + (1 - share) * best for start, best in both]

    def tick(self) -> None:
        """Count the time since the last tick as training time."""
        now = time.monotonic()
        self.state.seconds += now - self.clock
        self.clock = now

    def evaluate(self, batches: tf.data.Dataset) -> dict[str, float]:
        """Loss and metrics over batches of (noisy, clean), of the weights as they are."""
        with self.devices.scope():
            measured = self.task.evaluate(self.devices.part(batches), verbose=0, return_dict=True)
        if not measured:
            raise DatasetError(
                f"{self.batches.folder} has fewer segments to measure with than there are devices "
                f"({self.devices.replicas})"
            )
        return {name: float(value) for name, value in measured.items()}

    def _epoch(self, stop: threading.Event) -> None:
        state = self.state
        raw, logs = self._train(stop)
        rate = float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
        # The averaged weights are in place now. JAX gives away the memory of what it evaluates, and
        # it is the optimizer's: take copies.
        assign(self.network.weights, arrays_of(self.network.weights))
        if self.spec.training.average_decay:
            batches = self.batches.training(state.epoch).take(STATISTICS_BATCHES)
            with self.devices.scope():
                self.statistics.estimate(self.devices.part(batches))
        assign(self.plain.network.weights, arrays_of(self.network.weights))
        figures = self._validate()
        self.tick()
        row = {
            "epoch": state.epoch + 1,
            "minutes": round(state.seconds / 60, 2),
            "audio_hours": round(self._audio_hours(), 3),
            "learning_rate": rate,
            **{name: float(value) for name, value in logs.items()},
            **{f"val_{name}": value for name, value in figures.items()},
        }
        if not all(math.isfinite(value) for value in row.values()):
            raise self.diverged("a figure of the validation is no longer a number")
        state.history.append(row)
        monitored = row.get(self.spec.training.monitor)
        better = monitored is not None and is_better(
            self.spec.training.monitor, monitored, state.best
        )
        if better:
            state.best, state.best_epoch = monitored, state.epoch
            self.best = arrays_of(self.network.weights)
        assign(self.task.variables, raw)
        state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
        self.save(self.task)
        self._record(row)
        self.observer.on_epoch_end(row, best=better)

    def _train(self, stop: threading.Event) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Train for the rest of an epoch; then the averaged weights are in place.

        Returns:
            All variables as training left them, and the means over the epoch.
        """
        state, steps = self.state, self.batches.train_steps
        if state.step == steps:  # stopped between the last batch and its validation
            logs = self.task.get_metrics_result()
            raw = arrays_of(self.task.variables)
            self.optimizer.finalize_variable_values(self.task.trainable_variables)
            return raw, logs
        watch = _Watch(self, stop)
        with self.devices.scope():
            fitted = self.task.fit(
                self.devices.part(self.batches.training(state.epoch, skip=state.step)),
                # Else a step is tried without data, which moves the optimizer and the seeds on.
                steps_per_epoch=steps - state.step,
                shuffle=False,
                verbose=0,
                callbacks=[watch],
            )
        # fit() ends by putting the averaged weights in place: validate those, train the others.
        return watch.raw, {name: values[-1] for name, values in fitted.history.items()}

    def _validate(self) -> dict[str, float]:
        """Figures of the validation, PESQ and ESTOI among them when it is their turn."""
        training, epoch = self.spec.training, self.state.epoch + 1
        every = training.perceptual_every
        if every is None or (epoch % every and epoch != training.epochs):
            return self.evaluate(self.batches.validation())
        return self.measure(self.batches.validation(), self.excerpts)

    def measure(self, batches: tf.data.Dataset, excerpts: Excerpts) -> dict[str, float]:
        """Loss and metrics over all batches, and meanwhile PESQ and ESTOI of some clips."""
        if self.devices.process > 0:
            figures = self.evaluate(batches)
            scores = dict.fromkeys(SCORES, 0.0)
        else:
            rate = self.spec.audio.sample_rate
            with scoring(excerpts.clean, self._estimate(excerpts), rate) as scored:
                figures = self.evaluate(batches)
                scores = scored.means()
        agreed = self.devices.agree(list(scores.values()))
        return figures | dict(zip(scores, agreed, strict=True))

    @cached_property
    def excerpts(self) -> Excerpts:
        """Validation clips that are scored and logged."""
        return sample(self.batches.validation(), CLIPS)

    def _estimate(self, excerpts: Excerpts) -> np.ndarray:
        return estimate(self.plain, excerpts, self.spec.training.batch_size)

    def _record(self, row: Row) -> None:
        """Show an epoch in the run's folder."""
        if self.devices.process > 0:
            return
        write_history(self.state.history, self.run / HISTORY)
        if self.logs is None:
            return
        self.logs.figures(row)
        epoch, epochs = self.state.epoch, self.spec.training.epochs
        if epoch in (1, epochs) or epoch % max(1, epochs // CLIP_TIMES) == 0:
            self.logs.clips(epoch, self.excerpts, self._estimate(self.excerpts))

    def diverged(self, what: str, *, batch: bool = False) -> ModelError:
        """The error that says what went wrong, and what there is to look at and to go on from.

        Args:
            what: is said.
            batch: whether the last batch is to blame, and is saved.
        """
        kept = "nothing was saved yet"
        if self.checkpoint.exists():
            kept = f"the last good state is in {self.checkpoint}"
        if batch:
            kept += f"; the batch is in {self._save_batch()}"
        return ModelError(
            f"{what} in epoch {self.state.epoch + 1}, step {self.state.step}; {kept}; "
            f"try a lower learning_rate in another run, with --init-from {self.run}"
        )

    def _save_batch(self) -> Path:
        """Make the last batch again, and write it to the folder of the run."""
        state, path = self.state, self.run / BAD_BATCH
        noisy, clean = next(
            iter(self.batches.training(state.epoch, skip=state.step - 1).as_numpy_iterator())
        )
        if self.devices.process == 0:
            with replacing(path, overwrite=True) as part:
                np.savez(part, noisy=noisy, clean=clean, epoch=state.epoch + 1, step=state.step)
        return path

    def _audio_hours(self) -> float:
        training = self.spec.training
        batch = training.batch_size * self.batches.segment / self.spec.audio.sample_rate
        return (self.state.epoch + 1) * self.batches.train_steps * batch / 3600

    def _stopped_improving(self) -> bool:
        patience = self.spec.training.early_stopping
        return patience is not None and self.state.epoch - self.state.best_epoch > patience


class _Watch(keras.callbacks.Callback):
    """Between batches: report, stop on Ctrl-C or a wild loss, keep the disk up to date."""

    def __init__(self, trainer: Trainer, stop: threading.Event):
        super().__init__()
        self.trainer, self.stop = trainer, stop
        self.saved = time.monotonic()
        self.means = arrays_of(trainer.task.metrics_variables)
        self.raw: list[np.ndarray] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.trainer.state.step > 0:  # fit() has reset what the epoch's means are made of
            assign(self.trainer.task.metrics_variables, self.means)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        trainer, state = self.trainer, self.trainer.state
        logs = {name: float(value) for name, value in (logs or {}).items()}
        state.step += 1
        if not math.isfinite(logs["loss"]):
            raise trainer.diverged("the loss is no longer a number", batch=True)
        before, state.loss_sum = state.loss_sum, logs["loss"] * state.step
        loss = state.loss_sum - before
        if state.exploded(loss, trainer.spec.training.loss_limit):
            raise trainer.diverged(f"the loss of a batch jumped to {loss:.3g}", batch=True)
        trainer.observer.on_batch_end(state.epoch, state.step, logs)
        now = time.monotonic()
        if self.stop.is_set() or now - self.saved > CHECKPOINT_SECONDS:
            self.saved = now
            trainer.tick()
            trainer.save(self.model)  # which Keras brings up to date for JAX
        if self.stop.is_set():
            raise Interrupted(
                f"stopped in epoch {state.epoch + 1}; the same command goes on from there"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.raw = arrays_of(self.trainer.task.variables)
