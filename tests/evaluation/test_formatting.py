import math

import pytest

from denoisecli.evaluation import formatting
from denoisecli.evaluation.scores import Cost, Evaluation, Interval, Score

NAN = math.nan


def test_numbers():
    assert formatting.number(-0.004, 2) == "0.00"
    assert formatting.number(-1.5, 1) == "-1.5"
    assert formatting.number(2.0, 1, signed=True) == "+2.0"
    assert formatting.number(NAN, 2) == formatting.number(math.inf, 2) == formatting.MISSING


def test_half_width_and_failures():
    assert formatting.half_width(Interval(1.0, 0.5, 1.5, 9, 0, 9), 2) == "±0.50"
    assert formatting.half_width(Interval(1.0, NAN, NAN, 1, 0, 1), 2) == ""
    assert formatting.failures(Interval(1.0, NAN, NAN, 1, 2, 1)) == "2 failed"
    assert formatting.failures(Interval(1.0, NAN, NAN, 1, 0, 1)) == ""


def test_cost_cells():
    assert formatting.cost_cells(Cost(0.25, 0.008, 150.4, 0.032)) == ("125x", "0.2", "150", "32")
    assert formatting.cost_cells(Cost(0.25, 0.4, 150.4, 0.0))[0] == "2.5x"
    assert formatting.cost_cells(Cost(0.25, 2.5, 150.4, 0.0))[0] == "0.4x"
    assert formatting.cost_cells(Cost(NAN, NAN, NAN, 0.0)) == ("-", "-", "-", "0")
    assert len(formatting.COST_LABELS) == 4


def test_count():
    assert [formatting.count(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


@pytest.mark.parametrize(
    ("snrs", "noises", "expected"),
    [
        ((0.0, 0.4), (None, None), []),
        ((0.0, 5.0), (None, None), ["input SNR"]),
        ((0.0, 0.0), ("rain", "street"), ["kind of noise"]),
        ((0.0, 5.0), ("rain", None), ["input SNR", "kind of noise"]),
    ],
)
def test_only_properties_that_vary_are_grouped_by(snrs, noises, expected):
    scores = [
        Score(f"f{i}", "input", noise, snr, 1.0, NAN, 0.0, {})
        for i, (snr, noise) in enumerate(zip(snrs, noises, strict=True))
    ]
    assert list(formatting.groupings(Evaluation([], {}, scores))) == expected
