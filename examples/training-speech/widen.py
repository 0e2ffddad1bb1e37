"""Begin a model for a higher sample rate with the weights of one for a lower rate.

    python examples/training-speech/widen.py MODEL SPEC FOLDER

SPEC describes the same network at a higher rate: frames and hops of the same duration, and bands
(``features.bands``) above the highest frequency of MODEL. All weights have the same shapes, since
they are shared along frequency. The first convolution is scaled, because the longer frames have
larger spectra, so that the new model does below that frequency what MODEL does.
"""

import argparse
from pathlib import Path

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
    target.path.mkdir(parents=True)
    target.write_network(network)


def main() -> None:
    """Widen a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("spec", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    widen(ModelFolder(options.model), options.spec, ModelFolder(options.folder))


if __name__ == "__main__":
    main()
