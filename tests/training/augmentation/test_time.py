import numpy as np
import pytest

from denoisecli.training.augmentation.ops import Parameters
from denoisecli.training.augmentation.time import Speed, TimeShift

LENGTH, RATE = 9600, 8000


def seeded(number: int = 3) -> np.random.Generator:
    return np.random.default_rng(number)


def all_rows(factors: np.ndarray) -> Parameters:
    count = len(factors)
    return {"rows": np.arange(count), "present": np.ones(count, bool), "factor": factors}


def tones(hertz: float, count: int) -> np.ndarray:
    wave = np.sin(2 * np.pi * hertz * np.arange(LENGTH) / RATE)
    return np.tile(wave, (count, 1)).astype(np.float32)


@pytest.mark.parametrize("hertz", [100.0, 1000.0, 3500.0])
def test_speed_is_resampling_without_aliases(hertz: float) -> None:
    factors = np.float32([0.9, 0.95, 1.0, 1.05, 1.1])
    speed = Speed(1.0, (0.9, 1.1), RATE)
    signal = tones(hertz, len(factors))
    changed = np.asarray(speed.apply(signal, all_rows(factors)))
    assert changed.shape == signal.shape
    phases = speed.phases(LENGTH)
    for row, factor in zip(changed, factors, strict=True):
        computed = round(2 * phases * factor) / (2 * phases)
        assert computed == pytest.approx(factor, abs=1e-3)
        new_length = int(LENGTH / computed)
        expected = np.sin(2 * np.pi * hertz * computed * np.arange(new_length) / RATE)
        inside = slice(400, min(LENGTH, new_length) - 400)
        error = row[inside] - expected[inside]
        assert 20 * np.log10(np.std(error) / np.std(row[inside])) < -60


def test_frequencies_above_nyquist_are_removed() -> None:
    signal = tones(3900.0, 1)  # which would become 4290 Hz, above half the sample rate
    changed = np.asarray(Speed(1.0, (0.9, 1.1), RATE).apply(signal, all_rows(np.float32([1.1]))))
    assert np.std(changed[0, 400:8000]) < 1e-3


def test_speed_changes_the_drawn_rows_only(rng: np.random.Generator) -> None:
    signal = rng.normal(size=(20, LENGTH)).astype(np.float32)
    speed = Speed(0.4, (0.9, 1.1), RATE)
    parameters = speed.draw(20, seeded())
    rows = np.sort(parameters["rows"][parameters["present"]])
    factor = parameters["factor"]
    assert 2 < len(rows) < 14
    assert ((factor >= 0.9) & (factor <= 1.1)).all()
    assert np.ptp(factor) > 0.05
    changed = np.asarray(speed.apply(signal, parameters))
    same = (changed == signal).all(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(~same), rows)
    assert np.isfinite(changed).all()


def test_faster_sound_is_repeated_with_a_fade() -> None:
    signal = tones(500.0, 1)
    speed = Speed(1.0, (0.9, 1.25), RATE)
    changed = np.asarray(speed.apply(signal, all_rows(np.float32([1.25]))))[0]
    length = 7680
    np.testing.assert_array_equal(changed[length:], changed[: LENGTH - length])
    assert np.abs(changed[length - 5 : length + 5]).max() < 0.2  # faded there


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.1, 1.7])
def test_bands_move_with_the_sound(factor: float) -> None:
    hertz = np.array([500, 700, 900, 1100, 1300, 1500, 1700, 1900], np.float32)
    time = np.arange(LENGTH // len(hertz)) / RATE
    signal = np.sin(2 * np.pi * hertz[:, None] * time).reshape(1, -1).astype(np.float32)
    speed = Speed(0.5, (0.5, 2.0), RATE)
    draws = {"rows": np.array([1, 2]), "present": np.array([True, False])}
    parameters = {**draws, "factor": np.float32([factor, factor])}
    changed = np.asarray(speed.apply(np.repeat(signal, 3, axis=0), parameters))
    bands = speed.moved_bands(np.repeat(hertz[None], 3, axis=0), parameters)
    np.testing.assert_array_equal(bands[[0, 2]], [hertz, hertz])
    spectra = np.abs(np.fft.rfft(changed.reshape(3, len(hertz), -1) * np.hanning(time.size)))
    loudest = np.argmax(spectra[1], axis=1) * RATE / time.size
    assert (bands[1] < 1.05 * loudest).all()  # the lowest one of the stretch
    assert np.isclose(bands[1], loudest, rtol=0.05).sum() >= 2


def test_a_band_up_to_nyquist_stays_so() -> None:
    parameters = all_rows(np.float32([0.9]))
    bands = Speed(1.0, (0.9, 1.1), RATE).moved_bands(np.float32([[4000, 4000, 2000]]), parameters)
    np.testing.assert_array_equal(bands, np.float32([[4000, 4000, 1800]]))


def test_time_shift(rng: np.random.Generator) -> None:
    noise = rng.normal(size=(3, LENGTH)).astype(np.float32)
    shift = TimeShift()
    drawn = {int(shift.draw(LENGTH, seeded(number))["shift"]) for number in range(20)}
    assert len(drawn) == 20
    assert all(0 <= value < LENGTH for value in drawn)
    shifted = shift.apply(noise, {"shift": np.array(1234, np.int32)})
    np.testing.assert_array_equal(shifted, np.roll(noise, 1234, axis=1))


def test_long_segments_keep_the_positions_exact() -> None:
    for timesteps in (4800, 48_000, 60 * 48_000):
        phases = Speed(1.0, (0.5, 1.5), 48_000).phases(timesteps)
        assert phases >= 64
        assert 2 * timesteps * phases * 2 < 2**31
