"""Run functions in this process, in worker processes, or on a Dask cluster.

There is one policy for worker processes. They are spawned, because libraries with threads do not
survive a fork; a script that uses them needs ``if __name__ == "__main__":``. They use one thread
for BLAS. Ctrl-C is left to the parent. When the parent stops with an exception, or ends in whatever
way, the workers give up what they are doing: ``SystemExit`` is raised in their tasks, so that they
remove temporary files.
"""

import _thread
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.system.blas import one_thread_in_children
from denoisecli.system.extras import require
from denoisecli.system.interrupts import deliver_signals, signals_delayed

CLUSTER_AHEAD = 32
"""Number of tasks that a cluster is given at a time: their results have to fit into memory."""

CONNECT_SECONDS = 10.0
"""Time in s for which the scheduler of a cluster is waited for."""

GRACE_SECONDS = 5.0
"""Time in s that a worker has for giving up its task before it is killed."""

_EXIT_CODE = 128 + signal.SIGTERM

_Arguments = ParamSpec("_Arguments")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class WorkerDied(DenoiseError):
    """A worker process ended in the middle of a task, and its pool with it."""

    def __init__(self) -> None:
        super().__init__(
            "a worker process died, perhaps because memory ran out; fewer jobs need less memory"
        )


def cpu_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class _Pool(ProcessPoolExecutor):
    def submit(
        self,
        function: Callable[_Arguments, _Result],
        /,
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> "Future[_Result]":
        try:
            # A process that is still starting, or whose parent is stopped before it has told it
            # what to do, would end with a traceback.
            with signals_delayed():
                return super().submit(partial(_run_task, function), *args, **kwargs)
        except BrokenProcessPool as error:
            raise WorkerDied from error


@contextmanager
def process_pool(
    count: int, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()
) -> Iterator[Executor]:
    """Start a pool of worker processes, which end with the block.

    If the block raises an exception, tasks in work are given up and waiting ones are cancelled.

    Args:
        count: Number of processes; each starts when it is first needed.
        initializer: Function that each process calls before its first task.
        initargs: Arguments of ``initializer``.

    Yields:
        The pool. Wait for its results with `result_of`.
    """
    context = multiprocessing.get_context("spawn")
    reading, writing = context.Pipe(duplex=False)
    pool = _Pool(
        count,
        mp_context=context,
        initializer=_start_worker,
        initargs=(reading, initializer, initargs),
    )
    try:
        with one_thread_in_children():
            yield pool
    except BaseException:
        writing.close()  # the workers read the end of the pipe, as they do when this process dies
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        writing.close()
        reading.close()


def result_of(future: "Future[_Result]") -> _Result:
    """Wait for the result of a task.

    Raises:
        WorkerDied: Its process died.
        Exception: Any exception that the task raised.
    """
    try:
        while not future.done():
            wait([future], timeout=0.2)  # Windows handles Ctrl-C only between the calls
        return future.result()
    except (BrokenProcessPool, SystemExit) as error:
        raise WorkerDied from error


class Workers:
    """Maps functions to items, in this process or in an executor.

    Args:
        executor: Executor, such as a process pool or a cluster; None uses this process.
        ahead: Number of tasks that are submitted at a time. Their results are held in memory.
    """

    def __init__(self, executor: Executor | None = None, ahead: int = CLUSTER_AHEAD) -> None:
        self._executor, self._ahead = executor, ahead

    def map(
        self, function: Callable[[_Item], _Result], items: Sequence[_Item]
    ) -> Iterator[_Result]:
        """Call a function with each item, and yield the results in the order of the items.

        Args:
            function: Function that a process of the executor can import.
            items: Its arguments. A single one is worked on in this process.

        Raises:
            WorkerDied: A process died.
            Exception: Any exception that ``function`` raised.
        """
        if self._executor is None or len(items) < 2:
            yield from map(function, items)
            return
        pending: deque[Future[_Result]] = deque()
        try:
            for item in items:
                pending.append(self._executor.submit(function, item))
                if len(pending) >= self._ahead:
                    yield result_of(pending.popleft())
            while pending:
                yield result_of(pending.popleft())
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def processes(jobs: int) -> Iterator[Workers]:
    """Work in the given number of processes; with one job, in this process.

    Raises:
        UsageError: ``jobs`` is below 1.
    """
    if jobs < 1:
        raise UsageError(f"the number of jobs must be at least 1, not {jobs}")
    if jobs == 1:
        yield Workers()
        return
    with process_pool(jobs) as pool:
        yield Workers(pool, ahead=2 * jobs + 1)


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """Connect to a Dask scheduler, and use its workers as an executor.

    Args:
        address: Address of the scheduler, such as "tcp://scheduler:8786".

    Raises:
        UsageError: The package distributed is not installed.
        DenoiseError: No scheduler answers at the address, or it has no workers.
    """
    require("cluster", "distributed", purpose="a cluster")
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise DenoiseError(f"no Dask scheduler answers at {address}") from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise DenoiseError(f"the Dask scheduler at {address} has no workers")
        yield client.get_executor(pure=False)


class _Worker:
    """State of this process, if it is a worker."""

    in_task = False
    stopping = False


def _start_worker(
    parent: Connection, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    for name in ("SIGINT", "SIGHUP"):  # which a terminal sends to all processes
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _give_up)
    deliver_signals()
    threading.Thread(target=_stop_with_parent, args=(parent,), daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _run_task(function: Callable[..., _Result], *args: object, **kwargs: object) -> _Result:
    if _Worker.stopping:
        raise SystemExit(_EXIT_CODE)
    _Worker.in_task = True
    try:
        return function(*args, **kwargs)
    finally:
        _Worker.in_task = False


def _give_up(number: int, frame: object) -> None:
    if _Worker.in_task:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing may interrupt the cleaning up
        raise SystemExit(_EXIT_CODE)
    if not _Worker.stopping:  # or else it may be sending a result, which the parent waits for
        os._exit(_EXIT_CODE)


def _stop_with_parent(connection: Connection) -> None:
    connection.poll(None)  # until the parent closes its end, or dies
    _Worker.stopping = True
    if os.name == "nt":  # there, os.kill ends the process at once
        _thread.interrupt_main(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)  # also wakes up what waits
    parent = multiprocessing.parent_process()
    end = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < end and (_Worker.in_task or (parent and parent.is_alive())):
        time.sleep(0.05)
    os._exit(_EXIT_CODE)
