import csv
import json
from pathlib import Path
from typing import Any

import pytest

from denoisecli.errors import DenoiseError
from denoisecli.models.catalogue import load_spec
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.tuning.trials import (
    Status,
    TrialResult,
    pareto,
    rank,
    short_names,
    summary,
    trial_row,
    trial_table,
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
    metrics = {} if objective is None else {"val_si_sdr_improvement": objective, "val_loss": 0.5}
    status = Status.COMPLETED if objective is not None else Status.FAILED
    return TrialResult(
        **{"name": name, "status": status, "values": values, "objective": objective}
        | {"metrics": metrics, "macs": macs, "epochs": 3, "parameters": 1234, "seconds": 5.5}
        | other
    )


@pytest.fixture
def results() -> list[TrialResult]:
    infeasible = {"status": Status.INFEASIBLE, "message": "too, much", "epochs": None}
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
    assert "search" not in json.loads((tmp_path / "best.json").read_text())
    assert best.name == "small-best"
    longest = spec.model_copy(update={"name": "x" * 100})
    write_best(longest, results, tmp_path / "longest.json")
    assert load_spec(tmp_path / "longest.json").name == "x" * 95 + "-best"
    assert "trial 0001 of 8, val_si_sdr_improvement 4 after 3 epochs" in best.description
    assert best.downsampling[0].filters == 8
    assert best.training == spec.training.model_copy(update={"learning_rate": 0.00123456})


def test_without_a_completed_trial_there_is_no_best(
    results: list[TrialResult], tmp_path: Path
) -> None:
    failed = [result for result in results if result.objective is None]
    with pytest.raises(
        DenoiseError, match=r"completed \(1 infeasible, 1 failed\); trial 0006: out of mem"
    ):
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
    assert short_names(paths) == ["down.0.filters", "up.10.filters", "causal"]
    paths = ["training.losses.0.weight", "training.losses.1.weight"]
    assert short_names(paths) == paths
    assert short_names(["training.epochs"]) == ["training.epochs"]  # there is a column "epochs"
    paths = ["downsampling.0.filters", "down.0.filters"]
    assert short_names(paths) == paths


def test_tables_and_lines(results: list[TrialResult]) -> None:
    assert trial_row(results[1]) == {
        "trial": "0001",
        "status": "completed",
        "objective": "4",
        "filters": "8",
        "learning_rate": "0.001235",
        "channels": '["magnitude"]',
        "causal": "true",
        "MMAC/s": "9.0",
        "parameters": "1,234",
        "epochs": "3",
        "seconds": "6",
    }
    long = result_of("1", 1.0, None, values={"x": ["a" * 99]})
    assert len(trial_row(long)["x"]) == 14
    assert trial_row(long)["MMAC/s"] == "-"
    headings, rows = trial_table(results)
    assert headings[:5] == ["trial", "status", "objective", "filters", "learning rate"]
    assert len(headings) == len(trial_row(results[0]))
    assert rows == [list(trial_row(result).values()) for result in results]
    values = {"valley.0.units": 8, "valley.1.units": 16}
    headings, _ = trial_table([result_of("0000", 1.0, 1.0, values=values)])
    assert headings[3:5] == ["valley.0 units", "valley.1 units"]  # may be broken into two lines
    assert summary(results[6]) == (
        'trial 0006 failed: filters 8, learning_rate 0.001235, channels ["magnitude"], '
        "causal true, parameters 1,234, epochs 3, seconds 6; out of memory"
    )
