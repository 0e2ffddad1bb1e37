"""The errors that users are meant to see: one clear sentence and an exit code."""


class DenoiseError(Exception):
    """Base of all expected failures: work that was asked for could not be done (exit code 1)."""

    exit_code = 1


class AudioError(DenoiseError):
    """An audio file or signal cannot be used: corrupt, empty, not finite, silent."""


class DatasetError(DenoiseError):
    """A dataset or its source folders cannot be used."""


class ModelError(DenoiseError):
    """A trained model cannot be loaded, or training went wrong."""


class UsageError(DenoiseError):
    """Something was asked for in a wrong way: a bad option, a missing file (exit code 2)."""

    exit_code = 2


class SpecError(UsageError):
    """A spec file is not valid: names the key, what was found and what is allowed."""
