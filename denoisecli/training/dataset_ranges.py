"""Ranges of the augmentation that a spec leaves to the dataset."""

import math
from typing import Any

from denoisecli.datasets.mix import snr_from_ratio
from denoisecli.datasets.recipe import Recipe, limits
from denoisecli.spec.document import Spec
from denoisecli.spec.training import Augmentation
from denoisecli.training.augmentation.filters import LowPass

LEVEL_DBFS = (-45.0, -12.0)
"""Range of levels in dBFS for a dataset that was built without one."""

SNR_LIMIT_DB = 40.0
"""Largest SNR in dB, either way, for a dataset with ratios of 0 or 1."""


def resolve_ranges(spec: Spec, recipe: Recipe, *, is_built: bool = True) -> tuple[Spec, list[str]]:
    """Replace "dataset" in ``training.augmentation`` by the ranges that the dataset was built with.

    Args:
        spec: Spec of the model.
        recipe: Recipe of the dataset.
        is_built: Whether there is a dataset of this recipe; otherwise the recipe only has the
            ranges that the spec leaves open.

    Returns:
        The spec with numbers in place of "dataset", and messages for the user: the ranges in use,
        and a warning for each range of the spec that has nothing in common with the dataset's or
        has no effect.
    """
    augmentation = spec.training.augmentation
    if augmentation is None:
        return spec, []
    known = _ranges_of(recipe)
    messages = []
    for name, unit, built in (("snr_db", "dB", True), ("level_dbfs", "dBFS", recipe.level_dbfs)):
        chosen, dataset = getattr(augmentation, name), known[name]
        if not is_built or chosen in ("dataset", None) or built is None:
            continue
        if chosen[0] > dataset[1] or chosen[1] < dataset[0]:
            messages.append(
                f"warning: training.augmentation.{name} is {_text(chosen, unit)}, but the dataset "
                f"was built with {_text(dataset, unit)}"
            )
    resolved = resolve(augmentation, recipe)
    training = spec.training.model_copy(update={"augmentation": resolved})
    if augmentation.remix:
        if is_built and augmentation.second_noise == 0 and known["second_noise"] > 0:
            messages.append(
                "warning: training.augmentation.second_noise is 0, but the dataset was built with "
                "several noises in a mixture"
            )
        noises = 3 if resolved.second_noise and resolved.third_noise else 2
        if resolved.second_noise and spec.training.batch_size < noises:
            messages.append(
                f"warning: with training.batch_size {spec.training.batch_size}, no mixture has "
                f"{noises} noises"
            )
        messages.insert(0, _summary(resolved))
    nyquist = spec.audio.sample_rate / 2
    if resolved.low_pass and min(resolved.low_pass_hz) >= LowPass.PASSBAND * nyquist:
        messages.append(
            f"warning: training.augmentation.low_pass has no effect, since no frequency of "
            f"low_pass_hz is below {LowPass.PASSBAND * nyquist:g} Hz"
        )
    if resolved.band_limit and resolved.high_cut_hz[0] >= nyquist:
        messages.append(
            "warning: training.augmentation.band_limit removes no high frequencies, since "
            f"high_cut_hz begins above {nyquist:g} Hz"
        )
    return spec.model_copy(update={"training": training}), messages


def _summary(augmentation: Augmentation) -> str:
    """Return what the mixtures of the training are like; all ranges are resolved."""
    level = "as stored"
    if augmentation.level_dbfs is not None:
        level = _text(augmentation.level_dbfs, "dBFS")
    two = float(augmentation.second_noise)
    three = two * float(augmentation.third_noise)
    noises = "one noise each"
    if two:
        noises = f"{1 - two:.0%} with one noise, {two - three:.0%} with two, {three:.0%} with three"
    return f"training mixtures: SNR {_text(augmentation.snr_db, 'dB')}, level {level}, {noises}"


def resolve(augmentation: Augmentation, recipe: Recipe) -> Augmentation:
    """Return an augmentation with the ranges of a recipe in place of "dataset"."""
    changes = {
        name: value
        for name, value in _ranges_of(recipe).items()
        if getattr(augmentation, name) == "dataset"
    }
    return Augmentation.model_validate({**dict(augmentation), **changes})


def _ranges_of(recipe: Recipe) -> dict[str, Any]:
    """Return the values of the augmentation that correspond to a recipe."""
    if recipe.snr_db is not None:
        low, high = limits(recipe.snr_db)
    else:
        assert recipe.ratio is not None
        low, high = (snr_from_ratio(ratio) for ratio in reversed(limits(recipe.ratio)))
    low, high = (min(max(value, -SNR_LIMIT_DB), SNR_LIMIT_DB) for value in (low, high))
    fewest, most = limits(recipe.noises)
    counts = range(int(fewest), int(most) + 1)  # all equally likely
    two = sum(count >= 2 for count in counts) / len(counts)
    three = sum(count >= 3 for count in counts) / len(counts)
    return {
        "snr_db": (low, high),
        "second_noise": two,
        "third_noise": three / two if two else 0.0,
        "level_dbfs": LEVEL_DBFS if recipe.level_dbfs is None else limits(recipe.level_dbfs),
    }


def _text(limits: object, unit: str) -> str:
    assert isinstance(limits, tuple)
    low, high = limits
    return f"{low:g} {unit}" if math.isclose(low, high) else f"{low:g} to {high:g} {unit}"
