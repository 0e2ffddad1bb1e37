"""Noise that is generated, so that the model does not forget noise other than the user's."""

import numpy as np

from denoisecli.adaptation.material import Stretch
from denoisecli.audio.resampling import fit_length, resample
from denoisecli.datasets import synthetic_noise
from denoisecli.types import AudioVector

PIECES = 48
"""Number of pieces that are trained with: two of each kind of synthetic noise, and 12 of babble."""

SECONDS = 6.0
"""Length of a piece in s."""

VOICES = 5
"""Number of voices in a babble."""


def generated_noise(
    count: int, timesteps: int, sample_rate: int, speech: Stretch, rng: np.random.Generator
) -> list[AudioVector]:
    """Return pieces of synthetic noise of one kind after the other, and every fourth of babble.

    Args:
        count: Number of pieces.
        timesteps: Length of each in samples.
        sample_rate: Sample rate in Hz.
        speech: Speech that the babble is made of.
        rng: Source of the random numbers.
    """
    kinds = list(synthetic_noise.KINDS)
    pieces = []
    for number in range(count):
        if number % 4 == 3:
            starts = rng.integers(max(1, speech.size - timesteps), size=VOICES)
            piece = np.sum([np.resize(speech[start:], timesteps) for start in starts], axis=0)
        else:
            kind = kinds[(number - number // 4) % len(kinds)]
            seed = int(rng.integers(2**31))
            sound = synthetic_noise.synthesize(kind, number, seed, timesteps / sample_rate)
            piece = resample(sound, synthetic_noise.SAMPLE_RATE, sample_rate)
        pieces.append(fit_length(piece, timesteps).astype(np.float32))
    return pieces
