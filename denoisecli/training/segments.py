"""Segments of equal length, cut from the clips of a dataset that are laid end to end."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from denoisecli.datasets.mix import SILENCE_RMS
from denoisecli.datasets.records import PairRecords
from denoisecli.spec.document import Spec

CHUNKS = 12
"""Number of chunks of a segment. Clips are cut into chunks, of which only the last is padded."""

Places = Int[np.ndarray, "chunks 2"]
"""For each chunk of a segment, the index of its clip and its index in the clip."""

CLIP_LEVEL = 0.05
"""RMS (-26 dBFS) of the clean part to which the clips of a segment are scaled."""

CLIP_LEVEL_DB = (-5.0, 5.0)
"""Limits of the differences in level in dB that are left between the clips."""

FADE_SECONDS = 0.005
"""Length of the fades in a segment where one recording ends and another begins."""

FULL_BAND = 0.95
"""A recording whose band ends above this share of half of the sample rate has the full band."""


def chunk_samples(spec: Spec) -> int:
    """Return the length of a chunk in samples."""
    return max(1, round(spec.training.segment_seconds * spec.audio.sample_rate / CHUNKS))


@dataclass(frozen=True, eq=False)  # else the key of _pass would be hashed clip by clip
class SegmentOrder:
    """An endless sequence of segments in which all chunks of all clips occur equally often.

    The clips are permuted anew for each pass through the dataset and laid end to end, pass after
    pass, so that no remainder is left out. The segments are then permuted within windows of about
    a pass, which separates those of a long clip. The sequence depends on the seed only, and any
    position of it can be computed directly.

    Args:
        chunks: Number of chunks of each clip; their sum is at least 1.
        seed: Seed of the permutations.
    """

    chunks: tuple[int, ...]
    seed: int

    @cached_property
    def total(self) -> int:
        """Number of chunks of all clips."""
        return sum(self.chunks)

    @property
    def window(self) -> int:
        """Number of segments that are permuted among themselves: those of a pass, at least 1."""
        return max(1, self.total // CHUNKS)

    def __getitem__(self, index: int) -> Places:
        """Return the chunks of the segment at a position, which is at least 0."""
        if index < 0:
            raise ValueError(f"the position of a segment cannot be negative, found {index}")
        window, place = divmod(index, self.window)
        segment = window * self.window + _permutation(self.seed, 1, window, self.window)[place]
        positions = segment * CHUNKS + np.arange(CHUNKS)
        passes, positions = np.divmod(positions, self.total)
        rows = []
        for number, position in zip(passes.tolist(), positions, strict=True):
            order, ends = _pass(self, number)
            place = np.searchsorted(ends, position, side="right")
            clip = order[place]
            rows.append((clip, position - (ends[place] - self.chunks[clip])))
        return np.array(rows)


def stored_order(chunks: tuple[int, ...]) -> list[Places]:
    """Return the segments of one pass in the stored order; a remainder is left out."""
    places = np.array(
        [(clip, chunk) for clip, count in enumerate(chunks) for chunk in range(count)], np.int64
    ).reshape(-1, 2)
    count = len(places) // CHUNKS
    return list(places[: count * CHUNKS].reshape(count, CHUNKS, 2))


def runs_of(places: Places) -> list[tuple[int, int]]:
    """Return the range (start, end) of each run of successive chunks; ``end`` is exclusive."""
    steps = np.diff(places, axis=0)
    starts = np.flatnonzero((steps != (0, 1)).any(axis=1)) + 1
    bounds = [0, *starts.tolist(), len(places)]
    return list(pairwise(bounds))


def fade_edges(
    sound: Float[np.ndarray, "timesteps"], sample_rate: int, *, start: bool, end: bool
) -> None:
    """Fade a piece of sound in and out in place, or the network would learn to keep the clicks.

    Args:
        sound: What a segment has of one recording.
        sample_rate: Sample rate in Hz.
        start: Whether something precedes it in the segment.
        end: Whether something follows.
    """
    rise = np.linspace(0, 1, max(1, round(FADE_SECONDS * sample_rate)), dtype=np.float32)
    rise = rise[: sound.size]
    if start:
        sound[: rise.size] *= rise
    if end:
        sound[sound.size - rise.size :] *= rise[::-1]


def read_segment(
    records: PairRecords,
    clips: tuple[int, ...],
    places: Places,
    chunk: int,
    sample_rate: int,
    rng: np.random.Generator | None = None,
) -> Float[np.ndarray, "parts segment"]:
    """Read the noisy and the clean samples of a segment, and reverberant speech if it is stored.

    All of them are faded where clips follow each other within the segment.

    Args:
        records: Pairs of the set.
        clips: Index of each clip in the set.
        places: Chunks of the segment.
        chunk: Length of a chunk in samples.
        sample_rate: Sample rate in Hz.
        rng: If given, clips are scaled to about the same level, with differences that it draws.
            Otherwise, a segment that is mixed anew at one SNR would drown its softest clip.
    """
    count = 3 if records.has_speech else 2
    segment = np.zeros((count, len(places) * chunk), np.float32)
    gains: dict[int, float] = {}
    for start, end in runs_of(places):
        clip, index = places[start].tolist()
        sounds = list(records[clips[clip]])
        if records.has_speech:
            sounds.append(records.speech(clips[clip]))
        if rng is not None and clip not in gains:
            gains[clip] = clip_gain(float(np.std(sounds[1])), rng)
        for part, sound in enumerate(sounds):
            piece = sound[index * chunk : (index + end - start) * chunk]
            target = segment[part, start * chunk : start * chunk + piece.size]
            np.multiply(piece, gains.get(clip, 1.0), out=target)
            follows = start * chunk + piece.size < segment.shape[1]
            fade_edges(target, sample_rate, start=start > 0, end=follows)
    return segment


def clip_gain(level: float, rng: np.random.Generator) -> float:
    """Draw the factor that scales a clip to about CLIP_LEVEL; 1 if its clean part is silent.

    Args:
        level: RMS of the clean part without its mean.
        rng: Source of the difference from CLIP_LEVEL.
    """
    difference = float(10 ** (rng.uniform(*CLIP_LEVEL_DB) / 20))
    return CLIP_LEVEL * difference / level if level > SILENCE_RMS else 1.0


def known_band(bandwidth: int, sample_rate: int) -> int:
    """Return the frequency in Hz up to which a clean recording is treated as known.

    It is half of the sample rate if the recording has the full band, or if its band is not known.

    Args:
        bandwidth: Highest frequency in Hz at which the recording has sound; 0 if it is not known.
        sample_rate: Sample rate of the model in Hz.
    """
    full = sample_rate // 2
    return bandwidth if 0 < bandwidth < FULL_BAND * full else full


def bands_of_chunks(
    bands: Sequence[int], segments: Sequence[Places], sample_rate: int
) -> tuple[()] | tuple[Float[np.ndarray, "batch chunks"]]:
    """Return what a batch has besides noisy and clean: the known bands of its chunks in Hz.

    Args:
        bands: Known band of each clip in Hz.
        segments: Segments of the batch.
        sample_rate: Sample rate of the model in Hz.

    Returns:
        Nothing if all clips, in this batch or not, have the full band.
    """
    if min(bands, default=sample_rate) >= sample_rate // 2:
        return ()
    return (np.array(bands, np.float32)[np.stack(segments)[:, :, 0]],)


@lru_cache(maxsize=8)
def _permutation(seed: int, kind: int, number: int, size: int) -> Int[np.ndarray, "size"]:
    return np.random.default_rng([seed, kind, number]).permutation(size)


@lru_cache(maxsize=4)
def _pass(
    segments: SegmentOrder, number: int
) -> tuple[Int[np.ndarray, "clips"], Int[np.ndarray, "clips"]]:
    """Return the order of the clips in a pass, and the number of chunks up to the end of each."""
    order = _permutation(segments.seed, 0, number, len(segments.chunks))
    return order, np.cumsum(np.array(segments.chunks)[order])
