import os
import signal
import threading

import pytest

from denoisecli.system.interrupts import stop_requests


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_second_interrupt_does_not_wait() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_requests() as stop:
        interrupt()
        assert stop.is_set()
        interrupt()
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_polite_kill_waits_too() -> None:
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()


def test_other_threads_get_no_signals() -> None:
    found = []

    def work() -> None:
        with stop_requests() as stop:
            found.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
