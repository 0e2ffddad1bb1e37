"""The tuner that runs a search's trials, and what came of them."""

import gc
import shutil
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import keras
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus

from denoisecli.errors import DenoiseError
from denoisecli.system.atomic_files import replacing
from denoisecli.training.observer import Interrupted
from denoisecli.training.run_folder import CHECKPOINT
from denoisecli.tuning.hypermodel import Infeasible, SpecHyperModel, Stopped, TrialWatch
from denoisecli.tuning.oracles import (
    INFEASIBLE,
    REASON,
    TRIALS,
    SearchOracle,
    has_figure,
    is_infeasible,
    no_figure,
)
from denoisecli.tuning.trials import SearchObserver, Status, TrialResult

HEARTBEAT_SECONDS = 2.0
"""How often a worker says that it is alive, and asks whether time is up."""

PAUSE_SECONDS = 0.2
"""Before a worker that was told to wait asks again."""


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
            self.observer.on_message(f"trial {trial.trial_id}: {said}")
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
