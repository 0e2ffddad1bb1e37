"""Results of an evaluation: scores per file, their means with intervals, and comparisons."""

import csv
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, TextIO

import numpy as np

from denoisecli.errors import DenoiseError
from denoisecli.evaluation.metrics import DESCRIPTIONS, WER
from denoisecli.system.atomic_files import replacing

INPUT = "input"
"""Name of the noisy input among the estimators; it is always evaluated."""

RANKING = ("si_sdr", "dnsmos_ovrl")
"""Metrics that recordings are ranked by: the first one of these, or else of all, that there is."""

CONFIDENCE = 0.95
"""Coverage of the bootstrap intervals."""

RESAMPLES = 2000
"""Number of resamples of a bootstrap interval."""

_DRAWN = 2**20  # clusters at a time

SNR_STEP = 5.0
"""Width of the groups by input SNR in dB; groups are centred on its multiples."""

WORSE = {"si_sdr": 0.5, "dnsmos_ovrl": 0.1}
"""A file is worse than the baseline if its ranking metric is lower by more than this."""

WORST = 5
"""Number of files with the smallest gain that a summary lists."""


@dataclass(frozen=True)
class Score:
    """The score of one estimator on one pair.

    Attributes:
        file: Name of the pair.
        estimator: Name of the estimator.
        noise: Kind of noise, or None if it is unknown.
        snr_db: SNR of the noisy recording in dB; NaN if it is undefined.
        seconds: Length of the recording in s; NaN if it could not be read.
        wall_seconds: Processing time in s, including reading and writing; NaN if untimed.
        delay_seconds: Delay of the output relative to the input in s.
        values: The metrics by name; NaN if a metric is undefined.
        error: The reason why nothing could be computed, or None.
        sample_rate: Sample rate of the clean recording in Hz; None if it could not be read.
        aligned: Whether the delay was removed before scoring.
        cluster: Name of the file's clean recording, which other files may share; its own name by
            default.
        words: Number of words of the reference transcript; None without speech recognition.
        transcript: Normalized transcript of the speech recognizer; None without one.
    """

    file: str
    estimator: str
    noise: str | None
    snr_db: float
    seconds: float
    wall_seconds: float
    delay_seconds: float
    values: dict[str, float]
    error: str | None = None
    sample_rate: int | None = None
    aligned: bool = True
    cluster: str = ""
    words: int | None = None
    transcript: str | None = None


@dataclass(frozen=True)
class Cost:
    """The cost of an estimator; NaN if a value is unknown or meaningless.

    Attributes:
        load_seconds: Time from a new process to readiness in s; 0 for a program, which is started
            for every file.
        real_time_factor: Processing time per second of audio, including reading and writing.
        peak_memory_mb: Peak memory of its process or program in MiB; measured on Linux only.
        delay_seconds: Delay of the output relative to the input in s; the median over the files.
    """

    load_seconds: float
    real_time_factor: float
    peak_memory_mb: float
    delay_seconds: float


@dataclass(frozen=True)
class Interval:
    """A mean over files and its 95 % bootstrap interval.

    Attributes:
        mean: Mean over the files of which every estimator has a value; NaN if there are none.
        low: Lower end of the interval; NaN for fewer than two clean recordings.
        high: Upper end of the interval.
        count: Number of files in the mean.
        failed: Number of files without a value of this estimator.
        clusters: Number of clean recordings that the files in the mean are made of. They are
            resampled, not the files, because files that share one are not independent.
    """

    mean: float
    low: float
    high: float
    count: int
    failed: int
    clusters: int


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        metrics: Names of the metrics.
        costs: Costs by estimator, in the order in which estimators are shown.
        scores: One score for each estimator and pair.
        baseline: Name of the estimator that the others are compared with.
        files: Paths of the cleaned files that still exist, by estimator and pair.
        blind: The clean sound of the recordings is unknown.
    """

    metrics: list[str]
    costs: dict[str, Cost]
    scores: list[Score]
    baseline: str = INPUT
    files: dict[str, dict[str, Path]] = field(default_factory=dict)
    blind: bool = False

    @property
    def errors(self) -> list[Score]:
        """The scores without values, because reading, cleaning or scoring failed."""
        return [score for score in self.scores if score.error is not None]

    def values(self, estimator: str, metric: str) -> dict[str, float]:
        """Return the values of a metric by file."""
        return self._columns.get((estimator, metric), {})

    @cached_property
    def _columns(self) -> dict[tuple[str, str], dict[str, float]]:
        """The values by file, by estimator and metric."""
        columns: dict[tuple[str, str], dict[str, float]] = {}
        for score in self.scores:
            for metric in self.metrics:
                column = columns.setdefault((score.estimator, metric), {})
                column[score.file] = score.values[metric]
        return columns

    @cached_property
    def _about(self) -> dict[str, Score]:
        """A score of each file, for what is true of the file itself."""
        return {score.file: score for score in self.scores}

    @property
    def ranking(self) -> str:
        """The metric that recordings are ranked by."""
        return next((name for name in RANKING if name in self.metrics), self.metrics[0])

    @property
    def compared(self) -> list[str]:
        """The estimators that are compared with the baseline."""
        return [name for name in self.costs if name not in (INPUT, self.baseline)]

    def gains(self, estimator: str, metric: str) -> dict[str, float]:
        """Return the difference from the baseline by file, the worst first and NaN last."""
        before = self.values(self.baseline, metric)
        after = self.values(estimator, metric)
        sign = -1 if DESCRIPTIONS[metric].higher_is_better is False else 1
        gains = {file: after[file] - before[file] for file in after}
        return dict(
            sorted(gains.items(), key=lambda item: (math.isnan(item[1]), sign * item[1], item[0]))
        )

    def common(self, metric: str) -> set[str]:
        """Return the files that all estimators have a value of, which means are over.

        An estimator without a single value does not count, or else there would be no means.
        """
        return self._common[metric]

    @cached_property
    def _common(self) -> dict[str, set[str]]:
        common = {}
        for metric in self.metrics:
            defined = [
                {file for file, value in self.values(name, metric).items() if math.isfinite(value)}
                for name in self.costs
            ]
            common[metric] = set.intersection(*filter(None, defined)) if any(defined) else set()
        return common

    def mean(self, estimator: str, metric: str, files: Collection[str] | None = None) -> Interval:
        """Return the mean of a metric over files, by default over all of them.

        Files of which another estimator has no value are left out. The word error rate is the share
        of all words.
        """
        values = self.values(estimator, metric)
        return self._interval(metric, values if files is None else {f: values[f] for f in files})

    def gain(self, estimator: str, metric: str) -> Interval:
        """Return the mean of the difference from the baseline, paired by file."""
        return self._interval(metric, self.gains(estimator, metric))

    def _interval(self, metric: str, values: Mapping[str, float]) -> Interval:
        common, about = self.common(metric), self._about
        valid = {file: value for file, value in values.items() if file in common}
        valid = {file: value for file, value in valid.items() if math.isfinite(value)}
        failed = sum(not math.isfinite(value) for value in values.values())
        weights = [(about[file].words or 0) if metric == WER else 1 for file in valid]
        clusters = [about[file].cluster or file for file in valid]
        mean, low, high = bootstrap(list(valid.values()), weights, clusters)
        return Interval(mean, low, high, len(valid), failed, len(set(clusters)))

    @property
    def clusters(self) -> int:
        """Number of clean recordings, of which there are fewer than files if files share them."""
        return len({score.cluster or score.file for score in self.scores})

    def sample_rates(self, metric: str) -> list[int]:
        """Return the sample rates in Hz that a metric was computed at."""
        rate = DESCRIPTIONS[metric].sample_rate
        if rate is not None:
            return [rate]
        return sorted({score.sample_rate for score in self.scores if score.sample_rate})

    def delayed(self, estimator: str) -> list[Score]:
        """Return the scores of files whose delay was not removed."""
        return [s for s in self.scores if s.estimator == estimator and not s.aligned]

    def ranked(self, estimator: str) -> dict[str, float]:
        """Return the gains of the metric that recordings are ranked by, the worst first.

        Files without one are left out.
        """
        gains = self.gains(estimator, self.ranking)
        return {file: gain for file, gain in gains.items() if not math.isnan(gain)}

    def worsened(self, estimator: str) -> list[str]:
        """Return the files that are worse than the baseline by the limit in WORSE, the worst first.

        The list is empty if WORSE has no limit for the metric that recordings are ranked by.
        """
        if self.ranking not in WORSE:
            return []
        gains = self.ranked(estimator)
        return [file for file, gain in gains.items() if gain < -WORSE[self.ranking]]

    def groups(self, by: Literal["snr", "noise"] = "snr") -> dict[str, list[str]]:
        """Return the files by input SNR, rounded to 5 dB, or by kind of noise.

        Files for which it is unknown come last, as "unknown".
        """
        groups: dict[tuple[bool, float, str], list[str]] = {}
        for score in {score.file: score for score in self.scores}.values():
            if by == "noise":
                key = (score.noise is None, 0.0, score.noise or "unknown")
            elif math.isfinite(score.snr_db):
                centre = SNR_STEP * math.floor(score.snr_db / SNR_STEP + 0.5)
                key = (False, centre, f"{centre:g} dB")
            else:
                key = (True, 0.0, "unknown")
            groups.setdefault(key, []).append(score.file)
        merged: dict[str, list[str]] = {}  # a kind of noise may be called "unknown"
        for key in sorted(groups):
            merged.setdefault(key[-1], []).extend(groups[key])
        return merged

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for a JSON document, in which NaN becomes null."""
        return {
            "metrics": {
                name: {
                    "label": DESCRIPTIONS[name].label,
                    "unit": DESCRIPTIONS[name].unit,
                    "higher_is_better": DESCRIPTIONS[name].higher_is_better,
                    "sample_rates": self.sample_rates(name),
                    "files_in_means": len(self.common(name)),
                }
                for name in self.metrics
            },
            "baseline": self.baseline,
            "files": len({score.file for score in self.scores}),
            "clean_recordings": self.clusters,
            "estimators": {name: self._summary(name) for name in self.costs},
            "scores": [asdict(score) for score in self.scores],
        }

    def to_csv(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write the scores as CSV, one line for each estimator and pair.

        Raises:
            UsageError: The file exists and ``overwrite`` is false.
            DenoiseError: The file cannot be written.
        """
        with (
            replacing(Path(path), overwrite=overwrite) as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            _write_rows(_csv_table(file, self.metrics), self.scores)

    def _summary(self, estimator: str) -> dict[str, object]:
        def intervals(files: Collection[str] | None = None) -> dict[str, object]:
            return {name: asdict(self.mean(estimator, name, files)) for name in self.metrics}

        summary: dict[str, object] = {
            **asdict(self.costs[estimator]),
            "errors": sum(score.estimator == estimator for score in self.errors),
            "mean": intervals(),
            "by_snr": {group: intervals(files) for group, files in self.groups().items()},
        }
        by_noise = self.groups("noise")
        if set(by_noise) != {"unknown"}:
            summary["by_noise"] = {group: intervals(files) for group, files in by_noise.items()}
        if estimator in self.compared:
            summary["gain"] = {name: asdict(self.gain(estimator, name)) for name in self.metrics}
            if self.ranking in WORSE:
                ranked = self.ranked(estimator)
                summary["compared"] = len(ranked)
                summary["worsened"] = len(self.worsened(estimator))
                summary["worst"] = dict(list(ranked.items())[:WORST])
        return summary


def partial_path(path: Path) -> Path:
    """Return the path of the scores that an interrupted evaluation leaves beside its CSV file."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


@contextmanager
def partial_csv(path: Path, metrics: Sequence[str]) -> Iterator[Callable[[Sequence[Score]], None]]:
    """Write scores to ``partial_path(path)`` as they come; the file stays if the block fails.

    Yields:
        A function that adds scores. It returns when they have been written.

    Raises:
        DenoiseError: The file cannot be written.
    """
    partial = partial_path(path)

    @contextmanager
    def explained() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DenoiseError(f"cannot write {partial}: {error.strerror or error}") from error

    is_new = not partial.exists()
    with explained():
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.open("a").close()  # an earlier call may have left scores there
    with ExitStack() as stack:

        @cache
        def opened() -> tuple[TextIO, "csv.DictWriter[str]"]:
            file = stack.enter_context(partial.open("w", newline="", encoding="utf-8"))
            return file, _csv_table(file, metrics)

        def add(scores: Sequence[Score]) -> None:
            with explained():
                file, table = opened()
                _write_rows(table, scores)
                file.flush()

        try:
            yield add
        except BaseException:
            if is_new and not opened.cache_info().currsize:
                partial.unlink(missing_ok=True)
            raise
    partial.unlink(missing_ok=True)


def _csv_table(file: TextIO, metrics: Sequence[str]) -> "csv.DictWriter[str]":
    columns = [column.name for column in fields(Score) if column.name != "values"]
    table = csv.DictWriter(file, [*columns, *metrics], extrasaction="ignore")
    table.writeheader()
    return table


def _write_rows(table: "csv.DictWriter[str]", scores: Sequence[Score]) -> None:
    table.writerows(asdict(score) | score.values for score in scores)


def bootstrap(
    values: Sequence[float], weights: Sequence[int], clusters: Sequence[str]
) -> tuple[float, float, float]:
    """Compute a weighted mean and its percentile bootstrap, in which whole clusters are drawn.

    Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8.

    Returns:
        The mean, and the lower and upper end of the interval; NaN for fewer than two clusters.
    """
    if not sum(weights):
        return math.nan, math.nan, math.nan
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, np.multiply(values, weights))
    totals = np.bincount(index, weights)
    mean = float(sums.sum() / totals.sum())
    if sums.size < 2:
        return mean, math.nan, math.nan
    rng = np.random.default_rng(0)  # the same scores have the same intervals
    means = np.empty(RESAMPLES)
    rows = max(1, _DRAWN // sums.size)
    for start in range(0, RESAMPLES, rows):
        part = means[start : start + rows]
        drawn = rng.integers(sums.size, size=(part.size, sums.size))
        part[:] = sums[drawn].sum(axis=1) / totals[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return mean, float(low), float(high)
