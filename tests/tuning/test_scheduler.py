import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.tuning import scheduler as module
from denoisecli.tuning.method import Method
from denoisecli.tuning.oracle import Oracle
from denoisecli.tuning.scheduler import (
    LOST_SECONDS,
    MAX_ATTEMPTS,
    STATE,
    Scheduler,
    check_same_search,
    comparable_spec,
)
from denoisecli.tuning.trials import NoTrial, Proposal, Status, TrialResult

Make = Callable[..., Scheduler]

SPEC = parse_spec(
    {
        "name": "test",
        "downsampling": [{"filters": 4}],
        "upsampling": [{"filters": 4}],
        "training": {"seed": 7},
        "search": {"space": {"training.seed": {"kind": "int", "min": 1, "max": 1000}}},
    }
)


class Recorder:
    """An observer that keeps the last table."""

    results: Sequence[TrialResult] = ()

    def on_message(self, text: str) -> None: ...

    def on_progress(self, trial: str, text: str) -> None: ...

    def on_results(self, results: Sequence[TrialResult]) -> None:
        self.results = results


def about(spec: Spec = SPEC, **other: Any) -> dict[str, Any]:
    return {"spec": comparable_spec(spec), "epochs": None, **other}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Schedulers of one folder, each like that of a new process."""

    def make(method: Method = Method.RANDOM, **options: Any) -> Scheduler:
        oracle = Oracle(SPEC, method, trials=3, epochs=9)
        options = {"about": about(), "trials": 3} | options
        return Scheduler(tmp_path, oracle, Recorder(), **options)

    return make


def start(scheduler: Scheduler, worker: str = "me") -> Proposal:
    proposal = scheduler.next_trial(worker)
    assert isinstance(proposal, Proposal)
    return proposal


def finish(
    scheduler: Scheduler, proposal: Proposal, objective: float | None = None, worker: str = "me"
) -> None:
    status = Status.FAILED if objective is None else Status.COMPLETED
    scheduler.report(
        worker, TrialResult(proposal.name, status, proposal.values, objective=objective)
    )


def refuse(scheduler: Scheduler, proposal: Proposal) -> None:
    scheduler.report("me", TrialResult(proposal.name, Status.INFEASIBLE, proposal.values))


def statuses(scheduler: Scheduler) -> list[str]:
    return [str(result.status) for result in scheduler.results]


def test_the_table_says_what_happens(make: Make) -> None:
    scheduler = make()
    observer = scheduler.observer
    assert isinstance(observer, Recorder)
    first = start(scheduler)
    assert observer.results == [TrialResult("0000", Status.RUNNING, first.values, is_spec=True)]
    finish(scheduler, first, 1.5)
    assert observer.results[0].objective == 1.5
    assert observer.results[0].is_spec
    second = start(scheduler)
    assert statuses(scheduler) == ["completed", "running"]
    assert not observer.results[1].is_spec
    scheduler.release("me")
    assert statuses(scheduler) == ["completed", "waiting"]
    assert observer.results == scheduler.results
    assert start(scheduler) == second


def test_infeasible_trials_do_not_count(make: Make) -> None:
    scheduler = make(trials=2)
    for number in range(4):
        proposal = start(scheduler)
        assert proposal.name == f"{number:04}"
        refuse(scheduler, proposal) if number in (0, 2) else finish(scheduler, proposal, 1.0)
    assert not scheduler.is_over
    assert scheduler.next_trial("me") == NoTrial.DONE
    assert scheduler.is_over
    assert statuses(scheduler) == ["infeasible", "completed"] * 2


def test_a_space_where_nothing_is_feasible_ends(make: Make) -> None:
    scheduler = make(trials=2)
    for _ in range(2 * module.INFEASIBLE_RATIO):
        refuse(scheduler, start(scheduler))
    assert scheduler.next_trial("me") == NoTrial.DONE


@pytest.mark.parametrize("method", Method)
def test_a_search_goes_on_after_any_end_of_its_process(method: Method, make: Make) -> None:
    scheduler = make(method)
    finish(scheduler, start(scheduler), 1.5)
    finish(scheduler, start(scheduler))
    seconds = scheduler.seconds
    running = start(scheduler)

    again = make(method)
    assert again.seconds >= seconds
    assert again.results[:2] == scheduler.results[:2]
    assert statuses(again) == ["completed", "failed", "waiting"]
    assert start(again, "somebody") == running
    finish(again, running, 2.0, "somebody")
    assert again.next_trial("somebody") == NoTrial.DONE

    more = make(method, trials=4)
    proposal = start(more)
    assert proposal.name == "0003"
    if method != Method.HYPERBAND:
        assert proposal.values not in [result.values for result in again.results]


def test_state_on_disk(make: Make, tmp_path: Path) -> None:
    proposal = start(make())
    state = json.loads((tmp_path / STATE).read_text())
    assert state["about"] == about()
    assert state["results"][0]["values"] == proposal.values
    assert [path.name for path in tmp_path.glob(".*")] == []
    del state["oracle"]["trials"]
    for damaged in ("{", "[]", '{"trials": []}', json.dumps(state)):
        (tmp_path / STATE).write_text(damaged)
        with pytest.raises(DenoiseError, match=r"search.json is damaged or of another version"):
            make()


def test_another_search_is_refused(make: Make, tmp_path: Path) -> None:
    check_same_search(tmp_path, about())  # there is none yet
    make().save()
    described = SPEC.model_copy(update={"description": "another one"})
    check_same_search(tmp_path, about(described))
    other = SPEC.model_copy(update={"causal": not SPEC.causal})
    with pytest.raises(UsageError, match=r"these differ: epochs, spec.causal. Use --fresh"):
        check_same_search(tmp_path, about(other, epochs=3))


def test_a_search_of_a_version_with_fewer_keys_goes_on(make: Make, tmp_path: Path) -> None:
    document = about()
    del document["spec"]["causal"]
    make(about=document).save()
    check_same_search(tmp_path, about())
    document["spec"]["no such key"] = 1
    make(about=document).save()
    with pytest.raises(DenoiseError, match="of another version"):
        check_same_search(tmp_path, about())


def silence(scheduler: Scheduler, worker: str, seconds: float) -> None:
    scheduler._last_seen[worker] -= seconds


def test_the_trial_of_a_lost_worker_is_handed_out_again(make: Make) -> None:
    scheduler = make(trials=2)
    lost, other = start(scheduler, "lost"), start(scheduler, "other")
    finish(scheduler, other, 1.0, "other")
    assert scheduler.next_trial("other") == NoTrial.WAIT  # there may be something to do yet
    scheduler.drop_lost_workers()
    assert scheduler.next_trial("other") == NoTrial.WAIT
    assert not scheduler.is_over

    silence(scheduler, "lost", LOST_SECONDS)
    assert scheduler.heartbeat("lost")  # it was only slow
    scheduler.drop_lost_workers()
    assert scheduler.next_trial("other") == NoTrial.WAIT

    silence(scheduler, "lost", LOST_SECONDS + 1)
    scheduler.drop_lost_workers()
    assert statuses(scheduler) == ["waiting", "completed"]
    again = start(scheduler, "other")
    assert again == lost
    finish(scheduler, again, 2.0, "other")
    assert scheduler.next_trial("other") == NoTrial.DONE
    assert scheduler.is_over


def test_of_two_results_of_a_trial_the_first_counts(make: Make) -> None:
    scheduler = make(trials=2)
    slow = start(scheduler, "slow")
    silence(scheduler, "slow", LOST_SECONDS + 1)
    scheduler.drop_lost_workers()
    finish(scheduler, slow, 1.0, "slow")
    assert start(scheduler, "other").name == "0001"

    silence(scheduler, "other", LOST_SECONDS + 1)
    scheduler.drop_lost_workers()
    again = start(scheduler, "slow")
    assert again.name == "0001"
    finish(scheduler, again, 3.0, "slow")
    finish(scheduler, again, 4.0, "other")
    assert [result.objective for result in scheduler.results] == [1.0, 3.0]


def test_what_kills_its_processes_is_given_up(make: Make) -> None:
    for attempt in range(MAX_ATTEMPTS):
        assert start(make(), f"worker {attempt}").name == "0000"
    scheduler = make()
    assert start(scheduler).name == "0001"
    assert statuses(scheduler) == ["failed", "running"]
    assert scheduler.results[0].message == "it ended its process 3 times"


def test_who_releases_a_trial_has_not_tried_it(make: Make) -> None:
    for _ in range(MAX_ATTEMPTS + 1):
        scheduler = make()
        assert start(scheduler).name == "0000"
        scheduler.release("me")
    assert statuses(scheduler) == ["waiting"]


def test_time_is_up(make: Make) -> None:
    scheduler = make()
    proposal = start(scheduler)
    assert scheduler.heartbeat("me")
    scheduler.limit = 0.0
    assert not scheduler.heartbeat("me")
    assert statuses(scheduler) == ["running"]
    assert not scheduler.is_over
    scheduler.release("me")
    assert scheduler.next_trial("me") == NoTrial.DONE
    assert scheduler.is_over
    assert statuses(scheduler) == ["waiting"]  # for the next call
    assert make(minutes=1e-9).next_trial("me") == NoTrial.DONE
    assert start(make()) == proposal
