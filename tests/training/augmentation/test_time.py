import numpy as np
import pytest
import tensorflow as tf

from denoisecli.training.augmentation.time import Speed, TimeShift

LENGTH, RATE = 9600, 8000
SEED = tf.constant([3, 4])


def tones(hertz: float, count: int) -> np.ndarray:
    wave = np.sin(2 * np.pi * hertz * np.arange(LENGTH) / RATE)
    return np.tile(wave, (count, 1)).astype(np.float32)


@pytest.mark.parametrize("hertz", [100.0, 1000.0, 3500.0])
def test_speed_is_resampling_without_aliases(hertz: float) -> None:
    factors = np.float32([0.9, 0.95, 1.0, 1.05, 1.1])
    speed = Speed(1.0, (0.9, 1.1), RATE)
    signal = tones(hertz, len(factors))
    changed = np.asarray(speed.apply(signal, {"rows": tf.range(5), "factor": factors}))
    assert changed.shape == signal.shape
    for row, factor in zip(changed, factors, strict=True):
        new_length = Speed.STEP * round(LENGTH / factor / Speed.STEP)
        assert new_length == pytest.approx(LENGTH / factor, abs=Speed.STEP / 2)
        expected = np.sin(2 * np.pi * hertz * LENGTH / new_length * np.arange(new_length) / RATE)
        inside = slice(400, min(LENGTH, new_length) - 400)
        error = row[inside] - expected[inside]
        assert 20 * np.log10(np.std(error) / np.std(row[inside])) < -60


def test_frequencies_above_nyquist_are_removed() -> None:
    signal = tones(3900.0, 1)  # which would become 4290 Hz, above half the sample rate
    parameters = {"rows": tf.range(1), "factor": tf.constant([1.1])}
    changed = np.asarray(Speed(1.0, (0.9, 1.1), RATE).apply(signal, parameters))
    assert np.std(changed[0, 400:8000]) < 1e-3


def test_speed_changes_the_drawn_rows_only(rng: np.random.Generator) -> None:
    signal = rng.normal(size=(20, LENGTH)).astype(np.float32)
    speed = Speed(0.4, (0.9, 1.1), RATE)
    parameters = speed.draw(20, SEED)
    rows, factor = np.asarray(parameters["rows"]), np.asarray(parameters["factor"])
    assert 2 < len(rows) < 14
    assert ((factor >= 0.9) & (factor <= 1.1)).all()
    assert np.ptp(factor) > 0.05
    changed = np.asarray(speed.apply(signal, parameters))
    same = (changed == signal).all(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(~same), rows)
    assert np.isfinite(changed).all()


def test_faster_sound_is_repeated_with_a_fade() -> None:
    signal = tones(500.0, 1)
    parameters = {"rows": tf.range(1), "factor": tf.constant([1.25])}
    changed = np.asarray(Speed(1.0, (0.9, 1.25), RATE).apply(signal, parameters))[0]
    length = 7680
    np.testing.assert_array_equal(changed[length:], changed[: LENGTH - length])
    assert np.abs(changed[length - 5 : length + 5]).max() < 0.2  # faded there


def test_time_shift(rng: np.random.Generator) -> None:
    noise = rng.normal(size=(3, LENGTH)).astype(np.float32)
    shift = TimeShift()
    drawn = {int(shift.draw(LENGTH, SEED + number)) for number in range(20)}
    assert len(drawn) == 20
    assert all(0 <= value < LENGTH for value in drawn)
    np.testing.assert_array_equal(shift.apply(noise, 1234), np.roll(noise, 1234, axis=1))
