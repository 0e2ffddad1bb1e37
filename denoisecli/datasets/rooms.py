"""Reverberation: sound heard in a room, by the room's impulse response."""

from typing import Any

import numpy as np
from jaxtyping import Float

from denoisecli.datasets.recipe import ReverbTarget
from denoisecli.errors import UsageError
from denoisecli.types import AudioVector

EARLY_SECONDS = 0.05
"""Reflections this soon after the direct sound help to understand it (C50 of ISO 3382-1)."""

ImpulseResponse = Float[np.ndarray, "taps"]


def reverberate(
    dry: AudioVector, response: ImpulseResponse, sample_rate: int, target: ReverbTarget
) -> tuple[AudioVector, AudioVector]:
    """Put a sound into a room.

    The response is shifted and scaled so that the direct sound (its largest sample) arrives at
    once and unchanged: both results are in time with ``dry`` and as long.

    Args:
        dry: The sound without a room.
        response: Impulse response of the room, not silent.
        sample_rate: Hz of both.
        target: What of the room the second result has: nothing, or the reflections of the first
            50 ms.

    Returns:
        The sound in the room, and what a denoiser is to make of it.
    """
    from scipy.signal import fftconvolve  # slow to load

    direct = int(np.argmax(np.abs(response)))
    response = response / response[direct]

    def heard(part: ImpulseResponse) -> AudioVector:
        return fftconvolve(dry, part)[direct : direct + dry.size].astype(np.float32)

    reverberant = heard(response)
    if target == "dry":
        return reverberant, dry
    return reverberant, heard(response[: direct + 1 + round(EARLY_SECONDS * sample_rate)])


def synthetic_response(number: int, seed: int, sample_rate: int) -> ImpulseResponse:
    """Make the impulse response of a random room, by the image method.

    Rooms measure 3 to 10 by 3 to 8 by 2.4 to 4 m and reverberate for 0.15 to 0.8 s (more, where
    so short a time is impossible); source and microphone are at least 0.5 m from the walls.

    Args:
        number: Which room.
        seed: Which rooms.
        sample_rate: Hz.

    Raises:
        UsageError: pyroomacoustics is not installed.
    """
    acoustics = require_pyroomacoustics()
    rng = np.random.default_rng([seed, 4, number])
    size = rng.uniform([3.0, 3.0, 2.4], [10.0, 8.0, 4.0])
    seconds = rng.uniform(0.15, 0.8)
    source, microphone = rng.uniform(0.5, size - 0.5), rng.uniform(0.5, size - 0.5)
    while True:
        try:
            absorption, order = acoustics.inverse_sabine(seconds, size)
            break
        except ValueError:  # not even walls that reflect nothing would make it so short
            seconds *= 1.2
    material = acoustics.Material(absorption)
    room = acoustics.ShoeBox(size, fs=sample_rate, materials=material, max_order=order)
    room.add_source(source)
    room.add_microphone(microphone)
    room.compute_rir()
    return np.asarray(room.rir[0][0], dtype=np.float32)


def require_pyroomacoustics() -> Any:
    """Import pyroomacoustics.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyroomacoustics  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError("synthetic rooms need: pip install 'denoisecli[rooms]'") from error
    return pyroomacoustics
