import math
import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from denoisecli.errors import DatasetError, DenoiseError
from denoisecli.evaluation.metrics import check_metrics, measure
from denoisecli.training import scoring as module
from denoisecli.training.scoring import SCORES, scoring
from denoisecli.types import AudioVector

RATE = 16000


@pytest.mark.slow
def test_scores_are_those_of_the_metrics(
    speech: Callable[..., AudioVector], noise: Callable[..., AudioVector]
) -> None:
    """They are the means of the metrics; silent clips do not count."""
    check_metrics(SCORES.values())
    clean = np.stack([speech(1.0, RATE), speech(1.0, RATE, 200.0), np.zeros(RATE, np.float32)])
    estimates = clean + np.stack([noise(1.0, RATE) for _ in clean])
    with scoring(clean, estimates, RATE) as scores:
        found = scores()
    assert set(found) == set(SCORES)
    single = [measure(*pair, RATE, SCORES.values()) for pair in zip(clean, estimates, strict=True)]
    for name, metric in SCORES.items():
        values = [row[metric] for row in single]
        assert math.isnan(values[2])
        assert found[name] == pytest.approx(np.mean(values[:2]))


def test_too_little_speech() -> None:
    clips = np.zeros((2, 800), np.float32)
    message = "no clip has enough speech for PESQ; set"
    with pytest.raises(DatasetError, match=message), scoring(clips, clips, RATE) as scores:
        scores()


def _die(*arguments: object) -> dict[str, float]:
    os._exit(1)


def test_a_process_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_score", _die)
    clips = np.zeros((1, 800), np.float32)
    message = "a worker process died"
    with pytest.raises(DenoiseError, match=message), scoring(clips, clips, RATE) as scores:
        scores()


def _sleep(*arguments: object) -> dict[str, float]:
    time.sleep(0.2)
    return {"pesq": 1.0, "estoi": 0.5}


def test_scores_that_have_not_begun_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C, the scores that have not begun are dropped."""
    monkeypatch.setattr(module, "_score", _sleep)
    clips = np.zeros((500, 800), np.float32)  # 50 s of work
    with pytest.raises(KeyboardInterrupt), scoring(clips, clips, RATE) as scores:
        raise KeyboardInterrupt
    assert sum(future.cancelled() for future in scores.args[0])  # type: ignore[attr-defined] > 400
