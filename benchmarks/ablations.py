"""Measure the contribution of each part of a spec: train it with one change at a time and compare.

    python -m benchmarks.ablations STUDY DATA CLEAN NOISY [--runs RUNS] [--only PATTERN]

STUDY is a JSON file such as examples/ablations/study.json. It names a spec, values that replace
those of the spec, and changes: values by their paths, as in the `search` section of a spec. DATA is
a dataset that `denoise build-dataset` wrote; CLEAN and NOISY are folders of recordings with the
same names. `denoise train` trains every variant in a folder below RUNS, and its model is evaluated
on CLEAN and NOISY. Finished variants are skipped, so an interrupted study can be continued. Several
processes can work on one study if each has a PATTERN of its own. The table lists all results so
far.
"""

import argparse
import json
import math
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks import markdown
from denoisecli.evaluation.estimators import Model
from denoisecli.evaluation.evaluate import evaluate
from denoisecli.evaluation.metrics import METRICS as ALL_METRICS
from denoisecli.evaluation.pairs import folder_pairs
from denoisecli.models.catalogue import load_spec
from denoisecli.models.folder import ModelFolder
from denoisecli.spec.document import Spec, save_spec
from denoisecli.spec.search_space import with_values
from denoisecli.training.run_folder import MODEL

METRICS = ("pesq_wb", "stoi", "estoi", "si_sdr")

UNCHANGED = "unchanged"
"""Name of the variant without a change; the others are shown as differences to it."""

SCORES = "scores.json"


def variants(study: Path) -> dict[str, Spec]:
    """Return the specs of a study by the names of their changes, the unchanged one first."""
    document = json.loads(study.read_text(encoding="utf-8"))
    base = with_values(load_spec(document["spec"]), document["values"])
    changes: dict[str, dict[str, Any]] = {UNCHANGED: {}, **document["changes"]}
    return {name: with_values(base, values) for name, values in changes.items()}


def run_folder(runs: Path, name: str) -> Path:
    """Return the folder that a variant is trained in."""
    return runs / re.sub(r"\W+", "-", name).strip("-").lower()


def measure(spec: Spec, run: Path, data: Path, clean: Path, noisy: Path) -> None:
    """Train and evaluate a variant, unless its scores are in the folder of its run."""
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
    test = ModelFolder(run / MODEL).read_metrics().test
    scores["test_si_sdr_improvement"] = test["si_sdr_improvement"] or math.nan
    (run / SCORES).write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


def table(names: list[str], runs: Path) -> str:
    """Return the means of the unchanged variant and, if it is trained, the differences to it."""
    headings = [ALL_METRICS[metric].heading for metric in METRICS]
    decimals = [*(ALL_METRICS[metric].decimals for metric in METRICS), 2]
    rows = []
    unchanged: list[float] = []
    for name in names:
        path = run_folder(runs, name) / SCORES
        if not path.exists() or (name != UNCHANGED and not unchanged):
            continue
        values = list(json.loads(path.read_text(encoding="utf-8")).values())
        if name == UNCHANGED:
            unchanged = values
            cells = [f"{value:.{d}f}" for value, d in zip(values, decimals, strict=True)]
        else:
            differences = [a - b for a, b in zip(values, unchanged, strict=True)]
            cells = [f"{value:+.{d}f}" for value, d in zip(differences, decimals, strict=True)]
        rows.append([name, *cells])
    return markdown.table(["change", *headings, "SI-SDR gain on the test split, dB"], rows)


def main() -> None:
    """Train and evaluate the missing variants, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__)
    for name in ("study", "data", "clean", "noisy"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--only", default="*", help="pattern of the names of the changes to train")
    options = parser.parse_args()
    specs = variants(options.study)
    for name, spec in specs.items():
        if fnmatch(name, options.only):
            run = run_folder(options.runs, name)
            measure(spec, run, options.data, options.clean, options.noisy)
    print(table(list(specs), options.runs))


if __name__ == "__main__":
    main()
