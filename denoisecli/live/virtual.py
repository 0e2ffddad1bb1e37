"""A virtual microphone of PulseAudio or PipeWire, which other programs can choose.

It is a null sink, which takes the clean sound, and a source that repeats what the sink plays. The
programs that hide the monitors of sinks show such a source like any microphone.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from denoisecli.errors import DenoiseError, UsageError

SINK = "denoise"
SOURCE = "denoise_microphone"
_ANSWER_SECONDS = 5.0
_OWNER = "denoise.process"  # property of the sink and the source
DEVICE = "pulse"
"""Device of PortAudio that plays to PulseAudio, to the sink that PULSE_SINK names."""


@contextmanager
def virtual_microphone(sample_rate: int) -> Iterator[str]:
    """Provide a virtual microphone for as long as the block runs.

    Args:
        sample_rate: Its sample rate in Hz.

    Yields:
        The name of the output device to play to.

    Raises:
        UsageError: There is no ``pactl``.
        DenoiseError: The sound system does not answer, or refuses.
    """
    if shutil.which("pactl") is None:
        raise UsageError(
            "a virtual microphone needs pactl, of the package pulseaudio-utils; on macOS and "
            "Windows install a virtual device and give its name to --output (docs/live.md)"
        )
    _remove_abandoned()
    modules: list[str] = []
    before = os.environ.get("PULSE_SINK")
    try:
        modules += _pactl(
            "load-module",
            "module-null-sink",
            f"sink_name={SINK}",
            f"rate={sample_rate}",
            _properties("sink", "Denoise"),
        )
        modules += _pactl(
            "load-module",
            "module-remap-source",
            f"source_name={SOURCE}",
            f"master={SINK}.monitor",
            _properties("source", "Denoise-Microphone"),
        )
        os.environ["PULSE_SINK"] = SINK
        yield DEVICE
    finally:
        if before is None:
            os.environ.pop("PULSE_SINK", None)
        else:
            os.environ["PULSE_SINK"] = before
        with suppress(DenoiseError):  # the sound system has ended
            for module in reversed(modules):
                _pactl("unload-module", module)


def _properties(kind: str, description: str) -> str:
    return f'{kind}_properties="device.description={description} {_OWNER}={os.getpid()}"'


def _remove_abandoned() -> None:
    """Remove the virtual microphone of a process that was killed.

    Raises:
        UsageError: The process runs.
    """
    for line in reversed(_pactl("list", "short", "modules")):
        owner = re.search(rf"{_OWNER}=(\d+)", line)
        if owner is None:
            continue
        if _is_running(int(owner[1])):
            raise UsageError(f"process {owner[1]} already provides a virtual microphone")
        _pactl("unload-module", line.split("\t")[0])


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _pactl(*arguments: str) -> list[str]:
    """Run ``pactl`` and return the lines that it prints."""
    try:
        result = subprocess.run(
            ["pactl", *arguments], capture_output=True, text=True, timeout=_ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise DenoiseError(
            f"pactl {arguments[0]} failed: the sound system does not answer"
        ) from error
    if result.returncode:
        raise DenoiseError(f"pactl {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout.splitlines()
