"""A few clips of a dataset, always the same ones: to be scored, looked at and listened to."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from jaxtyping import Float

Clips = Float[np.ndarray, "clips timesteps"]


@dataclass(frozen=True)
class Excerpts:
    """Clips of equal length; full scale is -1..1.

    Attributes:
        noisy: The mixtures.
        clean: The clean part of each mixture.
    """

    noisy: Clips
    clean: Clips


def sample_excerpts(batches: tf.data.Dataset, count: int) -> Excerpts:
    """Take clips at even intervals from batches of (noisy, clean).

    Args:
        batches: Batches of equally long clips; there must be at least one clip.
        count: Maximum number of clips.
    """
    clips = batches.unbatch()
    total = int(clips.reduce(np.int64(0), lambda number, *_: number + 1))
    chosen = clips.shard(max(1, total // count), 0).take(count)
    noisy, clean, *_ = zip(*chosen.as_numpy_iterator(), strict=True)
    return Excerpts(np.stack(noisy), np.stack(clean))
