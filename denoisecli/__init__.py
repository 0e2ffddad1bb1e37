"""Teach a U-Net to remove noise from sound, and remove it.

>>> from denoisecli import Denoiser
>>> cleaned = Denoiser().clean(audio, sample_rate)  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from denoisecli.cleaning.denoiser import Denoiser
    from denoisecli.cleaning.file import CleanResult, FileOptions
    from denoisecli.errors import DenoiseError

__all__ = ["CleanResult", "DenoiseError", "Denoiser", "FileOptions"]

_HOMES = {
    "CleanResult": "denoisecli.cleaning.file",
    "DenoiseError": "denoisecli.errors",
    "Denoiser": "denoisecli.cleaning.denoiser",
    "FileOptions": "denoisecli.cleaning.file",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the package itself loads at once."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
