import numpy as np
import pytest

from denoisecli.training.augmentation.mixing import FURTHER_NOISE_DB, Level, LevelChange, Remix
from denoisecli.training.augmentation.ops import rms

BATCH, LENGTH = 8, 2400


def seeded(number: int = 3) -> np.random.Generator:
    return np.random.default_rng(number)


@pytest.fixture
def speech_and_noise(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of each; every row has a level of its own."""
    sounds = rng.normal(size=(2, BATCH, LENGTH)) * rng.uniform(0.02, 0.2, (2, BATCH, 1))
    return tuple(sounds.astype(np.float32))


def decibels(signal: np.ndarray) -> np.ndarray:
    return 20 * np.log10(rms(signal))


def unit(signal: np.ndarray) -> np.ndarray:
    return signal / np.std(signal, axis=1, keepdims=True)


def test_a_part_of_the_speech_changes_its_level() -> None:
    change = LevelChange(1.0, (-12.0, 12.0), sample_rate=1000)
    parameters = change.draw(2, seeded()) | {
        "rows": np.array([1, 0], np.int32),
        "change_db": np.array([12, -6], np.float32),
        "start": np.array([0.25, -0.2], np.float32),
        "end": np.array([0.75, 0.5], np.float32),
    }
    first, second = 20 * np.log10(
        np.asarray(change.apply(np.ones((2, 2000), np.float32), parameters))
    )
    np.testing.assert_allclose(first[:900], -6, atol=1e-3)  # from before the beginning
    np.testing.assert_allclose(first[1000:], 0, atol=1e-3)
    np.testing.assert_allclose(
        second[[0, 499, 550, 600, 1000, 1400, 1450, 1999]], [0, 0, 6, 12, 12, 12, 6, 0], atol=0.1
    )
    assert np.abs(np.diff(second)).max() < 0.13  # 12 dB in 100 samples, without a click


def test_how_many_examples_change_their_level() -> None:
    change = LevelChange(0.25, (6.0, 6.0), sample_rate=1000)
    rng, ones = seeded(), np.ones((BATCH, LENGTH), np.float32)
    changed = [np.asarray(change.apply(ones, change.draw(BATCH, rng))) for _ in range(50)]
    shares = np.mean(np.concatenate(changed) > 1.01, axis=1)
    assert 0.1 < np.mean(shares > 0) <= 0.25
    assert np.max(changed) <= 10 ** (6 / 20) + 1e-5


def test_remix(speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    remix = Remix((-5.0, 20.0))
    parameters = remix.draw(BATCH, seeded())
    kept, remixed = remix.apply(speech, noise, parameters)
    np.testing.assert_array_equal(kept, speech)
    weights = np.asarray(parameters["weights"])
    assert (weights.sum(axis=0) == 1).all()
    assert (weights.sum(axis=1) == 1).all()
    order = weights.argmax(axis=1)
    assert sorted(order) == list(range(BATCH))
    assert (order != np.arange(BATCH)).any()
    np.testing.assert_allclose(unit(np.asarray(remixed)), unit(noise[order]), atol=1e-5)
    snr_db = np.asarray(parameters["snr_db"])
    assert ((snr_db >= -5) & (snr_db <= 20)).all()
    assert np.ptp(snr_db) > 1
    np.testing.assert_allclose(decibels(speech) - decibels(remixed), snr_db, atol=1e-3)


@pytest.mark.parametrize("count", [2, 3])
def test_several_noises(count: int, speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    remix = Remix((0.0, 0.0), second_noise=1.0, third_noise=float(count == 3))
    parameters = remix.draw(BATCH, seeded())
    weights = np.asarray(parameters["weights"])
    assert ((weights > 0).sum(axis=1) == count).all()  # never one noise twice
    assert ((weights == 1).sum(axis=1) == 1).all()
    further_db = 20 * np.log10(weights[(weights > 0) & (weights < 1)])
    assert ((further_db >= FURTHER_NOISE_DB[0]) & (further_db <= FURTHER_NOISE_DB[1])).all()
    _, remixed = remix.apply(speech, noise, parameters)
    for row in range(BATCH):
        expected = sum(weights[row, other] * unit(noise)[other] for other in range(BATCH))
        found = unit(np.asarray(remixed))[row]
        np.testing.assert_allclose(found, unit(expected[None])[0], atol=1e-5)
    np.testing.assert_allclose(decibels(speech), decibels(np.asarray(remixed)), atol=1e-3)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_mixture_has_at_most_as_many_noises_as_the_batch(batch: int) -> None:
    weights = np.asarray(Remix((0.0, 0.0), 1.0, 1.0).draw(batch, seeded())["weights"])
    assert ((weights > 0).sum(axis=1) == batch).all()
    assert weights.max() == 1  # none is added to itself


def test_probabilities() -> None:
    remix = Remix((0.0, 0.0), second_noise=0.4, third_noise=0.5, clean_only=0.2, noise_only=0.1)
    parameters = remix.draw(4000, seeded())
    clean_only = np.asarray(parameters["noise_gain"]) == 0
    noise_only = np.asarray(parameters["speech_gain"]) == 0
    noises = (np.asarray(parameters["weights"]) > 0).sum(axis=1)
    assert not (clean_only & noise_only).any()
    assert clean_only.mean() == pytest.approx(0.2, abs=0.02)
    assert noise_only.mean() == pytest.approx(0.1, abs=0.02)
    assert [np.mean(noises == count) for count in (1, 2, 3)] == pytest.approx(
        [0.6, 0.2, 0.2], abs=0.02
    )


def test_level(speech_and_noise: tuple[np.ndarray, np.ndarray]) -> None:
    speech, noise = speech_and_noise
    level = Level((-45.0, -12.0))
    parameters = level.draw(BATCH, seeded())
    wanted = parameters["level_dbfs"]
    assert ((np.asarray(wanted) >= -45) & (np.asarray(wanted) <= -12)).all()
    noisy, clean = map(np.asarray, level.apply(speech + noise, speech, parameters))
    limited = np.abs(noisy).max(axis=1) > 0.98
    np.testing.assert_allclose(decibels(noisy)[~limited], np.asarray(wanted)[~limited], atol=1e-3)
    gain = noisy / (speech + noise)
    np.testing.assert_allclose(gain, np.broadcast_to(gain[:, :1], gain.shape), rtol=1e-3)
    np.testing.assert_allclose(clean, gain[:, :1] * speech, atol=1e-6)


def test_level_never_clips() -> None:
    click = np.zeros((2, 1000), np.float32)
    click[0, 3], click[1, 5] = 0.5, -0.5
    noisy, clean = Level((0.0, 0.0)).apply(click, click, {"level_dbfs": np.zeros(2, np.float32)})
    np.testing.assert_allclose(np.abs(noisy).max(axis=1), 0.99, atol=1e-6)
    np.testing.assert_array_equal(noisy, clean)
