"""An evaluation as one HTML page that needs nothing else: figures, pictures, sound."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from denoisecli.audio.files import probe, read_mono
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.evaluation import previews
from denoisecli.evaluation.metrics import METRICS
from denoisecli.evaluation.pairs import Pair
from denoisecli.evaluation.scores import INPUT, Evaluation, Interval, Score
from denoisecli.system.atomic_files import refuse_existing, replacing

FILES = 9
"""How many recordings are shown with pictures and sound, by default."""

SECONDS = 10.0
"""Of a recording longer than this by more than a quarter, this much from its middle is shown."""

NOTHING = "\N{EN DASH}"
"""Stands for a figure that could not be computed."""

MINUS = "\N{MINUS SIGN}"

_HERE = Path(__file__).parent
_SCATTER = 320.0  # size of the drawing


@dataclass(frozen=True)
class Sound:
    """A sound of a recording, as it is shown.

    Attributes:
        name: "Noisy", for example.
        figures: its metrics, as text; empty for the clean sound and for what was removed.
        audio: data URI of the sound.
        image: data URI of its spectrogram.
        outline: points of its waveform.
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
        file: its name.
        score: what the first estimator made of it.
        change: the ranking metric before and after, as text.
        gain: its difference to the baseline; NaN where it has none.
        start: second of the recording at which what is shown begins.
        seconds: length of what is shown.
        top_khz: upper end of the spectrograms.
        ceiling_db: level of the brightest colour in dBFS.
        sounds: noisy, cleaned by each estimator, removed by the first one, clean.
        problems: what could not be shown, and why.
    """

    file: str
    score: Score
    change: str
    gain: float
    start: float
    seconds: float
    top_khz: float
    ceiling_db: float
    sounds: list[Sound]
    problems: list[str]


def check_report(output: Path, *, overwrite: bool = False) -> None:
    """Find out early whether a report can be written there.

    Raises:
        UsageError: ``output`` is no .html file, or exists and ``overwrite`` is false, or the
            package jinja2 is not installed.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{output}: a report goes to a .html file")
    if find_spec("jinja2") is None:
        raise UsageError("a report needs the package jinja2: pip install 'denoisecli[metrics]'")
    refuse_existing(output, overwrite=overwrite)


def write_report(
    result: Evaluation,
    pairs: Sequence[Pair],
    output: Path,
    *,
    files: int = FILES,
    overwrite: bool = False,
) -> None:
    """Write an evaluation as a page that works from disk: styles, pictures and sounds are in it.

    Recordings with pictures and sound are those that the first estimator gained the least on,
    the most on, and as many from the middle, by SI-SDR or else by the first metric.

    Args:
        result: the evaluation, with its cleaned files kept.
        pairs: what was evaluated on.
        output: the page, a .html file.
        files: about how many recordings have pictures and sound.
        overwrite: replace an existing ``output``.

    Raises:
        UsageError: as :func:`check_report`, or nothing but the baseline was evaluated.
        DenoiseError: the page cannot be written.
    """
    check_report(output, overwrite=overwrite)
    if not result.compared:
        raise UsageError("a report needs something that is compared with the baseline")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "interval": interval, "signed": signed}
    page = environment.get_template("report.html").render(
        result=result,
        metrics={name: METRICS[name] for name in result.metrics},
        ranking=ranking_metric(result),
        input=INPUT,
        nothing=NOTHING,
        isfinite=math.isfinite,
        count=len(pairs),
        best=best_means(result),
        groups=_groups(result),
        scatter=scatter(result),
        sections=_sections(result, pairs, files),
        seconds=SECONDS,
        dynamic_range=previews.DYNAMIC_RANGE,
        version=version("denoisecli"),
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "report.js").read_text(encoding="utf-8")),
    )
    with replacing(output, overwrite=overwrite) as part:
        part.write_text(page, encoding="utf-8")


def figure(value: float, decimals: int) -> str:
    """Give a number as text, with a true minus sign, or NOTHING."""
    text = f"{value:z.{decimals}f}"  # z: no minus before zero
    return text.replace("-", MINUS) if math.isfinite(value) else NOTHING


def signed(value: float, decimals: int) -> str:
    """Give a difference as text, with a true minus sign, or NOTHING."""
    return f"{value:+.{decimals}f}".replace("-", MINUS) if math.isfinite(value) else NOTHING


def interval(value: Interval, decimals: int) -> str:
    """Give half the width of the interval, as text; nothing where there is none."""
    half = (value.high - value.low) / 2
    return f"±{half:.{decimals}f}" if math.isfinite(half) else ""


def ranking_metric(result: Evaluation) -> str:
    """Name the metric that recordings are ranked by."""
    return "si_sdr" if "si_sdr" in result.metrics else result.metrics[0]


def best_means(result: Evaluation) -> dict[str, str | None]:
    """Name the estimator with the best mean of each metric; None where there is no mean."""
    best: dict[str, str | None] = {}
    for metric in result.metrics:
        means = {name: result.mean(name, metric).mean for name in result.costs}
        known = {name: mean for name, mean in means.items() if math.isfinite(mean)}
        choose = max if METRICS[metric].higher_is_better else min
        best[metric] = choose(known, key=known.__getitem__) if known else None
    return best


def choose(result: Evaluation, number: int) -> list[tuple[str, list[str]]]:
    """Choose recordings to show: the least gained, the middle ones, the most gained.

    Recordings without a gain are not among them.

    Args:
        result: the evaluation.
        number: how many there should be; a third of it in each group.

    Returns:
        A heading and the names of the recordings, for each group.
    """
    metric = ranking_metric(result)
    gains = result.gains(result.compared[0], metric)
    ranked = [file for file, gain in gains.items() if math.isfinite(gain)]
    label = METRICS[metric].label
    if number < 1 or not ranked:
        return []
    if number >= len(ranked):
        return [(f"All recordings, the smallest gain in {label} first", ranked)]
    third = max(number // 3, 1)
    middle = (len(ranked) - third) // 2
    groups = [
        (f"Smallest gain in {label}", ranked[:third]),
        (f"Typical gain in {label}", ranked[middle : middle + third]),
        (f"Largest gain in {label}", ranked[::-1][:third]),
    ]
    return groups[: min(number, 3)]


def scatter(result: Evaluation) -> dict[str, Any]:
    """Place a point for every recording and estimator: the ranking metric before and after.

    Both axes have the same scale, so that the diagonal means "no change".
    """
    metric = ranking_metric(result)
    before = result.values(result.baseline, metric)
    points = [
        (name, file, before[file], after)
        for name in result.compared
        for file, after in result.values(name, metric).items()
        if math.isfinite(before[file]) and math.isfinite(after)
    ]
    values = [value for point in points for value in point[2:]]
    low, high, step = _ticks(values)

    def place(value: float) -> float:
        return round(_SCATTER * (value - low) / (high - low), 1)

    ticks = [low + step * index for index in range(round((high - low) / step) + 1)]
    return {
        "size": _SCATTER,
        "points": [
            {"estimator": name, "file": file, "before": x, "after": y, "x": place(x), "y": place(y)}
            for name, file, x, y in points
        ],
        "ticks": [(f"{tick:g}".replace("-", MINUS), place(tick)) for tick in ticks],
    }


def _ticks(values: Sequence[float]) -> tuple[float, float, float]:
    """Choose the ends of an axis, and a step of 1, 2 or 5 times a power of ten between ticks."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= span / 6)
    first = math.floor(low / step) * step
    return first, max(math.ceil(high / step) * step, first + step), step


def _groups(result: Evaluation) -> list[tuple[str, dict[str, list[str]]]]:
    """Give the groups by SNR and by noise, where there are several."""
    kinds = [("input SNR", result.groups("snr")), ("kind of noise", result.groups("noise"))]
    return [(name, groups) for name, groups in kinds if len(groups) > 1]


def _sections(
    result: Evaluation, pairs: Sequence[Pair], number: int
) -> list[tuple[str, list[Recording]]]:
    by_name = {pair.name: pair for pair in pairs}
    sections = []
    shown: set[str] = set()
    for heading, names in choose(result, number):
        recordings = [_recording(result, by_name[name]) for name in names if name not in shown]
        shown.update(names)
        sections.append((heading, recordings))
    return sections


def _recording(result: Evaluation, pair: Pair) -> Recording:
    scores = {score.estimator: score for score in result.scores if score.file == pair.name}
    main = result.compared[0]
    own_rate = probe(pair.noisy).sample_rate
    rate = previews.playable_rate(own_rate)
    seconds = scores[main].seconds
    shown = SECONDS if seconds > 1.25 * SECONDS else seconds
    start = (seconds - shown) / 2
    end = start + shown

    def read(path: Path, delay: float = 0.0) -> Any:
        sound, sound_rate = read_mono(path)
        return previews.stretch(sound, sound_rate, rate, start + delay, end + delay)

    noisy = read(pair.noisy)
    found: list[tuple[str, Any, Score | None]] = [("Noisy", noisy, scores[INPUT])]
    problems = []
    alone = len(result.costs) == 2
    for name in result.costs:
        if name == INPUT:
            continue
        try:
            path = result.files.get(name, {})[pair.name]
            cleaned = read(path, scores[name].delay_seconds)
        except (KeyError, ValueError, DenoiseError):
            problems.append(f"{name}: {scores[name].error or 'its file was not kept'}")
            continue
        found.append(("Cleaned" if alone else f"Cleaned by {name}", cleaned, scores[name]))
        if name == main:
            removed = "Removed" if alone else f"Removed by {name}"
            found.append((removed, noisy - cleaned, None))
    found.append(("Clean", read(pair.clean), None))

    matrices = [previews.levels(sound, rate) for _, sound, _ in found]
    ceiling_db = max(previews.ceiling(matrix) for matrix in matrices)
    peak = max(float(abs(sound).max()) for _, sound, _ in found)
    metric = ranking_metric(result)
    decimals = METRICS[metric].decimals
    before = scores[result.baseline].values[metric]
    after = scores[main].values[metric]
    return Recording(
        file=pair.name,
        score=scores[main],
        change=f"{figure(before, decimals)} → {figure(after, decimals)} {METRICS[metric].unit}",
        gain=after - before,
        start=start,
        seconds=end - start,
        top_khz=rate / 2000,
        ceiling_db=ceiling_db,
        sounds=[
            Sound(
                name=name,
                figures=[] if score is None else _figures(score, result.metrics),
                audio=previews.opus(sound, rate),
                image=previews.spectrogram_image(matrix, ceiling_db),
                outline=previews.outline(sound, peak),
            )
            for (name, sound, score), matrix in zip(found, matrices, strict=True)
        ],
        problems=problems,
    )


def _figures(score: Score, metrics: Iterable[str]) -> list[str]:
    return [
        f"{METRICS[name].label} {figure(score.values[name], METRICS[name].decimals)}"
        for name in metrics
    ]
