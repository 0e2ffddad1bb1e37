"""What each part of a spec brings: train it as it is, then with one change at a time, and compare.

    python -m benchmarks.ablations STUDY DATA CLEAN NOISY [--runs RUNS] [--only PATTERN]

STUDY is a JSON file as examples/ablations/study.json: a spec, values that replace its own, and
changes by name, each again values by their paths (as in the `search` section of a spec). DATA is a
dataset of `denoise build-dataset`; CLEAN and NOISY are folders of recordings with the same names.
Every variant is trained in a folder of RUNS by `denoise train` and measured there by `evaluate`;
what is there already is not done again, so a study that was stopped goes on, and two may work on
one at the same time, each at what its PATTERN matches. The table has all that is measured.
"""

import argparse
import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from denoisecli.evaluation.estimators import Model
from denoisecli.evaluation.evaluate import evaluate
from denoisecli.evaluation.pairs import folder_pairs
from denoisecli.models.catalogue import load_spec
from denoisecli.spec.document import Spec, save_spec
from denoisecli.spec.search_space import with_values
from denoisecli.training.run_folder import MODEL

METRICS = ("pesq_wb", "stoi", "estoi", "si_sdr")

AS_IS = "as it is"
"""Name of the variant without a change; the others are shown as differences to it."""

SCORES = "scores.json"


def variants(study: Path) -> dict[str, Spec]:
    """The specs of a study by the names of their changes, the unchanged one first."""
    document = json.loads(study.read_text(encoding="utf-8"))
    base = with_values(load_spec(document["spec"]), document["values"])
    changes: dict[str, dict[str, Any]] = {AS_IS: {}, **document["changes"]}
    return {name: with_values(base, values) for name, values in changes.items()}


def folder(runs: Path, name: str) -> Path:
    """Where a variant is trained."""
    return runs / re.sub(r"\W+", "-", name).strip("-").lower()


def measure(spec: Spec, run: Path, data: Path, clean: Path, noisy: Path) -> None:
    """Train a variant and write its means into its run's folder, if that was not done before."""
    if (run / SCORES).exists():
        return
    if not (run / MODEL).exists():
        run.mkdir(parents=True, exist_ok=True)
        save_spec(spec, run / "variant.json")
        words = ["train", run / "variant.json", "--data", data, "--run", run]
        code = "from denoisecli.cli.app import main; main()"
        subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True)
    name = run.name
    evaluation = evaluate(
        folder_pairs(clean, noisy), {name: Model(str(run / MODEL))}, metrics=METRICS
    )
    scores = {metric: evaluation.mean(name, metric).mean for metric in METRICS}
    metrics = json.loads((run / MODEL / "metrics.json").read_text(encoding="utf-8"))
    scores["test_si_sdr_improvement"] = metrics["test"]["si_sdr_improvement"]
    (run / SCORES).write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


def table(names: list[str], runs: Path) -> Table:
    """Means of the unchanged variant, and what the others differ by."""
    result = Table("change", "PESQ-WB", "STOI", "ESTOI", "SI-SDR", "test split")
    digits = (3, 3, 3, 2, 2)
    base: list[float] = []
    for name in names:
        path = folder(runs, name) / SCORES
        if not path.exists():
            continue
        values = list(json.loads(path.read_text(encoding="utf-8")).values())
        if name == AS_IS:
            base = values
            cells = [f"{value:.{d}f}" for value, d in zip(values, digits, strict=True)]
        else:
            differences = [value - was for value, was in zip(values, base, strict=True)]
            cells = [f"{value:+.{d}f}" for value, d in zip(differences, digits, strict=True)]
        result.add_row(name, *cells)
    return result


def main() -> None:
    """Do what is not done yet and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__)
    for name in ("study", "data", "clean", "noisy"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--only", default="*", help="names of the changes to do now")
    options = parser.parse_args()
    specs = variants(options.study)
    for name, spec in specs.items():
        if fnmatch(name, options.only):
            run = folder(options.runs, name)
            measure(spec, run, options.data, options.clean, options.noisy)
    Console(width=110).print(table(list(specs), options.runs))


if __name__ == "__main__":
    main()
