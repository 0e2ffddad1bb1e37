"""The history of a training run: one row of figures per epoch, as a CSV file and as a picture."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from denoisecli.errors import DenoiseError
from denoisecli.system.atomic_files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, int | float]
"""Figures of an epoch by name; a figure that the epoch did not measure is absent."""

TITLES = {
    "loss": "Loss",
    "si_sdr_improvement": "SI-SDR improvement (dB)",
    "pesq": "PESQ",
    "estoi": "ESTOI",
}
"""Names of figures in a row -> titles of the panels of the picture."""

SCORED = ("pesq", "estoi")
"""Figures that only some runs measure."""


def write_history(rows: Sequence[Row], path: Path) -> None:
    """Write one line per epoch as CSV; a figure that an epoch did not measure is left empty.

    Raises:
        DenoiseError: The file cannot be written.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path, overwrite=True) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)


def read_history(path: Path) -> list[Row]:
    """Read the CSV file that `write_history` wrote.

    Returns:
        One row per epoch; no rows if the file does not exist.

    Raises:
        DenoiseError: The file is not the history of a training run.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {name: float(value) for name, value in row.items() if value != ""}
                for row in csv.DictReader(file)
            ]
    except (TypeError, ValueError) as error:
        raise DenoiseError(f"{path} is not the history of a training run: {error}") from error


def is_better(monitor: str, value: float, best: float | None) -> bool:
    """Return whether a monitored figure beats the best one so far.

    Args:
        monitor: Name of the figure. Lower is better if it ends in "loss", otherwise higher.
        value: The new figure.
        best: The best figure so far, or None if there is none.
    """
    if best is None:
        return True
    return value < best if monitor.endswith("loss") else value > best


def plot_history(rows: Sequence[Row], path: Path) -> None:
    """Draw the curves of `history_figure` into a PNG file."""
    history_figure(rows).savefig(path, dpi=120)


def history_figure(rows: Sequence[Row]) -> "Figure":
    """Draw the training and validation curves over the hours of audio, one panel per figure.

    Args:
        rows: One row per epoch, as in history.csv.
    """
    from matplotlib.figure import Figure

    titles = {
        name: title
        for name, title in TITLES.items()
        if name not in SCORED or any(f"val_{name}" in row for row in rows)
    }
    figure = Figure(figsize=(4.5 * len(titles), 3.6), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        for key, label in ((name, "training, augmented"), (f"val_{name}", "validation")):
            points = [(row["audio_hours"], row[key]) for row in rows if key in row]
            if points:
                hours, values = zip(*points, strict=True)
                axes.plot(hours, values, marker="." if len(points) < 50 else "", label=label)
        axes.set_title(title, loc="left")
        axes.set_xlabel("Audio (hours)")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure
