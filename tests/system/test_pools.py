import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.system.pools import (
    WorkerDied,
    Workers,
    cluster,
    cpu_cores,
    process_pool,
    processes,
    result_of,
)

SCRIPT = """
import os, sys, time
from denoisecli.system.pools import processes
with processes(2) as workers:
    for pid in workers.map(print_pid, [1, 2, 3]):
        print(pid, flush=True)
    time.sleep(60)
"""


def test_only_cores_that_the_process_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert cpu_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    assert cpu_cores() == 64


def pid_of(_: int) -> int:
    return os.getpid()


def square(number: int) -> int:
    return number**2


def slow_first(number: int) -> int:
    time.sleep(0.05 if number == 0 else 0)
    return number


def die(number: int) -> None:
    os._exit(1)


def fail(number: int) -> None:
    raise ZeroDivisionError(str(number))


def test_in_processes() -> None:
    with processes(2) as workers:
        assert list(workers.map(square, range(100))) == [number**2 for number in range(100)]
        pids = set(workers.map(pid_of, range(20)))
        assert os.getpid() not in pids
        assert len(pids) <= 2
        with pytest.raises(ZeroDivisionError, match="0"):
            list(workers.map(fail, range(10)))
        with pytest.raises(DenoiseError, match="died"):
            list(workers.map(die, range(10)))


def wait_forever(folder: Path) -> None:
    with TemporaryDirectory(dir=folder):
        (folder / f"working-{os.getpid()}").touch()
        time.sleep(600)


@pytest.mark.slow
def test_an_exception_makes_the_workers_give_up_and_clean_up(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), process_pool(2) as pool:
        futures = [pool.submit(wait_forever, tmp_path) for _ in range(20)]
        while len(list(tmp_path.glob("working-*"))) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert time.monotonic() - start < 60
    assert all(future.done() for future in futures)
    assert all(path.is_file() for path in tmp_path.iterdir())
    assert not multiprocessing.active_children()


def test_a_terminated_worker_is_reported_as_dead(tmp_path: Path) -> None:
    with process_pool(1) as pool:
        future = pool.submit(wait_forever, tmp_path)
        while not (working := list(tmp_path.glob("working-*"))):
            time.sleep(0.01)
        os.kill(int(working[0].name.partition("-")[2]), signal.SIGTERM)
        with pytest.raises(WorkerDied, match="died"):
            result_of(future)
    assert list(tmp_path.iterdir()) == working


def test_one_job_or_one_item_runs_in_this_process() -> None:
    with processes(1) as workers:
        assert set(workers.map(pid_of, range(5))) == {os.getpid()}
    with processes(2) as workers:  # not worth the start
        assert list(workers.map(pid_of, [1])) == [os.getpid()]
    with pytest.raises(UsageError, match="at least 1"), processes(0):
        pass


def test_few_are_ahead_and_in_order() -> None:
    begun = []

    def note(number: int) -> int:
        begun.append(number)
        return slow_first(number)

    with ThreadPoolExecutor(3) as threads:
        results: Iterator[int] = Workers(threads, ahead=5).map(note, range(1000))
        assert next(results) == 0
        assert len(begun) <= 6
        assert list(results) == list(range(1, 1000))


@pytest.mark.slow
def test_processes_end_when_the_parent_is_killed() -> None:
    script = SCRIPT.replace("print_pid", "test_pools.pid_of").replace(
        "import os", "import test_pools, os"
    )
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}  # noqa: PTH120
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        pids = {int(parent.stdout.readline()) for _ in range(3)}
        parent.kill()
    for _ in range(200):
        if not any(_alive(pid) for pid in pids):
            break
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_cluster_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(DenoiseError, match="no Dask scheduler answers at nonsense"),
        cluster("nonsense"),
    ):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    message = r"a cluster needs Dask: pip install \"denoisecli\[cluster\]\""
    with pytest.raises(UsageError, match=message), cluster("x"):
        pass


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no masks")
def test_signals_wait_until_a_worker_is_started_and_reach_it_then() -> None:
    """A worker whose parent dies before it has read what to do would print a traceback."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    while_started = []
    submit = ProcessPoolExecutor.submit

    def watched(*args, **options):
        while_started.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return submit(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessPoolExecutor, "submit", watched)
        with process_pool(1) as pool:
            assert result_of(pool.submit(blocked_signals)) == blocked
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= while_started[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked


def blocked_signals() -> set[int]:
    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}
