"""A spec with a `search` section as KerasTuner sees it, and the tuner that runs its trials."""

import gc
import json
import shutil
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import keras
import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.errors import FailedTrialError, FatalError

from denoisecli.describe import describe
from denoisecli.devices import Devices
from denoisecli.errors import DenoiseError, SpecError
from denoisecli.files import replacing
from denoisecli.observer import Interrupted
from denoisecli.oracles import (
    INFEASIBLE,
    REASON,
    TRIALS,
    SearchOracle,
    has_figure,
    is_infeasible,
    no_figure,
)
from denoisecli.pipeline import open_batches
from denoisecli.runs import CHECKPOINT
from denoisecli.search import values_at, with_values
from denoisecli.spec import Boolean, Choice, IntRange, Spec
from denoisecli.trainer import Trainer
from denoisecli.trials import SearchObserver, Status, TrialResult

HEARTBEAT_SECONDS = 2.0
"""How often a worker says that it is alive, and asks whether time is up."""

PAUSE_SECONDS = 0.2
"""Before a worker that was told to wait asks again."""


class Infeasible(FailedTrialError):
    """Values that are not trained: they do not go together, or are above a cap."""


class Stopped(FatalError):
    """Leaves a trial as it is: time is up, or Ctrl-C. Other errors are caught by KerasTuner."""


class SpecHyperModel(keras_tuner.HyperModel):
    """Networks whose specs differ in the fields that are searched.

    Args:
        spec: with a `search` section.
        data: folder of the stored dataset.
        devices: where to train.
        epochs: of a trial; None: as many as the spec says.
    """

    def __init__(self, spec: Spec, data: Path, devices: Devices, epochs: int | None = None):
        super().__init__(name=spec.name)
        assert spec.search is not None
        self.spec, self.data, self.devices, self.epochs = spec, data, devices, epochs
        self.search = spec.search
        self.facts: dict[str, float] = {}
        self.trainer: Any = None

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Register the searched fields by their paths."""
        for path, searched in self.search.space.items():
            if isinstance(searched, Choice):
                # As text, which is what KerasTuner can hold of any value.
                hp.Choice(path, [json.dumps(value) for value in searched.values])
            elif isinstance(searched, Boolean):
                hp.Boolean(path)
            elif isinstance(searched, IntRange):
                hp.Int(path, searched.min, searched.max, searched.step)
            else:
                sampling = "log" if searched.log else "linear"
                hp.Float(path, searched.min, searched.max, sampling=sampling)

    def values_of(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """The searched fields as they stand in a spec."""
        values: dict[str, Any] = {}
        for path, searched in self.search.space.items():
            value = hp.values[path]
            if isinstance(searched, Choice):
                values[path] = json.loads(value)
            elif isinstance(searched, Boolean):
                values[path] = bool(value)
            elif isinstance(searched, IntRange):
                values[path] = int(value)
            else:  # all digits that survive the way to a worker
                values[path] = float(f"{value:.6g}")
        return values

    def own_values(self) -> dict[str, Any] | None:
        """The spec's own values as KerasTuner holds them; None if they are not in the space."""
        own: dict[str, Any] = {}
        for path, searched in self.search.space.items():
            value, *others = values_at(self.spec, path)
            if any(other != value for other in others):
                return None
            if isinstance(searched, Choice):
                known = value in searched.values
            elif isinstance(searched, Boolean):
                known = isinstance(value, bool)
            elif isinstance(searched, IntRange):
                known = value in range(searched.min, searched.max + 1, searched.step)
            else:
                known = searched.min <= value <= searched.max
            if not known:
                return None
            own[path] = json.dumps(value) if isinstance(searched, Choice) else value
        return own

    def spec_of(self, hp: keras_tuner.HyperParameters) -> Spec:
        """The spec of a trial.

        Raises:
            SpecError: these values do not go together.
        """
        spec = with_values(self.spec, self.values_of(hp))
        if self.epochs is None:
            return spec
        training = spec.training.model_copy(update={"epochs": self.epochs})
        return spec.model_copy(update={"training": training})

    def build(
        self, hp: keras_tuner.HyperParameters, folder: Path, watch: "TrialWatch"
    ) -> keras.Model:
        """Make what `denoise train` would train with these values.

        Args:
            hp: values of the searched fields.
            folder: of the trial; a checkpoint in it is gone on from.
            watch: is told how training goes.

        Raises:
            Infeasible: they are not to be trained.
        """
        self.facts = {}
        try:
            spec = self.spec_of(hp)
        except SpecError as error:
            raise Infeasible(str(error)) from error
        described = describe(spec)
        self.facts |= {"macs": described.macs, "parameters": float(described.parameters)}
        caps = (("max_macs", self.search.max_macs), ("max_parameters", self.search.max_parameters))
        for (name, cap), found in zip(caps, self.facts.values(), strict=True):
            if cap is not None and found > cap:
                raise Infeasible(f"{found:,.0f} is above {name} {cap:,.0f}")
        keras.utils.set_random_seed(spec.training.seed)
        self.trainer = Trainer(spec, open_batches(self.data, spec), folder, watch, self.devices)
        if self.trainer.checkpoint.exists():
            self.trainer.resume()
        return self.trainer.task

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        """Train what `build` has built, for as many epochs as Hyperband wants of it.

        Returns:
            Figures of the validation at the epoch with the best objective.

        Raises:
            DenoiseError: training went wrong, or the objective was never measured.
        """
        watch, state = self.trainer.observer, self.trainer.state
        if watch.until is None or state.epoch < watch.until:
            with suppress(_Enough):
                self.trainer.fit()
        name, best = self.search.objective, max if self.search.direction == "max" else min
        rows = [row for row in state.history if name in row]
        if not rows:
            raise DenoiseError(f"no epoch has measured {name}")
        row = best(rows, key=lambda row: row[name])
        figures = {key: value for key, value in row.items() if key.startswith("val_")}
        return figures | {"epochs": float(len(state.history))}


class _Enough(Exception):
    """Hyperband wants no more epochs of a trial for now."""


class TrialWatch:
    """Observes the training of a trial; ends it when time is up, or Hyperband has seen enough."""

    def __init__(
        self, name: str, until: int | None, stop: threading.Event, observer: SearchObserver
    ):
        self.name, self.until, self.stop, self.observer = name, until, stop, observer
        self.epochs = self.steps = 0

    def note(self, text: str) -> None:
        """Say that a trial goes on, and the like."""
        self.observer.note(f"trial {self.name}: {text}")

    def start(self, epochs: int, steps: int, epoch: int) -> None:
        """Training begins."""
        self.epochs, self.steps = self.until or epochs, steps

    def step(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """A batch is done."""
        if self.stop.is_set():
            raise Stopped("time is up")
        self.observer.progress(
            self.name,
            f"epoch {epoch + 1} of {self.epochs}, step {step} of {self.steps}, "
            f"loss {logs['loss']:.4f}",
        )

    def epoch(self, row: dict[str, Any], *, best: bool) -> None:
        """An epoch is done and saved."""
        if row["epoch"] == self.until:
            raise _Enough


class SearchTuner(BaseTuner):
    """Runs trials as `denoise train` runs; their state is the oracle's business alone.

    Args:
        oracle: chooses values.
        hypermodel: trains them.
        observer: is told how it goes.
    """

    def __init__(self, oracle: SearchOracle, hypermodel: SpecHyperModel, observer: SearchObserver):
        # Given the hypermodel, KerasTuner would build it to find the fields that we declare.
        super().__init__(oracle, directory=str(oracle.folder), project_name=TRIALS)
        self.hypermodel, self.observer = hypermodel, observer
        self.asked = 0.0

    def pre_create_trial(self) -> None:
        """Leave the chief some rest when there is nothing to do."""
        time.sleep(max(0.0, self.asked + PAUSE_SECONDS - time.monotonic()))
        self.asked = time.monotonic()

    def run_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Train one trial; whatever goes wrong with it becomes a result of the worst kind.

        Raises:
            Stopped: time is up, or Ctrl-C.
        """
        begun = time.monotonic()
        folder = Path(self.get_trial_dir(trial.trial_id))
        values = trial.hyperparameters.values
        results = no_figure(self.oracle.objective)
        reason = ""
        self.hypermodel.facts = {}
        try:
            with self._alive(trial) as stop:
                watch = TrialWatch(trial.trial_id, values.get("tuner/epochs"), stop, self.observer)
                if "tuner/trial_id" in values:
                    self._go_on_from(values["tuner/trial_id"], folder)
                model = self.hypermodel.build(trial.hyperparameters, folder, watch)
                results |= self.hypermodel.fit(trial.hyperparameters, model)
        except Interrupted as error:
            raise Stopped(str(error)) from error
        except Stopped:
            raise
        except Infeasible as error:
            results[INFEASIBLE], reason = 1.0, str(error)
        except DenoiseError as error:
            reason = str(error)
        except Exception:  # whatever a network can do: out of memory, shapes that do not fit
            reason = traceback.format_exc()
        if reason:
            with replacing(folder / REASON, overwrite=True) as part:
                part.write_text(reason, encoding="utf-8")
        if "tuner/epochs" not in values:  # else Hyperband may go on from there
            (folder / CHECKPOINT).unlink(missing_ok=True)
        self.hypermodel.trainer = model = None
        if self.hypermodel.facts:  # a network was built
            keras.backend.clear_session()
            gc.collect()
        if not isinstance(self.oracle, SearchOracle):  # in a worker, which has no table of trials
            name = self.hypermodel.search.objective
            said = reason.strip().splitlines()[-1] if reason else f"{name} {results[name]:.4g}"
            self.observer.note(f"trial {trial.trial_id}: {said}")
        return results | self.hypermodel.facts | {"seconds": round(time.monotonic() - begun, 1)}

    def _go_on_from(self, trial_id: str, folder: Path) -> None:
        """Begin with the checkpoint of an earlier trial, if it is still there."""
        earlier = Path(self.get_trial_dir(trial_id)) / CHECKPOINT
        if earlier.exists() and not (folder / CHECKPOINT).exists():
            with replacing(folder / CHECKPOINT) as part:
                shutil.copyfile(earlier, part)

    def save(self) -> None:
        """Do nothing: the oracle saves itself, and a tuner has no state."""

    @contextmanager
    def _alive(self, trial: Trial) -> Iterator[threading.Event]:
        """Say so while a trial runs; the event is set when time is up."""
        done, stop = threading.Event(), threading.Event()

        def beat() -> None:
            while not done.wait(HEARTBEAT_SECONDS):
                try:
                    if self.oracle.get_trial(trial.trial_id).status == TrialStatus.STOPPED:
                        stop.set()
                except grpc.RpcError:  # the chief is away; it may come back
                    continue

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield stop
        finally:
            done.set()


_FACTS: dict[str, Any] = {"epochs": int, "macs": float, "parameters": int, "seconds": float}
"""Reported of a trial, apart from what was validated."""


def results_of(oracle: SearchOracle, hypermodel: SpecHyperModel) -> list[TrialResult]:
    """All trials so far, in the order of their beginnings."""
    ongoing = {trial.trial_id for trial in oracle.ongoing_trials.values()}
    own = hypermodel.own_values()
    results = []
    for name, trial in sorted(oracle.trials.items()):
        values = {path: trial.hyperparameters.values[path] for path in hypermodel.search.space}
        figures = {key: float(trial.metrics.get_last_value(key)) for key in trial.metrics.metrics}
        facts: dict[str, Any] = {
            key: kind(figures.pop(key)) for key, kind in _FACTS.items() if key in figures
        }
        figures.pop(INFEASIBLE, None)
        scored = has_figure(trial, oracle.objective)
        if trial.status == TrialStatus.RUNNING:
            status: Status = "running" if name in ongoing else "waiting"
        elif is_infeasible(trial):
            status = "infeasible"
        else:
            status = "completed" if scored else "failed"
        results.append(
            TrialResult(
                name=name,
                status=status,
                values=hypermodel.values_of(trial.hyperparameters),
                objective=figures[oracle.objective.name] if status == "completed" else None,
                figures=figures if status == "completed" else {},
                message=trial.message or "",
                is_spec=values == own,
                **facts,
            )
        )
    return results
