import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from denoisecli.dataset import build, load, load_manifest, load_pairs, save
from denoisecli.errors import AudioError, DatasetError, DenoiseError, UsageError
from denoisecli.pairs import Recipe

RECIPE = Recipe(snr_db=(-5.0, 20.0), seed=7)
SCRIPT = """
import sys
from pathlib import Path
from denoisecli.dataset import build
from denoisecli.pairs import Recipe
clean, noise, output = map(Path, sys.argv[1:])
build(clean, noise, output, Recipe(snr_db=(-5.0, 20.0), seed=7), jobs=1)
"""


@pytest.fixture
def folders(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> tuple[Path, Path]:
    """10 clean sounds of 5 speakers and 5 noises of 2 kinds."""
    for number in range(10):
        sound = 0.1 * rng.standard_normal(3000 + 500 * number)
        audio_file(f"clean/speaker {number // 2}/{number}.flac", sound)
    for number in range(5):
        audio_file(f"noise/kind {number % 2}/{number}.flac", 0.1 * rng.standard_normal(9000))
    return tmp_path / "clean", tmp_path / "noise"


def fingerprint(pairs: tf.data.Dataset) -> list[str]:
    return [
        hashlib.sha256(noisy.tobytes() + clean.tobytes()).hexdigest()
        for noisy, clean in pairs.as_numpy_iterator()
    ]


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def interrupt() -> None:
    """Do what Ctrl-C does, from whatever thread this is."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_build(folders: tuple[Path, Path], tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    output = tmp_path / "söme {1} folder" / "data"
    train, test = build(*folders, output, RECIPE, progress=lambda *step: steps.append(step))
    assert sorted(path.name for path in output.iterdir()) == ["dataset.json", "test", "train"]
    assert train.element_spec == test.element_spec == (tf.TensorSpec((None,), tf.float32),) * 2
    assert (train.cardinality(), test.cardinality()) == (8, 2)
    assert steps[-1] == (25, 25)
    assert [done for done, _ in steps] == list(range(1, 26))

    manifest = load_manifest(output)
    assert manifest["recipe"]["snr_db"] == [-5, 20]
    assert manifest["denoise_version"]
    rows = {
        name: [row for row in manifest["mixes"] if row["set"] == name] for name in manifest["sets"]
    }
    for name, pairs, clean_files, noise_files in (("train", train, 8, 4), ("test", test, 2, 1)):
        entry = manifest["sets"][name]
        assert entry["clean_files"] == entry["mixes"] == clean_files
        assert entry["noise_files"] == noise_files
        lengths = [noisy.size for noisy, _ in pairs.as_numpy_iterator()]
        assert lengths == [row["samples"] for row in rows[name]]
        assert entry["hours"] == pytest.approx(sum(lengths) / 16000 / 3600)
    for column, count in (("clean", 10), ("noise", None)):
        used = [{row[column] for row in rows[name]} for name in rows]
        assert used[0].isdisjoint(used[1])
        assert count is None or len(used[0] | used[1]) == count
    assert fingerprint(load_pairs(output)) == fingerprint(train)
    assert fingerprint(load_pairs(output, "test")) == fingerprint(test)


def test_same_recipe_same_dataset(folders: tuple[Path, Path], tmp_path: Path) -> None:
    built = build(*folders, tmp_path / "here", RECIPE, jobs=3)
    there = tmp_path / "there"
    subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, [*folders, there])],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
    )
    again = load_pairs(there, "train"), load_pairs(there, "test")
    assert [fingerprint(pairs) for pairs in built] == [fingerprint(pairs) for pairs in again]
    here = load_manifest(tmp_path / "here")
    assert here == load_manifest(there)
    other, _ = build(*folders, tmp_path / "other", Recipe(snr_db=(-5.0, 20.0), seed=8))
    assert set(fingerprint(other)).isdisjoint(fingerprint(built[0]))
    assert load_manifest(tmp_path / "other")["id"] != here["id"]


def test_split_by_speaker(folders: tuple[Path, Path], tmp_path: Path) -> None:
    build(*folders, tmp_path / "data", Recipe(ratio=0.2, split=0.6, group_by="folder"))
    manifest = load_manifest(tmp_path / "data")
    for column in ("clean", "noise"):
        train, test = (
            {row[column].split("/")[0] for row in manifest["mixes"] if row["set"] == name}
            for name in ("train", "test")
        )
        assert train.isdisjoint(test)
    assert manifest["sets"]["train"]["clean_files"] == 6


def test_noises_in_one_folder_are_split_by_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = Recipe(ratio=0.2, group_by="folder")
    build(folders[0], folders[1] / "kind 0", tmp_path / "data", recipe)
    sets = load_manifest(tmp_path / "data")["sets"]
    assert (sets["train"]["noise_files"], sets["test"]["noise_files"]) == (2, 1)
    with pytest.raises(DatasetError, match=r"clean.* one folder"):
        build(folders[0] / "speaker 0", folders[1], tmp_path / "other", recipe)


def test_too_few_to_split(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for number in (2, 4):
        (folders[1] / "kind 0" / f"{number}.flac").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"noise.* one file"):
        build(folders[0], folders[1] / "kind 0", tmp_path / "data", RECIPE)
    assert not content(tmp_path / "data")


def test_skipped_are_listed(
    folders: tuple[Path, Path], audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    audio_file("clean/silent.wav", np.zeros(16000))
    copy = folders[0] / "speaker 4" / "copy.flac"
    copy.write_bytes((folders[0] / "speaker 0" / "0.flac").read_bytes())
    build(*folders, tmp_path / "data", RECIPE)
    manifest = load_manifest(tmp_path / "data")
    assert manifest["skipped"] == [
        {"role": "clean", "file": "silent.wav", "reason": "is silent"},
        {
            "role": "clean",
            "file": "speaker 4/copy.flac",
            "reason": "is identical to clean file speaker 0/0.flac",
        },
    ]
    assert len(manifest["mixes"]) == 10


def test_no_noise_makes_strict_json(folders: tuple[Path, Path], tmp_path: Path) -> None:
    train, _ = build(*folders, tmp_path / "data", Recipe(ratio=0.0))
    for noisy, clean in train.as_numpy_iterator():
        np.testing.assert_array_equal(noisy, clean)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "data" / "dataset.json").read_text()
    manifest = json.loads(text, parse_constant=refuse)
    assert {row["snr_db"] for row in manifest["mixes"]} == {None}


def test_spectrogram_kind(folders: tuple[Path, Path], tmp_path: Path) -> None:
    waves, _ = build(*folders, tmp_path / "waves", RECIPE)
    recipe = Recipe(snr_db=(-5.0, 20.0), seed=7, kind="spectrogram", n_fft=400, hop_length=100)
    spectra, _ = build(*folders, tmp_path / "spectra", recipe)
    for (noisy, _), (wave, _) in zip(
        spectra.as_numpy_iterator(), waves.as_numpy_iterator(), strict=True
    ):
        assert noisy.shape == (201, 1 + wave.size // 100)
    with pytest.raises(DatasetError, match="spectrogram pairs, not waveform"):
        load_pairs(tmp_path / "spectra")
    assert load_pairs(tmp_path / "spectra", kind="spectrogram").cardinality() == 8


def test_nothing_below_the_new_rate(
    folders: tuple[Path, Path], audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    for number in range(3):
        tone = np.sin(2 * np.pi * (9000 + number) * np.arange(48000) / 48000)
        audio_file(f"high/{number}.wav", 1e-3 * tone * np.hanning(48000), 48000, "FLOAT")
    with pytest.raises(DatasetError, match=r"is silent from 0\.00 s"):
        build(tmp_path / "high", folders[1], tmp_path / "data", Recipe(ratio=0.2, sample_rate=8000))
    assert not content(tmp_path / "data")


def test_overwrite(folders: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "data"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    build(*folders, output, RECIPE, train_name="a", test_name="b")
    before = content(output)
    with pytest.raises(UsageError, match="exists already"):
        build(*folders, output, RECIPE, train_name="a", test_name="b")
    with pytest.raises(UsageError, match=r"dataset\.json exists already"):
        build(*folders, output, RECIPE)
    assert content(output) == before
    recipe = Recipe(ratio=0.5)
    train, _ = build(*folders, output, recipe, train_name="a", test_name="b", overwrite=True)
    assert load_manifest(output)["recipe"]["ratio"] == 0.5
    assert fingerprint(load_pairs(output)) == fingerprint(train)
    assert (output / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in output.iterdir()) == ["a", "b", "dataset.json", "notes.txt"]


def test_overwrite_spares_recordings(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="something else than a dataset"):
        build(*folders, tmp_path, RECIPE, train_name="clean", overwrite=True)
    assert len(list(folders[0].rglob("*.flac"))) == 10


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp", "dataset.json", ".train", "test"])
def test_names_of_sets(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        build(*folders, tmp_path / "data", RECIPE, train_name=name)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("when", [5, 18, 24])  # checking, mixing the train set, the test set
def test_interrupted(folders: tuple[Path, Path], tmp_path: Path, when: int) -> None:
    output = tmp_path / "data"
    build(*folders, output, RECIPE)
    before = content(output)
    with pytest.raises(KeyboardInterrupt):
        build(
            *folders,
            output,
            Recipe(ratio=0.5),
            jobs=1,
            overwrite=True,
            progress=lambda done, total: interrupt() if done == when else None,
        )
    assert content(output) == before
    assert len(list(output.iterdir())) == 3


def test_lost_recording(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def remove(done: int, total: int) -> None:
        if done == 15:  # all are checked
            (folders[0] / "speaker 2" / "4.flac").unlink()

    with pytest.raises(AudioError, match=r"4\.flac"):
        build(*folders, tmp_path / "data", RECIPE, progress=remove)
    assert not content(tmp_path / "data")


def test_failed_swap_is_undone(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "data"
    build(*folders, output, RECIPE)
    before = content(output)
    replace = Path.replace

    def fail(source: Path, target: Path) -> Path:
        if target == output / "test" and source.parent.name != "old":
            raise PermissionError(13, "Permission denied", str(target))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises((DenoiseError, PermissionError)):
        build(*folders, output, Recipe(ratio=0.5), overwrite=True)
    assert content(output) == before


def test_save_and_load_any_dataset(tmp_path: Path) -> None:
    numbers = tf.data.Dataset.range(1000).map(lambda n: {"n": n, "square": n**2})
    save(numbers, tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert loaded.element_spec == numbers.element_spec
    assert [int(element["square"]) for element in loaded] == [n**2 for n in range(1000)]
    with pytest.raises(UsageError, match="exists already"):
        save(numbers, tmp_path / "saved")
    save(numbers.take(3), tmp_path / "saved", overwrite=True)
    assert len(list(load(tmp_path / "saved"))) == 3


def test_save_of_what_fails(tmp_path: Path) -> None:
    numbers = tf.data.Dataset.range(10).map(lambda n: tf.debugging.check_numerics(1 / (n - 5), "x"))
    with pytest.raises(tf.errors.OpError):
        save(numbers, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_full_disk(tmp_path: Path) -> None:
    zeros = tf.data.Dataset.range(100).map(lambda _: tf.zeros(100_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        with pytest.raises(DenoiseError, match=r"saved: .*too large"):
            save(zeros, tmp_path / "saved")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a*", "[1]", "what?", "back\\slash"])
def test_paths_that_are_patterns(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        save(tf.data.Dataset.range(3), tmp_path / name)
    with pytest.raises(UsageError, match="pattern"):
        load(tmp_path / name / "train")
    with pytest.raises(UsageError, match="pattern"):
        build(tmp_path, tmp_path, tmp_path / name, RECIPE)


def test_load_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file", "nothing"):
        with pytest.raises(DatasetError, match=name):
            load(tmp_path / name)
        with pytest.raises(DatasetError, match=f"{name} is no dataset"):
            load_manifest(tmp_path / name)
    save(tf.data.Dataset.range(3), tmp_path / "saved")
    (tmp_path / "saved" / "dataset_spec.pb").write_bytes(b"\xffnonsense")
    with pytest.raises(DatasetError, match="damaged"):
        load(tmp_path / "saved")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99, "denoise_version": "9.9"}, r"9\.9 in a newer format"),
        ({"format": "other"}, "not the manifest"),
        ({"sets": {}, "mixes": []}, "no set 'train'"),
        ({}, "no mixes, sets"),
    ],
)
def test_other_manifests(
    folders: tuple[Path, Path], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    output = tmp_path / "data"
    output.mkdir()
    manifest = {"format": "denoise dataset", "format_version": 1, "id": "", "recipe": {}}
    (output / "dataset.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(DatasetError, match=message):
        load_pairs(output)
    for text in ("{", "[]", '"x"'):
        (output / "dataset.json").write_text(text)
        with pytest.raises(DatasetError):
            load_manifest(output)


def test_damaged_dataset(folders: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "data"
    build(*folders, output, RECIPE)
    (snapshot,) = (output / "train").rglob("*.snapshot")
    snapshot.write_bytes(snapshot.read_bytes()[:-10])
    with pytest.raises(DatasetError, match="damaged"):
        load_pairs(output)
    assert load_pairs(output, "test").cardinality() == 2
    with pytest.raises(DatasetError, match="only train, test"):
        load_pairs(output, "valid")
    save(tf.data.Dataset.range(3), output / "test", overwrite=True)
    with pytest.raises(DatasetError):
        load_pairs(output, "test")
