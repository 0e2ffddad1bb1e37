import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denoisecli.audio.choices import Scale
from denoisecli.audio.panels import WINDOW, layout, load_panel
from denoisecli.audio.spectrogram import spectrogram
from denoisecli.errors import AudioError, UsageError

RATE = 16000


def sine(frequency: float, seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


def test_levels_are_dbfs_on_time_and_frequency(audio_file: Callable[..., Path]) -> None:
    sound = np.concatenate([sine(1000, 1.0), np.zeros(RATE, np.float32)])
    panel = load_panel(audio_file("a.wav", sound), "a", 500)
    rows, columns = panel.levels.shape
    assert columns * panel.column_seconds == pytest.approx(2, abs=0.01)
    loud, quiet = panel.levels[:, columns // 4], panel.levels[:, 3 * columns // 4]
    assert loud.argmax() / (rows - 1) * RATE / 2 == pytest.approx(1000)
    assert loud.max() == pytest.approx(20 * np.log10(0.5), abs=0.1)
    assert quiet.max() < -150
    assert panel.duration == panel.seconds == 2
    assert panel.envelope is None


@pytest.mark.parametrize("seconds", [1 / RATE, 0.01, 0.3, 3.0, 40.0])
@pytest.mark.parametrize("columns", [50, 1500])
def test_long_and_short_files_fill_about_as_many_columns(
    seconds: float, columns: int, audio_file: Callable[..., Path]
) -> None:
    sound = sine(500, seconds, RATE) + np.float32(0.1)
    panel = load_panel(audio_file("a.wav", sound), "a", columns, waveform=True)
    count = panel.levels.shape[1]
    assert count <= 2 * columns
    assert count >= min(columns / 2, sound.size / 128)
    assert (count - 1) * panel.column_seconds < panel.duration
    assert count * panel.column_seconds >= panel.duration * 0.999
    assert panel.envelope is not None
    assert panel.envelope.shape == (2, count)
    assert panel.envelope[0].min() == pytest.approx(sound.min(), abs=1e-4)
    assert panel.envelope[1].max() == pytest.approx(sound.max(), abs=1e-4)


@pytest.mark.parametrize("rate", [100, 4000, 8000, 44100, 192000])
@pytest.mark.parametrize("timesteps", [1, 300, 100_000, 50_000_000])
@pytest.mark.parametrize("columns", [50, 1200])
def test_a_layout_covers_the_sound_and_every_sample_weighs(
    rate: int, timesteps: int, columns: int
) -> None:
    n_fft, hop_length, per_column = layout(timesteps, rate, columns)
    assert n_fft == 16 or n_fft / rate == pytest.approx(0.032, rel=0.42)
    assert n_fft & (n_fft - 1) == 0
    assert 1 <= hop_length <= n_fft // 4
    step = hop_length * per_column
    assert columns * step >= timesteps
    assert (columns // 2) * step <= timesteps or step == 1
    assert WINDOW == "hann"  # overlaps by three quarters without a gap


def test_blocks_join_without_a_seam(audio_file: Callable[..., Path]) -> None:
    # Longer than a block of reading; a steady tone must look the same in every column.
    panel = load_panel(audio_file("a.wav", sine(1000, 40.0)), "a", 300)
    inner = panel.levels[:, 1:-1]
    assert inner.shape[1] > 250
    assert np.ptp(inner.max(axis=0)) < 0.01
    assert (inner.argmax(axis=0) == inner.argmax(axis=0)[0]).all()
    far = inner[inner.shape[0] // 2 :]
    assert far.max() < -90


def test_a_click_in_a_long_recording_stays_visible(audio_file: Callable[..., Path]) -> None:
    sound = np.zeros(60 * RATE, np.float32)
    sound[40 * RATE] = 0.9
    panel = load_panel(audio_file("a.wav", sound), "a", 50, waveform=True)
    column = int(40 / panel.column_seconds)
    assert panel.levels[:, column].min() > -70
    others = np.delete(panel.levels, [column - 1, column, column + 1], axis=1)
    assert others.max() < -150
    assert panel.envelope is not None
    assert panel.envelope[:, column] == pytest.approx([0, 0.9], abs=1e-3)


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    def peak_of(seconds: int) -> int:
        with soundfile.SoundFile(tmp_path / f"{seconds}.wav", "w", 8000, 1) as file:
            for _ in range(seconds // 10):
                file.write(block)
        tracemalloc.start()
        panel = load_panel(tmp_path / f"{seconds}.wav", "long", 500, waveform=True)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert panel.duration == seconds
        return peak

    block = sine(500, 10.0, 8000)
    peak_of(10)  # fills the caches
    assert peak_of(300) < 1.1 * peak_of(60)


class TestPart:
    @pytest.fixture
    def scale(self, audio_file: Callable[..., Path]) -> Path:
        """A tone a second, each 500 Hz above the one before."""
        return audio_file(
            "scale.wav", np.concatenate([sine(500 * (1 + second), 1.0) for second in range(6)])
        )

    @pytest.mark.parametrize("kind", ["recording", "spectrogram"])
    def test_shows_what_lies_there(self, kind: str, scale: Path, tmp_path: Path) -> None:
        if kind == "spectrogram":
            sound, _ = soundfile.read(scale, dtype="float32")
            scale = tmp_path / "scale.npz"
            spectrogram(sound, RATE, n_fft=512, hop_length=100).save(scale)
        panel = load_panel(scale, "a", 200, start=2.0, duration=2.0, waveform=True)
        assert (panel.start, panel.seconds, panel.duration) == (2, 2, 6)
        rows, columns = panel.levels.shape
        assert columns * panel.column_seconds == pytest.approx(2, abs=0.03)
        frequencies = panel.levels.argmax(axis=0) / (rows - 1) * RATE / 2
        assert frequencies[5 : columns // 2 - 5] == pytest.approx(1500)
        assert frequencies[columns // 2 + 5 : -5] == pytest.approx(2000)
        assert panel.envelope is not None
        assert panel.envelope.shape[1] == pytest.approx(columns, abs=1)

    def test_has_no_edges_of_its_own(self, audio_file: Callable[..., Path]) -> None:
        source = audio_file("a.wav", sine(1000, 3.0))
        panel = load_panel(source, "a", 100, start=1.0, duration=1.0)
        far = panel.levels[panel.levels.shape[0] // 2 :]
        assert far.max() < -90  # a cut would be a click of all frequencies

    def test_ends_with_the_file(self, scale: Path) -> None:
        panel = load_panel(scale, "a", 100, start=5.0, duration=60.0)
        assert (panel.start, panel.seconds) == (5, 1)
        assert load_panel(scale, "a", 100, start=5.5).seconds == 0.5

    def test_past_the_end(self, scale: Path) -> None:
        with pytest.raises(UsageError, match=r"scale\.wav is 6\.00 s long; it has nothing at 6 s"):
            load_panel(scale, "a", 100, start=6.0)

    def test_damage_elsewhere_does_not_matter(
        self, audio_file: Callable[..., Path], rng: np.random.Generator
    ) -> None:
        sound = (0.1 * rng.standard_normal(20 * RATE)).astype(np.float32)
        sound[-1] = np.nan
        source = audio_file("a.wav", sound, subtype="FLOAT")
        assert load_panel(source, "a", 100, start=1.0, duration=1.0).seconds == 1
        with pytest.raises(AudioError, match="NaN"):
            load_panel(source, "a", 100, start=19.5)


@pytest.mark.parametrize("scale", Scale)
def test_spectrogram_files_look_like_their_recording(
    scale: Scale, audio_file: Callable[..., Path], tmp_path: Path, rng: np.random.Generator
) -> None:
    sound = (0.1 * rng.standard_normal(RATE)).astype(np.float32)
    source = audio_file("a.wav", sound)
    made = spectrogram(sound, RATE, scale=scale, n_fft=512, hop_length=128)
    made.save(tmp_path / "a.npz")
    wanted = load_panel(source, "a", 125)
    panel = load_panel(tmp_path / "a.npz", "a", 125)
    assert panel.sample_rate == wanted.sample_rate
    assert panel.duration == wanted.duration
    assert panel.levels.shape[0] == wanted.levels.shape[0]
    means = [10 ** (p.levels / 10) for p in (panel, wanted)]
    ratio = 10 * np.log10(means[0].mean() / means[1].mean())
    assert abs(ratio) < (0.5 if scale == Scale.MEL else 0.1)


def test_spectrogram_files_have_waveforms_too(tmp_path: Path) -> None:
    sound = sine(1000, 0.4)
    spectrogram(sound, RATE, scale=Scale.DB).save(tmp_path / "with.npz")
    panel = load_panel(tmp_path / "with.npz", "a", 100, waveform=True)
    assert panel.envelope is not None
    assert np.abs(panel.envelope).max() == pytest.approx(0.5, abs=1e-3)
    spectrogram(sound, RATE, phase=False).save(tmp_path / "without.npz")
    with pytest.raises(UsageError, match=r"without\.npz has no exact waveform"):
        load_panel(tmp_path / "without.npz", "a", 100, waveform=True)
