"""The picture of a training run: loss and SI-SDR improvement over the epochs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def plot_history(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw training and validation curves as a PNG.

    Args:
        history: one row per epoch, as in history.csv.
        path: where to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    hours = [row["audio_hours"] for row in history]
    titles = {"loss": "Loss", "si_sdr_improvement": "SI-SDR improvement (dB)"}
    for axes, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for key, label in ((name, "training, augmented"), (f"val_{name}", "validation")):
            values = [row.get(key, float("nan")) for row in history]
            axes.plot(hours, values, marker="." if len(history) < 50 else "", label=label)
        axes.set_title(title, loc="left")
        axes.set_xlabel("hours of audio seen")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
