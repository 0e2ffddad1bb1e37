"""Types of arguments of the Python API, checked before any work."""

from numbers import Integral, Real

from denoisecli.errors import UsageError


def require_whole(value: object, name: str, unit: str = "") -> None:
    """Raise UsageError if an argument is not a whole number."""
    if not isinstance(value, Integral):
        raise UsageError(f"{name} must be a whole number{unit}, not {value!r}")


def require_number(value: object, name: str) -> None:
    """Raise UsageError if an argument is not a number."""
    if not isinstance(value, Real):
        raise UsageError(f"{name} must be a number, not {value!r}")


def require_sample_rate(value: object) -> None:
    """Raise UsageError if an argument is not a sample rate in Hz."""
    require_whole(value, "the sample rate", " of Hz")
    if value < 1:  # type: ignore[operator]
        raise UsageError(f"the sample rate must be at least 1 Hz, not {value}")
