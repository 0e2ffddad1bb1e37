"""Compare an adapted model with the one it came from, on mixtures that neither was trained on."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from denoisecli.adaptation.generated import generated_noise
from denoisecli.adaptation.material import (
    SNRS_DB,
    Material,
    Mixtures,
    held_out_mixtures,
    passages,
    with_noise,
)
from denoisecli.audio.files import write
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.errors import DenoiseError
from denoisecli.evaluation.estimators import Model
from denoisecli.evaluation.evaluate import evaluate
from denoisecli.evaluation.metrics import measure
from denoisecli.evaluation.pairs import Pair
from denoisecli.evaluation.scores import Evaluation, bootstrap
from denoisecli.system.pools import cpu_cores

METRICS = ("si_sdr", "estoi")
"""Metrics by which the models are compared."""

MIXTURES = 48
"""Number of held-out mixtures that decide."""

LEAST_MIXTURES = 40
"""Number of them for which a metric must be defined, since ESTOI is not with little speech."""

GENERATED, CLEAN = 24, 9
"""Numbers of mixtures with generated noise, and of clean recordings, that must not get worse."""

TIMED = 6
"""Approximate number of mixtures that are used to estimate the time of a comparison."""

LIMITS = {"si_sdr": 0.1, "estoi": 0.002}
"""Largest loss allowed on generated noise and clean speech: SI-SDR in dB, ESTOI without a unit."""

WORTHWHILE_DB = 0.1
"""Least gain in SI-SDR in dB that is worth another model."""

UNCHANGED_DB = 0.005
"""Change in SI-SDR in dB below which the two models are taken to be the same."""

YOURS, OTHERS, SPEECH = "held-out noise", "generated noise", "clean speech"
"""The three sets: the noise that was adapted to, other noise, and no noise."""


@dataclass(frozen=True)
class Comparison:
    """Mean of a metric over a set, before and after adapting.

    Attributes:
        test: Name of the set.
        metric: Name of the metric.
        before: Mean of the model that was adapted.
        after: Mean of the adapted model.
        gain: Mean difference.
        low: Lower end of its 95 % bootstrap interval over the mixtures. These share voices and
            noise, so that it says nothing about other voices or noise.
        high: Upper end.
        count: Number of mixtures for which both models have a value.
    """

    test: str
    metric: str
    before: float
    after: float
    gain: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Verdict:
    """What the comparison of two models says.

    Attributes:
        comparisons: The metrics on the three sets.
        reasons: Why the adapted model is not worth keeping; empty if it is.
    """

    comparisons: list[Comparison]
    reasons: list[str]

    @property
    def is_better(self) -> bool:
        """Whether the adapted model is better on the noise and not worse on anything else."""
        return not self.reasons

    @property
    def is_better_on_own_noise(self) -> bool:
        """Whether the adapted model is better on held-out noise, regardless of the other sets."""
        return not any(
            _reason(one) for one in self.comparisons if one.test == YOURS and _is_decided(one)
        )

    @property
    def is_unchanged(self) -> bool:
        """Whether the adapted model does the same as the one it came from, on every set."""
        gains = [one.gain for one in self.comparisons if one.metric == "si_sdr"]
        return bool(gains) and max(map(abs, gains)) < UNCHANGED_DB


def comparison_sets(material: Material, seed: int, mixtures: int = MIXTURES) -> dict[str, Mixtures]:
    """Return the mixtures of the three sets; the same material and seed give the same ones.

    The two sets that must not get worse are made of the voices that come with the package, and so
    do not depend on the recordings.
    """
    rng = np.random.default_rng([seed, 2])
    fixed = replace(material, held_out_speech=material.held_out_voices)
    others = passages(fixed, GENERATED, rng)
    quiet = passages(fixed, CLEAN, rng)
    noises = generated_noise(
        len(others), others[0].size, material.sample_rate, np.concatenate(others), rng
    )
    snrs_db = rng.permutation(np.resize(SNRS_DB, len(others)))
    return {
        YOURS: held_out_mixtures(material, mixtures, seed),
        OTHERS: [
            (with_noise(clean, noise, snr_db), clean)
            for clean, noise, snr_db in zip(others, noises, snrs_db, strict=True)
        ],
        SPEECH: [(clean, clean) for clean in quiet],
    }


def write_sets(sets: dict[str, Mixtures], folder: Path, sample_rate: int) -> list[Pair]:
    """Write mixtures as WAV files, and return their pairs, whose kind of noise is the set."""
    pairs = []
    for name, mixtures in sets.items():
        for number, mixture in enumerate(mixtures):
            stem = f"{name.replace(' ', '-')}-{number:02d}"
            noisy, clean = (folder / kind / f"{stem}.wav" for kind in ("noisy", "clean"))
            for path, sound in zip((noisy, clean), mixture, strict=True):
                write(path, sound, sample_rate, subtype="FLOAT", overwrite=True)
            pairs.append(Pair(stem, clean, noisy, noise=name))
    return pairs


def seconds_to_judge(sets: dict[str, Mixtures], denoiser: Denoiser, sample_rate: int) -> float:
    """Return the time in s that `judge` takes on this computer, from a few mixtures."""
    mixtures = [mixture for set_ in sets.values() for mixture in set_]
    few = mixtures[:: max(1, len(mixtures) // TIMED)]
    began = time.monotonic()
    for noisy, clean in few:
        estimate = denoiser.clean(noisy, sample_rate)
        for sound in (noisy, estimate, estimate):  # the input, and both models
            measure(clean, sound, sample_rate, METRICS)
        denoiser.clean(noisy, sample_rate)
    return (time.monotonic() - began) / len(few) * len(mixtures) / cpu_cores()


def judge(
    pairs: Sequence[Pair],
    start: str | Path,
    adapted: Path,
    on_progress: Callable[[float, float], None] = lambda done, total: None,
) -> Verdict:
    """Clean the pairs with both models and compare the results.

    Args:
        pairs: Pairs as `write_sets` returns them.
        start: The model that was adapted.
        adapted: Folder of the adapted model.
        on_progress: Called with the number of finished files and their total.

    Raises:
        DenoiseError: A mixture cannot be cleaned or scored.
    """
    result = evaluate(
        pairs,
        {"before": Model(start), "after": Model(adapted)},
        metrics=METRICS,
        baseline="before",
        jobs=cpu_cores(),
        on_progress=on_progress,
    )
    if result.errors:
        score = result.errors[0]
        raise DenoiseError(f"a mixture cannot be compared: {score.file}: {score.error}")
    comparisons = [
        _compare(result, [pair.name for pair in pairs if pair.noise == name], name, metric)
        for name in (YOURS, OTHERS, SPEECH)
        for metric in METRICS
    ]
    return Verdict(comparisons, reasons(comparisons))


def _compare(result: Evaluation, files: Sequence[str], name: str, metric: str) -> Comparison:
    before, after = (
        np.array([result.values(estimator, metric)[file] for file in files])
        for estimator in ("before", "after")
    )
    # ESTOI is undefined for a passage with too little speech.
    defined = np.isfinite(before) & np.isfinite(after)
    used = [file for file, is_used in zip(files, defined, strict=True) if is_used]
    gain, low, high = bootstrap(list((after - before)[defined]), [1] * len(used), used)
    old, new = (float(values[defined].mean()) if used else math.nan for values in (before, after))
    return Comparison(name, metric, old, new, gain, low, high, len(used))


def reasons(comparisons: Sequence[Comparison]) -> list[str]:
    """Return why an adapted model is not worth keeping; empty if it is."""
    return [reason for one in comparisons if (reason := _reason(one)) is not None]


def _reason(one: Comparison) -> str | None:
    """Return why a comparison is not good enough; None if it is."""
    label = "SI-SDR" if one.metric == "si_sdr" else "ESTOI"
    form = ".2f" if one.metric == "si_sdr" else ".4f"
    gain, low, high = (f"{value:+z{form}}" for value in (one.gain, one.low, one.high))
    gain += f" ({low} to {high})"
    if one.test != YOURS:
        is_worse = not one.gain >= -LIMITS[one.metric]
        return f"{label} on {one.test} is worse: {gain}" if is_worse else None
    if not _is_decided(one):
        return (
            f"{label} is defined for {one.count} of the mixtures with {one.test}, and "
            f"{LEAST_MIXTURES} are needed"
        )
    if not one.low > 0:
        return f"{label} on {one.test} is not significantly better: {gain}"
    if one.metric == "si_sdr" and one.gain < WORTHWHILE_DB:
        return f"{label} on {one.test} is hardly better: {gain}"
    return None


def _is_decided(one: Comparison) -> bool:
    """Return whether there are enough mixtures to decide."""
    return one.count >= LEAST_MIXTURES
