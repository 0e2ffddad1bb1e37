"""The training loop: epochs, validation, checkpoints, what ends it, and the model it writes."""

import math
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat

import keras
import numpy as np

from denoisecli.errors import DatasetError, ModelError, UsageError
from denoisecli.models.catalogue import PRETRAINED
from denoisecli.models.folder import Metrics, ModelFolder
from denoisecli.models.recurrence import AxisRecurrent
from denoisecli.models.summary import summarize_network
from denoisecli.spec.document import Spec
from denoisecli.system.atomic_files import replacing
from denoisecli.system.interrupts import stop_requests, stopped
from denoisecli.training.batch_source import BatchSource
from denoisecli.training.checkpoint import (
    Arrays,
    Checkpoint,
    State,
    forbidden_changes,
    incompatible,
    load_checkpoint,
    save_checkpoint,
)
from denoisecli.training.devices import Devices
from denoisecli.training.excerpts import Clips, Excerpts, sample_excerpts
from denoisecli.training.history import Row, is_better, plot_history, write_history
from denoisecli.training.observer import Observer
from denoisecli.training.optimizer import (
    fitting_variables,
    make_optimizer,
    make_schedule,
)
from denoisecli.training.run_folder import (
    BAD_BATCH,
    CHECKPOINT,
    HISTORY,
    MODEL,
    NOT_RECORDED,
    SPEC,
    code_hash,
    package_versions,
    trained_on,
)
from denoisecli.training.scoring import CLIPS, SCORES, scoring
from denoisecli.training.statistics import (
    STATISTICS_BATCHES,
    BatchStatistics,
    batch_normalizations,
)
from denoisecli.training.stream import Batch, for_keras, predict
from denoisecli.training.waveform_model import WaveformModel, build_network
from denoisecli.training.weights import assign, get_arrays, transfer_weights

if TYPE_CHECKING:
    from denoisecli.training.tensorboard import TensorBoardLogs

CHECKPOINT_SECONDS = 180.0
"""Longest time between two checkpoints."""

READ_STEPS = 10
"""Interval in steps between reads of the loss; each read waits for the device.

A loss that is not finite, or a jump, is found that many steps later at most, and before the next
checkpoint.
"""

PACE_STEPS = (5, 20, 80, 320)
"""Numbers of steps in an epoch after which the speed is measured, if the time is limited."""

LOGGED_TIMES = 20
"""Approximate number of epochs of a run whose clips are logged; each takes about a megabyte."""


Logs = Mapping[str, SupportsFloat] | None
"""Figures of a step or an epoch: tensors, until they are read."""


def name_of_start(folder: Path) -> str:
    """Return the path of a model to start from, or the name of a bundled one.

    The path of a bundled model differs between machines.
    """
    return folder.name if folder.parent == PRETRAINED else str(folder)


@contextmanager
def _without_end_of_data_warning() -> Iterator[None]:
    """Silence Keras, which does not know the length of data that several devices share.

    It takes the end of the data for a mistake.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")
        yield


class Trainer:
    """The network, its optimizer and the state of the run.

    Args:
        spec: Spec of the model and its training.
        batches: Batches to train, validate and test with.
        run: Folder of the run, which exists.
        observer: Object that is informed of the progress.
        devices: Devices to train on.
        minutes: Training time in minutes after which the run ends, if that is limited.
        until_time_is_up: Whether the run has as many epochs as there is time for, whatever the
            spec plans.
        callbacks: Callbacks of the user's own. They see the epochs of the run; at the end of one,
            the model has the weights that were validated.

    Raises:
        UsageError: The batch size cannot be shared evenly by the devices.
    """

    def __init__(
        self,
        spec: Spec,
        batches: BatchSource,
        run: Path,
        observer: Observer,
        devices: Devices,
        minutes: float | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        *,
        until_time_is_up: bool = False,
    ):
        self.spec, self.batches, self.observer = spec, batches, observer
        self.run, self.devices = run, devices
        self.logs: TensorBoardLogs | None = None
        self.seconds_limit = math.inf if minutes is None else 60 * minutes
        self.epochs: int | float = math.inf if until_time_is_up else spec.training.epochs
        self.checkpoint = run / CHECKPOINT
        self.state = State()
        self.clock = time.monotonic()
        self.paced = False
        self.pace = (0, self.clock)  # steps and time from which the speed is measured
        self.how_to_resume = "the same command resumes there"
        training = spec.training
        if training.batch_size % devices.replicas:
            raise UsageError(
                f"training.batch_size {training.batch_size} cannot be shared evenly by "
                f"{devices.replicas} devices"
            )
        steps = self.epochs * batches.train_steps
        if training.gradient_steps > steps:
            raise UsageError(
                f"training.gradient_steps {training.gradient_steps} is more than the {steps} steps "
                "of the run, so that no weight would change"
            )
        # Here, so that nothing draws random numbers between this and the initial weights.
        keras.utils.set_random_seed(training.seed)
        # A copy in full precision on one device: the one that is saved and that makes the clips.
        self.plain = WaveformModel(spec, build_network(spec))
        on_tensorflow = keras.backend.backend() == "tensorflow"
        # Without compilation, JAX would compute operation by operation.
        compiled = self._jit_compile(self.plain.network) if on_tensorflow else "auto"
        self.plain.compile(jit_compile=compiled)
        with devices.scope():
            self.network = build_network(spec, training.precision)
            if training.fixed_normalization:
                for layer in batch_normalizations(self.network):
                    layer.trainable = False
            # Several TensorFlow devices sum up their gradients; those of JAX act as one.
            summed = devices.replicas if on_tensorflow else 1
            self.model = WaveformModel(spec, self.network, summed)
            self.schedule = make_schedule(training, batches.train_steps * training.epochs)
            self.optimizer = make_optimizer(
                training,
                self.schedule,
                self.network.trainable_variables,
                summed,
            )
            self.model.compile(optimizer=self.optimizer, jit_compile=compiled)
            self.model.build((None, batches.segment))
            self.optimizer.build(self.model.trainable_variables)
            if minutes is not None:
                self.schedule.add_total(self.optimizer)
            self.statistics = BatchStatistics(self.model)
            self.statistics.compile(jit_compile=compiled)
        self.callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=self.model, epochs=training.epochs, steps=batches.train_steps
        )
        self.last = self.epochs
        """Number of epochs after which the present call of `fit` ends."""
        self.ended = False
        """Whether a callback has ended the training by `model.stop_training`."""
        self.best = get_arrays(self.network.weights)
        self.start: Arrays = []

    def _jit_compile(self, network: keras.Model) -> bool:
        """Return whether TensorFlow compiles the training step with XLA."""
        import tensorflow as tf

        recurrent = any(isinstance(layer, AxisRecurrent) for layer in network.layers)
        wanted = self.spec.training.jit_compile
        if wanted and recurrent and tf.config.list_logical_devices("GPU"):
            self.observer.on_message(
                "training.jit_compile is ignored: XLA cannot compile recurrent layers on a GPU"
            )
            return False
        return wanted

    def resume(self) -> None:
        """Continue from the checkpoint.

        Raises:
            UsageError: The checkpoint is of another dataset, or of a spec that differs in a key
                that must not change.
            ModelError: The checkpoint is damaged or of an incompatible version.
        """
        saved = load_checkpoint(self.checkpoint)
        steps = self.batches.train_steps
        done = saved.state.epoch * steps + saved.state.step
        changed = forbidden_changes(saved.spec, self.spec, done, steps)
        if changed:
            raise UsageError(
                f"{self.run} was begun with another spec, which differs in {', '.join(changed)}; "
                f"to resume it, give its own spec, {self.run / SPEC}; --fresh starts over; another "
                f"--run with --init-from {self.run} starts with its weights"
            )
        if saved.dataset != self.batches.dataset_id:
            raise UsageError(
                f"{self.checkpoint} was trained on another dataset; --fresh starts over; another "
                f"--run with --init-from {self.run} starts with its weights"
            )
        try:
            assign(self.model.variables, saved.task)
            if self.schedule.total is None and (
                len(saved.optimizer) == len(self.optimizer.variables) + 1
            ):  # the time was limited: the schedule ends when it did
                with self.devices.scope():
                    self.schedule.add_total(self.optimizer)
            assign(*fitting_variables(self.optimizer, saved.optimizer))
            assign(self.model.metrics_variables, saved.metrics)
            assign(self.plain.network.weights, saved.best)
        except ValueError as error:
            raise incompatible(self.checkpoint) from error
        self.best, self.start, self.state = saved.best, saved.start, saved.state
        self.observer.on_message(
            f"resuming at epoch {self.state.epoch + 1}, step {self.state.step} "
            f"after {self.state.seconds / 60:.0f} min"
        )

    def start_from(self, folder: Path) -> None:
        """Copy the weights of a trained model, where layers match.

        Args:
            folder: Folder of the model, or of an unfinished run.

        Raises:
            UsageError: No layer matches, or one does not although the spec keeps a share of the
                start or its normalizations.
            ModelError: The weights cannot be loaded.
        """
        matched, missing, others = transfer_weights(self.network, folder)
        self.best = get_arrays(self.network.weights)
        training = self.spec.training
        for key in ("start_share", "fixed_normalization"):
            if getattr(training, key) and missing:
                raise UsageError(
                    f"training.{key} needs a model with all layers of {self.spec.name!r}; "
                    f"missing in {folder}: {', '.join(missing)}"
                )
        if training.start_share:
            self.start = self.best
        self.state.init_from = name_of_start(folder)
        unmatched = f"; layers not found in it: {', '.join(missing)}" if missing else ""
        self.observer.on_message(f"initialized {matched} layers from {folder}{unmatched}")
        if others:
            self.observer.on_message(
                f"warning: the weights fit in shape, but were trained with {', '.join(others)}; "
                "they may not transfer well"
            )
        self._warn_of_leak(folder)

    def check_start(self, folder: Path) -> None:
        """Warn if a run that is resumed did not start with the weights of this model."""
        if (given := name_of_start(folder)) != (known := self.state.init_from):
            began = f"with the weights of {known}" if known else "with new weights"
            self.observer.on_message(
                f"warning: this run began {began}, so --init-from {given} has no effect; "
                "--fresh starts over"
            )

    def _warn_of_leak(self, folder: Path) -> None:
        """Warn if the model started from was trained on recordings that validate or test."""
        dataset, known = trained_on(str(folder))
        shared = []
        for name, label in (("valid", "validation"), ("test", "test")):
            if dataset == self.batches.dataset_id and name == "valid":
                continue  # it was not trained on them, although they are among its source hashes
            hashes = self.batches.source_hashes(name)
            if found := hashes & known:
                shared.append(f"{len(found)} of the {len(hashes)} in the {label} set")
        if shared:
            self.observer.on_message(
                f"warning: {folder} was trained on recordings with the names of "
                f"{' and '.join(shared)}; if they are the same, the scores are too good"
            )
        elif NOT_RECORDED in known:
            self.observer.on_message(
                f"{folder} does not record all its training recordings; the validation and test "
                "sets may contain some of them"
            )

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            ModelError: A weight is not finite.
        """
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # fit() keeps the variables elsewhere
        arrays = get_arrays(self.model.variables)
        if not all(np.isfinite(array).all() for array in arrays):
            # The loss would show it one step later.
            raise self._divergence("a weight is not finite", save_batch=self.state.step > 0)
        if self.devices.process > 0:
            return
        save_checkpoint(
            self.checkpoint,
            Checkpoint(
                spec=self.spec,
                dataset=self.batches.dataset_id,
                state=self.state,
                task=arrays,
                optimizer=get_arrays(self.optimizer.variables),
                metrics=get_arrays(self.model.metrics_variables),
                best=self.best,
                start=self.start,
            ),
        )

    @_without_end_of_data_warning()
    def fit(self, *, until: int | None = None, stop: threading.Event | None = None) -> None:
        """Train for the remaining epochs.

        Args:
            until: Number of epochs after which to return early (default: those of the spec).
            stop: Event that, when set, ends training as Ctrl-C does.

        Raises:
            Interrupted: By Ctrl-C or by `stop`, after saving a checkpoint.
            ModelError: The loss or a weight is not finite, or the loss of a batch is an outlier.
        """
        state = self.state
        last = self.last = min(self.epochs, until or math.inf)
        known = int(last) if last < math.inf else 0
        self.observer.on_train_begin(known, self.batches.train_steps, state.epoch)
        with stop_requests(stop) as stop:
            self.callbacks.on_train_begin()
            while state.epoch < last and not self._stopped_improving() and not self.ended:
                if self.is_time_up() and state.step == 0 and state.history:
                    break
                self._run_epoch(stop)
                if stop.is_set():
                    raise stopped(f"stopped after epoch {state.epoch}; {self.how_to_resume}")
            self.callbacks.on_train_end()

    @_without_end_of_data_warning()
    def finish(self) -> None:
        """Test the final weights, write the model folder and delete the checkpoint."""
        spec, state, batches = self.spec, self.state, self.batches
        assign(self.network.weights, self._final_weights())
        if self.start:
            self._estimate_statistics()
        assign(self.plain.network.weights, get_arrays(self.network.weights))
        if spec.training.perceptual_every is None:
            tested = self.evaluate(batches.test())
        else:
            tested = self._evaluate_and_score(
                batches.test(), sample_excerpts(batches.test(), CLIPS)
            )
        if self.devices.process == 0:
            best = state.history[state.best_epoch] if state.history else {}
            metrics = Metrics(
                epochs=state.epoch,
                best_epoch=state.best_epoch + 1,
                minutes=round(state.seconds / 60, 2),
                audio_hours=state.history[-1]["audio_hours"] if state.history else 0.0,
                dataset=batches.dataset_id,
                init_from=state.init_from,
                training_sources=self.training_sources(),
                seed=spec.training.seed,
                parameters=self.network.count_params(),
                macs_per_second=summarize_network(self.plain.network).macs_per_second,
                validation={name: best[name] for name in best if name.startswith("val_")},
                test=tested,
                code=code_hash(),
                versions=package_versions(),
            )
            with replacing(self.run / MODEL, overwrite=True) as part:
                part.mkdir()
                folder = ModelFolder(part)
                metrics.onnx_difference = folder.write_network(self.plain.network)
                folder.write_metrics(metrics)
                write_history(state.history, folder.history_path)
                plot_history(state.history, folder.curves_path)
            self.checkpoint.unlink(missing_ok=True)
        self.devices.broadcast([0])  # the other processes wait until the folder is written

    def training_sources(self) -> str:
        """Return the hashes of the recordings trained on, here or by the model started from."""
        hashes = self.batches.source_hashes("train", "valid")
        if self.state.init_from is not None:
            hashes |= trained_on(self.state.init_from)[1]
        return " ".join(sorted(hashes))

    def _final_weights(self) -> Arrays:
        """Return the best weights, mixed with the spec's share of those of the start.

        Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models".
        """
        if not self.start:
            return self.best
        share = np.float32(self.spec.training.start_share)
        pairs = zip(self.start, self.best, strict=True)
        return [share * start + (1 - share) * best for start, best in pairs]

    def update_clock(self) -> None:
        """Add the time since the last call to the training time."""
        now = time.monotonic()
        self.state.seconds += now - self.clock
        self.clock = now

    def fit_schedule(self) -> None:
        """Stretch the schedule of the learning rate, so that it ends when the time is up.

        It ends with the last epoch at the latest.

        The speed is that of this call so far, without its first step, which is compiled.
        """
        first, started = self.pace
        done = self._steps_done()
        if self.seconds_limit == math.inf or done <= first:
            return
        now = time.monotonic()
        left = self.seconds_limit - (self.state.seconds + now - self.clock)
        (total,) = self.devices.broadcast([done + max(left, 0) * (done - first) / (now - started)])
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # fit() keeps the variables elsewhere
        planned = self.epochs * self.batches.train_steps
        self.schedule.stretch(min(max(total, done + 1), planned))

    def _steps_done(self) -> int:
        """Return the number of steps trained so far."""
        return self.state.epoch * self.batches.train_steps + self.state.step

    def is_time_up(self) -> bool:
        """Return whether the training time has reached its limit; all processes agree on it."""
        if self.seconds_limit == math.inf:
            return False
        (seconds,) = self.devices.broadcast([self.state.seconds + time.monotonic() - self.clock])
        return seconds >= self.seconds_limit

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute loss and metrics of the current weights over batches of (noisy, clean).

        Returns:
            "loss", the mean over the batches, and "si_sdr_improvement", the mean in dB over the
            segments that hold speech and noise. `denoise evaluate` differs from that: it cleans
            whole files and takes the mean over the files.

        Raises:
            DatasetError: There are fewer segments than devices.
        """
        rows = self.devices.shard(batches)
        first = next(rows, None)
        if first is None:
            raise DatasetError(
                f"{self.batches.folder} has fewer segments to measure with than there are devices "
                f"({self.devices.replicas})"
            )
        with self.devices.scope():
            measured = self.model.evaluate(
                for_keras(chain([first], rows)), verbose=0, return_dict=True
            )
        return {name: float(value) for name, value in measured.items()}

    def _evaluate_and_score(self, batches: Iterable[Batch], excerpts: Excerpts) -> dict[str, float]:
        """Compute loss and metrics over all batches, and PESQ and ESTOI of the excerpts."""
        if self.devices.process > 0:
            figures = self.evaluate(batches)
            scores = dict.fromkeys(SCORES, 0.0)
        else:
            rate = self.spec.audio.sample_rate
            with scoring(excerpts.clean, self._estimate(excerpts), rate) as pending:
                figures = self.evaluate(batches)
                scores = pending()
        agreed = self.devices.broadcast(list(scores.values()))
        return figures | dict(zip(scores, agreed, strict=True))

    def _run_epoch(self, stop: threading.Event) -> None:
        """Train for one epoch or the rest of one, validate, and save."""
        state = self.state
        self.callbacks.on_epoch_begin(state.epoch)
        trained, logs = self._train_epoch(stop)
        rate = float(np.asarray(self.optimizer.learning_rate))
        # The averaged weights are in place now. JAX gives away the memory of what it evaluates, and
        # that belongs to the optimizer: copy the weights.
        assign(self.network.weights, get_arrays(self.network.weights))
        if self.spec.training.average_decay:
            self._estimate_statistics()
        assign(self.plain.network.weights, get_arrays(self.network.weights))
        figures = self._validate()
        self.update_clock()
        row: Row = {
            "epoch": state.epoch + 1,
            "minutes": round(state.seconds / 60, 2),
            "audio_hours": round(self._audio_hours(), 3),
            "learning_rate": rate,
            **logs,
            **{f"val_{name}": value for name, value in figures.items()},
        }
        if not all(math.isfinite(value) for value in row.values()):
            raise self._divergence("a figure of the validation is not finite")
        state.history.append(row)
        monitored = row.get(self.spec.training.monitor)
        best = monitored is not None and is_better(
            self.spec.training.monitor, monitored, state.best
        )
        if best:
            state.best = monitored
        if best or state.best is None:  # until the first measurement, the last weights are the best
            state.best_epoch = state.epoch
            self.best = get_arrays(self.network.weights)
        self.model.stop_training = False  # as the time limit may have set it
        self.callbacks.on_epoch_end(state.epoch, dict(row))
        self.ended |= self.model.stop_training
        assign(self.model.variables, trained)
        state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
        self.fit_schedule()
        self.save()
        self._record(row)
        self.observer.on_epoch_end(row, best=best)

    def _estimate_statistics(self) -> None:
        """Replace the statistics of the normalizations by those for the weights in place."""
        count = min(STATISTICS_BATCHES, self.batches.train_steps)
        batches = self.batches.training(self.state.epoch).take(count)
        with self.devices.scope():
            self.statistics.estimate(self.devices.shard(batches), count)

    def _train_epoch(self, stop: threading.Event) -> tuple[Arrays, dict[str, float]]:
        """Train for the rest of an epoch and put the averaged weights in place.

        Returns:
            All variables as training left them, and the means of loss and metrics over the epoch.
        """
        state, steps = self.state, self.batches.train_steps
        if state.step == steps:  # interrupted between the last batch and its validation
            logs = {
                name: float(np.asarray(value))
                for name, value in self.model.get_metrics_result().items()
            }
            trained = get_arrays(self.model.variables)
            self.optimizer.finalize_variable_values(self.model.trainable_variables)
            return trained, logs
        callbacks = _Steps(self, stop)
        with self.devices.scope():
            fitted = self.model.fit(
                for_keras(self.devices.shard(self.batches.training(state.epoch, skip=state.step))),
                # Without it, Keras tries a step without data, which advances optimizer and seeds.
                steps_per_epoch=steps - state.step,
                shuffle=False,
                verbose=0,
                callbacks=callbacks,
            )
        # fit() ends by putting the averaged weights in place: validate those, train the others.
        return callbacks.trained, {
            name: float(values[-1]) for name, values in fitted.history.items()
        }

    def _validate(self) -> dict[str, float]:
        """Compute the figures of the validation, with PESQ and ESTOI in the epochs that have them.

        The last epoch of a call of `fit` has them, also if the time limit or a callback ends it.
        """
        epoch, every = self.state.epoch + 1, self.spec.training.perceptual_every
        if every is None:
            return self.evaluate(self.batches.validation())
        is_last = epoch == self.last or self.ended or self.is_time_up()
        if epoch % every and not is_last:
            return self.evaluate(self.batches.validation())
        return self._evaluate_and_score(self.batches.validation(), self.excerpts)

    @cached_property
    def excerpts(self) -> Excerpts:
        """Validation clips that are scored and logged."""
        return sample_excerpts(self.batches.validation(), CLIPS)

    def _estimate(self, excerpts: Excerpts) -> Clips:
        batch_size = self.spec.training.batch_size
        return predict(self.plain, excerpts.noisy, batch_size)

    def _record(self, row: Row) -> None:
        """Write an epoch to the history and to the TensorBoard logs."""
        if self.devices.process > 0:
            return
        write_history(self.state.history, self.run / HISTORY)
        if self.logs is None:
            return
        self.logs.write_figures(row)
        epoch, epochs = self.state.epoch, self.spec.training.epochs
        if epoch in (1, epochs) or epoch % max(1, epochs // LOGGED_TIMES) == 0:
            self.logs.write_clips(epoch, self.excerpts, self._estimate(self.excerpts))

    def _divergence(self, problem: str, *, save_batch: bool = False) -> ModelError:
        """Return an error that says what went wrong, and where the last good state is.

        Args:
            problem: What went wrong.
            save_batch: Whether to save the last batch, which may have caused it.
        """
        kept = "no checkpoint was saved yet"
        if self.checkpoint.exists():
            kept = f"the last good state is in {self.checkpoint}"
        if save_batch:
            kept += f"; the batch is in {self._save_batch()}"
        return ModelError(
            f"{problem} in epoch {self.state.epoch + 1}, step {self.state.step}; {kept}; "
            f"try a lower learning_rate in another run, with --init-from {self.run}"
        )

    def _save_batch(self) -> Path:
        """Generate the last batch again and write it to the folder of the run."""
        state, path = self.state, self.run / BAD_BATCH
        noisy, clean, *_ = next(iter(self.batches.training(state.epoch, skip=state.step - 1)))
        if self.devices.process == 0:
            with replacing(path, overwrite=True) as part:
                np.savez(part, noisy=noisy, clean=clean, epoch=state.epoch + 1, step=state.step)
        return path

    def _audio_hours(self) -> float:
        """Return the hours of audio trained on so far."""
        steps = self._steps_done()
        batch = self.spec.training.batch_size * self.batches.segment / self.spec.audio.sample_rate
        return steps * batch / 3600

    def _stopped_improving(self) -> bool:
        patience = self.spec.training.early_stopping
        return patience is not None and self.state.epoch - self.state.best_epoch > patience


class _Steps(keras.callbacks.CallbackList):
    """What `fit` of Keras calls: report, save from time to time, end on Ctrl-C, time or a bad loss.

    It takes the place of the list in which Keras puts callbacks, because that one reads the figures
    of every step, for which the device has to be waited for.
    """

    def __init__(self, trainer: Trainer, stop: threading.Event):
        super().__init__(add_history=True, model=trainer.model)
        self.trainer, self.stop = trainer, stop
        self.saved = time.monotonic()
        self.steps = 0
        self.means = get_arrays(trainer.model.metrics_variables)
        self.unread: list[Mapping[str, SupportsFloat]] = []
        self.logs: dict[str, float] = {}
        self.trained: Arrays = []

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Restore the running means of a resumed epoch, which fit() has reset."""
        super().on_epoch_begin(epoch, logs)
        if self.trainer.state.step > 0:
            assign(self.trainer.model.metrics_variables, self.means)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Pass the event on to the user-defined callbacks."""
        if self.trainer.callbacks.callbacks:
            self.trainer.callbacks.on_train_batch_begin(self.trainer.state.step)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Report the step, read the losses or save if it is time to, and end if asked to."""
        trainer, state = self.trainer, self.trainer.state
        state.step += 1
        self.steps += 1
        self.unread.append(logs or {})
        waits = self.steps in (1, *PACE_STEPS) or self.steps % READ_STEPS == 0
        if waits:
            self.read()
        trainer.observer.on_batch_end(state.epoch, state.step, self.logs)
        if trainer.callbacks.callbacks:
            trainer.callbacks.on_train_batch_end(state.step - 1, logs)
        trainer.ended |= self.model.stop_training
        now = time.monotonic()
        if self.steps == 1 and not trainer.paced:
            trainer.pace, trainer.paced = (trainer._steps_done(), now), True
        elif self.steps in PACE_STEPS:
            trainer.fit_schedule()
        if self.stop.is_set() or now - self.saved > CHECKPOINT_SECONDS:
            self.saved = now
            self.read()
            trainer.update_clock()
            trainer.save()
        if self.stop.is_set():
            raise stopped(f"stopped in epoch {state.epoch + 1}; {trainer.how_to_resume}")
        # Several processes have to wait for each other to agree on the time.
        if (waits or trainer.devices.processes == 1) and trainer.is_time_up():
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Keep the variables as training leaves them, before they are averaged."""
        self.read()
        super().on_epoch_end(epoch, logs)
        self.trained = get_arrays(self.trainer.model.variables)

    def read(self) -> None:
        """Wait for the steps since the last call, and check the loss of each of them."""
        trainer, state = self.trainer, self.trainer.state
        unread, self.unread = self.unread, []
        done = state.step
        for step, logs in enumerate(unread, done - len(unread) + 1):
            mean = float(logs["loss"])
            loss = mean * step - state.loss_sum
            state.loss_sum = mean * step
            state.step = step  # which messages name
            if not math.isfinite(mean):
                raise trainer._divergence("the loss is not finite", save_batch=True)
            if state.add_loss(loss, trainer.spec.training.loss_limit):
                problem = f"the loss of a batch jumped to {loss:.3g}"
                raise trainer._divergence(problem, save_batch=True)
        if unread:
            self.logs = {name: float(value) for name, value in unread[-1].items()}
