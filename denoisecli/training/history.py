"""The picture of a training run: its figures over the hours of audio."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from denoisecli.training.scoring import SCORES


def plot_history(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw training and validation curves as a PNG.

    Args:
        history: one row per epoch, as in history.csv.
        path: where to write.
    """
    from matplotlib.figure import Figure

    titles = {"loss": "Loss", "si_sdr_improvement": "SI-SDR improvement (dB)"}
    titles |= {
        name: name.upper() for name in SCORES if any(f"val_{name}" in row for row in history)
    }
    figure = Figure(figsize=(4.5 * len(titles), 3.6), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        for key, label in ((name, "training, augmented"), (f"val_{name}", "validation")):
            points = [(row["audio_hours"], row[key]) for row in history if key in row]
            if points:
                hours, values = zip(*points, strict=True)
                axes.plot(hours, values, marker="." if len(points) < 50 else "", label=label)
        axes.set_title(title, loc="left")
        axes.set_xlabel("hours of audio seen")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
