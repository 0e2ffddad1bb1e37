import sys

import numpy as np
import pytest
from helpers import mostly_slow

from denoisecli.datasets.choices import ReverbTarget
from denoisecli.datasets.rooms import reverberate, synthetic_response
from denoisecli.errors import UsageError


def test_echoes_are_where_they_should_be(rng: np.random.Generator) -> None:
    response = np.zeros(8000)
    response[[100, 500, 4000]] = -0.5, 0.1, 0.25  # the early one after 25 ms at 16 kHz
    dry = rng.standard_normal(16000).astype(np.float32)
    heard, early = reverberate(dry, response, 16000, ReverbTarget.EARLY)
    assert heard.dtype == early.dtype == np.float32
    expected = dry.copy()
    expected[400:] += -0.2 * dry[:-400]
    np.testing.assert_allclose(early, expected, atol=1e-5)
    expected[3900:] += -0.5 * dry[:-3900]
    np.testing.assert_allclose(heard, expected, atol=1e-5)
    again, target = reverberate(dry, response, 16000, ReverbTarget.DRY)
    np.testing.assert_array_equal(again, heard)
    np.testing.assert_array_equal(target, dry)


def test_no_room_changes_nothing(rng: np.random.Generator) -> None:
    dry = rng.standard_normal(50).astype(np.float32)
    for sound in reverberate(dry, np.array([0.3]), 16000, ReverbTarget.EARLY):
        np.testing.assert_allclose(sound, dry, atol=1e-6)


@pytest.mark.parametrize("number", mostly_slow(range(3), 0))
def test_synthetic_rooms_reverberate(number: int) -> None:
    response = synthetic_response(number, 0, 16000)
    np.testing.assert_array_equal(response, synthetic_response(number, 0, 16000))
    assert response.dtype == np.float32
    assert response.size != synthetic_response(number, 1, 16000).size
    decay = np.cumsum(response[::-1].astype(float) ** 2)[::-1]  # Schroeder's backward integral
    decay = 10 * np.log10(decay / decay[0] + 1e-15)
    seconds = 3 * (np.argmax(decay < -25) - np.argmax(decay < -5)) / 16000
    assert 0.1 < seconds < 1.3


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(UsageError, match=r"pip install \"denoisecli\[rooms\]\""):
        synthetic_response(0, 0, 16000)
