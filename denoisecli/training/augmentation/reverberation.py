"""Augmentation that puts speech into rooms.

Shape of all signals: (batch, timesteps).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from keras import ops

from denoisecli.datasets.rooms import EARLY_SECONDS
from denoisecli.training.augmentation.ops import (
    Parameters,
    Values,
    draw_rows,
    replace_rows,
    rms,
    select_rows,
)

FIRST_REFLECTION_SECONDS = 0.003
"""Time from the direct sound to the first reflection."""

DENSE_SECONDS = 0.04
"""Time at which reflections are as dense as samples; their density grows with its square."""

DIRECT_SECONDS = 0.001
"""Time from the direct sound in a response up to which it is the direct sound itself."""

LONGEST_SECONDS = 1.0
"""Longest reverberation of given rooms; what follows is at most -60 dB in most of them."""

Tail = Float[np.ndarray, "tail_taps"]
"""Response of a room from the direct sound on, which it leaves out and whose gain is 1."""


@dataclass(frozen=True)
class Reverberation:
    """Put some examples into a room: reflections follow the direct sound.

    Unless rooms are given, the reflections are exponentially decaying noise. This is the model of
    Polack, "La transmission de l'énergie sonore dans les salles" (1988), with few and strong early
    reflections, as in rooms of any shape (Kuttruff, "Room Acoustics").

    Attributes:
        probability: Probability that an example is changed.
        rt60_seconds: Limits of the time in s in which reverberation decays by 60 dB.
        direct_to_reverberant_db: Limits of the energy ratio of direct sound to reflections in dB.
        sample_rate: Sample rate in Hz.
        target: Content of the target: "dry" sound, "early" reflections or all ("reverberant").
        rooms: Rooms to choose from, instead of random noise; see `tail_of`.
    """

    probability: float
    rt60_seconds: tuple[float, float]
    direct_to_reverberant_db: tuple[float, float]
    sample_rate: int
    target: str = "early"
    rooms: Sequence[np.ndarray] = field(default=(), compare=False)

    def draw(self, batch: int, rng: np.random.Generator) -> Parameters:
        """Draw the examples, and the impulse responses of their rooms without the direct sound.

        Shape:
            - rows, present: (rows,)
            - tail: (rows, samples of the longest reverberation)
        """
        rows = draw_rows(batch, self.probability, rng)
        count = rows["rows"].size
        if self.rooms:
            tail = np.zeros((count, max(map(len, self.rooms))), np.float32)
            for row, number in enumerate(rng.integers(len(self.rooms), size=count)):
                tail[row, : len(self.rooms[number])] = self.rooms[number]
        else:
            tail = self._draw_tails(count, rng)
        return {**rows, "tail": tail}

    def _draw_tails(self, count: int, rng: np.random.Generator) -> Float[np.ndarray, "rows taps"]:
        rt60 = rng.uniform(*self.rt60_seconds, (count, 1))
        reverberant = 10 ** (-rng.uniform(*self.direct_to_reverberant_db, (count, 1)) / 20)
        seconds = np.arange(round(self.rt60_seconds[1] * self.sample_rate)) / self.sample_rate
        density = np.clip((seconds / DENSE_SECONDS) ** 2, 0.01, 1)
        present = rng.random((count, seconds.size)) < density * (
            seconds >= FIRST_REFLECTION_SECONDS
        )
        tail = rng.standard_normal((count, seconds.size)) * 10 ** (-3 * seconds / rt60)
        tail = np.where(present, tail / np.sqrt(density), 0)
        energy = np.sum(np.square(tail), axis=1, keepdims=True)
        return (tail * reverberant / np.sqrt(np.maximum(energy, 1e-8))).astype(np.float32)

    def apply(self, speech: Any, parameters: Values, target: Any | None = None) -> tuple[Any, Any]:
        """Add the reflections.

        Args:
            speech: Speech.
            parameters: Random parameters.
            target: Target for the speech, if it is already reverberant.

        Returns:
            The speech with all reflections at its own RMS, and the target at the same gain: without
            reflections, with those of the first `EARLY_SECONDS`, or with all.
        """
        dry = select_rows(speech, parameters)
        wet = _with_reflections(dry, parameters["tail"])
        wanted = dry if target is None else select_rows(target, parameters)
        if self.target == "early":
            early = round(EARLY_SECONDS * self.sample_rate)
            wanted = _with_reflections(wanted, parameters["tail"][:, :early])
        elif self.target == "reverberant":
            wanted = wet if target is None else _with_reflections(wanted, parameters["tail"])
        level = (rms(dry) / ops.maximum(rms(wet), 1e-8))[:, None]
        return (
            replace_rows(speech, parameters, level * wet),
            replace_rows(speech if target is None else target, parameters, level * wanted),
        )


def _with_reflections(dry: Any, tail: Any) -> Any:
    """Add reflections to a sound, which is a loop.

    Shape:
        - dry, output: (rows, timesteps)
        - tail: (rows, taps)
    """
    timesteps = dry.shape[1]
    tail = tail[:, :timesteps]
    tail = ops.pad(tail, ((0, 0), (0, timesteps - tail.shape[1])))
    a, b = ops.rfft(dry, fft_length=timesteps)
    c, d = ops.rfft(tail, fft_length=timesteps)
    return dry + ops.irfft((a * c - b * d, a * d + b * c), fft_length=timesteps)


def tail_of(response: Float[np.ndarray, "taps"], sample_rate: int) -> Tail:
    """Return the reflections in the impulse response of a room, relative to the direct sound.

    The direct sound is the largest sample of the response and what is close to it.

    Args:
        response: Impulse response, not silent.
        sample_rate: Sample rate in Hz.
    """
    direct = int(np.argmax(np.abs(response)))
    tail = response[direct : direct + round(LONGEST_SECONDS * sample_rate)] / response[direct]
    tail[: round(DIRECT_SECONDS * sample_rate)] = 0
    return tail.astype(np.float32)
