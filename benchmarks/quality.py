"""How good and how fast the bundled model is, beside the baselines, in one run.

    python -m benchmarks.quality CLEAN NOISY [--model MODEL] [--plot FIGURE]

CLEAN and NOISY are folders of recordings with the same names. Each denoiser cleans one file after
the other, in a process of its own with nothing else running, on one thread.
"""

import argparse
import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from denoisecli.evaluation.estimators import Model, SpectralGating, Wiener
from denoisecli.evaluation.evaluate import evaluate
from denoisecli.evaluation.metrics import METRICS as ALL_METRICS
from denoisecli.evaluation.pairs import folder_pairs
from denoisecli.evaluation.scores import Evaluation

METRICS = ("pesq_wb", "stoi", "estoi", "si_sdr")


def measure(clean: Path, noisy: Path, model: str = "speech") -> Evaluation:
    """Evaluate the model and the baselines."""
    estimators = {model: Model(model), "noisereduce": SpectralGating(), "wiener": Wiener()}
    return evaluate(folder_pairs(clean, noisy), estimators, metrics=METRICS, jobs=2)


def summary(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A row per denoiser: means of the metrics, x real time, seconds to load, MB."""
    rows = []
    for name, cost in evaluation.costs.items():
        row: dict[str, Any] = {"denoiser": name}
        for metric in METRICS:
            row[metric] = evaluation.mean(name, metric).mean
        row["real_time"] = 1 / cost.real_time_factor  # NaN where it means nothing
        row["load_seconds"] = cost.load_seconds
        row["memory_mb"] = cost.peak_memory_mb
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    result = Table(
        "denoiser", "PESQ-WB", "STOI", "ESTOI", "SI-SDR", "x real time", "load s", "peak MB"
    )
    for row in rows:
        result.add_row(
            row["denoiser"],
            *(f"{row[metric]:.3f}" for metric in METRICS),
            *(
                "-" if math.isnan(row[key]) else f"{row[key]:.{digits}f}"
                for key, digits in (("real_time", 0), ("load_seconds", 2), ("memory_mb", 0))
            ),
        )
    return result


def plot(evaluation: Evaluation, path: Path) -> None:
    """Draw the means over the SNR of the input, with their 95 % intervals."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    groups = evaluation.groups("snr")
    for metric, axes in zip(METRICS, figure.subplots(1, len(METRICS)), strict=True):
        for number, name in enumerate(evaluation.costs):
            means = [evaluation.mean(name, metric, files) for files in groups.values()]
            axes.errorbar(
                [position + 0.06 * number for position in range(len(groups))],
                [mean.mean for mean in means],
                [[m.mean - m.low for m in means], [m.high - m.mean for m in means]],
                label=name,
                marker="o",
                markersize=4,
                linewidth=2 if number == 1 else 1,
                color="0.5" if number == 0 else f"C{number - 1}",
            )
        axes.set_title(" ".join([ALL_METRICS[metric].label, ALL_METRICS[metric].unit]))
        axes.set_xticks(range(len(groups)), groups)
        axes.set_xlabel("SNR of the recording")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality")
    parser.add_argument("clean", type=Path)
    parser.add_argument("noisy", type=Path)
    parser.add_argument("--model", default="speech")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    evaluation = measure(options.clean, options.noisy, options.model)
    Console().print(table(summary(evaluation)))
    if options.plot:
        plot(evaluation, options.plot)


if __name__ == "__main__":
    main()
