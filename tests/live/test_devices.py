import builtins
import sys
import threading

import fake_sounddevice
import numpy as np
import pytest
from fake_sounddevice import FakeSoundDevice

from denoisecli.cleaning.stream import DenoiseStream, Piece
from denoisecli.errors import DenoiseError, ModelError, UsageError
from denoisecli.live import devices
from denoisecli.live.devices import LiveSettings, list_devices, run_live
from denoisecli.live.filter import LiveFilter


class Half(DenoiseStream):
    """A stream that returns half of what it takes, at once."""

    def __init__(self):
        pass

    def pieces(self, block):
        yield Piece(block, block / 2)

    def last_pieces(self):
        yield from ()


SETTINGS = LiveSettings("Microphone", "1", 16000, channels=2)


@pytest.fixture
def card(monkeypatch):
    card = FakeSoundDevice(np.ones(1600))
    monkeypatch.setattr(devices, "_sounddevice", lambda: card)
    monkeypatch.setattr(devices, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(devices, "_POLL_SECONDS", 0.01)
    return card


def open_filter():
    return LiveFilter(Half(), 16000, 2)


def test_devices_are_listed(card):
    microphone, speaker = list_devices()
    assert (microphone.name, microphone.system, microphone.inputs) == ("Microphone", "ALSA", 2)
    assert (speaker.index, speaker.outputs, speaker.sample_rate) == (1, 2, 48000)
    assert microphone.default and speaker.default


def test_sound_goes_from_the_input_to_the_output(card):
    stop, changes = threading.Event(), []

    def on_change(live, text):
        changes.append(text)
        threading.Timer(0.3, stop.set).start()

    run_live(open_filter, SETTINGS, stop, on_change=on_change)
    assert changes == ["running at 16000 Hz"]
    assert [options["device"] for options in card.opened] == ["Microphone", 1]
    assert {options["blocksize"] for options in card.opened} == {160}
    played = np.concatenate(card.played)
    assert played.shape[1] == 2
    assert played.max() == 0.5


def test_a_device_that_goes_away_is_waited_for(card):
    stop, changes = threading.Event(), []

    def on_change(live, text):
        changes.append(live is not None)
        if len(changes) == 1:
            threading.Timer(0.1, setattr, (card, "present", False)).start()
        if len(changes) == 2:
            threading.Timer(0.1, setattr, (card, "present", True)).start()
        if len(changes) == 3:
            stop.set()

    run_live(open_filter, SETTINGS, stop, on_change=on_change)
    assert changes == [True, False, True]
    assert card.refreshed >= 1
    assert len(card.opened) == 4


def test_a_device_that_is_silent_has_gone(card, monkeypatch):
    """As after the computer has slept: the stream says that it is active."""
    monkeypatch.setattr(devices, "_SILENT_SECONDS", 0.05)
    watch = devices._Watch()
    assert not watch.is_gone()
    watch.called["output"] -= 1
    assert watch.is_gone()


def test_a_device_that_is_not_there_is_an_error_at_the_beginning(card):
    settings = LiveSettings("nosuch", None, 16000)
    with pytest.raises(UsageError, match="the devices cannot be opened: no device nosuch"):
        run_live(open_filter, settings, threading.Event(), on_change=lambda *_: None)


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (ModelError("broken"), ModelError, "^broken"),
        (ValueError("broken"), DenoiseError, "^the filter failed: broken"),
        (OSError("broken"), DenoiseError, "^the filter failed: broken"),
    ],
)
def test_an_error_of_the_filter_ends_it(card, error, raised, message):
    class Broken(Half):
        def pieces(self, block):
            raise error

    def opened():
        return LiveFilter(Broken(), 16000, 2)

    with pytest.raises(raised, match=message):
        run_live(opened, SETTINGS, threading.Event(), on_change=lambda *_: None)


def test_an_error_at_the_end_is_reported(card):
    stop = threading.Event()

    class Broken(Half):
        def last_pieces(self):
            raise DenoiseError("the disk is full")

    def opened():
        return LiveFilter(Broken(), 16000, 2, on_piece=lambda piece: None)

    with pytest.raises(DenoiseError, match="the disk is full"):
        run_live(opened, SETTINGS, stop, on_change=lambda *_: stop.set())


def test_a_sound_system_that_does_not_start_again_at_once_is_waited_for(card):
    stop, changes, failures = threading.Event(), [], [1, 1]

    def initialize():
        if failures:
            failures.pop()
            raise card.PortAudioError("no sound system")

    def on_change(live, text):
        changes.append(live is not None)
        if len(changes) == 1:
            card.present = False
        if len(changes) == 2:
            card.present = True
        if len(changes) == 3:
            stop.set()

    card._initialize = initialize
    run_live(open_filter, SETTINGS, stop, on_change=on_change)
    assert changes == [True, False, True] and not failures


@pytest.mark.skipif(sys.platform != "linux", reason="of sound servers")
@pytest.mark.parametrize("stuck", ["abort", "close"])
def test_a_sound_system_that_does_not_answer_holds_up_no_end(card, monkeypatch, stuck):
    monkeypatch.setattr(devices, "_ANSWER_SECONDS", 0.05)
    release, stop = threading.Event(), threading.Event()
    monkeypatch.setattr(fake_sounddevice._Stream, stuck, lambda stream: release.wait())
    run_live(open_filter, SETTINGS, stop, on_change=lambda *_: stop.set())
    release.set()


@pytest.mark.skipif(sys.platform != "linux", reason="of sound servers")
def test_a_sound_system_that_cannot_be_started_again_is_an_error(card, monkeypatch):
    monkeypatch.setattr(devices, "_ANSWER_SECONDS", 0.05)
    release = threading.Event()
    card._terminate = release.wait

    def on_change(live, text):
        card.present = False

    with pytest.raises(DenoiseError, match="no longer answers"):
        run_live(open_filter, SETTINGS, threading.Event(), on_change=on_change)
    release.set()


def test_a_missing_library_is_named(monkeypatch):
    imported = builtins.__import__

    def without(name, *arguments):
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return imported(name, *arguments)

    monkeypatch.setattr(devices, "require", lambda *_, **__: None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="libportaudio2"):
        list_devices()
