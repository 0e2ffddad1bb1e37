"""A few clips of a dataset, always the same ones: to be scored, looked at and listened to."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from denoisecli.training.stream import Batch

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


def sample_excerpts(batches: Iterable[Batch], count: int) -> Excerpts:
    """Take clips at even intervals from batches of (noisy, clean).

    Args:
        batches: Batches of equally long clips, iterated over twice; there must be at least one
            clip.
        count: Maximum number of clips.
    """
    total = sum(len(noisy) for noisy, *_ in batches)
    numbers = {*np.linspace(0, total - 1, min(count, total)).astype(int).tolist()}
    pairs = (pair for noisy, clean, *_ in batches for pair in zip(noisy, clean, strict=True))
    chosen = [pair for number, pair in enumerate(pairs) if number in numbers]
    noisy_clips, clean_clips = zip(*chosen, strict=True)
    return Excerpts(np.stack(noisy_clips), np.stack(clean_clips))
