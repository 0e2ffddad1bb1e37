"""User-defined classes and functions, which are named as ``module:name``."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from denoisecli.errors import UsageError


def load_reference(reference: str) -> Any:
    """Import a module and return an object in it.

    This runs the code of the module. Therefore only a reference that the user gave, as an option or
    as an argument, may be loaded, never one that was read from a file.

    Args:
        reference: Name of the module and of the object, such as ``"mine.networks:Small"``. The
            module may lie in the current folder.

    Raises:
        UsageError: There is no such module or object, or the module cannot be imported.
    """
    module_name, _, name = reference.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), name)):
        raise UsageError(
            f"{reference!r} is not a reference to an object; expected module:name, such as "
            "mine.networks:Small"
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(f"{reference}: {module_name} cannot be imported: {error}") from error
        raise UsageError(
            f"{reference}: there is no module {error.name} in the current folder, in PYTHONPATH or "
            "among the installed packages"
        ) from error
    except Exception as error:  # whatever the code of the module raises
        raise UsageError(
            f"{reference}: {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise UsageError(f"{reference}: {module.__file__} has no {name}") from error
