import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

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

SEED = tf.constant([3, 4])


def test_levels() -> None:
    wave = np.sqrt(2) * np.sin(2 * np.pi * np.arange(1000) / 50)
    signal = np.stack([wave, 3 * wave, 0 * wave]).astype(np.float32)
    np.testing.assert_allclose(rms(signal), [1, 3, 0], rtol=1e-5)
    np.testing.assert_allclose(rms(normalize(signal)), [1, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(db_to_gain(np.float32([-20, 0, 6])), [0.1, 1, 1.99526], rtol=1e-5)


def test_draws() -> None:
    drawn = np.asarray(uniform([20_000], (-2.0, 4.0), SEED))
    assert drawn.min() >= -2
    assert drawn.max() < 4
    assert drawn.mean() == pytest.approx(1, abs=0.05)
    drawn = np.asarray(log_uniform([20_000], (10.0, 1000.0), SEED))
    assert drawn.min() >= 9.99
    assert drawn.max() <= 1000.1
    assert np.median(drawn) == pytest.approx(100, rel=0.05)


def test_rows_are_drawn_and_replaced() -> None:
    rows = np.asarray(draw_rows(20_000, 0.3, SEED))
    assert len(rows) == pytest.approx(6000, rel=0.05)
    assert len(set(rows)) == len(rows)
    assert draw_rows(100, 0.0, SEED).shape == (0,)
    assert draw_rows(100, 1.0, SEED).shape == (100,)
    signal = np.zeros((4, 3), np.float32)
    changed = replace_rows(signal, tf.constant([3, 1]), np.float32([[3, 3, 3], [1, 1, 1]]))
    np.testing.assert_array_equal(np.asarray(changed)[:, 0], [0, 1, 0, 3])
    np.testing.assert_array_equal(replace_rows(signal, tf.zeros([0], tf.int64), signal[:0]), signal)


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
