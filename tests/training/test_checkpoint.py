from pathlib import Path

import numpy as np
import pytest

from denoisecli.errors import DenoiseError, ModelError
from denoisecli.training.checkpoint import load_checkpoint, save_checkpoint

ARRAYS = {
    # More than ten, whose numbers are not in the order of their names.
    "task": [np.full((2, index), index, np.float32) for index in range(12)],
    "optimizer": [np.array(7, np.int64), np.zeros((0, 3), np.float32), np.array([True])],
    "best": [np.array([np.inf, np.nan, -0.0])],
}
PROGRESS = {"spec": {"name": "größe"}, "state": {"best": None, "history": [{"loss": 0.1 + 0.2}]}}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "run" / "checkpoint.npz", ARRAYS, PROGRESS)
    return tmp_path / "run" / "checkpoint.npz"


def test_round_trip(checkpoint: Path) -> None:
    arrays, progress = load_checkpoint(checkpoint)
    assert progress == PROGRESS
    assert list(arrays) == list(ARRAYS)
    for name, group in ARRAYS.items():
        assert len(arrays[name]) == len(group)
        for found, expected in zip(arrays[name], group, strict=True):
            assert found.dtype == expected.dtype
            assert found.shape == expected.shape
            assert found.tobytes() == expected.tobytes()


def test_replaced_when_whole(checkpoint: Path) -> None:
    before = checkpoint.read_bytes()
    for arrays, progress in (
        ({"task": [np.zeros(3)]}, {"x": object()}),
        ({"task": [np.array([object()]), lambda: 0]}, {}),
    ):
        with pytest.raises(Exception):  # noqa: B017 - whatever went wrong
            save_checkpoint(checkpoint, {**ARRAYS, **arrays}, progress)
        assert checkpoint.read_bytes() == before
        assert list(checkpoint.parent.iterdir()) == [checkpoint]
    save_checkpoint(checkpoint, ARRAYS, {"step": 2})
    assert load_checkpoint(checkpoint)[1] == {"step": 2}
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_no_place(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(DenoiseError, match="cannot write to"):
        save_checkpoint(tmp_path / "run" / "checkpoint.npz", ARRAYS, PROGRESS)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "npy", "npz", "object"])
def test_damaged_or_foreign(checkpoint: Path, damage: str) -> None:
    data = checkpoint.read_bytes()
    if damage == "cut":
        checkpoint.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        place = data.index(b"gr\\u00f6")
        checkpoint.write_bytes(data[:place] + b"?" + data[place + 1 :])
    elif damage == "empty":
        checkpoint.write_bytes(b"")
    elif damage == "text":
        checkpoint.write_text("not a checkpoint")
    elif damage == "npz":
        np.savez(checkpoint, a=np.zeros(3))
    else:
        values = np.array([{}], object) if damage == "object" else np.zeros(3)
        with checkpoint.open("wb") as file:
            np.save(file, values)
    with pytest.raises(ModelError, match=r"checkpoint\.npz is no checkpoint or is damaged; start"):
        load_checkpoint(checkpoint)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no checkpoint"):
        load_checkpoint(tmp_path / "checkpoint.npz")
