"""A virtual microphone of PulseAudio or PipeWire, which other programs can choose.

It is a null sink, which takes the clean sound, and a source that repeats what the sink plays. The
programs that hide the monitors of sinks show such a source like any microphone.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from denoisecli.errors import UsageError
from denoisecli.live.portaudio import SoundSystemError

SINK = "denoise"
SOURCE = "denoise_microphone"
_ANSWER_SECONDS = 5.0
_OWNER = "denoise.process"  # property of the sink and the source


@contextmanager
def virtual_microphone(sample_rate: int) -> Iterator[Callable[[], None]]:
    """Provide a virtual microphone for as long as the block runs.

    What this process plays to the device `devices.PULSE` is heard there.

    Args:
        sample_rate: Its sample rate in Hz.

    Yields:
        A function that creates it again if it is missing, as after a restart of the sound server;
        it raises the same errors.

    Raises:
        UsageError: There is no ``pactl``, or a process already provides a virtual microphone.
        SoundSystemError: The sound system does not answer, or refuses.
    """
    if shutil.which("pactl") is None:
        raise UsageError(
            "a virtual microphone needs pactl, of the package pulseaudio-utils; on macOS and "
            "Windows install a virtual device and give its name to --output (docs/live.md)"
        )
    owner = _identity(os.getpid())

    def provide() -> None:
        modules = _modules()
        if sum(one == owner for one in modules.values()) == 2:
            return
        _unload(modules, owner)
        _remove_abandoned()
        _load(sample_rate)

    _remove_abandoned()
    before = os.environ.get("PULSE_SINK")
    try:
        provide()
        os.environ["PULSE_SINK"] = SINK
        yield provide
    finally:
        if before is None:
            os.environ.pop("PULSE_SINK", None)
        else:
            os.environ["PULSE_SINK"] = before
        with suppress(SoundSystemError):  # it has ended
            _unload(_modules(), owner)


def _load(sample_rate: int) -> None:
    """Create the sink and the source."""

    def properties(kind: str, description: str) -> str:
        owner = f"{_OWNER}={_identity(os.getpid())}"
        return f'{kind}_properties="device.description={description} {owner}"'

    sink = (f"sink_name={SINK}", f"rate={sample_rate}", properties("sink", "Denoise"))
    _pactl("load-module", "module-null-sink", *sink)
    source = (f"source_name={SOURCE}", f"master={SINK}.monitor")
    _pactl(
        "load-module", "module-remap-source", *source, properties("source", "Denoise-Microphone")
    )


def _modules() -> dict[str, str]:
    """Return the index and the owner of each module of a virtual microphone.

    They are asked for each time: a server that was started again counts its modules anew.
    """
    found = {}
    for line in _pactl("list", "short", "modules"):
        owner = re.search(rf"{_OWNER}=([\d.]+)", line)
        if owner is not None:
            found[line.split("\t")[0]] = owner[1]
    return found


def _unload(modules: dict[str, str], owner: str | None) -> None:
    """Remove the modules of an owner, the last one first."""
    for index in reversed([index for index, one in modules.items() if one == owner]):
        _pactl("unload-module", index)


def _remove_abandoned() -> None:
    """Remove the virtual microphone of a process that was killed.

    Raises:
        UsageError: The process runs.
    """
    modules = _modules()
    for owner in dict.fromkeys(modules.values()):
        process = owner.partition(".")[0]
        if _identity(int(process)) == owner:
            raise UsageError(f"process {process} already provides a virtual microphone")
        _unload(modules, owner)


def _identity(process: int) -> str | None:
    """Return the ID and the start time of a process, since IDs are reused.

    The start is in ticks after that of the system, or 0 where there is no /proc. The result is None
    if there is no such process.
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # of another user
        pass
    try:
        facts = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{process}.0"
    return f"{process}.{facts.rpartition(')')[2].split()[19]}"


def _pactl(*arguments: str) -> list[str]:
    """Run ``pactl`` and return the lines that it prints."""
    try:
        result = subprocess.run(
            ["pactl", *arguments], capture_output=True, text=True, timeout=_ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise SoundSystemError(
            f"pactl {arguments[0]} failed: the sound system does not answer"
        ) from error
    if result.returncode:
        raise SoundSystemError(f"pactl {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout.splitlines()
