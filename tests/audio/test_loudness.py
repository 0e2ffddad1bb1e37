import math

import numpy as np
import pytest

from denoisecli.audio.loudness import Limiter, LoudnessMeter, speech_gain_db
from denoisecli.errors import UsageError

RATE = 48000


def tone(seconds, amplitude, rate=RATE, channels=1):
    time = np.arange(round(seconds * rate)) / rate
    sound = amplitude * np.sin(2 * np.pi * 997 * time)
    return np.tile(sound.astype(np.float32), (channels, 1))


def measured(sound, rate=RATE, **options):
    meter = LoudnessMeter(rate, sound.shape[0], **options)
    for block in np.array_split(sound, 7, axis=1):
        meter.add(block)
    return meter.finish()


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (44100, 1), (16000, 1), (8000, 2)])
def test_loudness_of_the_tone_that_the_standard_names(rate, channels):
    """A sine of 997 Hz with a peak of 0 dBFS in one channel is -3.01 LUFS (BS.1770, annex 2)."""
    loudness = measured(tone(2.0, 0.1, rate, channels), rate)
    assert loudness.integrated == pytest.approx(-23.01 + 10 * math.log10(channels), abs=0.05)
    assert loudness.true_peak == pytest.approx(-20, abs=0.3)
    assert loudness.momentary.shape == (20,)


def test_peaks_between_the_samples_are_found():
    """At a quarter of the rate and 45 degrees, all samples are 3 dB below the peak."""
    phase = np.arange(RATE) * np.pi / 2 + np.pi / 4
    sound = (0.5 * np.hanning(RATE) * np.sin(phase)).astype(np.float32)[np.newaxis]
    assert 20 * math.log10(float(abs(sound).max())) == pytest.approx(-9.03, abs=0.01)
    assert measured(sound).true_peak == pytest.approx(-6.02, abs=0.2)
    assert math.isnan(measured(sound, true_peak=False).true_peak)


@pytest.mark.parametrize("timesteps", [1, 4799, 4800, 4801, 7000])
def test_the_peak_of_the_last_incomplete_block_is_found(timesteps):
    sound = np.concatenate([tone(2.0, 0.1), tone(timesteps / RATE, 0.1)], axis=1)
    without = measured(sound)
    sound[0, -1] = 0.5
    found = measured(sound)
    assert found.true_peak >= 20 * math.log10(0.5) - 0.3 > without.true_peak
    assert measured(sound[:, -timesteps:]).true_peak >= -6.3
    blocks = sound.shape[1] // 4800
    complete = measured(sound[:, : blocks * 4800])
    np.testing.assert_array_equal(found.momentary[:20], complete.momentary[:20])
    assert found.momentary.size == blocks


def test_silence_and_short_sounds_have_no_loudness():
    assert measured(np.zeros((1, RATE), np.float32)).integrated == -math.inf
    assert measured(tone(0.05, 0.5)).integrated == -math.inf
    assert LoudnessMeter(RATE, 1).finish().integrated == -math.inf


def test_too_many_channels_are_refused():
    with pytest.raises(UsageError, match="1 to 8 channels, not for 9"):
        LoudnessMeter(RATE, 9)


def test_the_limiter_keeps_quiet_samples_in_their_places():
    sound = tone(1.0, 0.1, channels=2)
    sound[:, 20000] = 0.9
    limiter = Limiter(RATE, 2, -6.0)
    parts = [part for block in np.array_split(sound, 5, axis=1) for part in limiter.process(block)]
    result = np.concatenate([*parts, *limiter.finish()], axis=1)
    assert result.shape == sound.shape
    assert abs(result).max() <= 10 ** (-6 / 20) + 1e-4
    np.testing.assert_allclose(result[:, :19000], sound[:, :19000], atol=1e-6)
    np.testing.assert_allclose(result[:, 30000:], sound[:, 30000:], atol=1e-3)


def test_a_very_low_limit_is_the_lowest_there_is():
    limiter = Limiter(RATE, 1, -60.0)
    parts = [*limiter.process(tone(1.0, 0.5)), *limiter.finish()]
    assert abs(np.concatenate(parts, axis=1)).max() == pytest.approx(10 ** (-24.08 / 20), abs=1e-3)


def test_cleaned_speech_becomes_as_loud_as_it_was_in_the_noise():
    """Speech at -20 LUFS in noise at -30 LUFS, of which cleaning keeps half of the amplitude."""
    speech = np.repeat([True, False], 20)
    noisy = np.where(speech, 10 * math.log10(10**-2 + 10**-3), -30.0)
    clean = np.where(speech, -26.0, -60.0)
    assert speech_gain_db(noisy, clean) == pytest.approx(6.0, abs=0.01)
    assert speech_gain_db(noisy[:20], clean[:20]) == pytest.approx(6.41, abs=0.01)  # no pauses
    assert speech_gain_db(noisy, np.full(40, -np.inf)) == 0.0
