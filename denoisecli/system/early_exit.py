"""Signals that arrive before a command has begun its work, or after it.

It imports next to nothing, so that the `denoise` script can call it first.
"""

import os
import signal

DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""The signals that end the program, and what Python does with them."""
if hasattr(signal, "SIGHUP"):  # not on Windows; it is sent when a terminal is closed
    DEFAULTS[signal.SIGHUP] = signal.SIG_DFL


def exit_on_signals() -> None:
    """End the process at once on Ctrl-C, SIGTERM and SIGHUP: exit codes 130, 143 and 129.

    Use it only while there is nothing to clean up. By default, Python would raise an exception in
    the middle of an import, and print its traceback. A signal that is ignored stays ignored: Ctrl-C
    in processes that a shell starts in the background, SIGHUP with ``nohup``.
    """
    for number, default in DEFAULTS.items():
        if signal.getsignal(number) == default:
            signal.signal(number, exit_at_once)


def exit_at_once(number: int, frame: object) -> None:
    """Handle a signal: end the process."""
    try:
        os.write(2, b"error: stopped\n")
    finally:  # also if stderr is closed
        os._exit(128 + number)
