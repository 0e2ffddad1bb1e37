import os
import signal
import subprocess
import sys
import threading

import pytest

from denoisecli.system.interrupts import stop_requests, stopped


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_second_interrupt_does_not_wait() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_requests() as stop:
        interrupt()
        assert stop.is_set()
        interrupt()
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_the_exit_code_tells_which_signal_stopped_the_work(number: int, code: int) -> None:
    with stop_requests() as stop:
        os.kill(os.getpid(), number)
        assert stop.is_set()
    assert stopped("stopped").exit_code == code


def test_other_threads_get_no_signals() -> None:
    found = []

    def work() -> None:
        with stop_requests() as stop:
            found.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


LOST = """
import os, signal
from denoisecli.system.early_exit import exit_on_signals
from denoisecli.system.interrupts import raise_pending, signals_raised

class Callback:
    def __del__(self):  # as in a callback from C, an exception here is printed and lost
        {body}

exit_on_signals()
with signals_raised():
    Callback()
    try:
        raise_pending()
    except KeyboardInterrupt:
        print("raised again")
"""


@pytest.mark.parametrize(
    ("body", "out", "printed"),
    [
        ("os.kill(os.getpid(), signal.SIGINT)", "raised again", ""),
        ("raise ValueError('a mistake')", "", "ValueError: a mistake"),
    ],
)
def test_a_signal_that_a_callback_loses_is_raised_again_and_not_printed(
    body: str, out: str, printed: str
) -> None:
    command = [sys.executable, "-c", LOST.format(body=body)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == out
    assert printed in done.stderr
    assert ("Traceback" in done.stderr) == bool(printed)


IMPORT = """
import os, signal, sys
from denoisecli.cli import console
from denoisecli.cli.app import main

def import_extension(_: object) -> None:  # as CPython initializes one
    try:
        {body}
    except BaseException as error:
        raise ImportError("initialization failed") from error

console.set_verbosity = import_extension
sys.argv = ["denoise", "models"]
main()
"""


@pytest.mark.parametrize(
    ("body", "code", "printed"),
    [
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "error: stopped\n"),
        ("raise ValueError('a mistake')", 1, "initialization failed"),
    ],
)
def test_a_signal_that_stops_an_import_is_no_error_of_the_import(
    body: str, code: int, printed: str
) -> None:
    command = [sys.executable, "-c", IMPORT.format(body=body)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr == printed or (code == 1 and printed in done.stderr)
