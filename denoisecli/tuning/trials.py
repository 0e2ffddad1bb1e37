"""What a search has tried: results of trials, the best of them, CSV."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from denoisecli.errors import DenoiseError
from denoisecli.spec.document import Spec, save_spec
from denoisecli.spec.search import Search
from denoisecli.spec.search_space import with_values
from denoisecli.system.atomic_files import replacing

Status = Literal["running", "waiting", "completed", "failed", "infeasible"]


@dataclass(frozen=True)
class TrialResult:
    """One trial of a search.

    Attributes:
        name: four digits, also of its folder.
        status: "waiting" is one that was interrupted, "infeasible" one that was not trained since
            its values do not go together or it is above a cap.
        values: what was searched, by path.
        objective: the best of all epochs; None without a figure.
        figures: of the validation, at that epoch.
        epochs: trained.
        macs: multiply-accumulates per second of audio, if a network could be built.
        parameters: of the network.
        seconds: that it took.
        message: why it was not trained, or how it failed.
        is_spec: whether the values are those that stand in the spec.
    """

    name: str
    status: Status
    values: dict[str, Any]
    objective: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    epochs: int | None = None
    macs: float | None = None
    parameters: int | None = None
    seconds: float | None = None
    message: str = ""
    is_spec: bool = False


@runtime_checkable
class SearchObserver(Protocol):
    """Is told how a search goes."""

    def on_message(self, text: str) -> None:
        """Something worth a line."""

    def progress(self, trial: str, text: str) -> None:
        """How far a trial in this process is."""

    def trials(self, results: Sequence[TrialResult]) -> None:
        """A trial has begun or ended: all there are."""


def rank(results: Sequence[TrialResult], search: Search) -> list[TrialResult]:
    """The trials that have a figure, the best one first."""
    sign = 1 if search.direction == "min" else -1
    scored = [(sign * r.objective, r) for r in results if r.objective is not None]
    return [result for _, result in sorted(scored, key=lambda pair: pair[0])]


def pareto(results: Sequence[TrialResult], search: Search) -> list[TrialResult]:
    """The trials that none with fewer MACs, or as many, beats; by rising MACs."""
    front: list[TrialResult] = []
    for result in rank(results, search):
        if result.macs is not None and (not front or result.macs < (front[-1].macs or 0)):
            front.append(result)
    return front[::-1]


def best_spec(spec: Spec, results: Sequence[TrialResult]) -> Spec:
    """The spec with the values of the best trial: for a full training, as long as it wants.

    Raises:
        DenoiseError: no trial has come to a figure.
    """
    assert spec.search is not None
    ranked = rank(results, spec.search)
    if not ranked:
        reasons = [f"{r.name}: {r.message}" for r in results if r.message]
        raise DenoiseError(
            f"none of {len(results)} trials came to a figure"
            + (f"; the last one, {reasons[-1]}" if reasons else "")
        )
    best = ranked[0]
    found = (
        f"trial {best.name} of {len(results)}, {spec.search.objective} {best.objective:.4g} "
        f"after {best.epochs} epochs"
    )
    return with_values(
        spec, best.values | {"name": f"{spec.name}-best", "description": f"Found by tune: {found}"}
    )


def write_best(spec: Spec, results: Sequence[TrialResult], path: Path) -> None:
    """Write `best_spec` as a file that `denoise train` takes.

    Raises:
        DenoiseError: no trial has come to a figure.
    """
    best = best_spec(spec, results)
    with replacing(path, overwrite=True) as part:
        save_spec(best, part)


def write_csv(results: Sequence[TrialResult], search: Search, path: Path) -> None:
    """Write a line per trial, in the order of their beginnings."""
    figures = sorted({name for result in results for name in result.figures})
    names = ["trial", "status", search.objective]
    names += [name for name in figures if name != search.objective]
    names += ["epochs", "macs", "parameters", "seconds", *search.space, "message"]
    with replacing(path, overwrite=True) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        for result in results:
            row = {
                "trial": result.name,
                "status": result.status,
                "epochs": result.epochs,
                "macs": result.macs,
                "parameters": result.parameters,
                "seconds": result.seconds,
                "message": result.message,
            }
            values = {path: as_text(value) for path, value in result.values.items()}
            writer.writerow(row | result.figures | values)


def as_text(value: Any) -> str:
    """A searched value: JSON, but a text without its quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of paths, and the first letters of the others where they are needed."""
    names = []
    for path in paths:
        *places, name = path.split(".")
        alike = [other for other in paths if other.rpartition(".")[2] == name]
        short = ".".join([place if len(place) < 3 else place[0] for place in places] + [name])
        if len(alike) == 1:
            short = name
        names.append(short)
    return names if len(set(names)) == len(names) else list(paths)


COLUMNS = ["trial", "status", "objective", "epochs", "MMAC/s", "parameters", "seconds"]
"""Of `table_row`; the searched fields follow."""


def table_row(result: TrialResult) -> list[str]:
    """A trial in a table for people; what is not known is a dash."""
    figures = (
        (result.objective, ".4g"),
        (result.epochs, ".0f"),
        (result.macs and result.macs / 1e6, ".1f"),
        (result.parameters, ",.0f"),
        (result.seconds, ".0f"),
    )
    texts = ["-" if value is None else format(value, form) for value, form in figures]
    values = [
        f"{value:.4g}" if isinstance(value, float) else _shorten(as_text(value))
        for value in result.values.values()
    ]
    return [result.name, result.status, *texts, *values]


def summary(result: TrialResult) -> str:
    """A trial that has ended in a line."""
    names = [*COLUMNS, *short_names(list(result.values))][2:]
    texts = zip(names, table_row(result)[2:], strict=True)
    known = ", ".join(f"{name} {text}" for name, text in texts if text != "-")
    reason = f"; {result.message}" if result.message else ""
    return f"trial {result.name} {result.status}: {known}{reason}"


def _shorten(text: str, length: int = 14) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
