"""Stop `denoise clean` at random moments, and count what it leaves behind.

    python -m benchmarks.clean_kills [--count 200] [--seed 0]

A batch in one or two processes, or a pipe, gets SIGINT, SIGTERM or SIGKILL after a random time.
Counted are outputs under their final name that are not whole, processes that live 5 s later,
temporary files, and wrong exit codes. SIGKILL leaves temporary files; those that the next run
leaves are counted. A run of 200 takes about ten minutes on two cores.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.clean_inputs import write_model

PROGRAM = [sys.executable, "-c", "from denoisecli.cli import main; main()"]
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: 137}
SECONDS = 240
"""Length of a recording, so that cleaning takes a second or two."""

PATIENCE = 5.0
"""Seconds after which no process may live."""


def write_recordings(folder: Path) -> None:
    """Write the recordings of a batch."""
    folder.mkdir()
    for name in ("a", "b", "c"):
        noise = np.random.default_rng(0).integers(-999, 999, (SECONDS * 8000, 2), np.int16)
        soundfile.write(folder / f"{name}.wav", noise, 8000)


def lives(group: int) -> bool:
    """Return whether a process of a group lives."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def partial_files(out: Path) -> list[Path]:
    """Return the outputs that are not whole."""
    wrong = []
    for path in out.glob("[!.]*.wav"):
        try:
            whole = soundfile.info(path).duration == SECONDS
        except soundfile.LibsndfileError:
            whole = False
        if not whole:
            wrong.append(path)
    return wrong


def start(mode: str, source: Path, out: Path, model: Path) -> subprocess.Popen[bytes]:
    """Start to clean."""
    options = ["--model", str(model), "--overwrite"]
    if mode == "pipe":
        arguments = ["clean", "-", "-o", str(out / "p.wav"), *options]
    else:
        jobs = mode.removeprefix("batch ")
        arguments = ["clean", str(source), "-o", str(out), "--jobs", jobs, *options]
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=(source / "a.wav").open("rb") if mode == "pipe" else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def run(work: Path, number: int, mode: str, kind: int, delay: float) -> list[str]:
    """Start a run and stop it; return what went wrong."""
    out = work / f"out{number}"
    out.mkdir()
    wrong = []
    process = start(mode, work / "in", out, work / "model")
    try:
        process.communicate(timeout=delay)
        ended_before = True
    except subprocess.TimeoutExpired:
        ended_before = False
        process.send_signal(kind)  # to the parent alone, as `kill` does
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and (process.poll() is None or lives(process.pid)):
        time.sleep(0.05)
    if process.poll() is None or lives(process.pid):
        wrong.append("processes left")
        os.killpg(process.pid, signal.SIGKILL)
    _, errors = process.communicate()
    if b"Traceback" in errors:
        wrong.append("tracebacks")
    code = process.returncode
    code = 128 - code if code < 0 else code  # as a shell shows it
    if not ended_before and code not in (SIGNALS[signal.Signals(kind)], 0):
        wrong.append("wrong exit codes")
    if partial_files(out):
        wrong.append("partial files")
    if list(out.glob(".*")) and kind == signal.SIGKILL:
        time.sleep(1.1)  # a folder that is just being created is left alone
        soundfile.write(work / "short.wav", np.zeros(8000), 8000)
        arguments = [work / "short.wav", "-o", out / "next.wav", "--model", work / "model"]
        subprocess.run([*PROGRAM, "clean", *arguments], check=True, stderr=subprocess.DEVNULL)
    if list(out.glob(".*")):
        wrong.append("temporary files left")
    if wrong:
        print(f"{number}: {mode}, signal {kind} after {delay:.2f} s: {', '.join(wrong)}")
        print(errors.decode(), file=sys.stderr)
    return wrong


def main() -> None:
    """Run all and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # A shell starts programs in the background with Ctrl-C ignored, and they would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = np.random.default_rng(arguments.seed)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="denoise-") as folder:
        work = Path(folder)
        write_recordings(work / "in")
        write_model(work / "model")
        longest: dict[str, float] = {}
        for mode in ("batch 1", "batch 2", "pipe"):
            (work / mode).mkdir()
            before = time.monotonic()
            start(mode, work / "in", work / mode, work / "model").communicate()
            longest[mode] = time.monotonic() - before
        for number in range(arguments.count):
            mode = str(rng.choice(list(longest)))
            kind = int(rng.choice(list(SIGNALS)))
            delay = float(rng.uniform(0.05, 1)) * longest[mode]
            counts.update(run(work, number, mode, kind, delay))
    print(f"| of {arguments.count} runs that were stopped | number |\n|---|---|")
    for name in (
        *("partial files", "processes left", "temporary files left", "wrong exit codes"),
        "tracebacks",
    ):
        print(f"| {name} | {counts[name]} |")


if __name__ == "__main__":
    main()
