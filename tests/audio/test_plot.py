from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from denoisecli.audio import plot
from denoisecli.audio.plot import Panel, draw, load_panel, plot_files
from denoisecli.audio.spectrogram import spectrogram_file
from denoisecli.errors import AudioError, UsageError

RATE = 16000


def sine(frequency: float, seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


@pytest.fixture
def recording(audio_file: Callable[..., Path]) -> Path:
    return audio_file("sound.wav", sine(1000, 0.4))


def pixels(path: Path) -> np.ndarray:
    return imread(path)[:, :, :3]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_formats(suffix: str, recording: Path, tmp_path: Path) -> None:
    output = tmp_path / f"figure{suffix}"
    plot_files([recording], output)
    magic = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix.lower()]
    assert output.read_bytes().startswith(magic)
    assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, "sound.wav"]


@pytest.mark.parametrize("waveform", [False, True])
def test_size_is_as_asked(waveform: bool, recording: Path, tmp_path: Path) -> None:
    output = tmp_path / "figure.png"
    plot_files([recording, recording], output, waveform=waveform, width=4.0, height=5.0, dpi=50)
    assert pixels(output).shape == (250, 200, 3)
    plot_files([recording], output, waveform=waveform, dpi=60, overwrite=True)
    one = pixels(output)
    plot_files([recording] * 3, output, waveform=waveform, dpi=60, overwrite=True)
    assert pixels(output).shape[0] > 2 * one.shape[0]
    assert pixels(output).shape[1] == one.shape[1] == 600


def test_levels_are_dbfs_on_time_and_frequency(audio_file: Callable[..., Path]) -> None:
    sound = np.concatenate([sine(1000, 1.0), np.zeros(RATE, np.float32)])
    panel = load_panel(audio_file("a.wav", sound), "a", 500, False)
    rows, columns = panel.levels.shape
    assert columns * panel.column_seconds == pytest.approx(2, abs=0.01)
    loud, quiet = panel.levels[:, columns // 4], panel.levels[:, 3 * columns // 4]
    assert loud.argmax() / (rows - 1) * RATE / 2 == pytest.approx(1000)
    assert loud.max() == pytest.approx(20 * np.log10(0.5), abs=0.1)
    assert quiet.max() < -150
    assert panel.duration == 2
    assert panel.envelope is None


@pytest.mark.parametrize("seconds", [1 / RATE, 0.01, 0.3, 3.0, 40.0])
@pytest.mark.parametrize("columns", [50, 1500])
def test_long_and_short_files_fill_about_as_many_columns(
    seconds: float, columns: int, audio_file: Callable[..., Path]
) -> None:
    sound = sine(500, seconds, RATE) + np.float32(0.1)
    panel = load_panel(audio_file("a.wav", sound), "a", columns, True)
    count = panel.levels.shape[1]
    assert count <= 2 * columns
    assert count >= min(columns / 2, sound.size / 128)
    assert (count - 1) * panel.column_seconds < panel.duration
    assert count * panel.column_seconds >= panel.duration * 0.999
    assert panel.envelope is not None
    assert panel.envelope.shape == (2, count)
    assert panel.envelope[0].min() == pytest.approx(sound.min(), abs=1e-4)
    assert panel.envelope[1].max() == pytest.approx(sound.max(), abs=1e-4)


def test_blocks_join_without_a_seam(audio_file: Callable[..., Path]) -> None:
    # Longer than a block of reading; a steady tone must look the same in every column.
    panel = load_panel(audio_file("a.wav", sine(1000, 40.0)), "a", 300, True)
    inner = panel.levels[:, 1:-1]
    assert panel.levels[:, 1:-1].shape[1] > 250
    assert np.ptp(inner.max(axis=0)) < 0.01
    assert (inner.argmax(axis=0) == inner.argmax(axis=0)[0]).all()
    far = inner[inner.shape[0] // 2 :]
    assert far.max() < -90


@pytest.mark.parametrize("scale", ["magnitude", "power", "db", "mel"])
def test_spectrogram_files_look_like_their_recording(
    scale: str, audio_file: Callable[..., Path], tmp_path: Path, rng: np.random.Generator
) -> None:
    sound = (0.1 * rng.standard_normal(RATE)).astype(np.float32)
    source = audio_file("a.wav", sound)
    spectrogram_file(source, tmp_path / "a.npz", scale=scale, n_fft=512, hop_length=128)
    wanted = load_panel(source, "a", 40, False)
    panel = load_panel(tmp_path / "a.npz", "a", 40, False)
    assert panel.sample_rate == wanted.sample_rate
    assert panel.duration == wanted.duration
    assert panel.levels.shape[0] == wanted.levels.shape[0]
    means = [10 ** (p.levels / 10) for p in (panel, wanted)]
    ratio = 10 * np.log10(means[0].mean() / means[1].mean())
    assert abs(ratio) < (0.5 if scale == "mel" else 0.1)


def test_spectrogram_files_have_waveforms_too(recording: Path, tmp_path: Path) -> None:
    spectrogram_file(recording, tmp_path / "with.npz", scale="db")
    panel = load_panel(tmp_path / "with.npz", "a", 100, True)
    assert panel.envelope is not None
    assert np.abs(panel.envelope).max() == pytest.approx(0.5, abs=1e-3)
    spectrogram_file(recording, tmp_path / "without.npz", phase=False)
    with pytest.raises(UsageError, match=r"without\.npz has no exact waveform"):
        plot_files([tmp_path / "without.npz"], tmp_path / "figure.png", waveform=True)


def panel_of(levels: float, rate: int = RATE, seconds: float = 1.0) -> Panel:
    matrix = np.full((9, 10), levels, np.float32)
    return Panel("name", matrix, None, seconds / 10, seconds, rate)


def test_panels_share_axes_and_colours() -> None:
    panels = [panel_of(-33.0), panel_of(-71.0, rate=8000, seconds=2.0)]
    figure = draw(panels, dynamic_range=60.0, max_frequency=None, size=(5.0, 5.0), dpi=50)
    first, second, bar = figure.axes
    for axes in (first, second):
        assert axes.get_xlim() == (0, 2)
        assert axes.get_ylim() == (0, 8)
        assert axes.images[0].get_clim() == (-90, -30)
    assert second.get_xlabel() == "Time (s)"
    assert first.get_ylabel() == "Frequency (kHz)"
    assert bar.get_ylabel() == "Level (dBFS)"


def test_max_frequency_cuts_the_axis_and_the_colour_scale() -> None:
    panel = panel_of(-50.0)
    panel.levels[-1] = -5.0  # loud, but out of sight
    figure = draw([panel], dynamic_range=60.0, max_frequency=4000.0, size=(5.0, 5.0), dpi=50)
    assert figure.axes[0].get_ylim() == (0, 4)
    assert figure.axes[0].images[0].get_clim() == (-110, -50)
    figure = draw([panel], dynamic_range=60.0, max_frequency=1e6, size=(5.0, 5.0), dpi=50)
    assert figure.axes[0].get_ylim() == (0, 8)


def titles(output: Path) -> str:
    return output.read_text(encoding="utf-8")


def test_files_of_one_name_are_told_apart_by_their_folders(
    audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["x/noisy/a.wav", "x/clean/a.wav", "y/clean/a.wav"]
    sources = [audio_file(name, sine(500, 0.1)) for name in names]
    plot_files(sources, tmp_path / "figure.svg")
    svg = titles(tmp_path / "figure.svg")
    assert all(f"<!-- {name} -->" in svg for name in names)
    plot_files(sources[:2], tmp_path / "figure.svg", overwrite=True)
    svg = titles(tmp_path / "figure.svg")
    assert "<!-- noisy/a.wav -->" in svg
    assert "<!-- clean/a.wav -->" in svg


@pytest.mark.parametrize(
    "name", ["$x$ $.wav", "a_{b^c}\\frac.wav", "日本語.wav", "long " * 40 + ".wav", "<&>.wav"]
)
def test_odd_file_names(
    name: str,
    audio_file: Callable[..., Path],
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
) -> None:
    plot_files([audio_file(name, sine(500, 0.1))], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_names_are_written_in_any_font_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "_MORE_SCRIPTS", ("No Such Font", "DejaVu Serif"))
    assert plot._font_families() == [*matplotlib.rcParams["font.family"], "DejaVu Serif"]


def test_silence_can_be_drawn(audio_file: Callable[..., Path], tmp_path: Path) -> None:
    silent = audio_file("silent.wav", np.zeros(2000))
    plot_files([silent], tmp_path / "figure.png", waveform=True)
    panel = load_panel(silent, "silent", 100, False)
    figure = draw([panel], dynamic_range=80.0, max_frequency=None, size=(5.0, 5.0), dpi=50)
    assert figure.axes[0].images[0].get_clim() == (-80, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dynamic_range": 0.0}, "dynamic range .* more than 0"),
        ({"dynamic_range": float("nan")}, "dynamic range .* more than 0"),
        ({"max_frequency": -1.0}, "maximum frequency .* more than 0"),
        ({"width": 0.0}, "width .* more than 0"),
        ({"width": 0.1}, "width .* 15 pixels"),
        ({"height": 0.0}, "height .* more than 0"),
        ({"dpi": 100000}, "width .* 1000000 pixels"),
        ({"dpi": -5}, "width .* -50 pixels"),
    ],
)
def test_options_out_of_range(
    options: dict[str, object], message: str, recording: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        plot_files([recording], tmp_path / "figure.png", **options)


def test_bad_sources_and_outputs(
    recording: Path, tmp_path: Path, audio_file: Callable[..., Path]
) -> None:
    output = tmp_path / "figure.png"
    with pytest.raises(UsageError, match=r"figure\.bmp: a figure goes to a \.png, \.svg or \.pdf"):
        plot_files([recording], tmp_path / "figure.bmp")
    with pytest.raises(UsageError, match="1 to 20 files, not 0"):
        plot_files([], output)
    with pytest.raises(UsageError, match="1 to 20 files, not 21"):
        plot_files([recording] * 21, output)
    with pytest.raises(UsageError, match=r"missing\.wav"):
        plot_files([recording, tmp_path / "missing.wav"], output)
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
