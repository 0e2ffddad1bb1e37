"""The page of an adaptation: the user's own recordings before and after it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from denoisecli.adaptation.judgement import METRICS, YOURS
from denoisecli.adaptation.material import read_beginning
from denoisecli.audio.files import write
from denoisecli.evaluation.estimators import Model
from denoisecli.evaluation.evaluate import evaluate
from denoisecli.evaluation.metrics import installed_blind_metrics
from denoisecli.evaluation.pairs import Pair
from denoisecli.evaluation.report import write_report
from denoisecli.models.folder import ModelFolder

EXCERPTS = 8
"""Largest number of recordings on the page."""

EXCERPT_SECONDS = 30.0
"""Length in s of the excerpt of each of them."""


def write_page(
    recordings: Sequence[Path],
    mixtures: Sequence[Pair],
    start: ModelFolder,
    work: Path,
    report: Path,
    *,
    overwrite: bool,
) -> None:
    """Write a page with the user's recordings, or else held-out mixtures, before and after.

    Args:
        recordings: The user's recordings.
        mixtures: Pairs of the comparison, which are shown if there are no recordings.
        start: The model that was adapted.
        work: Folder of the adaptation, which holds the adapted model.
        report: Page to write (.html).
        overwrite: Replace an existing page.

    Raises:
        DenoiseError: A recording cannot be read or cleaned, or the page cannot be written.
    """
    adapted = ModelFolder(work / "model")
    pairs = [pair for pair in mixtures if pair.noise == YOURS][:EXCERPTS]
    metrics = list(METRICS)
    if recordings:
        metrics = installed_blind_metrics()
        pairs = []
        for number, path in enumerate(recordings[:EXCERPTS]):
            excerpt = work / "excerpts" / f"{number}.wav"
            sound, rate, _ = read_beginning(path, EXCERPT_SECONDS)
            write(excerpt, sound, rate, overwrite=True)
            pairs.append(Pair(f"{number + 1} {path.stem}", None, excerpt))
    before, after = start.spec.name, adapted.spec.name
    if after == before:
        after += "-adapted"
    shutil.rmtree(work / "cleaned", ignore_errors=True)  # of an interrupted call
    result = evaluate(
        pairs,
        {before: Model(start.path), after: Model(adapted.path)},
        metrics=metrics,
        baseline=before,
        keep=work / "cleaned",
    )
    write_report(
        result, pairs, report, files=EXCERPTS, seconds=EXCERPT_SECONDS, overwrite=overwrite
    )
