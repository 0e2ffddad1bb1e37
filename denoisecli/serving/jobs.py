"""The queue: recordings that wait, are cleaned in worker processes, and are kept for a while."""

import asyncio
import multiprocessing
import re
import secrets
import shutil
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from denoisecli.errors import DenoiseError
from denoisecli.serving import preview, work
from denoisecli.serving.answers import Refused, as_refused
from denoisecli.serving.uploads import Upload
from denoisecli.serving.work import State, Task
from denoisecli.system.pools import WorkerDied, process_pool, result_of

RETRY_SECONDS = 5
"""Time in s after which a client should try again if too many recordings wait."""

_MIN_FREE_BYTES = 2**29
_BYTES_PER_BYTE = 4  # of an upload: itself, the clean sound in floating point, what is downloaded
_OPTION = re.compile(r"; [^;]*--[a-z][^;]*")


class Stage(StrEnum):
    """Stage of a job."""

    WAITING = "waiting"
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"


@dataclass(eq=False)
class Job:
    """A recording on its way through the server.

    Attributes:
        id: Unguessable name, which is all that gives access to the job.
        folder: Folder of all its files.
        upload: The recording.
        model: Name of the model.
        function: Function that the worker calls with the task.
        task: The task.
        stage: Its stage.
        state: Shared with the worker, while it is worked on.
        result: Facts that the worker returned.
        error: Why it failed.
        touched: When a client last asked for it, by the monotonic clock in s.
        ended: Set when it is done or failed.
        removed: It was removed.
        files: Files to download, by unguessable names.
    """

    id: str
    folder: Path
    upload: Upload
    model: str
    function: Callable[[Task], dict[str, Any]]
    task: Task
    stage: Stage = Stage.WAITING
    state: State | None = None
    result: dict[str, Any] = field(default_factory=dict)
    error: Refused | None = None
    touched: float = field(default_factory=time.monotonic)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    removed: bool = False
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def progress(self) -> float:
        """Share of the work that is done, 0..1."""
        if self.stage is Stage.WORKING and self.state is not None:
            return self.state[work.PROGRESS]
        return float(self.stage is Stage.DONE)

    def check_present(self) -> None:
        """Raise Refused if the job was removed."""
        if self.removed:
            raise Refused(404, f"{self.upload.name} was removed")

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Run a block that uses the files; raise Refused if the job was removed meanwhile."""
        try:
            yield
        except Exception:
            if not self.removed:
                raise
        if self.removed:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.check_present()

    def plain(self, message: str) -> str:
        """Return a message with the name of the upload for its path, without other paths."""
        for path in (self.upload.path, self.task.target, self.folder):
            message = message.replace(str(path), self.upload.name)
        return _OPTION.sub("", message)


@contextmanager
def worker_process() -> Iterator[tuple[Executor, State]]:
    """Start a process that works on one job at a time; yield it and the state that it shares."""
    state: State = multiprocessing.get_context("spawn").RawArray("d", 2)
    with process_pool(1, work.start, (state,)) as pool:
        yield pool, state


StartWorker = Callable[[], AbstractContextManager[tuple[Executor, State]]]


class Jobs:
    """All jobs of a server.

    Args:
        root: Folder for their files; the caller removes it.
        start_worker: Starts a worker.
        count: Number of workers.
        max_waiting: Largest number of recordings that wait or are being sent.
        keep_seconds: Time in s after which a job that no client asks for is removed.
        on_error: Called with the traceback of an error that should not happen.
    """

    def __init__(
        self,
        root: Path,
        *,
        start_worker: StartWorker = worker_process,
        count: int = 1,
        max_waiting: int = 100,
        keep_seconds: float = 3600.0,
        on_error: Callable[[str], None] = print,
    ) -> None:
        self._root = root
        self._start_worker = start_worker
        self._count = count
        self._max_waiting = max_waiting
        self._keep_seconds = keep_seconds
        self._on_error = on_error
        self._jobs: dict[str, Job] = {}
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self._arriving = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work on the jobs; when the block ends, what is being worked on is given up."""
        tasks = [asyncio.create_task(self._run_worker()) for _ in range(self._count)]
        tasks.append(asyncio.create_task(self._remove_old()))
        try:
            yield
        finally:
            for job in self._jobs.values():
                job.removed = True  # which ends its rendering as well
                if job.state is not None:
                    job.state[work.CANCELLED] = 1.0
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for job in list(self._jobs.values()):
                shutil.rmtree(job.folder, ignore_errors=True)
            self._jobs.clear()

    @asynccontextmanager
    async def new_folder(self, expected_bytes: int) -> AsyncIterator[Path]:
        """Provide an empty folder for an upload, which is removed if the block fails.

        Args:
            expected_bytes: Size of the upload as the client announced it.

        Raises:
            Refused: Too many recordings wait, or the disk is too full.
        """
        waiting = sum(job.stage is Stage.WAITING for job in self._jobs.values())
        if waiting + self._arriving >= self._max_waiting:
            raise Refused(
                503,
                f"{waiting + self._arriving} recordings are already waiting; "
                f"try again in {RETRY_SECONDS} s",
                {"Retry-After": str(RETRY_SECONDS)},
            )
        if shutil.disk_usage(self._root).free < _MIN_FREE_BYTES + _BYTES_PER_BYTE * expected_bytes:
            raise Refused(507, "the disk of the server is too full for this recording")
        folder = self._root / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        self._arriving += 1
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self._arriving -= 1

    def add(
        self, upload: Upload, model: str, function: Callable[[Task], dict[str, Any]], task: Task
    ) -> Job:
        """Put an upload that has arrived in its folder into the queue."""
        folder = upload.path.parent
        job = Job(folder.name, folder, upload, model, function, task)
        self._jobs[job.id] = job
        self._queue.put_nowait(job)
        return job

    def add_again(self, job: Job, model: str, task: Task) -> None:
        """Put a job that has ended into the queue again, with another model."""
        del self._jobs[job.id]
        self._jobs[job.id] = job  # after all others
        job.model, job.task = model, task
        job.stage, job.result, job.error = Stage.WAITING, {}, None
        job.ended.clear()
        self._queue.put_nowait(job)

    def get(self, name: str) -> Job:
        """Return a job; raise Refused if there is none."""
        job = self._jobs.get(name)
        if job is None:
            minutes = self._keep_seconds / 60
            raise Refused(
                404, f"there is no such recording; recordings are removed after {minutes:g} min"
            )
        job.touched = time.monotonic()
        return job

    def position(self, job: Job) -> int:
        """Return how many jobs are before a waiting one in the queue."""
        position = 0
        for other in self._jobs.values():
            if other is job:
                break
            position += other.stage is Stage.WAITING
        return position

    def remove(self, job: Job) -> None:
        """Remove a job and its files; one that is worked on is given up first."""
        self._jobs.pop(job.id, None)
        job.removed = True
        if job.state is not None:
            job.state[work.CANCELLED] = 1.0  # the worker stops, then its files are removed
        else:
            shutil.rmtree(job.folder, ignore_errors=True)

    async def _run_worker(self) -> None:
        job: Job | None = None
        while True:
            try:
                with self._start_worker() as (executor, state):
                    with suppress(WorkerDied):
                        executor.submit(preview.warm_up)
                    while True:
                        job = job or await self._queue.get()
                        if job.removed:
                            job = None
                            continue
                        state[work.PROGRESS] = state[work.CANCELLED] = 0.0
                        try:
                            future = executor.submit(job.function, job.task)
                        except WorkerDied:
                            break  # between two jobs: a new one takes this job
                        survived = await self._finish(job, future, state)
                        job = None
                        if not survived:
                            break
            except (OSError, RuntimeError) as error:  # no process or thread can be started now
                self._on_error("".join(traceback.format_exception(error)))
                await asyncio.sleep(RETRY_SECONDS)

    async def _finish(self, job: Job, future: "Future[dict[str, Any]]", state: State) -> bool:
        """Wait for the end of a job; return whether the worker survived it."""
        job.stage, job.state = Stage.WORKING, state
        survived = True
        try:
            job.result = await _result(future)
            job.stage = Stage.DONE
        except Exception as error:
            survived = not isinstance(error, WorkerDied)
            job.stage, job.error = Stage.FAILED, self._explain(job, error)
        finally:
            job.state = None
            job.touched = time.monotonic()
            job.ended.set()
            if job.removed:
                shutil.rmtree(job.folder, ignore_errors=True)
        return survived

    def _explain(self, job: Job, error: Exception) -> Refused:
        if isinstance(error, WorkerDied):
            return Refused(500, "cleaning this recording crashed; it may be damaged")
        if isinstance(error, DenoiseError | OSError | MemoryError):
            return as_refused(error, job.plain(str(error) or type(error).__name__))
        self._on_error("".join(traceback.format_exception(error)))
        return Refused(500, f"{job.upload.name} could not be cleaned, for an unknown reason")

    async def _remove_old(self) -> None:
        while True:
            await asyncio.sleep(min(30.0, self._keep_seconds / 4))
            oldest = time.monotonic() - self._keep_seconds
            for job in list(self._jobs.values()):
                if job.ended.is_set() and job.touched < oldest:
                    self.remove(job)


async def _result(future: "Future[dict[str, Any]]") -> dict[str, Any]:
    """Wait for a future of a worker; raise WorkerDied, not SystemExit, if its process ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wake(_: "Future[dict[str, Any]]") -> None:
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(ended.set)

    future.add_done_callback(wake)
    await ended.wait()
    return result_of(future)
