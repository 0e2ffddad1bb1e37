import numpy as np
import pytest

from denoisecli.training.augmentation.filters import (
    BandLimit,
    Equalization,
    LowPass,
    remove_rumble,
)
from denoisecli.training.augmentation.ops import rms

BATCH, LENGTH, RATE = 8, 4800, 8000


def seeded(number: int = 3) -> np.random.Generator:
    return np.random.default_rng(number)


@pytest.fixture
def speech(rng: np.random.Generator) -> np.ndarray:
    sounds = rng.normal(size=(BATCH, LENGTH)) * rng.uniform(0.02, 0.2, (BATCH, 1))
    return sounds.astype(np.float32)


@pytest.fixture
def impulses() -> np.ndarray:
    sounds = np.zeros((BATCH, LENGTH), np.float32)
    sounds[:, LENGTH // 2] = 1
    return sounds


def response_db(filtered_impulses: np.ndarray) -> np.ndarray:
    return 20 * np.log10(np.abs(np.fft.rfft(filtered_impulses)) + 1e-9)


def test_equalization(speech: np.ndarray) -> None:
    equalization = Equalization(12.0)
    parameters = equalization.draw(BATCH, seeded())
    gains_db = parameters["gains_db"]
    assert gains_db.shape == (BATCH, Equalization.POINTS)
    assert 6 < np.abs(gains_db).max() <= 12
    for length in (LENGTH, LENGTH - 1):
        (filtered,) = equalization.apply([speech[:, :length]], parameters)
        assert filtered.shape == (BATCH, length)
        np.testing.assert_allclose(rms(filtered), rms(speech[:, :length]), rtol=1e-4)
    (same,) = equalization.apply([speech], {"gains_db": np.zeros_like(gains_db)})
    np.testing.assert_allclose(same, speech, atol=1e-6)


def test_equalization_follows_its_gains() -> None:
    impulse = np.zeros((1, 1000), np.float32)
    impulse[0, 500] = 1
    gains_db = np.float32([[0, 1, -2, 5, 3, -6, 0, 2]])
    (filtered,) = map(np.asarray, Equalization(6.0).apply([impulse], {"gains_db": gains_db}))
    # The points are evenly spaced on the square root of frequency.
    expected = np.interp(np.sqrt(np.arange(501) / 500), np.linspace(0, 1, 8), gains_db[0])
    np.testing.assert_allclose(np.ptp(response_db(filtered)[0] - expected), 0, atol=1e-3)
    np.testing.assert_allclose(filtered[0, 501:], filtered[0, 499:0:-1], atol=1e-6)  # zero phase


def test_equalization_changes_speech_and_its_target_alike(speech: np.ndarray) -> None:
    """Also by the same gain: the target, which lacks late reverberation, has another spectrum."""
    equalization = Equalization(12.0)
    parameters = equalization.draw(BATCH, seeded())
    target = np.cumsum(speech, axis=1) - speech.mean(axis=1, keepdims=True)
    both = equalization.apply([speech, target], parameters)
    swapped = equalization.apply([target, speech], parameters)
    np.testing.assert_allclose(rms(both[0]), rms(speech), rtol=1e-4)
    (difference,) = equalization.apply([speech - target], parameters)
    ratio = np.asarray(rms(both[0] - both[1]) / rms(difference))
    other = np.asarray(rms(both[1]) / rms(swapped[0]))
    for one, expected, gain in zip(both[0] - both[1], difference, ratio, strict=True):
        np.testing.assert_allclose(one, gain * expected, atol=1e-3 * np.abs(expected).max())
    assert np.ptp(other) > 0.1  # each on its own would have other gains


def test_band_limit(impulses: np.ndarray) -> None:
    band = BandLimit(0.6, (100.0, 400.0), (1000.0, 3000.0), RATE)
    parameters = band.draw(BATCH, seeded())
    parameters["present"][:] = True
    rows = parameters["rows"]
    assert 0 < len(rows) < BATCH
    noisy, clean = map(np.asarray, band.apply(2 * impulses, impulses, parameters))
    np.testing.assert_allclose(noisy, 2 * clean, atol=1e-6)
    others = np.setdiff1d(range(BATCH), rows)
    np.testing.assert_array_equal(clean[others], impulses[others])
    hertz = np.fft.rfftfreq(LENGTH, 1 / RATE)
    for index, row in enumerate(rows):
        response = response_db(clean)[row]
        high, low = (float(parameters[name][index, 0]) for name in ("high_cut", "low_cut"))
        assert 1000 <= high <= 3000
        assert low < 1 or 100 <= low <= 400
        for cut in (high, low):
            if cut > 1:
                assert np.interp(cut, hertz, response) == pytest.approx(-6, abs=0.6)
        np.testing.assert_allclose(response[(hertz > 2 * low + 50) & (hertz < high / 2)], 0, atol=1)
        assert response[hertz > 1.9 * high].max(initial=-99) < -40
        assert response[0] < -60 or low < 1
        centre = LENGTH // 2  # zero phase
        np.testing.assert_allclose(
            clean[row, centre + 1 :], clean[row, centre - 1 : 0 : -1], atol=1e-6
        )


def test_half_of_the_band_limited_examples_lose_their_lows() -> None:
    parameters = BandLimit(1.0, (100.0, 400.0), (1000.0, 3000.0), RATE).draw(2000, seeded())
    assert np.mean(parameters["low_cut"] > 1) == pytest.approx(0.5, abs=0.05)


def test_remove_rumble() -> None:
    seconds = np.arange(RATE) / RATE
    hertz = [20.0, 60.0, 120.0, 1000.0]
    tones = np.stack([np.sin(2 * np.pi * f * seconds) for f in hertz]).astype(np.float32)
    left = np.asarray(remove_rumble(tones, 60.0, RATE))
    np.testing.assert_allclose(rms(left)[1:] / rms(tones)[1:], [0.5, 1, 1], atol=5e-3)
    assert rms(left)[0] / rms(tones)[0] < 2e-4
    np.testing.assert_allclose(left[2:], tones[2:], atol=5e-3)  # nothing is delayed


def test_low_pass(impulses: np.ndarray) -> None:
    low_pass = LowPass(1.0, (1000.0, 2500.0, 4000.0), RATE)
    assert low_pass.usable_hz == (1000.0, 2500.0)
    parameters = low_pass.draw(BATCH, seeded())
    assert set(parameters["cutoff"][:, 0]) == {1000.0, 2500.0}
    noisy, clean = map(np.asarray, low_pass.apply(2 * impulses, impulses, parameters))
    np.testing.assert_allclose(noisy, 2 * clean, atol=1e-6)
    hertz = np.fft.rfftfreq(LENGTH, 1 / RATE)
    for row, cutoff in zip(parameters["rows"], parameters["cutoff"][:, 0], strict=True):
        response = response_db(clean)[row]
        np.testing.assert_allclose(response[hertz < LowPass.PASSBAND * cutoff], 0, atol=1e-3)
        assert response[hertz >= cutoff].max() < -100


def test_a_low_pass_above_the_band_changes_nothing(speech: np.ndarray) -> None:
    low_pass = LowPass(1.0, (4000.0, 11000.0), RATE)
    noisy, clean = low_pass.apply(speech, speech, low_pass.draw(BATCH, seeded()))
    np.testing.assert_array_equal(noisy, speech)
    np.testing.assert_array_equal(clean, speech)
