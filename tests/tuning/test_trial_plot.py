from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from denoisecli.spec.search import Search
from denoisecli.tuning.trial_plot import draw_trials, plot_trials
from denoisecli.tuning.trials import Status, TrialResult

SPACE = {
    "downsampling.*.filters": {"kind": "int", "min": 4, "max": 12, "step": 2},
    "training.learning_rate": {"kind": "float", "min": 1e-4, "max": 1e-2, "log": True},
    "training.decay_share": {"kind": "float", "min": 0.0, "max": 1.0},
    "features.channels": {"kind": "choice", "values": (["magnitude"], ["real", "imaginary"])},
    "causal": {"kind": "boolean"},
}


def search_with(**fields: Any) -> Search:
    return Search.model_validate({"space": SPACE, "max_macs": 1e7, **fields})


def result_of(name: str, objective: float | None, filters: int, **other: Any) -> TrialResult:
    values = {
        "downsampling.*.filters": filters,
        "training.learning_rate": 0.001 * filters,
        "training.decay_share": 0.5,
        "features.channels": ["real", "imaginary"],
        "causal": filters == 8,
    }
    facts: dict[str, Any] = {
        "status": Status.FAILED if objective is None else Status.COMPLETED,
        "macs": 1e6 * filters,
        "epochs": 2,
    }
    return TrialResult(name, values=values, objective=objective, **facts | other)


RESULTS = [
    result_of("0000", 0.0, 8, is_spec=True),
    result_of("0001", 4.0, 8),
    result_of("0002", 2.0, 4, epochs=1),
    result_of("0003", None, 8, status=Status.INFEASIBLE),
    result_of("0004", None, 8, status=Status.INFEASIBLE),
    result_of("0005", None, 12),
    result_of("0006", None, 6, status=Status.WAITING),
]


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_xlabel(): axes for axes in figure.axes}


def points(axes: Axes) -> dict[str, list[list[float]]]:
    """Positions of the points of a panel by their label."""
    return {str(c.get_label()): np.asarray(c.get_offsets()).tolist() for c in axes.collections}


def test_panels() -> None:
    figure = draw_trials(RESULTS, search_with())
    assert list(panels(figure)) == ["million MACs per second of audio", *SPACE]
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["SI-SDR improvement (dB)", "", ""] * 2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "trial (larger: more epochs)",
        "unchanged spec",
        "best",
        "infeasible (2)",
        "failed (1)",
        "Pareto front",
        "max_macs",
    ]


@pytest.mark.parametrize(
    ("path", "positions"),
    [
        ("million MACs per second of audio", [8, 8, 4]),
        ("downsampling.*.filters", [8, 8, 4]),
        ("training.learning_rate", [0.008, 0.008, 0.004]),
        ("training.decay_share", [0.5, 0.5, 0.5]),
        ("features.channels", [1, 1, 1]),
        ("causal", [1, 1, 0]),
    ],
)
def test_points_stand_at_their_values(path: str, positions: list[float]) -> None:
    shown = points(panels(draw_trials(RESULTS, search_with()))[path])
    assert shown["trial (larger: more epochs)"] == [
        [x, y] for x, y in zip(positions, [0.0, 4.0, 2.0], strict=True)
    ]
    assert shown["unchanged spec"] == [[positions[0], 0.0]]
    assert shown["best"] == [[positions[1], 4.0]]
    assert [x for x, _ in shown["infeasible (2)"]] == [positions[0]] * 2


def test_axes() -> None:
    shown = panels(draw_trials(RESULTS, search_with()))
    assert shown["training.learning_rate"].get_xscale() == "log"
    assert shown["training.decay_share"].get_xscale() == "linear"
    assert list(shown["downsampling.*.filters"].get_xticks()) == [4, 6, 8, 10, 12]
    ticks = [label.get_text() for label in shown["features.channels"].get_xticklabels()]
    assert ticks == ['["magnitude"]', '["real", "imaginary"]']
    assert [label.get_text() for label in shown["causal"].get_xticklabels()] == ["false", "true"]
    for path, low, high in (
        ("downsampling.*.filters", 4, 12),
        ("training.learning_rate", 1e-4, 1e-2),
        ("training.decay_share", 0, 1),
    ):  # the whole range is shown, and little more
        left, right = shown[path].get_xlim()
        assert left < low < high < right
        if path != "training.learning_rate":
            assert right - left < 1.2 * (high - low)
    low, high = shown["causal"].get_ylim()
    assert low < 0 and high > 4


def test_pareto_front_and_cap() -> None:
    macs = panels(draw_trials(RESULTS, search_with()))["million MACs per second of audio"]
    lines = {str(line.get_label()): line.get_xydata() for line in macs.lines}
    np.testing.assert_array_equal(lines["Pareto front"], [[4, 2], [8, 4]])
    np.testing.assert_array_equal(np.asarray(lines["max_macs"])[:, 0], [10, 10])


def test_one_trial() -> None:
    figure = draw_trials(RESULTS[:1], search_with(max_macs=None))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["trial", "unchanged spec", "best", "Pareto front"]


def test_many_values_have_few_ticks() -> None:
    space = {"downsampling.*.filters": {"kind": "int", "min": 1, "max": 100}}
    axes = draw_trials(RESULTS, search_with(space=space)).axes[1]
    assert list(axes.get_xticks()) == list(range(1, 101, 9))


def test_losses_are_better_lower(tmp_path: Path) -> None:
    search = search_with(objective="val_loss")
    figure = draw_trials(RESULTS, search)
    assert figure.axes[0].get_ylabel() == "validation loss"
    assert points(figure.axes[0])["best"] == [[8, 0.0]]
    plot_trials(RESULTS, search, tmp_path / "trials.png")
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")
