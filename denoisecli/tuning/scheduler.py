"""Hand out the trials of a search, keep the table of their results and save both."""

import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from denoisecli.errors import DenoiseError, SpecError, UsageError
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.system.atomic_files import write_text
from denoisecli.training.checkpoint import differences
from denoisecli.tuning.oracle import Oracle
from denoisecli.tuning.trials import NoTrial, Proposal, SearchObserver, Status, TrialResult

STATE = "search.json"

LOST_SECONDS = 60.0
"""Time in s without a message after which a worker is considered dead."""

MAX_ATTEMPTS = 3
"""Number of times that a trial may end its process before it counts as failed."""

INFEASIBLE_RATIO = 10
"""Number of infeasible trials, per trial that is wanted, at which a search ends."""


class State(BaseModel):
    """A search as it is saved.

    Attributes:
        about: Facts about the search, which can be resumed only if they have not changed.
        oracle: State of the oracle.
        results: Table of trials.
        attempts: Number of times that each trial was handed out.
        seconds: Duration of the search so far, in s.
    """

    about: dict[str, Any]
    oracle: dict[str, Any]
    results: list[TrialResult]
    attempts: dict[str, int]
    seconds: float


class Scheduler:
    """Hand out trials to workers and record what comes of them.

    Its methods may be called from several threads. Whatever happens to this process or to a
    worker, a search resumes from the saved state: trials that were running are handed out again.

    Args:
        folder: Folder of the search.
        oracle: Oracle that chooses values.
        observer: Receives the table of trials whenever one starts or ends.
        about: Facts about the search (JSON), saved with the state.
        trials: Number of trials to train; infeasible ones do not count.
        minutes: Time limit of the search, or None.

    Raises:
        DenoiseError: The saved state is damaged or of another version.
    """

    def __init__(
        self,
        folder: Path,
        oracle: Oracle,
        observer: SearchObserver,
        *,
        about: dict[str, Any],
        trials: int,
        minutes: float | None = None,
    ):
        self.oracle, self.observer, self.about = oracle, observer, about
        self.wanted = trials
        self.limit = math.inf if minutes is None else 60 * minutes
        self._path = folder / STATE
        self._lock = threading.RLock()
        self._started, self._earlier = time.monotonic(), 0.0
        self._closing = False
        self._last_seen: dict[str, float] = {}  # worker -> time
        self._running: dict[str, str] = {}  # worker -> trial
        self._attempts: dict[str, int] = {}
        self.table: dict[str, TrialResult] = {}
        if self._path.exists():
            self._load()

    @property
    def results(self) -> list[TrialResult]:
        """All trials, in the order in which they started."""
        return list(self.table.values())

    @property
    def seconds(self) -> float:
        """Duration of the search in s, summed over the processes that ran it."""
        return self._earlier + time.monotonic() - self._started

    @property
    def out_of_time(self) -> bool:
        """Whether the time is up: running trials stop, and no more start."""
        return self.seconds > self.limit

    @property
    def is_over(self) -> bool:
        """Whether the search has ended and no worker is connected any more."""
        return (self._closing or self.out_of_time) and not self._last_seen

    def next_trial(self, worker: str) -> Proposal | NoTrial:
        """Return a trial to train: one that was interrupted, or else a new one.

        Args:
            worker: Unique name of the worker that asks; it must not have a trial at present.
        """
        with self._lock:
            if self.out_of_time:
                self._forget(worker)
                return NoTrial.DONE
            self._last_seen[worker] = time.monotonic()
            trial = self._waiting_trial() or self._new_trial()
            if isinstance(trial, Proposal):
                self._attempts[trial.name] = self._attempts.get(trial.name, 0) + 1
                self._running[worker] = trial.name
                self._record(
                    TrialResult(
                        trial.name,
                        Status.RUNNING,
                        trial.values,
                        is_spec=trial.values == self.oracle.spec_values,
                    )
                )
            elif trial == NoTrial.DONE and self._running:
                return NoTrial.WAIT  # another worker may die and leave its trial
            elif trial == NoTrial.DONE:
                self._closing = True
                self._forget(worker)
            return trial

    def heartbeat(self, worker: str) -> bool:
        """Record that a worker is alive; return whether it may continue its trial."""
        with self._lock:
            if worker in self._last_seen:
                self._last_seen[worker] = time.monotonic()
            return not self.out_of_time

    def report(self, worker: str, result: TrialResult) -> None:
        """Record a finished trial; the first result of a trial that two workers trained counts."""
        with self._lock:
            self._last_seen[worker] = time.monotonic()
            self._running.pop(worker, None)
            before = self.table[result.name]
            if not before.is_finished:
                self.oracle.report(result.name, result.objective)
                self._record(replace(result, is_spec=before.is_spec))

    def release(self, worker: str) -> None:
        """Take back the trial of a worker that leaves before its end; it was no attempt."""
        with self._lock:
            name = self._running.get(worker)
            if name is not None:
                self._attempts[name] -= 1
            self._forget(worker)

    def drop_lost_workers(self) -> None:
        """Take back the trials of workers that were silent for `LOST_SECONDS`."""
        with self._lock:
            now = time.monotonic()
            for worker, seen in list(self._last_seen.items()):
                if now - seen > LOST_SECONDS:
                    self._forget(worker)

    def save(self) -> None:
        """Save the state in one piece."""
        state = State(
            about=self.about,
            oracle=self.oracle.get_state(),
            results=self.results,
            attempts=self._attempts,
            seconds=self.seconds,
        )
        write_text(self._path, state.model_dump_json())

    def _load(self) -> None:
        state = _read_state(self._path)
        try:
            self.oracle.set_state(state.oracle)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(self._path) from error
        for result in state.results:
            status = result.status if result.is_finished else Status.WAITING
            self.table[result.name] = replace(result, status=status)
        self._attempts, self._earlier = state.attempts, state.seconds

    def _waiting_trial(self) -> Proposal | None:
        for result in self.results:
            if result.status == Status.WAITING:
                if self._attempts[result.name] < MAX_ATTEMPTS:
                    return self.oracle.proposal(result.name)
                self.oracle.report(result.name, None)
                reason = f"it ended its process {MAX_ATTEMPTS} times"
                self._record(replace(result, status=Status.FAILED, message=reason))
        return None

    def _new_trial(self) -> Proposal | NoTrial:
        infeasible = sum(result.status == Status.INFEASIBLE for result in self.results)
        if len(self.table) - infeasible >= self.wanted:
            return NoTrial.DONE
        if infeasible >= INFEASIBLE_RATIO * self.wanted:
            return NoTrial.DONE
        return self.oracle.propose()

    def _forget(self, worker: str) -> None:
        self._last_seen.pop(worker, None)
        name = self._running.pop(worker, None)
        if name is not None and self.table[name].status == Status.RUNNING:
            self._record(replace(self.table[name], status=Status.WAITING))

    def _record(self, result: TrialResult) -> None:
        self.table[result.name] = result
        self.save()
        self.observer.on_results(self.results)


def check_same_search(folder: Path, about: dict[str, Any]) -> None:
    """Check that the search in a folder, if there is one, is the one that is asked for.

    Raises:
        UsageError: Another search is saved there.
        DenoiseError: The saved state is damaged or of another version.
    """
    path = folder / STATE
    if not path.exists():
        return
    before = _read_state(path).about
    try:
        # An earlier version may have known fewer keys.
        before["spec"] = comparable_spec(parse_spec(before["spec"]))
    except (KeyError, TypeError, SpecError) as error:
        raise _damaged(path) from error
    changed = differences(before, about)
    if changed:
        raise UsageError(
            f"{path} belongs to another search; these differ: {', '.join(changed)}. "
            "Use --fresh to start over, or --run to choose another folder"
        )


def comparable_spec(spec: Spec) -> dict[str, Any]:
    """Return what must stay the same of a spec from one call of a search to the next."""
    return spec.model_dump(mode="json", exclude={"description"})


def _read_state(path: Path) -> State:
    try:
        return State.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> DenoiseError:
    return DenoiseError(
        f"{path} is damaged or of another version of denoise; use --fresh to start over"
    )
