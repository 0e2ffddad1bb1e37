import csv
import math

import numpy as np
import pytest
from pydantic_core import to_jsonable_python

from denoisecli.errors import UsageError
from denoisecli.evaluation.scores import Cost, Evaluation, Interval, Score

NAN = math.nan


def evaluation(scores: dict[str, dict[str, list[float]]], **about) -> Evaluation:
    """Make an evaluation of values by estimator and metric, one value per file."""
    number = len(next(iter(next(iter(scores.values())).values())))
    snrs = about.get("snr_db", [0.0] * number)
    noises = about.get("noise", [None] * number)
    return Evaluation(
        metrics=list(next(iter(scores.values()))),
        costs={name: Cost(1.5, 0.25, NAN, 0.01) for name in scores},
        scores=[
            Score(
                file=f"f{i}",
                estimator=name,
                noise=noises[i],
                snr_db=snrs[i],
                seconds=2.0,
                wall_seconds=0.5,
                delay_seconds=0.01,
                values={metric: values[i] for metric, values in by_metric.items()},
                error=about.get("error") if name == "bad" else None,
            )
            for name, by_metric in scores.items()
            for i in range(number)
        ],
        baseline=about.get("baseline", "input"),
    )


def test_mean_counts_failures():
    result = evaluation({"input": {"snr": [1.0, NAN, 3.0, 8.0, NAN]}})
    interval = result.mean("input", "snr")
    assert interval.mean == 4
    assert (interval.count, interval.failed) == (3, 2)
    assert 1 <= interval.low < 4 < interval.high <= 8
    assert result.mean("input", "snr", files=["f0", "f1"]).mean == 1


def test_interval_of_one_file_and_of_none():
    result = evaluation({"input": {"snr": [1.0, NAN], "lsd": [NAN, NAN], "stoi": [0.5, 0.5]}})
    assert str(result.mean("input", "snr")) == str(Interval(1.0, NAN, NAN, 1, 1))
    assert str(result.mean("input", "lsd")) == str(Interval(NAN, NAN, NAN, 0, 2))
    assert result.mean("input", "stoi") == Interval(0.5, 0.5, 0.5, 2, 0)


def test_interval_of_many_files_is_that_of_a_normal_distribution(rng):
    values = rng.normal(3.0, 2.0, 400)
    interval = evaluation({"input": {"snr": list(values)}}).mean("input", "snr")
    half = 1.96 * values.std() / 20
    assert interval.low == pytest.approx(values.mean() - half, abs=0.05)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.05)


def test_gain_is_paired():
    """Each file gains 1 dB, so the gain is certain even if the files differ."""
    before = [-10.0, 0.0, 30.0, NAN, 5.0]
    scores = {"input": {"si_sdr": before}, "m": {"si_sdr": [x + 1 for x in before[:4]] + [NAN]}}
    result = evaluation(scores)
    assert result.gain("m", "si_sdr") == Interval(1.0, 1.0, 1.0, 3, 2)
    spread = result.mean("m", "si_sdr")
    assert spread.high - spread.low > 10


def test_another_baseline():
    scores = {"input": [0.0, 2.0], "old": [3.0, 3.0], "new": [4.0, 2.0]}
    result = evaluation({name: {"si_sdr": v} for name, v in scores.items()}, baseline="old")
    assert result.compared == ["new"]
    assert result.gains("new", "si_sdr") == {"f1": -1.0, "f0": 1.0}
    assert result.worsened("new") == ["f1"]
    document = result.to_dict()
    assert document["baseline"] == "old"
    assert document["estimators"]["new"]["gain"]["si_sdr"]["mean"] == 0
    assert "gain" not in document["estimators"]["old"]


def test_gains_are_sorted_worst_first():
    input_ = {"si_sdr": [5.0, 5.0, 5.0, 5.0, 5.0], "lsd": [5.0, 5.0, 5.0, 5.0, 5.0]}
    model = {"si_sdr": [4.4, 9.0, NAN, -2.0, 4.6], "lsd": [4.4, 9.0, NAN, -2.0, 4.6]}
    result = evaluation({"input": input_, "m": model})
    assert list(result.gains("m", "si_sdr")) == ["f3", "f0", "f4", "f1", "f2"]
    assert list(result.gains("m", "lsd")) == ["f1", "f4", "f0", "f3", "f2"]  # a distance
    assert result.worsened("m") == ["f3", "f0"]
    assert evaluation({"input": {"lsd": [1.0]}}).worsened("input") == []


def test_groups():
    snrs = [10.0, 2.4, -0.0001, 5.0001, NAN, -7.0, 2.6]
    noises = ["rain", None, "cafe", "rain", "cafe", "cafe", "rain"]
    result = evaluation({"input": {"snr": snrs}}, snr_db=snrs, noise=noises)
    assert result.groups() == {
        "-5 dB": ["f5"],
        "0 dB": ["f1", "f2"],
        "5 dB": ["f3", "f6"],
        "10 dB": ["f0"],
        "unknown": ["f4"],
    }
    by_noise = result.groups("noise")
    assert by_noise == {"cafe": ["f2", "f4", "f5"], "rain": ["f0", "f3", "f6"], "unknown": ["f1"]}
    assert list(by_noise) == ["cafe", "rain", "unknown"]
    assert list(result.groups())[-1] == "unknown"


def test_to_dict():
    result = evaluation(
        {"input": {"si_sdr": [0.0, 5.0]}, "bad": {"si_sdr": [NAN, -1.0]}},
        snr_db=[0.0, 5.0],
        noise=["rain", "rain"],
        error="broken",
    )

    document = to_jsonable_python(result.to_dict(), inf_nan_mode="null")
    assert document["files"] == 2
    assert document["metrics"]["si_sdr"]["label"] == "SI-SDR"
    bad = document["estimators"]["bad"]
    assert bad["mean"]["si_sdr"] == {
        "mean": -1.0, "low": None, "high": None, "count": 1, "failed": 1
    }  # fmt: skip
    assert bad["gain"]["si_sdr"]["mean"] == -6
    assert bad["by_snr"]["5 dB"]["si_sdr"]["mean"] == -1
    assert bad["by_noise"]["rain"]["si_sdr"]["failed"] == 1
    assert bad["worst"] == {"f1": -6.0, "f0": None}
    assert (bad["worsened"], bad["errors"]) == (1, 2)
    assert (bad["load_seconds"], bad["peak_memory_mb"]) == (1.5, None)
    assert "gain" not in document["estimators"]["input"]
    assert "by_noise" not in evaluation({"input": {"snr": [1.0]}}).to_dict()["estimators"]["input"]
    assert document["scores"][3]["file"] == "f1"
    assert document["scores"][2]["values"] == {"si_sdr": None}


def test_the_same_scores_have_the_same_intervals(rng):
    values = {"input": {"snr": list(rng.normal(size=20))}}
    assert evaluation(values).mean("input", "snr") == evaluation(values).mean("input", "snr")


def test_csv(tmp_path):
    result = evaluation(
        {"input": {"snr": [1.5, 2.0]}, "bad": {"snr": [NAN, NAN]}}, error='a "quoted", reason'
    )
    path = tmp_path / "scores.csv"
    result.to_csv(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["f0", "f1", "f0", "f1"]
    assert float(rows[0]["snr"]) == 1.5
    assert rows[0]["error"] == rows[0]["noise"] == ""
    assert np.isnan(float(rows[2]["snr"]))
    assert rows[2]["error"] == 'a "quoted", reason'
    with pytest.raises(UsageError, match="exists already"):
        result.to_csv(path)
    result.to_csv(path, overwrite=True)


def test_errors():
    result = evaluation({"input": {"snr": [1.0]}, "bad": {"snr": [NAN]}}, error="broken")
    assert [(score.estimator, score.error) for score in result.errors] == [("bad", "broken")]
