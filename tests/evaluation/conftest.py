"""Evaluations for the tests of the report, in a parser and in a browser."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denoisecli.evaluation.pairs import Pair
from denoisecli.evaluation.scores import Cost, Evaluation, Score


@pytest.fixture(scope="session")
def nasty_name() -> str:
    """Return a name that would break a page that does not escape it."""
    return "<script>alert(1)</script> & \"quoted\" 'name' {{ 7 * 7 }}"


@pytest.fixture(scope="session")
def make_evaluation() -> Callable[..., tuple[Evaluation, list[Pair]]]:
    """Make ``make_evaluation(folder, gains, seconds=1.0, others=())``.

    ``gains`` maps names of recordings to the gain in SI-SDR by the estimator "mine". The noise is a
    tone of 3 kHz, which "mine" removes; ``others`` are estimators that change nothing.
    """

    def make(
        folder: Path, gains: dict[str, float], *, seconds: float = 1.0, others: tuple[str, ...] = ()
    ) -> tuple[Evaluation, list[Pair]]:
        time = np.arange(round(seconds * 16000)) / 16000
        clean = 0.3 * np.sin(2 * np.pi * 440 * time)
        noisy = clean + 0.3 * np.sin(2 * np.pi * 3000 * time)
        pairs, scores = [], []
        files: dict[str, dict[str, Path]] = {name: {} for name in ("input", "mine", *others)}
        for number, (name, gain) in enumerate(gains.items()):
            paths = {kind: folder / kind / f"{number}.wav" for kind in ("clean", "noisy")}
            for kind, sound in (("clean", clean), ("noisy", noisy)):
                paths[kind].parent.mkdir(exist_ok=True)
                soundfile.write(paths[kind], sound, 16000)
            noise = f"kind {number % 2}"
            pairs.append(Pair(name, paths["clean"], paths["noisy"], noise=noise))
            snr_db = 5.0 * (number % 3)
            for estimator in files:
                mine = estimator == "mine"
                files[estimator][name] = paths["clean" if mine else "noisy"]
                values = {"si_sdr": snr_db + (gain if mine else 0.0), "lsd": 3.0 - mine}
                scores.append(Score(name, estimator, noise, snr_db, seconds, 0.1, 0.0, values))
        order = list(files)
        scores.sort(key=lambda score: order.index(score.estimator))
        costs = {name: Cost(0.5, 0.02, 100.0, 0.0) for name in files}
        return Evaluation(["si_sdr", "lsd"], costs, scores, files=files), pairs

    return make
