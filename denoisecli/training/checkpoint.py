"""The state of a training run in one file, written beside and renamed."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from denoisecli.errors import ModelError
from denoisecli.system.atomic_files import replacing

Arrays = list[np.ndarray]


def save_checkpoint(path: Path, arrays: dict[str, Arrays], progress: dict[str, Any]) -> None:
    """Write lists of arrays and what JSON can hold; atomic.

    Raises:
        DenoiseError: the file cannot be written.
    """
    flat: dict[str, Any] = {"progress": np.frombuffer(json.dumps(progress).encode(), np.uint8)}
    for name, group in arrays.items():
        flat |= {f"{name}/{index}": array for index, array in enumerate(group)}
    with replacing(path, overwrite=True) as part, part.open("wb") as file:
        np.savez(file, **flat)


def load_checkpoint(path: Path) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """Read what `save_checkpoint` wrote.

    Raises:
        ModelError: the file is no checkpoint or is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            progress = json.loads(file["progress"].tobytes())
            arrays: dict[str, Arrays] = {}
            for key in file.files:  # in the order of saving
                if "/" in key:
                    arrays.setdefault(key.partition("/")[0], []).append(file[key])
            return arrays, progress
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{path} is no checkpoint or is damaged; start over with --fresh"
        ) from error
