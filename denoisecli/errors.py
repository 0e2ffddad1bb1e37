"""The exceptions that users see as one sentence, and the exit codes of the program."""

from collections.abc import Sequence

_MAX_NAMES = 10


class DenoiseError(Exception):
    """Base class of all expected failures: the requested work could not be done."""

    exit_code = 1

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without calling ``__init__``, which may take other arguments than the message."""
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[DenoiseError], args: tuple[object, ...]) -> DenoiseError:
    return kind.__new__(kind, *args)


class AudioError(DenoiseError):
    """A recording cannot be used: it is damaged, empty or silent, or not all values are finite."""


class DatasetError(DenoiseError):
    """A dataset, or a folder of recordings for one, cannot be used."""


class ModelError(DenoiseError):
    """A model cannot be loaded, or its training failed."""


class StorageError(DenoiseError):
    """A file cannot be written, mostly because the disk is full."""


class UsageError(DenoiseError):
    """The request itself is wrong: an invalid option, a missing file or package."""

    exit_code = 2


class ReaderGone(DenoiseError):
    """The program that read the output has ended, which shells report as SIGPIPE."""

    exit_code = 141


class SpecError(UsageError):
    """A spec is invalid; the message holds the key, the value and what is allowed."""


class Interrupted(DenoiseError):
    """Ctrl-C, SIGTERM or SIGHUP stopped the work, whose progress was saved and can be resumed.

    Args:
        message: The message.
        exit_code: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
    """

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def join_names(names: Sequence[str]) -> str:
    """Join names for a message; only the first ones if there are many."""
    shown = ", ".join(names[:_MAX_NAMES])
    more = len(names) - _MAX_NAMES
    return shown if more <= 0 else f"{shown} and {more} more"
