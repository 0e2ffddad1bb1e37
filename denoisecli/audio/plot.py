"""Figures of recordings and spectrogram files, one above the other for comparison."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from denoisecli.audio.files import probe, read_blocks
from denoisecli.audio.spectrogram import (
    FLOOR_DB,
    Spectrogram,
    decibels,
    invert,
    magnitude,
    mel_filters,
)
from denoisecli.audio.stft import stft
from denoisecli.errors import UsageError
from denoisecli.system.atomic_files import refuse_existing, replacing
from denoisecli.types import AudioVector, SpectrogramMatrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
MAX_FILES = 20
MAX_PIXELS = 2**15

_WINDOW = "hann"
_WINDOW_SECONDS = 0.032  # tells both the harmonics and the syllables of speech apart
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "0.3",
    "xtick.color": "0.2",
    "ytick.color": "0.2",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.usetex": False,
    "svg.hashsalt": "denoise",  # the same sources give the same file
}
_MORE_SCRIPTS = (
    "Noto Sans CJK JP",
    "Hiragino Sans",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "WenQuanYi Zen Hei",
)
"""Fonts of Linux, macOS and Windows for file names that matplotlib's own font cannot write."""

_BACKGROUND = "0.92"  # where a shorter file, or one of a lower sample rate, has no data


Columns = Float[np.ndarray, "frequency columns"]
"""Power or level of the frequencies in each column of a figure."""

Envelope = Float[np.ndarray, "2 columns"]
"""Smallest and largest sample of each column."""


@dataclass(frozen=True, eq=False)
class Panel:
    """What is drawn of one file, reduced to about as many columns as the figure has pixels.

    Attributes:
        title: Name of the file.
        levels: Mean level in every column in dBFS; rows from 0 Hz to half the sample rate.
        envelope: Smallest and largest sample in every column; None without a waveform.
        column_seconds: Time that a column stands for.
        duration: In seconds.
        sample_rate: In Hz.
    """

    title: str
    levels: Columns
    envelope: Envelope | None
    column_seconds: float
    duration: float
    sample_rate: int


def check_target(output: Path, *, overwrite: bool = False) -> None:
    """Raise UsageError where a figure cannot go to ``output``."""
    if output.suffix.lower() not in FORMATS:
        raise UsageError(f"{output}: a figure goes to a .png, .svg or .pdf file")
    refuse_existing(output, overwrite=overwrite)


def plot_files(
    sources: Sequence[Path],
    output: Path,
    *,
    waveform: bool = False,
    dynamic_range: float = 80.0,
    max_frequency: float | None = None,
    width: float = 10.0,
    height: float | None = None,
    dpi: int = 150,
    overwrite: bool = False,
) -> None:
    """Draw the spectrograms of files one above the other, on the same axes and colour scale.

    Recordings are read in blocks and drawn as the mean of their channels; columns that would
    share a pixel are averaged (in power), so neither memory nor the figure grows with the length.

    Args:
        sources: Recordings and spectrogram files (``.npz``), in the order wanted.
        output: ``.png``, ``.svg`` or ``.pdf``.
        waveform: Draw the waveform above each spectrogram too.
        dynamic_range: Range of the colour scale in dB, downward from the highest level.
        max_frequency: Top of the frequency axis in Hz; None is half the highest sample rate.
        width: Of the figure in inches.
        height: Of the figure in inches; None follows from the number of panels.
        dpi: Pixels per inch.
        overwrite: Replace an existing ``output``.

    Raises:
        UsageError: there are no or too many sources, one is missing or has no waveform, an
            option is out of range, or ``output`` exists already or has another suffix.
        AudioError: a source cannot be read.
    """
    check_target(output, overwrite=overwrite)
    if not 1 <= len(sources) <= MAX_FILES:
        raise UsageError(f"a figure shows 1 to {MAX_FILES} files, not {len(sources)}")
    if height is None:
        height = 0.7 + len(sources) * (3.2 if waveform else 2.3)
    _check_positive("dynamic range", dynamic_range)
    if max_frequency is not None:
        _check_positive("maximum frequency", max_frequency)
    for name, inches in (("width", width), ("height", height)):
        _check_positive(name, inches)
        if not 100 <= inches * dpi <= MAX_PIXELS:
            raise UsageError(
                f"the {name} of the figure would be {inches * dpi:.0f} pixels; "
                f"it can be 100 to {MAX_PIXELS}"
            )

    columns = round(width * dpi)
    panels = [
        load_panel(source, title, columns, waveform)
        for source, title in zip(sources, _titles(sources), strict=True)
    ]
    import matplotlib

    with matplotlib.rc_context(_STYLE | {"font.family": _font_families()}):
        figure = draw(
            panels,
            dynamic_range=dynamic_range,
            max_frequency=max_frequency,
            size=(width, height),
            dpi=dpi,
        )
        with replacing(output, overwrite=overwrite) as part, warnings.catch_warnings():
            # A file name in a script that the fonts lack is drawn as boxes; no need to say so.
            warnings.filterwarnings("ignore", message="Glyph")
            figure.savefig(part, dpi=dpi)


def _font_families() -> list[str]:
    """Families to look for a character in, one after the other."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    more = [family for family in _MORE_SCRIPTS if family in installed]
    return [*matplotlib.rcParams["font.family"], *more]


def draw(
    panels: Sequence[Panel],
    *,
    dynamic_range: float,
    max_frequency: float | None,
    size: tuple[float, float],
    dpi: int,
) -> "Figure":
    """Lay out panels as a figure; the arguments are those of ``plot_files``.

    Args:
        panels: One or more, all with a waveform or all without.
        dynamic_range: In dB.
        max_frequency: In Hz.
        size: Width and height in inches.
        dpi: Pixels per inch.

    Returns:
        The figure, independent of pyplot and of any display.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    waveform = panels[0].envelope is not None
    top = max(panel.sample_rate for panel in panels) / 2
    top = min(top, max_frequency or top)
    loudest = max(float(_visible(panel, top).max()) for panel in panels)
    ceiling = 5 * math.ceil(loudest / 5) if loudest > FLOOR_DB else 0
    colours = ScalarMappable(Normalize(ceiling - dynamic_range, ceiling), "magma")

    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.04, hspace=0.02)  # type: ignore[call-arg, union-attr]
    rows = figure.subplots(
        len(panels) * (2 if waveform else 1),
        1,
        sharex=True,
        squeeze=False,
        height_ratios=[1, 2.4] * len(panels) if waveform else None,
    )[:, 0]
    spectrogram_rows = rows[1::2] if waveform else rows
    for panel, axes in zip(panels, spectrogram_rows, strict=True):
        seconds = panel.levels.shape[1] * panel.column_seconds
        half_bin = panel.sample_rate / 4000 / (panel.levels.shape[0] - 1)
        axes.imshow(
            panel.levels,
            norm=colours.norm,
            cmap=colours.cmap,
            aspect="auto",
            origin="lower",
            extent=(0, seconds, -half_bin, panel.sample_rate / 2000 + half_bin),
        )
        axes.set(ylim=(0, top / 1000), ylabel="Frequency (kHz)", facecolor=_BACKGROUND)
    if waveform:
        _draw_waveforms(panels, list(rows[::2]))
    for panel, axes in zip(panels, rows[::2] if waveform else rows, strict=True):
        room = int(9 * size[0])  # characters that fit beside the facts on the right
        axes.set_title(_shorten(panel.title, room), loc="left", parse_math=False)
        seconds = panel.duration
        length = f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
        facts = f"{panel.sample_rate / 1000:g} kHz, {length}"
        axes.set_title(facts, loc="right", color="0.4")
    rows[-1].set(xlim=(0, max(panel.duration for panel in panels)), xlabel="Time (s)")
    figure.align_ylabels(rows)
    figure.colorbar(
        colours,
        ax=list(rows),
        label="Level (dBFS)",
        extend="min",
        extendfrac=0.02,
        pad=0.015,
        aspect=7 * size[1],  # as wide in a tall figure as in a low one
    )
    return figure


def _draw_waveforms(panels: Sequence[Panel], rows: Sequence["Axes"]) -> None:
    envelopes = [panel.envelope for panel in panels if panel.envelope is not None]
    peak = max(float(np.abs(envelope).max()) for envelope in envelopes) or 1.0
    for panel, envelope, axes in zip(panels, envelopes, rows, strict=True):
        times = (np.arange(envelope.shape[1]) + 0.5) * panel.column_seconds
        axes.fill_between(times, *envelope, color="#51127c", linewidth=0.5)
        axes.axhline(0, color="0.7", linewidth=0.4, zorder=0)
        axes.set(ylim=(-1.05 * peak, 1.05 * peak), ylabel="Amplitude")


def load_panel(source: Path, title: str, columns: int, waveform: bool) -> Panel:
    """Read a recording or a spectrogram file (``.npz``) as what is drawn of it.

    Args:
        source: The file.
        title: What stands above it.
        columns: About how many columns it should have.
        waveform: Find the envelope too.
    """
    if source.suffix.lower() == ".npz":
        return _panel_of_spectrogram(source, title, columns, waveform)
    info = probe(source)
    n_fft = max(16, 2 ** round(math.log2(_WINDOW_SECONDS * info.sample_rate)))
    # A short file has overlapping columns down to one a sample, a long one averaged ones.
    hop_length = min(n_fft // 4, max(1, info.frames // columns))
    frames_per_column = -(-info.frames // (columns * hop_length))
    parts = list(_read_columns(source, n_fft, hop_length, frames_per_column))
    power, envelope = (np.concatenate(kind, axis=-1) for kind in zip(*parts, strict=True))
    return Panel(
        title=title,
        levels=decibels(np.sqrt(power), n_fft=n_fft, window=_WINDOW),
        envelope=envelope if waveform else None,
        column_seconds=frames_per_column * hop_length / info.sample_rate,
        duration=info.duration,
        sample_rate=info.sample_rate,
    )


def _read_columns(
    source: Path, n_fft: int, hop_length: int, frames_per_column: int
) -> Iterator[tuple[Columns, Envelope]]:
    """Read a recording; give the power and the envelope of some columns at a time."""

    def reduce(part: AudioVector, samples: int) -> tuple[Columns, Envelope]:
        spectrum = stft(part, n_fft=n_fft, hop_length=hop_length, window=_WINDOW, center=False)
        power = _mean_of_groups(np.abs(spectrum) ** 2, frames_per_column)
        return power, _envelope(part[n_fft // 2 :][:samples], step)

    step = hop_length * frames_per_column
    waiting = np.zeros(n_fft // 2, np.float32)  # centres the first frame on the first sample
    for block in read_blocks(source):
        waiting = np.append(waiting, block.mean(axis=0))
        ready = (waiting.size - n_fft) // step * step
        if ready > 0:
            yield reduce(waiting[: ready - hop_length + n_fft], ready)
            waiting = waiting[ready:]
    rest = waiting.size - n_fft // 2
    frames = -(-rest // hop_length)
    yield reduce(np.pad(waiting, (0, n_fft))[: (frames - 1) * hop_length + n_fft], rest)


def _panel_of_spectrogram(source: Path, title: str, columns: int, waveform: bool) -> Panel:
    spec = Spectrogram.load(source)
    if waveform and (spec.phase is None or spec.scale == "mel"):
        raise UsageError(f"{source} has no exact waveform to draw: it holds no phase, or mel bands")
    power = _power(spec)[:, :-1]  # the middle of the last frame lies past the end
    group = -(-power.shape[1] // columns)
    power = _mean_of_groups(power, group)
    envelope = _envelope(invert(spec), group * spec.hop_length) if waveform else None
    return Panel(
        title=title,
        levels=decibels(np.sqrt(power), n_fft=spec.n_fft, window=spec.window),
        envelope=envelope,
        column_seconds=group * spec.hop_length / spec.sample_rate,
        duration=spec.length / spec.sample_rate,
        sample_rate=spec.sample_rate,
    )


def _power(spec: Spectrogram) -> SpectrogramMatrix:
    """Give the power at every frequency of the STFT: that of the nearest band, if it is mel."""
    if spec.scale != "mel":
        return magnitude(spec) ** 2
    assert spec.n_mels is not None
    filters = mel_filters(spec.sample_rate, spec.n_fft, spec.n_mels)
    bands = spec.matrix / filters.sum(axis=1, keepdims=True)
    bins = np.fft.rfftfreq(spec.n_fft, 1 / spec.sample_rate)
    return bands[np.abs(bins[:, None] - spec.frequencies).argmin(axis=1)]


def _mean_of_groups(power: SpectrogramMatrix, size: int) -> Columns:
    """Average ``size`` columns at a time; the last group may be smaller."""
    starts = np.arange(0, power.shape[1], size)
    return np.add.reduceat(power, starts, axis=1) / np.diff(starts, append=power.shape[1])


def _envelope(sound: AudioVector, step: int) -> Envelope:
    """Give the smallest and the largest of every ``step`` samples."""
    starts = np.arange(0, sound.size, step)
    return np.stack([kind.reduceat(sound, starts) for kind in (np.minimum, np.maximum)])


def _visible(panel: Panel, max_frequency: float) -> Columns:
    bins = panel.levels.shape[0] - 1
    return panel.levels[: 1 + math.ceil(bins * min(1, 2 * max_frequency / panel.sample_rate))]


def _titles(sources: Sequence[Path]) -> list[str]:
    """Name files by as many of their folders as it takes to tell them apart."""
    for depth in range(1, 1 + max(len(source.parts) for source in sources)):
        titles = [str(Path(*source.parts[-depth:])) for source in sources]
        if len(set(titles)) == len(set(sources)):
            break
    return titles


def _shorten(text: str, length: int) -> str:
    """Leave out the middle of a long text."""
    if len(text) <= length:
        return text
    return f"{text[: length // 2]} … {text[-(length // 2) :]}"


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise UsageError(f"the {name} of the figure must be more than 0, not {value:g}")
