"""The clean recordings of a set, cut and joined to clips."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from denoisecli.audio.resampling import fit_length
from denoisecli.datasets.recipe import MIN_DURATION, Recipe, weight_of
from denoisecli.datasets.recordings import Recording
from denoisecli.datasets.splitting import group_keys
from denoisecli.types import AudioVector

PAUSE = 0.2
"""Duration of the silence between joined recordings, in seconds."""

FRAME = 0.02
"""Duration of the frames that are active or not, in seconds."""

ACTIVE_DB = -25.0
"""Lowest level of an active frame in dB, relative to the level of the whole recording."""


class Piece(NamedTuple):
    """A part of a recording in a clip.

    Attributes:
        recording: The recording.
        offset: Its first sample that is used.
        samples: Number of samples that are used.
        at: Position of the first of them in the clip.
    """

    recording: Recording
    offset: int
    samples: int
    at: int


@dataclass(frozen=True)
class Clip:
    """A clean sound to be mixed: a piece of a recording, or several recordings joined.

    Attributes:
        pieces: The parts of recordings in it.
        samples: Its length, with pauses and padding.
    """

    pieces: tuple[Piece, ...]
    samples: int

    def read(self) -> AudioVector:
        """Read the clip; pauses and padding are zeros."""
        sound = np.zeros(self.samples, np.float32)
        for recording, offset, samples, at in self.pieces:
            sound[at : at + samples] = recording.read(offset, samples)
        return sound

    @property
    def rms(self) -> float:
        """RMS of the loudest of its recordings, each measured as a whole."""
        return max(piece.recording.rms for piece in self.pieces)


class Clips:
    """All clips of a set; a sequence that takes only a few bytes per clip.

    Args:
        recordings: The clean recordings.
        recipe: Defines how they are cut, joined and padded.
    """

    def __init__(self, recordings: Sequence[Recording], recipe: Recipe) -> None:
        rate = recipe.sample_rate
        self._recordings = recordings
        self._weights = recipe.clean_weights
        self._pause = round(PAUSE * rate)
        self._segment = None if recipe.segment is None else round(recipe.segment * rate)
        self._padded = self._segment if recipe.pad and self._segment else 0
        self._pieces = array("q")  # number of the recording, offset and samples of each piece
        self._ends = array("q")  # number of pieces up to the end of each clip
        joined = 0 if recipe.join is None else round(recipe.join * rate)
        short = [n for n, recording in enumerate(recordings) if recording.samples < joined]
        longest = round(recipe.longest_clip * rate)
        shortest = int(MIN_DURATION * rate)
        for number, recording in enumerate(recordings):
            step = self._segment or -(-recording.samples // -(-recording.samples // longest))
            length = 0 if recording.samples < joined else recording.samples
            for offset in range(0, length, step):
                samples = min(step, recording.samples - offset)
                if samples >= shortest:
                    self._pieces.extend((number, offset, samples))
                    self._end_clip()
        self._join(short, "folder" if recipe.group_by == "file" else recipe.group_by, joined)

    def _join(self, numbers: Sequence[int], group_by: str, longest: int) -> None:
        """Join short recordings of one group and weight to clips of up to ``longest`` samples."""
        recordings = [self._recordings[number] for number in numbers]
        weights = [weight_of(recording.name, self._weights) for recording in recordings]
        groups = group_keys(recordings, group_by) if recordings else []
        length, previous = 0, None
        for key, number in sorted(zip(zip(groups, weights, strict=True), numbers, strict=True)):
            samples = self._recordings[number].samples
            if length and (key != previous or length + self._pause + samples > longest):
                self._end_clip()
                length = 0
            length += samples + (self._pause if length else 0)
            previous = key
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
            pieces.append(Piece(self._recordings[number], offset, samples, at))
            at += samples + self._pause
        return Clip(tuple(pieces), max(at - self._pause, self._padded))


def active_share(sound: AudioVector, sample_rate: int, rms: float) -> float:
    """Return the share of frames of 20 ms whose level is at most 25 dB below a reference.

    Args:
        sound: The sound, shape (timesteps,), whose mean is left out; the last frame is padded with
            zeros.
        sample_rate: Sample rate in Hz.
        rms: The reference: the RMS of the whole recording.
    """
    sound = sound - sound.mean()
    size = round(FRAME * sample_rate)
    frames = fit_length(sound, -(-sound.size // size) * size).reshape(-1, size)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    return float(np.mean(power >= rms**2 * 10 ** (ACTIVE_DB / 10)))
