"""Measure what models and other denoisers do to recordings whose clean sound is known."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from scipy.fft import next_fast_len

from denoisecli.audio.files import read_mono
from denoisecli.audio.resampling import fit_length
from denoisecli.errors import AudioError, DenoiseError, UsageError
from denoisecli.evaluation.estimators import Estimator, Unchanged
from denoisecli.evaluation.metrics import METRICS, EstimateVector, check_metrics, measure
from denoisecli.evaluation.pairs import Pair, listed
from denoisecli.evaluation.scores import INPUT, Cost, Evaluation, Score
from denoisecli.types import AudioVector

SAMPLE_RATE = 16000
"""Hz: metrics are computed at this rate, on the mean of the channels."""

MAX_SHIFT = 0.1
"""Seconds by which an estimate may follow its input, or be longer or shorter than the clean sound:
streaming denoisers delay, codecs pad. The delay is measured, reported, and taken out before
scoring; then the end is cut or padded."""

Progress = Callable[[float, float], None]
"""Called with the number of files cleaned or scored so far, and in all."""

_Result = TypeVar("_Result")


def evaluate(
    pairs: Sequence[Pair],
    estimators: Mapping[str, Estimator],
    *,
    metrics: Sequence[str] = tuple(METRICS),
    baseline: str = INPUT,
    jobs: int = 1,
    keep: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Clean every noisy recording with every estimator and score the results.

    Each estimator cleans in a fresh process of its own, one file after the other, with nothing
    else running, so that times can be compared; then its files are scored by ``jobs`` processes.
    Processes are spawned: a script that calls this needs ``if __name__ == "__main__":``.

    A file that cannot be read, cleaned or scored does not stop the others: it has a score with an
    ``error``, and counts as failed in every mean. (Where a process dies, so do the files that it
    had still to do.)

    Args:
        pairs: the recordings.
        estimators: by name; the unchanged input (INPUT) comes first by itself.
        metrics: keys of METRICS.
        baseline: the estimator that the others are compared with.
        jobs: number of processes that score.
        keep: a folder to leave the cleaned files in, as ESTIMATOR/NAME.wav; a new or empty one.
            By default they are deleted.
        seed: chooses the resamples of the intervals.
        progress: called after every file.

    Raises:
        UsageError: no pairs, pairs of one name, an estimator's name that is taken or no file name,
            an estimator that cannot work, an unknown baseline or metric, a package that is not
            installed, or a ``keep`` with something in it.
        DenoiseError: an estimator cannot be loaded.
    """
    every: dict[str, Estimator] = {INPUT: Unchanged(), **estimators}
    names = [pair.name for pair in pairs]
    _check(names, estimators, jobs, keep)
    check_metrics(metrics)
    if baseline not in every:
        raise UsageError(
            f"there is nothing named {baseline!r} to compare with, only {listed([*every])}"
        )
    for estimator in every.values():
        estimator.check(names)

    tell = _Steps(progress, 2 * len(every) * len(pairs))
    costs: dict[str, Cost] = {}
    scores: list[Score] = []
    snrs: list[float] = []
    files: dict[str, dict[str, Path]] = {}
    with _processes(jobs) as pool:
        for name, estimator in every.items():
            with _folder(keep, name) as folder:
                run = _clean_all(estimator, pairs, folder, tell)
                wanted = [*metrics, "snr"] if name == INPUT else [*metrics]  # to group the files
                measured = _score_all(pool, run.cleaned, pairs, wanted, tell)
            if name == INPUT:
                snrs = [
                    scored.values["snr"] if pair.snr_db is None else pair.snr_db
                    for pair, scored in zip(pairs, measured, strict=True)
                ]
            new = [
                Score(
                    file=pair.name,
                    estimator=name,
                    noise=pair.noise,
                    snr_db=snr_db,
                    seconds=scored.seconds,
                    wall_seconds=cleaned.seconds if estimator.timed else math.nan,
                    delay_seconds=scored.delay_seconds,
                    values={metric: scored.values[metric] for metric in metrics},
                    error=scored.error,
                )
                for pair, snr_db, cleaned, scored in zip(
                    pairs, snrs, run.cleaned, measured, strict=True
                )
            ]
            costs[name] = _cost(new, run, timed=estimator.timed)
            scores += new
            files[name] = {
                pair.name: made.path
                for pair, made in zip(pairs, run.cleaned, strict=True)
                if made.path is not None and made.path.exists()
            }
    return Evaluation(list(metrics), costs, scores, baseline, files, seed)


@dataclass(frozen=True)
class _Cleaned:
    """A cleaned file, or why there is none, and the seconds it took."""

    path: Path | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class _Run:
    """What an estimator did."""

    cleaned: list[_Cleaned]
    load_seconds: float
    peak_memory_mb: float


@dataclass(frozen=True)
class _Scored:
    """The values of a file, the seconds of audio they are of, and the delay in s taken out."""

    values: dict[str, float]
    seconds: float = math.nan
    delay_seconds: float = math.nan
    error: str | None = None


class _Steps:
    """Counts steps and tells of each."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(float(self._done), float(self._total))


def _check(
    names: Sequence[str], estimators: Mapping[str, Estimator], jobs: int, keep: Path | None
) -> None:
    if not names:
        raise UsageError("there are no recordings to evaluate")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UsageError(f"there are several recordings named {listed(twice)}")
    for name in estimators:
        if name == INPUT:
            raise UsageError(f"the name {INPUT!r} is kept for the noisy input; choose another")
        if not name or name.startswith(".") or any(sign in name for sign in "/\\"):
            raise UsageError(f"{name!r} is no name for an estimator: it must do for a folder")
    if jobs < 1:
        raise UsageError(f"the number of jobs must be at least 1, not {jobs}")
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise UsageError(f"{keep} is there already and not an empty folder; choose another")


@contextmanager
def _folder(keep: Path | None, name: str) -> Iterator[Path]:
    if keep is None:
        with TemporaryDirectory(prefix="denoise-") as folder:
            yield Path(folder)
    else:
        yield keep / name


@contextmanager
def _processes(number: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes; what has not begun is dropped when the block ends, by Ctrl-C for example."""
    pool = ProcessPoolExecutor(
        number,
        mp_context=get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_DFL),  # die of Ctrl-C without a traceback
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, function: Callable[..., _Result], *arguments: object
) -> "Future[_Result]":
    """Hand a task to a process; that it died before shows in the result."""
    try:
        return pool.submit(function, *arguments)
    except BrokenProcessPool as error:
        broken: Future[_Result] = Future()
        broken.set_exception(error)
        return broken


def _result(future: "Future[_Result]") -> _Result:
    """Give the result of a process.

    Raises:
        DenoiseError: it raised one, or the process died.
    """
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise DenoiseError("the process died; perhaps there was not enough memory") from error


def _clean_all(estimator: Estimator, pairs: Sequence[Pair], folder: Path, tell: _Steps) -> _Run:
    """Clean one file after the other, in a fresh process if it is for the stopwatch."""

    def run(ask: Callable[..., Any]) -> _Run:
        load_seconds = ask(_load, estimator)
        cleaned = []
        for pair in pairs:
            try:
                cleaned.append(ask(_clean, pair.name, pair.noisy, folder / f"{pair.name}.wav"))
            except DenoiseError as error:
                cleaned.append(_Cleaned(None, math.nan, str(error)))
            tell()
        try:
            return _Run(cleaned, load_seconds, ask(_peak_memory_mb))
        except DenoiseError:
            return _Run(cleaned, load_seconds, math.nan)

    if not estimator.timed:
        return run(lambda function, *arguments: function(*arguments))
    with _processes(1) as pool:
        return run(lambda function, *arguments: _result(_submit(pool, function, *arguments)))


def _score_all(
    pool: ProcessPoolExecutor,
    cleaned: Sequence[_Cleaned],
    pairs: Sequence[Pair],
    metrics: Sequence[str],
    tell: _Steps,
) -> list[_Scored]:
    nothing = dict.fromkeys(metrics, math.nan)
    futures = [
        None if made.path is None else _submit(pool, _score, pair, made.path, metrics)
        for pair, made in zip(pairs, cleaned, strict=True)
    ]
    scored = []
    for made, future in zip(cleaned, futures, strict=True):
        try:
            scored.append(_Scored(nothing, error=made.error) if future is None else _result(future))
        except DenoiseError as error:
            scored.append(_Scored(nothing, error=str(error)))
        tell()
    return scored


def _cost(scores: list[Score], run: _Run, *, timed: bool) -> Cost:
    done = [score for score in scores if score.error is None]
    delay = float(np.median([score.delay_seconds for score in done])) if done else math.nan
    if not timed:
        return Cost(math.nan, math.nan, math.nan, delay)
    audio = sum(score.seconds for score in done)
    factor = sum(score.wall_seconds for score in done) / audio if done else math.nan
    return Cost(run.load_seconds, factor, run.peak_memory_mb, delay)


# What follows runs in other processes.

_loaded: Estimator


def _load(estimator: Estimator) -> float:
    global _loaded
    start = time.perf_counter()
    estimator.load()
    _loaded = estimator
    return time.perf_counter() - start


def _clean(name: str, noisy: Path, output: Path) -> _Cleaned:
    output.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    path = _loaded.clean(name, noisy, output)
    return _Cleaned(path, time.perf_counter() - start)


def _peak_memory_mb() -> float:
    """Most memory of this process or of a program it ran, in MiB; NaN where Linux is not."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return math.nan
    import resource

    # Not ru_maxrss for the process itself: that starts with what its parent held.
    own = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(int(own.split()[1]), programs) / 1024


def _score(pair: Pair, estimate: Path, metrics: Sequence[str]) -> _Scored:
    reference, noisy, sound = (
        read_mono(path, SAMPLE_RATE)[0] for path in (pair.clean, pair.noisy, estimate)
    )
    for other, path in ((noisy, pair.noisy), (sound, estimate)):
        difference = (other.size - reference.size) / SAMPLE_RATE
        if abs(difference) > MAX_SHIFT:
            longer = "longer" if difference > 0 else "shorter"
            raise AudioError(f"{path} is {abs(difference):.3f} s {longer} than {pair.clean}")
    delay = _delay(noisy, sound)
    sound = np.pad(sound, (max(-delay, 0), 0))[max(delay, 0) :]
    values = measure(reference, fit_length(sound, reference.size), SAMPLE_RATE, metrics)
    return _Scored(values, reference.size / SAMPLE_RATE, delay / SAMPLE_RATE)


def _delay(noisy: AudioVector, estimate: EstimateVector) -> int:
    """Give the samples by which an estimate follows its input: where their correlation peaks."""
    most = round(MAX_SHIFT * SAMPLE_RATE)
    n_fft = next_fast_len(max(noisy.size, estimate.size) + most, real=True)
    spectrum = np.fft.rfft(estimate, n_fft) * np.fft.rfft(noisy, n_fft).conj()
    correlation = np.abs(np.roll(np.fft.irfft(spectrum, n_fft), most)[: 2 * most + 1])
    return int(correlation.argmax()) - most if estimate.any() else 0
