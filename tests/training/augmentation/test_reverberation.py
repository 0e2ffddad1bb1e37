import numpy as np
import pytest

from denoisecli.datasets.rooms import EARLY_SECONDS
from denoisecli.training.augmentation.ops import Parameters, rms
from denoisecli.training.augmentation.reverberation import (
    FIRST_REFLECTION_SECONDS,
    Reverberation,
    tail_of,
)

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


def test_rooms() -> None:
    rooms = Reverberation(0.5, (0.4, 0.4), (-3.0, 9.0), RATE)
    parameters = rooms.draw(400, seeded())
    tail = np.asarray(parameters["tail"], float)
    assert len(tail) == pytest.approx(200, rel=0.2)
    assert tail.shape[1] == 0.4 * RATE
    assert (tail[:, : int(FIRST_REFLECTION_SECONDS * RATE)] == 0).all()
    ratio_db = -10 * np.log10(np.square(tail).sum(axis=1))
    assert ratio_db.min() == pytest.approx(-3, abs=0.5)
    assert ratio_db.max() == pytest.approx(9, abs=0.5)
    # Schroeder's backward integration, averaged over rooms: 60 dB in 0.4 s.
    energy = np.mean(np.square(tail) / np.square(tail).sum(axis=1, keepdims=True), axis=0)
    decay_db = 10 * np.log10(np.cumsum(energy[::-1])[::-1])
    slope = (decay_db[int(0.2 * RATE)] - decay_db[int(0.05 * RATE)]) / 0.15
    assert slope == pytest.approx(-60 / 0.4, rel=0.05)
    density = np.mean(tail != 0, axis=0)
    assert density[int(0.02 * RATE)] == pytest.approx(0.25, abs=0.1)
    assert (density[int(0.041 * RATE) :] == 1).all()


def test_reverberation(speech: np.ndarray, impulses: np.ndarray) -> None:
    rooms = Reverberation(0.6, (0.1, 0.3), (0.0, 6.0), RATE)
    parameters = rooms.draw(BATCH, seeded())
    parameters["present"][:] = True
    rows = parameters["rows"]
    assert 0 < len(rows) < BATCH
    wet, early = map(np.asarray, rooms.apply(impulses, parameters))
    others = np.setdiff1d(range(BATCH), rows)
    np.testing.assert_array_equal(wet[others], impulses[others])
    np.testing.assert_array_equal(early[others], impulses[others])
    centre, limit = LENGTH // 2, int(EARLY_SECONDS * RATE)
    for index, row in enumerate(rows):
        direct = wet[row, centre]
        assert (np.abs(wet[row, :centre]) < 1e-6).all()
        heard = wet[row, centre:] / direct
        tail = np.asarray(parameters["tail"])[index]
        np.testing.assert_allclose(heard[1 : len(tail)], tail[1:], atol=1e-5)
        same = early[row, centre : centre + limit] / direct
        np.testing.assert_allclose(same, heard[:limit], atol=1e-6)
        assert (np.abs(early[row, centre + limit :]) < 1e-5).all()
    wet, early = rooms.apply(speech, parameters)
    np.testing.assert_allclose(rms(wet), rms(speech), rtol=1e-4)
    convolved = np.convolve(speech[rows[0]], np.concatenate([[1], first_tail(parameters)[1:]]))
    expected = convolved[:LENGTH].copy()
    expected[: len(convolved) - LENGTH] += convolved[LENGTH:]  # the segment is a loop
    found = np.asarray(wet)[rows[0]]
    np.testing.assert_allclose(found / rms(found[None]), expected / rms(expected[None]), atol=1e-3)


def first_tail(parameters: Parameters) -> np.ndarray:
    return np.asarray(parameters["tail"])[0]


def test_a_room_that_outlasts_the_segment(speech: np.ndarray) -> None:
    rooms = Reverberation(1.0, (0.5, 0.5), (0.0, 0.0), RATE)
    for length in (1000, 100):  # with less than the early reflections, too
        short = speech[:, :length]
        for part in rooms.apply(short, rooms.draw(BATCH, seeded())):
            assert part.shape == short.shape
            assert np.isfinite(part).all()


@pytest.mark.parametrize("target", ["dry", "early", "reverberant"])
def test_targets(target: str, speech: np.ndarray) -> None:
    rooms = Reverberation(1.0, (0.3, 0.3), (0.0, 0.0), RATE, target)
    parameters = rooms.draw(BATCH, seeded())
    wet, wanted = map(np.asarray, rooms.apply(speech, parameters))
    row = parameters["rows"][0]
    gain = rms(speech) / rms(np.asarray(rooms.apply(speech, parameters)[0]))
    np.testing.assert_allclose(gain, 1, rtol=1e-4)
    kept = {"dry": 0, "early": int(EARLY_SECONDS * RATE), "reverberant": LENGTH}[target]
    tail = first_tail(parameters)
    spectrum = np.fft.rfft(speech[row])
    whole, part = (
        np.fft.irfft(spectrum * (1 + np.fft.rfft(tail[:count], LENGTH)), LENGTH)
        for count in (LENGTH, max(kept, 1))
    )
    level = np.std(speech[row]) / np.std(whole)
    np.testing.assert_allclose(wet[row], level * whole, atol=1e-4)
    np.testing.assert_allclose(wanted[row], level * part, atol=1e-4)


def test_given_rooms(speech: np.ndarray, rng: np.random.Generator) -> None:
    responses = [rng.normal(size=count) * 0.1 for count in (300, 500)]
    for delay, response in zip((20, 50), responses, strict=True):
        response[delay] = -2.0
    tails = [tail_of(response, RATE) for response in responses]
    for delay, response, tail in zip((20, 50), responses, tails, strict=True):
        assert (tail[: RATE // 1000] == 0).all()
        expected = response[delay + RATE // 1000 :] / -2
        np.testing.assert_allclose(tail[RATE // 1000 :], expected, rtol=1e-5)
    rooms = Reverberation(1.0, (0.1, 0.3), (0.0, 0.0), RATE, rooms=tails)
    drawn = rooms.draw(BATCH, seeded())["tail"]
    assert drawn.shape == (BATCH, 450)
    for tail in drawn:
        assert any((tail[: len(one)] == one).all() for one in tails)
    for part in rooms.apply(speech, rooms.draw(BATCH, seeded())):
        assert np.isfinite(part).all()
