"""Synthetic noise for the training.

With it, the model does not forget noise other than the user's.
"""

import numpy as np
from jaxtyping import Float

from denoisecli.adaptation.material import Material, Mixtures
from denoisecli.spec.training import Augmentation
from denoisecli.training.augmentation.chain import Chain
from denoisecli.types import AudioVector

PIECES = 16
"""Number of pieces of generated noise that are trained with."""

SECONDS = 6.0
"""Length of a piece in s."""

BABBLE = 5
"""Number of voices that speak at once."""


def generated_noise(material: Material, rng: np.random.Generator) -> list[AudioVector]:
    """Return pieces of coloured noise with hum and clicks, every other one with a babble.

    The babble is made of the speech that is trained with.
    """
    length = round(SECONDS * material.sample_rate)
    speech = np.concatenate([part for source in material.speech for part in source])
    starts = rng.integers(max(1, speech.size - length), size=PIECES)
    voices = np.stack([np.resize(speech[start:], length) for start in starts])
    mixed = with_generated_noise(voices, material.sample_rate, rng)
    return [noisy - clean for noisy, clean in mixed]


def with_generated_noise(
    clean: Float[np.ndarray, "clips timesteps"], sample_rate: int, rng: np.random.Generator
) -> Mixtures:
    """Mix speech at 0 to 10 dB with coloured noise, hum and clicks, half of it with babble, too.

    Args:
        clean: Passages of speech, which the babble is made of as well.
        sample_rate: Sample rate in Hz.
        rng: Source of the random numbers.
    """
    clips, timesteps = clean.shape
    voices = np.stack([clean[rng.permutation(clips)] for _ in range(BABBLE)]).sum(axis=0)
    voices[::2] = 0
    settings = Augmentation(
        snr_db=(0.0, 10.0),
        second_noise=0.0,
        third_noise=0.0,
        clean_only=0.0,
        noise_only=0.0,
        level_dbfs=None,
        equalization_db=0.0,
        coloured_noise=1.0,
        hum=0.3,
        clicks=0.3,
        synthetic_noise_db=(-10.0, 0.0),
    )
    chain = Chain(settings, sample_rate)
    draws = chain.draw(clips, timesteps, rng)
    mixed = chain.apply(clean.astype(np.float32), voices.astype(np.float32), draws)
    noisy, target = (np.asarray(part, np.float32) for part in mixed)
    return list(zip(noisy, target, strict=True))
