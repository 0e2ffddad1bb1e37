"""The trials of a search: their results, how they rank, and the files and tables made of them."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from denoisecli.errors import DenoiseError
from denoisecli.spec.document import Spec, save_spec
from denoisecli.spec.search import Search
from denoisecli.spec.search_space import with_values
from denoisecli.system.atomic_files import replacing


class Status(StrEnum):
    """State of a trial."""

    RUNNING = "running"
    WAITING = "waiting"
    """It was interrupted and will be trained again."""

    COMPLETED = "completed"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    """It was not trained: its values contradict each other, or the network is above a cap."""


@dataclass(frozen=True)
class Proposal:
    """A trial that is to be trained.

    Attributes:
        name: Four digits.
        values: Value of every searched field, by path.
        until: Epoch at which to pause (Hyperband); None trains to the end.
        continues: Name of the trial whose checkpoint to start from (Hyperband).
    """

    name: str
    values: dict[str, Any]
    until: int | None = None
    continues: str | None = None


class NoTrial(StrEnum):
    """Why there is no trial to train."""

    WAIT = "wait"
    """There may be one later: ask again."""

    DONE = "done"
    """The search is over."""


@dataclass(frozen=True)
class TrialResult:
    """A trial and what is known of it so far.

    Attributes:
        name: Four digits, also part of the name of its folder.
        status: State of the trial.
        values: Value of every searched field, by path.
        objective: Best value over all epochs; None unless completed.
        metrics: Validation metrics of that epoch, by the names of history.csv.
        epochs: Number of epochs trained.
        macs: Multiply-accumulates of the network per second of audio.
        parameters: Number of parameters of the network.
        seconds: Duration of the trial in s.
        message: Why it was not trained, or how it failed.
        is_spec: Whether the values are those of the spec itself.
    """

    name: str
    status: Status
    values: dict[str, Any]
    objective: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: int | None = None
    macs: float | None = None
    parameters: int | None = None
    seconds: float | None = None
    message: str = ""
    is_spec: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether the trial has ended and will not be trained again."""
        return self.status not in (Status.RUNNING, Status.WAITING)


@runtime_checkable
class SearchObserver(Protocol):
    """Receives the events of a search."""

    def on_message(self, text: str) -> None:
        """Handle a message to the user."""

    def on_progress(self, trial: str, text: str) -> None:
        """Handle the progress of a trial that this process trains."""

    def on_results(self, results: Sequence[TrialResult]) -> None:
        """Handle the table of all trials, after one of them has started or ended."""


def rank(results: Sequence[TrialResult], search: Search) -> list[TrialResult]:
    """Return the completed trials, best objective first."""
    sign = 1 if search.direction == "min" else -1
    scored = [(sign * r.objective, r) for r in results if r.objective is not None]
    return [result for _, result in sorted(scored, key=lambda pair: pair[0])]


def pareto(results: Sequence[TrialResult], search: Search) -> list[TrialResult]:
    """Return the Pareto front: the trials that no trial of at most as many MACs beats.

    Returns:
        Trials by increasing MACs.
    """
    front: list[TrialResult] = []
    for result in rank(results, search):
        if result.macs is not None and (not front or result.macs < (front[-1].macs or 0)):
            front.append(result)
    return front[::-1]


def write_best(spec: Spec, results: Sequence[TrialResult], path: Path) -> None:
    """Write the spec with the values of the best trial, ready for `denoise train`.

    Its training section is that of ``spec``, so that it is trained for as long as ``spec`` asks,
    not as briefly as the trial was.

    Raises:
        DenoiseError: No trial completed.
    """
    assert spec.search is not None
    ranked = rank(results, spec.search)
    if not ranked:
        counts = Counter(result.status for result in results)
        states = ", ".join(f"{count} {status}" for status, count in counts.items())
        reasons = [f"; trial {r.name}: {r.message}" for r in results if r.message]
        raise DenoiseError(
            f"no trial completed ({states or 'none started'})" + "".join(reasons[-1:])
        )
    best = ranked[0]
    description = (
        f"Found by tune: trial {best.name} of {len(results)}, "
        f"{spec.search.objective} {best.objective:.4g} after {best.epochs} epochs"
    )
    changes = {"name": f"{spec.name[:95]}-best", "description": description}
    with replacing(path, overwrite=True) as part:
        save_spec(with_values(spec, best.values | changes), part)


def write_csv(results: Sequence[TrialResult], search: Search, path: Path) -> None:
    """Write one row per trial, in the order in which they started."""
    metrics = sorted({name for result in results for name in result.metrics})
    names = ["trial", "status", search.objective]
    names += [name for name in metrics if name != search.objective]
    names += ["epochs", "macs", "parameters", "seconds", *search.space, "message"]
    with (
        replacing(path, overwrite=True) as part,
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        for result in results:
            values = {path: value_text(value) for path, value in result.values.items()}
            writer.writerow(asdict(result) | {"trial": result.name} | result.metrics | values)


def value_text(value: Any) -> str:
    """Return a searched value as JSON, strings without their quotes."""
    return value if isinstance(value, str) else json.dumps(value)


_COLUMNS = ("trial", "status", "objective", "MMAC/s", "parameters", "epochs", "seconds")
"""Columns of `trial_row` beside the searched fields."""

_ABBREVIATIONS = {"downsampling": "down", "upsampling": "up"}


def short_names(paths: Sequence[str]) -> list[str]:
    """Return the last part of each path, preceded by the others only where it is ambiguous."""
    lasts = [path.rpartition(".")[2] for path in paths]
    names = [
        last
        if lasts.count(last) == 1 and last not in _COLUMNS
        else ".".join(_ABBREVIATIONS.get(part, part) for part in path.split("."))
        for path, last in zip(paths, lasts, strict=True)
    ]
    return names if len(set(names)) == len(names) else list(paths)


def trial_row(result: TrialResult) -> dict[str, str]:
    """Return what is known of a trial as texts by name, the most important first.

    "-" stands for what is not known.
    """
    row = {
        "trial": result.name,
        "status": str(result.status),
        "objective": _format(result.objective, ".4g"),
    }
    for name, value in zip(short_names(list(result.values)), result.values.values(), strict=True):
        text = _format(value, ".4g") if isinstance(value, float) else value_text(value)
        row[name] = text if len(text) <= 14 else f"{text[:13]}…"
    return row | {
        "MMAC/s": _format(None if result.macs is None else result.macs / 1e6, ".1f"),
        "parameters": _format(result.parameters, ",d"),
        "epochs": _format(result.epochs, "d"),
        "seconds": _format(result.seconds, ".0f"),
    }


def _format(number: int | float | None, form: str) -> str:
    return "-" if number is None else format(number, form)


def trial_table(results: Sequence[TrialResult]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of a table of trials; the first two columns are text.

    Args:
        results: At least one.
    """
    rows = [trial_row(result) for result in results]
    # With spaces, a long heading can be broken into lines.
    headings = [" ".join(name.replace("_", " ").rsplit(".", 1)) for name in rows[0]]
    return headings, [list(row.values()) for row in rows]


def summary(result: TrialResult) -> str:
    """Return one line about a finished trial."""
    row = trial_row(result)
    known = [f"{name} {text}" for name, text in list(row.items())[2:] if text != "-"]
    reason = f"; {result.message}" if result.message else ""
    return f"trial {result.name} {result.status}: {', '.join(known)}{reason}"
