from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
from helpers import constant_mask

from denoisecli.audio.loudness import Loudness, LoudnessMeter
from denoisecli.cleaning import normalization
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.file import CleanResult, FileOptions
from denoisecli.cleaning.tracks import Track
from denoisecli.errors import UsageError

RATE = 16000


def loudness_of(path: Path) -> Loudness:
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    meter = LoudnessMeter(rate, sound.shape[1])
    meter.add(np.ascontiguousarray(sound.T))
    return meter.finish()


@pytest.fixture
def halving(model_folder: Callable[..., Path]) -> Path:
    return model_folder(constant_mask(0.5))


@pytest.fixture
def noisy(
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
) -> Path:
    return audio_file("noisy.wav", 0.3 * speech(3.0, RATE) + 0.01 * noise(3.0, RATE))


def cleaned(
    model: Path, noisy: Path, tmp_path: Path, **options: Any
) -> tuple[CleanResult, Loudness]:
    target = tmp_path / "out.wav"
    result = Denoiser(model).clean_file(noisy, target, FileOptions(**options), overwrite=True)
    return result, loudness_of(target)


@pytest.mark.parametrize("target", [-30.0, -23.0])
def test_the_output_has_the_loudness(
    halving: Path, noisy: Path, tmp_path: Path, target: float
) -> None:
    result, found = cleaned(halving, noisy, tmp_path, loudness=target)
    assert found.integrated == pytest.approx(target, abs=0.1)
    assert result.loudness_lufs == pytest.approx(target, abs=0.1)
    assert result.true_peak_dbfs == pytest.approx(found.true_peak, abs=0.1)
    assert soundfile.info(tmp_path / "out.wav").frames == 3 * RATE


def test_peaks_are_limited_and_the_loudness_is_reached(
    halving: Path,
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    sound = 0.05 * speech(3.0, RATE)
    sound[::4000] = 0.4  # clicks, 18 dB above the rest
    result, found = cleaned(halving, audio_file("clicks.wav", sound), tmp_path, loudness=-20.0)
    assert found.integrated == pytest.approx(-20, abs=0.3)
    assert found.true_peak <= -1 + 0.1
    assert result.clipped_samples == 0


def test_a_loudness_beyond_the_peaks_is_a_warning(
    halving: Path, noisy: Path, tmp_path: Path
) -> None:
    result, found = cleaned(halving, noisy, tmp_path, loudness=-5.0, true_peak=-12.0)
    assert found.true_peak <= -11.9
    assert "its peaks allow only" in result.warnings[-1]


def test_kept_loudness_undoes_an_attenuation(
    halving: Path,
    audio_file: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    path = audio_file("speech.wav", 0.2 * speech(3.0, RATE), subtype="FLOAT")
    result, found = cleaned(halving, path, tmp_path, keep_loudness=True)
    assert found.integrated == pytest.approx(loudness_of(path).integrated, abs=0.3)
    assert result.gain == pytest.approx(2, abs=0.05)


def test_noise_and_result_have_the_same_gain(halving: Path, noisy: Path, tmp_path: Path) -> None:
    target, removed = tmp_path / "out.wav", tmp_path / "noise.wav"
    options = FileOptions(loudness=-30.0, subtype="FLOAT")
    result = Denoiser(halving).clean_file(noisy, target, options, noise_target=removed)
    total = soundfile.read(target)[0] + soundfile.read(removed)[0]
    np.testing.assert_allclose(total, result.gain * soundfile.read(noisy)[0], atol=1e-5)


@pytest.mark.parametrize("loudness", [-50.0, -30.0])
@pytest.mark.parametrize("peak", [0.00075, 0.00149])
def test_the_true_peak_of_quiet_sound_is_exact(
    halving: Path,
    audio_file: Callable[..., Path],
    tmp_path: Path,
    peak: float,
    loudness: float,
) -> None:
    """FFmpeg rounds it to 0.001."""
    sine = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE) * np.arange(RATE) / RATE
    path = audio_file("quiet.wav", 2 * peak * sine, subtype="FLOAT")
    result, _ = cleaned(halving, path, tmp_path, loudness=loudness)
    expected = 20 * np.log10(peak * result.gain)
    assert result.true_peak_dbfs == pytest.approx(expected, abs=0.1)


def test_the_true_peak_holds_for_quiet_sound(
    halving: Path, audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Its peak is read as 3.5 dB less than it is where it is rounded to 0.001."""
    sine = 0.00298 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    path = audio_file("quiet.wav", sine, subtype="FLOAT")
    _, found = cleaned(halving, path, tmp_path, loudness=-19.5, true_peak=-18.0)
    assert found.true_peak <= -18.0 + 0.1


@pytest.mark.parametrize("passes", [1, 5])
def test_a_true_peak_that_is_exceeded_is_a_warning(
    halving: Path,
    audio_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    passes: int,
) -> None:
    monkeypatch.setattr(normalization, "_MOST_PASSES", passes)
    sine = 0.2 * np.sin(np.pi / 2 * np.arange(RATE) + np.pi / 4)  # 3 dB more between the samples
    path = audio_file("quarter.wav", sine, subtype="FLOAT")
    result, _ = cleaned(halving, path, tmp_path, loudness=-10.0, true_peak=-12.0)
    assert (result.true_peak_dbfs > -12 + 0.02) == (passes == 1)
    message = f"its true peak is {result.true_peak_dbfs:.2f} dBTP instead of -12 dBTP"
    assert (message in result.warnings) == (passes == 1)
    assert any("its peaks allow only" in warning for warning in result.warnings) == (passes == 5)


@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_the_level_leaves_out_an_offset(
    halving: Path, noisy: Path, audio_file: Callable[..., Path], tmp_path: Path, offset: float
) -> None:
    sound, _ = soundfile.read(noisy)
    path = audio_file("offset.wav", sound + offset, subtype="FLOAT")
    result, _ = cleaned(halving, path, tmp_path, loudness=-30.0)
    out = soundfile.read(tmp_path / "out.wav")[0]
    assert result.rms_out_dbfs == pytest.approx(20 * np.log10(out.std()), abs=0.01)


def test_silence_is_left_as_it_is(
    halving: Path, audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = audio_file("silence.wav", np.zeros(RATE))
    result, _ = cleaned(halving, path, tmp_path, loudness=-16.0)
    assert result.gain == 1
    assert "too quiet to measure its loudness" in result.warnings[0]


def test_short_sound_stays_below_the_peak(
    halving: Path, audio_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Its loudness cannot be measured, but the true peak holds without it."""
    path = audio_file("short.wav", 3 * np.sin(np.arange(3000) / 5), RATE, "FLOAT")
    result, found = cleaned(halving, path, tmp_path, loudness=-16.0, subtype="PCM_16")
    assert result.clipped_samples == 0
    assert result.true_peak_dbfs == pytest.approx(-1, abs=0.01)
    assert found.true_peak == pytest.approx(-1, abs=0.3)
    assert "too short" in result.warnings[0]


@pytest.mark.parametrize(("option", "words"), [("loudness", " or lower --loudness"), (None, "")])
def test_the_advice_names_the_options_that_were_given(
    halving: Path, audio_file: Callable[..., Path], tmp_path: Path, option: str | None, words: str
) -> None:
    sound = 0.01 * np.sin(np.arange(3 * RATE) / 5)
    sound[::4000] = 0.9
    options: dict[str, Any] = {"keep_loudness": True} if option is None else {option: -10.0}
    result, _ = cleaned(halving, audio_file("x.wav", sound), tmp_path, true_peak=-20.0, **options)
    assert result.warnings[0].endswith(f"raise --true-peak{words}")


def test_loudness_at_two_sample_rates_is_compared_at_the_same_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks at 11025 Hz last 0.05 % less, which is five blocks in 17 minutes."""
    levels = np.where(np.arange(10_000) % 20 < 10, -20.0, -60.0)  # at 44.1 kHz

    def loudness(momentary: np.ndarray) -> Loudness:
        return Loudness(integrated=-23.0, true_peak=-20.0, momentary=momentary)

    found = normalization.Normalization(None, -1.0, 11025, 1)
    times = np.arange(10_005) * 1102 / 11025
    noisy = levels[np.minimum(np.round(times / 0.1).astype(int), levels.size - 1)]
    monkeypatch.setattr(found._noisy, "finish", lambda: loudness(noisy))
    monkeypatch.setattr(normalization, "_measure", lambda *_, **options: loudness(levels))
    monkeypatch.setattr(normalization, "_true_peak", lambda track: -20.0)
    track = Mock(spec=Track, target_rate=44100)
    assert 20 * np.log10(found.level(track).gain) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loudness": -60.0}, "-50 to -5 LUFS"),
        ({"loudness": -16.0, "true_peak": 1.0}, "-20 to 0 dBTP"),
        ({"loudness": -16.0, "keep_loudness": True}, "cannot be combined"),
        ({"loudness": -16.0, "clip": "rescale"}, "cannot be combined"),
    ],
)
def test_wrong_options_are_refused(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FileOptions(**options)
