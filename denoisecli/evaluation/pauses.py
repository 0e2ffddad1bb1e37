"""Levels of speech and of noise in a recording whose clean sound is unknown, from its pauses.

A pause is what is quietest in the reference, usually the unprocessed recording: the quietest
PAUSE_SHARE of its frames of 50 ms, whose powers are averaged over five frames to choose them.
Speech is every other frame that is within SPEECH_RANGE_DB of the loudest ones and at least 3 dB
above the pauses. The same frames are measured in every cleaned version of a recording.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from denoisecli.types import AudioVector

PAUSE_SHARE = 0.15
"""Share of the frames that are pauses."""

SPEECH_RANGE_DB = 20.0
"""Distance in dB of the quietest frames of speech to the loudest ones (95 % quantile)."""

FLOOR_DB = -120.0
"""Lowest level in dBFS; digital silence has it."""

MIN_SECONDS = 1.0
"""Shortest recording in s whose levels are defined."""

FRAME_SECONDS = 0.05
"""Length of a frame in s."""

_SMOOTHED_FRAMES = 5
_LOUDEST = 0.95


class Levels(NamedTuple):
    """Levels of a sound; NaN if they are undefined.

    Attributes:
        noise_floor: Level in the pauses in dBFS.
        speech_level: Level of the speech in dBFS, without the power of the noise floor.
        estimated_snr: Difference of the two in dB.
    """

    noise_floor: float
    speech_level: float
    estimated_snr: float


def levels(reference: AudioVector, estimate: AudioVector, sample_rate: int) -> Levels:
    """Measure a sound where the reference has pauses and where it has speech.

    Args:
        reference: The recording that pauses are found in.
        estimate: The sound to measure, of the same length; it may be the reference.
        sample_rate: Sample rate of both in Hz.

    Returns:
        The levels; NaN if the recording is shorter than MIN_SECONDS or silent, and those of speech
        also if there is no speech.
    """
    undefined = Levels(math.nan, math.nan, math.nan)
    if reference.size < MIN_SECONDS * sample_rate:
        return undefined
    found = find_frames(_powers(reference, sample_rate))
    if found is None:
        return undefined
    pauses, speech = found
    powers = _powers(estimate, sample_rate)
    noise = float(powers[pauses].mean())
    floor = level_of(noise)
    if not speech.any():
        return Levels(floor, math.nan, math.nan)
    level = level_of(max(float(powers[speech].mean()) - noise, 0.0))
    return Levels(floor, level, level - floor)


_Powers = Float[np.ndarray, "frames"]
_Mask = Bool[np.ndarray, "frames"]


def _powers(sound: AudioVector, sample_rate: int) -> _Powers:
    """Return the mean power of each frame without the mean of the sound, 0 for a constant one."""
    length = max(round(FRAME_SECONDS * sample_rate), 1)
    count = sound.size // length
    frames = sound[: count * length].reshape(count, length)
    return np.where(np.ptp(frames, axis=1) > 0, np.square(frames - sound.mean()).mean(axis=1), 0.0)


def find_frames(powers: _Powers) -> tuple[_Mask, _Mask] | None:
    """Return which frames are pauses and which are speech; None if all are digital silence.

    Args:
        powers: Mean power of each frame of FRAME_SECONDS, without the mean of the sound.
    """
    sounding = powers > 10 ** (FLOOR_DB / 10)  # what an editor has muted is not a pause
    if not sounding.any():
        return None
    padded = np.pad(powers, _SMOOTHED_FRAMES // 2, mode="edge")
    smoothed = np.convolve(padded, np.full(_SMOOTHED_FRAMES, 1 / _SMOOTHED_FRAMES), "valid")
    pauses = sounding & (smoothed <= np.quantile(smoothed[sounding], PAUSE_SHARE))
    if not pauses.any():  # the quietest frames are beside muted ones
        pauses = sounding & (powers <= np.quantile(powers[sounding], PAUSE_SHARE))
    loudest = np.quantile(powers[sounding], _LOUDEST)
    threshold = max(loudest * 10 ** (-SPEECH_RANGE_DB / 10), 2 * powers[pauses].mean())
    return pauses, ~pauses & (powers >= threshold)


def level_of(power: float) -> float:
    """Return the level of a power in dBFS, FLOOR_DB or more."""
    return 10 * math.log10(max(power, 10 ** (FLOOR_DB / 10)))
