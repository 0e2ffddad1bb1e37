"""Clean noisy recordings with several estimators and score the results."""

import math
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from denoisecli.audio.files import read_mono
from denoisecli.audio.resampling import fit_length
from denoisecli.errors import AudioError, DenoiseError, UsageError, join_names
from denoisecli.evaluation.clusters import Signature, find_clusters, signature
from denoisecli.evaluation.estimators import Estimator, Unchanged
from denoisecli.evaluation.metrics import (
    BLIND_METRICS,
    METRICS,
    WER,
    EstimateVector,
    check_metrics,
    measure,
)
from denoisecli.evaluation.pairs import Pair
from denoisecli.evaluation.recognition import Recognizer, word_error_rate
from denoisecli.evaluation.scores import INPUT, Cost, Evaluation, Score
from denoisecli.system.atomic_files import temporary_folder
from denoisecli.system.pools import WorkerDied, process_pool, processes, result_of
from denoisecli.types import AudioVector

MAX_SHIFT = 0.1
"""Largest delay of an estimate that is found, and largest difference in length to the clean, in s.

Streaming denoisers delay their output, and codecs pad it. The delay is measured and reported; the
estimate is trimmed or padded at its end to the length of the clean sound.
"""

DELAY_TOLERANCE = 4
"""Largest delay in samples, at the rate of the clean recording, that is removed before scoring.

Filters and resamplers shift a sound by so little. A longer delay is removed only on request
(``align``), because a listener or a recorder has to bear it.
"""

OnScores = Callable[[Sequence[Score]], None]
"""Called with the scores of a pair, one for each estimator."""

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
    align: bool = False,
    recognizer: Recognizer | None = None,
    transcripts: Mapping[str, Sequence[str]] | None = None,
    on_scores: OnScores | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Clean every noisy recording with every estimator, and score the results.

    First each estimator cleans all recordings, one after the other, in a new process of its own
    while nothing else runs, so that times can be compared. Then ``jobs`` processes score pair by
    pair: a pair is read once, and all its estimates are scored. Channels are averaged, and the
    noisy recording and the estimates are resampled to the rate of the clean recording. A real
    recording has no clean one; it is the reference itself then, see BLIND_METRICS. Processes
    are spawned, so a script that calls this function needs ``if __name__ == "__main__":``.

    A file that cannot be read, cleaned or scored does not stop the others. Its score has an
    ``error`` and counts as failed in every mean. If a process dies, the remaining files of that
    process fail as well.

    Args:
        pairs: The pairs to evaluate on.
        estimators: The estimators by name. The unchanged input is added as ``INPUT``.
        metrics: Keys of METRICS and BLIND_METRICS; of the latter only, if a pair has no clean file.
        baseline: Name of the estimator that the others are compared with.
        jobs: Number of scoring processes; 1 scores in this process.
        keep: New or empty folder for the cleaned files, ``ESTIMATOR/NAME.wav``. By default they
            are written to a temporary folder and deleted.
        align: Remove any delay of an estimate before scoring, not only one of DELAY_TOLERANCE.
        recognizer: Speech recognizer, which adds the word error rate to the metrics.
        transcripts: Normalized words of the transcripts by name of the pair. By default, and for
            pairs without one, it is what the recognizer understands of the clean recording.
        on_scores: Called with the scores of each pair as soon as they are known. Their clusters
            are not known yet.
        on_progress: Called after each file.

    Raises:
        UsageError: There are no pairs, two pairs have the same name, the name of an estimator is
            reserved or cannot name a folder, an estimator cannot clean the recordings, the baseline
            or a metric is unknown, a metric needs the clean file that a pair lacks, a package is
            not installed, or ``keep`` is not empty.
        DenoiseError: An estimator cannot be loaded.
    """
    systems: dict[str, Estimator] = {INPUT: Unchanged(), **estimators}
    _check_arguments(pairs, estimators, baseline, jobs, keep)
    check_metrics(metrics)
    if any(pair.clean is None for pair in pairs) and (others := set(metrics) & set(METRICS)):
        raise UsageError(
            f"{join_names(sorted(others))}: without clean recordings there are only "
            f"{', '.join(BLIND_METRICS)}"
        )
    if recognizer is not None:
        recognizer.check()
    names = [pair.name for pair in pairs]
    for estimator in systems.values():
        estimator.check(names)
    if recognizer is not None:
        recognizer.load()

    progress = _Progress(on_progress, total=2 * len(systems) * len(pairs))
    with temporary_folder() as temporary:
        folder = keep or Path(temporary)
        runs = {
            name: _clean_all(estimator, pairs, folder / name, progress)
            for name, estimator in systems.items()
        }
        rows: list[list[Score]] = []
        signatures: list[Signature | None] = []
        with closing(_score_all(pairs, runs, metrics, jobs, progress, align=align)) as results:
            for index, (pair, (row, clean_signature)) in enumerate(
                zip(pairs, results, strict=True)
            ):
                if recognizer is not None:
                    paths = [run.outputs[index].path for run in runs.values()]
                    words = None if transcripts is None else transcripts.get(pair.name)
                    row = _recognize(recognizer, pair, paths, words, row)
                rows.append(row)
                signatures.append(clean_signature)
                if on_scores is not None:
                    on_scores(row)

    clusters = find_clusters(pairs, [row[0].sample_rate for row in rows], signatures)
    scores = {
        name: [replace(score, cluster=clusters[score.file]) for score in column]
        for name, column in zip(systems, zip(*rows, strict=True), strict=True)
    }
    return Evaluation(
        metrics=[*metrics, *([WER] if recognizer else [])],
        costs={name: _cost(scores[name], runs[name], timed=systems[name].timed) for name in runs},
        scores=[score for column in scores.values() for score in column],
        baseline=baseline,
        blind=all(pair.clean is None for pair in pairs),
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
    """A cleaned file and the wall time in s that it took (NaN if untimed), or an error."""

    path: Path | None = None
    seconds: float = math.nan
    error: str | None = None


@dataclass(frozen=True)
class _Run:
    """The work of an estimator: one output for each pair, and its cost."""

    outputs: list[_Output]
    load_seconds: float
    peak_memory_mb: float


_Scored = tuple[list[Score], Signature | None]
"""The scores of a pair, one for each estimator, and the signature of its clean recording."""


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
        raise UsageError(f"{keep} exists and is not an empty folder, which is never replaced")


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
    *,
    align: bool,
) -> Generator[_Scored]:
    """Score pair by pair, in ``jobs`` processes, and yield the results as they come."""
    tasks = [
        (pair, {name: run.outputs[index] for name, run in runs.items()})
        for index, pair in enumerate(pairs)
    ]
    with processes(jobs) as workers:
        results = workers.map(partial(_score_pair, metrics, align), tasks)
        for index in range(len(tasks)):
            try:
                result = next(results)
            except WorkerDied as error:
                message = str(error)
                results = (_failed(metrics, task, message) for task in tasks[index:])
                result = next(results)
            for _ in runs:
                progress.advance()
            yield result


def _recognize(
    recognizer: Recognizer,
    pair: Pair,
    paths: Sequence[Path | None],
    transcript: Sequence[str] | None,
    scores: list[Score],
) -> list[Score]:
    """Add the word error rates of the cleaned files of a pair to their scores."""
    scores = [replace(score, values=score.values | {WER: math.nan}) for score in scores]
    if transcript is None and pair.clean is None:
        return scores  # a transcript of the noisy recording cannot serve as a reference
    try:
        understood, language = recognizer.transcribe(pair.reference)
    except DenoiseError:  # the clean file cannot be read, which the scores already say
        return scores
    reference = understood if transcript is None else transcript
    recognized = []
    for score, path in zip(scores, paths, strict=True):
        score = replace(score, words=len(reference))
        if path is not None and score.error is None:
            try:
                words, _ = recognizer.transcribe(path, language)
                values = score.values | {WER: word_error_rate(reference, words)}
                score = replace(score, values=values, transcript=" ".join(words))
            except DenoiseError as error:
                score = replace(score, error=str(error))
        recognized.append(score)
    return recognized


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
    if _loaded.timed:  # the others write nothing
        output.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    path = _loaded.clean(name, noisy, output)
    return _Output(path, time.perf_counter() - start if _loaded.timed else math.nan)


def _peak_memory_mb() -> float:
    """Return the peak memory in MiB of this process or of a program it ran; NaN if not reported.

    Linux reports it, but not in every sandbox.
    """
    status = Path("/proc/self/status")
    # ru_maxrss of a process starts with the memory of its parent, VmHWM does not.
    own = (
        re.search(r"VmHWM:\s+(\d+)", status.read_text(encoding="utf-8"))
        if status.is_file()
        else None
    )
    if own is None:
        return math.nan
    import resource

    programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(int(own[1]), programs) / 1024


_Task = tuple[Pair, dict[str, _Output]]
"""A pair and its cleaned files by estimator."""


def _score_pair(metrics: Sequence[str], align: bool, task: _Task) -> _Scored:
    """Read a pair once and score all its cleaned files at the sample rate of the clean one."""
    pair, outputs = task
    try:
        reference, rate = read_mono(pair.reference)
        noisy = reference if pair.clean is None else read_mono(pair.noisy, rate)[0]
        _check_length(noisy, pair.noisy, reference, pair.reference, rate)
    except DenoiseError as error:
        return _failed(metrics, task, str(error))
    snr_db = pair.snr_db
    if snr_db is None:
        name = "snr" if pair.clean is not None else "estimated_snr"
        snr_db = measure(reference, fit_length(noisy, reference.size), rate, [name])[name]
    scores = []
    for name, output in outputs.items():
        score = replace(
            _unscored(metrics, pair, name, output),
            snr_db=snr_db,
            seconds=reference.size / rate,
            sample_rate=rate,
        )
        if (path := output.path) is not None:
            try:
                sound = noisy if path == pair.noisy else read_mono(path, rate)[0]
                _check_length(sound, path, reference, pair.reference, rate)
                delay = _delay(noisy, sound, rate)
                aligned = align or abs(delay) <= DELAY_TOLERANCE
                if aligned:
                    sound = np.pad(sound, (max(-delay, 0), 0))[max(delay, 0) :]
                before, after = (fit_length(part, reference.size) for part in (noisy, sound))
                values = _measure(reference, before, after, rate, metrics)
                score = replace(score, values=values, delay_seconds=delay / rate, aligned=aligned)
            except DenoiseError as error:
                score = replace(score, error=str(error))
        scores.append(score)
    return scores, signature(reference, rate)


def _measure(
    reference: AudioVector,
    noisy: AudioVector,
    estimate: AudioVector,
    rate: int,
    metrics: Sequence[str],
) -> dict[str, float]:
    """Compute metrics; those that need no clean recording find its pauses in the noisy one."""
    blind = [name for name in metrics if name in BLIND_METRICS]
    others = [name for name in metrics if name not in blind]
    values = {
        **measure(reference, estimate, rate, others),
        **measure(noisy, estimate, rate, blind),
    }
    return {name: values[name] for name in metrics}


def _failed(metrics: Sequence[str], task: _Task, error: str) -> _Scored:
    pair, outputs = task
    scores = [_unscored(metrics, pair, *item) for item in outputs.items()]
    return [replace(score, error=score.error or error) for score in scores], None


def _unscored(metrics: Sequence[str], pair: Pair, estimator: str, output: _Output) -> Score:
    """Return the score of a cleaned file before it is read."""
    return Score(
        file=pair.name,
        estimator=estimator,
        noise=pair.noise,
        snr_db=math.nan if pair.snr_db is None else pair.snr_db,
        seconds=math.nan,
        wall_seconds=output.seconds,
        delay_seconds=math.nan,
        values=dict.fromkeys(metrics, math.nan),
        error=output.error,
    )


def _check_length(
    sound: EstimateVector,
    path: Path,
    reference: AudioVector,
    reference_path: Path,
    sample_rate: int,
) -> None:
    difference = (sound.size - reference.size) / sample_rate
    if abs(difference) > MAX_SHIFT:
        longer = "longer" if difference > 0 else "shorter"
        raise AudioError(f"{path} is {abs(difference):.3f} s {longer} than {reference_path}")


def _delay(noisy: AudioVector, estimate: EstimateVector, sample_rate: int) -> int:
    """Return the delay of an estimate in samples, where its correlation with its input peaks."""
    from scipy.signal import correlate, correlation_lags  # slow to import

    if not (estimate.any() and noisy.any()):
        return 0
    lags = correlation_lags(estimate.size, noisy.size)
    near = np.abs(lags) <= round(MAX_SHIFT * sample_rate)
    correlation = np.abs(correlate(estimate, noisy, method="fft")[near])
    return int(lags[near][correlation.argmax()])
