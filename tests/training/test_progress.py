from typing import Any

import numpy as np
import pytest

from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training.progress import ENOUGH, WINDOW, State, differences, forbidden_changes


def spec_of(description: str = "", **training: Any) -> Spec:
    level = [{"filters": 4}]
    document = {"name": "test", "downsampling": level, "upsampling": level}
    return parse_spec({**document, "description": description, "training": training})


@pytest.mark.parametrize("level", [1.0, 0.0, -0.1])
def test_explosion(level: float) -> None:
    """Losses fluctuate around any level, zero and less included; a jump is told from that."""
    rng = np.random.default_rng(0)
    state = State()
    for loss in level + 0.02 * rng.standard_normal(3 * WINDOW):
        assert not state.exploded(float(loss), 100.0)
    assert len(state.recent) == WINDOW
    assert not state.exploded(level + 0.5, 100.0)  # 37 median deviations
    assert not state.exploded(level - 50.0, 100.0)
    assert not state.exploded(level + 50.0, None)
    assert state.exploded(level + 5.0, 100.0)


def test_explosion_needs_to_know_what_is_usual() -> None:
    state = State()
    for _ in range(ENOUGH):
        assert not state.exploded(1e6, 100.0)
        state.recent[-1] = 1.0
    assert not state.exploded(1.9, 100.0)  # equal losses: a hundredth of them is the deviation
    assert state.exploded(2.1, 100.0)


def test_nothing_of_the_past_may_change() -> None:
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


def test_a_constant_run_may_become_longer() -> None:
    constant = {"schedule": "constant", "warmup_steps": 10}
    before, longer = spec_of(**constant, epochs=10), spec_of(**constant, epochs=20)
    assert forbidden_changes(before, longer, 95, 10) == []
    # Half of so short a run would be warm-up, and another one at that.
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
