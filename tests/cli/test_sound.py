"""The commands spectrogram, plot and mix as a user calls them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import denoise, fails
from matplotlib.figure import Figure
from matplotlib.image import imread

from denoisecli.cli import displays


class TestSpectrogram:
    @pytest.mark.parametrize("channels", [1, 2])
    def test_inverting_a_stored_spectrogram_restores_the_sound(
        self,
        channels: int,
        audio_file: Callable[..., Path],
        speech: Callable[..., np.ndarray],
        noise: Callable[..., np.ndarray],
        tmp_path: Path,
    ) -> None:
        audio = np.stack([speech(1.0, 22050), noise(1.0, 22050)])[:channels]
        source = audio_file("in.wav", audio, 22050, "FLOAT")
        stored, back = tmp_path / "in.npz", tmp_path / "back.wav"
        result = denoise("spectrogram", source, "-o", stored, "--scale", "db")
        assert result.exit_code == 0, result.output
        assert "513 frequencies" in result.stderr
        assert "scale db" in result.stderr
        assert denoise("spectrogram", stored, "--invert", "-o", back).exit_code == 0
        sound, rate = soundfile.read(back)
        assert rate == 22050
        np.testing.assert_allclose(sound, audio.mean(axis=0), atol=1e-4)

    def test_of_a_lower_sample_rate_as_a_bare_matrix(
        self, audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], tmp_path: Path
    ) -> None:
        source = audio_file("in.wav", speech(0.5, 22050), 22050)
        stored = tmp_path / "in.npy"
        options = ("--sample-rate", 8000, "--n-fft", 256, "--hop-length", 64)
        assert denoise("spectrogram", source, "-o", stored, *options).exit_code == 0
        assert np.load(stored).shape == (129, 1 + 4000 // 64 + 1)
        result = denoise("spectrogram", stored, "--invert", "-o", tmp_path / "back.wav")
        fails(result, 1, "in.npy is a bare matrix", "phase", "neither inverted", ".npz")
        assert not (tmp_path / "back.wav").exists()

    @pytest.mark.parametrize(
        "option",
        [
            *(("--scale", "db"), ("--n-fft", "64"), ("--hop-length", "16"), ("--window", "hann")),
            *(("--n-mels", "80"), ("--sample-rate", "8000"), ("--no-phase",), ("--phase",)),
        ],
    )
    def test_refuses_options_that_have_no_effect(
        self, option: tuple[str, ...], tmp_path: Path
    ) -> None:
        result = denoise("spectrogram", "in.npz", "--invert", "-o", tmp_path / "x.wav", *option)
        fails(result, 2, f"{option[0]} does not apply to --invert")
        if option[0] == "--n-mels":
            result = denoise("spectrogram", "in.wav", "-o", tmp_path / "x.npz", *option)
            fails(result, 2, "--n-mels applies to --scale mel only")

    def test_refuses_bad_options_and_files(
        self, audio_file: Callable[..., Path], tmp_path: Path
    ) -> None:
        source, target = audio_file("in.wav", np.ones(1000) / 2), tmp_path / "s.npz"
        fails(denoise("spectrogram", source, "-o", target, "--scale", "decibel"), 2, "magnitude")
        fails(denoise("spectrogram", source, "-o", target, "--window", "kaiser"), 2, "sqrt_hann")
        fails(denoise("spectrogram", source, "-o", target, "--n-fft", 511), 2, "even number")
        for option in ("--n-fft", "--hop-length", "--n-mels", "--sample-rate"):
            absurd = denoise("spectrogram", source, "-o", target, "--scale", "mel", option, 10**23)
            fails(absurd, 2)
        fails(denoise("spectrogram", source, "-o", tmp_path / "s.png"), 2, "s.png", ".npz", ".npy")
        fails(denoise("spectrogram", tmp_path / "no.wav", "-o", target), 2, "no.wav")
        (tmp_path / "text.wav").write_text("this is no sound")
        fails(denoise("spectrogram", tmp_path / "text.wav", "-o", target), 1, "text.wav")
        broken = audio_file("nan.wav", np.full(100, np.nan), subtype="FLOAT")
        fails(denoise("spectrogram", broken, "-o", target), 1, "nan.wav")
        assert not target.exists()
        target.write_text("precious")
        fails(denoise("spectrogram", source, "-o", target), 2, "s.npz", "--overwrite")
        assert target.read_text() == "precious"

    def test_scaling_down_is_a_warning(
        self, audio_file: Callable[..., Path], rng: np.random.Generator, tmp_path: Path
    ) -> None:
        source = audio_file("in.wav", rng.standard_normal(4000), subtype="FLOAT")
        assert denoise("spectrogram", source, "-o", tmp_path / "s.npz").exit_code == 0
        result = denoise("spectrogram", tmp_path / "s.npz", "--invert", "-o", tmp_path / "out.wav")
        assert "to stay within full scale" in result.stderr


class TestPlot:
    def test_draws_files_and_folders(
        self, audio_file: Callable[..., Path], speech: Callable[..., np.ndarray], tmp_path: Path
    ) -> None:
        source = audio_file("in.wav", speech(1.0, 16000))
        folder = audio_file("folder/other.wav", speech(0.5, 8000)).parent
        figure = tmp_path / "figure.png"
        options = ("--waveform", "--width", 4, "--dpi", 50)
        result = denoise("plot", source, folder, "-o", figure, *options)
        assert result.exit_code == 0, result.output
        assert "figure.png" in result.stderr
        assert imread(figure).shape == (round(50 * 7.1), 200, 4)
        fails(denoise("plot", source, "-o", tmp_path / "figure.doc"), 2, ".doc", ".png")

    def test_part(
        self,
        audio_file: Callable[..., Path],
        speech: Callable[..., np.ndarray],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        shown: list[tuple[float, float]] = []
        save = Figure.savefig

        def watched(figure: Figure, *arguments: object, **options: object) -> None:
            shown.append(figure.axes[0].get_xlim())
            save(figure, *arguments, **options)

        monkeypatch.setattr(Figure, "savefig", watched)
        source = audio_file("in.wav", speech(2.0, 16000))
        options = ("-o", tmp_path / "figure.svg", "--start", 0.5)
        assert denoise("plot", source, *options, "--duration", 0.25).exit_code == 0
        assert denoise("plot", source, *options, "--overwrite").exit_code == 0
        assert shown == [(0.5, 0.75), (0.5, 2.0)]
        fails(denoise("plot", source, *options, "--overwrite", "--start", 2), 2, "in.wav", "2.00 s")
        fails(denoise("plot", source, *options, "--start", -1), 2, "--start")
        fails(denoise("plot", source, *options, "--overwrite", "--duration", 0), 2, "duration")

    def test_reports_progress(
        self,
        audio_file: Callable[..., Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        updates: list[tuple[float, float]] = []

        class Progress:
            def __init__(self, label: str) -> None:
                assert label == "drawing"

            def __enter__(self) -> Callable[[float, float], None]:
                return lambda done, total: updates.append((done, total))

            def __exit__(self, *_: object) -> None:
                pass

        monkeypatch.setattr(displays, "progress", Progress)
        source = audio_file("in.wav", np.zeros(200_000))
        assert denoise("plot", source, "-o", tmp_path / "figure.png").exit_code == 0
        assert len(updates) >= 3
        assert updates[-1] == (1, 1)


class TestMix:
    def test_snr(
        self,
        audio_file: Callable[..., Path],
        speech: Callable[..., np.ndarray],
        noise: Callable[..., np.ndarray],
        tmp_path: Path,
    ) -> None:
        clean = audio_file("clean.wav", speech(1.0, 16000))
        hiss = audio_file("noise.wav", noise(2.0, 16000))
        result = denoise("mix", clean, hiss, "--snr", "5", "-o", tmp_path / "mix.wav")
        assert result.exit_code == 0, result.output
        assert "SNR 5.0 dB" in result.stderr
        ratio = denoise("mix", clean, hiss, "--ratio", "0.36", "-o", tmp_path / "mix2.wav")
        assert "SNR 5.0 dB" in ratio.stderr

    def test_wants_exactly_one_amount(self, audio_file: Callable[..., Path]) -> None:
        clean = audio_file("clean.wav", np.ones(100, np.float32) / 2)
        target = clean.with_name("mix.wav")
        fails(denoise("mix", clean, clean, "-o", target), 2, "--ratio", "--snr")
        both = denoise("mix", clean, clean, "-o", target, "--ratio", "0.1", "--snr", "3")
        fails(both, 2, "--ratio", "--snr")
        fails(denoise("mix", clean, clean, "-o", target, "--ratio", "much"), 2, "--ratio")
        fails(denoise("mix", clean, clean, "-o", target, "--ratio", "1.2"), 2, "1.2")

    def test_silent_file_is_named(self, audio_file: Callable[..., Path]) -> None:
        clean = audio_file("clean.wav", np.ones(100, np.float32) / 2)
        silent = audio_file("silent.wav", np.zeros(100, np.float32))
        target = clean.with_name("mix.wav")
        fails(denoise("mix", clean, silent, "-o", target, "--ratio", "0.1"), 1, "silent.wav")
