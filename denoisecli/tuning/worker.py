"""Train trials one after the other, as `denoise train` would."""

import gc
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import keras

from denoisecli.errors import DenoiseError, Interrupted, SpecError
from denoisecli.models.registry import build_model
from denoisecli.models.summary import NetworkSummary, summarize_network
from denoisecli.spec.document import Spec
from denoisecli.spec.search import Search
from denoisecli.spec.search_space import with_values
from denoisecli.system.atomic_files import replacing
from denoisecli.training.batches import open_batches
from denoisecli.training.devices import Devices
from denoisecli.training.history import Row
from denoisecli.training.run_folder import CHECKPOINT
from denoisecli.training.trainer import Trainer
from denoisecli.tuning.trials import NoTrial, Proposal, SearchObserver, Status, TrialResult

HEARTBEAT_SECONDS = 2.0
"""Time between two heartbeats, by which a worker shows that it is alive and may have to stop."""

WAIT_SECONDS = 0.2
"""Time until a worker that has to wait asks for a trial again."""

TRACEBACK = "traceback.txt"
"""File in the folder of a trial that failed unexpectedly."""


@runtime_checkable
class TrialSource(Protocol):
    """A `Scheduler`, or what represents it in another process."""

    def next_trial(self, worker: str) -> Proposal | NoTrial:
        """Return a trial to train."""

    def heartbeat(self, worker: str) -> bool:
        """Record that a worker is alive; return whether it may continue its trial."""

    def report(self, worker: str, result: TrialResult) -> None:
        """Record a finished trial."""

    def release(self, worker: str) -> None:
        """Take back the trial of a worker that leaves."""


TrainTrial = Callable[[Proposal, threading.Event], TrialResult]
"""Trains a trial, and raises `Interrupted` when the event is set."""


def run_trials(source: TrialSource, worker: str, train_trial: TrainTrial) -> None:
    """Train trials until there are no more, or time is up.

    Args:
        source: Object that hands out trials.
        worker: Unique name of this worker.
        train_trial: Function that trains one, such as `TrialTrainer.train`.

    Raises:
        Interrupted: By Ctrl-C; the trial is left for another worker, or for another call.
    """
    while (proposal := source.next_trial(worker)) != NoTrial.DONE:
        if not isinstance(proposal, Proposal):
            time.sleep(WAIT_SECONDS)
            continue
        try:
            with _heartbeat(source, worker) as stop:
                result = train_trial(proposal, stop.event)
        except (Interrupted, KeyboardInterrupt) as error:
            with suppress(DenoiseError):  # the chief may be gone
                source.release(worker)
            if isinstance(error, Interrupted) and stop.out_of_time:
                continue  # the source answers that it is done
            raise
        source.report(worker, result)


@dataclass
class _Stop:
    event: threading.Event
    out_of_time: bool = False


@contextmanager
def _heartbeat(source: TrialSource, worker: str) -> Iterator[_Stop]:
    """Send heartbeats while a trial is trained; the event is set when time is up."""
    stop, finished = _Stop(threading.Event()), threading.Event()

    def beat() -> None:
        while not finished.wait(HEARTBEAT_SECONDS):
            with suppress(DenoiseError):  # the chief is away; it may come back
                if not source.heartbeat(worker):
                    stop.out_of_time = True
                    stop.event.set()
                    return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        finished.set()


@dataclass(frozen=True)
class TrialTrainer:
    """Train the trials of a search.

    Attributes:
        spec: Spec with a `search` section.
        data: Folder of the dataset.
        folder: Folder in which every trial gets one of its own.
        devices: Devices to train on.
        observer: Receives the progress.
        epochs: Number of epochs of a trial; None takes that of the spec.
    """

    spec: Spec
    data: Path
    folder: Path
    devices: Devices
    observer: SearchObserver
    epochs: int | None = None

    @property
    def search(self) -> Search:
        """Return the `search` section of the spec."""
        assert self.spec.search is not None
        return self.spec.search

    def train(self, proposal: Proposal, stop: threading.Event) -> TrialResult:
        """Train a trial, unless its values are not feasible.

        Whatever goes wrong becomes part of the result.

        Args:
            proposal: The trial.
            stop: Event that ends training early.

        Raises:
            Interrupted: By Ctrl-C or ``stop``; a checkpoint is left for another attempt.
        """
        started = time.monotonic()
        folder = self.trial_folder(proposal.name)
        result = TrialResult(proposal.name, Status.FAILED, proposal.values)
        try:
            spec = self.spec_of(proposal)
            network = summarize_network(build_model(spec))
            result = replace(result, macs=network.macs_per_second, parameters=network.parameters)
            excess = self._excess(network)
            if excess is not None:
                result = replace(result, status=Status.INFEASIBLE, message=excess)
            else:
                row, epochs = self._best_epoch(self._train(spec, proposal, folder, stop))
                result = replace(
                    result,
                    status=Status.COMPLETED,
                    objective=row[self.search.objective],
                    metrics={name: value for name, value in row.items() if name[:4] == "val_"},
                    epochs=epochs,
                )
        except Interrupted:
            raise
        except SpecError as error:
            result = replace(result, status=Status.INFEASIBLE, message=str(error))
        except DenoiseError as error:
            result = replace(result, message=str(error))
        except Exception as error:  # such as running out of memory, or shapes that do not match
            folder.mkdir(parents=True, exist_ok=True)
            (folder / TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
            result = replace(result, message=f"{type(error).__name__}: {error}")
        if result.status != Status.INFEASIBLE:
            _free_memory()
        if proposal.until is None:  # else Hyperband may continue from the checkpoint
            (folder / CHECKPOINT).unlink(missing_ok=True)
        return replace(result, seconds=round(time.monotonic() - started, 1))

    def spec_of(self, proposal: Proposal) -> Spec:
        """Return the spec with the values of a trial.

        Raises:
            SpecError: The values contradict each other.
        """
        values: dict[str, Any] = dict(proposal.values)
        if self.epochs is not None:
            values["training.epochs"] = self.epochs
        return with_values(self.spec, values)

    def trial_folder(self, name: str) -> Path:
        """Return the folder of a trial."""
        return self.folder / f"trial_{name}"

    def _excess(self, network: NetworkSummary) -> str | None:
        """Return which cap of the search a network is above, if any."""
        for name, value, cap in (
            ("max_macs", network.macs_per_second, self.search.max_macs),
            ("max_parameters", network.parameters, self.search.max_parameters),
        ):
            if cap is not None and value > cap:
                return f"{value:,.0f} is above {name} {cap:,.0f}"
        return None

    def _train(
        self, spec: Spec, proposal: Proposal, folder: Path, stop: threading.Event
    ) -> list[Row]:
        """Train a network, from its last checkpoint if there is one; return its history."""
        checkpoint = folder / CHECKPOINT
        if proposal.continues is not None and not checkpoint.exists():
            earlier = self.trial_folder(proposal.continues) / CHECKPOINT
            if earlier.exists():
                with replacing(checkpoint) as part:
                    shutil.copyfile(earlier, part)
        folder.mkdir(parents=True, exist_ok=True)
        observer = _TrialObserver(proposal.name, self.observer)
        batches = open_batches(self.data, spec)
        trainer = Trainer(batches.spec, batches, folder, observer, self.devices)
        if checkpoint.exists():
            trainer.resume()
        trainer.fit(until=proposal.until, stop=stop)
        return trainer.state.history

    def _best_epoch(self, history: list[Row]) -> tuple[Row, int]:
        """Return the epoch with the best objective, and the total number of epochs."""
        name = self.search.objective
        rows = [row for row in history if name in row]
        if not rows:
            raise DenoiseError(f"no epoch measured {name}")
        best = max if self.search.direction == "max" else min
        return best(rows, key=lambda row: row[name]), len(history)


def _free_memory() -> None:
    """Free what Keras keeps of a network that was trained."""
    keras.backend.clear_session()
    gc.collect()


class _TrialObserver:
    """Pass the events of a trial's training on to the observer of the search."""

    def __init__(self, trial: str, observer: SearchObserver):
        self.trial, self.observer = trial, observer
        self.epochs = self.steps = 0

    def on_message(self, text: str) -> None:
        """Handle a message to the user."""
        self.observer.on_message(f"trial {self.trial}: {text}")

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None:
        """Handle the start of training."""
        self.epochs, self.steps = epochs, steps

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """Handle the end of a batch."""
        text = f"epoch {epoch + 1} of {self.epochs}, step {step} of {self.steps}"
        self.observer.on_progress(self.trial, f"{text}, loss {logs['loss']:.4f}")

    def on_epoch_end(self, row: Row, *, best: bool) -> None:
        """Handle the end of an epoch."""
