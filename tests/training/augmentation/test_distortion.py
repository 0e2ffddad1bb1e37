import numpy as np
import pytest

from denoisecli.training.augmentation.distortion import Clipping, Masking

BATCH, LENGTH, RATE = 8, 8000, 8000


def seeded(number: int = 3) -> np.random.Generator:
    return np.random.default_rng(number)


@pytest.fixture
def noisy(rng: np.random.Generator) -> np.ndarray:
    return (0.1 * rng.normal(size=(BATCH, LENGTH))).astype(np.float32)


def test_clipping(noisy: np.ndarray) -> None:
    clipping = Clipping(0.6, (-15.0, -3.0))
    parameters = clipping.draw(BATCH, seeded())
    parameters["present"][:] = True
    rows, threshold_db = parameters["rows"], parameters["threshold_db"]
    assert 0 < len(rows) < BATCH
    assert ((threshold_db >= -15) & (threshold_db <= -3)).all()
    changed = np.asarray(clipping.apply(noisy, parameters))
    others = np.setdiff1d(range(BATCH), rows)
    np.testing.assert_array_equal(changed[others], noisy[others])
    for row, decibels in zip(rows, threshold_db, strict=True):
        limit = np.abs(noisy[row]).max() * 10 ** (decibels / 20)
        np.testing.assert_allclose(changed[row], np.clip(noisy[row], -limit, limit), atol=1e-6)


def test_masking(noisy: np.ndarray) -> None:
    masking = Masking(0.6, (-20.0, -6.0), RATE)
    parameters = masking.draw(BATCH, seeded())
    parameters["present"][:] = True
    rows = parameters["rows"]
    assert 0 < len(rows) < BATCH
    changed = np.asarray(masking.apply(noisy, parameters))
    others = np.setdiff1d(range(BATCH), rows)
    np.testing.assert_array_equal(changed[others], noisy[others])
    assert (np.std(changed[rows], axis=1) < np.std(noisy[rows], axis=1)).all()


def masked(noisy: np.ndarray, time_gain: float, frequency_gain: float) -> np.ndarray:
    """One stretch from 0.4 to 0.5 s, one band from 1000 to 2250 Hz: sqrt is 0.5 to 0.75."""
    parameters = {
        "rows": np.array([0]),
        "present": np.array([True]),
        "time": np.float32([[0.45]]),
        "seconds": np.float32([[0.1]]),
        "time_gain_db": np.float32([[20 * np.log10(time_gain)]]),
        "frequency": np.float32([[0.625]]),
        "width": np.float32([[0.25]]),
        "frequency_gain_db": np.float32([[20 * np.log10(frequency_gain)]]),
    }
    return np.asarray(Masking(1.0, (-20.0, -6.0), RATE).apply(noisy, parameters))[0]


def test_a_stretch_of_time(noisy: np.ndarray) -> None:
    changed, edge = masked(noisy, 0.1, 1.0), 30
    np.testing.assert_allclose(
        changed[3200 + edge : 4000 - edge], 0.1 * noisy[0, 3230:3970], atol=1e-6
    )
    np.testing.assert_allclose(changed[: 3200 - edge], noisy[0, : 3200 - edge], atol=1e-6)
    np.testing.assert_allclose(changed[4000 + edge :], noisy[0, 4000 + edge :], atol=1e-6)
    gain = changed / noisy[0]
    assert np.abs(np.diff(gain[np.abs(noisy[0]) > 1e-3])).max() < 0.2  # no click


def test_a_band_of_frequency(noisy: np.ndarray) -> None:
    changed = masked(noisy, 1.0, 0.1)
    gain = np.abs(np.fft.rfft(changed)) / np.abs(np.fft.rfft(noisy[0]))
    hertz = np.fft.rfftfreq(LENGTH, 1 / RATE)
    np.testing.assert_allclose(gain[(hertz > 1050) & (hertz < 2200)], 0.1, atol=0.01)
    np.testing.assert_allclose(gain[(hertz < 950) | (hertz > 2350)], 1, atol=0.01)
