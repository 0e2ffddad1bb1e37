"""The mean of the weights before and after a training.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models": the mean of the weights keeps what
the start knows, and has most of what the training brought.
"""

import shutil
from pathlib import Path

from denoisecli.models.folder import ModelFolder
from denoisecli.spec.document import Spec
from denoisecli.system.atomic_files import replacing

SHARES = (0.5, 0.75)
"""Shares of the weights of the start; the second one is for a model that is worse elsewhere.

With three tenths of the start, other voices and noises lost 0.17 dB and an ESTOI of 0.005 instead
of 0.02 dB and 0.002, and the noise of the user gained 0.14 dB more (a washing machine, 150 steps).
"""


def write_blend(
    spec: Spec, start: ModelFolder, trained: ModelFolder, share: float, target: Path
) -> None:
    """Write the model whose weights are the mean of those of two models.

    Args:
        spec: Spec of the adaptation.
        start: The model that was adapted.
        trained: The model after the training.
        share: Share of the weights of the start.
        target: Folder to write, which is replaced if it exists.
    """
    network = trained.load_network()
    both = zip(start.load_network().get_weights(), network.get_weights(), strict=True)
    network.set_weights([share * before + (1 - share) * after for before, after in both])
    training = spec.training.model_copy(update={"start_share": share})
    network.spec = spec.model_copy(update={"training": training})
    with replacing(target, overwrite=True) as part:
        part.mkdir()
        folder = ModelFolder(part)
        difference = folder.write_network(network)
        # The figures of the training are those of other weights.
        measured = {"validation": {}, "test": {}, "onnx_difference": difference}
        folder.write_metrics(trained.read_metrics().model_copy(update=measured))
        shutil.copy(trained.history_path, folder.history_path)
        shutil.copy(trained.curves_path, folder.curves_path)
