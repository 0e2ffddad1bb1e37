import json
from pathlib import Path

import numpy as np
import pytest

from denoisecli.datasets import building
from denoisecli.datasets.building import MixTask
from denoisecli.datasets.mixtures import Mixed
from denoisecli.datasets.recipe import Recipe
from denoisecli.errors import UsageError

SIZE = 4000


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """The folder of a build whose recordings are decoded: 10 of each role, in two packs."""
    (tmp_path / "sources").mkdir()
    roles = ("test clean", "test noise", "clean", "noise", "room")
    facts = [
        {
            "role": role,
            "name": f"s{number // 2}/{number}.wav",
            "rms": 0.1,
            "digest": f"{role} {number}",
            "samples": SIZE,
        }
        for role in roles
        for number in range(10)
    ]
    for pack, part in enumerate((facts[:25], facts[25:])):
        for number, fact in enumerate(part):
            fact["start"] = SIZE * number
        samples = 0.1 * rng.standard_normal(SIZE * len(part)).astype(np.float32)
        (tmp_path / "sources" / f"{pack:06d}.f32").write_bytes(samples.tobytes())
        (tmp_path / "sources" / f"{pack:06d}.json").write_text(json.dumps(part))
    return tmp_path


def plan(folder: Path, recipe: Recipe) -> tuple[Path, str]:
    """Give folder and token of a plan."""
    (folder / "plan.json").write_text(json.dumps({"recipe": recipe.to_json()}))
    return folder, str(recipe)


def test_no_recording_is_in_two_sets(folder: Path) -> None:
    recipe = Recipe(ratio=0.5, split=(0.8, 0.2), group_by="folder")
    mixings, skipped = building.mixings(*plan(folder, recipe))
    assert skipped == []
    sizes = {
        name: {role: len(part) for role, part in mixing.sources.items()}
        for name, mixing in mixings.items()
    }
    assert sizes == {
        "train": {"clean": 8, "noise": 8, "room": 6},
        "valid": {"clean": 2, "noise": 2, "room": 2},
        "test": {"clean": 10, "noise": 10, "room": 2},
    }
    for role in ("clean", "noise", "room"):
        folders = [
            {(source.role, source.folder) for source in mixing.sources[role]}  # type: ignore[index]
            for mixing in mixings.values()
        ]
        assert len(set.union(*folders)) == sum(map(len, folders))
    assert {source.role for source in mixings["test"].sources["clean"]} == {"test clean"}
    with pytest.raises(UsageError, match="does not match 10 of 10 clean"):
        building.mixings(*plan(folder, Recipe(ratio=0.5, split=(0.8, 0.2), group_by="(x)")))


def test_sets_of_one_seed_are_mixed_differently(folder: Path) -> None:
    mixings, _ = building.mixings(*plan(folder, Recipe(ratio=(0.0, 1.0), split=(0.5, 0.5))))
    ratios = []
    for mixing in mixings.values():
        mixed = mixing.make(0)
        assert isinstance(mixed, Mixed)
        ratios.append(mixed.row["ratio"])
    assert len(set(ratios)) == 3


def test_tasks_give_the_same_as_mixes_one_by_one(folder: Path) -> None:
    recipe = Recipe(ratio=0.5, split=(0.5, 0.5), kind="spectrogram", n_fft=64)
    token = plan(folder, recipe)[1]
    mixing = building.mixings(folder, token)[0]["test"]
    task = MixTask(folder, token, "test", 3, 7)
    samples = np.array([], np.float32)
    for number, made in enumerate(building.make(task), start=3):
        mix = mixing.make(number)
        assert isinstance(mix, Mixed)
        assert made == building.Made(mix.row, mix.noisy.shape)
        samples = np.concatenate([samples, mix.noisy.ravel(), mix.clean.ravel()])
    np.testing.assert_array_equal(np.fromfile(task.samples, np.float32), samples)
