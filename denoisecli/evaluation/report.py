"""An evaluation as a self-contained HTML page with figures, pictures and sound."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from denoisecli.audio.files import probe, read_mono
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.evaluation import formatting, previews
from denoisecli.evaluation.metrics import DESCRIPTIONS
from denoisecli.evaluation.pairs import Pair
from denoisecli.evaluation.scores import INPUT, Evaluation, Score
from denoisecli.system.atomic_files import refuse_existing, write_text
from denoisecli.system.extras import require

FILES = 9
"""Default number of recordings with pictures and sound."""

SECONDS = 10.0
"""Default length in s of the excerpt of a recording that is longer by more than a quarter."""

MISSING = "\N{EN DASH}"
"""Stands for a value that is unknown or undefined."""

MINUS = "\N{MINUS SIGN}"

_HERE = Path(__file__).parent
_SCATTER_SIZE = 320.0  # width and height of the scatter plot
_MAX_TICKS = 7


@dataclass(frozen=True)
class Sound:
    """A sound of a recording: the noisy or clean one, a cleaned one, or what was removed.

    Attributes:
        name: Name, such as "Noisy".
        figures: Its metrics as text; empty for the clean and the removed sound.
        audio: Data URI of the sound.
        image: Data URI of its spectrogram.
        outline: Points of its waveform, for an SVG polygon.
    """

    name: str
    figures: list[str]
    audio: str
    image: str
    outline: str


@dataclass(frozen=True)
class Recording:
    """A recording with pictures and sound.

    Attributes:
        file: Name of the pair.
        score: Score of the first estimator.
        change: The ranking metric before and after, as text.
        gain: Difference of the ranking metric to the baseline; NaN if it is undefined.
        start: Start of the excerpt in s.
        seconds: Length of the excerpt in s.
        top_khz: Upper limit of the spectrograms in kHz.
        sounds: The noisy sound, the cleaned ones, what the first estimator removed, the clean one.
        problems: Sounds that cannot be shown, and the reasons.
    """

    file: str
    score: Score
    change: str
    gain: float
    start: float
    seconds: float
    top_khz: float
    sounds: list[Sound]
    problems: list[str]


@dataclass(frozen=True)
class Point:
    """A point of the scatter plot: a recording and an estimator.

    Attributes:
        estimator: Name of the estimator.
        file: Name of the pair.
        before: Ranking metric of the baseline.
        after: Ranking metric of the estimator.
        x: Position of ``before`` on the axis.
        y: Position of ``after`` on the axis.
    """

    estimator: str
    file: str
    before: float
    after: float
    x: float
    y: float


@dataclass(frozen=True)
class Scatter:
    """A scatter plot whose axes have the same scale, so that its diagonal means "unchanged".

    Attributes:
        size: Length of both axes.
        points: The points.
        ticks: Labels and positions of the ticks of both axes.
    """

    size: float
    points: list[Point]
    ticks: list[tuple[str, float]]


def check_report(output: Path, *, overwrite: bool = False) -> None:
    """Check, before any work, whether a report can be written.

    Raises:
        UsageError: ``output`` is not a .html file, it exists and ``overwrite`` is false, or the
            package jinja2 is not installed.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{output} must have the suffix .html to be written as a report")
    require("metrics", "jinja2", purpose="a report")
    refuse_existing(output, overwrite=overwrite)


def write_report(
    result: Evaluation,
    pairs: Sequence[Pair],
    output: Path,
    *,
    files: int = FILES,
    seconds: float = SECONDS,
    cleaned: bool = False,
    gains: Mapping[str, float] | None = None,
    overwrite: bool = False,
) -> None:
    """Write an evaluation as one HTML file that contains its styles, pictures and sounds.

    Pictures and sound are those of the recordings on which the first estimator gained the least,
    the most, and of as many from the middle, by SI-SDR or else by the first metric.

    Args:
        result: The evaluation; its cleaned files must exist.
        pairs: The pairs of the evaluation.
        output: Path of the .html file.
        files: Approximate number of recordings with pictures and sound.
        seconds: Length in s of the excerpt of a longer recording.
        cleaned: The page is about recordings that were cleaned, not about what cleaned them.
        gains: Factors by name of the recording that cleaned files were scaled with (default: 1);
            they are undone before what was removed is computed.
        overwrite: Replace an existing file.

    Raises:
        UsageError: As in :func:`check_report`, or no estimator is compared with the baseline.
        DenoiseError: The file cannot be written.
    """
    check_report(output, overwrite=overwrite)
    if not result.compared:
        raise UsageError("a report needs an estimator to compare with the baseline")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": figure,
        "signed": signed,
        "half_width": formatting.half_width,
        "failures": formatting.failures,
        "count": formatting.count,
        "capitalized": lambda text: text[:1].upper() + text[1:],
        "cost_cells": lambda cost: map(typeset, formatting.cost_cells(cost)),
    }
    page = environment.get_template("report.html").render(
        result=result,
        metrics={name: DESCRIPTIONS[name] for name in result.metrics},
        ranking=result.ranking,
        input=INPUT,
        missing=MISSING,
        isfinite=math.isfinite,
        pairs=pairs,
        number_of_pairs=len(pairs),
        cleaned=cleaned,
        blind=result.blind,
        timed=any(math.isfinite(cost.real_time_factor) for cost in result.costs.values()),
        best=best_means(result),
        sample_rates=formatting.sample_rates(result),
        files_in_means=formatting.files_in_means(result),
        delays=formatting.delays(result),
        cost_labels=formatting.COST_LABELS,
        groupings=formatting.groupings(result),
        scatter=scatter(result),
        sections=_sections(result, pairs, files, seconds, gains or {}),
        dynamic_range=previews.DYNAMIC_RANGE,
        version=version("denoisecli"),
        style=Markup(_assets("theme.css", "report.css")),
        script=Markup(_assets("player.js", "report.js")),
    )
    write_text(output, page, overwrite=overwrite)


def _assets(*names: str) -> str:
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)


def typeset(text: str) -> str:
    """Replace the hyphen of a formatted number by a minus sign, and MISSING by a dash."""
    return MISSING if text == formatting.MISSING else text.replace("-", MINUS)


def figure(value: float, decimals: int) -> str:
    """Format a number for the page."""
    return typeset(formatting.number(value, decimals))


def signed(value: float, decimals: int) -> str:
    """Format a difference for the page."""
    return typeset(formatting.number(value, decimals, signed=True))


def best_means(result: Evaluation) -> dict[str, str | None]:
    """Return the estimator with the best mean of each metric; None if there is no mean."""
    best: dict[str, str | None] = {}
    for metric in result.metrics:
        if DESCRIPTIONS[metric].higher_is_better is None:
            best[metric] = None
            continue
        means = {name: result.mean(name, metric).mean for name in result.costs}
        finite = {name: mean for name, mean in means.items() if math.isfinite(mean)}
        pick = max if DESCRIPTIONS[metric].higher_is_better else min
        best[metric] = pick(finite, key=finite.__getitem__) if finite else None
    return best


def choose(result: Evaluation, number: int) -> list[tuple[str, list[str]]]:
    """Choose recordings to show: those with the smallest, a typical and the largest gain.

    Recordings without a gain are left out.

    Args:
        result: The evaluation.
        number: Number of recordings, a third of it for each group.

    Returns:
        A heading and the names of the recordings, for each group.
    """
    metric = result.ranking
    gains = result.gains(result.compared[0], metric)
    ranked = [file for file, gain in gains.items() if math.isfinite(gain)]
    label = DESCRIPTIONS[metric].label
    if number < 1 or not ranked:
        return []
    if number >= len(ranked):
        return [(f"All recordings, by gain in {label}", ranked)]
    third = max(number // 3, 1)
    middle = (len(ranked) - third) // 2
    groups = [
        (f"Smallest gain in {label}", ranked[:third]),
        (f"Typical gain in {label}", ranked[middle : middle + third]),
        (f"Largest gain in {label}", ranked[::-1][:third]),
    ]
    return groups[: min(number, 3)]


def scatter(result: Evaluation) -> Scatter:
    """Place a point for every recording and estimator: the ranking metric before and after."""
    metric = result.ranking
    before = result.values(result.baseline, metric)
    values = [
        (name, file, before[file], after)
        for name in result.compared
        for file, after in result.values(name, metric).items()
        if math.isfinite(before[file]) and math.isfinite(after)
    ]
    ticks = _ticks([value for row in values for value in row[2:]])
    low, high = ticks[0], ticks[-1]

    def place(value: float) -> float:
        return round(_SCATTER_SIZE * (value - low) / (high - low), 1)

    return Scatter(
        size=_SCATTER_SIZE,
        points=[Point(name, file, x, y, place(x), place(y)) for name, file, x, y in values],
        ticks=[(typeset(f"{tick:g}"), place(tick)) for tick in ticks],
    )


def _ticks(values: Sequence[float]) -> list[float]:
    """Choose round ticks; the first and the last one are the ends of an axis for all values."""
    from matplotlib.ticker import MaxNLocator

    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    locator = MaxNLocator(_MAX_TICKS - 1, steps=[1, 2, 5, 10])
    return [float(tick) for tick in np.round(locator.tick_values(low, high), 9)]


def _sections(
    result: Evaluation,
    pairs: Sequence[Pair],
    number: int,
    seconds: float,
    gains: Mapping[str, float],
) -> list[tuple[str, list[Recording]]]:
    by_name = {pair.name: pair for pair in pairs}
    sections = []
    shown: set[str] = set()
    for heading, names in choose(result, number):
        recordings = [
            _recording(result, by_name[name], seconds, gains.get(name, 1.0))
            for name in names
            if name not in shown
        ]
        shown.update(names)
        sections.append((heading, recordings))
    return sections


def _recording(result: Evaluation, pair: Pair, longest: float, gain: float) -> Recording:
    scores = {score.estimator: score for score in result.scores if score.file == pair.name}
    main = result.compared[0]
    rate = previews.playable_rate(probe(pair.noisy).sample_rate)
    seconds = scores[main].seconds
    length = longest if seconds > 1.25 * longest else seconds
    start = (seconds - length) / 2

    def excerpt(path: Path, delay: float = 0.0) -> previews.Excerpt:
        sound, sound_rate = read_mono(path)
        return previews.excerpt(sound, sound_rate, rate, start + delay, start + length + delay)

    noisy = excerpt(pair.noisy)
    sounds: list[tuple[str, previews.Excerpt, Score | None]] = [("Noisy", noisy, scores[INPUT])]
    problems = []
    for name in result.costs:
        if name == INPUT:
            continue
        try:
            cleaned = excerpt(result.files[name][pair.name], scores[name].delay_seconds)
        except (KeyError, ValueError, DenoiseError):
            problems.append(f"{name}: {scores[name].error or 'the cleaned file was not kept'}")
            continue
        by = f" by {name}" if len(result.costs) > 2 else ""
        sounds.append((f"Cleaned{by}", cleaned, scores[name]))
        if name == main:
            sounds.append((f"Removed{by}", noisy - cleaned / np.float32(gain), None))
    if pair.clean is not None:
        sounds.append(("Clean", excerpt(pair.clean), None))

    matrices = [previews.levels(sound, rate) for _, sound, _ in sounds]
    ceiling_db = max(previews.ceiling(matrix) for matrix in matrices)
    peak = max(float(abs(sound).max()) for _, sound, _ in sounds)
    metric = DESCRIPTIONS[result.ranking]
    before, after = (scores[name].values[result.ranking] for name in (result.baseline, main))
    return Recording(
        file=pair.name,
        score=scores[main],
        change=f"{figure(before, metric.decimals)} → {figure(after, metric.decimals)} "
        f"{metric.unit}",
        gain=after - before,
        start=start,
        seconds=length,
        top_khz=rate / 2000,
        sounds=[
            Sound(
                name=name,
                figures=[] if score is None else _figures(score, result.metrics),
                audio=previews.opus(sound, rate),
                image=previews.spectrogram_image(matrix, ceiling_db),
                outline=previews.outline(sound, peak),
            )
            for (name, sound, score), matrix in zip(sounds, matrices, strict=True)
        ],
        problems=problems,
    )


def _figures(score: Score, metrics: Iterable[str]) -> list[str]:
    return [
        f"{DESCRIPTIONS[name].label} {figure(score.values[name], DESCRIPTIONS[name].decimals)}"
        for name in metrics
    ]
