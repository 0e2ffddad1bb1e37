import io
import json
import os
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
from fake_sounddevice import FakeSoundDevice
from helpers import denoise, fails

from denoisecli.cli import live as command
from denoisecli.errors import UsageError
from denoisecli.live import portaudio
from denoisecli.system.interrupts import Terminated


@pytest.fixture
def card(monkeypatch, speech):
    card = FakeSoundDevice(speech(2, 16000), speed=4.0)
    monkeypatch.setattr(portaudio, "_sounddevice", lambda: card)
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
    assert facts["seconds"] >= 1.5  # of sound, which begins a moment after the devices
    assert facts["model_delay_seconds"] == pytest.approx(0.032)
    assert facts["interruptions"] == 0
    assert [options["device"] for options in card.opened] == ["Microphone, ALSA", None]
    assert {options["samplerate"] for options in card.opened} == {48000}
    clean, raw = (soundfile.read(tmp_path / name)[0] for name in ("talk.wav", "talk.raw.wav"))
    assert clean.size == raw.size == round(facts["seconds"] * 48000) > 0
    assert np.abs(clean - raw).max() > 0
    fails(denoise(*arguments), 2, "talk.wav already exists")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of the file size")
def test_what_was_recorded_until_the_disk_was_full_is_kept(card, tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        result = denoise("live", "--record", tmp_path / "talk.wav", "--duration", 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    fails(result, 1, "cannot write", "is the disk full?")
    for name in ("talk.wav", "talk.raw.wav"):
        assert 5000 < soundfile.read(tmp_path / name)[0].size <= 10_000


def test_nothing_is_recorded_without_devices(card, tmp_path):
    arguments = ("live", "--input", "nosuch", "--record", tmp_path / "talk.wav")
    fails(denoise(*arguments), 2, "the devices cannot be opened")
    assert list(tmp_path.iterdir()) == []


def test_wrong_use(card):
    fails(denoise("live", "--virtual", "--output", "Speaker"), 2, "leave out --output")
    fails(denoise("live", "--input", "nosuch"), 2, "the devices cannot be opened")
    fails(denoise("live", "--model", "nosuch"), 2, "no model 'nosuch'")


class Terminal:
    def isatty(self):
        return True

    def fileno(self):
        return 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups")
@pytest.mark.parametrize(
    ("stdin", "foreground", "has"),
    [
        (None, 1, False),
        (io.StringIO(), 1, False),
        (Terminal(), os.getpgrp(), True),
        (Terminal(), os.getpgrp() + 1, False),
        (Terminal(), OSError("not the controlling terminal"), True),
    ],
)
def test_keys_are_read_in_the_foreground_of_a_terminal(monkeypatch, stdin, foreground, has):
    def tcgetpgrp(descriptor):
        if isinstance(foreground, OSError):
            raise foreground
        return foreground

    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(os, "tcgetpgrp", tcgetpgrp)
    assert command._has_keyboard() is has


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (None, 0),
        (UsageError(""), 2),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
        (Terminated(1), 129),
    ],
)
def test_the_exit_code_of_a_process_that_ends_at_once(end, code):
    assert command._exit_code(end) == code


def test_keys_of_the_meters():
    live = Mock(bypass=False)
    meters = command._LiveMeters(live, 0.032)
    assert not meters.press("b") and live.bypass
    assert not meters.press("b") and not live.bypass
    assert not meters.press("x")
    assert meters.press("q")


@pytest.mark.parametrize(
    ("level", "bar", "text"),
    [(0.0, 36, "   0.0 dBFS"), (-36.0, 18, " -36.0 dBFS"), (-np.inf, 0, "silent")],
)
def test_bars(level, bar, text):
    assert command._bar(level).count("█") == bar
    assert command._level(level) == text
