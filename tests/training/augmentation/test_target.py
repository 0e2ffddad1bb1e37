import numpy as np
import pytest

from denoisecli.spec.training import Augmentation
from denoisecli.training.augmentation.filters import remove_rumble
from denoisecli.training.augmentation.target import attenuate_pauses, clean_target

RATE = 8000
SPEECH = slice(RATE, 2 * RATE)
"""Where the signal is loud: one second of three."""


def signal(noise_db: float, rng: np.random.Generator) -> np.ndarray:
    """Return a second of speech between noise of so many dB relative to it."""
    noise = rng.standard_normal((2, 3 * RATE)).astype(np.float32)
    gain = np.full(3 * RATE, 10 ** (noise_db / 20), np.float32)
    gain[SPEECH] = 1
    return noise * gain * 0.1


def attenuation_db(before: np.ndarray, after: np.ndarray, part: slice) -> np.ndarray:
    return 10 * np.log10(np.square(after[:, part]).sum(1) / np.square(before[:, part]).sum(1))


@pytest.mark.parametrize(
    ("noise_db", "expected"), [(-30, 0), (-39, 0), (-45, -5), (-55, -15), (-64, -24), (-80, -24)]
)
def test_what_is_softer_than_the_threshold_becomes_softer_by_as_much_again(
    noise_db: float, expected: float, rng: np.random.Generator
) -> None:
    sound = signal(noise_db, rng)
    left = np.asarray(attenuate_pauses(sound, -40.0, RATE))
    assert left.shape == sound.shape
    # The loudest of seven parts of 16 ms counts, which is about 1 dB above the mean.
    found = attenuation_db(sound, left, slice(0, RATE - RATE // 10))
    assert found == pytest.approx([expected] * 2, abs=1.5)


@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_speech_keeps_its_beginning_and_end(level: float, rng: np.random.Generator) -> None:
    sound = level * signal(-60, rng)
    around = slice(SPEECH.start - RATE // 40, SPEECH.stop + RATE // 40)
    left = np.asarray(attenuate_pauses(sound, -40.0, RATE))
    np.testing.assert_allclose(left[:, around], sound[:, around], rtol=1e-5)


@pytest.mark.parametrize("timesteps", [1, 100, 128, 1001])
def test_signals_of_any_length(timesteps: int, rng: np.random.Generator) -> None:
    sound = rng.standard_normal((3, timesteps)).astype(np.float32)
    np.testing.assert_allclose(attenuate_pauses(sound, -40.0, RATE), sound, rtol=1e-5)
    silence = np.zeros((3, timesteps), np.float32)
    np.testing.assert_array_equal(attenuate_pauses(silence, -40.0, RATE), silence)


def test_a_target_is_cleaned_as_the_spec_says(rng: np.random.Generator) -> None:
    sound = signal(-50, rng)
    assert clean_target(sound, None, RATE) is sound
    assert clean_target(sound, Augmentation(), RATE) is sound
    both = Augmentation(target_highpass_hz=60.0, target_pause_db=-40.0)
    expected = attenuate_pauses(remove_rumble(sound, 60.0, RATE), -40.0, RATE)
    np.testing.assert_allclose(clean_target(sound, both, RATE), expected)
