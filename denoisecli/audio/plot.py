"""Pictures of recordings and spectrogram files, one above the other for comparison."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from denoisecli.audio.files import find_audio
from denoisecli.audio.panels import Columns, Panel, load_panel
from denoisecli.audio.spectrogram import FLOOR_DB
from denoisecli.errors import UsageError
from denoisecli.system.atomic_files import refuse_existing, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

MAX_FILES = 20
MAX_PIXELS = 2**15

_DAY = 86400
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
"""Fonts of Linux, macOS and Windows for file names that matplotlib's own font cannot show."""

_COLOURS = "magma"
_BACKGROUND = "0.92"  # visible where a file is shorter or has a lower sample rate than others


def check_target(output: Path, *, overwrite: bool = False) -> None:
    """Raise UsageError if a picture cannot be written to ``output``."""
    if output.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{output}: a picture is written to a .png, .svg or .pdf file")
    refuse_existing(output, overwrite=overwrite)


def plot_files(
    sources: Sequence[Path],
    output: Path,
    *,
    start: float = 0.0,
    duration: float | None = None,
    waveform: bool = False,
    dynamic_range: float = 80.0,
    max_frequency: float | None = None,
    width: float = 10.0,
    dpi: int = 150,
    titles: Sequence[str] | None = None,
    overwrite: bool = False,
    on_progress: Callable[[float, float], object] = lambda done, total: None,
) -> None:
    """Draw the spectrograms of files one above the other, on common axes and one colour scale.

    Recordings are read block by block and drawn as the mean of their channels. Frames that share
    a column of the picture are reduced to their maximum, so that short sounds stay visible and
    neither memory nor the picture grows with the length.

    Args:
        sources: Recordings, spectrogram files (``.npz``), and folders, of which all recordings
            are drawn.
        output: Picture to write: ``.png``, ``.svg`` or ``.pdf``.
        start: Start of the part to draw in seconds.
        duration: Length of the part to draw in seconds; None draws everything after ``start``.
        waveform: Draw the waveform above each spectrogram.
        dynamic_range: Range of the colour scale in dB, downwards from the highest level.
        max_frequency: Upper end of the frequency axis in Hz; None is half the highest sample rate.
        width: Width of the picture in inches.
        dpi: Pixels per inch.
        titles: Title of every file; None takes the names of the files.
        overwrite: Replace an existing ``output``.
        on_progress: Function called with the number of files done, fractions included, and the
            number of all files.

    Raises:
        UsageError: There are no or too many files, one does not exist or has no waveform, an
            option is out of range, or ``output`` exists or has another suffix.
        AudioError: A file cannot be read.
    """
    check_target(output, overwrite=overwrite)
    files = list(_expand(sources))
    if not 1 <= len(files) <= MAX_FILES:
        raise UsageError(
            f"a picture shows 1 to {MAX_FILES} files, not {len(files)}; name those to draw"
        )
    height = 0.7 + len(files) * (3.2 if waveform else 2.3)
    _check_options(start, duration, dynamic_range, max_frequency)
    _check_size(width, height, dpi)
    panels: list[Panel] = []
    for file, title in zip(files, titles or _names(files), strict=True):
        panel = load_panel(
            file,
            title,
            round(width * dpi),
            start=start,
            duration=duration,
            waveform=waveform,
            on_progress=lambda share: on_progress(len(panels) + share, len(files)),
        )
        panels.append(panel)
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
            # Characters that no font has are drawn as boxes, which needs no warning.
            warnings.filterwarnings("ignore", message="Glyph")
            figure.savefig(part, dpi=dpi)


def _expand(sources: Sequence[Path]) -> Iterator[Path]:
    for source in sources:
        if source.is_dir():
            yield from find_audio(source)
        else:
            yield source


def _check_options(
    start: float, duration: float | None, dynamic_range: float, max_frequency: float | None
) -> None:
    if not 0 <= start < math.inf:
        raise UsageError(f"the start must be 0 s or later, not {start:g} s")
    for name, value in (
        ("duration", duration),
        ("dynamic range", dynamic_range),
        ("maximum frequency", max_frequency),
    ):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"the {name} must be more than 0, not {value:g}")


def _check_size(width: float, height: float, dpi: int) -> None:
    for name, inches in (("width", width), ("height", height)):
        if not 100 <= inches * dpi <= MAX_PIXELS:
            raise UsageError(
                f"the {name} of the picture would be {inches * dpi:.0f} pixels; "
                f"it must be 100 to {MAX_PIXELS}"
            )


def _names(files: Sequence[Path]) -> list[str]:
    """Return file names with as many of their folders as it takes to distinguish them."""
    for depth in range(1, 1 + max(len(file.parts) for file in files)):
        names = [str(Path(*file.parts[-depth:])) for file in files]
        if len(set(names)) == len(set(files)):
            break
    return names


def draw(
    panels: Sequence[Panel],
    *,
    dynamic_range: float,
    max_frequency: float | None,
    size: tuple[float, float],
    dpi: int,
) -> "Figure":
    """Draw panels one above the other.

    Args:
        panels: One or more panels, all with a waveform or all without.
        dynamic_range: See :func:`plot_files`.
        max_frequency: See :func:`plot_files`.
        size: Width and height in inches.
        dpi: Pixels per inch.

    Returns:
        The figure, which is independent of pyplot and of any display.
    """
    from matplotlib.figure import Figure

    waveform = panels[0].envelope is not None
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.04, hspace=0.02)  # type: ignore[call-arg, union-attr]
    rows = figure.subplots(
        len(panels) * (2 if waveform else 1),
        1,
        sharex=True,
        squeeze=False,
        height_ratios=[1, 2.4] * len(panels) if waveform else None,
    )[:, 0]
    if waveform:
        _draw_waveforms(panels, list(rows[::2]))
    _draw_spectrograms(
        panels, list(rows[1::2] if waveform else rows), dynamic_range, max_frequency, figure
    )
    for panel, axes in zip(panels, rows[::2] if waveform else rows, strict=True):
        _set_title(axes, panel, max_characters=int(9 * size[0]))
    _set_time_axis(rows[-1], panels)
    figure.align_ylabels(rows)
    return figure


def _draw_spectrograms(
    panels: Sequence[Panel],
    rows: "Sequence[Axes]",
    dynamic_range: float,
    max_frequency: float | None,
    figure: "Figure",
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    top = max(panel.sample_rate for panel in panels) / 2
    top = min(top, max_frequency or top)
    loudest = max(float(_visible(panel, top).max()) for panel in panels)
    ceiling = 5 * math.ceil(loudest / 5) if loudest > FLOOR_DB else 0
    norm = Normalize(ceiling - dynamic_range, ceiling)
    for panel, axes in zip(panels, rows, strict=True):
        end = panel.start + panel.levels.shape[1] * panel.column_seconds
        half_bin = panel.sample_rate / 4000 / (panel.levels.shape[0] - 1)
        axes.imshow(
            panel.levels,
            norm=norm,
            cmap=_COLOURS,
            aspect="auto",
            origin="lower",
            extent=(panel.start, end, -half_bin, panel.sample_rate / 2000 + half_bin),
        )
        axes.set(ylim=(0, top / 1000), ylabel="Frequency (kHz)", facecolor=_BACKGROUND)
    figure.colorbar(
        ScalarMappable(norm, _COLOURS),
        ax=figure.axes,
        label="Level (dBFS)",
        extend="min",
        extendfrac=0.02,
        pad=0.015,
        aspect=7 * figure.get_figheight(),  # the same width in figures of any height
    )


def _visible(panel: Panel, max_frequency: float) -> Columns:
    bins = panel.levels.shape[0] - 1
    return panel.levels[: 1 + math.ceil(bins * min(1, 2 * max_frequency / panel.sample_rate))]


def _draw_waveforms(panels: Sequence[Panel], rows: "Sequence[Axes]") -> None:
    envelopes = [panel.envelope for panel in panels if panel.envelope is not None]
    peak = max(float(np.abs(envelope).max()) for envelope in envelopes) or 1.0
    for panel, envelope, axes in zip(panels, envelopes, rows, strict=True):
        times = panel.start + (np.arange(envelope.shape[1]) + 0.5) * panel.column_seconds
        axes.fill_between(times, *envelope, color="#51127c", linewidth=0.5)
        axes.axhline(0, color="0.7", linewidth=0.4, zorder=0)
        axes.set(ylim=(-1.05 * peak, 1.05 * peak), ylabel="Amplitude")


def _set_title(axes: "Axes", panel: Panel, max_characters: int) -> None:
    name = panel.title
    if len(name) > max_characters:
        name = f"{name[: max_characters // 2]} … {name[-(max_characters // 2) :]}"
    axes.set_title(name, loc="left", parse_math=False)
    length = _format_length(panel.seconds)
    if panel.seconds < panel.duration:
        length += f" of {_format_length(panel.duration)}"
    axes.set_title(f"{panel.sample_rate / 1000:g} kHz, {length}", loc="right", color="0.4")


def _set_time_axis(axes: "Axes", panels: Sequence[Panel]) -> None:
    start = min(panel.start for panel in panels)
    stop = max(panel.start + panel.seconds for panel in panels)
    axes.set_xlim(start, stop)
    if stop < 60:
        axes.set_xlabel("Time (s)")
        axes.ticklabel_format(axis="x", useOffset=False)
        return
    hours = stop >= 3600
    axes.set_xlabel("Time (h:mm:ss)" if hours else "Time (m:ss)")
    axes.xaxis.set_major_locator(_clock_locator())
    axes.xaxis.set_major_formatter(lambda seconds, _: _format_clock(seconds, hours=hours))


def _clock_locator() -> "Locator":
    """Return matplotlib's locator of dates, which knows minutes and hours, for seconds."""
    from matplotlib.dates import AutoDateLocator, num2date

    class ClockLocator(AutoDateLocator):
        def __call__(self) -> list[float]:
            assert self.axis is not None
            start, stop = self.axis.get_view_interval()
            days = self.tick_values(num2date(start / _DAY), num2date(stop / _DAY))
            return [_DAY * day for day in days]

    return ClockLocator(minticks=4, maxticks=10)


def _format_length(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    return _format_clock(float(round(seconds)), hours=seconds >= 3600)


def _format_clock(seconds: float, *, hours: bool) -> str:
    """Format a time as m:ss or h:mm:ss, with decimals where they are not zero."""
    minutes, seconds = divmod(round(seconds, 3), 60)
    text = f"{seconds:06.3f}".rstrip("0").removesuffix(".")
    if not hours:
        return f"{minutes:.0f}:{text}"
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{text}"


def _font_families() -> list[str]:
    """Return the families in which matplotlib looks for a character, in this order."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    more = [family for family in _MORE_SCRIPTS if family in installed]
    return [*matplotlib.rcParams["font.family"], *more]
