"""Many files, cleaned one after the other, in several processes, or on a cluster."""

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.engines import cpu_cores
from denoisecli.cleaning.file import CleanResult, FileOptions
from denoisecli.cleaning.targets import Job
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.system.pools import WorkerDied, process_pool, result_of

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with a result, or with the error that stopped it, or it was skipped."""

    job: Job
    status: Literal["done", "skipped", "failed"]
    result: CleanResult | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Started:
    """A job is in work."""

    job: Job


@dataclass(frozen=True)
class Advanced:
    """So much of a recording is clean; ``total`` is 0 where its length is not known."""

    job: Job
    seconds: float
    total: float


Event = Started | Advanced | Outcome
"""What happens to a job, in this order; there may be many of the second kind, or none."""


def run(
    jobs: Sequence[Job],
    *,
    settings: Mapping[str, Any] | None = None,
    options: FileOptions | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    tell: Callable[[Event], None] | None = None,
) -> list[Outcome]:
    """Clean many files; one that fails does not stop the others.

    Every process loads the model once. When interrupted (KeyboardInterrupt), what is done stays,
    what is in work is given up without a trace, and the exception is raised on: the outcomes so
    far have been told.

    Args:
        jobs: from :func:`denoisecli.cleaning.targets.plan`.
        settings: arguments of :class:`denoisecli.Denoiser`.
        options: how files are read and written.
        workers: number of processes; 1 works in this one.
        executor: runs the jobs instead, such as that of ``system.pools.cluster``. It
            tells no :class:`Advanced`, and the paths must be good where it runs.
        overwrite: replace existing targets.
        skip_existing: leave out jobs whose targets all exist.
        tell: called with every :data:`Event`, in this thread.

    Returns:
        An outcome per job, in their order.

    Raises:
        UsageError: ``workers`` is below 1.
    """
    if workers < 1:
        raise UsageError(f"jobs must be at least 1, not {workers}")
    tell = tell or (lambda event: None)
    outcomes: dict[Job, Outcome] = {}
    for job in jobs:
        if skip_existing and all(
            path.exists() for path in (job.target, job.noise_target) if path is not None
        ):
            outcomes[job] = Outcome(job, "skipped")
            tell(outcomes[job])
    left = [job for job in jobs if job not in outcomes]
    settings = dict(settings or {})
    task = partial(_clean, options=options or FileOptions(), overwrite=overwrite)
    if executor is not None:
        ended = _run_elsewhere(left, partial(task, settings=settings), executor, tell)
    elif workers == 1 or len(left) < 2:
        ended = _run_here(left, partial(task, settings=settings), tell)
    else:
        workers = min(workers, len(left))
        if settings.get("threads") is None:
            settings["threads"] = max(1, cpu_cores() // workers)
        ended = _run_in_processes(left, partial(task, settings=settings), workers, tell)
    for outcome in ended:
        outcomes[outcome.job] = outcome
        tell(outcome)
    return [outcomes[job] for job in jobs]


_load = lru_cache(maxsize=1)(Denoiser)  # one model per process


def _clean(
    job: Job,
    *,
    settings: Mapping[str, Any],
    options: FileOptions,
    overwrite: bool,
    progress: Callable[[float, float], None] | None = None,
) -> CleanResult:
    return _load(**settings).clean_file(
        job.source,
        job.target,
        options,
        noise_target=job.noise_target,
        overwrite=overwrite,
        progress=progress,
    )


_Task = Callable[..., CleanResult]
_Tell = Callable[[Event], None]


def _run_here(jobs: Sequence[Job], task: _Task, tell: _Tell) -> Iterator[Outcome]:
    for job in jobs:
        tell(Started(job))
        try:
            result = task(job, progress=lambda *seconds, job=job: tell(Advanced(job, *seconds)))
        except Exception as error:
            yield Outcome(job, "failed", error=error)
        else:
            yield Outcome(job, "done", result)


def _run_elsewhere(
    jobs: Sequence[Job], task: _Task, executor: Executor, tell: _Tell
) -> Iterator[Outcome]:
    futures = {executor.submit(task, job): job for job in jobs}
    for job in jobs:
        tell(Started(job))
    try:
        yield from _outcomes(futures, lambda: None)
    finally:
        for future in futures:
            future.cancel()


def _run_in_processes(
    jobs: Sequence[Job], task: _Task, workers: int, tell: _Tell
) -> Iterator[Outcome]:
    events = multiprocessing.get_context("spawn").Queue()
    started: set[Job] = set()
    ended: set[Job] = set()

    def pass_on() -> None:
        with suppress(queue.Empty):
            while True:
                event = events.get_nowait()
                started.add(event.job)
                if event.job not in ended:  # its outcome takes another way, and may overtake it
                    tell(event)

    while jobs:
        again = []
        with process_pool(workers, _begin_worker, (events,)) as pool:
            futures = {pool.submit(_work, task, job): job for job in jobs}
            for outcome in _outcomes(futures, pass_on):
                if isinstance(outcome.error, WorkerDied) and outcome.job not in started:
                    again.append(outcome)  # another one's process took the pool with it
                else:
                    ended.add(outcome.job)
                    yield outcome
        if len(again) == len(jobs):
            yield from again
            return
        jobs = [outcome.job for outcome in again]


def _outcomes(
    futures: "dict[Future[CleanResult], Job]", between: Callable[[], None]
) -> Iterator[Outcome]:
    waiting = set(futures)
    while waiting:
        ready, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED")
        between()
        for future in ready:
            yield _outcome(futures[future], future)


def _outcome(job: Job, future: "Future[CleanResult]") -> Outcome:
    try:
        return Outcome(job, "done", result_of(future))
    except CancelledError:
        error: Exception = DenoiseError("it was cancelled")
    except Exception as raised:
        error = raised
    return Outcome(job, "failed", error=error)


class _Worker:
    """What a worker process shares with its parent."""

    events: Any


def _begin_worker(events: Any) -> None:
    _Worker.events = events
    events.cancel_join_thread()  # nobody may be left to read them


def _work(task: _Task, job: Job) -> CleanResult:
    def progress(seconds: float, total: float) -> None:
        _Worker.events.put(Advanced(job, seconds, total))

    _Worker.events.put(Started(job))
    return task(job, progress=progress)
