from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from denoisecli.datasets.recordings import Recording, Role
from denoisecli.datasets.splitting import split
from denoisecli.errors import DatasetError, UsageError


def fake(name: str, role: Role = "clean") -> Recording:
    return Recording(role, name, 0.1, name, 16000, Path("pack"), 0)


@pytest.mark.parametrize("count", [2, 3, 10, 101])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.8, 0.99])
def test_by_file(count: int, share: float) -> None:
    recordings = [fake(f"{number % 3}/{number}.wav") for number in range(count)]
    shares = [share, 1 - share]
    first, second = split(recordings, shares, np.random.default_rng(1))
    assert abs(len(first) - min(max(count * share, 1), count - 1)) <= 0.5
    assert sorted(s.name for s in first + second) == sorted(s.name for s in recordings)
    assert [first, second] == split(recordings[::-1], shares, np.random.default_rng(1))


@pytest.mark.parametrize("count", [3, 4, 10, 100])
@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.98, 0.01, 0.01), (0.01, 0.01, 0.98)])
def test_into_three(count: int, shares: tuple[float, ...]) -> None:
    parts = split([fake(str(n)) for n in range(count)], shares, np.random.default_rng(0))
    assert sorted(s.name for part in parts for s in part) == sorted(map(str, range(count)))
    assert all(parts)
    if count == 100:
        assert [len(part) for part in parts] == [round(100 * share) for share in shares]


def test_into_one() -> None:
    (part,) = split([fake("b"), fake("a")], [1.0], np.random.default_rng(0))
    assert [recording.name for recording in part] == ["a", "b"]


def test_draws_evenly() -> None:
    recordings = [fake(str(number)) for number in range(10)]
    counts = Counter(
        s.name
        for seed in range(300)
        for s in split(recordings, [0.5, 0.5], np.random.default_rng(seed))[0]
    )
    assert min(counts.values()) > 100
    assert max(counts.values()) < 200


@pytest.mark.parametrize("seed", range(5))
def test_by_folder(seed: int) -> None:
    recordings = [fake(f"{s}/x/{n}.wav") for s in range(20) for n in range(s % 5 + 1)]
    first, second = split(recordings, [0.8, 0.2], np.random.default_rng(seed), "folder")
    assert {s.folder for s in first}.isdisjoint(s.folder for s in second)
    assert len(first) + len(second) == len(recordings) == 60
    assert abs(len(first) - 48) <= 2


@pytest.mark.parametrize("seed", range(5))
def test_by_regular_expression(seed: int) -> None:
    recordings = [fake(f"{n % 3}/spk{s}_{n}.wav") for s in range(10) for n in range(5)]
    parts = split(recordings, [0.6, 0.2, 0.2], np.random.default_rng(seed), r"(spk\d+)_")
    speakers = [{s.name.split("/")[1].split("_")[0] for s in part} for part in parts]
    assert [len(part) for part in speakers] == [6, 2, 2]
    assert len(set.union(*speakers)) == 10


def test_regular_expression_that_does_not_match() -> None:
    names = ["spk1_a.wav", "spk2_a.wav", "other.wav"]
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match=r"not match 1 of 3 clean recordings, such as other\.wav"):
        split([fake(name) for name in names], [0.5, 0.5], rng, r"(spk\d)_")
    noises = [fake(name, "noise") for name in names]
    assert sum(map(len, split(noises, [0.5, 0.5], rng, r"(spk\d)_"))) == 3


def test_too_few() -> None:
    rng = np.random.default_rng(0)
    halves = [0.8, 0.2]
    with pytest.raises(DatasetError, match=r"clean recordings.*1 file can be used, and 2 sets"):
        split([fake("a/1.wav")], halves, rng)
    with pytest.raises(DatasetError, match=r"1 folder can be used, and 2 sets"):
        split([fake("a/1.wav"), fake("a/2.wav")], halves, rng, "folder")
    with pytest.raises(DatasetError, match=r"2 files can be used, and 3 sets"):
        split([fake("a/1.wav"), fake("a/2.wav")], [0.8, 0.1, 0.1], rng)
    assert all(split([fake("a/1", "noise"), fake("a/2", "noise")], halves, rng, "folder"))
    first, second = split([fake("1"), fake("a/2"), fake("a/3")], [0.1, 0.9], rng, "folder")
    assert len(first) + len(second) == 3
