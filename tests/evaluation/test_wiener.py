import numpy as np
import pytest

from denoisecli.evaluation.metrics import measure
from denoisecli.evaluation.wiener import NoiseTracker, wiener

RATE = 16000


def level(sound):
    return 10 * np.log10(np.mean(np.square(sound)))


@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
def test_steady_noise_goes_and_speech_stays(sample_rate, speech, rng):
    clean = np.r_[np.zeros(sample_rate), speech(3.0, sample_rate)].astype(np.float32)
    noisy = clean + 0.03 * rng.standard_normal(clean.size).astype(np.float32)
    cleaned = wiener(noisy, sample_rate)
    assert cleaned.shape == noisy.shape
    pause, talk = slice(0, sample_rate), slice(sample_rate, None)
    assert level(cleaned[pause]) < level(noisy[pause]) - 10
    assert abs(level(cleaned[talk]) - level(clean[talk])) < 1
    before, after = (
        measure(clean, sound, sample_rate, ["si_sdr"])["si_sdr"] for sound in (noisy, cleaned)
    )
    assert after > before + 3


def test_clean_speech_is_hardly_touched(speech):
    clean = np.r_[np.zeros(RATE // 2), speech(3.0, RATE)].astype(np.float32)
    assert measure(clean, wiener(clean, RATE), RATE, ["si_sdr"])["si_sdr"] > 15


@pytest.mark.parametrize("timesteps", [1, 100, 511, 4000])
def test_any_length_and_silence(timesteps, rng):
    sound = rng.standard_normal(timesteps).astype(np.float32)
    assert wiener(sound, RATE).shape == (timesteps,)
    assert np.isfinite(wiener(sound, RATE)).all()
    assert not wiener(np.zeros(timesteps, np.float32), RATE).any()


def test_noise_power_is_found_and_followed(rng):
    """White noise has powers of an exponential distribution. Its highest peaks pass for speech."""
    tracker = NoiseTracker(np.ones(500))
    for true in (3, 300):  # 20 dB more, all at once
        for power in true * rng.exponential(size=(250, 500)):
            tracker.update(power)
        assert -1.5 < 10 * np.log10(tracker.power.mean() / true) < 0.5


def test_a_burst_of_speech_is_no_noise():
    tracker = NoiseTracker(np.ones(4))
    for _ in range(10):
        tracker.update(np.full(4, 1000.0))
    assert (tracker.power < 2).all()
