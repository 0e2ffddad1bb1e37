import numpy as np
import pytest
import tensorflow as tf

from denoisecli.datasets.rooms import EARLY_SECONDS
from denoisecli.training.augmentation.ops import rms
from denoisecli.training.augmentation.reverberation import (
    FIRST_REFLECTION_SECONDS,
    Reverberation,
)

BATCH, LENGTH, RATE = 8, 4800, 8000
SEED = tf.constant([3, 4])


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
    parameters = rooms.draw(400, SEED)
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
    parameters = rooms.draw(BATCH, SEED)
    rows = np.asarray(parameters["rows"])
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
    convolved = np.convolve(speech[rows[0]], np.concatenate([[1], tail_of(parameters)[1:]]))
    expected = convolved[:LENGTH].copy()
    expected[: len(convolved) - LENGTH] += convolved[LENGTH:]  # the segment is a loop
    found = np.asarray(wet)[rows[0]]
    np.testing.assert_allclose(found / rms(found[None]), expected / rms(expected[None]), atol=1e-3)


def tail_of(parameters: dict[str, tf.Tensor]) -> np.ndarray:
    return np.asarray(parameters["tail"])[0]


def test_a_room_that_outlasts_the_segment(speech: np.ndarray) -> None:
    rooms = Reverberation(1.0, (0.5, 0.5), (0.0, 0.0), RATE)
    for length in (1000, 100):  # with less than the early reflections, too
        short = speech[:, :length]
        for part in rooms.apply(short, rooms.draw(BATCH, SEED)):
            assert part.shape == short.shape
            assert np.isfinite(part).all()
