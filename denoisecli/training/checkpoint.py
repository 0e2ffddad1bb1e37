"""The checkpoint of a training run: its file, its content, and which changes of the spec it allows.

The file is a NumPy ``.npz`` archive without pickled objects: arrays named ``GROUP/NUMBER`` and an
array ``progress`` that holds JSON.
"""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import BaseModel, JsonValue, ValidationError

from denoisecli.errors import ModelError, SpecError
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.system.atomic_files import replacing
from denoisecli.training.history import Row
from denoisecli.training.optimizer import decay_start, warmup_steps

Arrays = list[np.ndarray]

LOSS_WINDOW = 100
"""Number of recent batch losses that define what is usual."""

MIN_LOSSES = 20
"""Minimum number of recent losses before a batch can be called an outlier."""

FREE_KEYS = (
    "description",
    "training.early_stopping",
    "training.jit_compile",
    "training.loss_limit",
    "training.perceptual_every",
)
"""Keys of the spec that may change when a run resumes, as no past step depends on them."""


class State(BaseModel):
    """Position of a training run, apart from the weights.

    Attributes:
        epoch: Number of finished epochs.
        step: Number of finished batches of the next epoch.
        best: Best value of the monitored figure, or None if it was not measured yet.
        best_epoch: Index of the epoch of that value, from 0.
        seconds: Time spent on training.
        history: One row per finished epoch.
        loss_sum: Sum of the batch losses of the epoch in progress.
        recent: Losses of the most recent batches.
        init_from: Model that the weights started from.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = -1
    seconds: float = 0.0
    history: list[Row] = []
    loss_sum: float = 0.0
    recent: list[float] = []
    init_from: str | None = None

    def add_loss(self, loss: float, limit: float | None) -> bool:
        """Record the loss of a batch and return whether it is an outlier.

        Args:
            loss: Loss of the batch.
            limit: A loss is an outlier if it exceeds the median of the recent losses by more than
                this many median absolute deviations; None disables the check.
        """
        outlier = False
        if limit is not None and len(self.recent) >= MIN_LOSSES:
            median = float(np.median(self.recent))
            spread = float(np.median(np.abs(np.array(self.recent) - median)))
            outlier = loss - median > limit * max(spread, abs(median) / 100)
        self.recent = [*self.recent, loss][-LOSS_WINDOW:]
        return outlier


@dataclass
class Checkpoint:
    """All that a training run needs to resume.

    Attributes:
        spec: Spec of the run.
        dataset: Identifier of the dataset.
        state: Position of the run.
        task: Variables of the model that is trained.
        optimizer: Variables of the optimizer.
        metrics: Variables of the metrics.
        best: Weights of the network after the best epoch so far.
        start: Weights that the run started from, if the spec keeps a share of them.
    """

    spec: Spec
    dataset: str
    state: State
    task: Arrays
    optimizer: Arrays
    metrics: Arrays
    best: Arrays
    start: Arrays = field(default_factory=list)


class _Progress(BaseModel):
    """The part of the file that is JSON."""

    spec: dict[str, JsonValue]
    dataset: str
    state: State


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint beside its target and rename it when it is complete.

    Raises:
        DenoiseError: The file cannot be written.
    """
    progress = _Progress(
        spec=checkpoint.spec.model_dump(mode="json"),
        dataset=checkpoint.dataset,
        state=checkpoint.state,
    )
    arrays = {"progress": np.frombuffer(progress.model_dump_json().encode(), np.uint8)}
    for name in ("task", "optimizer", "metrics", "best", "start"):
        for index, array in enumerate(getattr(checkpoint, name)):
            arrays[f"{name}/{index}"] = array
    with replacing(path, overwrite=True) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # none is called allow_pickle


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ModelError: The file is missing, damaged, not a checkpoint, or of an incompatible version.
    """
    groups: dict[str, Arrays] = {}
    try:
        # Opened here, because NumPy does not close a file that is damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            text = file["progress"].tobytes()
            for key in file.files:  # in the order of saving
                if "/" in key:
                    groups.setdefault(key.partition("/")[0], []).append(file[key])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{path} is missing, damaged or not a checkpoint; --fresh starts over"
        ) from error
    try:
        progress = _Progress.model_validate_json(text)
        return Checkpoint(
            parse_spec(progress.spec),  # which fills in keys that earlier versions did not have
            progress.dataset,
            progress.state,
            task=groups["task"],
            optimizer=groups["optimizer"],
            metrics=groups["metrics"],
            best=groups["best"],
            start=groups.get("start", []),
        )
    except (KeyError, ValidationError, SpecError) as error:
        raise incompatible(path) from error


def incompatible(path: Path) -> ModelError:
    """Return the error about a checkpoint whose content does not fit this version."""
    return ModelError(f"{path} was written by an incompatible version; --fresh starts over")


def forbidden_changes(
    before: Spec, after: Spec, steps_done: int, steps_per_epoch: int
) -> list[str]:
    """Return the keys that differ between two specs although a resumed run must not change them.

    Args:
        before: Spec that the run began with.
        after: Spec to resume it with.
        steps_done: Number of training steps so far.
        steps_per_epoch: Number of steps of an epoch.
    """
    changed = differences(before.model_dump(mode="json"), after.model_dump(mode="json"))
    allowed = set(FREE_KEYS)
    totals = [(spec.training, spec.training.epochs * steps_per_epoch) for spec in (before, after)]
    # The length of a run may change as long as no step so far depended on it.
    same_start = warmup_steps(*totals[0]) == warmup_steps(*totals[1])
    if same_start and all(steps_done <= decay_start(*total) for total in totals):
        allowed |= {"training.epochs", "training.decay_share"}
    return [key for key in changed if key not in allowed and key.partition(".")[0] != "search"]


def differences(old: object, new: object, path: str = "") -> list[str]:
    """Return the dotted paths of the values that differ between two JSON documents."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [d for key in keys for d in differences(old.get(key), new.get(key), f"{path}.{key}")]
    return [] if old == new else [path.removeprefix(".")]
