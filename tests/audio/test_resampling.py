import numpy as np
import pytest
import soxr

from denoisecli.audio.level import rms
from denoisecli.audio.resampling import StreamResampler, fit_length, resample


@pytest.mark.parametrize("timesteps", [1, 7, 1000, 100_001])
@pytest.mark.parametrize(
    "rates", [(48000, 16000), (16000, 44100), (8000, 16000), (11025, 16000), (16000, 16000)]
)
def test_streamed_resampling_is_that_of_the_whole(rng, rates, timesteps):
    sound = rng.standard_normal((2, timesteps)).astype(np.float32)
    stream = StreamResampler(*rates, channels=2)
    pieces = [stream(sound[:, i : i + 4093]) for i in range(0, timesteps, 4093)]
    streamed = np.concatenate([*pieces, stream.finish()], axis=1)
    expected = soxr.resample(sound.T, *rates).T
    np.testing.assert_array_equal(streamed, expected)

    whole = resample(sound, *rates)
    assert whole.shape[1] == max(1, round(timesteps * rates[1] / rates[0] + 1e-9))
    shared = min(whole.shape[1], streamed.shape[1])
    np.testing.assert_array_equal(whole[:, :shared], streamed[:, :shared])
    np.testing.assert_array_equal(resample(sound[0], *rates), whole[0])


def test_resampling_there_and_back_is_aligned(speech):
    sound = speech(1, 16000)
    back = resample(resample(sound, 16000, 44100), 44100, 16000)
    assert rms(back - sound) < 0.02 * rms(sound)


def test_fit_length():
    sound = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(fit_length(sound, 2), [[0, 1], [3, 4]])
    np.testing.assert_array_equal(fit_length(sound[0], 5), [0, 1, 2, 0, 0])
