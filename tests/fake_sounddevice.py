"""A sound card without a driver, in place of the module `sounddevice`."""

import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import numpy as np


class PortAudioError(Exception):
    """As sounddevice raises it."""


class CallbackAbort(Exception):
    """Ends a stream, if a callback raises it."""


class FakeSoundDevice:
    """The functions of `sounddevice` that `denoisecli.live` calls.

    Args:
        sound: What the microphone hears, shape (timesteps,); then silence.
        speed: How much faster than in reality the devices run.

    Attributes:
        played: What the output was given.
        present: Whether the devices are there.
        systems: Names of the sound systems.
        devices: Name, number of inputs and outputs, and index of the system of every device.
        opened: Options of all streams that were opened.
        refreshed: How often PortAudio was started anew.
        calls: Names of all calls that may hang.
        hanging: Names of those that do not return before `release` is set.
        release: Event that lets them return.
        failing: Errors that the calls raise, by their name.
        underflow: Whether the output has had no sound before each block.
    """

    PortAudioError = PortAudioError
    CallbackAbort = CallbackAbort

    def __init__(self, sound, speed=10.0):
        self.sound = np.asarray(sound, np.float32)
        self.speed = speed
        self.played = []
        self.present = True
        self.opened = []
        self.refreshed = 0
        self.calls = []
        self.hanging = set()
        self.release = threading.Event()
        self.failing = {}
        self.underflow = False
        self._initialized = 1
        self.default = SimpleNamespace(device=[0, 1], hostapi=0)
        self.systems = ["ALSA"]
        self.devices = [("Microphone", 2, 0, 0), ("Speaker", 0, 2, 0)]

    def query_hostapis(self):
        return [{"name": name} for name in self.systems]

    def query_devices(self):
        return [
            {
                "index": index,
                "name": name,
                "hostapi": system,
                "max_input_channels": inputs,
                "max_output_channels": outputs,
                "default_samplerate": 48000.0,
            }
            for index, (name, inputs, outputs, system) in enumerate(self.devices)
        ]

    def called(self, name):
        """Note a call, which may hang or fail."""
        self.calls.append(name)
        if name in self.hanging:
            self.release.wait()
        if name in self.failing:
            raise self.failing[name]

    def _terminate(self):
        self.called("_terminate")
        self._initialized -= 1
        self.refreshed += 1

    def _initialize(self):
        self.called("_initialize")
        self._initialized += 1

    def InputStream(self, **options):
        self.called("InputStream")
        return _Stream(self, options, is_input=True)

    def OutputStream(self, **options):
        self.called("OutputStream")
        return _Stream(self, options, is_input=False)


class _Stream:
    def __init__(self, card, options, *, is_input):
        if not card.present or options["device"] == "nosuch":
            raise PortAudioError(f"no device {options['device']}")
        self.card, self.options, self.is_input = card, options, is_input
        card.opened.append(options)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run_until_aborted, daemon=True)

    @property
    def active(self):
        return self.thread.is_alive()

    def start(self):
        self.card.called("start")
        self.thread.start()

    def abort(self):
        self.ended.set()
        self.card.called("abort")
        if not self.card.present:
            raise PortAudioError("the device has gone")

    def close(self):
        self.ended.set()
        self.card.called("close")
        if self.thread.ident:
            self.thread.join()

    def run_until_aborted(self):
        with suppress(CallbackAbort):
            self.run()

    def run(self):
        frames, channels = self.options["blocksize"], self.options["channels"]
        status = SimpleNamespace(input_overflow=False, output_underflow=self.card.underflow)
        while self.card.present and not self.ended.is_set():
            block = np.zeros((frames, channels), np.float32)
            if self.is_input:
                part, self.card.sound = self.card.sound[:frames], self.card.sound[frames:]
                block[: part.size] = part[:, None]
                self.options["callback"](block, frames, None, status)
            else:
                self.options["callback"](block, frames, None, status)
                self.card.played.append(block.copy())
            time.sleep(frames / self.options["samplerate"] / self.card.speed)
