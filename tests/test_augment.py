import numpy as np
import pytest
import tensorflow as tf

from denoisecli.augment import (
    SECOND_NOISE_DB,
    Equalization,
    Level,
    Remix,
    augment_batch,
    rms,
)
from denoisecli.spec import Augmentation

BATCH, LENGTH = 8, 2400
SEED = tf.constant([3, 4])
OFF = Augmentation(remix=False, level_dbfs=None, equalization_db=0.0)


@pytest.fixture
def speech_and_noise(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A batch of each, every row at a level of its own."""
    sounds = rng.normal(size=(2, BATCH, LENGTH)) * rng.uniform(0.02, 0.2, (2, BATCH, 1))
    return tuple(sounds.astype(np.float32))


def decibels(signal: np.ndarray) -> np.ndarray:
    return 20 * np.log10(np.sqrt(np.mean(np.square(signal, dtype=float), axis=1)))


def unit(signal: np.ndarray) -> np.ndarray:
    return signal / np.sqrt(np.mean(np.square(signal), axis=1, keepdims=True))


@pytest.mark.parametrize(
    "settings",
    [
        Augmentation(),
        Augmentation(second_noise=1.0, clean_only=0.3, noise_only=0.3),
        OFF.model_copy(update={"remix": True}),
        OFF.model_copy(update={"equalization_db": 12.0}),
        OFF.model_copy(update={"level_dbfs": (-30.0, -20.0)}),
    ],
)
def test_seed_decides(
    settings: Augmentation, speech_and_noise: tuple[np.ndarray, np.ndarray]
) -> None:
    speech, noise = speech_and_noise
    noisy = speech + noise
    # Inside a data pipeline it is a graph.
    augment = tf.function(lambda seed: augment_batch(noisy, speech, settings, seed))
    once, again, other = augment(SEED), augment(SEED), augment(SEED + 1)
    for part, same in zip(once, again, strict=True):
        assert part.shape == (BATCH, LENGTH)
        assert part.dtype == tf.float32
        np.testing.assert_array_equal(part, same)
        assert np.isfinite(part).all()
    assert np.abs(once[0] - other[0]).max() > 1e-3
    eager = augment_batch(noisy, speech, settings, SEED)
    np.testing.assert_allclose(eager, once, atol=1e-5)


def test_nothing_asked_for(speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    noisy, clean = augment_batch(speech + noise, speech, OFF, SEED)
    np.testing.assert_array_equal(clean, speech)
    np.testing.assert_allclose(noisy, speech + noise, atol=1e-7)


def test_remix(speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    remix = Remix((-5.0, 20.0))
    parameters = remix.draw(BATCH, SEED)
    kept, remixed = remix.apply(speech, noise, parameters)
    np.testing.assert_array_equal(kept, speech)
    order = np.asarray(parameters["first"])
    assert sorted(order) == list(range(BATCH))
    assert (order != np.arange(BATCH)).any()
    np.testing.assert_allclose(unit(np.asarray(remixed)), unit(noise[order]), atol=1e-5)
    snr_db = np.asarray(parameters["snr_db"])
    assert ((snr_db >= -5) & (snr_db <= 20)).all()
    assert np.ptp(snr_db) > 1
    np.testing.assert_allclose(decibels(speech) - decibels(remixed), snr_db, atol=1e-3)


def test_remix_within_a_batch(speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    settings = OFF.model_copy(update={"remix": True, "snr_db": (3.0, 3.0), "second_noise": 0.0})
    settings = settings.model_copy(update={"clean_only": 0.0, "noise_only": 0.0})
    noisy, clean = map(np.asarray, augment_batch(speech + noise, speech, settings, SEED))
    np.testing.assert_array_equal(clean, speech)
    difference = noisy - clean
    np.testing.assert_allclose(decibels(clean) - decibels(difference), 3, atol=1e-3)
    similarity = unit(difference) @ unit(noise).T / LENGTH
    assert sorted(similarity.argmax(axis=1)) == list(range(BATCH))
    np.testing.assert_allclose(similarity.max(axis=1), 1, atol=1e-4)


def test_second_noise(speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    remix = Remix((0.0, 0.0), second_noise=1.0)
    parameters = remix.draw(BATCH, SEED)
    gain_db = 20 * np.log10(parameters["second_gain"])
    assert ((gain_db >= SECOND_NOISE_DB[0]) & (gain_db <= SECOND_NOISE_DB[1])).all()
    _, remixed = remix.apply(speech, noise, parameters)
    first, second = (unit(noise[np.asarray(parameters[name])]) for name in ("first", "second"))
    expected = unit(first + np.asarray(parameters["second_gain"])[:, None] * second)
    np.testing.assert_allclose(unit(np.asarray(remixed)), expected, atol=1e-5)
    np.testing.assert_allclose(decibels(speech), decibels(remixed), atol=1e-3)


def test_how_often(speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    remix = Remix((0.0, 0.0), second_noise=0.3, clean_only=0.2, noise_only=0.1)
    parameters = remix.draw(20_000, SEED)
    clean_only = np.asarray(parameters["noise_gain"]) == 0
    noise_only = np.asarray(parameters["speech_gain"]) == 0
    assert not (clean_only & noise_only).any()
    assert clean_only.mean() == pytest.approx(0.2, abs=0.01)
    assert noise_only.mean() == pytest.approx(0.1, abs=0.01)
    assert np.mean(np.asarray(parameters["second_gain"]) > 0) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("which", ["clean_only", "noise_only"])
def test_only_one_of_both(which: str, speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    settings = Augmentation(**{"clean_only": 0.0, "noise_only": 0.0, which: 1.0})
    noisy, clean = map(np.asarray, augment_batch(speech + noise, speech, settings, SEED))
    if which == "clean_only":
        np.testing.assert_array_equal(noisy, clean)
    else:
        assert (clean == 0).all()
    levels = decibels(noisy)
    assert ((levels > -45.1) & (levels < -11.9)).all()


def test_equalization(speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, _ = speech_and_noise
    equalization = Equalization(12.0)
    gains_db = equalization.draw(BATCH, SEED)
    assert gains_db.shape == (BATCH, Equalization.POINTS)
    assert 6 < np.abs(gains_db).max() <= 12
    for length in (LENGTH, LENGTH - 1):
        filtered = np.asarray(equalization.apply(speech[:, :length], gains_db))
        assert filtered.shape == (BATCH, length)
        np.testing.assert_allclose(decibels(filtered), decibels(speech[:, :length]), atol=1e-3)
    same = equalization.apply(speech, tf.zeros_like(gains_db))
    np.testing.assert_allclose(same, speech, atol=1e-6)


def test_equalization_follows_its_gains() -> None:
    impulse = np.zeros((1, 1000), np.float32)
    impulse[0, 500] = 1
    gains_db = np.float32([[0, 1, -2, 5, 3, -6, 0, 2]])
    filtered = np.asarray(Equalization(6.0).apply(impulse, gains_db))
    response_db = 20 * np.log10(np.abs(np.fft.rfft(filtered[0])))
    # The points are evenly spaced on the square root of frequency.
    expected = np.interp(np.sqrt(np.arange(501) / 500), np.linspace(0, 1, 8), gains_db[0])
    np.testing.assert_allclose(np.ptp(response_db - expected), 0, atol=1e-3)
    np.testing.assert_allclose(filtered[0, 501:], filtered[0, 499:0:-1], atol=1e-6)  # zero phase


def test_level(speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    level = Level((-45.0, -12.0))
    wanted = level.draw(BATCH, SEED)
    assert ((np.asarray(wanted) >= -45) & (np.asarray(wanted) <= -12)).all()
    noisy, clean = map(np.asarray, level.apply(speech + noise, speech, wanted))
    limited = np.abs(noisy).max(axis=1) > 0.98
    np.testing.assert_allclose(decibels(noisy)[~limited], np.asarray(wanted)[~limited], atol=1e-3)
    gain = noisy / (speech + noise)
    np.testing.assert_allclose(gain, np.broadcast_to(gain[:, :1], gain.shape), rtol=1e-3)
    np.testing.assert_allclose(clean, gain[:, :1] * speech, atol=1e-6)


def test_level_never_clips() -> None:
    click = np.zeros((2, 1000), np.float32)
    click[0, 3], click[1, 5] = 0.5, -0.5
    noisy, clean = Level((0.0, 0.0)).apply(click, click, np.zeros(2, np.float32))
    np.testing.assert_allclose(np.abs(noisy).max(axis=1), 0.99, atol=1e-6)
    np.testing.assert_array_equal(noisy, clean)


@pytest.mark.parametrize("silent", ["speech", "noise", "both"])
def test_silence(silent: str, speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    speech = speech * (silent == "noise")
    noise = noise * (silent == "speech")
    noisy, clean = map(np.asarray, augment_batch(speech + noise, speech, Augmentation(), SEED))
    assert np.isfinite(noisy).all()
    assert np.isfinite(clean).all()
    assert np.abs(noisy).max() <= 1
    if silent != "noise":
        assert (clean == 0).all()
    if silent == "both":
        assert (noisy == 0).all()


def test_rms() -> None:
    wave = np.sqrt(2) * np.sin(2 * np.pi * np.arange(1000) / 50)
    signal = np.stack([wave, 3 * wave]).astype(np.float32)
    np.testing.assert_allclose(rms(signal), [1, 3], rtol=1e-5)
