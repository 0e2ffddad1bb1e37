import math
import re

import numpy as np
import pytest
import soundfile

from denoisecli.errors import UsageError
from denoisecli.evaluation import cleaned, previews
from denoisecli.evaluation.cleaned import Cleaned, write_cleaning_report
from denoisecli.evaluation.pauses import FLOOR_DB, levels

RATE = 16000


@pytest.fixture(autouse=True)
def without_dnsmos(monkeypatch):
    """Leave out the ratings, which take a second each and are tested elsewhere."""
    monkeypatch.setattr("denoisecli.audio.dnsmos.is_installed", lambda: False)


@pytest.fixture
def recordings(audio_file, speech, noise):
    """Speech of 2 s with noise that cleaning halves."""
    clean, hiss = 0.3 * speech(2.0, RATE), 0.05 * noise(2.0, RATE)
    return [
        Cleaned(
            f"{name}.wav",
            audio_file(f"{name}.wav", clean + hiss),
            audio_file(f"{name} clean.wav", gain * (clean + 0.5 * hiss)),
            gain=gain,
        )
        for name, gain in (("a", 1.0), ("<b>", 0.5))
    ]


def test_the_page_shows_before_after_and_removed(recordings, tmp_path):
    write_cleaning_report(recordings, tmp_path / "page.html", model="speech")
    page = (tmp_path / "page.html").read_text()
    assert "2 recordings" in page
    assert "Cleaned by speech" in page
    assert "&lt;b&gt;.wav" in page
    assert "<b>.wav" not in page
    assert page.count("<audio") == 2 * 3
    for label in ("Noise floor", "Speech", "Estimated SNR", "Loudness", "True peak"):
        assert label in page
    assert "DNSMOS" not in page
    assert 'src="http' not in page


def test_a_single_recording_has_no_table_of_all(recordings, tmp_path):
    write_cleaning_report(recordings[:1], tmp_path / "page.html", model="speech")
    page = (tmp_path / "page.html").read_text()
    assert "<h1>a.wav</h1>" in page
    assert 'id="files"' not in page
    assert "Mean over" not in page


def test_a_gain_does_not_count_as_removed(recordings, tmp_path, monkeypatch):
    removed = []

    def opus(sound, rate):
        removed.append(float(np.std(sound)))
        return "data:,"

    monkeypatch.setattr(previews, "opus", opus)
    write_cleaning_report(recordings, tmp_path / "page.html", model="speech")
    assert removed[2] == pytest.approx(removed[5], rel=0.05)


def test_long_recordings_are_scored_in_their_middle(audio_file, tmp_path, monkeypatch):
    monkeypatch.setattr(cleaned, "LONGEST_SECONDS", 1.0)
    ramp = np.linspace(0, 0.9, 3 * RATE, dtype=np.float32)
    path = audio_file("long.wav", ramp, subtype="FLOAT")
    copy = cleaned._middle(path, tmp_path / "copy.w64", None)
    np.testing.assert_array_equal(soundfile.read(copy, dtype="float32")[0], ramp[RATE : 2 * RATE])
    assert cleaned._middle(copy, tmp_path / "other.w64", None) == copy


def test_the_suffix_is_checked(recordings, tmp_path):
    with pytest.raises(UsageError, match=r"must have the suffix \.html"):
        write_cleaning_report(recordings, tmp_path / "page.pdf", model="speech")


def test_levels_of_speech_and_pauses(rng):
    """A tone of -20 dBFS for a second, then a second of noise at -50 dBFS alone."""
    noise = 10 ** (-50 / 20) * rng.standard_normal(4 * RATE)
    tone = 0.1 * math.sqrt(2) * np.sin(2 * np.pi * 500 * np.arange(4 * RATE) / RATE)
    noisy = np.where(np.arange(4 * RATE) // RATE % 2 == 0, tone, 0) + noise
    found = levels(noisy, noisy, RATE)
    assert found.noise_floor == pytest.approx(-50, abs=0.3)
    assert found.speech_level == pytest.approx(-20, abs=0.1)
    assert found.estimated_snr == pytest.approx(30, abs=0.4)
    half = levels(noisy, noisy / 2, RATE)
    assert half.noise_floor - found.noise_floor == pytest.approx(-6.02, abs=0.01)
    gated = levels(noisy, noisy - noise, RATE)
    assert gated.noise_floor < -60
    assert gated.speech_level == pytest.approx(-20, abs=0.1)


def test_levels_that_are_undefined(rng):
    assert all(map(math.isnan, levels(np.zeros(RATE), np.zeros(RATE), RATE)))
    short = rng.standard_normal(RATE // 2)
    assert all(map(math.isnan, levels(short, short, RATE)))
    steady = 0.1 * rng.standard_normal(2 * RATE)
    found = levels(steady, np.zeros(2 * RATE), RATE)
    assert found.noise_floor == FLOOR_DB
    assert re.match("nan", str(found.speech_level))


def test_muted_parts_are_no_pauses(rng):
    """An editor has muted a third; the noise floor is that of the rest."""
    sound = 10 ** (-50 / 20) * rng.standard_normal(6 * RATE)
    sound[: 2 * RATE] = 0
    sound[3 * RATE : 4 * RATE] += 0.1
    sound[3 * RATE : 4 * RATE : 2] -= 0.2
    assert levels(sound, sound, RATE).noise_floor == pytest.approx(-50, abs=0.5)


@pytest.mark.parametrize("seconds", [0.5, 0.25, math.inf])
def test_the_middle_is_copied(audio_file, tmp_path, seconds):
    path = audio_file("x.wav", np.arange(8000) / 8000, 8000, "FLOAT")
    cleaned.copy_middle(path, tmp_path / "y.w64", seconds=seconds)
    copy, _ = soundfile.read(tmp_path / "y.w64")
    length = round(8000 * min(seconds, 1))
    assert (copy[0] * 8000, len(copy)) == ((8000 - length) / 2, length)
