"""The scores of an evaluation: per file, in the mean with its uncertainty, and compared."""

import csv
import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from denoisecli.evaluation.metrics import METRICS
from denoisecli.system.atomic_files import replacing

INPUT = "input"
"""Name of the noisy input among the estimators: it is always evaluated, as the baseline."""

CONFIDENCE = 0.95
RESAMPLES = 2000
"""How often the files are drawn anew for a bootstrap interval."""

SNR_STEP = 5.0
"""Width in dB of the groups by input SNR; they are centred on its multiples."""

WORSE_DB = 0.5
"""A file whose SI-SDR is below the baseline's by more than this was made worse."""

WORST = 5
"""How many of the worst files the summary names."""


@dataclass(frozen=True)
class Score:
    """What an estimator made of a recording.

    Attributes:
        file: name of the recording.
        estimator: name of the estimator.
        noise: kind of noise, where it is known.
        snr_db: SNR of the noisy input in dB; NaN where it has none.
        seconds: length of the recording in s; NaN where it could not be read.
        wall_seconds: time the cleaning took in s, reading and writing included; NaN if untimed.
        delay_seconds: by how much it follows its input; taken out before scoring.
        values: the metrics by name; NaN where one could not be computed.
        error: why nothing could be computed, else None.
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


@dataclass(frozen=True)
class Cost:
    """What an estimator costs; NaN what is not known or means nothing.

    Attributes:
        load_seconds: time from a fresh process to being ready, in s; 0 for a program, which starts
            anew for every file.
        real_time_factor: seconds of work per second of audio, reading and writing included.
        peak_memory_mb: the most memory its process (or program) held, in MiB; on Linux only.
        delay_seconds: by how much its output follows its input; the median over the files.
    """

    load_seconds: float
    real_time_factor: float
    peak_memory_mb: float
    delay_seconds: float


@dataclass(frozen=True)
class Interval:
    """A mean over files and its 95 % bootstrap interval.

    Attributes:
        mean: over the files that have a value; NaN if none has.
        low: lower end of the interval; NaN for less than two files.
        high: upper end.
        count: number of files in the mean.
        failed: number of files that are not, as their value is NaN.
    """

    mean: float
    low: float
    high: float
    count: int
    failed: int


@dataclass(frozen=True)
class Evaluation:
    """All scores, and what can be said of them.

    Attributes:
        metrics: names of the metrics.
        costs: by estimator; the first one is INPUT.
        scores: one for each estimator and recording.
        baseline: the estimator that the others are compared with.
        files: the cleaned files, by estimator and recording, that were kept.
        seed: chooses the resamples of the intervals.
    """

    metrics: list[str]
    costs: dict[str, Cost]
    scores: list[Score]
    baseline: str = INPUT
    files: dict[str, dict[str, Path]] = field(default_factory=dict)
    seed: int = 0

    @property
    def errors(self) -> list[Score]:
        """Those of the scores that are none, because cleaning or reading a file failed."""
        return [score for score in self.scores if score.error is not None]

    def values(self, estimator: str, metric: str) -> dict[str, float]:
        """Give the values of a metric by file."""
        return {s.file: s.values[metric] for s in self.scores if s.estimator == estimator}

    @property
    def compared(self) -> list[str]:
        """The estimators that are compared with the baseline."""
        return [name for name in self.costs if name not in (INPUT, self.baseline)]

    def gains(self, estimator: str, metric: str) -> dict[str, float]:
        """Give the difference to the baseline by file, the worst first and NaN last."""
        before = self.values(self.baseline, metric)
        after = self.values(estimator, metric)
        sign = 1 if METRICS[metric].higher_is_better else -1
        gains = {file: after[file] - before[file] for file in after}
        return dict(
            sorted(gains.items(), key=lambda item: (math.isnan(item[1]), sign * item[1], item[0]))
        )

    def mean(self, estimator: str, metric: str, files: Collection[str] | None = None) -> Interval:
        """Give the mean of a metric over the files, all by default."""
        return self._interval(self.values(estimator, metric), files)

    def gain(self, estimator: str, metric: str, files: Collection[str] | None = None) -> Interval:
        """Give the mean of the difference to the baseline, paired by file."""
        return self._interval(self.gains(estimator, metric), files)

    def worsened(self, estimator: str) -> list[str]:
        """Name the files whose SI-SDR is worse than the baseline's by WORSE_DB, the worst first.

        Empty where SI-SDR is not among the metrics.
        """
        if "si_sdr" not in self.metrics:
            return []
        return [file for file, db in self.gains(estimator, "si_sdr").items() if db < -WORSE_DB]

    def groups(self, by: Literal["snr", "noise"] = "snr") -> dict[str, list[str]]:
        """Give the files by input SNR to the nearest 5 dB, or by kind of noise.

        Files for which it is not known come last, as "unknown".
        """
        groups: dict[tuple[bool, float, str], list[str]] = {}
        for score in self.scores:
            if score.estimator != INPUT:
                continue
            if by == "noise":
                key = (score.noise is None, 0.0, score.noise or "unknown")
            elif math.isfinite(score.snr_db):
                centre = SNR_STEP * math.floor(score.snr_db / SNR_STEP + 0.5)
                key = (False, centre, f"{centre:g} dB")
            else:
                key = (True, 0.0, "unknown")
            groups.setdefault(key, []).append(score.file)
        return {key[-1]: groups[key] for key in sorted(groups)}

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values, NaN as None: what :meth:`to_json` writes."""
        return _plain(
            {
                "metrics": {
                    name: {
                        "label": METRICS[name].label,
                        "unit": METRICS[name].unit,
                        "higher_is_better": METRICS[name].higher_is_better,
                    }
                    for name in self.metrics
                },
                "baseline": self.baseline,
                "files": sum(score.estimator == INPUT for score in self.scores),
                "estimators": {name: self._summary(name) for name in self.costs},
                "scores": [asdict(score) for score in self.scores],
            }
        )

    def to_json(self) -> str:
        """Give :meth:`to_dict` as a JSON document."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_csv(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write the scores as a table: a line for each estimator and recording.

        Raises:
            UsageError: the file exists and ``overwrite`` is false.
            DenoiseError: it cannot be written.
        """
        with (
            replacing(Path(path), overwrite=overwrite) as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file)
            about = ["file", "estimator", "noise", "snr_db", "seconds", "wall_seconds"]
            about += ["delay_seconds", "error"]
            table.writerow([*about, *self.metrics])
            for score in self.scores:
                row = asdict(score)
                table.writerow(
                    [*(row[name] for name in about), *(row["values"][n] for n in self.metrics)]
                )

    def _summary(self, estimator: str) -> dict[str, Any]:
        def intervals(files: Collection[str] | None = None) -> dict[str, Any]:
            return {name: asdict(self.mean(estimator, name, files)) for name in self.metrics}

        summary = {
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
            if "si_sdr" in self.metrics:
                summary["worsened"] = len(self.worsened(estimator))
                summary["worst"] = dict(list(self.gains(estimator, "si_sdr").items())[:WORST])
        return summary

    def _interval(self, values: dict[str, float], files: Collection[str] | None) -> Interval:
        """Percentile bootstrap of the mean (Efron and Tibshirani 1993)."""
        chosen = list(values.values()) if files is None else [values[file] for file in files]
        found = np.array([value for value in chosen if math.isfinite(value)], np.float64)
        failed = len(chosen) - found.size
        if found.size < 2:
            mean = float(found.mean()) if found.size else math.nan
            return Interval(mean, math.nan, math.nan, found.size, failed)
        rng = np.random.default_rng(self.seed)
        means = rng.choice(found, (RESAMPLES, found.size)).mean(axis=1)
        low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Interval(float(found.mean()), float(low), float(high), found.size, failed)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
