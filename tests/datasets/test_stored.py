import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from denoisecli.datasets import building
from denoisecli.datasets.building import Progress
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.stored import build, load_manifest, load_pairs, save
from denoisecli.errors import DatasetError, DenoiseError, UsageError

RECIPE = Recipe(snr_db=(-5.0, 20.0), seed=7)
SCRIPT = """
import sys
from pathlib import Path
from denoisecli.datasets import building
from denoisecli.datasets import mixtures as mixing
from denoisecli.datasets.stored import build
from denoisecli.datasets.recipe import Recipe
clean, noise, output = map(Path, sys.argv[1:4])
building.PART_BYTES = 1
mixing._TASK_SECONDS = 0.5
build(
    clean, noise, output, Recipe(snr_db=(-5.0, 20.0), seed=7),
    progress=lambda done: print(done.stage, done.done, flush=True),
)
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
    """Give all that a user sees in a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    }


def interrupt() -> None:
    """Do what Ctrl-C does, from whatever thread this is."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def stop_at(stage: str, done: int) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        if (progress.stage, progress.done) == (stage, done):
            interrupt()

    return tell


def test_build(folders: tuple[Path, Path], tmp_path: Path) -> None:
    steps: list[Progress] = []
    output = tmp_path / "söme {1} folder" / "data"
    train, test = build(*folders, output, RECIPE, progress=steps.append)
    assert sorted(path.name for path in output.iterdir()) == ["dataset.json", "test", "train"]
    assert train.element_spec == test.element_spec == (tf.TensorSpec((None,), tf.float32),) * 2
    assert (train.cardinality(), test.cardinality()) == (8, 2)
    assert tf.data.Dataset.load(str(output / "train")).cardinality() == 8
    manifest = load_manifest(output)
    hours = sum(facts["hours"] for facts in manifest["sets"].values())
    assert [(step.done, step.total) for step in steps] == [
        (15, 15),
        *((done, 10) for done in range(1, 11)),
    ]
    assert steps[-1].hours == pytest.approx(hours)
    assert steps[0].hours == pytest.approx(hours + 5 * 9000 / 16000 / 3600)

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


def test_same_recipe_same_files(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("denoisecli.datasets.decoding._TASK_FILES", 2)
    monkeypatch.setattr("denoisecli.datasets.mixtures._TASK_SECONDS", 0.5)
    recipe = Recipe(
        snr_db=(-5.0, 20.0),
        noises=(1, 2),
        level_dbfs=(-40.0, -15.0),
        mixes_per_clip=3,
        seed=7,
    )
    build(*folders, tmp_path / "1", recipe)
    one = content(tmp_path / "1")
    for jobs in (2, 8):
        build(*folders, tmp_path / str(jobs), recipe, jobs=jobs)
        assert content(tmp_path / str(jobs)) == one
    with ThreadPoolExecutor(3) as executor:
        build(*folders, tmp_path / "executor", recipe, executor=executor)
    assert content(tmp_path / "executor") == one
    monkeypatch.undo()
    monkeypatch.setattr(building, "PART_BYTES", 10_000)
    build(*folders, tmp_path / "other tasks", recipe)
    assert content(tmp_path / "other tasks") == one

    other, _ = build(*folders, tmp_path / "other", Recipe(snr_db=(-5.0, 20.0), seed=8))
    assert set(fingerprint(other)).isdisjoint(fingerprint(load_pairs(tmp_path / "1")))
    assert load_manifest(tmp_path / "other")["id"] != load_manifest(tmp_path / "1")["id"]


def test_split_by_speaker(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for group_by in ("folder", r"(speaker \d)/"):
        build(*folders, tmp_path / "data", Recipe(ratio=0.2, split=0.6, group_by=group_by),
              overwrite=True)  # fmt: skip
        manifest = load_manifest(tmp_path / "data")
        train, test = (
            {row["clean"].split("/")[0] for row in manifest["mixes"] if row["set"] == name}
            for name in ("train", "test")
        )
        assert train.isdisjoint(test)
        assert manifest["sets"]["train"]["clean_files"] == 6


def test_three_sets(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = Recipe(ratio=0.2, split=(0.6, 0.2, 0.2))
    build(*folders, tmp_path / "data", recipe, valid_name="held out")
    sets = load_manifest(tmp_path / "data")["sets"]
    assert {name: facts["clean_files"] for name, facts in sets.items()} == {
        "train": 6,
        "valid": 2,
        "test": 2,
    }
    assert load_pairs(tmp_path / "data", "valid").cardinality() == 2
    assert (tmp_path / "data" / "held out" / "dataset_spec.pb").exists()
    prints = [set(fingerprint(load_pairs(tmp_path / "data", name))) for name in sets]
    assert len(set.union(*prints)) == 10


def test_test_folders(
    folders: tuple[Path, Path], audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    tests = {"test_clean": tmp_path / "test clean", "test_noise": tmp_path / "test noise"}
    for name in ("test clean/a.wav", "test clean/b.wav", "test noise/a.wav"):
        audio_file(name, 0.1 * rng.standard_normal(5000))
    copy = tmp_path / "clean" / "copy.wav"
    copy.write_bytes((tmp_path / "test clean" / "a.wav").read_bytes())
    build(*folders, tmp_path / "data", Recipe(ratio=0.2, split=(0.9, 0.1), rooms=4), **tests)
    manifest = load_manifest(tmp_path / "data")
    assert {name: facts["clean_files"] for name, facts in manifest["sets"].items()} == {
        "train": 9,
        "valid": 1,
        "test": 2,
    }
    assert manifest["skipped"][0]["reason"] == "is identical to test clean file a.wav"
    assert sum(facts["room_files"] for facts in manifest["sets"].values()) == 4
    assert manifest["test_clean"] == str(tests["test_clean"])
    for arguments, message in (
        ({"split": 0.8}, "folders of its own"),
        ({"split": (0.8, 0.1, 0.1)}, "folders of its own"),
    ):
        with pytest.raises(UsageError, match=message):
            build(*folders, tmp_path / "other", Recipe(ratio=0.2, **arguments), **tests)
    with pytest.raises(UsageError, match="both folders"):
        build(*folders, tmp_path / "other", RECIPE, test_clean=tests["test_clean"])
    with pytest.raises(UsageError, match="nothing is left to test"):
        build(*folders, tmp_path / "other", Recipe(ratio=0.2, split=1.0))
    assert not (tmp_path / "other").exists()


def test_noises_in_one_folder_are_split_by_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = Recipe(ratio=0.2, group_by="folder")
    build(folders[0], folders[1] / "kind 0", tmp_path / "data", recipe)
    sets = load_manifest(tmp_path / "data")["sets"]
    assert (sets["train"]["noise_files"], sets["test"]["noise_files"]) == (2, 1)
    with pytest.raises(DatasetError, match=r"clean.* 1 folder"):
        build(folders[0] / "speaker 0", folders[1], tmp_path / "other", recipe)


def test_too_few_to_split(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for number in (2, 4):
        (folders[1] / "kind 0" / f"{number}.flac").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"noise.* 1 file"):
        build(folders[0], folders[1] / "kind 0", tmp_path / "data", RECIPE)
    assert not (tmp_path / "data").exists()


def test_skipped_are_listed(
    folders: tuple[Path, Path], audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    audio_file("clean/silent.wav", np.zeros(16000))
    copy = folders[0] / "speaker 4" / "copy.flac"
    copy.write_bytes((folders[0] / "speaker 0" / "0.flac").read_bytes())
    build(*folders, tmp_path / "data", RECIPE)
    manifest = load_manifest(tmp_path / "data")
    assert manifest["skipped"] == [
        {"role": "clean", "file": "silent.wav", "reason": "is silent, at least at 16000 Hz"},
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


def test_no_clip_left(folders: tuple[Path, Path], tmp_path: Path) -> None:
    # The two recordings of a speaker are joined, and there is a pause between them.
    recipe = Recipe(ratio=0.2, min_active=1.0, join=2.0, group_by="folder")
    with pytest.raises(DatasetError, match=r"no clean clip of the train set .* active for only"):
        build(*folders, tmp_path / "data", recipe)
    assert not (tmp_path / "data").exists()


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


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/tmp", "dataset.json", ".train", "test", "a[1]"]
)
def test_names_of_sets(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        build(*folders, tmp_path / "data", RECIPE, train_name=name)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("stage", "done"), [("reading", 15), ("mixing", 3), ("mixing", 9)])
def test_interrupted(folders: tuple[Path, Path], tmp_path: Path, stage: str, done: int) -> None:
    output = tmp_path / "data"
    build(*folders, output, Recipe(ratio=0.5))
    before = content(output)
    with pytest.raises(KeyboardInterrupt):
        build(*folders, output, RECIPE, overwrite=True, progress=stop_at(stage, done))
    assert content(output) == before
    assert sorted(path.name for path in output.iterdir()) == [
        ".build",
        "dataset.json",
        "test",
        "train",
    ]
    build(*folders, output, RECIPE, overwrite=True, resume=True)
    assert len(list(output.iterdir())) == 3
    build(*folders, tmp_path / "at once", RECIPE)
    assert content(output) == content(tmp_path / "at once")


def test_killed_and_resumed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    build(*folders, tmp_path / "at once", RECIPE)
    output = tmp_path / "data"
    command = [sys.executable, "-c", SCRIPT, *map(str, [*folders, output])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": "1"}
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("mixing 6"):
                process.kill()
                break
    assert [path.name for path in output.iterdir() if not path.name.startswith(".")] == []
    assert len(list((output / ".build" / "rows").iterdir())) > 0

    clean, noise = folders
    with pytest.raises(UsageError, match=r"another recipe: seed was 7 and is 8\."):
        build(*folders, output, Recipe(snr_db=(-5.0, 20.0), seed=8), resume=True)
    with pytest.raises(UsageError, match="another folders of recordings"):
        build(clean / "speaker 0", noise, output, RECIPE, resume=True)
    recording = clean / "speaker 2" / "4.flac"
    recording.rename(recording.with_name("new.flac"))
    with pytest.raises(UsageError, match=r"clean file speaker 2/(4|new)\.flac was added, removed"):
        build(*folders, output, RECIPE, resume=True)
    recording.with_name("new.flac").rename(recording)

    steps: list[Progress] = []
    build(*folders, output, RECIPE, resume=True, progress=steps.append)
    assert content(output) == content(tmp_path / "at once")
    assert len(list(output.iterdir())) == 3
    mixed = [step.done for step in steps if step.stage == "mixing"]
    assert mixed[0] > 1  # what was stored was not made again
    assert mixed[-1] == 10


def test_resume_of_nothing_begins(folders: tuple[Path, Path], tmp_path: Path) -> None:
    build(*folders, tmp_path / "data", RECIPE, resume=True)
    with pytest.raises(UsageError, match="exists already"):
        build(*folders, tmp_path / "data", RECIPE, resume=True)


def test_one_build_at_a_time(folders: tuple[Path, Path], tmp_path: Path) -> None:
    refused: list[Exception] = []

    def second(progress: Progress) -> None:
        try:
            build(*folders, tmp_path / "data", RECIPE, resume=True)
        except UsageError as error:
            refused.append(error)

    build(*folders, tmp_path / "data", RECIPE, progress=second)
    assert len(refused) == 11
    assert "another program is building" in str(refused[0])


def test_lost_recording(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def remove(progress: Progress) -> None:
        (folders[0] / "speaker 2" / "4.flac").unlink(missing_ok=True)

    build(*folders, tmp_path / "data", RECIPE, progress=remove)  # it was read before
    assert len(load_manifest(tmp_path / "data")["mixes"]) == 10


@pytest.mark.parametrize("which", ["old", "sets", "manifest"])
def test_failed_swap_is_undone_and_resumed(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    output = tmp_path / "data"
    build(*folders, output, Recipe(ratio=0.5))
    before = content(output)
    replace = Path.replace
    failing = {
        "old": lambda source, target: source == output / "train",
        "sets": lambda source, target: target == output / "test",
        "manifest": lambda source, target: target == output / "dataset.json",
    }[which]
    undoing: list[bool] = []

    def fail(source: Path, target: Path) -> Path:
        if failing(source, target) and not undoing:
            undoing.append(True)
            raise PermissionError(13, "Permission denied", str(target))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(DenoiseError, match="Permission denied"):
        build(*folders, output, RECIPE, overwrite=True)
    assert content(output) == before
    monkeypatch.undo()
    build(*folders, output, RECIPE, resume=True)
    assert load_manifest(output)["recipe"] == RECIPE.to_json()


def test_full_disk(folders: tuple[Path, Path], tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DenoiseError, match="too large"):
            build(*folders, tmp_path / "data", RECIPE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not content(tmp_path / "data")
    build(*folders, tmp_path / "data", RECIPE, resume=True)  # there is room again


def test_memory_does_not_grow_with_the_corpus(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    minute = rng.integers(-3000, 3000, 60 * 16000, dtype=np.int16)
    for number in range(50):
        audio_file(f"clean/{number}.wav", np.roll(minute, number))
    for number in range(2):
        audio_file(f"noise/{number}.wav", minute[number::2])
    code = """
import resource, sys
from pathlib import Path
from denoisecli.datasets.stored import build
from denoisecli.datasets.recipe import Recipe
folder = Path(sys.argv[1])
recipe = Recipe(snr_db=5.0, segment=10.0)
few = folder / "few"
few.mkdir()
for name in ("0.wav", "1.wav", "2.wav"):
    (few / name).hardlink_to(folder / "clean" / name)
for number, clean in enumerate((few, folder / "clean")):
    build(clean, folder / "noise", folder / str(number), recipe)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
    )
    small, large = map(int, done.stdout.split())
    megabytes = sum(path.stat().st_size for path in (tmp_path / "1").rglob("*")) // 2**20
    assert megabytes > 350
    assert large - small < 40


def test_paths_that_are_patterns(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pattern"):
        build(tmp_path, tmp_path, tmp_path / "a*", RECIPE)


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


def test_manifests_of_the_first_version(folders: tuple[Path, Path], tmp_path: Path) -> None:
    build(*folders, tmp_path / "data", RECIPE)
    path = tmp_path / "data" / "dataset.json"
    manifest = json.loads(path.read_text())
    known = ("ratio", "snr_db", "split", "group_by", "sample_rate", "segment", "mixes_per_clip",
             "match_level", "kind", "n_fft", "hop_length", "window", "seed")  # fmt: skip
    manifest["recipe"] = {key: manifest["recipe"][key] for key in known}
    for row in manifest["mixes"]:
        del row["crc32"], row["level_dbfs"]
    path.write_text(json.dumps(manifest, indent=1))
    assert load_pairs(tmp_path / "data").cardinality() == 8
    recipe: dict[str, Any] = load_manifest(tmp_path / "data")["recipe"]
    assert Recipe.from_json(recipe) == RECIPE
