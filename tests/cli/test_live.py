import json

import numpy as np
import pytest
import soundfile
from fake_sounddevice import FakeSoundDevice
from helpers import denoise, fails

from denoisecli.cli import live as command
from denoisecli.live import devices


@pytest.fixture
def card(monkeypatch, speech):
    card = FakeSoundDevice(speech(2, 16000), speed=4.0)
    monkeypatch.setattr(devices, "_sounddevice", lambda: card)
    return card


def test_devices_are_listed(card):
    result = denoise("live", "--list-devices")
    assert "Microphone" in result.stdout and "48000" in result.stdout
    listed = json.loads(denoise("live", "--list-devices", "--json").stdout)
    assert [device["name"] for device in listed] == ["Microphone", "Speaker"]


def test_a_recording_holds_the_raw_and_the_clean_sound(card, tmp_path):
    target = tmp_path / "talk.wav"
    arguments = ["live", "--record", target, "--duration", 1.5, "--input", 0, "--json"]
    result = denoise(*arguments, "--buffer", 100)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["seconds"] > 0
    assert facts["model_delay_seconds"] == pytest.approx(0.032)
    assert facts["interruptions"] == 0
    assert [options["device"] for options in card.opened] == [0, None]
    assert {options["samplerate"] for options in card.opened} == {16000}
    clean, raw = (soundfile.read(tmp_path / name)[0] for name in ("talk.wav", "talk.raw.wav"))
    assert clean.size == raw.size > 0
    assert np.abs(clean - raw).max() > 0
    fails(denoise(*arguments), 2, "talk.wav already exists")


def test_wrong_use(card):
    fails(denoise("live", "--virtual", "--output", "Speaker"), 2, "leave out --output")
    fails(denoise("live", "--input", "nosuch"), 2, "the devices cannot be opened")
    fails(denoise("live", "--model", "nosuch"), 2, "no model 'nosuch'")


def test_keys_of_the_meters():
    meters = command._LiveMeters(0.032)
    assert not meters.press("b") and meters.bypass
    assert not meters.press("b") and not meters.bypass
    assert not meters.press("x")
    assert meters.press("q")


@pytest.mark.parametrize(
    ("level", "bar", "text"),
    [(0.0, 36, "   0.0 dBFS"), (-36.0, 18, " -36.0 dBFS"), (-np.inf, 0, "silent")],
)
def test_bars(level, bar, text):
    assert command._bar(level).count("█") == bar
    assert command._level(level) == text
