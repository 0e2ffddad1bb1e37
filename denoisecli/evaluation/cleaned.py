"""A page about recordings that were cleaned: before, after, and what was removed."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from denoisecli.audio.files import probe
from denoisecli.audio.loudness import LoudnessMeter, is_installed
from denoisecli.audio.reading import reader
from denoisecli.audio.writing import writer
from denoisecli.errors import DenoiseError
from denoisecli.evaluation.estimators import Prepared
from denoisecli.evaluation.evaluate import evaluate
from denoisecli.evaluation.metrics import installed_blind_metrics
from denoisecli.evaluation.pairs import Pair
from denoisecli.evaluation.report import write_report
from denoisecli.evaluation.scores import Score
from denoisecli.system.atomic_files import temporary_folder

LONGEST_SECONDS = 900.0
"""Length in s of the excerpt, from its middle, of a longer recording that is scored and shown."""

EXCERPT_SECONDS = (10.0, 180.0)
"""Shortest and longest excerpt in s with sound."""

TOTAL_SECONDS = 600.0
"""Length in s of all excerpts together: about 5 MB for each version of the sound."""

OnProgress = Callable[[float, float], None]


@dataclass(frozen=True)
class Cleaned:
    """A recording before and after cleaning.

    Attributes:
        name: Name on the page.
        noisy: The recording.
        clean: The cleaned recording, of the same length.
        track: Number of the audio track of the recording that was cleaned; None is the default one.
        clean_track: Number of the audio track of the cleaned recording.
        gain: Factor that the cleaned recording was scaled with.
    """

    name: str
    noisy: Path
    clean: Path
    track: int | None = None
    clean_track: int | None = None
    gain: float = 1.0


def write_cleaning_report(
    recordings: Sequence[Cleaned],
    output: Path,
    *,
    model: str,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> None:
    """Write a page about cleaned recordings.

    It has the noise floor, the level of the speech and the estimated SNR before and after, DNSMOS
    and loudness if their packages are installed, spectrograms, and players. The middle
    LONGEST_SECONDS of longer recordings are scored, so that memory is bounded.

    Args:
        recordings: The recordings; their names differ.
        output: Path of the .html file.
        model: Name of what cleaned them.
        overwrite: Replace an existing file.
        on_progress: Called with the number of finished files and their total.

    Raises:
        UsageError: The suffix is not .html, the file exists, or jinja2 is not installed.
        DenoiseError: The file cannot be written.
    """
    with temporary_folder() as temporary:
        pairs, files = [], {}
        for number, recording in enumerate(recordings):
            folder = Path(temporary, str(number))
            folder.mkdir()
            noisy, clean = (
                _middle(path, folder / f"{kind}.w64", track)
                for kind, path, track in (
                    ("noisy", recording.noisy, recording.track),
                    ("clean", recording.clean, recording.clean_track),
                )
            )
            pairs.append(Pair(recording.name, None, noisy))
            files[recording.name] = clean
        result = evaluate(
            pairs,
            {model: Prepared(files)},
            metrics=installed_blind_metrics(),
            jobs=1,
            on_progress=on_progress,
        )
        if is_installed():
            noisy_files = {pair.name: pair.noisy for pair in pairs}
            scores = [
                _with_loudness(
                    score, (files if score.estimator == model else noisy_files)[score.file]
                )
                for score in result.scores
            ]
            result = replace(
                result, metrics=[*result.metrics, "loudness", "true_peak"], scores=scores
            )
        shortest, longest = EXCERPT_SECONDS
        write_report(
            result,
            pairs,
            output,
            files=min(len(pairs), round(TOTAL_SECONDS / shortest)),
            seconds=min(max(TOTAL_SECONDS / len(pairs), shortest), longest),
            cleaned=True,
            gains={recording.name: recording.gain for recording in recordings},
            overwrite=overwrite,
        )


def _middle(path: Path, copy: Path, track: int | None) -> Path:
    """Return a file with the middle of a recording: itself, or a copy if it is long."""
    try:
        info = probe(path)
    except DenoiseError:
        return path  # the evaluation reports it
    if info.duration <= LONGEST_SECONDS and track is None:
        return path
    copy_middle(path, copy, seconds=LONGEST_SECONDS, track=track)
    return copy


def copy_middle(
    path: Path,
    copy: Path,
    *,
    seconds: float = LONGEST_SECONDS,
    track: int | None = None,
    replace_nan: bool = False,
    keep_readable: bool = False,
) -> None:
    """Copy the middle of a recording in floating point.

    Args:
        path: The recording.
        copy: Path of the .w64 file.
        seconds: Longest length of the copy in s.
        track: Number of its audio track, from 1 on (default: the default one).
        replace_nan: Set NaN and infinite samples to zero.
        keep_readable: Copy what can be read of a damaged recording.

    Raises:
        UsageError, AudioError: As when the recording is read.
        DenoiseError: The copy cannot be written.
    """
    source = partial(
        reader, path, track=track, replace_nan=replace_nan, keep_readable=keep_readable
    )
    with source() as recording:  # since a header does not state, or contradicts, what can be read
        frames = sum(block.shape[1] for block in recording)
    with source() as recording:
        info = recording.info
        length = frames if seconds == math.inf else min(round(seconds * info.sample_rate), frames)
        first, position = (frames - length) // 2, 0
        with writer(
            copy, info.sample_rate, info.channels, frames=length, subtype="FLOAT"
        ) as target:
            for block in recording:
                start, end = first - position, first + length - position
                if end > 0 and start < block.shape[1]:
                    target.write(block[:, max(start, 0) : end])
                position += block.shape[1]


def _with_loudness(score: Score, path: Path) -> Score:
    """Add the loudness of all channels of a file to its score."""
    values = {"loudness": float("nan"), "true_peak": float("nan")}
    with suppress(DenoiseError), reader(path) as recording:
        meter = LoudnessMeter(recording.info.sample_rate, recording.info.channels)
        for block in recording:
            meter.add(block)
        loudness = meter.finish()
        values = {"loudness": loudness.integrated, "true_peak": loudness.true_peak}
    return replace(score, values=score.values | values)
