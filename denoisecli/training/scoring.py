"""Compute PESQ and ESTOI of a few clips during training, in worker processes."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial

import numpy as np
from jaxtyping import Float

from denoisecli.errors import DatasetError
from denoisecli.evaluation.metrics import measure, pesq_for
from denoisecli.system.pools import cpu_cores, process_pool, result_of
from denoisecli.types import AudioVector

CLIPS = 24
"""Maximum number of clips that are scored."""

SCORES = {"pesq": "pesq_wb", "estoi": "estoi"}
"""Name of a score in the history of a run -> name of its metric in `METRICS`, from 16 kHz on."""


def _means(futures: Sequence["Future[dict[str, float]]"]) -> dict[str, float]:
    """Wait for scores and return their means over the clips where they are defined.

    Raises:
        DatasetError: A score is not defined for any clip.
        WorkerDied: A worker process died.
    """
    rows = [result_of(future) for future in futures]
    means = {}
    for name in SCORES:
        values = [row[name] for row in rows if math.isfinite(row[name])]
        if not values:
            raise DatasetError(
                f"no clip has enough speech for {name.upper()}; set "
                "training.perceptual_every to null, or increase training.segment_seconds"
            )
        means[name] = float(np.mean(values))
    return means


@contextmanager
def scoring(
    clean: Float[np.ndarray, "clips timesteps"],
    estimates: Float[np.ndarray, "clips timesteps"],
    sample_rate: int,
) -> Iterator[Callable[[], dict[str, float]]]:
    """Compute scores in worker processes while the block runs.

    The processes live only as long as the block, so that none is left if training is killed. They
    are spawned: a script that trains needs ``if __name__ == "__main__":``.

    Args:
        clean: The clean clips, full scale -1..1.
        estimates: The clips to score.
        sample_rate: Sample rate in Hz.

    Yields:
        A function that waits for the scores and returns their means over the clips.
    """
    with process_pool(min(len(clean), cpu_cores())) as pool:
        pairs = zip(clean, estimates, strict=True)
        yield partial(_means, [pool.submit(_score, *pair, sample_rate) for pair in pairs])


def _score(clean: AudioVector, estimate: AudioVector, sample_rate: int) -> dict[str, float]:
    metrics = SCORES | {"pesq": pesq_for(sample_rate)}
    values = measure(clean, estimate, sample_rate, metrics.values())
    return {name: values[metric] for name, metric in metrics.items()}
