import resource
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from denoisecli.datasets.storage import Snapshot, load, save, stored_size
from denoisecli.errors import DatasetError, DenoiseError, UsageError

Pairs = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def pairs(rng: np.random.Generator) -> Pairs:
    return [tuple(rng.standard_normal((2, size)).astype("f4")) for size in (5, 1, 3000, 0, 70000)]


def test_the_same_files_as_tensorflow_writes(pairs: Pairs, tmp_path: Path) -> None:
    spec = (tf.TensorSpec((None,), tf.float32),) * 2
    theirs = tf.data.Dataset.from_generator(lambda: iter(pairs), output_signature=spec)
    save(theirs, tmp_path / "theirs")
    ours = Snapshot(tmp_path / "ours", "waveform", 0)
    for pair in pairs:
        ours.add(*pair)
    assert ours.flush() == stored_size(tmp_path / "ours") == stored_size(tmp_path / "theirs")
    ours.finish(len(pairs))
    (path,) = (tmp_path / "theirs").rglob("*.snapshot")
    assert ours.path.read_bytes() == path.read_bytes()
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == sorted(
        ["dataset_spec.pb", "snapshot.metadata", ours.path.parents[1].name]
    )
    loaded = tf.data.Dataset.load(str(tmp_path / "ours"))
    assert loaded.element_spec == spec
    assert loaded.cardinality() == len(pairs)
    for pair, read in zip(pairs, loaded.as_numpy_iterator(), strict=True):
        for expected, found in zip(pair, read, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_spectrograms(rng: np.random.Generator, tmp_path: Path) -> None:
    pairs = [rng.random((2, 33, frames), dtype=np.float32) for frames in (1, 20)]
    snapshot = Snapshot(tmp_path, "spectrogram", 33)
    for pair in pairs:
        snapshot.add(*pair)
    snapshot.flush()
    snapshot.finish(2)
    loaded = load(tmp_path)
    assert loaded.element_spec[0].shape.as_list() == [33, None]
    for pair, read in zip(pairs, loaded.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(np.array(read), pair)


def test_going_on(pairs: Pairs, tmp_path: Path) -> None:
    whole = Snapshot(tmp_path / "whole", "waveform", 0)
    for pair in pairs:
        whole.add(*pair)
    whole.flush()
    first = Snapshot(tmp_path / "parts", "waveform", 0)
    first.add(*pairs[0])
    first.add(*pairs[1])
    size = first.flush()
    first.add(*pairs[4])  # half done when the program was killed
    first.flush()
    again = Snapshot(tmp_path / "parts", "waveform", 0, size)
    for pair in pairs[2:]:
        again.add(*pair)
        again.flush()
    assert again.path.read_bytes() == whole.path.read_bytes()
    with pytest.raises(DatasetError, match="damaged"):
        Snapshot(tmp_path / "parts", "waveform", 0, size=10**9)


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
        snapshot = Snapshot(tmp_path / "snapshot", "waveform", 0)
        with pytest.raises(DenoiseError, match=r"snapshot: .*too large"):
            for _ in range(100):
                snapshot.add(np.zeros(100_000, np.float32), np.zeros(100_000, np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", ["a*", "[1]", "what?", "back\\slash"])
def test_paths_that_are_patterns(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        save(tf.data.Dataset.range(3), tmp_path / name)
    with pytest.raises(UsageError, match="pattern"):
        load(tmp_path / name / "train")


def test_load_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file", "nothing"):
        with pytest.raises(DatasetError, match=name):
            load(tmp_path / name)
    save(tf.data.Dataset.range(3), tmp_path / "saved")
    (tmp_path / "saved" / "dataset_spec.pb").write_bytes(b"\xffnonsense")
    with pytest.raises(DatasetError, match="damaged"):
        load(tmp_path / "saved")
