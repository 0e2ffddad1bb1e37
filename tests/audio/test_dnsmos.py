import importlib
import sys
import types

import numpy as np
import pytest

from denoisecli.audio import dnsmos as module
from denoisecli.audio.dnsmos import SAMPLE_RATE, dnsmos, window_starts
from denoisecli.errors import UsageError


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(9.01, [0]), (10, [0]), (10.99, [0]), (11, [0, 1]), (12.5, [0, 1, 2]), (18.02, [*range(9)])],
)
def test_windows_are_those_of_the_package(seconds, expected):
    starts = window_starts(int(seconds * SAMPLE_RATE))
    assert starts == [SAMPLE_RATE * second for second in expected]


def test_windows_of_a_long_sound_are_spread_over_it():
    starts = window_starts(3600 * SAMPLE_RATE)
    assert len(starts) == 60
    assert starts[0] == 0
    assert starts[-1] == 3590 * SAMPLE_RATE
    assert np.ptp(np.diff(starts)) <= SAMPLE_RATE


def test_noise_lowers_the_ratings(speech, noise):
    clean = speech(5.0, 48000)
    noisy = clean + noise(5.0, 48000) * 0.3
    before, after = dnsmos(noisy, 48000), dnsmos(clean, 48000)
    assert 1 <= before.bak < after.bak <= 5
    assert all(1 <= rating <= 5 for rating in (*before, *after))


def test_silence_has_no_ratings():
    assert dnsmos(np.zeros(16000, np.float32), 16000) is None


def test_a_missing_package_is_named(monkeypatch):
    module._session.cache_clear()
    monkeypatch.setattr("denoisecli.system.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"DNSMOS needs speechmos: pip install \"denoisecli\[dnsm"):
        dnsmos(np.ones(16000, np.float32), 16000)


@pytest.mark.slow
def test_ratings_equal_those_of_the_package(monkeypatch, speech, noise):
    monkeypatch.setitem(sys.modules, "requests", types.SimpleNamespace(session=None))  # undeclared
    reference = importlib.import_module("speechmos.dnsmos")
    rng = np.random.default_rng(1)
    for number, seconds in enumerate((0.6, 2.4, 4.7, 9.01, 10.99, 12.5)):
        sound = speech(seconds, 16000) * float(rng.uniform(0.1, 1))
        sound = np.clip(sound + float(rng.uniform(0, 0.5)) * noise(seconds, 16000), -1, 1)
        expected = reference.run(sound.astype(np.float32), SAMPLE_RATE)
        found = dnsmos(sound.astype(np.float32), SAMPLE_RATE)
        names = ("sig_mos", "bak_mos", "ovrl_mos")
        assert found == pytest.approx([expected[name] for name in names], abs=0.01), number
