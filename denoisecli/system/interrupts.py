"""Signals that end the program: how a task finishes its current step, or is not interrupted."""

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from denoisecli.errors import Interrupted
from denoisecli.system.early_exit import DEFAULTS, exit_at_once


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived; what Ctrl-C stops, they stop in the same way.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of a program that a signal ended: 128 plus its number, as in shells."""
    return 128 + (interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT)


class _Signal:
    """The signal that ends the program, if one arrived."""

    pending: KeyboardInterrupt | None = None
    requested: int = signal.SIGINT
    """The last signal that `stop_requests` turned into an event."""


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C and `Terminated` on the other signals to clean up after.

    Nothing changes without `early_exit.exit_on_signals`, which holds again after the block.
    """
    numbers = [number for number in DEFAULTS if signal.getsignal(number) == exit_at_once]
    hook = sys.unraisablehook
    for number in numbers:
        signal.signal(number, _raise)
    if numbers:
        sys.unraisablehook = _print_all_but_signals
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number in numbers:
            signal.signal(number, exit_at_once)


def _raise(number: int, frame: FrameType | None) -> None:
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_IGN)  # nothing may interrupt the cleaning up
    _Signal.pending = _exception_of(number)
    raise _Signal.pending


def _exception_of(number: int) -> KeyboardInterrupt:
    if number in (signal.SIGINT, signal.SIGTERM):
        return KeyboardInterrupt() if number == signal.SIGINT else Terminated()
    _leave_terminal()
    return Terminated(number)


def _leave_terminal() -> None:
    """Print nothing to a terminal that was closed, which would raise an OSError."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.__stdout__, sys.__stderr__, sys.stdout, sys.stderr):
        if stream is None:
            continue
        with suppress(OSError, ValueError):  # it has no descriptor, or is closed
            number = stream.fileno()
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                os.dup2(null, number)
    os.close(null)


def _print_all_but_signals(error: "sys.UnraisableHookArgs") -> None:
    """Print an exception that cannot be raised, unless `raise_pending` raises it again."""
    if error.exc_value is None or error.exc_value is not _Signal.pending:
        sys.__unraisablehook__(error)


def raise_pending() -> None:
    """Raise the exception of a signal again, if C code has lost it or made another one of it."""
    if _Signal.pending is not None:
        raise _Signal.pending


@contextmanager
def stop_requests(event: threading.Event | None = None) -> Iterator[threading.Event]:
    """Set an event on a signal, instead of ending the program; a second signal ends it.

    The signals are those of `early_exit.DEFAULTS`, except for SIGHUP if it is ignored.

    In other threads than the main one, which get no signals, nothing changes.

    Args:
        event: The event that the signals set (default: a new one).

    Yields:
        The event, which the block has to look at.

    Raises:
        KeyboardInterrupt: A second signal arrived.
    """
    event = event or threading.Event()
    _Signal.requested = signal.SIGINT
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        interrupt = _exception_of(number)
        if event.is_set():
            raise interrupt
        _Signal.requested = number
        event.set()

    numbers = [
        number
        for number in DEFAULTS
        if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped(message: str) -> Interrupted:
    """Return the error of work that stopped as `stop_requests` asked it to."""
    return Interrupted(message, 128 + _Signal.requested)


@contextmanager
def stopped_by_hangup(stop: Callable[[], None]) -> Iterator[None]:
    """Call a function on SIGHUP, and end the program after the block.

    For blocks that handle Ctrl-C and SIGTERM themselves. In other threads than the main one, and
    where SIGHUP is ignored or does not exist, nothing changes.
    """
    number = getattr(signal, "SIGHUP", None)
    if (
        number is None
        or signal.getsignal(number) == signal.SIG_IGN
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    arrived = []

    def handle(number: int, frame: FrameType | None) -> None:
        arrived.append(_exception_of(number))
        stop()

    before = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)
    if arrived:
        raise arrived[0]


@contextmanager
def signals_delayed() -> Iterator[None]:
    """Deliver the signals that end the program only after the block.

    Processes that the block starts receive them after they have called `deliver_signals`.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEFAULTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def deliver_signals() -> None:
    """Deliver the signals again that `signals_delayed` held back from this process."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, DEFAULTS)
