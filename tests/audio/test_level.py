import numpy as np
import pytest

from denoisecli.audio.level import LevelMeter, dbfs, rms, snr_db


def test_levels(rng):
    sine = np.sin(2 * np.pi * np.arange(16000) / 160).astype(np.float32)
    assert rms(sine) == pytest.approx(np.sqrt(0.5))
    assert rms(np.zeros((2, 0), np.float32)) == 0
    assert dbfs(rms(sine)) == pytest.approx(-3.01, abs=0.01)
    assert dbfs(0.0) == -np.inf
    assert rms(sine + np.float32(0.5)) == pytest.approx(rms(sine))
    assert rms(np.full((2, 1000), 0.3, np.float32)) == pytest.approx(0, abs=1e-9)
    assert rms(np.stack([sine, np.full_like(sine, 0.9)])) == pytest.approx(0.5)  # a dead channel


def test_level_of_a_stream(rng):
    sound = rng.standard_normal((2, 1000)).astype(np.float32) + np.float32([[0.5], [3]])
    meter = LevelMeter()
    assert meter.dbfs == -np.inf
    for start in range(0, 1000, 300):
        meter.add(sound[:, start : start + 300])
    assert meter.timesteps == 1000
    assert meter.dbfs == pytest.approx(dbfs(rms(sound)), abs=1e-6)
    constant = LevelMeter()
    constant.add(np.full((1, 1000), 0.3, np.float32))
    assert constant.dbfs == -np.inf


def test_snr(rng):
    clean, noise = rng.standard_normal((2, 16000)).astype(np.float32)
    noise *= 0.1 * rms(clean) / rms(noise)
    assert snr_db(clean + noise, clean) == pytest.approx(20, abs=1e-3)
    assert snr_db(2 * clean, clean) == pytest.approx(0)
    assert snr_db(clean + noise + np.float32(1), clean) == pytest.approx(20, abs=1e-3)
    assert snr_db(clean, clean) == np.inf
    assert snr_db(clean, np.zeros_like(clean)) == -np.inf
