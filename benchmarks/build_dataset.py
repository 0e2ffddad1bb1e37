"""Compare the time of `denoise build-dataset` with that of decoding and resampling the same files.

    python -m benchmarks.build_dataset [CLEAN NOISE]

Without folders, generated speech-like sounds and noises are used: FLAC, 48 kHz. Both are measured
alternately, with one process and with one per core, and the fastest of several rounds counts. On a
machine that does other work, compare the CPU seconds.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from benchmarks import markdown
from denoisecli.audio.reading import reader
from denoisecli.audio.resampling import StreamResampler
from denoisecli.datasets.building import build
from denoisecli.datasets.manifest import load_manifest
from denoisecli.datasets.recipe import Recipe
from denoisecli.datasets.recordings import Role, find_recordings
from denoisecli.errors import AudioError
from denoisecli.system.pools import cpu_cores, processes

RECIPE = Recipe(snr_db=(-5.0, 20.0))
_CHUNK = 32


@dataclass(frozen=True)
class Cost:
    """Elapsed time in s, and the sum of the time of all CPU cores in s."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Comparison:
    """The cost of decoding alone and of the build, with a number of processes."""

    jobs: int
    floor: Cost
    build: Cost


@dataclass(frozen=True)
class Results:
    """Number of files, hours of pairs, peak memory of this process in MB, and the costs."""

    files: int
    hours: float
    memory_mb: float
    comparisons: list[Comparison]


def cost(work: Callable[[], object]) -> Cost:
    """Measure a function, including the processes that it starts and ends."""
    start, cpu = time.perf_counter(), _cpu_seconds()
    work()
    return Cost(time.perf_counter() - start, _cpu_seconds() - cpu)


def decode_only(paths: list[Path]) -> int:
    """Decode and resample files, discard the result, and return the number of samples."""
    samples = 0
    for path in paths:
        try:
            with reader(path) as file:
                resample = StreamResampler(file.info.sample_rate, RECIPE.sample_rate, 1)
                for block in file:
                    samples += resample(block.mean(axis=0, keepdims=True)).shape[1]
                samples += resample.finish().shape[1]
        except AudioError:
            continue
    return samples


def floor(paths: list[Path], jobs: int) -> int:
    """Decode and resample all files in ``jobs`` processes, and return the number of samples."""
    chunks = [paths[first : first + _CHUNK] for first in range(0, len(paths), _CHUNK)]
    with processes(jobs) as workers:
        return sum(workers.map(decode_only, chunks))


def measure(clean: Path, noise: Path, rounds: int = 2) -> Results:
    """Measure decoding alone and the build, with one process and with one per core."""
    import tensorflow  # noqa: F401  # the time of its import is not measured

    roots: dict[Role, Path] = {"clean": clean, "noise": noise}
    paths = [roots[file.role] / file.name for file in find_recordings(roots)]
    comparisons = []
    with tempfile.TemporaryDirectory() as folder:
        for jobs in sorted({1, cpu_cores()}):
            floors, builds = [], []
            for number in range(rounds):
                floors.append(cost(partial(floor, paths, jobs)))
                target = Path(folder) / f"{jobs} {number}"
                builds.append(cost(partial(build, clean, noise, target, RECIPE, jobs=jobs)))
            comparisons.append(Comparison(jobs, _least(floors), _least(builds)))
        hours = sum(facts.hours for facts in load_manifest(target).sets.values())
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return Results(len(paths), hours, memory_mb, comparisons)


def generate(folder: Path, files: int = 60, seconds: float = 30.0) -> tuple[Path, Path]:
    """Write recordings for a dataset: harmonics in syllables, and coloured noises."""
    rng, rate = np.random.default_rng(0), 48000
    t = np.arange(round(seconds * rate)) / rate
    for number in range(files):
        pitch = 90 + 4 * number
        voice = sum(np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 20))
        syllables = np.clip(np.sin(2 * np.pi * 2.1 * t + number), 0, None)
        sound = 0.05 * voice * syllables + 1e-4 * rng.standard_normal(t.size)
        _write(folder / "clean" / f"speaker{number % 6}" / f"{number}.flac", sound, rate)
    for number in range(files // 3):
        noise = (
            np.cumsum(rng.standard_normal(t.size)) if number % 2 else rng.standard_normal(t.size)
        )
        noise -= np.linspace(noise[0], noise[-1], noise.size)
        _write(folder / "noise" / f"{number}.flac", 0.5 * noise / np.abs(noise).max(), rate)
    return folder / "clean", folder / "noise"


def table(results: Results) -> str:
    """Return the results as a table."""
    columns = ("jobs", "measure", "decode and resample", "build", "ratio")
    rows = [
        (str(each.jobs), label, f"{floor:.1f}", f"{build:.1f}", f"{build / floor:.2f}")
        for each in results.comparisons
        for label, floor, build in (
            ("elapsed time, s", each.floor.seconds, each.build.seconds),
            ("CPU time, s", each.floor.cpu_seconds, each.build.cpu_seconds),
        )
    ]
    return (
        f"{results.files} files to {results.hours:.2f} h of pairs; peak memory including "
        f"TensorFlow {results.memory_mb:.0f} MB.\n\n" + markdown.table(columns, rows, texts=2)
    )


def main() -> None:
    """Measure, and print the table."""
    if len(sys.argv) == 3:
        results = measure(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            results = measure(*generate(Path(folder)))
    print(table(results))


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _least(costs: list[Cost]) -> Cost:
    return Cost(min(c.seconds for c in costs), min(c.cpu_seconds for c in costs))


def _write(path: Path, sound: np.ndarray, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate)


if __name__ == "__main__":
    main()
