"""Begin a model for another sample rate with the weights of a trained one.

    python examples/training-speech/widen.py MODEL SPEC FOLDER

SPEC describes the same network at a higher or lower rate: frames and hops of the same duration, and
at the higher rate bands (``features.bands``) above the highest frequency of the lower one. All
weights have the same shapes, since they are shared along frequency. The first convolution is
scaled, because longer frames have larger spectra, so that below that frequency the new model does
what MODEL does.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import keras

from denoisecli.models.folder import ModelFolder
from denoisecli.models.registry import build_model
from denoisecli.spec.document import read_spec


def widen(model: ModelFolder, spec_path: Path, target: ModelFolder) -> None:
    """Write an untrained model of a spec that has the weights of another model."""
    spec = read_spec(spec_path)
    network = build_model(spec)
    network.set_weights(model.load_network().get_weights())
    first = network.get_layer("down0_0_convolution")
    scale = (spec.stft.n_fft / model.spec.stft.n_fft) ** -spec.features.compression
    first.set_weights([scale * first.get_weights()[0], *first.get_weights()[1:]])
    write_start(network, model, target)


def write_start(network: keras.Model, model: ModelFolder, target: ModelFolder) -> None:
    """Write a network that begins with the weights of a model, without the scores of that model."""
    target.path.mkdir(parents=True)
    difference = target.write_network(network)
    figures = {"validation": {}, "test": {}, "onnx_difference": difference}
    target.write_metrics(model.read_metrics().model_copy(update=figures))


def main(begin: Callable[[ModelFolder, Path, ModelFolder], None], description: str | None) -> None:
    """Read the arguments of the command and begin a model."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", type=Path)
    parser.add_argument("spec", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    begin(ModelFolder(options.model), options.spec, ModelFolder(options.folder))


if __name__ == "__main__":
    main(widen, __doc__)
