"""Many recordings, cleaned one after the other, in several processes, or on a cluster."""

import multiprocessing
import queue
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, wait
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path

from denoisecli.cleaning.denoiser import DenoiserOptions
from denoisecli.cleaning.file import CleanResult, FileOptions, OnProgress
from denoisecli.cleaning.targets import Job, Status
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.system.atomic_files import refuse_existing
from denoisecli.system.pools import WorkerDied, cpu_cores, process_pool, result_of

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job: DONE with a result, FAILED with an error, or SKIPPED."""

    job: Job
    status: Status
    result: CleanResult | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Started:
    """A job was started."""

    job: Job


@dataclass(frozen=True)
class Advanced:
    """Seconds of a recording cleaned so far, and their total (0 if it is unknown)."""

    job: Job
    seconds: float
    total: float


Event = Started | Advanced | Outcome
"""Events of a job, in this order; there may be any number of the second kind."""

OnEvent = Callable[[Event], None]


def run(
    jobs: Sequence[Job],
    *,
    denoiser: DenoiserOptions | None = None,
    files: FileOptions | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    on_event: OnEvent | None = None,
) -> list[Outcome]:
    """Clean many recordings; one that fails does not stop the others.

    Every process loads the model once. After Ctrl-C the cleaned files stay, nothing remains of
    those that were being cleaned, and KeyboardInterrupt is raised.

    Args:
        jobs: Jobs from :func:`denoisecli.cleaning.targets.plan`.
        denoiser: Arguments of :class:`denoisecli.Denoiser`.
        files: Options for reading and writing.
        workers: Number of processes; 1 works in this one.
        executor: Executor that runs the jobs instead, such as that of ``system.pools.cluster``. It
            reports no progress, and the paths must be valid where it runs.
        overwrite: Replace existing targets.
        skip_existing: Skip jobs whose targets all exist.
        on_event: Called with every event, in this thread.

    Returns:
        An outcome for each job, in the order of the jobs.

    Raises:
        UsageError: ``workers`` is below 1.
    """
    if workers < 1:
        raise UsageError(f"the number of jobs must be at least 1, not {workers}")
    on_event = on_event or (lambda event: None)
    denoiser = denoiser or DenoiserOptions()
    outcomes: dict[Job, Outcome] = {}
    for job in jobs:
        status = job.status(overwrite=overwrite, skip_existing=skip_existing)
        if status != Status.PLANNED:
            error = _existing_error(job) if status == Status.FAILED else None
            outcomes[job] = Outcome(job, status, error=error)
            on_event(outcomes[job])
    planned = [job for job in jobs if job not in outcomes]
    workers = min(workers, len(planned))
    if workers > 1 and executor is None and denoiser.threads is None:
        denoiser = replace(denoiser, threads=max(1, cpu_cores() // workers))
    if executor is not None and Path(denoiser.model).is_dir():
        denoiser = replace(denoiser, model=Path(denoiser.model).absolute())
    task = partial(_clean, denoiser, files or FileOptions(), overwrite)
    if executor is not None:
        results = _run_in_executor(planned, task, executor, on_event)
    elif workers > 1:
        results = _run_in_processes(planned, task, workers, on_event)
    else:
        results = _run_here(planned, task, on_event)
    with closing(results):  # ends the work if the callback fails
        for outcome in results:
            outcomes[outcome.job] = outcome
            on_event(outcome)
    return [outcomes[job] for job in jobs]


def _existing_error(job: Job) -> UsageError | None:
    try:
        for path in job.existing:
            refuse_existing(path, overwrite=False)
    except UsageError as error:
        return error
    return None


def _clean(
    denoiser: DenoiserOptions,
    files: FileOptions,
    overwrite: bool,
    job: Job,
    on_progress: OnProgress | None = None,
) -> CleanResult:
    return denoiser.load_once().clean_file(
        job.source,
        job.target,
        files,
        noise_target=job.noise_target,
        overwrite=overwrite,
        on_progress=on_progress,
    )


_Task = Callable[..., CleanResult]
"""Cleans a job, with ``on_progress`` or without."""


def _run_here(jobs: Sequence[Job], task: _Task, on_event: OnEvent) -> Generator[Outcome]:
    for job in jobs:
        on_event(Started(job))

        def on_progress(seconds: float, total: float, job: Job = job) -> None:
            on_event(Advanced(job, seconds, total))

        try:
            result = task(job, on_progress=on_progress)
        except Exception as error:
            yield Outcome(job, Status.FAILED, error=error)
        else:
            yield Outcome(job, Status.DONE, result)


def _run_in_executor(
    jobs: Sequence[Job], task: _Task, executor: Executor, on_event: OnEvent
) -> Generator[Outcome]:
    # Other machines have another working directory.
    futures = {executor.submit(task, _absolute(job)): job for job in jobs}
    try:
        for job in jobs:
            on_event(Started(job))
        yield from _outcomes(futures)
    finally:
        for future in futures:
            future.cancel()


def _absolute(job: Job) -> Job:
    noise_target = job.noise_target and job.noise_target.absolute()
    return Job(job.source.absolute(), job.target.absolute(), noise_target)


def _run_in_processes(
    jobs: Sequence[Job], task: _Task, workers: int, on_event: OnEvent
) -> Generator[Outcome]:
    events: Queue[Started | Advanced] = multiprocessing.get_context("spawn").Queue()
    started: set[Job] = set()
    ended: set[Job] = set()

    def forward_events() -> None:
        with suppress(queue.Empty):
            while True:
                event = events.get_nowait()
                started.add(event.job)
                if event.job not in ended:  # results take another way, and may overtake events
                    on_event(event)

    while jobs:
        again = []
        with process_pool(workers, _Worker.start, (events,)) as pool:
            futures = {pool.submit(_work, task, job): job for job in jobs}
            for outcome in _outcomes(futures, forward_events):
                if isinstance(outcome.error, WorkerDied) and outcome.job not in started:
                    again.append(outcome)  # the process of another job broke the pool
                else:
                    ended.add(outcome.job)
                    yield outcome
        if len(again) == len(jobs):
            yield from again
            return
        jobs = [outcome.job for outcome in again]


def _outcomes(
    futures: "dict[Future[CleanResult], Job]", between: Callable[[], None] = lambda: None
) -> Iterator[Outcome]:
    """Yield outcomes as the jobs end, and call a function from time to time."""
    waiting = set(futures)
    while waiting:
        ready, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED")
        between()
        for future in ready:
            job = futures[future]
            try:
                yield Outcome(job, Status.DONE, result_of(future))
            except CancelledError:
                error = DenoiseError("the job was cancelled")
                yield Outcome(job, Status.FAILED, error=error)
            except Exception as error:
                yield Outcome(job, Status.FAILED, error=error)


class _Worker:
    """State of a worker process: where its events are sent."""

    events: "Queue[Started | Advanced]"

    @classmethod
    def start(cls, events: "Queue[Started | Advanced]") -> None:
        """Initialize the process."""
        cls.events = events
        events.cancel_join_thread()  # the parent may be gone


def _work(task: _Task, job: Job) -> CleanResult:
    def on_progress(seconds: float, total: float) -> None:
        _Worker.events.put(Advanced(job, seconds, total))

    _Worker.events.put(Started(job))
    return task(job, on_progress=on_progress)
