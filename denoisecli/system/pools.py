"""Tasks in this process, in several, or on a cluster; results in the order of the tasks."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from denoisecli.errors import DenoiseError, UsageError

_AHEAD = 32  # tasks that a cluster is given at a time: their results have to fit into memory

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Workers:
    """Where tasks are done.

    Args:
        executor: Such as a process pool, or that of a Dask client (see ``batch.cluster``); None
            works in this process.
        ahead: Tasks it is given at a time, in work or waiting: their results are held in memory.
    """

    def __init__(self, executor: Executor | None = None, ahead: int = _AHEAD) -> None:
        self._executor, self._ahead = executor, ahead

    def map(
        self, function: Callable[[_Item], _Result], items: Sequence[_Item]
    ) -> Iterator[_Result]:
        """Map, results in the order of the items.

        Args:
            function: What is done; one that a process of the executor can import.
            items: What it is done to.

        Raises:
            DenoiseError: a process died.
            Exception: what ``function`` raises.
        """
        if self._executor is None or len(items) < 2:
            yield from map(function, items)
            return
        pending: deque[Future[_Result]] = deque()
        try:
            for item in items:
                pending.append(self._executor.submit(function, item))
                if len(pending) >= self._ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise DenoiseError(
                "a process that worked on the dataset died; is memory short? Fewer jobs need less"
            ) from error
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def processes(jobs: int) -> Iterator[Workers]:
    """Give that many processes to work in; for one, that is this process.

    The processes start when they are first needed. They hear nothing of Ctrl-C, which the parent
    deals with, and end when the parent does, however it ends.

    Raises:
        UsageError: ``jobs`` is below 1.
    """
    if jobs < 1:
        raise UsageError(f"jobs must be at least 1, not {jobs}")
    if jobs == 1:
        yield Workers()
        return
    # TensorFlow has threads, which a forked process would lack.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin)
    try:
        yield Workers(pool, ahead=2 * jobs + 1)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    # Ctrl-C reaches all processes of a terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that was killed cannot say that there is no more to do.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
