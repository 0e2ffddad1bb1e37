import csv
import math

import numpy as np
import pytest
from pydantic_core import to_jsonable_python

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.evaluation import formatting
from denoisecli.evaluation.scores import (
    Cost,
    Evaluation,
    Interval,
    Score,
    partial_csv,
    partial_path,
)

NAN = math.nan


def evaluation(scores: dict[str, dict[str, list[float]]], **about) -> Evaluation:
    """Make an evaluation of values by estimator and metric, one value per file."""
    number = len(next(iter(next(iter(scores.values())).values())))
    snrs = about.get("snr_db", [0.0] * number)
    noises = about.get("noise", [None] * number)
    clusters = about.get("clusters", [""] * number)
    words = about.get("words", [None] * number)
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
                sample_rate=16000,
                cluster=clusters[i],
                words=words[i],
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
    assert str(result.mean("input", "snr")) == str(Interval(1.0, NAN, NAN, 1, 1, 1))
    assert str(result.mean("input", "lsd")) == str(Interval(NAN, NAN, NAN, 0, 2, 0))
    assert result.mean("input", "stoi") == Interval(0.5, 0.5, 0.5, 2, 0, 2)


def test_interval_of_many_files_is_that_of_a_normal_distribution(rng):
    values = rng.normal(3.0, 2.0, 400)
    interval = evaluation({"input": {"snr": list(values)}}).mean("input", "snr")
    half = 1.96 * values.std() / 20
    assert interval.low == pytest.approx(values.mean() - half, abs=0.05)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.05)


def test_intervals_resample_clean_recordings(rng):
    """Three mixtures of each of 31 recordings tell as much as one, if their scores are equal."""
    single = list(rng.normal(3.0, 2.0, 31))
    clusters = [f"v{i}" for i in range(31)]
    gains = {"input": {"si_sdr": [0.0] * 93}, "m": {"si_sdr": 3 * single}}
    together = evaluation(gains, clusters=3 * clusters)
    alone = evaluation({"input": {"si_sdr": [0.0] * 31}, "m": {"si_sdr": single}})
    apart = evaluation(gains)
    for figure in ("mean", "gain"):
        arguments = ("m", "si_sdr")
        wide, expected, narrow = (
            getattr(result, figure)(*arguments) for result in (together, alone, apart)
        )
        assert (wide.count, wide.clusters, narrow.clusters) == (93, 31, 93)
        assert wide.high - wide.low == pytest.approx(expected.high - expected.low, rel=0.05)
        ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
        assert ratio == pytest.approx(3**0.5, rel=0.1)
    assert together.to_dict()["clean_recordings"] == together.clusters == 31


def test_one_recording_has_no_interval():
    result = evaluation({"input": {"snr": [1.0, 2.0, 6.0]}}, clusters=["a", "a", "a"])
    assert str(result.mean("input", "snr")) == str(Interval(3.0, NAN, NAN, 3, 0, 1))


def test_means_are_over_the_files_that_all_systems_have():
    """A system that fails on hard files does not look better for it."""
    result = evaluation(
        {
            "input": {"snr": [0.0, 10.0, 20.0]},
            "fails": {"snr": [NAN, 12.0, 24.0]},
            "works": {"snr": [1.0, 11.0, 21.0]},
            "nothing": {"snr": [NAN, NAN, NAN]},
        }
    )
    assert result.common("snr") == {"f1", "f2"}
    assert [result.mean(name, "snr").mean for name in result.costs][:3] == [15, 18, 16]
    assert [result.mean(name, "snr").failed for name in result.costs] == [0, 1, 0, 3]
    assert [result.mean(name, "snr").count for name in result.costs] == [2, 2, 2, 0]
    assert [result.gain(name, "snr").mean for name in ("fails", "works")] == [3, 1]
    assert result.gain("fails", "snr").failed == 1
    assert result.mean("works", "snr", files=["f0", "f1"]).mean == 11
    assert result.to_dict()["metrics"]["snr"]["files_in_means"] == 2
    assert formatting.files_in_means(result) == (
        "SNR: means over the 2 of 3 files that every estimator has a value of"
    )
    assert formatting.files_in_means(evaluation({"input": {"snr": [1.0]}})) == ""


def test_word_error_rate_is_the_share_of_all_words():
    result = evaluation({"input": {"wer": [100.0, 10.0]}}, words=[1, 99])
    assert result.mean("input", "wer").mean == pytest.approx(10.9)


def test_sample_rates_are_stated():
    metrics = {name: [1.0] for name in ("si_sdr", "pesq_wb", "lsd", "stoi")}
    result = evaluation({"input": metrics})
    assert formatting.sample_rates(result) == (
        "sample rates: SI-SDR, LSD: 16 kHz (the clean recordings); STOI: 10 kHz; PESQ-WB: 16 kHz"
    )
    assert result.to_dict()["metrics"]["stoi"]["sample_rates"] == [10000]


def test_partial_scores_are_kept_only_if_the_evaluation_fails(tmp_path):
    path = tmp_path / "new" / "scores.csv"
    scores = evaluation({"input": {"snr": [1.5, 2.0]}}).scores
    with partial_csv(path, ["snr"]) as add:
        add(scores[:1])
        assert partial_path(path).read_text().count("\n") == 2  # it is written at once
    assert not partial_path(path).exists()
    with pytest.raises(KeyboardInterrupt), partial_csv(path, ["snr"]):
        raise KeyboardInterrupt
    assert not partial_path(path).exists()
    with pytest.raises(KeyboardInterrupt), partial_csv(path, ["snr"]) as add:
        add(scores)
        raise KeyboardInterrupt
    assert partial_path(path).name == "scores.partial.csv"
    assert len(partial_path(path).read_text().splitlines()) == 3
    with pytest.raises(KeyboardInterrupt), partial_csv(path, ["snr"]):  # before there are scores
        raise KeyboardInterrupt
    assert len(partial_path(path).read_text().splitlines()) == 3
    (tmp_path / "file").touch()
    with (
        pytest.raises(DenoiseError, match="cannot write"),
        partial_csv(tmp_path / "file" / "x.csv", ["snr"]),
    ):
        pass


def test_gain_is_paired():
    """Each file gains 1 dB, so the gain is certain even if the files differ."""
    before = [-10.0, 0.0, 30.0, NAN, 5.0]
    scores = {"input": {"si_sdr": before}, "m": {"si_sdr": [x + 1 for x in before[:4]] + [NAN]}}
    result = evaluation(scores)
    assert result.gain("m", "si_sdr") == Interval(1.0, 1.0, 1.0, 3, 2, 3)
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
        "mean": -1.0, "low": None, "high": None, "count": 1, "failed": 1, "clusters": 1
    }  # fmt: skip
    assert bad["gain"]["si_sdr"]["mean"] == -6
    assert bad["by_snr"]["5 dB"]["si_sdr"]["mean"] == -1
    assert bad["by_noise"]["rain"]["si_sdr"]["failed"] == 1
    assert bad["worst"] == {"f1": -6.0}
    assert (bad["worsened"], bad["compared"], bad["errors"]) == (1, 1, 2)
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
    with pytest.raises(UsageError, match="already exists"):
        result.to_csv(path)
    result.to_csv(path, overwrite=True)


def test_errors():
    result = evaluation({"input": {"snr": [1.0]}, "bad": {"snr": [NAN]}}, error="broken")
    assert [(score.estimator, score.error) for score in result.errors] == [("bad", "broken")]


def test_a_kind_of_noise_that_is_called_unknown_keeps_its_files() -> None:
    scores = [
        Score(file, "input", noise, 0.0, 1.0, 1.0, 0.0, {"si_sdr": 1.0})
        for file, noise in (("a", "unknown"), ("b", None), ("c", "fan"))
    ]
    cost = Cost(0.0, 0.0, 0.0, 0.0)
    found = Evaluation(["si_sdr"], {"input": cost}, scores).groups("noise")
    assert {name: sorted(files) for name, files in found.items()} == {
        "fan": ["c"],
        "unknown": ["a", "b"],
    }
