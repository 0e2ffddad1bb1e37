import numpy as np
import pytest
import scipy.signal

from denoisecli.training.augmentation.ops import (
    apply_response,
    db_to_gain,
    draw_rows,
    fft_frequencies,
    highpass_response,
    log_uniform,
    normalize,
    replace_rows,
    rms,
    uniform,
)


def seeded(number: int = 3) -> np.random.Generator:
    return np.random.default_rng(number)


def test_levels() -> None:
    wave = np.sqrt(2) * np.sin(2 * np.pi * np.arange(1000) / 50)
    signal = np.stack([wave, 3 * wave, 0 * wave]).astype(np.float32)
    np.testing.assert_allclose(rms(signal), [1, 3, 0], rtol=1e-5)
    np.testing.assert_allclose(rms(normalize(signal)), [1, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(db_to_gain(np.float32([-20, 0, 6])), [0.1, 1, 1.99526], rtol=1e-5)


def test_draws() -> None:
    drawn = np.asarray(uniform((20_000,), (-2.0, 4.0), seeded()))
    assert drawn.min() >= -2
    assert drawn.max() < 4
    assert drawn.mean() == pytest.approx(1, abs=0.05)
    drawn = np.asarray(log_uniform((20_000,), (10.0, 1000.0), seeded()))
    assert drawn.min() >= 9.99
    assert drawn.max() <= 1000.1
    assert np.median(drawn) == pytest.approx(100, rel=0.05)


def test_rows_are_drawn_and_replaced() -> None:
    rows = draw_rows(20_000, 0.3, seeded())["rows"]
    assert len(rows) == 6000
    assert len(set(rows)) == len(rows)
    assert draw_rows(100, 0.0, seeded())["rows"].shape == (0,)
    assert draw_rows(100, 1.0, seeded())["rows"].shape == (100,)
    signal = np.zeros((4, 3), np.float32)
    new = np.float32([[3, 3, 3], [1, 1, 1], [2, 2, 2]])
    parameters = {"rows": np.array([3, 1, 2]), "present": np.array([True, True, False])}
    np.testing.assert_array_equal(replace_rows(signal, parameters, new)[:, 0], [0, 1, 0, 3])
    nothing = {name: values[:0] for name, values in parameters.items()}
    np.testing.assert_array_equal(replace_rows(signal, nothing, signal[:0]), signal)


@pytest.mark.parametrize("probability", [0.02, 0.3, 0.9])
def test_every_row_is_changed_with_the_same_probability(probability: float) -> None:
    rng, changed = seeded(), np.zeros(7)
    for _ in range(8000):
        drawn = draw_rows(7, probability, rng)
        assert len(drawn["rows"]) == np.ceil(7 * probability)  # the shape of a compiled program
        changed[drawn["rows"][drawn["present"]]] += 1 / 8000
    np.testing.assert_allclose(changed, probability, atol=0.02)


@pytest.mark.parametrize("timesteps", [1000, 1001])
def test_apply_response(timesteps: int, rng: np.random.Generator) -> None:
    signal = rng.normal(size=(2, timesteps)).astype(np.float32)
    hertz = np.asarray(fft_frequencies(timesteps, 8000))
    np.testing.assert_allclose(hertz, np.fft.rfftfreq(timesteps, 1 / 8000), rtol=1e-5)
    response = np.stack([hertz < 1000, hertz > 3000]).astype(np.float32)
    expected = np.fft.irfft(np.fft.rfft(signal) * response, timesteps)
    np.testing.assert_allclose(apply_response(signal, response), expected, atol=1e-5)


def test_highpass_is_a_butterworth_filter_twice() -> None:
    hertz = np.asarray(fft_frequencies(4000, 8000))
    response = np.asarray(highpass_response(hertz, 300.0, 8.0))
    sections = scipy.signal.butter(4, 2 * np.pi * 300, "highpass", analog=True, output="zpk")
    _, once = scipy.signal.freqs_zpk(*sections, worN=2 * np.pi * hertz)
    np.testing.assert_allclose(response, np.abs(once) ** 2, atol=1e-5)
    assert response[0] == 0
