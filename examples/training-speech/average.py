"""Average the weights of two models of the same spec.

    python examples/training-speech/average.py FIRST SECOND SHARE FOLDER

SHARE is the weight of the first model, from 0 to 1, or below 0 to go beyond the second model. All
other files in the new FOLDER are copied from the second model, except for the figures that were
measured on its weights.
"""

import argparse
import shutil
from pathlib import Path

from denoisecli.models.folder import ModelFolder


def average(first: ModelFolder, second: ModelFolder, share: float, target: ModelFolder) -> None:
    """Write a model whose weights are ``share * first + (1 - share) * second``."""
    network = second.load_network()
    both = zip(first.load_network().get_weights(), network.get_weights(), strict=True)
    network.set_weights([share * a + (1 - share) * b for a, b in both])
    shutil.copytree(second.path, target.path)
    difference = target.write_network(network)
    sources = {hash for model in (first, second) for hash in _sources(model)}
    metrics = second.read_metrics().model_copy(
        update={
            "validation": {},
            "test": {},
            "onnx_difference": difference,
            "training_sources": " ".join(sorted(sources)),
        }
    )
    target.write_metrics(metrics)


def _sources(model: ModelFolder) -> list[str]:
    return model.read_metrics().training_sources.split()


def main() -> None:
    """Average two models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("share", type=float)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    first, second, target = map(ModelFolder, (options.first, options.second, options.folder))
    average(first, second, options.share, target)


if __name__ == "__main__":
    main()
