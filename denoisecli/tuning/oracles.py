"""KerasTuner's oracles, made to outlive their own process and those of their workers."""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.oracles import (
    BayesianOptimizationOracle,
    HyperbandOracle,
    RandomSearchOracle,
)

from denoisecli.errors import DenoiseError
from denoisecli.system.atomic_files import replacing

STATE = "search.json"
TRIALS = "trials"
REASON = "reason.txt"
"""In the folder of a trial: why it was not trained, or how it failed."""

INFEASIBLE = "infeasible"
"""A figure of every trial: 1 if its values were refused before training, else 0."""

LOST_SECONDS = 60.0
"""A worker that was not heard of for so long is taken for dead."""

MAX_ATTEMPTS = 3
"""A trial whose process died so often is given up: it may be what kills them."""

INFEASIBLE_SHARE = 10
"""So many trials may be infeasible for each that is wanted, before a search ends."""


class SearchOracle(keras_tuner.Oracle):
    """Mixed into an oracle of KerasTuner: what the searches of all methods have in common.

    - The state is one file, trials included, that is replaced as a whole.
    - A trial whose worker died is handed out again; nobody is sent away before all are done.
    - A trial without a figure is one with the worst figure: Hyperband would wait for it for ever.
    - Infeasible trials do not count towards the trials that are wanted.

    Set by `make_oracle`: ``folder`` of the search, the ``wanted`` number of trials, the ``limit``
    of the whole search in seconds, ``about`` (what must be the same when it goes on), ``first``
    (values to begin with), ``changed`` (is called whenever a trial starts or ends).
    """

    folder: Path
    wanted: int
    limit: float
    about: dict[str, Any]
    first: dict[str, Any] | None
    changed: Callable[[], None]

    def begin(self) -> None:
        """Start the clock; go on from the state of an earlier process, if there is one.

        Raises:
            DenoiseError: the state is damaged or of another version.
        """
        self.started = time.monotonic()
        self.spent = 0.0
        self.closing = False
        self.seen: dict[str, float] = {}
        self.abandoned: list[str] = []
        self.attempts: dict[str, int] = {}
        path = self.folder / STATE
        if path.exists():
            try:
                self.set_state(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise DenoiseError(f"{path} is damaged; --fresh starts over") from error

    @property
    def seconds(self) -> float:
        """What the search has taken so far, in all processes one after the other."""
        return self.spent + time.monotonic() - self.started

    @property
    def out_of_time(self) -> bool:
        """Whether no more trials begin, and those that run shall stop."""
        return self.seconds > self.limit

    @property
    def is_over(self) -> bool:
        """Whether workers were sent away, and none is left."""
        over = self.closing or self.out_of_time
        return over and not self.ongoing_trials and not self.tuner_ids

    def save(self) -> None:
        """Replace the file of the state."""
        with replacing(self.folder / STATE, overwrite=True) as part:
            part.write_text(json.dumps(self.get_state()), encoding="utf-8")

    def get_state(self) -> dict[str, Any]:
        """All there is to go on from."""
        return super().get_state() | {
            "about": self.about,
            "trials": [trial.get_state() for trial in self.trials.values()],
            "abandoned": self.abandoned,
            "attempts": self.attempts,
            "seconds": self.seconds,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state: trials that ran then are handed out again."""
        trials = [Trial.from_state(trial) for trial in state["trials"]]
        self.trials = {trial.trial_id: trial for trial in trials}
        super().set_state(state | {"ongoing_trials": {}})
        self.abandoned = [t.trial_id for t in trials if t.status == TrialStatus.RUNNING]
        self.attempts = state["attempts"]
        self.spent = state["seconds"]

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """Give a worker something to do, or nothing for now, or send it away."""
        self.seen[tuner_id] = time.monotonic()
        if self.out_of_time:
            self.give_back(tuner_id)
            return Trial(keras_tuner.HyperParameters(), status=TrialStatus.STOPPED)
        for name in [name for name in self.abandoned if self.attempts[name] >= MAX_ATTEMPTS]:
            self._give_up(self.trials[name])
        if self.abandoned and tuner_id not in self.ongoing_trials:
            self.tuner_ids.add(tuner_id)
            trial = self.trials[self.abandoned.pop(0)]
            self.ongoing_trials[tuner_id] = trial
        else:
            trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.STOPPED:
            if self.ongoing_trials:  # whose worker may yet die
                trial.status = TrialStatus.IDLE
                self.tuner_ids.add(tuner_id)
            self.closing = not self.ongoing_trials
        elif trial.status == TrialStatus.RUNNING:
            self.attempts[trial.trial_id] = self.attempts.get(trial.trial_id, 0) + 1
            self.save()
            self.changed()
        return trial

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values for a new trial; the first one is the spec as it is, if it lies in the space."""
        infeasible = sum(is_infeasible(trial) for trial in self.trials.values())
        trained = len(self.trials) - infeasible
        if trained >= self.wanted or infeasible >= INFEASIBLE_SHARE * self.wanted:
            return {"status": TrialStatus.STOPPED}
        if not self.trials and self.first is not None:
            return {"status": TrialStatus.RUNNING, "values": dict(self.first)}
        return super().populate_space(trial_id)

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Take a result; if a trial had been handed out twice, the first one counts."""
        name = trial.trial_id
        if name in self.abandoned:  # its worker was taken for dead
            self.abandoned.remove(name)
        elif all(name != ongoing.trial_id for ongoing in self.ongoing_trials.values()):
            return
        reason = self.folder / TRIALS / f"trial_{name}" / REASON
        if trial.message is None and reason.exists():
            trial.message = reason.read_text(encoding="utf-8").strip().splitlines()[-1]
        super().end_trial(trial)
        self.save()  # since the trial is no longer among the ongoing ones
        self.changed()

    def get_trial(self, trial_id: str) -> Trial:
        """A trial; by asking for it a worker says that it is alive, and hears that time is up."""
        for tuner_id, ongoing in list(self.ongoing_trials.items()):
            if ongoing.trial_id == trial_id:
                self.seen[tuner_id] = time.monotonic()
        trial = super().get_trial(trial_id)
        if self.out_of_time:
            trial = Trial.from_state(trial.get_state())
            trial.status = TrialStatus.STOPPED
        return trial

    @keras_tuner.synchronized
    def give_back(self, tuner_id: str) -> None:
        """Forget a worker that leaves; its trial waits for another one, or for another day."""
        if tuner_id in self.ongoing_trials:
            self.attempts[self.ongoing_trials[tuner_id].trial_id] -= 1
        self._forget(tuner_id)

    @keras_tuner.synchronized
    def drop_lost_workers(self) -> None:
        """Take back the trials of workers that have not been heard of for `LOST_SECONDS`."""
        now = time.monotonic()
        for tuner_id in list(self.tuner_ids):
            if now - self.seen[tuner_id] > LOST_SECONDS:
                self._forget(tuner_id)

    def _forget(self, tuner_id: str) -> None:
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is not None:
            self.abandoned.append(trial.trial_id)
            self.save()
            self.changed()

    def _give_up(self, trial: Trial) -> None:
        self.update_trial(trial.trial_id, no_figure(self.objective))
        trial.status = TrialStatus.COMPLETED
        trial.message = f"its process ended {MAX_ATTEMPTS} times before it did"
        self.end_trial(trial)


class RandomOracle(SearchOracle, RandomSearchOracle):
    """Draws all values at random."""


class BayesianOracle(SearchOracle, BayesianOptimizationOracle):
    """Draws values where a Gaussian process expects the best, none of them twice."""

    num_initial_points: int

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values for a new trial."""
        trials = [t for t in self.trials.values() if t.status == TrialStatus.COMPLETED]
        scores = [trial.score for trial in trials if has_figure(trial, self.objective)]
        worst = min if self.objective.direction == "max" else max
        for trial in trials:
            if not has_figure(trial, self.objective):
                # Infinity would count as 0: it has to learn that this is a bad place.
                trial.score = worst(scores, default=0.0)
        chosen = super().populate_space(trial_id)
        if all(t.hyperparameters.values != chosen.get("values") for t in self.trials.values()):
            return chosen
        initial, self.num_initial_points = self.num_initial_points, len(trials) + 1
        try:  # the process would come to this again and again: draw at random
            return super().populate_space(trial_id)
        finally:
            self.num_initial_points = initial


class BandOracle(SearchOracle, HyperbandOracle):
    """Trains many for a few epochs, the better ones of them on and on."""


METHODS = {"bayesian": BayesianOracle, "hyperband": BandOracle, "random": RandomOracle}


def make_oracle(
    method: str,
    objective: keras_tuner.Objective,
    space: keras_tuner.HyperParameters,
    *,
    folder: Path,
    trials: int,
    minutes: float | None,
    epochs: int,
    seed: int,
    first: dict[str, Any] | None,
    about: dict[str, Any],
    changed: Callable[[], None],
) -> SearchOracle:
    """Make an oracle; it still has to `begin`.

    Args:
        method: a key of `METHODS`.
        objective: name and direction.
        space: the fields that are searched.
        folder: of the search.
        trials: how many are wanted; infeasible ones do not count.
        minutes: for the whole search; None: as long as it takes.
        epochs: of a trial; for Hyperband, of the longest.
        seed: chooses all that is left to chance.
        first: values of the first trial (not for Hyperband).
        about: JSON that says what is searched.
        changed: is called whenever a trial starts or ends.
    """
    options: dict[str, Any] = {
        "objective": objective,
        "hyperparameters": space,
        "seed": seed + 1,  # 0 would mean another one each time
        "max_consecutive_failed_trials": sys.maxsize,
    }
    if method == "hyperband":
        options |= {"max_epochs": epochs, "hyperband_iterations": None}  # None: without end
    elif method == "bayesian":
        options |= {"num_initial_points": max(4, trials // 4)}
    oracle = METHODS[method](**options)
    oracle.max_trials = 9999  # which makes names of four digits; the real end is `wanted`
    oracle.verbose = 0
    oracle.folder, oracle.wanted, oracle.about = folder, trials, about
    oracle.limit = math.inf if minutes is None else 60 * minutes
    oracle.first = None if method == "hyperband" else first
    oracle.changed = changed
    return oracle


def no_figure(objective: keras_tuner.Objective) -> dict[str, float]:
    """What is reported of a trial that has no figure: it is worse than any other."""
    return {
        objective.name: -math.inf if objective.direction == "max" else math.inf,
        INFEASIBLE: 0.0,
    }


def has_figure(trial: Trial, objective: keras_tuner.Objective) -> bool:
    """Whether a trial was trained and came to a figure."""
    if not trial.metrics.exists(objective.name):
        return False
    return math.isfinite(trial.metrics.get_best_value(objective.name))


def is_infeasible(trial: Trial) -> bool:
    """Whether a trial's values were refused before training."""
    metrics = trial.metrics
    return metrics.exists(INFEASIBLE) and bool(metrics.get_last_value(INFEASIBLE) == 1)
