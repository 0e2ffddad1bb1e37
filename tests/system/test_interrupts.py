import os
import signal
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
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
