from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from denoisecli.datasets.manifest import Manifest
from denoisecli.datasets.records import PairRecords
from denoisecli.training.batches import _bands
from denoisecli.training.segments import (
    CHUNKS,
    CLIP_LEVEL,
    SegmentOrder,
    bands_of_chunks,
    read_segment,
    stored_order,
)

clip_lengths = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any)


def heard(order: SegmentOrder, segments: range) -> Counter[tuple[int, int]]:
    return Counter(tuple(row) for index in segments for row in order[index].tolist())


@settings(deadline=None, max_examples=30)
@given(clip_lengths, st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_every_chunk_is_heard_equally_often(chunks: list[int], seed: int, passes: int) -> None:
    order = SegmentOrder(tuple(chunks), seed)
    # Whole windows, so that the segments are those of a whole number of chunks.
    counts = heard(order, range(passes * CHUNKS * order.window))
    every = {(clip, chunk) for clip, count in enumerate(chunks) for chunk in range(count)}
    assert set(counts) == every
    assert max(counts.values()) - min(counts.values()) <= 1


@given(clip_lengths, st.integers(0, 2**32 - 1))
def test_chunks_of_a_clip_stay_together(chunks: list[int], seed: int) -> None:
    segment = SegmentOrder(tuple(chunks), seed)[7]
    for (clip, chunk), (next_clip, next_chunk) in pairwise(segment.tolist()):
        last = chunk == chunks[clip] - 1
        assert (next_chunk == 0) if last else (next_clip, next_chunk) == (clip, chunk + 1)


def test_the_order_is_new_in_every_pass_and_depends_on_the_seed() -> None:
    chunks = (12,) * 50
    order = SegmentOrder(chunks, 1)
    passes = [[order[50 * n + i].tolist() for i in range(50)] for n in range(3)]
    assert passes[0] != passes[1] != passes[2]
    assert passes[0] == [SegmentOrder(chunks, 1)[index].tolist() for index in range(50)]
    assert passes[0] != [SegmentOrder(chunks, 2)[index].tolist() for index in range(50)]


def test_segments_of_a_long_clip_come_apart() -> None:
    order = SegmentOrder((480,) + (12,) * 40, 0)
    of_the_long_one = [int((order[index][:, 0] == 0).all()) for index in range(80)]
    assert sum(of_the_long_one) >= 38
    runs = "".join(map(str, of_the_long_one)).split("0")
    assert max(map(len, runs)) < 12


def test_stored_order_leaves_out_the_remainder_only() -> None:
    segments = stored_order((5, 0, 30))
    places = np.concatenate(segments)
    assert len(segments) == 35 // CHUNKS
    assert places[:6].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4], [2, 0]]
    assert len({tuple(row) for row in places.tolist()}) == 24
    assert stored_order((3,)) == []


def test_any_position_is_computed_directly() -> None:
    order = SegmentOrder(tuple(range(1, 2000)), 3)
    assert order[10**9].shape == (CHUNKS, 2)
    with pytest.raises(ValueError, match="negative"):
        order[-1]


class Records(PairRecords):
    """Pairs in memory: a sine at 0 dB, and its clean part, of every level."""

    has_speech = False

    def __init__(self, levels: list[float]):
        wave = np.sin(np.arange(12 * 10), dtype=np.float32)
        self.pairs = [(2 * level * wave, level * wave) for level in levels]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[index]


def test_clips_that_are_mixed_anew_have_about_the_same_level() -> None:
    records = Records([0.5, 0.0005, 0.0])
    places = np.array([(clip, index) for clip in range(3) for index in range(4)])
    stored = read_segment(records, (0, 1, 2), places, 10, 100)
    scaled = read_segment(records, (0, 1, 2), places, 10, 100, np.random.default_rng(0))
    levels = scaled.reshape(2, 3, 40).std(axis=2)
    assert 20 * np.log10(levels[1, :2] / CLIP_LEVEL) == pytest.approx([0, 0], abs=6)
    assert levels[1, 0] != levels[1, 1]
    np.testing.assert_allclose(levels[0], 2 * levels[1], rtol=1e-5)  # the SNR stays
    assert levels[1, 2] == 0
    np.testing.assert_array_equal(stored[1, :39], records[0][1][:39])


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_clips_are_faded_where_they_meet(rng: np.random.Generator | None) -> None:
    records = Records([0.5, 0.25])
    records.pairs = [(noisy + 1, clean + 1) for noisy, clean in records.pairs]  # a step at any cut
    places = np.array([(0, index) for index in range(8, 12)] + [(1, index) for index in range(8)])
    noisy, clean = read_segment(records, (0, 1), places, 10, 1000, rng)  # fades of 5 samples
    for sound in (noisy, clean):
        assert np.count_nonzero(sound[[39, 40]]) == 0
        assert np.count_nonzero(sound[[0, -1]]) == 2  # nothing precedes, nothing follows
    whole = read_segment(records, (0, 1), np.array([(0, index) for index in range(12)]), 10, 1000)
    np.testing.assert_array_equal(whole, np.stack(records[0]))


def test_bands_are_those_of_the_recordings_of_the_set() -> None:
    """Folders of different roles may have files of the same names."""

    def source(role: str, bandwidth: int) -> SimpleNamespace:
        return SimpleNamespace(role=role, name="1.wav", bandwidth=bandwidth)

    for own, expected in (("test clean", 8000), ("room", 4000)):
        manifest = Mock(
            Manifest,
            recipe=SimpleNamespace(sample_rate=16000),
            recordings=[source("clean", 4000), source(own, 8000)],
            rows=lambda name: [SimpleNamespace(clean_names=["1.wav"])],
        )
        assert _bands(manifest, "train") == (4000,)
        assert _bands(manifest, "test") == (expected,)


def test_bands_are_those_of_the_clips() -> None:
    places = [np.array([(index // 6, index) for index in range(12)])]
    (bands,) = bands_of_chunks([8000, 24000], places, 48000)
    assert bands[0].tolist() == [8000] * 6 + [24000] * 6
    assert bands_of_chunks([24000, 24000], places, 48000) == ()
