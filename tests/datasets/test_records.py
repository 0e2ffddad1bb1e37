from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from denoisecli.datasets.records import PairRecords, append_records, records_file, write_tensor
from denoisecli.datasets.stored import load, save, write_metadata
from denoisecli.errors import DatasetError

Pairs = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def pairs(rng: np.random.Generator) -> Pairs:
    return [tuple(rng.standard_normal((2, size)).astype("f4")) for size in (5, 1, 3000, 0, 70000)]


def write(path: Path, pairs: Pairs) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for pair in pairs:
            for half in pair:
                write_tensor(file, half)
        return file.tell()


def test_the_same_files_as_tensorflow_writes(pairs: Pairs, tmp_path: Path) -> None:
    spec = (tf.TensorSpec((None,), tf.float32),) * 2
    theirs = tf.data.Dataset.from_generator(lambda: iter(pairs), output_signature=spec)
    save(theirs, tmp_path / "theirs")
    write(records_file(tmp_path / "ours"), pairs)
    write_metadata(tmp_path / "ours", len(pairs), None)
    (path,) = (tmp_path / "theirs").rglob("*.snapshot")
    assert records_file(tmp_path / "ours").read_bytes() == path.read_bytes()
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == sorted(
        ["dataset_spec.pb", "snapshot.metadata", "1"]
    )
    loaded = tf.data.Dataset.load(str(tmp_path / "ours"))
    assert loaded.element_spec == spec
    assert loaded.cardinality() == len(pairs)
    for pair, read in zip(pairs, loaded.as_numpy_iterator(), strict=True):
        for expected, found in zip(pair, read, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_spectrograms(rng: np.random.Generator, tmp_path: Path) -> None:
    pairs = [tuple(rng.random((2, 33, frames), dtype=np.float32)) for frames in (1, 20)]
    write(records_file(tmp_path), pairs)
    write_metadata(tmp_path, 2, 33)
    loaded = load(tmp_path)
    assert loaded.element_spec[0].shape.as_list() == [33, None]
    for pair, read in zip(pairs, loaded.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(np.array(read), pair)


def test_tensors_that_are_not_contiguous(rng: np.random.Generator, tmp_path: Path) -> None:
    tensor = rng.random((4, 6))[::2].T  # in 64 bits, too
    with (tmp_path / "records").open("wb") as file:
        write_tensor(file, tensor)
    (record,) = tf.data.TFRecordDataset(str(tmp_path / "records"))
    np.testing.assert_array_equal(tf.io.parse_tensor(record, tf.float32), np.float32(tensor))


def test_appending_can_be_repeated(pairs: Pairs, tmp_path: Path) -> None:
    write(tmp_path / "whole", pairs)
    target, part = tmp_path / "sets" / "target", tmp_path / "part"
    write(part, pairs[:2])
    append_records(part, target, 0)
    assert not part.exists()
    size = target.stat().st_size
    write(part, pairs[2:])
    with target.open("ab") as file:
        file.write(part.read_bytes()[:1000])  # the process was killed here
    append_records(part, target, size)
    assert target.read_bytes() == (tmp_path / "whole").read_bytes()
    write(part, pairs)
    with pytest.raises(DatasetError, match="damaged"):
        append_records(part, target, 10**9)
    assert part.exists()


def test_pairs_are_read_in_any_order(pairs: Pairs, tmp_path: Path) -> None:
    write(records_file(tmp_path), pairs)
    records = PairRecords(tmp_path, [noisy.size for noisy, _ in pairs])
    assert len(records) == len(pairs)
    for index in (4, 0, 3, 2, 1, 4):
        for found, expected in zip(records[index], pairs[index], strict=True):
            np.testing.assert_array_equal(found, expected)


def test_damaged_records_are_refused(pairs: Pairs, tmp_path: Path) -> None:
    samples = [noisy.size for noisy, _ in pairs]
    path = records_file(tmp_path)
    with pytest.raises(DatasetError, match="cannot be read"):
        PairRecords(tmp_path, samples)
    size = write(path, pairs)
    for content in (path.read_bytes()[: size - 1], path.read_bytes() + b"\0", b"\0"):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=str(path)):
            PairRecords(tmp_path, samples)
    write(path, pairs)
    with pytest.raises(DatasetError, match="not those of the manifest"):
        PairRecords(tmp_path, samples[:-1])
