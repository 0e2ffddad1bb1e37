import hashlib
import json
import os
import resource
import shutil
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

from denoisecli.datasets import mixtures
from denoisecli.datasets.building import BuildProgress, MixTask, build, load_sets, mix_part
from denoisecli.datasets.inspection import summarize, verify
from denoisecli.datasets.manifest import Row, load_manifest
from denoisecli.datasets.mixtures import Mixtures, Pair
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Skipped
from denoisecli.datasets.stored import load_pairs
from denoisecli.errors import DatasetError, DenoiseError, UsageError

RECIPE = Recipe(snr_db=(-5.0, 20.0), seed=7)
RECORDS = "1/00000000.shard/00000000.snapshot"
SCRIPT = """
import sys
from pathlib import Path
from denoisecli.datasets import decoding, mixtures
from denoisecli.datasets.building import build
from denoisecli.datasets.recipe import Recipe
clean, noise, output = map(Path, sys.argv[1:4])
decoding._TASK_FILES, mixtures._TASK_SECONDS = 2, 0.1
build(
    clean, noise, output, Recipe(snr_db=(-5.0, 20.0), seed=7),
    on_progress=lambda done: print(done.stage, done.done, flush=True),
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


@pytest.fixture
def short_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a task of every mixture and of every two recordings."""
    monkeypatch.setattr(mixtures, "_TASK_SECONDS", 0.1)
    monkeypatch.setattr("denoisecli.datasets.decoding._TASK_FILES", 2)


def fingerprint(pairs: tf.data.Dataset) -> list[str]:
    return [
        hashlib.sha256(noisy.tobytes() + clean.tobytes()).hexdigest()
        for noisy, clean in pairs.as_numpy_iterator()
    ]


def content(folder: Path) -> dict[str, bytes]:
    """Return all that a user sees in a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    }


def interrupt() -> None:
    """Do what Ctrl-C does, from whatever thread this is."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def stop_at(stage: str, done: int) -> Callable[[BuildProgress], None]:
    def on_progress(progress: BuildProgress) -> None:
        if (progress.stage, progress.done) == (stage, done):
            interrupt()

    return on_progress


@pytest.mark.usefixtures("short_tasks")
def test_build(folders: tuple[Path, Path], tmp_path: Path) -> None:
    steps: list[BuildProgress] = []
    output = tmp_path / "söme {1} folder" / "data"
    build(*folders, output, RECIPE, on_progress=steps.append)
    train, test = load_pairs(output), load_pairs(output, "test")
    assert sorted(path.name for path in output.iterdir()) == ["dataset.json", "test", "train"]
    assert train.element_spec == test.element_spec == (tf.TensorSpec((None,), tf.float32),) * 2
    manifest = load_manifest(output)
    counts = [facts.mixtures for facts in manifest.sets.values()]
    assert [train.cardinality(), test.cardinality()] == counts
    assert sum(counts) == 10
    assert tf.data.Dataset.load(str(output / "train")).cardinality() == counts[0]
    hours = sum(facts.hours for facts in manifest.sets.values())
    reading = [step for step in steps if step.stage == "reading"]
    mixing = [step for step in steps if step.stage == "mixing"]
    assert [(step.done, step.total) for step in reading] == [
        (done, 15) for done in (2, 4, 6, 8, 10, 12, 14, 15)
    ]
    assert [(step.done, step.total) for step in mixing] == [(done, 10) for done in range(1, 11)]
    assert steps == reading + mixing
    assert mixing[-1].hours == pytest.approx(hours)
    assert reading[-1].hours == pytest.approx(hours + 5 * 9000 / 16000 / 3600)

    assert manifest.recipe == RECIPE
    assert manifest.denoise_version
    assert sum(facts.noise_files for facts in manifest.sets.values()) == 5
    for name, pairs in (("train", train), ("test", test)):
        facts = manifest.sets[name]
        assert facts.clean_files == facts.mixtures > 0
        lengths = [noisy.size for noisy, _ in pairs.as_numpy_iterator()]
        assert lengths == [row.samples for row in manifest.rows(name)]
        assert facts.hours == pytest.approx(sum(lengths) / 16000 / 3600)
    for column, count in (("clean", 10), ("noise", None)):
        used = [{getattr(row, column) for row in manifest.rows(name)} for name in manifest.sets]
        assert used[0].isdisjoint(used[1])
        assert count is None or len(used[0] | used[1]) == count


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_files(
    folders: tuple[Path, Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe(
        snr_db=(-5.0, 20.0),
        noises=(1, 2),
        level_dbfs=(-40.0, -15.0),
        mixtures_per_clip=3,
        seed=7,
    )
    build(*folders, tmp_path / "1", recipe)
    one = content(tmp_path / "1")
    request.getfixturevalue("short_tasks")
    for jobs in (1, 2):
        build(*folders, tmp_path / str(jobs), recipe, jobs=jobs, overwrite=True)
        assert content(tmp_path / str(jobs)) == one
    with ThreadPoolExecutor(3) as executor:
        build(*folders, tmp_path / "executor", recipe, executor=executor)
    assert content(tmp_path / "executor") == one

    build(*folders, tmp_path / "other", Recipe(snr_db=(-5.0, 20.0), seed=8))
    other, first = fingerprint(load_pairs(tmp_path / "other")), load_pairs(tmp_path / "1")
    assert set(other).isdisjoint(fingerprint(first))
    assert load_manifest(tmp_path / "other").id != load_manifest(tmp_path / "1").id


def test_split_by_speaker(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for group_by in ("folder", r"(speaker \d)/"):
        build(*folders, tmp_path / "data", Recipe(ratio=0.2, split=0.6, group_by=group_by),
              overwrite=True)  # fmt: skip
        manifest = load_manifest(tmp_path / "data")
        train, test = (
            {row.clean.split("/")[0] for row in manifest.rows(name)} for name in ("train", "test")
        )
        assert train.isdisjoint(test)
        assert manifest.sets["train"].clean_files == 2 * len(train)


def test_three_sets(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = Recipe(ratio=0.2, split=(0.6, 0.2, 0.2))
    build(*folders, tmp_path / "data", recipe, valid_name="held out")
    sets = load_manifest(tmp_path / "data").sets
    assert list(sets) == ["train", "valid", "test"]
    assert sum(facts.clean_files for facts in sets.values()) == 10
    valid = sets["valid"].clean_files
    assert load_pairs(tmp_path / "data", "valid").cardinality() == valid > 0
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
    for number in range(4):
        audio_file(f"rooms/{number}.wav", 0.1 * rng.standard_normal(2000))
    copy = tmp_path / "clean" / "copy.wav"
    copy.write_bytes((tmp_path / "test clean" / "a.wav").read_bytes())
    build(
        *folders,
        tmp_path / "data",
        Recipe(ratio=0.2, split=(0.9, 0.1)),
        **tests,
        reverb=tmp_path / "rooms",
    )
    manifest = load_manifest(tmp_path / "data")
    counts = {name: facts.clean_files for name, facts in manifest.sets.items()}
    assert list(counts) == ["train", "valid", "test"]
    assert (counts["train"] + counts["valid"], counts["test"]) == (10, 2)
    assert manifest.skipped[0].reason == "is identical to test clean file a.wav"
    assert sum(facts.room_files for facts in manifest.sets.values()) == 4
    assert manifest.sources["test clean"] == str(tests["test_clean"])
    for arguments, message in (
        ({"split": 0.8}, "folders of its own"),
        ({"split": (0.8, 0.1, 0.1)}, "folders of its own"),
    ):
        with pytest.raises(UsageError, match=message):
            build(*folders, tmp_path / "other", Recipe(ratio=0.2, **arguments), **tests)
    with pytest.raises(UsageError, match="two folders"):
        build(*folders, tmp_path / "other", RECIPE, test_clean=tests["test_clean"])
    with pytest.raises(UsageError, match="test set would be empty"):
        build(*folders, tmp_path / "other", Recipe(ratio=0.2, split=1.0))
    assert not (tmp_path / "other").exists()


def test_noises_in_one_folder_are_split_by_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = Recipe(ratio=0.2, group_by="folder")
    build(folders[0], folders[1] / "kind 0", tmp_path / "data", recipe)
    sets = load_manifest(tmp_path / "data").sets
    assert sorted([sets["train"].noise_files, sets["test"].noise_files]) == [1, 2]
    with pytest.raises(DatasetError, match=r"clean.* 1 folder"):
        build(folders[0] / "speaker 0", folders[1], tmp_path / "other", recipe)


def test_too_few_to_split(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for number in (2, 4):
        (folders[1] / "kind 0" / f"{number}.flac").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"noise.* 1 file"):
        build(folders[0], folders[1] / "kind 0", tmp_path / "data", RECIPE)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("sample_rate", "narrow"), [(16000, 0), (48000, 5)])
def test_a_rate_above_the_bandwidth_of_the_recordings_is_noted(
    audio_file: Callable[..., Path],
    rng: np.random.Generator,
    tmp_path: Path,
    sample_rate: int,
    narrow: int,
) -> None:
    for number in range(5):
        audio_file(f"clean/{number}.wav", 0.1 * rng.standard_normal(8000), 16000)
        audio_file(f"noise/{number}.wav", 0.1 * rng.standard_normal(8000), 48000)
    audio_file("clean/wide.wav", 0.1 * rng.standard_normal(48000), 48000)
    recipe = Recipe(ratio=0.2, sample_rate=sample_rate)
    build(tmp_path / "clean", tmp_path / "noise", tmp_path / "data", recipe)
    manifest = load_manifest(tmp_path / "data")
    notes = [note for note in manifest.notes if "have nothing above" in note]
    assert len(notes) == (narrow > 0)
    assert all(note.startswith(f"{narrow} of 6 clean recordings") for note in notes)
    sources = {(source.role, source.name): source for source in manifest.recordings}
    assert len(sources) == 11
    assert sources["clean", "0.wav"].rate == 16000
    assert sources["clean", "0.wav"].bandwidth == pytest.approx(8000, rel=0.04)
    assert sources["clean", "wide.wav"].bandwidth == pytest.approx(24000, rel=0.04)


def test_long_recordings_hear_many_noises(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    for number in range(2):
        audio_file(f"clean/{number}.wav", 0.1 * rng.standard_normal(90 * 1000), 1000)
    for number in range(40):
        audio_file(f"noise/{number}.wav", 0.1 * rng.standard_normal(500), 1000)
    recipe = Recipe(ratio=0.2, split=0.5, sample_rate=1000, valid_share=0)
    build(tmp_path / "clean", tmp_path / "noise", tmp_path / "data", recipe)
    summary = summarize(tmp_path / "data")
    assert "2 clean recordings are longer than 10 s" in summary.notes[0]
    for name, part in summary.sets.items():
        used = {row.noise for row in load_manifest(tmp_path / "data").rows(name)}
        assert part.mixtures == 9
        assert 5 <= len(used) == part.noises_used < part.noise_files


def test_one_long_file_of_each_is_a_dataset(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    for name in ("clean", "noise"):
        audio_file(f"{name}/long.wav", 0.1 * rng.standard_normal(60 * 1000), 1000)
    recipe = Recipe(ratio=0.2, sample_rate=1000)
    build(tmp_path / "clean", tmp_path / "noise", tmp_path / "data", recipe)
    assert list(load_manifest(tmp_path / "data").sets) == ["train", "valid", "test"]
    assert list(verify(tmp_path / "data")) == []


def test_skipped_are_listed(
    folders: tuple[Path, Path], audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    audio_file("clean/silent.wav", np.zeros(16000))
    copy = folders[0] / "speaker 4" / "copy.flac"
    copy.write_bytes((folders[0] / "speaker 0" / "0.flac").read_bytes())
    build(*folders, tmp_path / "data", RECIPE)
    manifest = load_manifest(tmp_path / "data")
    assert manifest.skipped == [
        Skipped("clean", "silent.wav", "is silent"),
        Skipped("clean", "speaker 4/copy.flac", "is identical to clean file speaker 0/0.flac"),
    ]
    assert len(manifest.mixtures) == 10


def test_no_noise_makes_strict_json(folders: tuple[Path, Path], tmp_path: Path) -> None:
    build(*folders, tmp_path / "data", Recipe(ratio=0.0))
    for noisy, clean in load_pairs(tmp_path / "data").as_numpy_iterator():
        np.testing.assert_array_equal(noisy, clean)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "data" / "dataset.json").read_text()
    manifest = json.loads(text, parse_constant=refuse)
    assert {row["snr_db"] for row in manifest["mixtures"]} == {None}


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
    with pytest.raises(UsageError, match="already exists"):
        build(*folders, output, RECIPE, train_name="a", test_name="b")
    with pytest.raises(UsageError, match=r"dataset\.json already exists"):
        build(*folders, output, RECIPE)
    assert content(output) == before
    recipe = Recipe(ratio=0.5, seed=7)
    build(*folders, output, recipe, train_name="a", test_name="b", overwrite=True)
    assert load_manifest(output).recipe.ratio == 0.5
    assert content(output)["a/snapshot.metadata"] == before["a/snapshot.metadata"]
    assert content(output)["a/" + RECORDS] != before["a/" + RECORDS]
    assert (output / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in output.iterdir()) == ["a", "b", "dataset.json", "notes.txt"]


def test_no_set_of_an_overwritten_dataset_stays(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """It would hold recordings that the new dataset trains with."""
    output = tmp_path / "data"
    build(*folders, output, Recipe(ratio=0.2, valid_share=0.3), train_name="a")
    (output / "notes").mkdir()
    build(*folders, output, Recipe(ratio=0.2), overwrite=True)
    names = ["dataset.json", "notes", "test", "train"]
    assert sorted(path.name for path in output.iterdir()) == names
    assert load_manifest(output).sets.keys() == {"train", "test"}
    assert "no validation set is stored" in load_manifest(output).notes[0]


def test_own_validation_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    own = {"valid_clean": folders[0] / "speaker 0", "valid_noise": folders[1] / "kind 0"}
    clean = tmp_path / "others"
    shutil.copytree(folders[0], clean, ignore=shutil.ignore_patterns("speaker 0"))
    build(clean, folders[1] / "kind 1", tmp_path / "data", RECIPE, **own)
    manifest = load_manifest(tmp_path / "data")
    assert {row.clean for row in manifest.rows("valid")} == {"0.flac", "1.flac"}
    assert manifest.sets["valid"].noise_files == 3
    assert list(verify(tmp_path / "data")) == []
    with pytest.raises(UsageError, match="validation set has folders of its own"):
        build(clean, folders[1], tmp_path / "x", Recipe(ratio=0.5, valid_share=0.1), **own)
    with pytest.raises(UsageError, match="a valid set needs two folders"):
        build(clean, folders[1], tmp_path / "x", RECIPE, valid_clean=own["valid_clean"])


def test_overwrite_spares_recordings(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not hold a dataset"):
        build(*folders, tmp_path, RECIPE, train_name="clean", overwrite=True)
    assert len(list(folders[0].rglob("*.flac"))) == 10


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/tmp", "dataset.json", ".train", "test", "a[1]"]
)
def test_names_of_sets(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        build(*folders, tmp_path / "data", RECIPE, train_name=name)
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("short_tasks")
@pytest.mark.parametrize(("stage", "done"), [("reading", 15), ("mixing", 3), ("mixing", 9)])
def test_interrupted(folders: tuple[Path, Path], tmp_path: Path, stage: str, done: int) -> None:
    output = tmp_path / "data"
    build(*folders, output, Recipe(ratio=0.5))
    before = content(output)
    with pytest.raises(KeyboardInterrupt):
        build(*folders, output, RECIPE, overwrite=True, on_progress=stop_at(stage, done))
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


@pytest.mark.slow
@pytest.mark.usefixtures("short_tasks")
def test_killed_and_resumed(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert len(list((output / ".build" / "parts").glob("*.json"))) >= 6

    clean, noise = folders
    with pytest.raises(UsageError, match=r"another recipe: seed was 7 and is 8\."):
        build(*folders, output, Recipe(snr_db=(-5.0, 20.0), seed=8), resume=True)
    with pytest.raises(UsageError, match="other folders of recordings"):
        build(clean / "speaker 0", noise, output, RECIPE, resume=True)
    recording = clean / "speaker 2" / "4.flac"
    recording.rename(recording.with_name("new.flac"))
    with pytest.raises(UsageError, match=r"clean file speaker 2/(4|new)\.flac was added, removed"):
        build(*folders, output, RECIPE, resume=True)
    recording.with_name("new.flac").rename(recording)

    mixed: list[int] = []

    def mix_and_count(set_mixtures: Mixtures, number: int) -> Any:
        mixed.append(number)
        return mix_one(set_mixtures, number)

    mix_one = Mixtures.mix
    monkeypatch.setattr(Mixtures, "mix", mix_and_count)
    build(*folders, output, RECIPE, resume=True)
    assert content(output) == content(tmp_path / "at once")
    assert len(list(output.iterdir())) == 3
    assert 0 < len(mixed) <= 4  # the other six were stored before


def test_resume_of_nothing_begins(folders: tuple[Path, Path], tmp_path: Path) -> None:
    build(*folders, tmp_path / "data", RECIPE, resume=True)
    with pytest.raises(UsageError, match="already exists"):
        build(*folders, tmp_path / "data", RECIPE, resume=True)


@pytest.mark.slow
def test_one_build_at_a_time(folders: tuple[Path, Path], tmp_path: Path) -> None:
    refused: list[Exception] = []

    def second(progress: BuildProgress) -> None:
        try:
            build(*folders, tmp_path / "data", RECIPE, resume=True)
        except UsageError as error:
            refused.append(error)

    build(*folders, tmp_path / "data", RECIPE, on_progress=second)
    assert len(refused) == 3
    assert "another process is building" in str(refused[0])


def test_lost_recording(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def remove(progress: BuildProgress) -> None:
        (folders[0] / "speaker 2" / "4.flac").unlink(missing_ok=True)

    build(*folders, tmp_path / "data", RECIPE, on_progress=remove)  # it was read before
    assert len(load_manifest(tmp_path / "data").mixtures) == 10


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
    assert load_manifest(output).recipe == RECIPE


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


@pytest.mark.slow
def test_resident_memory_does_not_grow_with_the_corpus(
    audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
) -> None:
    minute = rng.integers(-3000, 3000, 60 * 16000, dtype=np.int16)
    for number in range(30):
        other = rng.integers(-3000, 3000, minute.size, dtype=np.int16)  # copies are one group
        audio_file(f"clean/{number}.wav", other)
    for number in range(2):
        audio_file(f"noise/{number}.wav", minute[number::2])
    code = """
import resource, sys
from pathlib import Path
from denoisecli.datasets.building import build
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
    assert megabytes > 200
    assert large - small < 40


def test_paths_that_are_patterns(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pattern"):
        build(tmp_path, tmp_path, tmp_path / "a*", RECIPE)


@pytest.fixture
def work(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A work folder whose recordings are decoded: 10 of each role, in two packs."""
    for name in ("recordings", "parts"):
        (tmp_path / name).mkdir()
    for name in ("copies", "pairs"):
        (tmp_path / f"{name}.json").write_text("[]")
    roles = ("test clean", "test noise", "clean", "noise", "room")
    entries: list[dict[str, Any]] = [
        {
            "role": role,
            "name": f"s{number // 2}/{number}.wav",
            "rms": 0.1,
            "digest": f"{role} {number}",
            "samples": 4000,
        }
        for role in roles
        for number in range(10)
    ]
    for pack, part in enumerate((entries[:25], entries[25:])):
        for number, entry in enumerate(part):
            entry["start"] = 4000 * number
        samples = 0.1 * rng.standard_normal(4000 * len(part)).astype(np.float32)
        (tmp_path / "recordings" / f"{pack:06d}.f32").write_bytes(samples.tobytes())
        (tmp_path / "recordings" / f"{pack:06d}.json").write_text(json.dumps(part))
    return tmp_path


def test_no_recording_is_in_two_sets(work: Path) -> None:
    recipe = Recipe(ratio=0.5, split=(0.8, 0.2), group_by="folder")
    sets, skipped, _, _ = load_sets(work, "1", recipe)
    assert skipped == []
    assert list(sets) == ["train", "valid", "test"]
    for role, count in (("clean", 20), ("noise", 20), ("room", 10)):
        sizes = [len(part.recordings[role]) for part in sets.values()]
        assert (sum(sizes), min(sizes) > 0) == (count, True)
        assert role == "room" or sizes[2] == 10
    for role in ("clean", "noise", "room"):
        folders = [
            {(recording.role, recording.folder) for recording in part.recordings[role]}
            for part in sets.values()
        ]
        assert len(set.union(*folders)) == sum(map(len, folders))
    assert {recording.role for recording in sets["test"].recordings["clean"]} == {"test clean"}
    with pytest.raises(UsageError, match="does not match 10 of 10 clean"):
        load_sets(work, "2", Recipe(ratio=0.5, split=(0.8, 0.2), group_by="(x)"))


def test_sets_of_one_seed_are_mixed_differently(work: Path) -> None:
    sets, *_ = load_sets(work, "1", Recipe(ratio=(0.0, 1.0), split=(0.5, 0.5)))
    ratios = []
    for set_mixtures in sets.values():
        pair = set_mixtures.mix(0)
        assert isinstance(pair, Pair)
        ratios.append(pair.row.ratio)
    assert len(set(ratios)) == 3


def test_a_task_writes_the_same_as_its_mixtures_one_by_one(work: Path) -> None:
    recipe = Recipe(ratio=0.5, split=(0.5, 0.5), kind="spectrogram", n_fft=64)
    test_set = load_sets(work, "1", recipe)[0]["test"]
    task = MixTask(work, "1", recipe, "test", 3, 7)
    totals = mix_part(task)
    records = [
        tf.io.parse_tensor(record, tf.float32).numpy()
        for record in tf.data.TFRecordDataset(str(task.records))
    ]
    rows: list[Row] = []
    for number in range(3, 7):
        pair = test_set.mix(number)
        assert isinstance(pair, Pair)
        np.testing.assert_array_equal(records[2 * len(rows)], pair.noisy)
        np.testing.assert_array_equal(records[2 * len(rows) + 1], pair.clean)
        rows.append(pair.row)
    assert task.part().rows == rows
    assert totals == (4, 4 * 4000, task.records.stat().st_size, 0)
    task.records.unlink()
    assert mix_part(task) == totals  # it is done, and its records were appended
    assert not task.records.exists()
