import json
from pathlib import Path
from typing import Any

import pytest

from denoisecli.datasets.manifest import (
    DatasetFacts,
    Joined,
    Manifest,
    Row,
    SetFacts,
    UsedNoise,
    load_manifest,
    write_manifest,
)
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Skipped
from denoisecli.errors import DatasetError

RECIPE = Recipe(snr_db=(-5.0, 20.0))
COUNTS = {"clean_files": 1, "noise_files": 1, "hours": 1.0, "bytes": 1}
SETS = {"train": SetFacts(folder="train", mixtures=1, **COUNTS)}
FACTS = DatasetFacts(id="1", recipe=RECIPE, sets=SETS, skipped=[Skipped("clean", "a", "is silent")])


def row(**fields: Any) -> Row:
    required: dict[str, Any] = {
        "set": "train",
        "clean": "ä.wav",
        "clean_offset": 0,
        "samples": 5,
        "noise": "b.wav",
        "noise_offset": 3,
        "noise_gain": 0.5,
        "ratio": 0.5,
        "snr_db": None,
        "gain": 1.0,
    }
    return Row(**{**required, **fields})


def test_snrs_that_the_recipe_does_not_tell_are_those_of_the_mixtures() -> None:
    facts = {"id": "1", "sets": SETS, "mixtures": [row(snr_db=snr) for snr in (-3.0, None, 7.0)]}
    for recipe in (Recipe(pairs=True), Recipe(ratio=0.2, match_level=False)):
        snr_db = Manifest(recipe=recipe, **facts).mixing_recipe.snr_db
        assert snr_db == pytest.approx((-2.5, 6.5))
    assert Manifest(recipe=RECIPE, **facts).mixing_recipe == RECIPE


@pytest.mark.parametrize("count", [0, 1, 3])
def test_write_and_load(tmp_path: Path, count: int) -> None:
    rows = [
        row(),
        row(set="test", snr_db=-3.0, level_dbfs=-20.0, room="hall", target_snr_db=2.0, crc32="0"),
        row(joined=[Joined("a", 0, 3)], more_noises=[UsedNoise("c", 4, 0.25)]),
    ][:count]
    write_manifest(tmp_path / "dataset.json", FACTS, iter(rows))
    manifest = load_manifest(tmp_path)
    assert manifest.mixtures == rows
    assert manifest.rows("test") == rows[1:2]
    assert manifest.model_dump(exclude={"mixtures"}) == FACTS.model_dump()
    text = (tmp_path / "dataset.json").read_text()
    assert text.count('"snr_db":null') == min(count, 1) + (count == 3)
    assert text.count("joined") == (count == 3)  # fields that most rows do not need are left out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99, "denoise_version": "9.9"}, r"9\.9 in a newer format"),
        ({"format": "other"}, "not the manifest"),
        ({}, "is damaged: sets: field required"),
        ({"sets": {}, "mixtures": [{}]}, r"is damaged: mixtures\.0\.set: field required"),
        ({"sets": 3, "mixtures": []}, "is damaged"),
        ({"recipe": {}, "sets": {}, "mixtures": []}, "is damaged: give either a mixing ratio"),
    ],
)
def test_other_manifests(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    recipe = {"ratio": 0.5, "of a newer version": 1}
    manifest = {"format": "denoise dataset", "format_version": 2, "id": "", "recipe": recipe}
    (tmp_path / "dataset.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(DatasetError, match=message):
        load_manifest(tmp_path)


def test_manifest_of_version_1(tmp_path: Path) -> None:
    old = {
        "format": "denoise dataset",
        "format_version": 1,
        "denoise_version": "0.1.0",
        "id": "1",
        "clean": "c",
        "noise": "n",
        "test_clean": "tc",
        "test_noise": "tn",
        "recipe": {"snr_db": [-5, 20], "mixes_per_clip": 2, "of a newer version": 1},
        "sets": {"train": {"folder": "train", "mixes": 1, **COUNTS}},
        "skipped": [{"role": "clean", "file": "a", "reason": "is silent"}],
        "mixes": [
            {"set": "train", "clean": "a", "clean_offset": 0, "samples": 5, "noise": "b",
             "noise_offset": 3, "noise_gain": 0.5, "ratio": 0.5, "snr_db": 0.0, "gain": 1.0}
        ],
    }  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps(old))
    manifest = load_manifest(tmp_path)
    assert manifest.sources == {"clean": "c", "noise": "n", "test clean": "tc", "test noise": "tn"}
    assert manifest.recipe == Recipe(snr_db=(-5.0, 20.0), mixtures_per_clip=2, valid_share=0)
    assert manifest.sets == SETS
    assert manifest.skipped == FACTS.skipped
    assert manifest.mixtures == [row(clean="a", noise="b", snr_db=0.0)]


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\udcff"])
def test_an_invalid_manifest_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        load_manifest(tmp_path)


def test_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "nothing", "."):
        with pytest.raises(DatasetError, match="is not a dataset"):
            load_manifest(tmp_path / name)
