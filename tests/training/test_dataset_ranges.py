from typing import Any

import pytest

from denoisecli.datasets.recipe import Recipe
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.spec.training import Augmentation
from denoisecli.training.dataset_ranges import resolve_ranges


def spec_of(augmentation: dict[str, Any] | None) -> Spec:
    level = [{"filters": 1}]
    training = {"augmentation": augmentation}
    return parse_spec(
        {"name": "test", "downsampling": level, "upsampling": level, "training": training}
    )


def resolved(augmentation: dict[str, Any], recipe: Recipe) -> tuple[Augmentation, list[str]]:
    spec, messages = resolve_ranges(spec_of(augmentation), recipe)
    assert spec.training.augmentation is not None
    assert parse_spec(spec.model_dump(mode="json")) == spec
    assert resolve_ranges(spec, recipe)[0] == spec
    return spec.training.augmentation, messages


@pytest.mark.parametrize(
    ("recipe", "snr_db"),
    [
        ({"snr_db": (-15.0, -10.0)}, (-15.0, -10.0)),
        ({"snr_db": 3.0}, (3.0, 3.0)),
        ({"ratio": 0.2}, (12.0412, 12.0412)),
        ({"ratio": (0.2, 0.5)}, (0.0, 12.0412)),
        ({"ratio": (0.0, 1.0)}, (-40.0, 40.0)),
    ],
)
def test_the_snr_is_that_of_the_dataset(
    recipe: dict[str, Any], snr_db: tuple[float, float]
) -> None:
    augmentation, messages = resolved({}, Recipe(**recipe))
    assert augmentation.snr_db == pytest.approx(snr_db, abs=1e-4)
    assert [message.startswith("training mixtures: SNR ") for message in messages] == [True]


@pytest.mark.parametrize(
    ("noises", "second", "third"),
    [(1, 0, 0), ((1, 2), 1 / 2, 0), (2, 1, 0), (3, 1, 1), ((1, 3), 2 / 3, 1 / 2)],
)
def test_as_many_noises_as_in_the_dataset(noises: Any, second: float, third: float) -> None:
    augmentation, _ = resolved({}, Recipe(snr_db=0.0, noises=noises))
    assert augmentation.second_noise == pytest.approx(second)
    assert augmentation.third_noise == pytest.approx(third)


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        ({"low_pass": 0.1, "low_pass_hz": [7600.0]}, "low_pass has no effect"),
        ({"band_limit": 0.1, "high_cut_hz": [8000.0, 9000.0]}, "removes no high frequencies"),
    ],
)
def test_settings_without_effect_are_named(augmentation: dict[str, Any], message: str) -> None:
    _, messages = resolved(augmentation, Recipe(snr_db=0.0))
    assert message in messages[-1]


@pytest.mark.parametrize(("batch", "named"), [(1, True), (2, True), (3, False)])
def test_batches_with_fewer_noises_than_a_mixture_are_named(batch: int, named: bool) -> None:
    spec = spec_of({})
    training = spec.training.model_copy(update={"batch_size": batch})
    spec = spec.model_copy(update={"training": training})
    _, messages = resolve_ranges(spec, Recipe(snr_db=0.0, noises=3))
    assert any(f"batch_size {batch}, no mixture has 3" in text for text in messages) == named


def test_the_mixtures_are_described() -> None:
    recipe = Recipe(snr_db=(0.0, 5.0), noises=(1, 3), level_dbfs=(-30.0, -20.0))
    assert resolved({}, recipe)[1] == [
        "training mixtures: SNR 0 to 5 dB, level -30 to -20 dBFS, "
        "33% with one noise, 33% with two, 33% with three"
    ]
    assert (
        "level as stored, one noise each"
        in resolved({"level_dbfs": None, "second_noise": 0}, recipe)[1][0]
    )


def test_one_noise_in_place_of_several_is_a_warning() -> None:
    messages = resolved({"second_noise": 0}, Recipe(snr_db=0.0, noises=3))[1]
    assert "warning: training.augmentation.second_noise is 0" in messages[1]
    assert len(resolved({"second_noise": 0}, Recipe(snr_db=0.0))[1]) == 1
    assert len(resolved({"second_noise": 0.2}, Recipe(snr_db=0.0, noises=3))[1]) == 1


def test_the_level_is_that_of_the_dataset_if_it_has_one() -> None:
    augmentation, _ = resolved({}, Recipe(snr_db=0.0, level_dbfs=(-30.0, -20.0)))
    assert augmentation.level_dbfs == (-30.0, -20.0)
    assert resolved({}, Recipe(snr_db=0.0))[0].level_dbfs == (-45.0, -12.0)
    kept = resolved({"level_dbfs": None}, Recipe(snr_db=0.0, level_dbfs=-30.0))[0]
    assert kept.level_dbfs is None


def test_the_spec_prevails_with_a_warning_if_it_contradicts_the_dataset() -> None:
    recipe = Recipe(snr_db=(-15.0, -10.0), noises=2, level_dbfs=(-30.0, -20.0))
    chosen: dict[str, Any] = {"snr_db": (0.0, 5.0), "second_noise": 0.1, "level_dbfs": (-60, -50)}
    augmentation, messages = resolved(chosen, recipe)
    assert augmentation.snr_db == (0.0, 5.0)
    assert augmentation.second_noise == 0.1
    warnings = [message for message in messages if message.startswith("warning: ")]
    assert len(warnings) == 2
    assert "snr_db is 0 to 5 dB, but the dataset was built with -15 to -10 dB" in warnings[0]
    assert "level_dbfs is -60 to -50 dBFS" in warnings[1]
    overlapping = resolved({"snr_db": (-12.0, 5.0), "level_dbfs": (-60.0, -25.0)}, recipe)[1]
    assert not any(message.startswith("warning") for message in overlapping)


def test_without_augmentation_nothing_is_resolved() -> None:
    spec = spec_of(None)
    assert resolve_ranges(spec, Recipe(snr_db=0.0)) == (spec, [])
