"""How good and how fast the bundled model is, beside the baselines, in one run.

    python -m benchmarks.quality CLEAN NOISY [MODEL]

CLEAN and NOISY are folders of recordings with the same names. Each denoiser cleans one file after
the other, in a process of its own with nothing else running, on one thread.
"""

import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from denoisecli.estimators import Model, SpectralGating, Wiener
from denoisecli.evaluate import evaluate
from denoisecli.testsets import pairs

METRICS = ("pesq_wb", "stoi", "estoi", "si_sdr")


def measure(clean: Path, noisy: Path, model: str = "speech") -> list[dict[str, Any]]:
    """Evaluate; a row per denoiser: means of the metrics, x real time, seconds to load, MB."""
    estimators = {model: Model(model), "noisereduce": SpectralGating(), "wiener": Wiener()}
    evaluation = evaluate(pairs(clean, noisy), estimators, metrics=METRICS, jobs=2)
    rows = []
    for name, cost in evaluation.costs.items():
        row: dict[str, Any] = {"denoiser": name}
        for metric in METRICS:
            values = evaluation.values(name, metric).values()
            row[metric] = sum(values) / len(values)
        row["real_time"] = 1 / cost.real_time_factor  # NaN where it means nothing
        row["load_seconds"] = cost.load_seconds
        row["memory_mb"] = cost.peak_memory_mb
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    result = Table(
        "denoiser", "PESQ-WB", "STOI", "ESTOI", "SI-SDR", "x real time", "load s", "peak MB"
    )
    for row in rows:
        result.add_row(
            row["denoiser"],
            *(f"{row[metric]:.3f}" for metric in METRICS),
            *(
                "-" if math.isnan(row[key]) else f"{row[key]:.{digits}f}"
                for key, digits in (("real_time", 0), ("load_seconds", 2), ("memory_mb", 0))
            ),
        )
    return result


def main() -> None:
    """Measure and print."""
    if len(sys.argv) < 3:
        raise SystemExit("which folders? python -m benchmarks.quality CLEAN NOISY [MODEL]")
    Console().print(table(measure(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])))


if __name__ == "__main__":
    main()
