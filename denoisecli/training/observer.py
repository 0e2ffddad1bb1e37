"""Who watches a training run, and how it is stopped."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol, runtime_checkable

from denoisecli.errors import DenoiseError


@runtime_checkable
class Observer(Protocol):
    """Is told how training goes."""

    def on_message(self, text: str) -> None:
        """Something worth a line."""

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None:
        """Training begins, or goes on, at this epoch (from 0)."""

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """A batch is done: the means over the epoch so far."""

    def on_epoch_end(self, row: dict[str, Any], *, best: bool) -> None:
        """An epoch is done: its line of history.csv."""


class Interrupted(DenoiseError):
    """Training was stopped by Ctrl-C; what was done is on disk."""

    exit_code = 130


@contextmanager
def ctrl_c(event: threading.Event | None = None) -> Iterator[threading.Event]:
    """Let Ctrl-C (or a polite kill) wait for the end of the batch; a second one does not wait.

    Args:
        event: Set by Ctrl-C, and by whatever else shall stop the run (default: a new one).
    """
    event = event or threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
