import re
from collections.abc import Callable
from contextlib import nullcontext
from html import unescape
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from denoisecli.audio import plot
from denoisecli.audio.plot import Panel, draw, plot_files
from denoisecli.errors import AudioError, UsageError

RATE = 16000


def sine(frequency: float, seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


@pytest.fixture
def recording(audio_file: Callable[..., Path]) -> Path:
    return audio_file("sound.wav", sine(1000, 0.4))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the figures that were drawn, which are not saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: figures.append(figure))
    monkeypatch.setattr(plot, "replacing", lambda path, overwrite: nullcontext(path))
    return figures


def panel_of(
    levels: float, rate: int = RATE, seconds: float = 1.0, start: float = 0.0, whole: float = 0.0
) -> Panel:
    matrix = np.full((9, 10), levels, np.float32)
    return Panel(
        title="name",
        levels=matrix,
        envelope=None,
        column_seconds=seconds / 10,
        start=start,
        seconds=seconds,
        duration=whole or seconds,
        sample_rate=rate,
    )


def figure_of(*panels: Panel, width: float = 5.0, **options: float | None) -> Figure:
    options = {"dynamic_range": 60.0, "max_frequency": None, **options}
    return draw(panels, size=(width, 5.0), dpi=50, **options)


def tick_labels(axes: Axes) -> list[str]:
    """Return the labels of the time axis that lie within its limits."""
    axes.figure.draw_without_rendering()
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    return [label.get_text() for tick, label in ticks if low <= tick <= high]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_formats(suffix: str, recording: Path, tmp_path: Path) -> None:
    output = tmp_path / f"figure{suffix}"
    plot_files([recording], output, width=3.0, dpi=50)
    magic = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix.lower()]
    assert output.read_bytes().startswith(magic)
    assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, "sound.wav"]


def test_picture_has_the_size_and_the_colours_of_what_it_shows(
    audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    sound = np.concatenate([sine(1000, 1.0), np.zeros(RATE, np.float32)])
    output = tmp_path / "figure.png"
    plot_files([audio_file("a.wav", sound)], output, width=5.0, dpi=50)
    pixels = imread(output)[:, :, :3]
    assert pixels.shape == (150, 250, 3)
    picture = pixels[20:120].mean(axis=2)
    assert picture[:, 30:100].max() > 0.3  # the tone
    assert picture[:, 125:200].max() < 0.1  # silence


def test_channels_of_opposite_polarity_are_drawn_as_one_of_them(
    audio_file: Callable[..., Path], drawn: list[Figure]
) -> None:
    sound = sine(1000, 0.5)
    sources = [audio_file("a.wav", sound), audio_file("b.wav", np.stack([sound, -sound]))]
    plot_files(sources, Path("figure.png"), width=4.0, dpi=100)
    one, inverted = (np.asarray(axes.images[0].get_array()) for axes in drawn[0].axes[:2])
    np.testing.assert_allclose(inverted, one, atol=0.1)


@pytest.mark.parametrize("waveform", [False, True])
def test_each_file_has_a_panel_of_its_sound(
    waveform: bool, recording: Path, audio_file: Callable[..., Path], drawn: list[Figure]
) -> None:
    sources = [recording, audio_file("b.wav", sine(2000, 0.8))]
    plot_files(sources, Path("figure.png"), waveform=waveform, width=4.0, dpi=100)
    *rows, _bar = drawn[0].axes
    assert [len(axes.images) for axes in rows] == ([0, 1, 0, 1] if waveform else [1, 1])
    titles = [axes.get_title("left") for axes in rows]
    assert [title for title in titles if title] == ["sound.wav", "b.wav"]
    spectrograms = [axes.images[0] for axes in rows if axes.images]
    for image, seconds, frequency in zip(spectrograms, (0.4, 0.8), (1.0, 2.0), strict=True):
        levels = np.asarray(image.get_array())
        left, right, bottom, top = image.get_extent()
        assert left == 0
        assert right == pytest.approx(seconds, abs=0.01)
        assert 300 <= levels.shape[1] <= 800
        heights = np.linspace(bottom, top, 2 * levels.shape[0] + 1)[1::2]
        assert heights[levels.mean(axis=1).argmax()] == pytest.approx(frequency, abs=0.02)
    if waveform:
        assert [axes.get_ylabel() for axes in rows[::2]] == ["Amplitude"] * 2
        low, high = rows[0].collections[0].get_datalim(rows[0].transData).intervaly
        assert (low, high) == pytest.approx((-0.5, 0.5), abs=0.01)
    heights_of_one, heights_of_two = 0.7 + 2.3 + 0.9 * waveform, drawn[0].get_figheight()
    assert heights_of_two == pytest.approx(2 * heights_of_one - 0.7)


def test_the_part_is_shown_on_axis_and_title() -> None:
    axes = figure_of(panel_of(-30.0, start=30.0, seconds=2.0, whole=100.0)).axes[0]
    assert axes.get_xlim() == (30, 32)
    assert axes.images[0].get_extent()[:2] == [30, 32]
    assert axes.get_title("right") == "16 kHz, 2.00 s of 1:40"


def test_panels_share_axes_and_colours() -> None:
    figure = figure_of(panel_of(-33.0), panel_of(-71.0, rate=8000, seconds=2.0))
    first, second, bar = figure.axes
    for axes in (first, second):
        assert axes.get_xlim() == (0, 2)
        assert axes.get_ylim() == (0, 8)
        assert axes.images[0].get_clim() == (-90, -30)
    assert first.images[0].get_extent() == [0, 1, -0.5, 8.5]
    assert second.images[0].get_extent() == [0, 2, -0.25, 4.25]
    assert second.get_xlabel() == "Time (s)"
    assert first.get_ylabel() == "Frequency (kHz)"
    assert bar.get_ylabel() == "Level (dBFS)"
    assert first.get_title("right") == "16 kHz, 1.00 s"
    assert figure_of(panel_of(-33.0, seconds=0.25)).axes[0].get_title("right") == "16 kHz, 250 ms"


def test_max_frequency_cuts_the_axis_and_the_colour_scale() -> None:
    panel = panel_of(-50.0)
    panel.levels[-1] = -5.0  # loud, but out of sight
    axes = figure_of(panel, max_frequency=4000.0).axes[0]
    assert axes.get_ylim() == (0, 4)
    assert axes.images[0].get_clim() == (-110, -50)
    assert figure_of(panel, max_frequency=1e6).axes[0].get_ylim() == (0, 8)


@pytest.mark.parametrize(
    ("start", "seconds", "label", "ticks"),
    [
        (0, 2.0, "Time (s)", "0.00 0.25 0.50 0.75 1.00"),
        (50, 0.02, "Time (s)", "50.0000 50.0025 50.0050 50.0075"),
        (0, 90, "Time (m:ss)", "0:00 0:10 0:20 0:30 0:40 0:50 1:00 1:10 1:20 1:30"),
        (0, 2400, "Time (m:ss)", "0:00 5:00 10:00 15:00 20:00 25:00 30:00 35:00 40:00"),
        (90, 1.0, "Time (m:ss)", "1:30 1:30.2 1:30.4 1:30.6 1:30.8 1:31"),
        (3000, 900, "Time (h:mm:ss)", "0:50:00 0:55:00 1:00:00 1:05:00"),
        (0, 7200, "Time (h:mm:ss)", "0:00:00 0:15:00 0:30:00 0:45:00 1:00:00 1:15:00 1:30:00"),
        (0, 200_000, "Time (h:mm:ss)", "0:00:00 12:00:00 24:00:00 36:00:00 48:00:00"),
    ],
)
def test_time_axis(start: float, seconds: float, label: str, ticks: str) -> None:
    panel = panel_of(-30.0, start=float(start), seconds=float(seconds), whole=1e6)
    axes = figure_of(panel, width=10.0).axes[0]
    assert axes.get_xlabel() == label
    assert " ".join(tick_labels(axes)).startswith(ticks)


def test_files_of_one_name_are_distinguished_by_their_folders(
    audio_file: Callable[..., Path], drawn: list[Figure]
) -> None:
    names = ["x/noisy/a.wav", "x/clean/a.wav", "y/clean/a.wav"]
    sources = [audio_file(name, sine(500, 0.1)) for name in names]
    plot_files(sources, Path("figure.png"))
    plot_files(sources[:2], Path("figure.png"))
    titles = [[axes.get_title("left") for axes in figure.axes[:-1]] for figure in drawn]
    assert titles == [names, ["noisy/a.wav", "clean/a.wav"]]


def test_titles_replace_the_names_of_the_files(drawn: list[Figure], recording: Path) -> None:
    plot_files([recording, recording], Path("figure.png"), titles=["before", "after"])
    assert [axes.get_title("left") for axes in drawn[0].axes[:-1]] == ["before", "after"]


def test_a_folder_stands_for_the_recordings_in_it(
    audio_file: Callable[..., Path], drawn: list[Figure], recording: Path, tmp_path: Path
) -> None:
    for name in ("folder/b.wav", "folder/a.flac", "folder/deeper/c.wav"):
        audio_file(name, sine(500, 0.1))
    (tmp_path / "folder/notes.txt").write_text("not a recording")
    plot_files([recording, tmp_path / "folder"], Path("figure.png"))
    titles = [axes.get_title("left") for axes in drawn[0].axes[:-1]]
    assert titles == ["sound.wav", "a.flac", "b.wav", "c.wav"]
    for number in range(19):
        audio_file(f"folder/{number}.wav", sine(500, 0.01))
    with pytest.raises(UsageError, match="shows 1 to 20 files, not 22; name those to draw"):
        plot_files([tmp_path / "folder"], Path("figure.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty has no audio files"):
        plot_files([tmp_path / "empty"], Path("figure.png"))


def test_progress_counts_files_and_their_parts(
    audio_file: Callable[..., Path], drawn: list[Figure]
) -> None:
    sources = [audio_file(name, sine(500, 10.0)) for name in ("a.wav", "b.wav")]
    shares: list[float] = []

    def on_progress(done: float, total: float) -> None:
        assert total == 2
        shares.append(done)

    plot_files(sources, Path("figure.png"), on_progress=on_progress)
    assert shares == sorted(shares)
    assert len({share for share in shares if share % 1}) >= 4
    assert {1, 2} <= set(shares)


@pytest.mark.parametrize(
    "name", ["$x$ $.wav", "a_{b^c}\\frac.wav", "日本語.wav", "long " * 40 + ".wav", "<&>.wav"]
)
def test_odd_file_names(
    name: str,
    audio_file: Callable[..., Path],
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
) -> None:
    plot_files([audio_file(name, sine(500, 0.1))], tmp_path / "figure.svg", dpi=50)
    svg = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    shown = re.findall("<!-- (.*) -->", svg)
    title = name if len(name) < 100 else f"{name[:45]} … {name[-45:]}"
    assert title in [unescape(text) for text in shown]
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_names_are_written_in_any_font_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "_MORE_SCRIPTS", ("No Such Font", "DejaVu Serif"))
    assert plot._font_families() == [*matplotlib.rcParams["font.family"], "DejaVu Serif"]


def test_silence_can_be_drawn(audio_file: Callable[..., Path], drawn: list[Figure]) -> None:
    silent = audio_file("silent.wav", np.zeros(2000))
    plot_files([silent], Path("figure.png"), waveform=True)
    waves, levels, _bar = drawn[0].axes
    assert levels.images[0].get_clim() == (-80, 0)
    assert waves.get_ylim() == (-1.05, 1.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -1.0}, "start must be 0 s or later"),
        ({"start": float("nan")}, "start must be 0 s or later"),
        ({"duration": 0.0}, "duration must be more than 0"),
        ({"dynamic_range": 0.0}, "dynamic range must be more than 0"),
        ({"dynamic_range": float("nan")}, "dynamic range must be more than 0"),
        ({"max_frequency": -1.0}, "maximum frequency must be more than 0"),
        ({"width": 0.0}, "width .* 0 pixels"),
        ({"width": 0.1}, "width .* 15 pixels"),
        ({"width": float("nan")}, "width .* nan pixels"),
        ({"dpi": 100000}, "width .* 1000000 pixels"),
        ({"dpi": -5}, "width .* -50 pixels"),
        ({"width": 60.0, "dpi": 20}, "height .* 60 pixels; it must be 100 to 32768"),
    ],
)
def test_options_out_of_range(
    options: dict[str, float], message: str, recording: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        plot_files([recording], tmp_path / "figure.png", **options)


def test_bad_sources_and_outputs(
    recording: Path, tmp_path: Path, audio_file: Callable[..., Path]
) -> None:
    output = tmp_path / "figure.png"
    with pytest.raises(
        UsageError, match=r"figure\.bmp: a picture is written to a \.png, \.svg or \.pdf"
    ):
        plot_files([recording], tmp_path / "figure.bmp")
    with pytest.raises(UsageError, match="1 to 20 files, not 0"):
        plot_files([], output)
    with pytest.raises(UsageError, match="1 to 20 files, not 21"):
        plot_files([recording] * 21, output)
    with pytest.raises(UsageError, match=r"missing\.wav"):
        plot_files([recording, tmp_path / "missing.wav"], output)
    np.save(tmp_path / "bare.npy", np.zeros((3, 3)))
    with pytest.raises(AudioError, match=r"bare\.npy is a bare matrix"):
        plot_files([tmp_path / "bare.npy"], output)
    for name in ("text.wav", "text.npz"):
        (tmp_path / name).write_text("this is no sound")
        with pytest.raises(AudioError, match=name):
            plot_files([tmp_path / name], output)
    broken = audio_file("nan.wav", np.full(100, np.nan), subtype="FLOAT")
    with pytest.raises(AudioError, match=r"nan\.wav"):
        plot_files([broken], output)
    assert not output.exists()

    output.write_bytes(b"mine")
    with pytest.raises(UsageError, match="overwrite"):
        plot_files([recording], output)
    assert output.read_bytes() == b"mine"
    plot_files([recording], output, overwrite=True)
    assert output.read_bytes() != b"mine"
