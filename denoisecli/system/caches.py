"""Folders for what numba and matplotlib keep on disk, which may not be beside their own code.

numba writes compiled code into the installed packages if it can, and fails where neither they nor
a home folder can be written to, as in many containers.
"""

import atexit
import os
from contextlib import ExitStack
from pathlib import Path

from denoisecli.system.atomic_files import temporary_folder


def prepare_caches() -> None:
    """Choose a folder for numba's compiled code, and one for matplotlib if there is no home.

    It has to be called before they are imported. Folders that the environment names are left as
    they are. Without a folder of the user's that can be written to, the folder is a temporary one
    of this process.
    """
    own = _user_folder()
    if own is None:
        if {"NUMBA_CACHE_DIR", "MPLCONFIGDIR"} <= os.environ.keys():
            return
        stack = ExitStack()
        own = stack.enter_context(temporary_folder())
        atexit.register(stack.close)
        os.environ.setdefault("MPLCONFIGDIR", str(own))
    os.environ.setdefault("NUMBA_CACHE_DIR", str(own / "numba"))


def _user_folder() -> Path | None:
    """Return the folder for the caches of this program; None if it cannot be written to."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "denoise"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter if no home is known
        return None
    return folder if os.access(folder, os.W_OK) else None
