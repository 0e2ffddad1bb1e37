"""Measure the quality and the cost of a model and of two classical baselines in one run.

    python -m benchmarks.quality CLEAN NOISY [--model MODEL] [--plot FIGURE]

CLEAN and NOISY are folders of recordings with the same names. Each estimator cleans one file after
the other on one thread, in a process of its own, while nothing else runs.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks import markdown
from denoisecli.evaluation import formatting
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


def table(evaluation: Evaluation) -> str:
    """Return the means of the metrics and the costs by estimator."""
    rows = [
        [
            name,
            *(
                formatting.number(evaluation.mean(name, metric).mean, ALL_METRICS[metric].decimals)
                for metric in METRICS
            ),
            *formatting.cost_cells(cost),
        ]
        for name, cost in evaluation.costs.items()
    ]
    headings = [ALL_METRICS[metric].heading for metric in METRICS]
    return markdown.table(["estimator", *headings, *formatting.COST_LABELS], rows)


def plot(evaluation: Evaluation, path: Path) -> None:
    """Plot the means and their 95 % intervals over the input SNR."""
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
        axes.set_title(ALL_METRICS[metric].heading)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_xlabel("Input SNR")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print the table and draw the plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("clean", type=Path)
    parser.add_argument("noisy", type=Path)
    parser.add_argument("--model", default="speech")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    evaluation = measure(options.clean, options.noisy, options.model)
    print(table(evaluation))
    if options.plot:
        plot(evaluation, options.plot)


if __name__ == "__main__":
    main()
