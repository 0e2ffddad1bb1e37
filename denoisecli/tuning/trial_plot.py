"""The picture of a search: the objective against arithmetic and against all that was searched."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from denoisecli.spec.search import Choice, FloatRange, Search, Searched
from denoisecli.system.atomic_files import replacing
from denoisecli.tuning.trials import TrialResult, as_text, pareto, rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "val_si_sdr_improvement": "SI-SDR improvement (dB)",
    "val_loss": "validation loss",
    "val_pesq": "PESQ",
    "val_estoi": "ESTOI",
}
COLUMNS = 3
JITTER = 0.16
"""Points of equal values are spread by so much to either side, in steps of a choice."""

_POINT, _BEST, _FRONT, _FAILED, _FAINT = "#3b6ea5", "#e07b00", "0.35", "#c0392b", "0.6"


def plot_trials(results: Sequence[TrialResult], search: Search, path: Path) -> None:
    """Draw a search as a PNG.

    The first panel shows the objective against the MACs of the network, with the Pareto front:
    the trials that no cheaper one beats. The others show it against each searched field.

    Args:
        results: at least one of them with a figure.
        search: the section of the spec.
        path: where to write.
    """
    from matplotlib.figure import Figure

    panels = 1 + len(search.space)
    columns = min(COLUMNS, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(4.1 * columns, 0.6 + 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    axes = list(grid.flat)
    _draw_macs(axes[0], results, search)
    for panel, (field, searched) in zip(axes[1:], search.space.items(), strict=False):
        _draw_field(panel, results, search, field, searched)
    for panel in axes[panels:]:
        panel.set_axis_off()
    for panel in axes[:panels]:
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    for row in grid:
        row[0].set_ylabel(TITLES.get(search.objective, search.objective), fontsize=9)
    ranked = rank(results, search)
    low, high = ranked[0].objective or 0.0, ranked[-1].objective or 0.0
    room = 0.06 * abs(high - low) or 0.1
    axes[0].set_ylim(min(low, high) - 2.5 * room, max(low, high) + 2 * room)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, fontsize=9
    )
    with replacing(path, overwrite=True) as part:
        figure.savefig(part, dpi=140)


def _draw_macs(axes: "Axes", results: Sequence[TrialResult], search: Search) -> None:
    places = [(result.macs or math.nan) / 1e6 for result in results]
    _scatter(axes, results, search, places)
    front = pareto(results, search)
    steps: list[Any] = [(result.macs or 0) / 1e6 for result in front]
    axes.step(
        steps,
        [result.objective or 0 for result in front],
        where="post",
        color=_FRONT,
        linewidth=1.2,
        zorder=1,
        label="Pareto front",
    )
    if search.max_macs is not None:
        axes.axvline(search.max_macs / 1e6, color=_FAINT, linestyle=":", label="cap")
    axes.set_xlabel("million MACs per second of audio", fontsize=9)


def _draw_field(
    axes: "Axes",
    results: Sequence[TrialResult],
    search: Search,
    field: str,
    searched: Searched,
) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xlabel(field, fontsize=9)
    if isinstance(searched, FloatRange):
        _scatter(axes, results, search, [result.values[field] for result in results])
        if searched.log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        return
    if isinstance(searched, Choice):
        kinds = list(searched.values)
    elif searched.kind == "boolean":
        kinds = [False, True]
    else:
        kinds = list(range(searched.min, searched.max + 1, searched.step))
    # Evenly spaced, whatever the values are; in a fixed order of places, so that none hides one.
    seen: dict[int, int] = {}
    places = []
    for result in results:
        kind = kinds.index(result.values[field])
        number = seen[kind] = seen.get(kind, -1) + 1
        places.append(kind + JITTER * (2 * (number * 0.618034 % 1) - 1))
    _scatter(axes, results, search, places)
    shown = range(0, len(kinds), math.ceil(len(kinds) / 12))
    axes.set_xticks(list(shown), [as_text(kinds[index]) for index in shown])
    axes.set_xlim(-0.5, len(kinds) - 0.5)


def _scatter(
    axes: "Axes", results: Sequence[TrialResult], search: Search, places: Sequence[Any]
) -> None:
    """Points for figures, marks on the lower edge for trials without one."""
    best = rank(results, search)[0]
    edge = axes.get_xaxis_transform()  # the height is a share of the panel's
    spots = np.array(places, float)

    def chosen(status: str) -> Any:
        return spots[[result.status == status for result in results]]

    figures = [r.objective if r.objective is not None else math.nan for r in results]
    epochs = np.array([result.epochs or 0 for result in results])
    label = "trial" if len(set(epochs) - {0}) < 2 else "trial (larger: of more epochs)"
    axes.scatter(
        spots,
        figures,
        s=28 * np.maximum(epochs / epochs.max(), 0.25),
        color=_POINT,
        alpha=0.8,
        linewidths=0,
        label=label,
    )
    own = [result.is_spec and result.objective is not None for result in results]
    if any(own):
        axes.scatter(
            spots[own],
            np.array(figures)[own],
            s=90,
            marker="D",
            facecolors="none",
            edgecolors=_FRONT,
            label="spec as it is",
        )
    here = [result is best for result in results]
    axes.scatter(
        spots[here],
        np.array(figures)[here],
        s=150,
        marker="*",
        color=_BEST,
        edgecolors="white",
        linewidths=0.6,
        zorder=4,
        label="best",
    )
    for status, marker, colour in (("infeasible", "|", _FAINT), ("failed", "x", _FAILED)):
        marked = chosen(status)
        if marked.size:
            axes.scatter(
                marked,
                np.full(marked.size, 0.03),
                s=28,
                marker=marker,
                color=colour,
                linewidths=1.1,
                transform=edge,
                label=status,
            )
