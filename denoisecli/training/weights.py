"""Copy the values of variables to arrays and back, and weights from one network to another."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from jaxtyping import Float

from denoisecli.errors import UsageError
from denoisecli.models.folder import ModelFolder
from denoisecli.training.checkpoint import incompatible, load_checkpoint
from denoisecli.training.run_folder import CHECKPOINT
from denoisecli.training.waveform_model import build_network

# Sections of a spec, and their keys if not all, on which the meaning of the weights depends.
_COMPARED = {"audio": None, "stft": None, "features": None, "output": ("mask", "limit")}


def get_arrays(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Return copies of the values of variables."""
    # Not keras.ops.convert_to_numpy, which fails to copy and warns of it under NumPy 2.
    return [np.asarray(variable).copy() for variable in variables]


def assign(variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray]) -> None:
    """Assign the values of arrays to variables.

    Raises:
        ValueError: The numbers of variables and arrays, or two of their shapes, differ.
    """
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def transfer_weights(network: keras.Model, folder: Path) -> tuple[int, list[str], list[str]]:
    """Copy the weights of a trained model, layer by layer, where names and shapes match.

    Layers of a user-defined class may have no names but those that Keras numbers anew in every
    network. If no name matches, those of the same class are matched by their order.

    If the network is causal and the trained one is not, each convolution kernel is moved so that
    it looks at past frames only: see `make_causal`.

    Args:
        network: Network that receives the weights.
        folder: Folder of a model, or of an unfinished run, whose best weights so far are used.

    Returns:
        The number of layers that match, the names of those that do not, and the settings in which
        the trained network differs although its weights fit, such as "audio.sample_rate 8000 (here
        16000)".

    Raises:
        UsageError: No layer matches.
        ModelError: The folder holds no weights, or they are damaged.
    """
    trained = _load_trained(folder)
    becomes_causal = network.spec.causal and not trained.spec.causal
    own, others = ([layer for layer in each.layers if layer.weights] for each in (network, trained))
    sources = {layer.name: layer for layer in others}
    if trained.spec.model == network.spec.model and not any(one.name in sources for one in own):
        sources = dict(zip((layer.name for layer in own), others, strict=False))
    if trained.spec.output.offsets != network.spec.output.offsets:
        sources.pop("taps", None)  # its channels are factors of other frames
    matched, missing = 0, []
    for layer in own:
        shapes = [weight.shape for weight in layer.weights]
        source = sources.get(layer.name)
        if source is None or [weight.shape for weight in source.weights] != shapes:
            missing.append(layer.name)
            continue
        weights = source.get_weights()
        if becomes_causal and isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            weights[0] = make_causal(weights[0])
        layer.set_weights(weights)
        matched += 1
    if not matched:
        raise UsageError(f"no layer of {folder} matches a layer of {network.spec.name!r}")
    before, after = (spec.model_dump(mode="json") for spec in (trained.spec, network.spec))
    other_sound = [
        f"{section}.{key} {value} (here {after[section][key]})"
        for section, keys in _COMPARED.items()
        for key, value in before[section].items()
        if value != after[section][key] and (keys is None or key in keys)
    ]
    return matched, missing, other_sound


def make_causal(
    kernel: Float[np.ndarray, "frequency frames inputs outputs"],
) -> Float[np.ndarray, "frequency frames inputs outputs"]:
    """Shift a kernel that is centred on a frame so that this frame becomes its last one.

    The taps on later frames are added to the last one, so that the response to a steady sound
    does not change.
    """
    frames = kernel.shape[1]
    ahead = frames - 1 - (frames - 1) // 2
    causal = np.zeros_like(kernel)
    causal[:, ahead:] = kernel[:, : frames - ahead]
    causal[:, -1] += kernel[:, frames - ahead :].sum(axis=1)
    return causal


def _load_trained(folder: Path) -> keras.Model:
    path = folder / CHECKPOINT
    if not path.exists():
        return ModelFolder(folder).load_network()
    checkpoint = load_checkpoint(path)
    network = build_network(checkpoint.spec)
    try:
        assign(network.weights, checkpoint.best)
    except ValueError as error:
        raise incompatible(path) from error
    return network
