"""Run `denoise live` for half an hour between the null sinks of a PulseAudio of its own.

    python -m benchmarks.live_long [--minutes 30] [--buffer 15]

The noisy example is played again and again into one sink, whose monitor is the microphone. Both the
microphone and the virtual microphone of `denoise live --virtual` are recorded, so that the delay
between them can be compared minute by minute. The exit code is 1 if input was lost, if the memory
grew by more than 5 MiB, or if the delay of the last minutes differs from that of the first ones by
more than 10 ms.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import markdown
from benchmarks.live import lag

NOISY = Path(__file__).parents[1] / "examples" / "noisy.wav"
RATE = 48000
MICROPHONES = ("microphone.monitor", "denoise_microphone")
LIVE = [sys.executable, "-c", "from denoisecli.cli.app import main; main()", "live", "--json"]
GROWTH_MIB = 5.0
DRIFT_MS = 10.0
STRETCH_SECONDS = 8
"""Length of the stretches whose delay is measured."""


def pactl(*arguments: str) -> str:
    """Return what the sound server answers."""
    return subprocess.run(["pactl", *arguments], capture_output=True, text=True).stdout


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True)
    return int(found.stdout) / 1024


def delays_ms(recordings: list[Path], minutes: int) -> list[float]:
    """Return the delay between two recordings in each minute, in ms."""
    first, second = (np.memmap(path, "<i2", "r") for path in recordings)
    found = []
    for minute in range(minutes):
        part = slice(start := (60 * minute + 30) * RATE, start + STRETCH_SECONDS * RATE)
        found.append(1000 * lag(second[part].astype(float), first[part].astype(float)) / RATE)
    return found


def server(folder: Path) -> subprocess.Popen[bytes]:
    """Start a sound server with two null sinks, the devices of this process from now on."""
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        os.environ[name] = str(folder)
    os.environ |= {"PULSE_SOURCE": MICROPHONES[0], "PULSE_SINK": "loudspeaker"}
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
    command += ["-L", "module-native-protocol-unix"]
    for name in ("microphone", "loudspeaker"):
        command += ["-L", f"module-null-sink sink_name={name} rate={RATE} channels=1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until(lambda: "loudspeaker" in pactl("list", "short", "sinks"))
    return process


def run(minutes: int, buffer: float, folder: Path) -> int:
    """Run everything, print what was found, and return the exit code."""
    live = subprocess.Popen(
        [*LIVE, "--virtual", "--buffer", str(buffer)], stdout=subprocess.PIPE, text=True
    )
    until(lambda: MICROPHONES[1] in pactl("list", "short", "sources"))
    play = ["paplay", "-d", "microphone", "--latency-msec=20", str(NOISY)]
    player = subprocess.Popen(["sh", "-c", 'while "$@"; do :; done', "sh", *play])
    time.sleep(10)
    recordings = [folder / f"{name}.raw" for name in MICROPHONES]
    recorders = []
    for name, path in zip(MICROPHONES, recordings, strict=True):
        options = [f"--rate={RATE}", "--channels=1", "--format=s16le", "--latency-msec=20"]
        with path.open("wb") as file:
            recorders.append(subprocess.Popen(["parec", "-d", name, *options], stdout=file))
    memory = []
    for _ in range(minutes):
        time.sleep(60)
        memory.append(memory_mib(live.pid))
    live.terminate()
    facts = json.loads(live.communicate(timeout=60)[0])
    for process in (*recorders, player):
        process.terminate()
    delays = delays_ms(recordings, minutes)
    for minute in range(0, minutes, 5):
        print(f"minute {minute + 1}: delay {delays[minute]:.1f} ms, {memory[minute]:.1f} MiB")
    first, last = (float(np.median(part)) for part in (delays[:5], delays[-5:]))
    growth = memory[-1] - memory[0]
    rows = [
        ["sound", f"{facts['seconds'] / 60:.1f} min"],
        ["load", f"{facts['load']:.1%} of a core"],
        ["dropouts of the output, lost input", f"{facts['dropouts']}, {facts['lost']}"],
        [
            "delay of the first, the last five minutes",
            f"{first:.1f}, {last:.1f} ms",
        ],
        ["least delay, most", f"{min(delays):.1f}, {max(delays):.1f} ms"],
        ["memory after a minute, at the end", f"{memory[0]:.1f}, {memory[-1]:.1f} MiB"],
    ]
    print(markdown.table([f"{minutes} min at {RATE // 1000} kHz, mono", "found"], rows))
    return int(facts["lost"] > 0 or growth > GROWTH_MIB or abs(last - first) > DRIFT_MS)


def main() -> int:
    """Parse the options, start a sound server, and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_long", description=__doc__)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--buffer", type=float, default=15, help="option of `denoise live`, in ms")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sound = server(Path(folder))
        try:
            return run(options.minutes, options.buffer, Path(folder))
        finally:
            sound.terminate()
            sound.wait(30)


if __name__ == "__main__":
    sys.exit(main())
