"""Clean noisy recordings with several estimators and score the results."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from denoisecli.audio.files import read_mono
from denoisecli.audio.resampling import fit_length
from denoisecli.errors import AudioError, DenoiseError, UsageError
from denoisecli.evaluation.estimators import Estimator, Unchanged
from denoisecli.evaluation.metrics import METRICS, EstimateVector, check_metrics, measure
from denoisecli.evaluation.pairs import Pair, join_names
from denoisecli.evaluation.scores import INPUT, Cost, Evaluation, Score
from denoisecli.system.pools import WorkerDied, process_pool, processes, result_of
from denoisecli.types import AudioVector

SAMPLE_RATE = 16000
"""Sample rate in Hz of the scoring; channels are averaged and resampled to it."""

MAX_SHIFT = 0.1
"""Largest delay of an estimate, and largest difference in length to the clean sound, in s.

Streaming denoisers delay their output, and codecs pad it. The delay is measured, reported, and
removed before scoring; then the estimate is trimmed or padded to the length of the clean sound.
"""

OnProgress = Callable[[float, float], None]
"""Called with the number of files that are cleaned or scored so far, and with the total."""

_Result = TypeVar("_Result")


def evaluate(
    pairs: Sequence[Pair],
    estimators: Mapping[str, Estimator],
    *,
    metrics: Sequence[str] = tuple(METRICS),
    baseline: str = INPUT,
    jobs: int = 1,
    keep: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Clean every noisy recording with every estimator, and score the results.

    First each estimator cleans all recordings, one after the other, in a new process of its own
    while nothing else runs, so that times can be compared. Then ``jobs`` processes score pair by
    pair: a pair is read once, and all its estimates are scored. Processes are spawned, so a script
    that calls this function needs ``if __name__ == "__main__":``.

    A file that cannot be read, cleaned or scored does not stop the others. Its score has an
    ``error`` and counts as failed in every mean. If a process dies, the remaining files of that
    process fail as well.

    Args:
        pairs: The pairs to evaluate on.
        estimators: The estimators by name. The unchanged input is added as ``INPUT``.
        metrics: Keys of METRICS.
        baseline: Name of the estimator that the others are compared with.
        jobs: Number of scoring processes; 1 scores in this process.
        keep: New or empty folder for the cleaned files, ``ESTIMATOR/NAME.wav``. By default they
            are written to a temporary folder and deleted.
        on_progress: Called after each file.

    Raises:
        UsageError: There are no pairs, two pairs have the same name, the name of an estimator is
            reserved or cannot name a folder, an estimator cannot clean the recordings, the baseline
            or a metric is unknown, a package is not installed, or ``keep`` is not empty.
        DenoiseError: An estimator cannot be loaded.
    """
    systems: dict[str, Estimator] = {INPUT: Unchanged(), **estimators}
    _check_arguments(pairs, estimators, baseline, jobs, keep)
    check_metrics(metrics)
    names = [pair.name for pair in pairs]
    for estimator in systems.values():
        estimator.check(names)

    progress = _Progress(on_progress, total=2 * len(systems) * len(pairs))
    with TemporaryDirectory(prefix="denoise-") as temporary:
        folder = keep or Path(temporary)
        runs = {
            name: _clean_all(estimator, pairs, folder / name, progress)
            for name, estimator in systems.items()
        }
        scored = _score_all(pairs, runs, metrics, jobs, progress)

    scores = {
        name: [
            Score(
                file=pair.name,
                estimator=name,
                noise=pair.noise,
                snr_db=result.snr_db,
                seconds=result.seconds,
                wall_seconds=output.seconds if systems[name].timed else math.nan,
                delay_seconds=result.estimates[name].delay_seconds,
                values=result.estimates[name].values,
                error=output.error or result.estimates[name].error,
            )
            for pair, output, result in zip(pairs, run.outputs, scored, strict=True)
        ]
        for name, run in runs.items()
    }
    return Evaluation(
        metrics=list(metrics),
        costs={name: _cost(scores[name], runs[name], timed=systems[name].timed) for name in runs},
        scores=[score for rows in scores.values() for score in rows],
        baseline=baseline,
        files={
            name: {
                pair.name: output.path
                for pair, output in zip(pairs, run.outputs, strict=True)
                if output.path is not None and output.path.exists()
            }
            for name, run in runs.items()
        },
    )


@dataclass(frozen=True)
class _Output:
    """A cleaned file and the wall time in s that it took, or the error that prevented it."""

    path: Path | None = None
    seconds: float = math.nan
    error: str | None = None


@dataclass(frozen=True)
class _Run:
    """The work of an estimator: one output for each pair, and its cost."""

    outputs: list[_Output]
    load_seconds: float
    peak_memory_mb: float


@dataclass(frozen=True)
class _Estimate:
    """The metrics of a cleaned file and its delay in s, which was removed, or an error."""

    values: dict[str, float]
    delay_seconds: float = math.nan
    error: str | None = None


@dataclass(frozen=True)
class _Scored:
    """A pair: SNR of its noisy recording in dB, length in s, and the estimates by estimator."""

    snr_db: float
    seconds: float
    estimates: dict[str, _Estimate]


class _Progress:
    """Counts files and reports each one."""

    def __init__(self, on_progress: OnProgress | None, total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0

    def advance(self) -> None:
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(float(self._done), float(self._total))


def _check_arguments(
    pairs: Sequence[Pair],
    estimators: Mapping[str, Estimator],
    baseline: str,
    jobs: int,
    keep: Path | None,
) -> None:
    names = [pair.name for pair in pairs]
    if not names:
        raise UsageError("there are no recordings to evaluate")
    if len(set(names)) < len(names):
        duplicates = sorted({name for name in names if names.count(name) > 1})
        raise UsageError(f"there are several recordings named {join_names(duplicates)}")
    for name in estimators:
        if name == INPUT:
            raise UsageError(
                f"the name {INPUT!r} is reserved for the noisy input; choose another name"
            )
        if not name or name.startswith(".") or any(sign in name for sign in "/\\"):
            raise UsageError(
                f"{name!r} cannot be the name of an estimator, because it cannot name a folder"
            )
    if baseline != INPUT and baseline not in estimators:
        known = join_names([INPUT, *estimators])
        raise UsageError(f"there is no estimator {baseline!r} to compare with; choose from {known}")
    if jobs < 1:
        raise UsageError(f"the number of jobs must be at least 1, not {jobs}")
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise UsageError(f"{keep} exists and is not an empty folder; choose another folder")


def _call(pool: Executor | None, function: Callable[..., _Result], *arguments: object) -> _Result:
    """Call a function in the process of a pool, or in this process."""
    if pool is None:
        return function(*arguments)
    return result_of(pool.submit(function, *arguments))


def _clean_all(
    estimator: Estimator, pairs: Sequence[Pair], folder: Path, progress: _Progress
) -> _Run:
    """Clean one recording after the other, in a new process if the estimator is timed."""
    with process_pool(1) if estimator.timed else nullcontext() as pool:
        load_seconds = _call(pool, _load, estimator)
        outputs = []
        for pair in pairs:
            output = folder / f"{pair.name}.wav"
            try:
                outputs.append(_call(pool, _clean, pair.name, pair.noisy, output))
            except DenoiseError as error:
                outputs.append(_Output(error=str(error)))
            progress.advance()
        try:
            return _Run(outputs, load_seconds, _call(pool, _peak_memory_mb))
        except WorkerDied:
            return _Run(outputs, load_seconds, math.nan)


def _score_all(
    pairs: Sequence[Pair],
    runs: Mapping[str, _Run],
    metrics: Sequence[str],
    jobs: int,
    progress: _Progress,
) -> list[_Scored]:
    """Score pair by pair, in ``jobs`` processes."""
    tasks = [
        (pair, {name: run.outputs[index].path for name, run in runs.items()})
        for index, pair in enumerate(pairs)
    ]
    scored = []
    with processes(jobs) as workers:
        results = workers.map(partial(_score_pair, metrics), tasks)
        for task in tasks:
            try:
                scored.append(next(results))
            except WorkerDied as error:
                message = str(error)
                results = (_failed(task, metrics, message) for task in tasks[len(scored) :])
                scored.append(next(results))
            for _ in runs:
                progress.advance()
    return scored


def _cost(scores: list[Score], run: _Run, *, timed: bool) -> Cost:
    done = [score for score in scores if score.error is None]
    delay = float(np.median([score.delay_seconds for score in done])) if done else math.nan
    if not timed:
        return Cost(math.nan, math.nan, math.nan, delay)
    seconds = sum(score.seconds for score in done)
    factor = sum(score.wall_seconds for score in done) / seconds if done else math.nan
    return Cost(run.load_seconds, factor, run.peak_memory_mb, delay)


# The functions below run in other processes.

_loaded: Estimator


def _load(estimator: Estimator) -> float:
    """Load an estimator; returns the time in s that it took."""
    global _loaded
    start = time.perf_counter()
    estimator.load()
    _loaded = estimator
    return time.perf_counter() - start


def _clean(name: str, noisy: Path, output: Path) -> _Output:
    output.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    path = _loaded.clean(name, noisy, output)
    return _Output(path, time.perf_counter() - start)


def _peak_memory_mb() -> float:
    """Return the peak memory in MiB of this process or of a program it ran; NaN without /proc."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return math.nan
    import resource

    # ru_maxrss of a process starts with the memory of its parent, VmHWM does not.
    own = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(int(own.split()[1]), programs) / 1024


_Task = tuple[Pair, dict[str, Path | None]]
"""A pair and its cleaned files by estimator, None where cleaning failed."""


def _score_pair(metrics: Sequence[str], task: _Task) -> _Scored:
    """Read a pair once and score all its cleaned files."""
    pair, outputs = task
    try:
        clean, noisy = (read_mono(path, SAMPLE_RATE)[0] for path in (pair.clean, pair.noisy))
        _check_length(noisy, pair.noisy, clean, pair.clean)
    except DenoiseError as error:
        return _failed(task, metrics, str(error))
    snr_db = pair.snr_db
    if snr_db is None:
        snr_db = measure(clean, fit_length(noisy, clean.size), SAMPLE_RATE, ["snr"])["snr"]
    estimates = {}
    for name, path in outputs.items():
        try:
            if path is None:
                estimates[name] = _no_estimate(metrics)
                continue
            sound = noisy if path == pair.noisy else read_mono(path, SAMPLE_RATE)[0]
            _check_length(sound, path, clean, pair.clean)
            delay = _delay(noisy, sound)
            sound = fit_length(np.pad(sound, (max(-delay, 0), 0))[max(delay, 0) :], clean.size)
            values = measure(clean, sound, SAMPLE_RATE, metrics)
            estimates[name] = _Estimate(values, delay / SAMPLE_RATE)
        except DenoiseError as error:
            estimates[name] = _no_estimate(metrics, str(error))
    return _Scored(snr_db, clean.size / SAMPLE_RATE, estimates)


def _failed(task: _Task, metrics: Sequence[str], error: str) -> _Scored:
    pair, outputs = task
    snr_db = math.nan if pair.snr_db is None else pair.snr_db
    return _Scored(snr_db, math.nan, {name: _no_estimate(metrics, error) for name in outputs})


def _no_estimate(metrics: Sequence[str], error: str | None = None) -> _Estimate:
    return _Estimate(dict.fromkeys(metrics, math.nan), error=error)


def _check_length(sound: EstimateVector, path: Path, clean: AudioVector, clean_path: Path) -> None:
    difference = (sound.size - clean.size) / SAMPLE_RATE
    if abs(difference) > MAX_SHIFT:
        longer = "longer" if difference > 0 else "shorter"
        raise AudioError(f"{path} is {abs(difference):.3f} s {longer} than {clean_path}")


def _delay(noisy: AudioVector, estimate: EstimateVector) -> int:
    """Return the delay of an estimate in samples, where its correlation with its input peaks."""
    limit = round(MAX_SHIFT * SAMPLE_RATE)
    n_fft = 2 ** math.ceil(math.log2(max(noisy.size, estimate.size) + limit))
    spectrum = np.fft.rfft(estimate, n_fft) * np.fft.rfft(noisy, n_fft).conj()
    correlation = np.abs(np.roll(np.fft.irfft(spectrum, n_fft), limit)[: 2 * limit + 1])
    return int(correlation.argmax()) - limit if estimate.any() else 0
