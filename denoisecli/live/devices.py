"""The sound devices: listed, opened, and waited for when they go away."""

import atexit
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from denoisecli.errors import DenoiseError, UsageError
from denoisecli.live.filter import LiveFilter
from denoisecli.system.extras import require

if TYPE_CHECKING:
    import numpy as np

_SILENT_SECONDS = 2.0  # without a callback, after which a device is taken for gone
_RETRY_SECONDS = 1.0
_POLL_SECONDS = 0.1
_BLOCK_SECONDS = 0.01
_ANSWER_SECONDS = 5.0  # in which PortAudio must close a device


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
    sd = _sounddevice()
    systems = [api["name"] for api in sd.query_hostapis()]
    return [
        Device(
            index=entry["index"],
            name=entry["name"],
            system=systems[entry["hostapi"]],
            inputs=entry["max_input_channels"],
            outputs=entry["max_output_channels"],
            sample_rate=round(entry["default_samplerate"]),
            default=entry["index"] in list(sd.default.device),
        )
        for entry in sd.query_devices()
    ]


def run_live(
    open_filter: Callable[[], LiveFilter],
    settings: LiveSettings,
    stop: threading.Event,
    *,
    on_change: Callable[[LiveFilter | None, str], None],
) -> None:
    """Run sound through a filter until ``stop`` is set.

    If a device goes away, or the computer sleeps, it waits until the devices can be opened again.

    Args:
        open_filter: Function that returns a new filter.
        settings: The devices.
        stop: Event that ends the function.
        on_change: Function that is called with the filter that runs and what happened, or None
            while it waits.

    Raises:
        UsageError: There is no such device, or it cannot be opened with these settings.
        DenoiseError: The filter failed, or the sound system no longer answers.
    """
    sd = _sounddevice()
    first = True
    while not stop.is_set():
        failure: Exception | None = None
        try:
            if not first:
                _find_devices_again(sd)
            with open_filter() as live, _open_devices(sd, live, settings) as watch:
                on_change(live, f"running at {settings.sample_rate} Hz")
                first = False
                while live.error is None and not stop.wait(_POLL_SECONDS):
                    if watch.is_gone():
                        on_change(None, "a device has gone away; waiting for it")
                        break
            failure = live.error
        except (sd.PortAudioError, ValueError) as error:
            if first:
                raise UsageError(f"the devices cannot be opened: {error}") from error
        if isinstance(failure, DenoiseError):
            raise failure
        if failure is not None:
            raise DenoiseError(f"the filter failed: {failure}") from failure
        stop.wait(_RETRY_SECONDS)


def _find_devices_again(sd: Any) -> None:
    """Start PortAudio anew, since only then does it look for devices."""
    with contextlib.suppress(sd.PortAudioError):  # it did not start the last time
        if not _answers(sd, sd._terminate):
            raise DenoiseError("the sound system no longer answers: start `denoise live` again")
    sd._initialize()


def _answers(sd: Any, call: Callable[[], object]) -> bool:
    """Call a function of PortAudio that ends something, and return whether it came back.

    On Linux it may wait forever for a sound server that has gone away, so it is called in a thread.
    Elsewhere a device belongs to the thread that opened it.
    """
    if sys.platform != "linux":
        call()
        return True
    errors: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="portaudio", daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    if thread.is_alive():
        atexit.unregister(sd._exit_handler)  # which would wait as well
        return False
    if errors:
        raise errors[0]
    return True


class _Watch:
    """Notes when the callbacks of the devices were called last."""

    def __init__(self) -> None:
        self.streams: list[Any] = []
        self.called = dict.fromkeys(("input", "output"), time.monotonic())

    def is_gone(self) -> bool:
        """Return whether a device has stopped calling."""
        earlier = min(self.called.values())
        silent = time.monotonic() - earlier > _SILENT_SECONDS
        return silent or not all(stream.active for stream in self.streams)


@contextlib.contextmanager
def _open_devices(sd: Any, live: LiveFilter, settings: LiveSettings) -> Iterator[_Watch]:
    """Open the devices; their callbacks feed the filter while the block runs."""
    watch = _Watch()

    def on_input(block: "np.ndarray", frames: int, times: Any, status: Any) -> None:
        watch.called["input"] = time.monotonic()
        live.put(block.T, lost=bool(status.input_overflow))

    def on_output(block: "np.ndarray", frames: int, times: Any, status: Any) -> None:
        watch.called["output"] = time.monotonic()
        block[:] = live.get(frames).T

    options = {
        "samplerate": settings.sample_rate,
        "channels": settings.channels,
        "dtype": "float32",
        "blocksize": round(_BLOCK_SECONDS * settings.sample_rate),
        "latency": settings.latency,
    }
    source = sd.InputStream(device=_device(settings.input), callback=on_input, **options)
    watch.streams.append(source)
    try:
        target = sd.OutputStream(device=_device(settings.output), callback=on_output, **options)
        watch.streams.append(target)
        for stream in watch.streams:
            stream.start()
        yield watch
    finally:
        for stream in watch.streams:
            with contextlib.suppress(sd.PortAudioError):  # it has gone away
                _answers(sd, stream.abort)
            with contextlib.suppress(sd.PortAudioError):
                _answers(sd, stream.close)


def _device(name: str | None) -> str | int | None:
    return int(name) if name is not None and name.isdigit() else name


def _sounddevice() -> Any:
    require("live", "sounddevice", purpose="live sound")
    try:
        import sounddevice
    except OSError as error:  # on Linux its wheel comes without the library
        raise UsageError(
            "live sound needs the PortAudio library, such as the package libportaudio2"
        ) from error
    except Exception as error:  # PortAudio cannot start
        raise DenoiseError(f"the sound system cannot be reached: {error}") from error
    return sounddevice
