"""Model classes by name: build the network of a spec, load a trained one.

Keras is imported by the functions, so that cleaning with ONNX Runtime starts fast.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from denoisecli.errors import ModelError, UsageError
from denoisecli.spec.document import Spec
from denoisecli.system.references import load_reference

if TYPE_CHECKING:
    import keras

    from denoisecli.models.network import MaskNetwork

CLASSES = {"unet": "denoisecli.models.unet:UNet"}
"""Value of a spec's key ``model`` -> module and class."""

_own: dict[str, "type[MaskNetwork]"] = {}
"""User-defined classes, by the same key."""


def allow_class(reference: str) -> None:
    """Import a user-defined class, which runs its code, and let specs and models name it.

    Without this call, a spec or a model that names a class which is not part of this package is
    refused, since it may come from a stranger.

    Args:
        reference: Module and name of a subclass of `MaskNetwork`, such as ``"mine:Small"``.

    Raises:
        UsageError: There is no such class.
    """
    from denoisecli.models.network import MaskNetwork

    found = load_reference(reference)
    if not (isinstance(found, type) and issubclass(found, MaskNetwork)):
        raise UsageError(
            f"{reference} is not a subclass of MaskNetwork in denoisecli.models.network"
        )
    _own[reference] = found


def find_class(name: str) -> "type[MaskNetwork]":
    """Return the class that a spec's key ``model`` names.

    Raises:
        UsageError: It is a user-defined class that `allow_class` has not loaded.
    """
    if name in _own:
        return _own[name]
    if name not in CLASSES:
        raise UsageError(
            f"the network is of the class {name}, which is not part of denoise; "
            f"--model-class {name} runs its code"
        )
    module, _, attribute = CLASSES[name].partition(":")
    found: type[MaskNetwork] = getattr(import_module(module), attribute)
    return found


def build_model(spec: Spec) -> "MaskNetwork":
    """Build the untrained Keras model that a spec describes.

    Raises:
        UsageError: `find_class` and `MaskNetwork` say when.
    """
    return find_class(spec.model)(spec)


def load_network(path: Path) -> "keras.Model":
    """Load a trained network without running code from its file.

    Args:
        path: Path of a ``model.keras``.

    Raises:
        ModelError: The file does not exist or cannot be loaded.
    """
    import keras

    for name in CLASSES:  # Keras finds a class only once it is registered
        find_class(name)
    own = {keras.saving.get_registered_name(found): found for found in _own.values()}
    try:
        return keras.saving.load_model(path, custom_objects=own, compile=False, safe_mode=True)
    except Exception as error:  # a damaged archive fails in more ways than can be listed
        raise ModelError(f"{path} cannot be loaded: {error}") from error
