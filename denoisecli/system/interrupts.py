"""Signals that end the program: how a task finishes its current step, or is not interrupted."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from denoisecli.errors import Interrupted
from denoisecli.system.early_exit import DEFAULTS, exit_at_once


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; what Ctrl-C stops, it stops in the same way."""


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of a program that a signal ended: 128 plus its number, as in shells."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)


class _Signal:
    """The signal that ends the program, if one arrived."""

    pending: KeyboardInterrupt | None = None
    requested: int = signal.SIGINT
    """The last signal that `stop_requests` turned into an event."""


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C and `Terminated` on SIGTERM, so that work cleans up.

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
    if number == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing may interrupt the cleaning up
    _Signal.pending = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
    raise _Signal.pending


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
    """Set an event on Ctrl-C or SIGTERM, instead of ending the program; a second signal ends it.

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
        if event.is_set():
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        _Signal.requested = number
        event.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped(message: str) -> Interrupted:
    """Return the error of work that stopped as `stop_requests` asked it to."""
    return Interrupted(message, 128 + _Signal.requested)


@contextmanager
def ctrl_c_delayed() -> Iterator[None]:
    """Deliver Ctrl-C only after the block; processes that the block starts never receive it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
