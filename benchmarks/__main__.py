"""Run all benchmarks, one after the other, and write what they print to benchmarks/results.md.

    python -m benchmarks [--valid CLEAN NOISY] [--recordings SPEECH NOISE] [--data DATA]

Without folders: quality is left out, the dataset is built of generated sound, and the input
pipeline is left out. Nothing else should run on the machine meanwhile.
"""

import argparse
import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results.md"
QUALITY = Path(__file__).parent / "quality.png"


def machine() -> str:
    """One line on what this ran on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    packages = ("tensorflow", "keras", "onnxruntime", "numpy")
    return (
        f"{date.today()}, {os.cpu_count()} cores of {processor}, {platform.system()}, "
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
    )


def run(module: str, *arguments: str | Path) -> str:
    """Run one benchmark in a process of its own; returns what it prints."""
    print(f"{module} ...", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "110"},
    )
    return done.stdout.rstrip()


def main() -> None:
    """Run all of them and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--valid", nargs=2, type=Path, metavar=("CLEAN", "NOISY"))
    parser.add_argument("--recordings", nargs=2, type=Path, metavar=("SPEECH", "NOISE"))
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    recordings = options.recordings or ()
    benchmarks: list[tuple[str, str, tuple[str | Path, ...]]] = [
        ("Cleaning: start-up, length of the file, where the time goes", "cleaning", ()),
        ("A training step", "train_step", ()),
        ("build-dataset against its floor", "build_dataset", tuple(recordings)),
    ]
    if options.valid:
        arguments = (*options.valid, "--plot", QUALITY)
        benchmarks.insert(0, ("Quality, beside the baselines", "quality", arguments))
    if options.data:
        arguments = (options.data,)
        benchmarks.append(("Training batches against the step", "input_pipeline", arguments))
    page = f"# Benchmarks\n\nMeasured by `python -m benchmarks` on {machine()}.\n"
    for title, module, arguments in benchmarks:
        page += f"\n## {title}\n\n```\n{run(module, *arguments)}\n```\n"
        RESULTS.write_text(page, encoding="utf-8")  # after each: some take minutes
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
