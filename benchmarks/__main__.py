"""Run the benchmarks one after the other, and write what they print to benchmarks/results.md.

    python -m benchmarks [--valid CLEAN NOISY] [--recordings SPEECH NOISE] [--data DATA]

Without --valid the quality is not measured, without --recordings a dataset is built from generated
sound and no training step is measured with mixed batches, and without --data the input pipeline and
training on a stored dataset are not measured. Nothing else should run on the
machine.
"""

import argparse
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

RESULTS = Path(__file__).parent / "results.md"
QUALITY = Path(__file__).parent / "quality.png"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark to run.

    Attributes:
        title: Heading of its section.
        module: Its module in this package.
        usage: Its arguments, as the page shows them.
        arguments: Its arguments in this run.
    """

    title: str
    module: str
    usage: str = ""
    arguments: tuple[str | Path, ...] = ()

    def run(self) -> str:
        """Run the benchmark in a process of its own, and return what it prints."""
        print(f"{self.module} ...", file=sys.stderr)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{self.module}", *map(str, self.arguments)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def section(self) -> str:
        """Run the benchmark, and return its section of the page."""
        command = f"python -m benchmarks.{self.module} {self.usage}".strip()
        return f"\n## {self.title}\n\n    {command}\n\n{self.run()}\n"


def machine() -> str:
    """Return the date, the machine and the versions of the packages."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line
            for line in cpuinfo.read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        processor = names[0].partition(":")[2].strip() if names else processor
    packages = ("tensorflow", "keras", "onnxruntime", "numpy")
    return (
        f"{date.today()}, {os.cpu_count()} cores of {processor}, {platform.system()}, "
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
    )


def _of_train_step(
    data: Path | None, recordings: list[Path] | None
) -> tuple[str, tuple[str | Path, ...]]:
    """Return how the page shows the arguments of train_step, and the arguments."""
    backends = [name for name in ("tensorflow", "jax") if find_spec(name)]
    usage = ["--backends", *backends]
    arguments: list[str | Path] = [*usage]
    if data is not None:
        usage += ["--data", "DATA"]
        arguments += ["--data", data]
    if recordings is not None:
        usage += ["--clean", "SPEECH", "--noise", "NOISE"]
        arguments += ["--clean", recordings[0], "--noise", recordings[1]]
    return " ".join(usage), tuple(arguments)


def main() -> None:
    """Run the benchmarks and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--valid", nargs=2, type=Path, metavar=("CLEAN", "NOISY"))
    parser.add_argument("--recordings", nargs=2, type=Path, metavar=("SPEECH", "NOISE"))
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    benchmarks = []
    if options.valid:
        usage, arguments = "CLEAN NOISY --plot quality.png", (*options.valid, "--plot", QUALITY)
        benchmarks.append(Benchmark("Quality", "quality", usage, arguments))
    usage, arguments = _of_train_step(options.data, options.recordings)
    benchmarks += [
        Benchmark("Cleaning", "cleaning"),
        Benchmark("Live sound", "live"),
        Benchmark("Training step", "train_step", usage, arguments),
    ]
    if options.recordings:
        usage, arguments = "SPEECH NOISE", tuple(options.recordings)
        benchmarks.append(Benchmark("Building a dataset", "build_dataset", usage, arguments))
    else:
        benchmarks.append(Benchmark("Building a dataset", "build_dataset"))
    if options.data:
        benchmarks.append(Benchmark("Input pipeline", "input_pipeline", "DATA", (options.data,)))
    page = f"# Results of the benchmarks\n\nMeasured on {machine()}.\n"
    for benchmark in benchmarks:
        page += benchmark.section()
        RESULTS.write_text(page, encoding="utf-8")  # after each one, because some take minutes
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
