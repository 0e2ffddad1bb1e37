"""Model classes by name: build the network of a spec, load a trained one.

Keras is imported by the functions, so that cleaning with ONNX Runtime starts fast.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from denoisecli.errors import ModelError
from denoisecli.spec.document import Spec

if TYPE_CHECKING:
    import keras

CLASSES = {"unet": "denoisecli.models.unet:UNet"}
"""Value of a spec's key ``model`` -> module and class."""


def build_model(spec: Spec) -> "keras.Model":
    """Build the untrained Keras model that a spec describes."""
    module, _, name = CLASSES[spec.model].partition(":")
    return getattr(import_module(module), name)(spec)


def load_network(path: Path) -> "keras.Model":
    """Load a trained network without running code from its file.

    Args:
        path: Path of a ``model.keras``.

    Raises:
        ModelError: The file does not exist or cannot be loaded.
    """
    import keras

    for reference in CLASSES.values():  # Keras finds a class only once it is registered
        import_module(reference.partition(":")[0])
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged archive fails in more ways than can be listed
        raise ModelError(f"{path} cannot be loaded: {error}") from error
