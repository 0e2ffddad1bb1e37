"""Weights of networks as arrays, and from one network into another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from jaxtyping import Float

from denoisecli.errors import ModelError, SpecError, UsageError
from denoisecli.models.folder import ModelFolder
from denoisecli.spec.document import parse_spec
from denoisecli.training.checkpoint import load_checkpoint
from denoisecli.training.run_folder import CHECKPOINT
from denoisecli.training.waveform_model import build_network


def arrays_of(variables: Any) -> list[np.ndarray]:
    """Copies of the values of variables."""
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def assign(variables: Any, arrays: Sequence[np.ndarray]) -> None:
    """Give variables the values of arrays.

    Raises:
        ValueError: their numbers or shapes differ.
    """
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def take_weights(network: keras.Model, folder: Path) -> tuple[int, list[str]]:
    """Take the weights of a trained model, layer by layer, where name and shapes match.

    A causal network sees its frames in line with one that looked ahead: see `without_future`.

    Args:
        network: gets the weights.
        folder: of a model, or of a run that is not finished: then the best weights so far.

    Returns:
        How many layers matched, and the names of those that did not.

    Raises:
        UsageError: none matched.
        ModelError: there are no weights, or they are damaged.
    """
    trained = _trained(folder)
    turns_causal = network.spec.causal and not trained.spec.causal
    other = {layer.name: layer for layer in trained.layers}
    left = []
    matched = 0
    for layer in network.layers:
        shapes = [weight.shape for weight in layer.weights]
        if not shapes:
            continue
        source = other.get(layer.name)
        if source is None or [weight.shape for weight in source.weights] != shapes:
            left.append(layer.name)
            continue
        weights = source.get_weights()
        if turns_causal and isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            weights[0] = without_future(weights[0])
        layer.set_weights(weights)
        matched += 1
    if not matched:
        raise UsageError(f"no layer of {folder} matches one of {network.spec.name!r}")
    return matched, left


def without_future(
    kernel: Float[np.ndarray, "frequency frames inward outward"],
) -> Float[np.ndarray, "frequency frames inward outward"]:
    """Move a kernel centred on a frame to where that frame is its last one.

    What lay on later frames is added to the last, so that steady sound comes out as before.
    """
    frames = kernel.shape[1]
    ahead = frames - 1 - (frames - 1) // 2
    causal = np.zeros_like(kernel)
    causal[:, ahead:] = kernel[:, : frames - ahead]
    causal[:, -1] += kernel[:, frames - ahead :].sum(axis=1)
    return causal


def _trained(folder: Path) -> keras.Model:
    if not (folder / CHECKPOINT).exists():
        return ModelFolder(folder).load_network()
    arrays, progress = load_checkpoint(folder / CHECKPOINT)
    try:
        network = build_network(parse_spec(progress["spec"]))
        assign(network.weights, arrays["best"])
    except (KeyError, ValueError, SpecError) as error:
        raise ModelError(f"{folder / CHECKPOINT} is of another version of denoise") from error
    return network
