from typing import Any

import numpy as np
import pytest
import scipy.signal

from denoisecli.training.augmentation.ops import Parameters, rms
from denoisecli.training.augmentation.synthetic_noise import Clicks, ColouredNoise, Hum

BATCH, LENGTH, RATE = 12, 16000, 8000
SILENCE = np.zeros((BATCH, LENGTH), np.float32)


def drawn(kind: ColouredNoise | Hum | Clicks, batch: int = BATCH) -> Parameters:
    """Return parameters with which all drawn rows are changed."""
    rng = np.random.default_rng(3)
    sizes = (batch,) if isinstance(kind, Hum) else (batch, LENGTH)
    parameters = kind.draw(*sizes, rng)
    parameters["present"][:] = True
    return parameters


@pytest.mark.parametrize("kind", [ColouredNoise, Hum, Clicks])
def test_levels_and_probabilities(kind: Any, rng: np.random.Generator) -> None:
    recorded = rng.normal(size=(BATCH, LENGTH)) * rng.uniform(0.02, 0.2, (BATCH, 1))
    recorded = recorded.astype(np.float32)
    noise = kind(0.6, (-10.0, 10.0), RATE)
    parameters = drawn(noise)
    changed = np.asarray(noise.apply(recorded, parameters))
    added = changed - recorded
    heard = parameters["rows"]
    np.testing.assert_array_equal(np.flatnonzero(rms(added) > 0), np.sort(heard))
    assert 2 < len(heard) < BATCH
    level_db = np.asarray(parameters["level_db"])
    assert ((level_db >= -10) & (level_db <= 10)).all()
    np.testing.assert_allclose(
        20 * np.log10(rms(added[heard]) / rms(recorded[heard])), level_db, atol=0.01
    )
    silence = np.asarray(noise.apply(SILENCE, parameters))  # a faint noise, which remixing raises
    np.testing.assert_allclose(20 * np.log10(rms(silence[heard])) + 80, level_db, atol=0.01)


def test_coloured_noise() -> None:
    noise = ColouredNoise(1.0, (60.0, 60.0), RATE)
    parameters = drawn(noise)
    exponents = np.asarray(parameters["exponent"])
    low, high = ColouredNoise.EXPONENT
    assert ((exponents >= low) & (exponents <= high)).all()
    assert np.ptp(exponents) > 1
    changed = np.asarray(noise.apply(SILENCE, parameters))
    hertz, power = scipy.signal.welch(changed[parameters["rows"]], RATE, nperseg=512)
    used = (hertz > 100) & (hertz < 3900)
    for row, exponent in zip(power, exponents, strict=True):
        slope = np.polyfit(np.log(hertz[used]), np.log(row[used]), 1)[0]
        assert slope == pytest.approx(-exponent, abs=0.15)


def test_hum() -> None:
    hum = Hum(1.0, (60.0, 60.0), RATE)
    parameters = drawn(hum)
    mains = parameters["step"] / 2**32 * RATE
    assert (np.abs(mains / 50 - 1) <= 0.01).sum() + (np.abs(mains / 60 - 1) <= 0.01).sum() == BATCH
    assert (mains < 55).any()
    assert (mains > 55).any()
    changed = np.asarray(hum.apply(SILENCE, parameters), float)
    seconds = np.arange(LENGTH) / RATE
    changed = changed[parameters["rows"]]
    for row, f in zip(changed, mains, strict=True):
        harmonics = 2 * np.pi * f * np.arange(1, Hum.HARMONICS + 1)
        waves = np.concatenate(
            [np.sin(np.outer(harmonics, seconds)), np.cos(np.outer(harmonics, seconds))]
        )
        weights = np.linalg.lstsq(waves.T, row, rcond=None)[0]
        assert np.std(row - weights @ waves) < 0.003 * np.std(row)
        amplitudes = np.hypot(*weights.reshape(2, -1))
        assert amplitudes.min() / amplitudes.max() > 0.009


def test_clicks() -> None:
    clicks = Clicks(1.0, (60.0, 60.0), RATE)
    parameters = drawn(clicks)
    impulses = parameters["impulses"]
    rates = np.count_nonzero(impulses, axis=1) / (LENGTH / RATE)
    assert ((rates > 0) & (rates < 45)).all()
    assert ((impulses >= -1) & (impulses < 1)).all()
    changed = np.asarray(clicks.apply(SILENCE, parameters))[parameters["rows"]]
    kurtosis = np.mean(changed**4, axis=1) / np.mean(changed**2, axis=1) ** 2
    assert (kurtosis > 9).all()  # 3 for stationary noise
    assert (kurtosis[rates < 5] > 50).all()


def test_a_click_rings() -> None:
    clicks = Clicks(1.0, (60.0, 60.0), RATE)
    hertz, decay, at = 500.0, 0.005, 3000
    impulses = np.zeros((1, LENGTH), np.float32)
    impulses[0, at] = 0.7
    parameters = drawn(clicks, 1) | {
        "impulses": impulses,
        "hertz": np.float32([[hertz]]),
        "decay": np.float32([[decay]]),
    }
    changed = np.asarray(clicks.apply(SILENCE[:1], parameters))[0]
    seconds = np.arange(800) / RATE
    expected = np.exp(-seconds / decay) * np.sin(2 * np.pi * hertz * seconds)
    heard = changed[at : at + 800]
    assert np.abs(np.corrcoef(heard, expected)[0, 1]) > 0.99
    assert np.abs(changed[: at - 20]).max() < 0.01 * np.abs(heard).max()


def test_no_click_in_a_segment() -> None:
    clicks = Clicks(1.0, (0.0, 0.0), RATE)
    parameters = drawn(clicks)
    parameters["impulses"][:] = 0
    assert (np.asarray(clicks.apply(SILENCE, parameters)) == 0).all()
