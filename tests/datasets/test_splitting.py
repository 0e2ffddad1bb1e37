from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Recording, Role
from denoisecli.datasets.splitting import group_keys, split, split_into_sets
from denoisecli.errors import DatasetError, UsageError

HALVES = {"train": 0.5, "test": 0.5}
THREE = {"train": 0.8, "valid": 0.1, "test": 0.1}


def fake(name: str, role: Role = "clean") -> Recording:
    return Recording(role, name, 0.1, name, 16000, Path("pack"), 0)


def fakes(names: range, role: Role = "clean") -> list[Recording]:
    return [fake(f"{number % 3}/{number}.wav", role) for number in names]


def sides(parts: dict[str, list[Recording]]) -> dict[str, str]:
    return {recording.name: name for name, part in parts.items() for recording in part}


@pytest.mark.parametrize("count", [2, 3, 10, 101, 1000])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.8, 0.99])
def test_by_file(count: int, share: float) -> None:
    recordings = fakes(range(count))
    shares = {"train": share, "test": 1 - share}
    parts, moved, _ = split(recordings, shares, 1)
    assert sorted(sides(parts)) == sorted(recording.name for recording in recordings)
    assert all(parts.values())
    assert parts == split(recordings[::-1], shares, 1)[0]
    deviation = (count * share * (1 - share)) ** 0.5
    assert abs(len(parts["train"]) - count * share) <= 3 * deviation + len(moved)


@pytest.mark.parametrize("count", [3, 4, 10, 1000])
@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.98, 0.01, 0.01), (0.01, 0.01, 0.98)])
def test_into_three(count: int, shares: tuple[float, ...]) -> None:
    parts, *_ = split(fakes(range(count)), dict(zip(THREE, shares, strict=True)), 0)
    assert len(sides(parts)) == sum(map(len, parts.values())) == count
    assert all(parts.values())
    if count == 1000:
        for part, share in zip(parts.values(), shares, strict=True):
            assert abs(len(part) - 1000 * share) < 40


def test_into_one() -> None:
    parts, *_ = split([fake("b"), fake("a")], {"train": 1.0}, 0)
    assert [recording.name for recording in parts["train"]] == ["a", "b"]


def test_draws_evenly() -> None:
    counts = Counter(
        recording.name
        for seed in range(300)
        for recording in split(fakes(range(10)), HALVES, seed)[0]["train"]
    )
    assert min(counts.values()) > 100
    assert max(counts.values()) < 200


@pytest.mark.parametrize("group_by", ["file", "folder", r"(\d)\.wav"])
@pytest.mark.parametrize("seed", range(5))
def test_additions_move_no_recording(group_by: str, seed: int) -> None:
    names = [f"speaker {number // 4}/{number}.wav" for number in range(200)]
    before, moved, _ = split([fake(name) for name in names[:100]], THREE, seed, group_by)
    if not moved:
        after, *_ = split([fake(name) for name in names], THREE, seed, group_by)
        assert sides(before).items() <= sides(after).items()
    else:
        assert group_by == r"(\d)\.wav"  # ten groups only


@pytest.mark.parametrize("group_by", ["file", "folder"])
def test_the_addition_of_copies_moves_no_recording(group_by: str) -> None:
    names = [f"speaker {number // 4}/take_{number}.wav" for number in range(100)]
    recordings = [fake(name) for name in names]
    for name in ("a_copy_of_{}", "{}_copy", "{} (2)", "{}.flac"):
        step = 3 if group_by == "file" else 40
        copies = [
            (one, fake(f"a copy of {one.folder}/{name.format(Path(one.name).stem)}.wav"))
            for one in recordings[::step]
        ]
        before = split(recordings, THREE, 0, group_by).parts
        after = split([*recordings, *(copy for _, copy in copies)], THREE, 0, group_by, copies)
        assert sides(before).items() <= sides(after.parts).items()
        assert all(
            sides(after.parts)[one.name] == sides(after.parts)[copy.name] for one, copy in copies
        )


def test_recordings_that_follow_a_copy_into_another_set_are_noted() -> None:
    recordings = fakes(range(60))
    recipe = Recipe(ratio=0.5, split=(0.5, 0.25, 0.25))
    before, notes = split_into_sets({"clean": recordings}, recipe)
    assert notes == []
    chain = [(recordings[number], fake(f"{number}.wav")) for number in range(20)]
    after, notes = split_into_sets(
        {"clean": [*recordings, *(copy for _, copy in chain)]}, recipe, chain
    )
    sets = [
        {one.name: name for name, part in found.items() for one in part["clean"]}
        for found in (before, after)
    ]
    moved = [name for name, side in sets[0].items() if sets[1][name] != side]
    assert 0 < len(moved) < 20  # their new copies have shorter names
    assert len(notes) == 1
    assert f"copies change the set of {len(moved)} clean recordings" in notes[0]


def test_a_set_without_recordings_gets_the_nearest_and_this_is_noted() -> None:
    recordings = {role: fakes(range(4), role) for role in ("clean", "noise")}
    sets, notes = split_into_sets(recordings, Recipe(ratio=0.5, split=0.999999))
    (clean,), (noise,) = sets["test"]["clean"], sets["test"]["noise"]
    found = [note for note in notes if note.startswith("the test set would have no")]
    assert [clean.name in found[0], noise.name in found[1]] == [True, True]
    # Whatever is added to the training set, the nearest is the same one.
    again, _ = split_into_sets(recordings, Recipe(ratio=0.5, split=0.99999))
    assert again["test"] == sets["test"]


@pytest.mark.parametrize("seed", range(5))
def test_by_folder(seed: int) -> None:
    recordings = [fake(f"{s}/x/{n}.wav") for s in range(20) for n in range(s % 5 + 1)]
    parts, *_ = split(recordings, {"train": 0.8, "test": 0.2}, seed, "folder")
    folders = [{recording.folder for recording in part} for part in parts.values()]
    assert folders[0].isdisjoint(folders[1])
    assert sum(map(len, parts.values())) == len(recordings) == 60
    assert 9 < len(folders[0]) < 20


@pytest.mark.parametrize("seed", range(5))
def test_by_regular_expression(seed: int) -> None:
    recordings = [fake(f"{n % 3}/spk{s}_{n}.wav") for s in range(30) for n in range(5)]
    shares = {"train": 0.6, "valid": 0.2, "test": 0.2}
    parts, *_ = split(recordings, shares, seed, r"(spk\d+)_")
    speakers = [{s.name.split("/")[1].split("_")[0] for s in part} for part in parts.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 30


def test_regular_expression_that_does_not_match() -> None:
    names = ["spk1_a.wav", "spk2_a.wav", "other.wav"]
    with pytest.raises(UsageError, match=r"not match 1 of 3 clean recordings, such as other\.wav"):
        split([fake(name) for name in names], HALVES, 0, r"(spk\d)_")
    noises = [fake(name, "noise") for name in names]
    assert len(sides(split(noises, HALVES, 0, r"(spk\d)_")[0])) == 3


def test_an_alternative_that_does_not_match_is_no_group() -> None:
    names = ["1-x-a.wav", "1-y-b.wav", "hum3_a.wav", "hum3_b.wav", "cat.wav", "car.wav"]
    noises = [fake(name, "noise") for name in names]
    keys = group_keys(noises, r"^(\d)-|(hum\d)_|car")
    assert keys == ["\x001", "\x001", "\0hum3", "\0hum3", "cat.wav", "car.wav"]
    with pytest.raises(UsageError, match=r"does not match 2 of 6 clean .* cat\.wav"):
        group_keys([fake(name) for name in names], r"^(\d)-|(hum\d)_|car")


def test_noises_have_groups_of_their_own() -> None:
    clean = [fake(f"s{number // 2}/{number}.wav") for number in range(40)]
    noise = [fake(f"{number // 4}-{number}.wav", "noise") for number in range(160)]
    recipe = Recipe(ratio=0.5, split=(0.6, 0.2, 0.2), group_by="folder", group_noise_by=r"(\d+)-")
    sets, _ = split_into_sets({"clean": clean, "noise": noise}, recipe)
    for role, key in (("clean", "/"), ("noise", "-")):
        groups = [{r.name.split(key)[0] for r in part[role]} for part in sets.values()]
        assert sum(map(len, groups)) == len(set.union(*groups))
        assert all(groups)


def test_a_validation_set_is_made_of_both_roles_by_default() -> None:
    recordings = {role: fakes(range(300), role) for role in ("clean", "noise")}
    sets, notes = split_into_sets(recordings, Recipe(ratio=0.5))
    assert (list(sets), notes) == (["train", "valid", "test"], [])
    for role in ("clean", "noise"):
        names = [{recording.name for recording in part[role]} for part in sets.values()]
        assert sum(map(len, names)) == len(set.union(*names)) == 300
        assert 3 < len(names[1]) < 25
    without, notes = split_into_sets(recordings, Recipe(ratio=0.5, valid_share=0))
    assert (list(without), notes) == (["train", "test"], [])
    assert without["test"] == sets["test"]


def test_few_recordings_make_no_validation_set_and_this_is_noted() -> None:
    recordings = {"clean": fakes(range(60)), "noise": fakes(range(6), "noise")}
    sets, notes = split_into_sets(recordings, Recipe(ratio=0.5))
    assert list(sets) == ["train", "test"]
    assert "no validation set is stored" in notes[0]
    assert "of noise recordings, fewer than 10" in notes[0]
    forced, _ = split_into_sets(recordings, Recipe(ratio=0.5, valid_share=0.3))
    assert list(forced) == ["train", "valid", "test"]
    assert forced["test"] == sets["test"]


def test_one_noise_for_many_recordings_is_split_in_time_and_this_is_noted() -> None:
    noise = [replace(fake("fan.wav", "noise"), samples=600 * Recipe(ratio=0.5).sample_rate)]
    sets, notes = split_into_sets({"clean": fakes(range(100)), "noise": noise}, Recipe(ratio=0.5))
    assert list(sets) == ["train", "test"]
    assert "no validation set is stored" in notes[0]
    assert "1 noise recording is split in time" in notes[1]


def test_own_validation_recordings_are_the_validation_set() -> None:
    recordings: dict[Role, list[Recording]] = {
        role: fakes(range(40), role) for role in ("clean", "noise", "room")
    }
    recordings |= {"valid clean": [fake("a", "valid clean")]}
    recordings |= {"valid noise": [fake("a", "valid noise")]}
    sets, notes = split_into_sets(recordings, Recipe(ratio=0.5))
    assert notes == []
    assert sets["valid"]["clean"] == recordings["valid clean"]
    assert sets["valid"]["noise"] == recordings["valid noise"]
    assert all(part["room"] for part in sets.values())
    assert sum(len(part["room"]) for part in sets.values()) == 40


def test_one_long_file_of_each_is_split_in_time_with_a_gap() -> None:
    recordings: dict[Role, list[Recording]] = {
        "clean": [replace(fake("a/long.wav"), samples=100 * 16000, start=7)],
        "noise": [replace(fake("hum.flac", "noise"), samples=20 * 16000)],
    }
    sets, notes = split_into_sets(recordings, Recipe(ratio=0.5))
    assert list(sets) == ["train", "valid", "test"]  # or nothing could validate
    parts = [part["clean"][0] for part in sets.values()]
    assert [part.name for part in parts] == [
        "a/long [0.0-70.6 s].wav",
        "a/long [71.6-79.4 s].wav",
        "a/long [80.4-100.0 s].wav",
    ]
    for one, other in pairwise(parts):
        assert other.start - (one.start + one.samples) == 16000
    assert parts[0].start == 7
    assert sum(part.samples for part in parts) == 98 * 16000
    assert len({part["noise"][0].name for part in sets.values()}) == 3
    assert sum("split in time" in note for note in notes) == 2
    with pytest.raises(DatasetError, match="1 folder can be used"):
        split_into_sets(recordings, Recipe(ratio=0.5, group_by="folder"))
    recordings["clean"] = [replace(fake("short.wav"), samples=4 * 16000)]
    with pytest.raises(DatasetError, match="1 file can be used"):
        split_into_sets(recordings, Recipe(ratio=0.5))


def test_copies_are_not_split_in_time() -> None:
    """The copy of a part that is trained on would be in another set."""
    long = replace(fake("long.wav"), samples=100 * 16000)
    excerpt = replace(fake("excerpt.wav"), samples=50 * 16000)
    noise = fakes(range(60), "noise")
    recipe = Recipe(ratio=0.5, valid_share=0.1)
    recordings: dict[Role, list[Recording]] = {"clean": [long, excerpt], "noise": noise}
    assert "split in time" in split_into_sets(recordings, recipe)[1][0]
    with pytest.raises(DatasetError, match=r"1 file can be used.*copies of one recording count"):
        split_into_sets(recordings, recipe, [(long, excerpt)])


def test_copies_that_leave_few_groups_make_no_validation_set() -> None:
    clean = fakes(range(16))
    copies = [(clean[first], one) for first in (0, 8) for one in clean[first + 1 : first + 8]]
    recordings: dict[Role, list[Recording]] = {"clean": clean, "noise": fakes(range(60), "noise")}
    sets, notes = split_into_sets(recordings, Recipe(ratio=0.5), copies)
    assert [len(part["clean"]) for part in sets.values()] == [8, 8]
    assert any("no validation set is stored" in note for note in notes)


def test_few_rooms_make_no_validation_set() -> None:
    recordings = {role: fakes(range(60), role) for role in ("clean", "noise")}
    recordings["room"] = fakes(range(2), "room")
    sets, notes = split_into_sets(recordings, Recipe(ratio=0.5))
    assert [len(part["room"]) for part in sets.values()] == [1, 1]
    assert any("too few rooms" in note for note in notes)


def test_simulated_rooms_are_no_folder() -> None:
    rooms = [fake(f"hall/{number}.wav", "room") for number in range(5)]
    rooms += [fake(f"synthetic/{number}", "room") for number in range(100)]
    parts = split(rooms, THREE, 3, "folder").parts
    assert all(any(room.name.startswith("syn") for room in part) for part in parts.values())
    assert group_keys(rooms[:5], "folder") == [room.name for room in rooms[:5]]
    assert len({*group_keys([fake("a/1", "room"), *rooms], "folder")}) == 102


def test_too_few() -> None:
    halves = {"train": 0.8, "test": 0.2}
    with pytest.raises(DatasetError, match=r"clean recordings.*1 file can be used, and 2 sets"):
        split([fake("a/1.wav")], halves, 0)
    with pytest.raises(DatasetError, match=r"1 folder can be used, and 2 sets"):
        split([fake("a/1.wav"), fake("a/2.wav")], halves, 0, "folder")
    with pytest.raises(DatasetError, match=r"2 files can be used, and 3 sets"):
        split([fake("a/1.wav"), fake("a/2.wav")], THREE, 0)
    noises = [fake("a/1", "noise"), fake("a/2", "noise")]
    assert all(split(noises, halves, 0, "folder")[0].values())
    parts, *_ = split([fake("1"), fake("a/2"), fake("a/3")], halves, 0, "folder")
    assert sum(map(len, parts.values())) == 3
