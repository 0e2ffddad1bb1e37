import csv
import json
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from denoisecli.errors import DenoiseError
from denoisecli.models.catalogue import load_spec
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.tuning.trial_plot import plot_trials
from denoisecli.tuning.trials import (
    COLUMNS,
    TrialResult,
    best_spec,
    pareto,
    rank,
    short_names,
    summary,
    table_row,
    write_best,
    write_csv,
)

SPACE = {
    "downsampling.*.filters": {"kind": "int", "min": 4, "max": 12, "step": 4},
    "training.learning_rate": {"kind": "float", "min": 1e-4, "max": 1e-2, "log": True},
    "features.channels": {"kind": "choice", "values": [["magnitude"], ["real", "imaginary"]]},
    "causal": {"kind": "boolean"},
}


def spec_of(**search: Any) -> Spec:
    return parse_spec(
        {
            "name": "small",
            "downsampling": [{"filters": 4}],
            "upsampling": [{"filters": 4}],
            "training": {"epochs": 9},
            "search": {"space": SPACE, **search},
        }
    )


def result_of(name: str, objective: float | None, macs: float | None, **other: Any) -> TrialResult:
    values = {
        "downsampling.*.filters": 8,
        "training.learning_rate": 0.00123456,
        "features.channels": ["magnitude"],
        "causal": True,
    }
    figures = {} if objective is None else {"val_si_sdr_improvement": objective, "val_loss": 0.5}
    status = "completed" if objective is not None else "failed"
    return TrialResult(
        **{"name": name, "status": status, "values": values, "objective": objective}
        | {"figures": figures, "macs": macs, "epochs": 3, "parameters": 1234, "seconds": 5.5}
        | other
    )


@pytest.fixture
def results() -> list[TrialResult]:
    infeasible = {"status": "infeasible", "message": "too, much", "epochs": None}
    return [
        result_of("0000", 1.0, 3e6),
        result_of("0001", 4.0, 9e6),
        result_of("0002", 2.0, 2e6, is_spec=True),
        result_of("0003", 3.0, 9e6),
        result_of("0004", None, 99e6, **infeasible),
        result_of("0005", -1.0, 1e6, epochs=1),
        result_of("0006", None, None, message="out of memory"),
        result_of("0007", 1.5, 3e6),
    ]


def names(results: list[TrialResult]) -> list[str]:
    return [result.name[-1] for result in results]


def test_the_best_and_the_front(results: list[TrialResult]) -> None:
    search = spec_of().search
    assert search is not None
    assert names(rank(results, search)) == list("132705")
    assert names(pareto(results, search)) == list("521")
    search = spec_of(objective="val_loss").search
    assert search is not None
    assert names(rank(results, search)) == list("507231")
    assert names(pareto(results, search)) == list("5")


def test_best_spec_trains_in_full(results: list[TrialResult], tmp_path: Path) -> None:
    spec = spec_of()
    write_best(spec, results, tmp_path / "best.json")
    best = load_spec(tmp_path / "best.json")
    assert best == best_spec(spec, results)
    assert "search" not in json.loads((tmp_path / "best.json").read_text())
    assert best.name == "small-best"
    assert "trial 0001 of 8, val_si_sdr_improvement 4 after 3 epochs" in best.description
    assert best.downsampling[0].filters == 8
    assert best.training == spec.training.model_copy(update={"learning_rate": 0.00123456})


def test_without_a_figure_there_is_no_best(results: list[TrialResult], tmp_path: Path) -> None:
    failed = [result for result in results if result.objective is None]
    with pytest.raises(DenoiseError, match=r"none of 2 trials .*; the last one, 0006: out of mem"):
        write_best(spec_of(), failed, tmp_path / "best.json")
    assert not (tmp_path / "best.json").exists()


def test_csv(results: list[TrialResult], tmp_path: Path) -> None:
    search = spec_of().search
    assert search is not None
    write_csv(results, search, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [result.name for result in results]
    assert list(rows[0]) == [
        *("trial", "status", "val_si_sdr_improvement", "val_loss"),
        *("epochs", "macs", "parameters", "seconds", *SPACE, "message"),
    ]
    assert float(rows[1]["val_si_sdr_improvement"]) == 4.0
    assert float(rows[1]["training.learning_rate"]) == 0.00123456
    assert json.loads(rows[1]["features.channels"]) == ["magnitude"]
    assert rows[1]["causal"] == "true"
    assert (rows[4]["status"], rows[4]["message"]) == ("infeasible", "too, much")
    assert rows[4]["val_loss"] == rows[4]["epochs"] == rows[6]["macs"] == ""


def test_short_names() -> None:
    assert short_names(["downsampling.*.filters", "valley.0.units"]) == ["filters", "units"]
    paths = ["downsampling.0.filters", "upsampling.10.filters", "causal"]
    assert short_names(paths) == ["d.0.filters", "u.10.filters", "causal"]
    paths = ["stft.window", "search.window"]
    assert short_names(paths) == paths


def test_rows_and_lines(results: list[TrialResult]) -> None:
    row = table_row(results[1])
    assert row[: len(COLUMNS)] == ["0001", "completed", "4", "3", "9.0", "1,234", "6"]
    assert row[len(COLUMNS) :] == ["8", "0.001235", '["magnitude"]', "true"]
    assert len(table_row(result_of("1", 1.0, 1.0, values={"x": ["a" * 99]}))[-1]) == 14
    assert summary(results[6]) == (
        "trial 0006 failed: epochs 3, parameters 1,234, seconds 6, filters 8, "
        'learning_rate 0.001235, channels ["magnitude"], causal true; out of memory'
    )


@pytest.mark.parametrize("objective", ["val_loss", "val_si_sdr_improvement"])
def test_picture(objective: str, results: list[TrialResult], tmp_path: Path) -> None:
    search = spec_of(objective=objective, max_macs=1e7).search
    assert search is not None
    path = tmp_path / "trials.png"
    plot_trials(results[:1], search, path)
    alone = matplotlib.image.imread(path)
    plot_trials(results, search, path)
    picture = matplotlib.image.imread(path)
    assert picture.shape == alone.shape
    assert picture.shape[1] > picture.shape[0] > 500

    def pixels(image: np.ndarray, red: int, green: int, blue: int) -> int:
        return int((np.abs(image[..., :3] * 255 - (red, green, blue)).max(axis=-1) < 8).sum())

    star, failed = (0xE0, 0x7B, 0x00), (0xC0, 0x39, 0x2B)
    assert pixels(picture, *star) == pytest.approx(pixels(alone, *star), rel=0.2)
    assert pixels(picture, *failed) > 20 > pixels(alone, *failed)
