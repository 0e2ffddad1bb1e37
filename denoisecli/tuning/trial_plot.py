"""Plot a search: the objective against the arithmetic and against every searched field."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from denoisecli.spec.search import Boolean, Choice, FloatRange, IntRange, Search, Searched
from denoisecli.system.atomic_files import replacing
from denoisecli.tuning.trials import Status, TrialResult, pareto, rank, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OBJECTIVES = {
    "val_si_sdr_improvement": "SI-SDR improvement (dB)",
    "val_loss": "validation loss",
    "val_pesq": "PESQ",
    "val_estoi": "ESTOI",
}
COLUMNS = 3
MAX_TICKS = 12

_TRIAL, _BEST, _LINE, _FAILED, _FAINT = "#3b6ea5", "#e07b00", "0.35", "#c0392b", "0.6"


def plot_trials(results: Sequence[TrialResult], search: Search, path: Path) -> None:
    """Write the picture of a search as PNG.

    The first panel shows the objective against the MACs of the network, with the Pareto front;
    the others show it against one searched field each.

    Args:
        results: Trials, at least one of them completed.
        search: Section of the spec.
        path: File to write.
    """
    with replacing(path, overwrite=True) as part:
        draw_trials(results, search).savefig(part, dpi=140)


def draw_trials(results: Sequence[TrialResult], search: Search) -> "Figure":
    """Return the picture that `plot_trials` writes."""
    from matplotlib.figure import Figure

    panels = 1 + len(search.space)
    columns = min(COLUMNS, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(4.1 * columns, 0.6 + 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    axes = list(grid.flat)
    _plot_macs(axes[0], results, search)
    for panel, (path, searched) in zip(axes[1:], search.space.items(), strict=False):
        _plot_field(panel, results, search, path, searched)
    for panel in axes[panels:]:
        panel.remove()
    for panel in axes[:panels]:
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    for row in grid:
        row[0].set_ylabel(OBJECTIVES.get(search.objective, search.objective), fontsize=9)
    ranked = rank(results, search)
    low, high = sorted((ranked[0].objective or 0.0, ranked[-1].objective or 0.0))
    margin = 0.06 * (high - low) or 0.1
    axes[0].set_ylim(low - 2.5 * margin, high + 2 * margin)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, fontsize=9
    )
    return figure


def _plot_macs(axes: "Axes", results: Sequence[TrialResult], search: Search) -> None:
    _plot_results(axes, results, search, [(r.macs or math.nan) / 1e6 for r in results])
    front = pareto(results, search)
    axes.step(
        [(result.macs or 0) / 1e6 for result in front],
        [result.objective or 0 for result in front],
        where="post",
        color=_LINE,
        linewidth=1.2,
        zorder=1,
        label="Pareto front",
    )
    if search.max_macs is not None:
        axes.axvline(search.max_macs / 1e6, color=_FAINT, linestyle=":", label="max_macs")
    axes.set_xlabel("million MACs per second of audio", fontsize=9)


def _plot_field(
    axes: "Axes", results: Sequence[TrialResult], search: Search, path: str, searched: Searched
) -> None:
    """Plot against a field: numbers at their values, choices side by side in their order."""
    from matplotlib.ticker import LogLocator, NullFormatter

    values = [result.values[path] for result in results]
    if isinstance(searched, Choice | Boolean):
        choices = list(searched.values) if isinstance(searched, Choice) else [False, True]
        _plot_results(axes, results, search, [choices.index(value) for value in values])
        ticks = range(0, len(choices), math.ceil(len(choices) / MAX_TICKS))
        axes.set_xticks(list(ticks), [value_text(choices[tick]) for tick in ticks])
        axes.set_xlim(-0.5, len(choices) - 0.5)
    else:
        _plot_results(axes, results, search, values)
        axes.update_datalim([(searched.min, 0), (searched.max, 0)], updatey=False)
    if isinstance(searched, IntRange):
        allowed = range(searched.min, searched.max + 1, searched.step)
        axes.set_xticks(allowed[:: math.ceil(len(allowed) / MAX_TICKS)])
    if isinstance(searched, FloatRange) and searched.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.autoscale_view(scaley=False)
    axes.set_xlabel(path, fontsize=9)


def _plot_results(
    axes: "Axes", results: Sequence[TrialResult], search: Search, x: Sequence[int | float]
) -> None:
    """Plot the objectives, and marks on the lower edge for trials without one."""
    positions = np.array(x, float)
    objectives = np.array([math.nan if r.objective is None else r.objective for r in results])
    epochs = np.array([result.epochs or 0 for result in results])
    completed = np.isfinite(objectives)
    same_epochs = len(set(epochs[completed])) == 1
    axes.scatter(
        positions[completed],
        objectives[completed],
        s=28 * np.maximum(epochs / epochs.max(), 0.25)[completed],
        color=_TRIAL,
        alpha=0.6,
        linewidths=0,
        label="trial" if same_epochs else "trial (larger: more epochs)",
    )
    own = completed & [result.is_spec for result in results]
    if own.any():
        axes.scatter(
            positions[own],
            objectives[own],
            s=90,
            marker="D",
            facecolors="none",
            edgecolors=_LINE,
            label="unchanged spec",
        )
    best = list(results).index(rank(results, search)[0])
    axes.scatter(
        positions[best],
        objectives[best],
        s=150,
        marker="*",
        color=_BEST,
        edgecolors="white",
        linewidths=0.6,
        zorder=4,
        label="best",
    )
    for status, marker, colour in (
        (Status.INFEASIBLE, "|", _FAINT),
        (Status.FAILED, "x", _FAILED),
    ):
        marked = positions[[result.status == status for result in results]]
        if marked.size:
            axes.scatter(
                marked,
                np.full(marked.size, 0.03),
                s=28,
                marker=marker,
                color=colour,
                linewidths=1.1,
                transform=axes.get_xaxis_transform(),  # the height is a fraction of the panel
                label=f"{status} ({marked.size})",
            )
