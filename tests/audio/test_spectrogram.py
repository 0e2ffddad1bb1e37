import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from denoisecli.audio.choices import Scale
from denoisecli.audio.spectrogram import FLOOR_DB, Spectrogram, invert, invert_file, spectrogram
from denoisecli.audio.stft import stft
from denoisecli.errors import AudioError, UsageError

RATE = 16000


def noise_of(length: int, level: float = 0.1) -> np.ndarray:
    generator = np.random.default_rng(length)
    return (level * generator.standard_normal(length)).astype(np.float32)


def level_db(sound: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(sound, dtype=np.float64)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_fft": 0}, "n_fft must be an even number"),
        ({"n_fft": 511}, "n_fft must be an even number"),
        ({"n_fft": 10**12}, "n_fft must be an even number"),
        ({"hop_length": 0}, "hop_length must be at least 1"),
        ({"window": "triangular"}, "no window 'triangular'; use one of hann"),
        ({"window": "kaiser"}, "no window 'kaiser'"),
        ({"scale": Scale.MEL, "n_mels": 0}, "n_mels must be at least 1"),
        ({"scale": Scale.MEL, "n_mels": 900}, "too many"),
    ],
)
def test_invalid_parameters_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spectrogram(noise_of(1000), RATE, **options)


def test_no_samples_and_nan_are_refused() -> None:
    with pytest.raises(AudioError, match="too few"):
        spectrogram(noise_of(0), RATE)
    with pytest.raises(AudioError, match="not finite"):
        spectrogram(np.full(1000, np.nan, np.float32), RATE)


def test_a_full_scale_sine_is_at_0_db() -> None:
    sine = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    for window in ("hann", "sqrt_hann", "boxcar"):
        levels = spectrogram(sine, RATE, n_fft=512, window=window, scale=Scale.DB)
        peak_row = levels.matrix[:, 10:-10].mean(axis=1).argmax()
        assert levels.frequencies[peak_row] == 1000
        np.testing.assert_allclose(levels.matrix[peak_row, 10:-10], 0, atol=0.01)


def test_scales_follow_from_the_stft() -> None:
    sound = noise_of(4096)
    made = {
        scale: spectrogram(sound, RATE, n_fft=512, hop_length=128, scale=scale, n_mels=40)
        for scale in Scale
    }
    theirs = np.abs(librosa.stft(sound, n_fft=512, hop_length=128))
    np.testing.assert_allclose(made["magnitude"].matrix, theirs, atol=1e-4)
    np.testing.assert_allclose(made["power"].matrix, theirs**2, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(made["db"].matrix, 20 * np.log10(theirs / 128), atol=0.1)
    mel = librosa.feature.melspectrogram(
        y=sound, sr=RATE, n_fft=512, hop_length=128, n_mels=40, pad_mode="constant"
    )
    np.testing.assert_allclose(made["mel"].matrix, mel, rtol=1e-3, atol=1e-5)
    for result in made.values():
        assert result.matrix.dtype == np.float32
        assert result.matrix.shape == (result.frequencies.size, result.times.size)
    np.testing.assert_allclose(made["db"].frequencies[[1, -1]], [31.25, 8000])
    np.testing.assert_allclose(made["db"].times[[1, -1]], [0.008, 0.256])
    assert (np.diff(made["mel"].frequencies) > 0).all()


@pytest.mark.parametrize("scale", [Scale.MAGNITUDE, Scale.POWER, Scale.DB])
@given(length=st.integers(1, 3000), hop_length=st.integers(64, 256), level=st.floats(1e-3, 1))
@settings(deadline=None, max_examples=40)
def test_with_its_phase_a_spectrogram_inverts_exactly(
    scale: Scale, length: int, hop_length: int, level: float
) -> None:
    sound = noise_of(length, level)
    sound[length // 2 :] = 0  # digital silence lies below the floor of the dB scale
    for window in ("hann", "sqrt_hann"):
        made = spectrogram(
            sound, RATE, n_fft=512, hop_length=hop_length, window=window, scale=scale
        )
        np.testing.assert_allclose(invert(made), sound, atol=1e-5 * max(1, 4 * level))


def test_digital_silence_inverts_to_digital_silence() -> None:
    made = spectrogram(np.zeros(2000, np.float32), RATE, scale=Scale.DB)
    assert (made.matrix == np.float32(FLOOR_DB)).all()
    assert not invert(made).any()
    assert not invert(replace(made, phase=None)).any()


@pytest.mark.parametrize("scale", [Scale.MAGNITUDE, Scale.DB, Scale.MEL])
def test_without_phase_the_magnitudes_come_back(
    scale: Scale, speech: Callable[..., np.ndarray]
) -> None:
    sound = speech(0.5, RATE)[:-100]
    made = spectrogram(sound, RATE, n_fft=512, hop_length=128, scale=scale, phase=False)
    assert made.phase is None
    again = invert(made)
    assert again.shape == sound.shape
    np.testing.assert_array_equal(again, invert(made))
    wanted, got = (np.abs(stft(x, n_fft=512, hop_length=128)) for x in (sound, again))
    assert level_db(got - wanted) < level_db(wanted) - (10 if scale == Scale.MEL else 20)


@pytest.mark.parametrize("scale", [Scale.MAGNITUDE, Scale.MEL])
def test_sound_that_is_shorter_than_a_window_inverts_without_a_warning(scale: Scale) -> None:
    made = spectrogram(np.ones(300, np.float32), RATE, scale=scale, phase=False)
    assert invert(made).shape == (300,)


def test_phase_makes_the_inverse_of_mel_better(speech: Callable[..., np.ndarray]) -> None:
    sound = speech(0.5, RATE)
    made = spectrogram(sound, RATE, n_fft=512, hop_length=128, scale=Scale.MEL)
    assert level_db(invert(made) - sound) < level_db(sound) - 8


@pytest.mark.parametrize("options", [{}, {"scale": Scale.MEL, "phase": False}, {"scale": Scale.DB}])
def test_files_hold_everything(options: dict[str, object], tmp_path: Path) -> None:
    made = spectrogram(noise_of(3001), RATE, n_fft=256, hop_length=64, n_mels=20, **options)
    made.save(tmp_path / "made.npz")
    loaded = Spectrogram.load(tmp_path / "made.npz")
    assert vars(loaded).keys() == vars(made).keys()
    for key, value in vars(made).items():
        np.testing.assert_array_equal(getattr(loaded, key), value)
        assert type(getattr(loaded, key)) is type(value)

    made.save(tmp_path / "made.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "made.npy"), made.matrix)
    with pytest.raises(UsageError, match="overwrite"):
        made.save(tmp_path / "made.npy")
    made.save(tmp_path / "made.npy", overwrite=True)
    made.save(tmp_path / "MADE.NPY")
    np.testing.assert_array_equal(np.load(tmp_path / "MADE.NPY"), made.matrix)
    with pytest.raises(UsageError, match=r"made\.txt: a spectrogram is written to a \.npz file"):
        made.save(tmp_path / "made.txt")


def test_a_file_is_inverted_to_a_recording(tmp_path: Path) -> None:
    sound = noise_of(5001)
    spectrogram(sound, 22050, scale=Scale.DB).save(tmp_path / "s.npz")
    assert invert_file(tmp_path / "s.npz", tmp_path / "back.wav") == 1
    back, rate = soundfile.read(tmp_path / "back.wav")
    assert rate == 22050
    np.testing.assert_allclose(back, sound, atol=1e-4)
    with pytest.raises(UsageError, match="overwrite"):
        invert_file(tmp_path / "s.npz", tmp_path / "back.wav")


def test_a_sound_past_full_scale_is_scaled_down(tmp_path: Path) -> None:
    loud = noise_of(2000, level=1.0)
    spectrogram(loud, RATE).save(tmp_path / "loud.npz")
    gain = invert_file(tmp_path / "loud.npz", tmp_path / "loud.wav")
    assert gain == pytest.approx(1 / np.abs(loud).max(), rel=1e-4)
    written, _ = soundfile.read(tmp_path / "loud.wav")
    np.testing.assert_allclose(written, gain * loud, atol=1e-4)


class TestForeignAndDamagedFiles:
    @pytest.fixture
    def good(self, tmp_path: Path) -> Path:
        spectrogram(noise_of(500), RATE, n_fft=64, hop_length=32).save(tmp_path / "good.npz")
        return tmp_path / "good.npz"

    def refused(self, path: Path, message: str) -> None:
        with pytest.raises(AudioError, match=message) as raised:
            Spectrogram.load(path)
        assert path.name in str(raised.value)

    def altered(self, good: Path, **changes: object) -> Path:
        with np.load(good) as archive:
            values = {**archive, **changes}
        path = good.with_name("altered.npz")
        np.savez(path, **{key: value for key, value in values.items() if value is not None})
        return path

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"nothing\.npz does not exist"):
            Spectrogram.load(tmp_path / "nothing.npz")

    def test_text_bare_matrix_and_other_archives(self, tmp_path: Path) -> None:
        (tmp_path / "text.npz").write_text("hello")
        self.refused(tmp_path / "text.npz", "not a spectrogram file")
        np.save(tmp_path / "bare.npy", np.zeros((3, 3)))
        message = "bare matrix: without its parameters and phase .* neither inverted nor drawn"
        self.refused(tmp_path / "bare.npy", message)
        np.savez(tmp_path / "other.npz", weights=np.zeros(3))
        self.refused(tmp_path / "other.npz", "not written by")
        with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
            archive.writestr("readme.txt", "hello")
        self.refused(tmp_path / "zip.npz", "not written by")

    def test_pickles_are_never_loaded(self, good: Path) -> None:
        self.refused(self.altered(good, matrix=np.array([{}, 1], dtype=object)), "corrupt")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"matrix": None}, "corrupt"),
            ({"matrix": np.zeros((33, 4), np.float32), "phase": None}, "matrix .* has the shape"),
            ({"matrix": np.full((33, 17), np.inf, np.float32)}, "not finite"),
            ({"matrix": np.full((33, 17), "a")}, "corrupt"),
            ({"phase": np.zeros((9, 17), np.float32)}, "phase .* has the shape"),
            ({"n_fft": np.arange(3)}, "corrupt"),
            ({"n_fft": None}, "corrupt"),
            ({"n_fft": 64.0}, "whole number"),
            ({"n_fft": 63}, "even number"),
            ({"sample_rate": 0}, "sample rate"),
            ({"sample_rate": "fast"}, "corrupt"),
            ({"length": 10**12}, "has the shape"),
            ({"scale": "loud"}, "'loud' is not a valid Scale"),
            ({"scale": "mel"}, "n_mels"),
            ({"colour": "blue"}, "corrupt"),
        ],
    )
    def test_altered_fields(self, good: Path, changes: dict[str, object], message: str) -> None:
        self.refused(self.altered(good, **changes), message)

    def test_cut_off_and_flipped_bytes(self, good: Path) -> None:
        data = good.read_bytes()
        path = good.with_name("damaged.npz")
        for cut in (0, 1, 100, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:cut])
            self.refused(path, "not a spectrogram file|corrupt")
        for position in np.random.default_rng(0).integers(len(data), size=100):
            damaged = bytearray(data)
            damaged[position] ^= 0xFF
            path.write_bytes(damaged)
            try:
                loaded = Spectrogram.load(path)
            except AudioError as error:
                assert "damaged.npz" in str(error)
            else:  # a byte that means nothing, such as a time stamp
                np.testing.assert_array_equal(loaded.matrix, Spectrogram.load(good).matrix)
