from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denoisecli.errors import DenoiseError, ModelError
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training.checkpoint import (
    LOSS_WINDOW,
    MIN_LOSSES,
    Checkpoint,
    State,
    differences,
    forbidden_changes,
    load_checkpoint,
    save_checkpoint,
)


def spec_of(description: str = "", **training: Any) -> Spec:
    level = [{"filters": 4}]
    document = {"name": "test", "downsampling": level, "upsampling": level}
    return parse_spec({**document, "description": description, "training": training})


CHECKPOINT = Checkpoint(
    spec=spec_of("größe"),
    dataset="data",
    state=State(epoch=1, history=[{"epoch": 1, "loss": 0.1 + 0.2}], recent=[1 / 3]),
    # More than ten, whose numbers are not in the order of their names.
    task=[np.full((2, index), index, np.float32) for index in range(12)],
    optimizer=[np.array(7, np.int64), np.zeros((0, 3), np.float32), np.array([True])],
    metrics=[np.ones(2, np.float32)],
    best=[np.array([np.inf, np.nan, -0.0])],
)
GROUPS = ("task", "optimizer", "metrics", "best", "start")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "run" / "checkpoint.npz", CHECKPOINT)
    return tmp_path / "run" / "checkpoint.npz"


def test_round_trip_is_exact(path: Path) -> None:
    loaded = load_checkpoint(path)
    assert loaded.spec == CHECKPOINT.spec
    assert loaded.dataset == CHECKPOINT.dataset
    assert loaded.state == CHECKPOINT.state
    assert isinstance(loaded.state.history[0]["epoch"], int)
    for name in GROUPS:
        group, expected_group = getattr(loaded, name), getattr(CHECKPOINT, name)
        assert len(group) == len(expected_group)
        for found, expected in zip(group, expected_group, strict=True):
            assert found.dtype == expected.dtype
            assert found.shape == expected.shape
            assert found.tobytes() == expected.tobytes()


def test_checkpoint_is_replaced_only_when_complete(path: Path) -> None:
    before = path.read_bytes()
    for broken in ({"best": [np.zeros(3), lambda: 0]}, {"dataset": object()}):
        with pytest.raises(Exception):  # noqa: B017 - whatever goes wrong
            save_checkpoint(path, replace(CHECKPOINT, **broken))
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]
    save_checkpoint(path, replace(CHECKPOINT, dataset="other"))
    assert load_checkpoint(path).dataset == "other"
    assert list(path.parent.iterdir()) == [path]


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(DenoiseError, match="cannot write to"):
        save_checkpoint(tmp_path / "run" / "checkpoint.npz", CHECKPOINT)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "npy", "npz", "object"])
def test_damaged_or_foreign_file(path: Path, damage: str) -> None:
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        place = data.index("größe".encode())
        path.write_bytes(data[:place] + b"?" + data[place + 1 :])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not a checkpoint", encoding="utf-8")
    elif damage == "npz":
        np.savez(path, a=np.zeros(3))
    else:
        values = np.array([{}], object) if damage == "object" else np.zeros(3)
        with path.open("wb") as file:
            np.save(file, values)
    message = r"checkpoint\.npz is missing, damaged or not a checkpoint; --fresh starts over"
    with pytest.raises(ModelError, match=message):
        load_checkpoint(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is missing"):
        load_checkpoint(tmp_path / "checkpoint.npz")


def test_incompatible_content(path: Path) -> None:
    save_checkpoint(path, replace(CHECKPOINT, task=[]))
    with pytest.raises(ModelError, match="was written by an incompatible version; --fresh starts"):
        load_checkpoint(path)


@pytest.mark.parametrize("level", [1.0, 0.0, -0.1])
def test_outlier_losses(level: float) -> None:
    """Losses fluctuate around any level, zero and less included; a jump differs from that."""
    rng = np.random.default_rng(0)
    state = State()
    for loss in level + 0.02 * rng.standard_normal(3 * LOSS_WINDOW):
        assert not state.add_loss(float(loss), 100.0)
    assert len(state.recent) == LOSS_WINDOW
    assert not state.add_loss(level + 0.5, 100.0)  # 37 median deviations
    assert not state.add_loss(level - 50.0, 100.0)
    assert not state.add_loss(level + 50.0, None)
    assert state.add_loss(level + 5.0, 100.0)


def test_first_losses_are_no_outliers() -> None:
    state = State()
    for _ in range(MIN_LOSSES):
        assert not state.add_loss(1e6, 100.0)
        state.recent[-1] = 1.0
    assert not state.add_loss(1.9, 100.0)  # equal losses: the deviation is a hundredth of them
    assert state.add_loss(2.1, 100.0)


def test_what_past_steps_depend_on_must_not_change() -> None:
    before = spec_of()
    assert forbidden_changes(before, spec_of("described"), 5, 10) == []
    free = spec_of(early_stopping=3, loss_limit=None, perceptual_every=2, jit_compile=True)
    assert forbidden_changes(before, free, 5, 10) == []
    changed = spec_of(augmentation=None, learning_rate=0.1, epochs=50)
    assert forbidden_changes(before, changed, 5, 10) == [
        "training.augmentation",
        "training.epochs",
        "training.learning_rate",
    ]


def test_a_run_with_a_constant_learning_rate_may_become_longer() -> None:
    constant = {"schedule": "constant", "warmup_steps": 10}
    before, longer = spec_of(**constant, epochs=10), spec_of(**constant, epochs=20)
    assert forbidden_changes(before, longer, 95, 10) == []
    # Half of so short a run would be warm-up, and a different one.
    assert forbidden_changes(before, spec_of(**constant, epochs=1), 5, 10) == ["training.epochs"]

    stable = {"schedule": "warmup_stable_decay", "warmup_steps": 10, "decay_share": 0.2}
    before, longer = spec_of(**stable, epochs=10), spec_of(**stable, epochs=20)
    assert forbidden_changes(before, longer, 80, 10) == []
    assert forbidden_changes(before, longer, 81, 10) == ["training.epochs"]  # it has begun to fall
    assert forbidden_changes(longer, before, 81, 10) == ["training.epochs"]  # it would have
    other = spec_of(**{**stable, "decay_share": 0.4}, epochs=10)
    assert forbidden_changes(before, other, 60, 10) == []
    assert forbidden_changes(before, other, 61, 10) == ["training.decay_share"]


def test_differences() -> None:
    old = {"a": {"b": [1, 2], "c": 1}, "d": None}
    assert differences(old, old) == []
    assert differences(old, {"a": {"b": [1, 3], "c": 1}, "e": 2}) == ["a.b", "e"]
