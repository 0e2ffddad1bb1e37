"""Specs and trained models by name: those in the package and those in local folders.

Nothing here imports Keras, so that cleaning with ONNX Runtime starts fast.
"""

from contextlib import suppress
from pathlib import Path

from denoisecli.errors import SpecError, UsageError
from denoisecli.models.folder import ModelFolder
from denoisecli.spec.document import Spec, read_spec
from denoisecli.spec.search_space import check_space

SPECS = Path(__file__).parent / "specs"
PRETRAINED = Path(__file__).parent / "pretrained"

NARROW_BAND_RATE = 16000
"""Sample rate in Hz up to which a bundled model may have a counterpart of its own."""


def spec_names() -> list[str]:
    """Return the names of the bundled specs."""
    return sorted(path.stem for path in SPECS.glob("*.json"))


def model_names() -> list[str]:
    """Return the names of the bundled trained models."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/spec.json"))


def for_sample_rate(model: ModelFolder, sample_rate: int) -> ModelFolder:
    """Return the bundled model that suits recordings of a sample rate best.

    A bundled model can have a counterpart for recordings up to 16 kHz, which is called NAME-16k.

    Args:
        model: A model.
        sample_rate: Sample rate of the recordings in Hz.

    Returns:
        The counterpart, or the model itself.
    """
    if sample_rate > NARROW_BAND_RATE or not is_bundled(model):
        return model
    narrow = ModelFolder(model.path.with_name(f"{model.path.name}-16k"))
    return narrow if is_bundled(narrow) else model


def is_bundled(model: ModelFolder) -> bool:
    """Return whether a trained model comes with the package."""
    return model.path.parent == PRETRAINED and model.path.name in model_names()


def local_models(folder: Path) -> list[ModelFolder]:
    """Return the trained models in and below a folder such as ``runs``, sorted by path.

    Hidden folders are left out: a model that is being written is in one.
    """
    paths = folder.rglob(ModelFolder(folder).onnx_path.name)
    return sorted(
        (
            ModelFolder(path.parent)
            for path in paths
            if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ),
        key=lambda model: model.path,
    )


def find_spec(source: str | Path) -> Path:
    """Return the path of a spec file.

    Args:
        source: Path of a JSON file, path of a model folder or name of a bundled spec.

    Raises:
        SpecError: There is no such spec.
    """
    path = Path(source)
    if path.is_file():
        return path
    in_model = ModelFolder(path).spec_path
    if in_model.is_file():
        return in_model
    if str(source) in spec_names():
        return SPECS / f"{source}.json"
    if path.suffix.lower() == ".json":
        raise SpecError(f"{path} does not exist")
    raise SpecError(
        f"no spec {str(source)!r}: neither a JSON file, nor a model folder, "
        f"nor a bundled spec ({', '.join(spec_names())})"
    )


def load_spec(source: str | Path) -> Spec:
    """Load a spec and check its search space.

    Args:
        source: Path of a JSON file, path of a model folder or name of a bundled spec.

    Raises:
        SpecError: There is no such spec, or it is not valid; the message has one line per problem,
            with its path in the file.
    """
    path = find_spec(source)
    spec = read_spec(path)
    try:
        check_space(spec)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
    return spec


def find_model(source: str | Path) -> ModelFolder:
    """Return a trained model.

    Args:
        source: Path of a model folder, path of a finished run's folder or name of a bundled model.

    Raises:
        UsageError: There is no such model.
    """
    if not isinstance(source, str | Path):
        raise UsageError(f"a model must be the path of a folder or a name, not {source!r}")
    path = Path(source)
    is_folder = False
    with suppress(OSError):  # too long for a path
        for model in (ModelFolder(path / "model"), ModelFolder(path)):  # a run has its model inside
            if model.onnx_path.is_file():
                return model
        is_folder = path.is_dir()
    if str(source) in model_names():
        return ModelFolder(PRETRAINED / str(source))
    if is_folder:
        raise UsageError(f"{path} is not a model folder: it contains no model.onnx")
    raise UsageError(
        f"no model {str(source)!r}: neither a model folder nor a bundled model "
        f"({', '.join(model_names()) or 'none is bundled'})"
    )
