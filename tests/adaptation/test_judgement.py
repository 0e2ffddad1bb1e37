import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import constant_mask, pink_noise, speech_like

from denoisecli.adaptation import judgement
from denoisecli.adaptation.judgement import (
    CLEAN,
    METRICS,
    OTHERS,
    SPEECH,
    YOURS,
    Comparison,
    Verdict,
    comparison_sets,
    judge,
    reasons,
    write_sets,
)
from denoisecli.adaptation.material import Material
from denoisecli.evaluation.metrics import snr
from denoisecli.evaluation.scores import Evaluation, Score

RATE = 8000


@pytest.fixture(scope="module")
def material() -> Material:
    rng = np.random.default_rng(5)
    return Material(
        sample_rate=RATE,
        noise=[[pink_noise(5, RATE, rng)]],
        speech=[[speech_like(8, RATE)]],
        held_out_noise=[[pink_noise(5, RATE, rng)]],
        held_out_speech=[[speech_like(9, RATE)], [speech_like(9, RATE, 210)]],
        held_out_voices=[[speech_like(9, RATE, 210)]],
        found=0.0,
    )


@pytest.fixture(autouse=True)
def few_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make few mixtures with generated noise, as it takes seconds."""
    monkeypatch.setattr(judgement, "GENERATED", 8)


@pytest.mark.slow
def test_the_sets_that_must_not_get_worse_do_not_depend_on_the_recordings(
    material: Material,
) -> None:
    own = replace(
        material,
        held_out_speech=material.held_out_voices,
        held_out_noise=[[np.ones(5 * RATE, np.float32)]],
    )
    sets, others = (comparison_sets(each, seed=1, mixtures=2) for each in (material, own))
    assert not np.array_equal(sets[YOURS][0][0], others[YOURS][0][0])
    for name in (OTHERS, SPEECH):
        np.testing.assert_array_equal(sets[name], others[name])


def test_the_three_sets_are_what_they_are_called(material: Material) -> None:
    sets = comparison_sets(material, seed=1, mixtures=6)
    assert [len(mixtures) for mixtures in sets.values()] == [6, judgement.GENERATED, CLEAN]
    for noisy, clean in sets[SPEECH]:
        np.testing.assert_array_equal(noisy, clean)
    snrs = [snr(clean, noisy, RATE) for noisy, clean in sets[OTHERS]]
    assert -0.5 < min(snrs) < 3
    assert 7 < max(snrs) < 10.5
    for name, mixtures in comparison_sets(material, seed=1, mixtures=6).items():
        np.testing.assert_array_equal(mixtures[2][0], sets[name][2][0])
    other = comparison_sets(material, seed=2, mixtures=6)[YOURS]
    assert not np.array_equal(other[0][0], sets[YOURS][0][0])


def comparison(test: str, metric: str, gain: float, half: float = 0.0) -> Comparison:
    return Comparison(test, metric, 0.5, 0.5 + gain, gain, gain - half, gain + half, 40)


GOOD = [
    comparison(YOURS, "si_sdr", 1.0, 0.2),
    comparison(YOURS, "estoi", 0.01, 0.002),
    *(comparison(name, metric, 0.0) for name in (OTHERS, SPEECH) for metric in METRICS),
]


def test_a_model_that_gains_and_loses_nothing_is_kept() -> None:
    assert reasons(GOOD) == []


@pytest.mark.parametrize(
    ("index", "gain", "half", "words"),
    [
        (0, 1.0, 1.1, "SI-SDR on held-out noise is not significantly better: \\+1.00 \\(-0.10 to"),
        (0, 0.05, 0.01, "SI-SDR on held-out noise is hardly better"),
        (1, 0.001, 0.002, "ESTOI on held-out noise is not significantly better"),
        (2, -0.11, 0.0, "SI-SDR on generated noise is worse"),
        (3, -0.003, 0.0, "ESTOI on generated noise is worse"),
        (4, -0.2, 0.5, "SI-SDR on clean speech is worse"),
        (5, -0.0021, 0.0, "ESTOI on clean speech is worse"),
    ],
)
def test_a_model_that_does_not_gain_or_loses_elsewhere_is_not_kept(
    index: int, gain: float, half: float, words: str
) -> None:
    rows = list(GOOD)
    rows[index] = comparison(rows[index].test, rows[index].metric, gain, half)
    (reason,) = reasons(rows)
    assert re.match(words, reason)
    verdict = Verdict(rows, [reason])
    assert not verdict.is_better
    assert verdict.is_better_on_own_noise == (rows[index].test != YOURS)


def test_a_comparison_leaves_out_undefined_values_and_distrusts_a_lack_of_them() -> None:
    def scores(estimator: str, *values: float) -> list[Score]:
        costs = (0.0, 4.0, math.nan, 0.0)
        return [
            Score(str(number), estimator, YOURS, *costs, {"estoi": value})
            for number, value in enumerate(values)
        ]

    listed = [*scores("before", 0.5, 0.5, 0.5), *scores("after", 0.75, math.nan, 0.75)]
    result = Evaluation(["estoi"], {}, listed, "before")
    row = judgement._compare(result, ["0", "1", "2"], YOURS, "estoi")
    assert (row.before, row.after, row.gain, row.count) == (0.5, 0.75, 0.25, 2)
    none = judgement._compare(result, ["1"], SPEECH, "estoi")
    assert math.isnan(none.gain)
    assert reasons([none])
    assert reasons([judgement._compare(result, ["1"], YOURS, "estoi")])


@pytest.mark.slow
def test_models_are_compared_as_clean_would_use_them(
    material: Material,
    model_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gain does not change the SI-SDR, and one that depends on frequency does."""
    monkeypatch.setattr(judgement, "LEAST_MIXTURES", 3)
    audio = {"sample_rate": RATE}
    before, after = (model_folder(constant_mask(gain), audio=audio) for gain in (1.0, 0.5))
    sets = comparison_sets(material, seed=1, mixtures=3)
    pairs = write_sets(
        {name: mixtures[:3] for name, mixtures in sets.items()}, tmp_path / "mixtures", RATE
    )
    assert len(pairs) == 9
    verdict = judge(pairs, before, after)
    assert not verdict.is_better
    rows = {(one.test, one.metric): one for one in verdict.comparisons}
    assert len(rows) == 6
    assert rows[YOURS, "si_sdr"].before == pytest.approx(5, abs=0.3)
    assert rows[YOURS, "si_sdr"].gain == pytest.approx(0, abs=0.01)
    assert rows[YOURS, "si_sdr"].count == 3
    assert "not significantly better" in verdict.reasons[0]


def test_too_few_mixtures_decide_nothing() -> None:
    """Also if both metrics are much better there."""
    rows = [GOOD[0], replace(GOOD[1], count=39), *GOOD[2:]]
    verdict = Verdict(rows, reasons(rows))
    assert verdict.reasons == [
        "ESTOI is defined for 39 of the mixtures with held-out noise, and 40 are needed"
    ]
    assert verdict.is_better_on_own_noise


def test_a_difference_that_is_rounded_to_zero_has_no_minus() -> None:
    (reason,) = reasons([comparison(YOURS, "si_sdr", -0.001), *GOOD[1:]])
    assert reason.endswith("not significantly better: +0.00 (+0.00 to +0.00)")
