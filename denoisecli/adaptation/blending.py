"""The mean of the weights before and after a training, by the share that is best.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models": the mean of the weights keeps what
the start knows, and has most of what the training brought.
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from denoisecli.adaptation.judgement import LIMITS, METRICS, OTHERS, SPEECH, YOURS, Mixtures
from denoisecli.evaluation.metrics import measure
from denoisecli.models.folder import ModelFolder
from denoisecli.spec.document import Spec
from denoisecli.system.atomic_files import replacing
from denoisecli.training.stream import predict
from denoisecli.training.waveform_model import WaveformModel

SHARES = (0.5, 0.75)
"""Shares of the weights of the start that are compared.

With less of the start, recordings of other voices and noises lose up to 0.3 dB and an ESTOI of
0.006, and the noise of the user gains only 0.1 dB more.
"""

ESTOI_DB = 50.0
"""dB of SI-SDR that an ESTOI of 1 is worth in the choice of the share."""

CAUTION = 0.7
"""Part of LIMITS that a share may lose, since other mixtures decide in the end."""

Scores = dict[str, Float[np.ndarray, "mixtures"]]
"""Values of each metric in METRICS; NaN where it is undefined, as ESTOI is with little speech."""


def write_blend(
    spec: Spec,
    start: ModelFolder,
    trained: ModelFolder,
    sets: Mapping[str, Mixtures],
    target: Path,
    on_progress: Callable[[float, float], None] = lambda done, total: None,
) -> float:
    """Write the model whose weights are the best mean of those of two models.

    Args:
        spec: Spec of the adaptation.
        start: The model that was adapted.
        trained: The model after the training.
        sets: Mixtures to choose the share with, by set.
        target: Folder to write, which is replaced if it exists.
        on_progress: Called with the number of measured shares and their total.

    Returns:
        The share of the weights of the start.
    """
    network = trained.load_network()
    after = network.get_weights()
    before = start.load_network().get_weights()
    model = WaveformModel(spec, network)
    model.compile()
    shares = (1.0, *SHARES)
    scores = {}
    for number, share in enumerate(shares):
        on_progress(number, len(shares))
        network.set_weights(_mean_of(before, after, share))
        scores[share] = {name: _scores(model, mixtures) for name, mixtures in sets.items()}
    on_progress(len(shares), len(shares))
    share = choose_share(_means(scores))
    network.set_weights(_mean_of(before, after, share))
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
    return share


def seconds_of_share(spec: Spec, start: ModelFolder, sets: Mapping[str, Mixtures]) -> float:
    """Return the time in s that `write_blend` takes to score one share on this computer."""
    began = time.monotonic()
    model = WaveformModel(spec, start.load_network())
    model.compile()
    for mixtures in sets.values():
        _scores(model, mixtures)
    return time.monotonic() - began


def choose_share(means: Mapping[float, Mapping[str, Mapping[str, float]]]) -> float:
    """Return the share that gains most on the noise, and loses nothing that matters elsewhere.

    Args:
        means: Mean of each metric in METRICS by share and set; share 1 is the start.

    Returns:
        One of the shares below 1; the largest one if all of them lose.
    """
    start = means[1.0]

    def gain(share: float, name: str, metric: str) -> float:
        return means[share][name][metric] - start[name][metric]

    def is_allowed(share: float) -> bool:
        return all(
            gain(share, name, metric) > -CAUTION * limit
            for name in (OTHERS, SPEECH)
            for metric, limit in LIMITS.items()
        )

    shares = [share for share in means if share < 1]
    return max(
        list(filter(is_allowed, shares)) or [max(shares)],
        key=lambda share: gain(share, YOURS, "si_sdr") + ESTOI_DB * gain(share, YOURS, "estoi"),
    )


def _mean_of(before: list[np.ndarray], after: list[np.ndarray], share: float) -> list[np.ndarray]:
    """Return the mean of weights, in which those before have a share."""
    return [share * old + (1 - share) * new for old, new in zip(before, after, strict=True)]


def _scores(model: WaveformModel, mixtures: Mixtures) -> Scores:
    """Return each metric of the output of a model for each mixture."""
    noisy, clean = (np.stack(part) for part in zip(*mixtures, strict=True))
    estimates = predict(model, noisy, batch_size=8)
    rate = model.spec.audio.sample_rate
    rows = [
        measure(reference, estimate, rate, METRICS)
        for reference, estimate in zip(clean, estimates, strict=True)
    ]
    return {metric: np.array([row[metric] for row in rows]) for metric in METRICS}


def _means(
    scores: Mapping[float, Mapping[str, Scores]],
) -> dict[float, dict[str, dict[str, float]]]:
    """Return the means over the mixtures for which a metric is defined with every share."""

    def mean(share: float, name: str, metric: str) -> float:
        defined = np.isfinite([of_share[name][metric] for of_share in scores.values()]).all(axis=0)
        values = scores[share][name][metric][defined]
        return float(values.mean()) if values.size else math.nan

    return {
        share: {
            name: {metric: mean(share, name, metric) for metric in METRICS} for name in of_share
        }
        for share, of_share in scores.items()
    }
