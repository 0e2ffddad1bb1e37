"""The command that cleans a microphone: live."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.table import Table

from denoisecli.cli import console
from denoisecli.cli.displays import LiveDisplay
from denoisecli.cli.options import Json, Overwrite, refuse_empty
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.system.interrupts import exit_code_of

if TYPE_CHECKING:
    from denoisecli.audio.writing import AudioWriter
    from denoisecli.cleaning.stream import Piece
    from denoisecli.live.filter import LiveFilter, Meters

_devices = partial(typer.Option, rich_help_panel="Devices")
_LONGEST_DELAY = 0.2  # s of a model, which does not disturb a conversation
_LOWEST_DBFS = -72.0  # left end of a level bar
_BAR_WIDTH = 36


def live(
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model folder, or name of a bundled model.")
    ] = "speech-live",
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the noise to remove, from 0 to 1.")
    ] = 1.0,
    record: Annotated[
        Path | None,
        typer.Option(
            help="File for the clean sound, such as talk.wav; the raw sound goes to talk.raw.wav "
            "beside it."
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(min=0, help="Time in seconds after which to stop (default: no limit)."),
    ] = None,
    list_devices: Annotated[bool, _devices("--list-devices", help="List the devices.")] = False,
    input: Annotated[
        str | None,
        _devices(
            "--input",
            help="Name of the input device, part of its name, or its number (default: that of the "
            "system).",
        ),
    ] = None,
    output: Annotated[
        str | None,
        _devices(
            "--output",
            help="Name of the output device, part of its name, or its number (default: that of the "
            "system).",
        ),
    ] = None,
    virtual: Annotated[
        bool,
        _devices(
            "--virtual",
            help="Create a virtual microphone (PulseAudio, PipeWire) for other programs, and play "
            "to it.",
        ),
    ] = False,
    sample_rate: Annotated[
        int | None,
        _devices(
            min=4000,
            max=192000,
            help="Sample rate of the devices in Hz (default: that of the model).",
        ),
    ] = None,
    channels: Annotated[int, _devices(min=1, max=8, help="Number of channels.")] = 1,
    buffer: Annotated[
        float,
        _devices(
            min=0,
            max=500,
            help="Buffer of the devices and of the filter in ms; a larger one avoids dropouts on a "
            "busy computer.",
        ),
    ] = 15.0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Clean the sound of a microphone in real time, and play it or pass it on.

    Press b to bypass the model, b again to return to the clean sound, and q to stop. If a device
    disconnects, the program waits for it. docs/live.md explains how other programs use the clean
    microphone.

    Example: `denoise live --virtual`
    """
    from denoisecli.live.devices import PULSE, LiveSettings, run_live

    if list_devices:
        _print_devices(as_json)
        return
    refuse_empty({"--record": record, "--input": input, "--output": output, "--model": model})
    if virtual and output is not None:
        raise UsageError("--virtual has an output device of its own; leave out --output")

    from denoisecli.cleaning.denoiser import Denoiser
    from denoisecli.live.filter import LiveFilter
    from denoisecli.live.portaudio import PortAudio
    from denoisecli.live.virtual import SOURCE, virtual_microphone

    denoiser = Denoiser(model, strength=strength)
    rate = sample_rate or denoiser.spec.audio.sample_rate
    stream = denoiser.stream(rate, channels)
    if stream.delay > _LONGEST_DELAY:
        console.warn(
            f"the delay of this model is {stream.delay:.2f} s; use speech-live for live sound"
        )
    stop = threading.Event()
    with ExitStack() as exits:
        on_piece = None
        if record is not None:
            on_piece = exits.enter_context(_recording(record, rate, channels, overwrite))
        before_reopening: Callable[[], None] | None = None
        if virtual:
            before_reopening = exits.enter_context(virtual_microphone(rate))
            output = PULSE
            console.info(f"other programs can choose the microphone {SOURCE}")
        filtered = LiveFilter(stream, rate, channels, buffer=buffer / 1000, on_piece=on_piece)
        display = _LiveMeters(filtered, stream.delay)
        exits.callback(stop.set)
        timer = threading.Thread(
            target=_stop_after, args=(duration or 0.0, display, stop), daemon=True
        )

        def on_change(is_running: bool, text: str) -> None:
            display.interruptions += display.is_running and not is_running
            display.is_running = is_running
            if duration is not None and not timer.ident:
                timer.start()
            if not console.is_interactive():
                console.info(text)
            display.text = text

        exits.enter_context(display)
        exits.enter_context(_keys(display.press, stop))
        end: KeyboardInterrupt | DenoiseError | None = None
        try:
            run_live(
                filtered,
                LiveSettings(input, output, rate, channels, buffer / 1000),
                stop,
                on_change=on_change,
                before_reopening=before_reopening,
            )
        except (KeyboardInterrupt, DenoiseError) as error:
            if isinstance(error, DenoiseError) and not filtered.meters.seconds:
                raise
            end = error  # what was recorded until then is kept
    _print_summary(filtered.meters, display, as_json)
    PortAudio.exit_code = _exit_code(end)
    if end is not None:
        raise end


def _stop_after(seconds: float, display: "_LiveMeters", stop: threading.Event) -> None:
    """Set an event after some seconds of sound, or of waiting for a device.

    A device that has been opened can take two seconds until it delivers the first sound.
    """
    end = time.monotonic() + seconds
    while not stop.is_set():
        left = end - time.monotonic()
        if display.is_running:
            left = max(left, seconds - display.live.meters.seconds)
        if left <= 0:
            stop.set()
        stop.wait(min(max(left, 0.01), threading.TIMEOUT_MAX))


def _exit_code(end: KeyboardInterrupt | DenoiseError | None) -> int:
    """Return the exit code that the program has after an error."""
    if isinstance(end, KeyboardInterrupt):
        return exit_code_of(end)
    return end.exit_code if end is not None else 0


def _print_devices(as_json: bool) -> None:
    from denoisecli.live.devices import list_devices

    devices = list_devices()
    if as_json:
        console.print_json(devices)
        return
    rows = [
        [
            device.name,
            device.system,
            str(device.index),
            str(device.inputs),
            str(device.outputs),
            str(device.sample_rate),
            "yes" if device.default else "",
        ]
        for device in devices
    ]
    columns = ["device", "system", "number", "inputs", "outputs", "Hz", "default"]
    console.print_table(columns, rows, texts=2)


@contextmanager
def _recording(
    path: Path, sample_rate: int, channels: int, overwrite: bool
) -> Iterator[Callable[["Piece"], None]]:
    """Open the files of a recording; yield the function that appends to them."""
    from denoisecli.audio.writing import writer

    paths = [path, path.with_suffix(f".raw{path.suffix}")]
    with ExitStack() as exits:
        files: list[AudioWriter] = [
            exits.enter_context(writer(each, sample_rate, channels, frames=0, overwrite=overwrite))
            for each in paths
        ]

        def append(piece: "Piece") -> None:
            for file, block in zip(files, (piece.clean, piece.noisy), strict=True):
                file.write(block)

        yield append


def _print_summary(meters: "Meters", display: "_LiveMeters", as_json: bool) -> None:
    load = meters.cpu_seconds / meters.seconds if meters.seconds else 0.0
    if as_json:
        facts = {
            "seconds": meters.seconds,
            "load": load,
            "dropouts": meters.dropouts,
            "lost": meters.lost,
            "stretched_samples": meters.stretched,
            "model_delay_seconds": display.delay,
            "interruptions": display.interruptions,
        }
        console.print_json(facts)
        return
    console.info(
        f"{meters.seconds:.1f} s of sound; load {load:.1%} of a core; {meters.dropouts} dropouts; "
        f"input lost {meters.lost} times"
    )


class _LiveMeters(LiveDisplay):
    """The meters of a live filter.

    Args:
        live: The filter.
        delay: Delay of the model in seconds.

    Attributes:
        is_running: Whether sound passes through it, or a device is waited for.
        interruptions: Number of times that a device was disconnected.
        text: Last message.
    """

    def __init__(self, live: "LiveFilter", delay: float) -> None:
        super().__init__()
        self.live = live
        self.delay = delay
        self.is_running = False
        self.interruptions = 0
        self.text = "opening the devices"

    def press(self, key: str) -> bool:
        """Handle a key, and return whether it ends the command."""
        if key == "b":
            self.live.bypass = not self.live.bypass
        return key == "q"

    def render(self) -> RenderableType:
        """Return what is drawn."""
        table = Table.grid(padding=(0, 1))
        if not self.is_running:
            table.add_row(self.text)
            return table
        meters = self.live.meters
        table.add_row("in", _bar(meters.level_in), _level(meters.level_in))
        table.add_row("out", _bar(meters.level_out), _level(meters.level_out))
        milliseconds = 1000 * (self.delay + meters.waiting)
        table.add_row(
            "",
            f"gain {meters.gain:+.1f} dB   load {meters.load:.1%}   "
            f"delay {milliseconds:.0f} ms + devices   {meters.dropouts + meters.lost} dropouts",
        )
        state = "BYPASS: the microphone as it is" if self.live.bypass else "clean"
        table.add_row("", f"{state}   (b: bypass, q: stop)")
        return table


def _bar(dbfs: float) -> str:
    share = min(max(1 - dbfs / _LOWEST_DBFS, 0.0), 1.0)
    filled = round(share * _BAR_WIDTH)
    return "█" * filled + "·" * (_BAR_WIDTH - filled)


def _level(dbfs: float) -> str:
    return f"{dbfs:6.1f} dBFS" if dbfs > _LOWEST_DBFS else "silent"


@contextmanager
def _keys(press: Callable[[str], bool], stop: threading.Event) -> Iterator[None]:
    """Hand the keys that are pressed to a function while the block runs, if there is a keyboard."""
    if not _has_keyboard():
        yield
        return
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            key = poll()
            if key and press(key.lower()):
                stop.set()

    thread = threading.Thread(target=read, name="denoise-keys", daemon=True)
    with _single_keys() as poll:
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _has_keyboard() -> bool:
    """Return whether stdin is a terminal, with this process in its foreground.

    The system stops a background process that reads from its terminal or changes its settings.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        return False
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # a terminal that controls no processes
        return True


@contextmanager
def _single_keys() -> Iterator[Callable[[], str]]:
    """Yield a function that waits a moment for a key, and returns it or an empty string."""
    if sys.platform == "win32":
        import msvcrt

        def poll() -> str:
            time.sleep(0.1)
            return msvcrt.getwch() if msvcrt.kbhit() else ""

        yield poll
        return
    import select
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def poll() -> str:
        if not _has_keyboard():  # it was moved to the background
            time.sleep(0.1)
            return ""
        ready, _, _ = select.select([descriptor], [], [], 0.1)
        return os.read(descriptor, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(descriptor)
        yield poll
    finally:
        if _has_keyboard():
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
