"""Where a training run stands, and whether it may go on with another spec."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from denoisecli.spec.document import Spec
from denoisecli.training.optimizer import decay_start, warmup_steps
from denoisecli.training.run_folder import Row

WINDOW = 100
"""Batches whose losses tell what is usual."""

ENOUGH = 20
"""Fewer losses than this tell nothing."""

FREE = (
    "description",
    "training.early_stopping",
    "training.jit_compile",
    "training.loss_limit",
    "training.perceptual_every",
)
"""What a run may go on with another value of: nothing that was done depends on it."""


@dataclass
class State:
    """Where a run stands, apart from the weights.

    Attributes:
        epoch: epochs done.
        step: batches done of the next one.
        best: the best value of what is monitored, if any was measured.
        best_epoch: when that was, from 0.
        seconds: spent on training.
        history: a row per epoch.
        loss_sum: of the batches of this epoch.
        recent: losses of the last batches.
        init_from: the model that the weights started from.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = -1
    seconds: float = 0.0
    history: list[Row] = field(default_factory=list)
    loss_sum: float = 0.0
    recent: list[float] = field(default_factory=list)
    init_from: str | None = None

    def exploded(self, loss: float, limit: float | None) -> bool:
        """Take note of a batch's loss; whether it is far from what is usual.

        Usual is the median of the last batches; far is more than ``limit`` times their median
        deviation above it.
        """
        far = False
        if limit is not None and len(self.recent) >= ENOUGH:
            median = float(np.median(self.recent))
            spread = float(np.median(np.abs(np.array(self.recent) - median)))
            far = loss - median > limit * max(spread, abs(median) / 100)
        self.recent = [*self.recent, loss][-WINDOW:]
        return far


def forbidden_changes(before: Spec, now: Spec, done: int, steps_per_epoch: int) -> list[str]:
    """Keys that differ between two specs, though a run that goes on may not change them.

    Args:
        before: the spec that the run began with.
        now: the spec that it is to go on with.
        done: steps done so far.
        steps_per_epoch: how many make an epoch.
    """
    changed = differences(before.model_dump(mode="json"), now.model_dump(mode="json"))
    allowed = set(FREE)
    totals = [(spec.training, spec.training.epochs * steps_per_epoch) for spec in (before, now)]
    # The length of a run may change as long as no step so far depended on it.
    same_start = warmup_steps(*totals[0]) == warmup_steps(*totals[1])
    if same_start and all(done <= decay_start(*total) for total in totals):
        allowed |= {"training.epochs", "training.decay_share"}
    return [key for key in changed if key not in allowed and key.partition(".")[0] != "search"]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Paths in two JSON documents at which they differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [d for key in keys for d in differences(old.get(key), new.get(key), f"{path}.{key}")]
    return [] if old == new else [path.removeprefix(".")]
