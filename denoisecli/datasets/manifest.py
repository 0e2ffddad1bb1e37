"""The manifest of a dataset: what it is, what was left out, and how every mix was made."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from denoisecli.datasets.mixtures import Row
from denoisecli.errors import DatasetError

MANIFEST = "dataset.json"
FORMAT = "denoise dataset"
FORMAT_VERSION = 1


def load_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a dataset.

    Raises:
        DatasetError: the folder holds no dataset, or one of a newer version.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(
            f"{folder} is no dataset: there is no {MANIFEST} in it; build-dataset makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DatasetError(f"{path} is not the manifest of a dataset")
    if manifest.get("format_version", 0) > FORMAT_VERSION:
        raise DatasetError(
            f"{folder} was built by denoise {manifest.get('denoise_version')} in a newer format "
            "than this version can read; update denoise, or build the dataset again"
        )
    if missing := {"id", "recipe", "sets", "mixes"} - manifest.keys():
        raise DatasetError(f"{path} is damaged: it has no {', '.join(sorted(missing))}")
    return manifest


def write_manifest(path: Path, facts: Mapping[str, Any], rows: Iterable[Row]) -> None:
    """Write a manifest whose rows need not be in memory all at once.

    Args:
        path: The file.
        facts: All but the format and the rows.
        rows: The rows.
    """
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, **facts}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}"))
        file.write(',\n "mixes": [')
        for number, row in enumerate(rows):
            file.write(f"{',' if number else ''}\n  {json.dumps(row, allow_nan=False)}")
        file.write("\n ]\n}\n")
