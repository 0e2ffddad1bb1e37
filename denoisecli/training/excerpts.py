"""A few clips of a set, always the same: to be scored, looked at and listened to."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float

Clips = Float[np.ndarray, "clips timesteps"]


@dataclass(frozen=True)
class Excerpts:
    """Equally long clips; full scale -1..1."""

    noisy: Clips
    clean: Clips


def sample(batches: tf.data.Dataset, count: int) -> Excerpts:
    """At most so many clips, evenly spaced in a set of (noisy, clean) batches."""
    clips = batches.unbatch()
    total = int(clips.reduce(np.int64(0), lambda number, *_: number + 1))
    chosen = clips.shard(max(1, total // count), 0).take(count)
    noisy, clean = zip(*chosen.as_numpy_iterator(), strict=True)
    return Excerpts(np.stack(noisy), np.stack(clean))


def estimate(task: keras.Model, excerpts: Excerpts, batch_size: int) -> Clips:
    """What a task (waveforms in, waveforms out) makes of the noisy clips."""
    return task.predict(excerpts.noisy, batch_size=batch_size, verbose=0)
