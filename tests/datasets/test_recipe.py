from typing import Any

import numpy as np
import pytest

from denoisecli.datasets.recipe import Recipe, draw
from denoisecli.errors import UsageError


@pytest.mark.parametrize(
    "arguments",
    [
        {"ratio": None},
        {"snr_db": 5.0},
        {"ratio": 1.01},
        {"ratio": -0.1},
        {"ratio": float("nan")},
        {"ratio": (0.5, 0.1)},
        {"ratio": None, "snr_db": (5.0, -5.0)},
        {"ratio": None, "snr_db": float("inf")},
        {"ratio": None, "snr_db": 5.0, "match_level": False},
        {"split": 0.0},
        {"split": 1.1},
        {"split": (0.8, 0.1)},
        {"split": (0.8, 0.2, 0.0)},
        {"split": (0.4, 0.2, 0.2, 0.2)},
        {"group_by": "speaker"},
        {"group_by": "(spk"},
        {"sample_rate": 0},
        {"segment": 0.01},
        {"segment": float("nan")},
        {"join": 0.01},
        {"join": 4.0, "segment": 2.0},
        {"pad": True},
        {"min_active": 1.1},
        {"max_clipped": -0.1},
        {"mixtures_per_clip": 0},
        {"noises": 0},
        {"noises": (2, 1)},
        {"noise_draw": "weight"},
        {"level_dbfs": (-10.0, -20.0)},
        {"level_dbfs": 3.0},
        {"rooms": -1},
        {"reverb_share": 2.0},
        {"kind": "mel"},
        {"window": "round"},
        {"hop_length": 0},
        {"seed": -1},
        {"noise_weights": {"a": -1.0}},
        {"clean_weights": {"a": 1.5}},
        {"mixes": 1},
        {"segment": 1e300},
        {"join": 1e300},
        {"mixtures_per_clip": 10**9},
        {"rooms": 10**9},
        {"noises": 10**9},
    ],
    ids=str,
)
def test_refuses(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Recipe(**{"ratio": 0.2, **arguments})


@pytest.mark.parametrize(
    ("split", "shares"),
    [
        (0.8, {"train": 0.8, "test": 0.2}),
        (1.0, {"train": 1.0}),
        ((0.9, 0.1), {"train": 0.9, "valid": 0.1}),
        ((0.7, 0.2, 0.1), {"train": 0.7, "valid": 0.2, "test": 0.1}),
    ],
)
def test_shares(split: Any, shares: dict[str, float]) -> None:
    assert Recipe(ratio=0.2, split=split).shares == pytest.approx(shares)


def test_json_and_back() -> None:
    recipe = Recipe(
        snr_db=(-5.0, 20.0), split=(0.8, 0.1, 0.1), noises=(1, 2), level_dbfs=-20.0, segment=4.0
    )
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.model_validate({"ratio": [0.1, 0.5]}) == Recipe(ratio=(0.1, 0.5))
    assert hash(Recipe(ratio=0.5, clean_weights={"a": 2})) != hash(Recipe(ratio=0.5))


def test_ranges_are_drawn_from(rng: np.random.Generator) -> None:
    ratios = [Recipe(ratio=(0.1, 0.4)).draw_ratio(rng) for _ in range(200)]
    assert 0.1 <= min(ratios) < 0.12 < 0.38 < max(ratios) <= 0.4
    assert Recipe(ratio=0.3).draw_ratio(rng) == 0.3
    ratios = [Recipe(snr_db=(-5.0, 20.0)).draw_ratio(rng) for _ in range(300)]
    decibels = 20 * np.log10((1 - np.array(ratios)) / ratios)
    assert -5 <= decibels.min() < -3 < 18 < decibels.max() <= 20
    assert abs(np.median(decibels) - 7.5) < 2.5  # even in dB
    assert draw(-7.0, rng) == -7
