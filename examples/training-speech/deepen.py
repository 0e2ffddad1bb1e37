"""Begin a model with more recurrent blocks in the valley, with the weights of a trained one.

    python examples/training-speech/deepen.py MODEL SPEC FOLDER

SPEC describes the same network with further blocks in one place of the valley. They begin as the
identity, because the layer before their sum with the input has zero weights: until it is trained,
the new model does what MODEL does.
"""

from pathlib import Path

import keras
import numpy as np
from widen import main, write_start

from denoisecli.errors import UsageError
from denoisecli.models.folder import ModelFolder
from denoisecli.models.registry import build_model
from denoisecli.spec.document import Spec, read_spec
from denoisecli.spec.network import RecurrentBlock

SEED = 1
"""Seed of the other weights of the new blocks, so that two deepened models can be averaged."""


def deepen(model: ModelFolder, spec_path: Path, target: ModelFolder) -> None:
    """Write an untrained model of a spec that has the weights of another model."""
    spec = read_spec(spec_path)
    old = len(model.spec.valley)
    first, new = inserted(model.spec, spec)
    keras.utils.set_random_seed(SEED)
    network, trained = build_model(spec), model.load_network()
    sources = {layer.name: layer for layer in trained.layers}
    names = {f"valley{first + new + n}": f"valley{first + n}" for n in range(old - first)}
    added = {f"valley{first + n}" for n in range(new)}
    for layer in (layer for layer in network.layers if layer.weights):
        block, _, part = layer.name.partition("_")
        if block not in added:
            source = layer.name.replace(block, names.get(block, block), 1)
            layer.set_weights(sources[source].get_weights())
        elif part == "dense":
            layer.set_weights([np.zeros_like(array) for array in layer.get_weights()])
    write_start(network, model, target)


def inserted(old: Spec, new: Spec) -> tuple[int, int]:
    """Return the index of the first block that is new, and the number of new blocks.

    Raises:
        UsageError: The valley differs in something else.
    """
    count = len(new.valley) - len(old.valley)
    for first in range(len(old.valley) + 1 if count > 0 else 0):
        added = new.valley[first : first + count]
        rest = new.valley[:first] + new.valley[first + count :]
        if rest == old.valley and all(isinstance(block, RecurrentBlock) for block in added):
            return first, count
    raise UsageError(f"{new.name} is not {old.name} with more recurrent blocks in one place")


if __name__ == "__main__":
    main(deepen, __doc__)
