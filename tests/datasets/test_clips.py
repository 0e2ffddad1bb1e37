from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denoisecli.datasets.clips import Clip, Clips, Piece, active_share
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Recording

RATE = 1000
PAUSE = 200


@pytest.fixture
def recordings(tmp_path: Path) -> Any:
    """Make ``recordings(name=samples, ...)``; every sample tells which recording it is of."""

    def make(**lengths: int) -> list[Recording]:
        pack = tmp_path / "0.f32"
        sounds = [np.full(length, number + 1.0) for number, length in enumerate(lengths.values())]
        pack.write_bytes(np.concatenate(sounds).astype(np.float32).tobytes())
        starts = np.cumsum([0, *lengths.values()]).tolist()
        return [
            Recording("clean", name.replace("_", "/"), 1.0, name, length, pack, start)
            for (name, length), start in zip(lengths.items(), starts, strict=False)
        ]

    return make


def clips(sources: list[Recording], **arguments: Any) -> list[Clip]:
    made = Clips(sources, Recipe(ratio=0.5, sample_rate=RATE, **arguments))
    return [made[index] for index in range(len(made))]


def places(clip: Clip) -> list[tuple[str, int, int, int]]:
    return [(piece.recording.name, *piece[1:]) for piece in clip.pieces]


def test_whole_recordings(recordings: Any) -> None:
    sources = recordings(a=1000, b=300)
    assert [places(clip) for clip in clips(sources)] == [[("a", 0, 1000, 0)], [("b", 0, 300, 0)]]
    assert not len(Clips([], Recipe(ratio=0.5)))


def test_segments(recordings: Any) -> None:
    made = clips(recordings(a=2050, b=1100, c=400), segment=1.0)
    assert [(clip.samples, *places(clip)) for clip in made] == [
        (1000, ("a", 0, 1000, 0)),
        (1000, ("a", 1000, 1000, 0)),  # the last 50 are too short
        (1000, ("b", 0, 1000, 0)),
        (100, ("b", 1000, 100, 0)),
        (400, ("c", 0, 400, 0)),
    ]
    assert all((made[2].read() == 2).tolist())


def test_long_recordings_are_cut_into_equal_clips_by_default(recordings: Any) -> None:
    sources = recordings(a=10_000, b=25_001, c=10_040)
    made = [(clip.pieces[0].recording.name, clip.samples) for clip in clips(sources)]
    assert made == [
        ("a", 10_000),
        ("b", 8334),
        ("b", 8334),
        ("b", 8333),
        ("c", 5020),
        ("c", 5020),
    ]
    assert len(clips(sources, segment=100.0)) == 3
    assert [clip.samples for clip in clips(sources, join=11.0)][:2] == [8334, 8334]


def test_padding(recordings: Any) -> None:
    whole, short = clips(recordings(a=1000, b=300), segment=1.0, pad=True)
    assert (whole.samples, short.samples) == (1000, 1000)
    np.testing.assert_array_equal(short.read(), [2] * 300 + [0] * 700)


def test_joining(recordings: Any) -> None:
    sources = recordings(x_a=400, x_b=500, x_c=300, y_a=300, x_long=2500, y_b=350)
    made = clips(sources, join=2.0, segment=2.0)
    assert sorted(places(clip) for clip in made) == [
        [("x/a", 0, 400, 0), ("x/b", 0, 500, 600), ("x/c", 0, 300, 1300)],
        [("x/long", 0, 2000, 0)],
        [("x/long", 2000, 500, 0)],  # the rest of a long one is not joined: one file, one clip
        [("y/a", 0, 300, 0), ("y/b", 0, 350, 500)],
    ]
    joined = next(clip for clip in made if len(clip.pieces) == 3)
    assert joined.samples == 1600
    expected = np.concatenate([[1] * 400, [0] * PAUSE, [2] * 500, [0] * PAUSE, [3] * 300])
    np.testing.assert_array_equal(joined.read(), expected)
    assert all(clip.samples <= 2000 for clip in made)
    assert len(clips(sources, join=0.9)) == 5


def test_joining_by_speaker(recordings: Any) -> None:
    made = clips(recordings(x_1a=400, x_1b=400, x_2a=400), join=5.0, group_by=r"/(\d)")
    assert [[piece.recording.name for piece in clip.pieces] for clip in made] == [
        ["x/1a", "x/1b"],
        ["x/2a"],
    ]


def test_sourcesof_another_weight_are_not_joined(recordings: Any) -> None:
    sources = recordings(x_a=400, x_bad=400, x_c=400)
    made = clips(sources, join=5.0, clean_weights={"*bad": 0})
    names = sorted([piece.recording.name for piece in clip.pieces] for clip in made)
    assert names == [["x/a", "x/c"], ["x/bad"]]


def test_level_is_that_of_the_loudest(recordings: Any) -> None:
    quiet, loud = recordings(a=100, b=200)
    clip = Clip((Piece(quiet, 0, 100, 0), Piece(loud, 0, 200, 300)), 500)
    assert clip.rms == 1.0


def test_activity(rng: np.random.Generator) -> None:
    sound = np.zeros(16000, np.float32)
    sound[4000:8000] = 0.1 * rng.standard_normal(4000)
    assert active_share(sound, 16000, 0.05) == pytest.approx(0.25, abs=0.02)
    noisy = sound + np.float32(1e-4) * rng.standard_normal(16000).astype(np.float32)
    assert active_share(noisy, 16000, 0.05) == pytest.approx(0.25, abs=0.02)
    assert active_share(noisy, 16000, 1e-3) == 1
    assert active_share(sound, 16000, 10.0) == 0
    assert active_share(np.tile(np.float32([1, -1]), 50), 16000, 0.5) == 1
    assert active_share(sound + np.float32(0.5), 16000, 0.05) == pytest.approx(0.25, abs=0.02)
    assert active_share(np.full(16000, 0.5, np.float32), 16000, 0.05) == 0
