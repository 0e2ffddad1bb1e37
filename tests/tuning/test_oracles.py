import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
import pytest
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial

from denoisecli.errors import DenoiseError
from denoisecli.tuning import oracles
from denoisecli.tuning.oracles import (
    INFEASIBLE,
    MAX_ATTEMPTS,
    STATE,
    TRIALS,
    SearchOracle,
    has_figure,
    is_infeasible,
    make_oracle,
    no_figure,
)

Make = Callable[..., SearchOracle]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Oracles of the same folder, each like one of a new process."""

    def make(method: str = "random", **other: Any) -> SearchOracle:
        space = keras_tuner.HyperParameters()
        space.Int("units", 1, 1000)
        space.Float("rate", 0.001, 0.1, sampling="log")
        options: dict[str, Any] = {"trials": 3, "minutes": None, "epochs": 9, "first": None}
        options |= {"changed": lambda: None, "about": {"spec": "mine"}, "seed": 0}
        oracle = make_oracle(
            method,
            keras_tuner.Objective("val", "max"),
            space,
            folder=tmp_path,
            **options | other,
        )
        oracle.begin()
        BaseTuner(oracle, directory=str(tmp_path), project_name=TRIALS)  # gives it its folder
        return oracle

    return make


def finish(oracle: SearchOracle, trial: Trial, **figures: float) -> None:
    """What a tuner reports of a trial; no figure is the worst one."""
    oracle.update_trial(trial.trial_id, no_figure(oracle.objective) | figures)
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def refuse(oracle: SearchOracle, trial: Trial) -> None:
    finish(oracle, trial, **{INFEASIBLE: 1.0})


def test_infeasible_trials_do_not_count(make: Make) -> None:
    oracle = make(trials=2)
    for number in range(4):
        trial = oracle.create_trial("me")
        assert (trial.trial_id, trial.status) == (f"{number:04}", "RUNNING")
        refuse(oracle, trial) if number in (0, 2) else finish(oracle, trial, val=1.0)
    assert oracle.create_trial("me").status == "STOPPED"
    assert oracle.is_over
    assert [is_infeasible(trial) for trial in oracle.trials.values()] == [True, False, True, False]


def test_a_space_where_nothing_is_feasible_ends(make: Make) -> None:
    oracle = make(trials=2)
    for _ in range(2 * oracles.INFEASIBLE_SHARE):
        refuse(oracle, oracle.create_trial("me"))
    assert oracle.create_trial("me").status == "STOPPED"


def test_a_search_goes_on_after_any_end_of_its_process(make: Make) -> None:
    oracle = make()
    finish(oracle, oracle.create_trial("me"), val=1.5)
    finish(oracle, oracle.create_trial("me"))
    seconds = oracle.seconds
    running = oracle.create_trial("me")

    again = make()
    assert again.seconds >= seconds
    assert [trial.score for trial in again.trials.values()] == [1.5, -math.inf, None]
    assert [has_figure(trial, again.objective) for trial in again.trials.values()][:2] == [
        *(True, False)
    ]
    handed_out = again.create_trial("somebody")
    assert handed_out.trial_id == running.trial_id
    assert handed_out.hyperparameters.values == running.hyperparameters.values
    finish(again, handed_out, val=2.0)
    assert again.create_trial("somebody").status == "STOPPED"

    more = make(trials=4)
    trial = more.create_trial("me")
    assert trial.trial_id == "0003"
    assert trial.hyperparameters.values not in [
        other.hyperparameters.values for other in again.trials.values()
    ]


def test_state_on_disk(make: Make, tmp_path: Path) -> None:
    oracle = make()
    trial = oracle.create_trial("me")
    state = json.loads((tmp_path / STATE).read_text())
    assert state["about"] == {"spec": "mine"}
    assert state["trials"][0]["hyperparameters"]["values"] == trial.hyperparameters.values
    assert [path.name for path in tmp_path.glob(".*")] == []
    for damaged in ("{", "[]", '{"trials": []}', '{"trials": [{}]}'):
        (tmp_path / STATE).write_text(damaged)
        with pytest.raises(DenoiseError, match=r"search.json is damaged; --fresh starts over"):
            make()


def test_the_trial_of_a_lost_worker_is_handed_out_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = make(trials=2)
    lost, other = oracle.create_trial("lost"), oracle.create_trial("other")
    finish(oracle, other, val=1.0)
    assert oracle.create_trial("other").status == "IDLE"  # there may be something to do yet
    oracle.drop_lost_workers()
    assert oracle.create_trial("other").status == "IDLE"
    assert not oracle.is_over

    oracle.seen["lost"] -= oracles.LOST_SECONDS
    assert oracle.get_trial(lost.trial_id).status == "RUNNING"  # it was only slow
    oracle.drop_lost_workers()
    assert "lost" in oracle.tuner_ids

    oracle.seen["lost"] -= oracles.LOST_SECONDS + 1
    oracle.drop_lost_workers()
    assert oracle.tuner_ids == {"other"}
    again = oracle.create_trial("other")
    assert again.trial_id == lost.trial_id
    assert again.hyperparameters.values == lost.hyperparameters.values
    finish(oracle, again, val=2.0)
    assert oracle.create_trial("other").status == "STOPPED"
    assert oracle.is_over


def test_of_two_results_of_a_trial_the_first_counts(make: Make) -> None:
    oracle = make(trials=1)
    slow = Trial.from_state(oracle.create_trial("slow").get_state())
    oracle.seen["slow"] -= oracles.LOST_SECONDS + 1
    oracle.drop_lost_workers()
    finish(oracle, slow, val=1.0)
    assert oracle.create_trial("other").status == "STOPPED"
    assert oracle.trials["0000"].score == 1.0

    oracle = make(trials=2)
    slow = Trial.from_state(oracle.create_trial("slow").get_state())
    oracle.seen["slow"] -= oracles.LOST_SECONDS + 1
    oracle.drop_lost_workers()
    finish(oracle, oracle.create_trial("other"), val=3.0)
    slow.status = "COMPLETED"
    oracle.end_trial(slow)
    assert oracle.end_order == ["0000", "0001"]


def test_what_kills_its_processes_is_given_up(make: Make) -> None:
    for attempt in range(MAX_ATTEMPTS):
        trial = make().create_trial(f"worker {attempt}")
        assert trial.trial_id == "0000"
    oracle = make()
    assert oracle.create_trial("me").trial_id == "0001"
    given_up = oracle.trials["0000"]
    assert given_up.status == "COMPLETED"
    assert not has_figure(given_up, oracle.objective)
    assert given_up.message == "its process ended 3 times before it did"


def test_who_gives_a_trial_back_has_not_tried_it(make: Make) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        oracle = make()
        assert oracle.create_trial("me").trial_id == "0000"
        oracle.give_back("me")
    assert oracle.attempts == {"0000": 0}
    assert oracle.abandoned == ["0000"]


def test_time_is_up(make: Make) -> None:
    oracle = make()
    trial = oracle.create_trial("me")
    assert oracle.get_trial(trial.trial_id).status == "RUNNING"
    oracle.limit = 0.0
    assert oracle.get_trial(trial.trial_id).status == "STOPPED"
    assert trial.status == "RUNNING"  # for the next call
    assert not oracle.is_over
    assert oracle.create_trial("me").status == "STOPPED"
    assert oracle.is_over
    oracle = make(minutes=1e-9)
    assert oracle.create_trial("me").status == "STOPPED"
    assert make().create_trial("me").trial_id == trial.trial_id


def test_reasons_are_read_from_the_folder_of_the_trial(make: Make, tmp_path: Path) -> None:
    oracle = make()
    trial = oracle.create_trial("me")
    reason = tmp_path / TRIALS / f"trial_{trial.trial_id}" / oracles.REASON
    reason.write_text("Traceback:\n  some line\nValueError: no such shape\n")
    finish(oracle, trial)
    assert make().trials[trial.trial_id].message == "ValueError: no such shape"


@pytest.mark.parametrize("method", ["random", "bayesian"])
def test_the_spec_as_it_is_comes_first(method: str, make: Make) -> None:
    first = {"units": 7, "rate": 0.002}
    oracle = make(method, first=first)
    assert oracle.create_trial("me").hyperparameters.values == first
    assert oracle.create_trial("you").hyperparameters.values != first


def test_hyperband_does_not_wait_for_trials_without_figures(make: Make) -> None:
    oracle = make("hyperband", trials=30, epochs=9)
    epochs = []
    while (trial := oracle.create_trial("me")).status == "RUNNING":
        values = trial.hyperparameters.values
        epochs.append(values["tuner/epochs"])
        number = int(trial.trial_id)
        if values["tuner/round"] == 0 and number % 3 == 1:
            refuse(oracle, trial)
        elif values["tuner/round"] == 0 and number % 3 == 2:
            finish(oracle, trial)
        else:
            finish(oracle, trial, val=values["units"])
    assert epochs[:13] == [1] * 9 + [3] * 3 + [9]
    promoted = [trial.hyperparameters.values for trial in oracle.trials.values()][9:13]
    first = {f"{n:04}": oracle.trials[f"{n:04}"] for n in range(9)}
    best = sorted((t for n, t in first.items() if int(n) % 3 == 0), key=lambda t: -t.score)
    assert [values["tuner/trial_id"] for values in promoted[:3]] == [t.trial_id for t in best]
    assert sum(not is_infeasible(trial) for trial in oracle.trials.values()) == 30

    again = make("hyperband", trials=33, epochs=9)
    assert again.create_trial("me").trial_id == f"{len(oracle.trials):04}"


def test_a_gaussian_process_takes_no_figure_for_the_worst_one(make: Make) -> None:
    oracle = make("bayesian", trials=6)
    scores = [3.0, None, 1.0, None, 2.0]  # the first four are drawn at random
    for score in scores:
        figures = {} if score is None else {"val": score}
        finish(oracle, oracle.create_trial("me"), **figures)
    assert oracle.create_trial("me").status == "RUNNING"
    assert [t.score for t in oracle.trials.values()] == [3.0, 1.0, 1.0, 1.0, 2.0, None]
    known = [has_figure(trial, oracle.objective) for trial in oracle.trials.values()]
    assert known == [True, False, True, False, True, False]


def test_bayesian_optimization_tries_nothing_twice(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = make("bayesian", trials=8, first={"units": 7, "rate": 0.002})
    for _ in range(4):
        finish(oracle, oracle.create_trial("me"), val=1.0)
    monkeypatch.setattr(
        oracle, "_vector_to_values", lambda vector: {"units": 7, "rate": 0.002}, raising=True
    )
    for _ in range(2):
        finish(oracle, oracle.create_trial("me"), val=1.0)
    tried = [json.dumps(trial.hyperparameters.values) for trial in oracle.trials.values()]
    assert len(set(tried)) == len(tried) == 6
    assert oracle.num_initial_points == 4
