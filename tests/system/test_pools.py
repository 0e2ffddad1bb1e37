import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.system.pools import Workers, processes

SCRIPT = """
import os, sys, time
from denoisecli.system.pools import processes
with processes(2) as workers:
    for pid in workers.map(print_pid, [1, 2, 3]):
        print(pid, flush=True)
    time.sleep(60)
"""


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


def test_here() -> None:
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
