"""Reverberation: a sound in a room, by the impulse response of the room."""

import numpy as np
from jaxtyping import Float

from denoisecli.datasets.choices import ReverbTarget
from denoisecli.system.extras import require
from denoisecli.types import AudioVector

EARLY_SECONDS = 0.05
"""Reflections up to this time after the direct sound aid intelligibility (C50 of ISO 3382-1)."""

ImpulseResponse = Float[np.ndarray, "taps"]


def reverberate(
    dry: AudioVector, response: ImpulseResponse, sample_rate: int, target: ReverbTarget
) -> tuple[AudioVector, AudioVector]:
    """Add the reverberation of a room to a sound.

    The response is shifted and scaled such that the direct sound (its largest sample) has no delay
    and a gain of 1: both results are aligned with ``dry`` and have its length.

    Args:
        dry: The sound without reverberation, shape (timesteps,).
        response: Impulse response of the room, shape (taps,), not silent.
        sample_rate: Sample rate of both in Hz.
        target: Whether the second result is dry, or has the reflections of the first 50 ms.

    Returns:
        The reverberant sound, and the target of a denoiser for it.
    """
    from scipy.signal import fftconvolve  # slow to import

    direct = int(np.argmax(np.abs(response)))
    response = response / response[direct]

    def convolve(part: ImpulseResponse) -> AudioVector:
        return fftconvolve(dry, part)[direct : direct + dry.size].astype(np.float32)

    reverberant = convolve(response)
    if target == ReverbTarget.DRY:
        return reverberant, dry
    return reverberant, convolve(response[: direct + 1 + round(EARLY_SECONDS * sample_rate)])


def synthetic_response(number: int, seed: int, sample_rate: int) -> ImpulseResponse:
    """Compute the impulse response of a random room by the image source method.

    Rooms measure 3 to 10 by 3 to 8 by 2.4 to 4 m; their reverberation time is 0.15 to 0.8 s, or
    more where that is too short for the size. Source and microphone are at least 0.5 m from the
    walls.

    Args:
        number: Number of the room.
        seed: Seed of the rooms.
        sample_rate: Sample rate in Hz.

    Raises:
        UsageError: pyroomacoustics is not installed.
    """
    require_pyroomacoustics()
    import pyroomacoustics  # type: ignore[import-untyped]

    rng = np.random.default_rng([seed, 4, number])
    size = rng.uniform([3.0, 3.0, 2.4], [10.0, 8.0, 4.0])
    seconds = rng.uniform(0.15, 0.8)
    source, microphone = rng.uniform(0.5, size - 0.5), rng.uniform(0.5, size - 0.5)
    while True:
        try:
            absorption, order = pyroomacoustics.inverse_sabine(seconds, size)
            break
        except ValueError:  # even walls that absorb everything reverberate for longer
            seconds *= 1.2
    material = pyroomacoustics.Material(absorption)
    room = pyroomacoustics.ShoeBox(size, fs=sample_rate, materials=material, max_order=order)
    room.add_source(source)
    room.add_microphone(microphone)
    room.compute_rir()
    return np.asarray(room.rir[0][0], dtype=np.float32)


def require_pyroomacoustics() -> None:
    """Raise UsageError if the package that simulates rooms is not installed."""
    require("rooms", "pyroomacoustics", purpose="simulating rooms")
