"""The sound devices: listed, opened, and waited for when they go away."""

import contextlib
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.live.filter import LiveFilter
from denoisecli.live.portaudio import PortAudio, SoundSystemError

if TYPE_CHECKING:
    import numpy as np

PULSE = "pulse"
"""Device of PortAudio that plays to PulseAudio, to the sink that PULSE_SINK names."""

_FIRST_SECONDS = 5.0  # in which a device must call first; an idle PulseAudio takes 2 s
_SILENT_SECONDS = 2.0  # without a callback, after which a device counts as disconnected
_RETRY_SECONDS = 1.0
_POLL_SECONDS = 0.1
_BLOCK_SECONDS = 0.01
_INVALID_CHANNELS, _INVALID_SAMPLE_RATE = -9998, -9997  # of enum PaErrorCode


@dataclass(frozen=True)
class Device:
    """A sound device.

    Attributes:
        index: Its number.
        name: Its name.
        system: Sound system that it belongs to, such as "ALSA".
        inputs: Number of input channels.
        outputs: Number of output channels.
        sample_rate: Its default sample rate in Hz.
        default: Whether it is the default input or output.
    """

    index: int
    name: str
    system: str
    inputs: int
    outputs: int
    sample_rate: int
    default: bool


@dataclass(frozen=True)
class LiveSettings:
    """Devices to use, and their settings.

    Attributes:
        input: Name, a part of it, or number of the input device; None for the default one.
        output: The same for the output device.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        latency: Seconds of sound that the buffer of either device holds.
    """

    input: str | None
    output: str | None
    sample_rate: int
    channels: int = 1
    latency: float = 0.02


def list_devices() -> list[Device]:
    """Return the devices that PortAudio finds.

    Raises:
        UsageError: The extra "live" or the PortAudio library is missing.
    """
    with PortAudio() as audio:
        systems = [api["name"] for api in audio.sd.query_hostapis()]
        return [
            Device(
                index=entry["index"],
                name=entry["name"],
                system=systems[entry["hostapi"]],
                inputs=entry["max_input_channels"],
                outputs=entry["max_output_channels"],
                sample_rate=round(entry["default_samplerate"]),
                default=entry["index"] in list(audio.sd.default.device),
            )
            for entry in audio.sd.query_devices()
        ]


def run_live(
    live: LiveFilter,
    settings: LiveSettings,
    stop: threading.Event,
    *,
    on_change: Callable[[bool, str], None],
    before_reopening: Callable[[], None] | None = None,
) -> None:
    """Run sound through a filter until ``stop`` is set.

    If a device goes away, or the computer sleeps, it waits until the devices can be opened again.

    Args:
        live: The filter, which has not been started.
        settings: The devices.
        stop: Event that ends the function.
        on_change: Function that is called with whether the filter runs (or waits for a device), and
            what happened.
        before_reopening: Function that is called each time before the devices are opened again,
            but not the first time. It waits while the function raises SoundSystemError.

    Raises:
        UsageError: There is no such device, or it cannot be opened with these settings.
        DenoiseError: The filter failed, or the sound system does not answer.
    """
    with PortAudio() as audio:
        settings = _with_names(audio, settings)
        with live:
            _run(audio, live, settings, stop, on_change, before_reopening)
    if isinstance(live.error, DenoiseError):
        raise live.error
    if live.error is not None:
        raise DenoiseError(f"the filter failed: {live.error}") from live.error


def _run(
    audio: PortAudio,
    live: LiveFilter,
    settings: LiveSettings,
    stop: threading.Event,
    on_change: Callable[[bool, str], None],
    before_reopening: Callable[[], None] | None,
) -> None:
    """Open the devices again and again, until ``stop`` is set or the filter has failed."""
    was_open, reported = False, ""
    while live.error is None and not stop.is_set():
        try:
            if was_open:
                if before_reopening is not None:
                    before_reopening()
                audio.find_devices_again()
                live.restart()
            with _open_devices(audio, live, settings) as watch:
                was_open, reported = True, ""
                on_change(True, f"running at {settings.sample_rate} Hz")
                while live.error is None and not watch.is_gone():
                    if stop.wait(_POLL_SECONDS):
                        return
            reason = "a device has gone away"
        except SoundSystemError as error:
            if not was_open:
                raise
            reason = str(error)
        except (audio.sd.PortAudioError, ValueError) as error:
            reason = f"the devices cannot be opened: {error}{_advice(settings, error)}"
            if not was_open:
                raise UsageError(reason) from error
        if live.error is None:
            if reason != reported:
                on_change(False, f"{reason}; waiting")
                reported = reason
            stop.wait(_RETRY_SECONDS)


def _with_names(audio: PortAudio, settings: LiveSettings) -> LiveSettings:
    """Replace numbers and parts of names by whole names, which tell the devices apart.

    Devices are numbered anew after every search. Windows lists each device once per sound system;
    a name that several of them list means the device of the default system.
    """
    entries, systems = audio.sd.query_devices(), audio.sd.query_hostapis()
    names = [f"{entry['name']}, {systems[entry['hostapi']]['name']}" for entry in entries]

    def name(device: str | None, kind: str) -> str | None:
        if device is None:
            return None
        if not device.isdecimal():
            pattern = re.compile(".*?".join(map(re.escape, device.split())), re.IGNORECASE)
            found = [
                index
                for index, entry in enumerate(entries)
                if entry[f"max_{kind}_channels"] > 0 and pattern.search(names[index])
            ]
            available = [entries[index]["hostapi"] for index in found]
            default = audio.sd.default.hostapi
            system = default if default in available else next(iter(available), None)
            is_one = len(found) > 1 and available.count(system) == 1
            return names[found[available.index(system)]] if is_one else device
        if int(device) >= len(names):
            raise UsageError(f"there is no device {device}; --list-devices lists them")
        found_name = names[int(device)]
        return device if names.count(found_name) > 1 else found_name

    return replace(
        settings, input=name(settings.input, "input"), output=name(settings.output, "output")
    )


def _advice(settings: LiveSettings, error: Exception) -> str:
    """Return what to do about an error of opening the devices, for the end of its message."""
    code = error.args[1] if len(error.args) > 1 else None
    if code == _INVALID_SAMPLE_RATE:
        return "; give another --sample-rate"
    if code == _INVALID_CHANNELS:
        return "; give another number of --channels"
    if isinstance(error, ValueError) and PULSE in (settings.input, settings.output):
        return (
            f"; the device {PULSE} needs ALSA's plugin for PulseAudio, of the package "
            "libasound2-plugins"
        )
    return ""


class _Watch:
    """Notes when the callbacks of the devices were called last."""

    def __init__(self) -> None:
        self.streams: list[Any] = []
        self.started = math.inf
        self.called: dict[str, float] = {}
        self.is_over = False

    def is_gone(self) -> bool:
        """Return whether a device has stopped calling, or has not begun to."""
        now = time.monotonic()
        for kind in ("input", "output"):
            limit = _SILENT_SECONDS if kind in self.called else _FIRST_SECONDS
            if now - max(self.started, self.called.get(kind, 0.0)) > limit:
                return True
        return not all(stream.active for stream in self.streams)


@contextlib.contextmanager
def _open_devices(audio: PortAudio, live: LiveFilter, settings: LiveSettings) -> Iterator[_Watch]:
    """Open the devices; their callbacks feed the filter while the block runs."""
    watch = _Watch()

    def on_input(block: "np.ndarray", frames: int, times: Any, status: Any) -> None:
        if watch.is_over:  # a stream that started late
            raise audio.sd.CallbackAbort
        watch.called["input"] = time.monotonic()
        live.put(block.T, lost=bool(status.input_overflow))

    def on_output(block: "np.ndarray", frames: int, times: Any, status: Any) -> None:
        if watch.is_over:
            raise audio.sd.CallbackAbort
        watch.called["output"] = time.monotonic()
        block[:] = live.get(frames, lost=bool(status.output_underflow)).T

    options = {
        "samplerate": settings.sample_rate,
        "channels": settings.channels,
        "dtype": "float32",
        "blocksize": round(_BLOCK_SECONDS * settings.sample_rate),
        "latency": settings.latency,
    }
    devices = [
        (audio.sd.InputStream, settings.input, on_input),
        (audio.sd.OutputStream, settings.output, on_output),
    ]
    try:
        for kind, device, callback in devices:
            number_or_name = int(device) if device and device.isdecimal() else device
            watch.streams.append(
                audio.open(kind, device=number_or_name, callback=callback, **options)
            )
        for stream in watch.streams:
            audio.start(stream)
        watch.started = time.monotonic()
        yield watch
    finally:
        watch.is_over = True
        audio.close(watch.streams)
