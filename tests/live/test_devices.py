import builtins
import os
import sys
import threading

import numpy as np
import pytest
from fake_sounddevice import FakeSoundDevice

from denoisecli.cleaning.stream import DenoiseStream, Piece
from denoisecli.errors import DenoiseError, ModelError, UsageError
from denoisecli.live import devices, portaudio
from denoisecli.live.devices import LiveSettings, list_devices, run_live
from denoisecli.live.filter import LiveFilter
from denoisecli.live.portaudio import PortAudio, SoundSystemError


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
    monkeypatch.setattr(portaudio, "_sounddevice", lambda: card)
    monkeypatch.setattr(PortAudio, "_left_alone", [])
    monkeypatch.setattr(devices, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(devices, "_POLL_SECONDS", 0.01)
    yield card
    card.release.set()


@pytest.fixture
def impatient(monkeypatch):
    """Wait a moment for a call that does not return."""
    monkeypatch.setattr(portaudio, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(portaudio, "_CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(portaudio, "_SLICE_SECONDS", 0.01)


def new_filter(stream=None, **options):
    return LiveFilter(stream or Half(), 16000, 2, **options)


def test_devices_are_listed(card):
    microphone, speaker = list_devices()
    assert (microphone.name, microphone.system, microphone.inputs) == ("Microphone", "ALSA", 2)
    assert (speaker.index, speaker.outputs, speaker.sample_rate) == (1, 2, 48000)
    assert microphone.default and speaker.default


def test_sound_goes_from_the_input_to_the_output(card):
    stop, changes = threading.Event(), []

    def on_change(is_running, text):
        changes.append(text)
        threading.Timer(0.3, stop.set).start()

    run_live(new_filter(), SETTINGS, stop, on_change=on_change)
    assert changes == ["running at 16000 Hz"]
    assert {options["blocksize"] for options in card.opened} == {160}
    played = np.concatenate(card.played)
    assert played.shape[1] == 2
    assert played.max() == 0.5


def test_numbers_of_devices_hold_for_the_devices_of_the_beginning(card):
    """They are numbered anew when devices come or go."""
    stop, runs = threading.Event(), []

    def on_change(is_running, text):
        runs.append(is_running)
        card.present = not is_running
        if runs.count(True) == 2:
            stop.set()

    run_live(new_filter(), LiveSettings("0", "1", 16000, channels=2), stop, on_change=on_change)
    names = [options["device"] for options in card.opened]
    assert names == ["Microphone, ALSA", "Speaker, ALSA"] * 2
    with pytest.raises(UsageError, match="there is no device 2; --list-devices"):
        run_live(
            new_filter(), LiveSettings("2", None, 16000, channels=2), stop, on_change=on_change
        )


@pytest.mark.parametrize(
    ("wanted", "opened"),
    [
        ("CABLE Input", "CABLE Input (VB-Audio Virtual C, MME"),
        ("cable virtual", "CABLE Input (VB-Audio Virtual C, MME"),
        ("CABLE Input (VB-Audio Virtual Cable)", "CABLE Input (VB-Audio Virtual Cable)"),
        ("CABLE Input, WDM-KS", "CABLE Input, WDM-KS"),
        ("Head", "Head"),  # two of one system: sounddevice says so
        ("Nothing", "Nothing"),
    ],
)
def test_a_name_in_several_sound_systems_means_the_default_one(card, wanted, opened):
    """Windows has each device in four of them."""
    card.systems = ["MME", "WASAPI", "WDM-KS"]
    card.devices = [
        ("CABLE Output (VB-Audio Virtual ", 2, 0, 0),
        ("CABLE Input (VB-Audio Virtual C", 0, 2, 0),  # cut off
        ("CABLE Input (VB-Audio Virtual Cable)", 0, 2, 1),
        ("CABLE Input", 2, 2, 2),
        ("Headset", 0, 2, 0),
        ("Headphones", 0, 2, 0),
        ("Headphones", 0, 2, 1),
    ]
    stop = threading.Event()
    settings = LiveSettings("0", wanted, 16000, channels=2)
    run_live(new_filter(), settings, stop, on_change=lambda *_: stop.set())
    assert card.opened[-1]["device"] == opened


def test_a_device_that_goes_away_is_waited_for(card):
    """With the same filter, and nothing is created or reported while it waits."""
    stop, changes, reopened = threading.Event(), [], []
    live = new_filter()

    def before_reopening():
        reopened.append(len(card.opened))
        card.present = len(reopened) == 3
        if len(reopened) == 1:
            raise SoundSystemError("no sound server")

    def on_change(is_running, text):
        changes.append(text)
        card.present = False
        if len(card.opened) == 4:
            stop.set()

    card.failing["abort"] = card.PortAudioError("the device has gone")
    run_live(live, SETTINGS, stop, on_change=on_change, before_reopening=before_reopening)
    assert changes == [
        "running at 16000 Hz",
        "a device has gone away; waiting",
        "no sound server; waiting",
        "the devices cannot be opened: no device Microphone; waiting",
        "running at 16000 Hz",
    ]
    assert reopened == [2, 2, 2]
    assert card.calls.count("_terminate") == 3  # twice before devices were opened, and at the end
    assert "close" not in card.calls  # after an abort that failed


def test_a_reason_that_stays_is_reported_once(card):
    stop, changes, refused = threading.Event(), [], []

    def before_reopening():
        refused.append(True)
        if len(refused) == 3:
            stop.set()

    def on_change(is_running, text):
        changes.append(text)
        card.present = False
        card.failing["InputStream"] = card.PortAudioError("Invalid sample rate", -9997)

    run_live(new_filter(), SETTINGS, stop, on_change=on_change, before_reopening=before_reopening)
    assert len(refused) == 3
    assert len(changes) == 3 and "give another --sample-rate; waiting" in changes[2]


def test_a_device_that_is_silent_has_gone(monkeypatch):
    """As after the computer has slept: the stream says that it is active."""
    now = 100.0
    monkeypatch.setattr(devices.time, "monotonic", lambda: now)
    watch = devices._Watch()
    assert not watch.is_gone()  # while the devices are opened, however long
    watch.called["input"] = 100.0
    now = 130.0
    assert not watch.is_gone()
    watch.started = now
    now += 1.9
    assert not watch.is_gone()
    watch.called["input"] = now
    now += 1.9  # an idle server needs longer for the first call
    assert not watch.is_gone()
    watch.called["input"] = now
    now += 1.3
    assert watch.is_gone()
    watch.called = {"input": now, "output": now}
    now += 1.9
    assert not watch.is_gone()
    watch.called["output"] = now
    now += 0.2
    assert watch.is_gone()


def test_dropouts_of_the_output_device_are_counted(card):
    stop, live = threading.Event(), new_filter(buffer=0.0)
    card.underflow = True

    def on_change(is_running, text):
        threading.Timer(0.1, stop.set).start()

    run_live(live, SETTINGS, stop, on_change=on_change)
    assert live.meters.dropouts > 1


@pytest.mark.parametrize(
    ("device", "error", "advice"),
    [
        ("nosuch", None, "no device nosuch$"),
        (None, ("Invalid sample rate", -9997), "give another --sample-rate$"),
        (None, ("Invalid number of channels", -9998), "give another number of --channels$"),
    ],
)
def test_devices_that_cannot_be_opened_are_an_error_at_the_beginning(card, device, error, advice):
    if error is not None:
        card.failing["OutputStream"] = card.PortAudioError(*error)
    settings = LiveSettings(device, None, 16000, channels=2)
    with pytest.raises(UsageError, match=f"the devices cannot be opened: .*{advice}"):
        run_live(new_filter(), settings, threading.Event(), on_change=lambda *_: None)


def test_the_package_of_the_device_of_pulseaudio_is_named(card):
    card.failing["OutputStream"] = ValueError("No output device matching 'pulse'")
    settings = LiveSettings(None, devices.PULSE, 16000, channels=2)
    with pytest.raises(UsageError, match="libasound2-plugins"):
        run_live(new_filter(), settings, threading.Event(), on_change=lambda *_: None)


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

    with pytest.raises(raised, match=message):
        run_live(new_filter(Broken()), SETTINGS, threading.Event(), on_change=lambda *_: None)


def test_an_error_at_the_end_is_reported(card):
    stop = threading.Event()

    class Broken(Half):
        def last_pieces(self):
            raise DenoiseError("the disk is full")

    broken = new_filter(Broken(), on_piece=lambda piece: None)
    with pytest.raises(DenoiseError, match="the disk is full"):
        run_live(broken, SETTINGS, stop, on_change=lambda *_: stop.set())


def test_a_sound_system_that_does_not_start_again_at_once_is_waited_for(card):
    stop, runs = threading.Event(), []

    def before_reopening():
        card.present = True
        if card.calls.count("_initialize") == 2:
            card.failing.clear()

    def on_change(is_running, text):
        runs.append(is_running)
        card.present = False
        card.failing["_initialize"] = card.PortAudioError("no sound system")
        if runs.count(True) == 2:
            stop.set()

    run_live(new_filter(), SETTINGS, stop, on_change=on_change, before_reopening=before_reopening)
    assert runs == [True, False, False, True]
    assert card.calls.count("_initialize") == 3
    assert card.calls.count("_terminate") == 2  # what has not started is not ended


linux = pytest.mark.skipif(sys.platform != "linux", reason="of sound servers")


@linux
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("stuck", ["abort", "close", "_terminate"])
def test_a_sound_system_that_does_not_answer_holds_up_no_end(card, stuck):
    stop = threading.Event()
    card.hanging = {stuck}
    run_live(new_filter(), SETTINGS, stop, on_change=lambda *_: stop.set())
    assert card.calls.count(stuck) == 1
    assert card.calls[-1] == stuck


@linux
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["hangs", "fails"])
def test_a_stream_that_does_not_start_is_left_alone(card, kind):
    """Closing it would abort the process, and ending PortAudio would close it."""
    stop, runs, reopened = threading.Event(), [], []

    def before_reopening():
        reopened.append(len(card.opened))
        card.present = True
        if len(reopened) == 2:
            card.hanging, card.failing = set(), {}
            del card.calls[:]

    def on_change(is_running, text):
        runs.append(is_running)
        if runs.count(True) == 2:
            assert card.opened[2]["device"] == card.opened[4]["device"] == "Microphone"
            stop.set()
        elif is_running:
            card.present = False
            if kind == "hangs":
                card.hanging = {"start"}
            else:
                card.failing = {"start": card.PortAudioError("it timed out")}

    run_live(new_filter(), SETTINGS, stop, on_change=on_change, before_reopening=before_reopening)
    assert runs == [True, False, False, True]
    assert reopened == [2, 4]
    # The devices that are known are opened, and only those streams are closed.
    opening = ["InputStream", "OutputStream", "start", "start"]
    assert card.calls == [*opening, "abort", "close", "abort", "close"]


@linux
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("stuck", ["InputStream", "start"])
def test_a_sound_system_that_does_not_answer_at_the_beginning_is_an_error(card, stuck):
    card.hanging = {stuck}
    with pytest.raises(SoundSystemError, match="the sound system does not answer"):
        run_live(new_filter(), SETTINGS, threading.Event(), on_change=lambda *_: None)
    assert "_terminate" not in card.calls


@linux
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("stuck", ["_terminate", "_initialize"])
def test_a_sound_system_that_cannot_be_started_again_is_an_error(card, stuck):
    card.hanging = {stuck}

    def on_change(is_running, text):
        card.present = False

    with pytest.raises(DenoiseError, match="no longer answers"):
        run_live(new_filter(), SETTINGS, threading.Event(), on_change=on_change)
    assert card.calls.count(stuck) == 1


@linux
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("returns", "closing"), [(False, []), (True, ["abort", "close"])])
def test_ctrl_c_while_a_stream_starts_closes_what_can_be_closed(
    card, monkeypatch, returns, closing
):
    """The other stream, unless PortAudio hangs, but neither the one that starts nor PortAudio."""
    waited, interrupts = portaudio.wait, [KeyboardInterrupt]

    def interrupted(futures, seconds):
        if interrupts and "start" in card.calls:
            if returns:
                card.release.set()
            raise interrupts.pop()
        return waited(futures, seconds)

    card.hanging = {"start"}
    monkeypatch.setattr(portaudio, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_live(new_filter(), SETTINGS, threading.Event(), on_change=lambda *_: None)
    assert card.calls == ["InputStream", "OutputStream", "start", *closing]


def test_a_stream_that_starts_late_is_not_heard(card):
    stop, live = threading.Event(), new_filter(buffer=0.0)
    run_live(live, SETTINGS, stop, on_change=lambda *_: stop.set())
    seconds = live.meters.seconds
    for options in card.opened:
        with pytest.raises(card.CallbackAbort):
            options["callback"](np.ones((160, 2), np.float32), 160, None, None)
    assert live.meters.seconds == seconds and live._in.empty()


@linux
@pytest.mark.usefixtures("impatient")
def test_listing_devices_of_a_sound_system_that_does_not_answer_is_an_error(
    card, monkeypatch, capfd
):
    """Which is not muted, as `sounddevice` mutes stderr until it has started."""

    def starting():
        kept, muted = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(muted, 2)
        card.release.wait()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(muted)

    monkeypatch.setattr(portaudio, "_sounddevice", starting)
    with pytest.raises(SoundSystemError, match="does not answer"):
        list_devices()
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@linux
@pytest.mark.usefixtures("impatient")
def test_a_process_in_which_a_call_hangs_ends_at_once(card, monkeypatch):
    """Threads of PortAudio can crash it while Python ends."""
    stop, codes = threading.Event(), []
    monkeypatch.setattr(portaudio.os, "_exit", codes.append)
    monkeypatch.setattr(PortAudio, "exit_code", 130)
    run_live(new_filter(), SETTINGS, stop, on_change=lambda *_: stop.set())
    portaudio._end_process()
    assert codes == []
    card.hanging = {"abort"}
    stop.clear()
    run_live(new_filter(), SETTINGS, stop, on_change=lambda *_: stop.set())
    portaudio._end_process()
    assert codes == [130]


def test_devices_can_be_listed_again(card):
    assert list_devices() == list_devices()
    assert card.calls == ["_terminate", "_initialize", "_terminate"]


def test_a_missing_library_is_named(monkeypatch):
    imported = builtins.__import__

    def without(name, *arguments):
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return imported(name, *arguments)

    monkeypatch.setattr(portaudio, "require", lambda *_, **__: None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="libportaudio2"):
        list_devices()
