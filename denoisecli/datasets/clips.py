"""The clean recordings of a set, cut and joined to clips."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from denoisecli.audio.resampling import fit_length
from denoisecli.datasets.recipe import MIN_DURATION, Recipe, weight_of
from denoisecli.datasets.recordings import Source
from denoisecli.datasets.splitting import group_keys
from denoisecli.types import AudioVector

PAUSE = 0.2
"""Seconds of silence between recordings that are joined."""

FRAME = 0.02
"""Seconds of a frame that is active or not."""

ACTIVE_DB = -25.0
"""A frame is active if its level, relative to that of the whole recording, is not below this."""


class Piece(NamedTuple):
    """Part of a recording in a clip.

    Attributes:
        source: The recording.
        offset: First sample of it that is used.
        samples: Number of samples used.
        at: Where in the clip they begin.
    """

    source: Source
    offset: int
    samples: int
    at: int


@dataclass(frozen=True)
class Clip:
    """Clean sound that is mixed at a time: a piece of a recording, or several recordings joined."""

    pieces: tuple[Piece, ...]
    samples: int

    def read(self) -> AudioVector:
        """Read it; pauses, and what was added at its end, are silent."""
        sound = np.zeros(self.samples, np.float32)
        for source, offset, samples, at in self.pieces:
            sound[at : at + samples] = source.read(offset, samples)
        return sound

    @property
    def rms(self) -> float:
        """Level of the loudest of the recordings it is made of."""
        return max(piece.source.rms for piece in self.pieces)


class Clips:
    """All clips of a set; a sequence of :class:`Clip` that takes a few bytes for each.

    Args:
        sources: The clean recordings.
        recipe: How they are cut, joined and padded.
    """

    def __init__(self, sources: Sequence[Source], recipe: Recipe) -> None:
        rate = recipe.sample_rate
        self._sources = sources
        self._weights = recipe.clean_weights
        self._pause = round(PAUSE * rate)
        self._segment = None if recipe.segment is None else round(recipe.segment * rate)
        self._padded = self._segment if recipe.pad and self._segment else 0
        self._pieces = array("q")  # recording, offset, samples of each piece
        self._ends = array("q")  # number of the pieces of a clip, and of all before it
        longest = 0 if recipe.join is None else round(recipe.join * rate)
        short = [number for number, source in enumerate(sources) if source.samples < longest]
        shortest = int(MIN_DURATION * rate)
        for number, source in enumerate(sources):
            step = self._segment or source.samples
            for offset in range(0, 0 if source.samples < longest else source.samples, step):
                samples = min(step, source.samples - offset)
                if samples >= shortest:
                    self._pieces.extend((number, offset, samples))
                    self._end_clip()
        self._join(short, "folder" if recipe.group_by == "file" else recipe.group_by, longest)

    def _join(self, numbers: Sequence[int], group_by: str, longest: int) -> None:
        sources = [self._sources[number] for number in numbers]
        weights = [weight_of(source.name, self._weights) for source in sources]
        keys = list(zip(group_keys(sources, group_by), weights, strict=True)) if sources else []
        length, group = 0, None
        for key, number in sorted(zip(keys, numbers, strict=True)):
            samples = self._sources[number].samples
            if length and (key != group or length + self._pause + samples > longest):
                self._end_clip()
                length = 0
            length += samples + (self._pause if length else 0)
            group = key
            self._pieces.extend((number, 0, samples))
        if length:
            self._end_clip()

    def _end_clip(self) -> None:
        self._ends.append(len(self._pieces) // 3)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Clip:
        first = self._ends[index - 1] if index else 0
        pieces, at = [], 0
        for place in range(3 * first, 3 * self._ends[index], 3):
            number, offset, samples = self._pieces[place : place + 3]
            pieces.append(Piece(self._sources[number], offset, samples, at))
            at += samples + self._pause
        return Clip(tuple(pieces), max(at - self._pause, self._padded))


def active_share(sound: AudioVector, sample_rate: int, rms: float) -> float:
    """Give the share of frames of 20 ms that are at most 25 dB below a level.

    Args:
        sound: The sound; silence is added to its last frame.
        sample_rate: Hz.
        rms: The level: that of the recording that the sound is from.
    """
    size = round(FRAME * sample_rate)
    frames = fit_length(sound, -(-sound.size // size) * size).reshape(-1, size)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    return float(np.mean(power >= rms**2 * 10 ** (ACTIVE_DB / 10)))
