"""Measure the cost of `denoise clean`: start-up, by length of the file, and by part of the work.

    python -m benchmarks.cleaning [MODEL] [--minutes MINUTES ...]

Times and memory are those of a whole process, from its start to its end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soundfile

from benchmarks import markdown
from denoisecli.models.catalogue import find_model
from denoisecli.models.folder import ModelFolder

NOISY = Path(__file__).parents[1] / "examples" / "noisy.wav"
MINUTES = (1, 10, 60)
REPEATS = 3
"""Number of runs of a process; the fastest counts, because other load can only add time."""


@dataclass(frozen=True)
class Process:
    """A run of the command: elapsed time in s, CPU time in s, peak memory in MB."""

    seconds: float
    cpu_seconds: float
    memory_mb: float


def run(*arguments: str | Path, cores: int | None = None) -> Process:
    """Run `denoise` and measure it, on so many cores (on Linux)."""
    code = "import sys; from denoisecli.cli.app import main; sys.argv[0] = 'denoise'; main()"
    usable = sorted(os.sched_getaffinity(0))[:cores] if hasattr(os, "sched_getaffinity") else []
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=(lambda: os.sched_setaffinity(0, usable)) if usable else None,
    )
    assert process.stderr is not None
    messages = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise RuntimeError(f"denoise {' '.join(map(str, arguments))}: {messages.decode()}")
    scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    return Process(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale)


def fastest(*arguments: str | Path, cores: int | None = None) -> Process:
    """Run `denoise` several times and return the fastest run."""
    runs = [run(*arguments, cores=cores) for _ in range(REPEATS)]
    return min(runs, key=lambda process: process.seconds)


def write_noise(path: Path, seconds: float, sample_rate: int, channels: int) -> Path:
    """Write the noisy example repeatedly, at another sample rate and number of channels."""
    import soxr

    sound, rate = soundfile.read(NOISY, dtype="float32")
    sound = soxr.resample(sound, rate, sample_rate)
    block = np.stack([np.roll(sound, i * sample_rate) for i in range(channels)], axis=1)
    left = round(seconds * sample_rate)
    with soundfile.SoundFile(path, "w", sample_rate, channels, "PCM_16", format="RF64") as file:
        while left > 0:
            file.write(block[:left])
            left -= len(block)
    return path


def time_by_operator(model: Path, seconds: float = 4.0) -> dict[str, float]:
    """Return the share of each kind of ONNX operator in the time of the network, on one thread."""
    spec = json.loads((model / "spec.json").read_text())
    frames = round(seconds * spec["audio"]["sample_rate"] / spec["stft"]["hop_length"])
    shape = (1, spec["stft"]["n_fft"] // 2 + 1, frames, 2)
    spectrum = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(model / "model.onnx", options)
        for _ in range(10):
            session.run(["mask"], {"spectrum": spectrum})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: dict[str, float] = defaultdict(float)
    for event in events:
        kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        if kernel and event["args"]["op_name"] != "Scan":  # whose own nodes are counted
            spent[event["args"]["op_name"]] += event["dur"]
    total = sum(spent.values())
    return {name: spent[name] / total for name in sorted(spent, key=lambda name: -spent[name])}


def time_by_function(model: Path, source: Path, target: Path) -> dict[str, float]:
    """Return the share of each part of the work in the CPU time, from a profile on one thread."""
    import cProfile
    import pstats

    from denoisecli import Denoiser

    denoiser = Denoiser(model, threads=1)
    profile = cProfile.Profile()
    profile.runcall(denoiser.clean_file, source, target, overwrite=True)
    parts: dict[str, float] = defaultdict(float)
    names = {
        # ONNX Runtime may run in another thread, which this one waits for.
        "network (ONNX Runtime)": ("method onnxruntime", "_thread.lock"),
        "STFT and its inverse": ("pypocketfft", "stft.py"),
        "reading and writing": ("soundfile.py", "posix"),
        "resampling": ("soxr", "resample"),
    }
    for (file, _, function), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        place = f"{file} {function}"
        part = next((part for part, keys in names.items() if any(k in place for k in keys)), "rest")
        parts[part] += own
    total = sum(parts.values())
    return {name: parts[name] / total for name in sorted(parts, key=lambda name: -parts[name])}


def seconds_by_stages(model: Path, source: Path, target: Path) -> dict[str, float]:
    """Return the times in s of cleaning a file with the network in two stages and in one."""
    with tempfile.TemporaryDirectory() as folder:
        # Copies, since a bundled model leaves low sample rates to its counterpart.
        staged, whole = (
            ModelFolder(shutil.copytree(model, Path(folder) / name)) for name in ("staged", "whole")
        )
        for path in whole.stage_paths:
            path.unlink(missing_ok=True)
        arguments = ("clean", source, "-o", target, "--overwrite", "--model")
        return {
            "two stages at the same time, half of the threads each": fastest(
                *arguments, staged.path
            ).seconds,
            "one network, all threads": fastest(*arguments, whole.path).seconds,
        }


def measure(model: str = "speech", minutes: tuple[float, ...] = MINUTES) -> dict[str, Any]:
    """Run all measurements.

    Returns:
        ``start_up``: Times in s of `denoise --help` and of cleaning short files.
        ``lengths``: A record for each kind and length of file.
        ``stages``: Times in s of cleaning 10 minutes with two stages of the network and with one.
        ``functions`` and ``operators``: Shares of the time.
    """
    folder = find_model(model).path
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "clean.wav"
        options = ("-o", target, "--model", folder, "--overwrite")
        second = write_noise(Path(scratch) / "second.wav", 1, 16000, 1)
        ten = write_noise(Path(scratch) / "ten.wav", 10, 16000, 1)
        results: dict[str, Any] = {
            "start_up": {
                "denoise --help": fastest("--help").seconds,
                "cleaning 1 s of sound": fastest("clean", second, *options).seconds,
                "cleaning 10 s of sound": fastest("clean", ten, *options).seconds,
            },
            "lengths": [],
        }
        for rate, channels, cores in ((16000, 1, 1), (16000, 1, None), (48000, 2, None)):
            for length in minutes:
                source = write_noise(Path(scratch) / "long.wav", 60 * length, rate, channels)
                process = fastest("clean", source, *options, cores=cores)
                results["lengths"].append(
                    {
                        "sample_rate": rate,
                        "channels": channels,
                        "cores": cores or os.cpu_count(),
                        "minutes": length,
                        "seconds": process.seconds,
                        "real_time": 60 * length / process.seconds,
                        "memory_mb": process.memory_mb,
                    }
                )
        long = write_noise(Path(scratch) / "long.wav", 600, 48000, 1)
        results["stages"] = seconds_by_stages(folder, long, target)
        long = write_noise(Path(scratch) / "long.wav", 300, 16000, 1)
        results["functions"] = time_by_function(folder, long, target)
        results["operators"] = time_by_operator(folder)
    return results


def tables(results: dict[str, Any]) -> list[str]:
    """Return the results as tables."""
    lengths = [
        [
            f"{row['sample_rate'] / 1000:g} kHz, {'mono' if row['channels'] == 1 else 'stereo'}",
            row["cores"],
            f"{row['minutes']:g}",
            f"{row['seconds']:.1f}",
            f"{row['real_time']:.0f}x",
            f"{row['memory_mb']:.0f}",
        ]
        for row in results["lengths"]
    ]
    operators = list(results["operators"].items())[:8]
    return [
        markdown.table(
            ["process", "time, s"],
            [[name, f"{seconds:.2f}"] for name, seconds in results["start_up"].items()],
        ),
        markdown.table(
            ["file", "cores", "length, min", "time, s", "speed", "peak memory, MB"], lengths
        ),
        markdown.table(
            ["network, 10 min at 16 kHz, mono", "time, s"],
            [[name, f"{seconds:.2f}"] for name, seconds in results["stages"].items()],
        ),
        markdown.table(
            ["part of the work, one thread", "share"],
            [[name, f"{share:.0%}"] for name, share in results["functions"].items()],
        ),
        markdown.table(
            ["operator of the network", "share"],
            [[name, f"{share:.0%}"] for name, share in operators],
        ),
    ]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cleaning", description=__doc__)
    parser.add_argument("model", nargs="?", default="speech")
    parser.add_argument("--minutes", nargs="+", type=float, default=MINUTES)
    options = parser.parse_args()
    print("\n\n".join(tables(measure(options.model, tuple(options.minutes)))))


if __name__ == "__main__":
    main()
