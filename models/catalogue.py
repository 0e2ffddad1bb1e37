"""The registry: model classes by name, bundled specs, bundled trained models.

Nothing here imports Keras, so that cleaning with ONNX Runtime starts fast.
"""

import json
from pathlib import Path
from typing import Any

from denoisecli.errors import ModelError, SpecError, UsageError

from denoisecli.models.registry import CLASSES, build_model, load_network  # noqa: F401

SPECS = Path(__file__).parent / "specs"
PRETRAINED = Path(__file__).parent / "pretrained"


def spec_names() -> list[str]:
    """Names of the bundled specs."""
    return sorted(path.stem for path in SPECS.glob("*.json"))


def model_names() -> list[str]:
    """Names of the bundled trained models."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/spec.json"))


def local_models(folder: Path) -> list[Path]:
    """Folders of trained models in or below this folder, such as ``runs``, sorted."""
    return sorted(path.parent for path in folder.rglob("model.onnx"))


def find_spec(source: str | Path) -> Path:
    """Return the spec file for a path, a model folder or a bundled name.

    Raises:
        SpecError: there is none.
    """
    path = Path(source)
    if path.is_file():
        return path
    if (path / "spec.json").is_file():
        return path / "spec.json"
    if str(source) in spec_names():
        return SPECS / f"{source}.json"
    raise SpecError(
        f"no spec {str(source)!r}: neither a JSON file, nor a model folder, "
        f"nor a bundled spec ({', '.join(spec_names())})"
    )


def find_model(source: str | Path) -> Path:
    """Return the folder of a trained model for a path, a run's folder or a bundled name.

    Raises:
        UsageError: there is none.
    """
    path = Path(source)
    for folder in (path / "model", path):  # a run's folder holds its model's
        if (folder / "model.onnx").is_file():
            return folder
    if str(source) in model_names():
        return PRETRAINED / str(source)
    if path.is_dir():
        raise UsageError(f"{path} is no model folder: it holds no model.onnx")
    raise UsageError(
        f"no model {str(source)!r}: neither a model folder nor a bundled model "
        f"({', '.join(model_names()) or 'none is bundled'})"
    )


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return what training measured of the model in this folder.

    Raises:
        ModelError: there is no such file in it, or a damaged one.
    """
    path = folder / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(metrics, dict) or not isinstance(metrics.get("test", {}), dict):
        raise ModelError(f"{path} is damaged: it does not hold what training writes")
    return metrics
