"""Choose the values of trials with KerasTuner's oracles: random, Bayesian and Hyperband.

KerasTuner calls the part that chooses values an oracle. Its tuners, which build and train models,
are not used: `worker` does that.
"""

import json
import warnings
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle

from denoisecli.spec.document import Spec
from denoisecli.spec.search import Boolean, Choice, IntRange, Searched
from denoisecli.spec.search_space import values_at
from denoisecli.tuning.method import Method
from denoisecli.tuning.trials import NoTrial, Proposal

WORST = 1e30
"""Magnitude of the score of a trial without an objective; finite, so that the state is JSON."""

ENDLESS = 1_000_000
"""Iterations of Hyperband: the scheduler ends the search."""


class Oracle:
    """Choose values in the search space of a spec and learn from the objectives they reach.

    The first proposal is the unchanged spec if it lies in the space (not with Hyperband).

    Args:
        spec: Spec with a `search` section.
        method: Method of choosing values.
        trials: Number of trials that are planned; a quarter of them, but no fewer than four, is
            random before the Gaussian process takes over.
        epochs: Number of epochs of the longest trial (Hyperband).
    """

    def __init__(self, spec: Spec, method: Method, *, trials: int, epochs: int):
        assert spec.search is not None
        self.space = spec.search.space
        self.spec_values = _spec_values(spec)
        options: dict[str, Any] = {
            "objective": keras_tuner.Objective(spec.search.objective, spec.search.direction),
            "hyperparameters": _hyperparameters(self.space),
            # KerasTuner replaces 0 by a random seed, and scikit-learn refuses 2**32.
            "seed": spec.training.seed % (2**32 - 1) + 1,
        }
        oracle: keras_tuner.Oracle
        if method == Method.HYPERBAND:
            oracle = _Hyperband(max_epochs=epochs, hyperband_iterations=ENDLESS, **options)
        elif method == Method.BAYESIAN:
            oracle = _Bayesian(num_initial_points=max(4, trials // 4), **options)
        else:
            oracle = _Random(**options)
        if self.spec_values is not None and method != Method.HYPERBAND:
            oracle.first_values = {
                path: _encode(searched, self.spec_values[path])
                for path, searched in self.space.items()
            }
        oracle.max_trials = 9999  # for names of four digits
        oracle.verbose = 0
        self._oracle = oracle

    def propose(self) -> Proposal | NoTrial:
        """Choose the values of a new trial."""
        # To KerasTuner every trial has a worker of its own, so that it stays ongoing until its
        # result is there, even if it has to wait for another worker.
        trial = self._oracle.create_trial(f"{len(self._oracle.trials)}")
        if trial.status == TrialStatus.RUNNING:
            return self.proposal(trial.trial_id)
        return NoTrial.DONE if trial.status == TrialStatus.STOPPED else NoTrial.WAIT

    def proposal(self, name: str) -> Proposal:
        """Return the trial of this name as it was proposed."""
        values = self._oracle.trials[name].hyperparameters.values
        return Proposal(
            name,
            {path: _decode(searched, values[path]) for path, searched in self.space.items()},
            until=values.get("tuner/epochs"),
            continues=values.get("tuner/trial_id"),
        )

    def report(self, name: str, objective: float | None) -> None:
        """Learn from a finished trial; without an objective it counts as worse than all others."""
        if objective is None:
            objective = -WORST if self._oracle.objective.direction == "max" else WORST
        trial = self._oracle.update_trial(name, {self._oracle.objective.name: objective})
        trial.status = TrialStatus.COMPLETED
        self._oracle.end_trial(trial)

    def get_state(self) -> dict[str, Any]:
        """Return the state as a dictionary that can be stored as JSON."""
        trials = [trial.get_state() for trial in self._oracle.trials.values()]
        return {"oracle": self._oracle.get_state(), "trials": trials}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from the result of `get_state`.

        Raises:
            KeyError, TypeError: The state is not one of this version.
        """
        trials = [Trial.from_state(trial) for trial in state["trials"]]
        self._oracle.trials = {trial.trial_id: trial for trial in trials}
        self._oracle.set_state(state["oracle"])


class _InMemory(keras_tuner.Oracle):
    """Mixed into KerasTuner's oracles: write no files, and begin with given values."""

    first_values: dict[str, Any] | None = None

    def save(self) -> None:
        """Do nothing: the scheduler saves the state."""

    def _save_trial(self, trial: Trial) -> None:
        """Do nothing: the scheduler saves the state."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose values."""
        if not self.trials and self.first_values is not None:
            return {"status": TrialStatus.RUNNING, "values": self.first_values}
        return super().populate_space(trial_id)


class _Random(_InMemory, RandomSearchOracle):
    """Draws values at random."""


class _Hyperband(_InMemory, HyperbandOracle):
    """Trains many trials for a few epochs, and the better ones of them for longer."""


class _Bayesian(_InMemory, BayesianOptimizationOracle):
    """Chooses values where a Gaussian process expects the best objective, none of them twice."""

    num_initial_points: int

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choose values."""
        completed = [t for t in self.trials.values() if t.status == TrialStatus.COMPLETED]
        objectives = {t: t.metrics.get_last_value(self.objective.name) for t in completed}
        known = [value for value in objectives.values() if abs(value) < WORST]
        worst = (min if self.objective.direction == "max" else max)(known, default=0.0)
        for trial, value in objectives.items():
            # A score far from all others would hide the differences between them.
            trial.score = value if abs(value) < WORST else worst
        with warnings.catch_warnings():
            # Scikit-learn tells how well the process converges; nothing can be done about it.
            warnings.filterwarnings("ignore", module="sklearn")
            chosen = super().populate_space(trial_id)
        if all(t.hyperparameters.values != chosen.get("values") for t in self.trials.values()):
            return chosen
        # The process would choose these values for ever: draw random ones instead.
        initial, self.num_initial_points = self.num_initial_points, len(completed) + 1
        try:
            return super().populate_space(trial_id)
        finally:
            self.num_initial_points = initial


def _hyperparameters(space: dict[str, Searched]) -> keras_tuner.HyperParameters:
    """Declare the searched fields to KerasTuner."""
    hp = keras_tuner.HyperParameters()
    for path, searched in space.items():
        if isinstance(searched, Choice):
            hp.Choice(path, [_encode(searched, value) for value in searched.values])
        elif isinstance(searched, Boolean):
            hp.Boolean(path)
        elif isinstance(searched, IntRange):
            hp.Int(path, searched.min, searched.max, searched.step)
        else:
            sampling = "log" if searched.log else "linear"
            hp.Float(path, searched.min, searched.max, sampling=sampling)
    return hp


def _encode(searched: Searched, value: Any) -> Any:
    """Return a value of a spec as KerasTuner holds it: a choice as JSON text, which may be any."""
    return json.dumps(value) if isinstance(searched, Choice) else value


def _decode(searched: Searched, value: Any) -> Any:
    """Return a value of KerasTuner as it stands in a spec; numbers have six digits."""
    if isinstance(searched, Choice):
        return json.loads(value)
    if isinstance(searched, Boolean):
        return bool(value)
    return int(value) if isinstance(searched, IntRange) else float(f"{value:.6g}")


def _spec_values(spec: Spec) -> dict[str, Any] | None:
    """Return the spec's own values by path, or None if they do not lie in its search space."""
    assert spec.search is not None
    own: dict[str, Any] = {}
    for path, searched in spec.search.space.items():
        value, *others = values_at(spec, path)
        if any(other != value for other in others) or not _contains(searched, value):
            return None
        own[path] = _decode(searched, _encode(searched, value))
    return own


def _contains(searched: Searched, value: Any) -> bool:
    if isinstance(searched, Choice):
        return value in searched.values
    if isinstance(searched, Boolean):
        return isinstance(value, bool)
    if isinstance(searched, IntRange):
        return value in range(searched.min, searched.max + 1, searched.step)
    return isinstance(value, int | float) and searched.min <= value <= searched.max
