"""What `denoise clean` costs: by length of the file, at start-up, and where the time goes.

    python -m benchmarks.cleaning [MODEL]

Every figure is of a whole process, from its start to its end, the peak of its memory included.
"""

import json
import os
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
from rich.console import Console
from rich.table import Table

from denoisecli.models.catalogue import find_model

NOISY = Path(__file__).parents[1] / "examples" / "noisy.wav"
MINUTES = (1, 10, 60)
REPEATS = 3
"""Every process runs this often; the fastest counts, for others on the machine only add time."""


@dataclass(frozen=True)
class Process:
    """One run of the command: seconds on the clock, CPU seconds, peak memory in MB."""

    seconds: float
    cpu_seconds: float
    memory_mb: float


def run(*arguments: str | Path, cores: int | None = None) -> Process:
    """Run `denoise` and measure it; ``cores`` limits what it may run on (on Linux)."""
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
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise RuntimeError(f"denoise {' '.join(map(str, arguments))}: {said.decode()}")
    scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    return Process(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale)


def fastest(*arguments: str | Path, cores: int | None = None) -> Process:
    """Run `denoise` several times and keep the fastest."""
    runs = [run(*arguments, cores=cores) for _ in range(REPEATS)]
    return min(runs, key=lambda process: process.seconds)


def write_noise(path: Path, seconds: float, sample_rate: int, channels: int) -> Path:
    """Write the noisy example again and again, at another rate and number of channels."""
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
    """Share of the network's time that each kind of ONNX operator takes, on one thread."""
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
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    total = sum(spent.values())
    return {name: spent[name] / total for name in sorted(spent, key=lambda name: -spent[name])}


def time_by_function(model: Path, source: Path, target: Path) -> dict[str, float]:
    """CPU seconds in parts of the work on one file, by the profiler, on one thread."""
    import cProfile
    import pstats

    from denoisecli import Denoiser

    denoiser = Denoiser(model, threads=1)
    profile = cProfile.Profile()
    profile.runcall(denoiser.clean_file, source, target, overwrite=True)
    parts: dict[str, float] = defaultdict(float)
    names = {
        "network (ONNX Runtime)": ("method onnxruntime",),
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


def measure(model: str = "speech", minutes: tuple[float, ...] = MINUTES) -> dict[str, Any]:
    """Run all of it.

    Returns:
        ``start_up``: seconds of `denoise --help` and of cleaning a second of sound, MB;
        ``lengths``: one record per kind and length of file; ``operators`` and ``functions``: shares
        of the time.
    """
    folder = find_model(model).path
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "clean.wav"
        options = ("-o", target, "--model", folder, "--overwrite")
        second = write_noise(Path(scratch) / "second.wav", 1, 16000, 1)
        ten = write_noise(Path(scratch) / "ten.wav", 10, 16000, 1)
        results: dict[str, Any] = {
            "start_up": {
                "help": fastest("--help").seconds,
                "one second": fastest("clean", second, *options).seconds,
                "ten seconds": fastest("clean", ten, *options).seconds,
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
        long = write_noise(Path(scratch) / "long.wav", 300, 16000, 1)
        results["functions"] = time_by_function(folder, long, target)
        results["operators"] = time_by_operator(folder)
    return results


def tables(results: dict[str, Any]) -> list[Table]:
    """The results as tables."""
    start_up = Table("start-up", "seconds", title="Whole process")
    for name, seconds in results["start_up"].items():
        start_up.add_row(name, f"{seconds:.2f}")
    lengths = Table("file", "cores", "minutes", "seconds", "x real time", "peak MB")
    for row in results["lengths"]:
        lengths.add_row(
            f"{row['sample_rate'] / 1000:g} kHz, {row['channels']} ch",
            str(row["cores"]),
            f"{row['minutes']:g}",
            f"{row['seconds']:.1f}",
            f"{row['real_time']:.0f}",
            f"{row['memory_mb']:.0f}",
        )
    shares = Table("where the time goes", "share", title="16 kHz, one thread")
    for name, share in results["functions"].items():
        shares.add_row(name, f"{share:.1%}")
    operators = Table("operator of the network", "share")
    for name, share in list(results["operators"].items())[:8]:
        operators.add_row(name, f"{share:.1%}")
    return [start_up, lengths, shares, operators]


def main() -> None:
    """Measure and print."""
    console = Console()
    for table in tables(measure(sys.argv[1] if len(sys.argv) > 1 else "speech")):
        console.print(table)


if __name__ == "__main__":
    main()
