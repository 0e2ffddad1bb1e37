import numpy as np
import pytest

from denoisecli.datasets.synthetic_noise import KINDS, synthesize


def power_share(sound: np.ndarray, low: float, high: float, sample_rate: int = 48000) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(sound.size, 1 / sample_rate)
    return power[(frequency >= low) & (frequency < high)].sum() / power.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_noises_are_drawn_anew_by_number_and_the_same_by_seed(kind):
    first, again, other = (synthesize(kind, number, seed=3, seconds=0.25) for number in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    for sound in (first, other):
        assert sound.shape == (12000,)
        assert np.all(np.isfinite(sound))
        assert 10 ** (-12 / 20) <= np.abs(sound).max() <= 10 ** (-1 / 20)


def test_kinds_of_noise_fill_different_bands():
    def median_share(kind: str, low: float, high: float) -> float:
        clips = [synthesize(kind, number, seconds=0.5) for number in range(3)]
        return float(np.median([power_share(clip, low, high) for clip in clips]))

    assert median_share("rumble", 0, 200) > 0.9
    assert median_share("wind", 0, 800) > 0.9
    assert median_share("hum", 40, 1500) > 0.8
    assert median_share("insects", 1500, 20000) > 0.8
    assert median_share("coil-whine", 1000, 24000) > 0.9
    assert median_share("hiss", 2000, 24000) > 0.5
