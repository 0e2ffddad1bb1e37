"""Locks between processes; the operating system releases them however a process ends."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from denoisecli.errors import UsageError

WAIT_SECONDS = 0.5
"""Time for which a lock is waited for, since `is_locked` holds it for a moment as well."""


@contextmanager
def exclusive(path: Path, message: str) -> Iterator[None]:
    """Hold the lock on a file, which exists for as long as the block runs.

    Args:
        path: The lock file, in an existing folder.
        message: Message of the error if another process holds the lock.

    Raises:
        UsageError: Another process holds the lock.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout as error:
        raise UsageError(message) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes the file when the lock is released
            path.unlink()
        lock.release()


def is_locked(path: Path) -> bool:
    """Return whether a process on this machine holds the lock on a file."""
    if not path.is_file():  # acquiring the lock would create the file
        return False
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # the file of another user, which cannot be locked to find out
        return False
