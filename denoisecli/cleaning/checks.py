"""Types of arguments of the Python API, checked before any work."""

from numbers import Integral, Real

from denoisecli.errors import UsageError

LOWEST_SAMPLE_RATE = 1000
"""Lowest sample rate in Hz of sound to clean; a lower one is usually meant in kHz."""

HIGHEST_INPUT_RATE = 10_000_000
"""Highest sample rate in Hz of sound to clean; a higher one is found in damaged headers."""


def require_whole(value: object, name: str, unit: str = "") -> None:
    """Raise UsageError if an argument is not a whole number."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise UsageError(f"{name} must be a whole number{unit}, not {value!r}")


def require_number(value: object, name: str) -> None:
    """Raise UsageError if an argument is not a number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise UsageError(f"{name} must be a number, not {value!r}")


def require_sample_rate(value: object, highest: int = HIGHEST_INPUT_RATE) -> None:
    """Raise UsageError if an argument is not a sample rate in Hz within the limits."""
    require_whole(value, "the sample rate", " of Hz")
    if not LOWEST_SAMPLE_RATE <= value <= highest:  # type: ignore[operator]
        raise UsageError(
            f"the sample rate must be {LOWEST_SAMPLE_RATE} to {highest} Hz, not {value}"
        )


def require_flag(value: object, name: str) -> None:
    """Raise UsageError if an argument is not a bool."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, not {value!r}")


def require_text(value: object, name: str) -> None:
    """Raise UsageError if an argument is not a string."""
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a string, not {value!r}")
