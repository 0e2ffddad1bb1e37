"""Pictures of recordings and spectrogram files, one above the other for comparison."""

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from denoisecli.audio.files import find_audio, probe, read_blocks
from denoisecli.audio.formats import FORMATS, MEDIA
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
    from matplotlib.ticker import Locator

MAX_FILES = 20
MAX_PIXELS = 2**15

_MATRICES = (".npz", ".npy")
_WINDOW = "hann"
_WINDOW_SECONDS = 0.032  # resolves both the harmonics and the syllables of speech
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

Columns = Float[np.ndarray, "frequency columns"]
"""Power or level of each frequency in each column of a picture."""

Envelope = Float[np.ndarray, "2 columns"]
"""Smallest and largest sample of each column."""


@dataclass(frozen=True, eq=False)
class Panel:
    """The content of one file, reduced to about as many columns as the picture has pixels.

    Attributes:
        title: Name of the file.
        levels: Largest level in each column in dBFS; the rows span 0 Hz to half the sample rate.
        envelope: Smallest and largest sample in each column; None without a waveform.
        column_seconds: Length of a column in seconds.
        start: Time of the first column in seconds.
        seconds: Length of the part shown in seconds.
        duration: Length of the whole file in seconds.
        sample_rate: Sample rate in Hz.
    """

    title: str
    levels: Columns
    envelope: Envelope | None
    column_seconds: float
    start: float
    seconds: float
    duration: float
    sample_rate: int


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
    for file, title in zip(files, _titles(files), strict=True):
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
            yield from find_audio(source, (*FORMATS, *MEDIA))
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


def _titles(files: Sequence[Path]) -> list[str]:
    """Return file names with as many of their folders as it takes to distinguish them."""
    for depth in range(1, 1 + max(len(file.parts) for file in files)):
        titles = [str(Path(*file.parts[-depth:])) for file in files]
        if len(set(titles)) == len(set(files)):
            break
    return titles


def load_panel(
    source: Path,
    title: str,
    columns: int,
    *,
    start: float = 0.0,
    duration: float | None = None,
    waveform: bool = False,
    on_progress: Callable[[float], object] = lambda share: None,
) -> Panel:
    """Read a recording or a spectrogram file and reduce it to columns.

    Args:
        source: Recording, or spectrogram file (``.npz``).
        title: Title of the panel.
        columns: Approximate number of columns.
        start: Start of the part to read in seconds.
        duration: Length of the part to read in seconds; None reads everything after ``start``.
        waveform: Compute the envelope too.
        on_progress: Function called with the share of the file that was read, 0..1.

    Raises:
        UsageError, AudioError: As :func:`plot_files`.
    """
    load = _load_spectrogram if source.suffix.lower() in _MATRICES else _load_recording
    panel = load(source, title, columns, start, duration, waveform, on_progress)
    on_progress(1.0)
    return panel


def _load_recording(
    source: Path,
    title: str,
    columns: int,
    start: float,
    duration: float | None,
    waveform: bool,
    on_progress: Callable[[float], object],
) -> Panel:
    info = probe(source)
    first, stop = _sample_range(source, start, duration, info.frames, info.sample_rate)
    length = min(stop, info.frames) - first
    n_fft = max(16, 2 ** round(math.log2(_WINDOW_SECONDS * info.sample_rate)))
    # A short sound has overlapping frames, down to one a sample; a long one has pooled frames.
    hop_length = min(n_fft // 4, max(1, length // columns))
    frames_per_column = -(-length // (columns * hop_length))
    step = hop_length * frames_per_column
    power, extremes = _StreamedPower(n_fft, hop_length, frames_per_column), _Pooling(step)

    # Frames are centred on their samples: they reach half a window beyond the part shown.
    before, after = n_fft // 2, n_fft // 2 - 1
    power.add(np.zeros(max(before - first, 0), np.float32))
    position = 0
    for block in read_blocks(source):
        sound = block.mean(axis=0)
        power.add(sound[max(first - before - position, 0) : max(stop + after - position, 0)])
        part = sound[max(first - position, 0) : max(stop - position, 0)]
        extremes.add(np.stack([-part, part]))
        position += sound.size
        on_progress(min(position / min(stop, info.frames), 1.0))
        if position >= stop + after:
            break
    if position <= first:
        raise _past_the_end(source, start, position / info.sample_rate)
    stop = min(stop, position)
    power.add(np.zeros(max(stop + after - position, 0), np.float32))
    lows, highs = extremes.result()
    return Panel(
        title=title,
        levels=decibels(np.sqrt(power.result()), n_fft=n_fft, window=_WINDOW),
        envelope=np.stack([-lows, highs]) if waveform else None,
        column_seconds=step / info.sample_rate,
        start=first / info.sample_rate,
        seconds=(stop - first) / info.sample_rate,
        duration=info.duration,
        sample_rate=info.sample_rate,
    )


def _load_spectrogram(
    source: Path,
    title: str,
    columns: int,
    start: float,
    duration: float | None,
    waveform: bool,
    on_progress: Callable[[float], object],
) -> Panel:
    spec = Spectrogram.load(source)
    if waveform and (spec.phase is None or spec.scale == "mel"):
        raise UsageError(
            f"{source} has no exact waveform to draw: its phase was not kept, or its scale is mel"
        )
    first, stop = _sample_range(source, start, duration, spec.length, spec.sample_rate)
    first_frame, stop_frame = first // spec.hop_length, -(-stop // spec.hop_length)
    power = _power(spec)[:, :-1]  # the middle of the last frame lies beyond the end
    power = power[:, first_frame:stop_frame]
    frames_per_column = -(-power.shape[1] // columns)
    step = frames_per_column * spec.hop_length
    first, stop = first_frame * spec.hop_length, min(stop, spec.length)
    envelope = None
    if waveform:
        sound = invert(spec)[first:stop]
        lows, highs = _pooled(np.stack([-sound, sound]), step)
        envelope = np.stack([-lows, highs])
    return Panel(
        title=title,
        levels=decibels(
            np.sqrt(_pooled(power, frames_per_column)), n_fft=spec.n_fft, window=spec.window
        ),
        envelope=envelope,
        column_seconds=step / spec.sample_rate,
        start=first / spec.sample_rate,
        seconds=(stop - first) / spec.sample_rate,
        duration=spec.length / spec.sample_rate,
        sample_rate=spec.sample_rate,
    )


def _sample_range(
    source: Path, start: float, duration: float | None, length: int, sample_rate: int
) -> tuple[int, int]:
    """Return the first sample of the part to draw, and the one after its last."""
    first = round(start * sample_rate)
    if first >= length:
        raise _past_the_end(source, start, length / sample_rate)
    if duration is None:
        return first, sys.maxsize // 2  # the length in a header may be an estimate
    return first, max(first + 1, round((start + duration) * sample_rate))


def _past_the_end(source: Path, start: float, seconds: float) -> UsageError:
    return UsageError(f"{source} is {_format_length(seconds)} long; it has nothing at {start:g} s")


def _power(spec: Spectrogram) -> SpectrogramMatrix:
    """Return the power at each frequency of the STFT, for "mel" that of the nearest band."""
    if spec.scale != "mel":
        return magnitude(spec) ** 2
    assert spec.n_mels is not None
    filters = mel_filters(spec.sample_rate, spec.n_fft, spec.n_mels)
    bands = spec.matrix / filters.sum(axis=1, keepdims=True)
    bins = np.fft.rfftfreq(spec.n_fft, 1 / spec.sample_rate)
    return bands[np.abs(bins[:, None] - spec.frequencies).argmin(axis=1)]


class _Pooling:
    """The maxima of consecutive groups of a stream, along the last axis.

    Args:
        size: Length of a group; the last one may be smaller.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._count = 0
        self._maxima: list[Float[np.ndarray, "rows _"]] = []

    def add(self, values: Float[np.ndarray, "rows _"]) -> None:
        """Append values, shape (rows, timesteps)."""
        length = values.shape[1]
        if length == 0:
            return
        offset = self._count % self._size
        self._count += length
        starts = np.arange(-offset, length, self._size).clip(min=0)
        maxima = np.maximum.reduceat(values, starts, axis=1)
        if offset:  # the first group began in an earlier block
            last = self._maxima[-1]
            np.maximum(last[:, -1], maxima[:, 0], out=last[:, -1])
            maxima = maxima[:, 1:]
        if maxima.shape[1]:
            self._maxima.append(maxima)

    def result(self) -> Columns:
        """Return the maxima, shape (rows, columns)."""
        return np.concatenate(self._maxima, axis=1)


def _pooled(values: Float[np.ndarray, "rows _"], size: int) -> Columns:
    pooling = _Pooling(size)
    pooling.add(values)
    return pooling.result()


class _StreamedPower:
    """The power spectrogram of a stream, with frames pooled into columns.

    Args:
        n_fft: Length of the window in samples.
        hop_length: Samples from one frame to the next.
        frames_per_column: Number of frames that share a column.
    """

    def __init__(self, n_fft: int, hop_length: int, frames_per_column: int) -> None:
        self._n_fft = n_fft
        self._hop_length = hop_length
        self._pooling = _Pooling(frames_per_column)
        self._waiting: AudioVector = np.zeros(0, np.float32)

    def add(self, sound: AudioVector) -> None:
        """Append samples; a frame begins at the first one."""
        self._waiting = np.append(self._waiting, sound)
        frames = (self._waiting.size - self._n_fft) // self._hop_length + 1
        if frames < 1:
            return
        used = frames * self._hop_length
        spectrum = stft(
            self._waiting[: used - self._hop_length + self._n_fft],
            n_fft=self._n_fft,
            hop_length=self._hop_length,
            window=_WINDOW,
            center=False,
        )
        self._pooling.add(np.square(np.abs(spectrum)))
        self._waiting = self._waiting[used:]

    def result(self) -> Columns:
        """Return the largest power in each column."""
        return self._pooling.result()


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
