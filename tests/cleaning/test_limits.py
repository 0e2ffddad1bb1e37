"""What the bundled model does to sounds that are no noise, and that docs/clean.md helps."""

from functools import cache

import numpy as np
import pytest
from helpers import speech_like
from scipy.signal import lfilter

from denoisecli.cleaning.denoiser import Denoiser

RATE = 48000
FRAME = RATE * 32 // 1000

pytestmark = pytest.mark.slow


def tone(seconds, *frequencies, level=0.1):
    t = np.arange(round(seconds * RATE)) / RATE
    return level * sum(np.sin(2 * np.pi * frequency * t) for frequency in frequencies)


def pause(seconds):
    return np.zeros(round(seconds * RATE))


@cache
def tones():
    """Return signals that are made of tones, in silence."""
    return {
        "DTMF": np.concatenate([tone(0.2, 770, 1336), pause(0.1)] * 8),
        "2-pop": np.concatenate([pause(1), tone(1 / 24, 1000), pause(1)]),
        "time pips": np.concatenate([tone(0.1, 1000), pause(0.9)] * 3),
        "bleep": np.concatenate([speech_like(1, RATE), tone(1, 1000), speech_like(1, RATE)]),
    }


def whisper(seconds):
    """Return noise through the formants of vowels, in syllables, without a voice."""
    rng = np.random.default_rng(0)
    parts = []
    for index in range(round(seconds / 0.25)):
        sound = rng.standard_normal(RATE // 4)
        for frequency, width in zip(
            ((700, 1200, 2600), (300, 2200, 3000), (400, 800, 2400))[index % 3],
            (130, 150, 200),
            strict=True,
        ):
            radius = np.exp(-np.pi * width / RATE)
            angle = 2 * np.pi * frequency / RATE
            sound = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], sound)
        parts.append(sound * np.hanning(sound.size))
    sound = np.concatenate(parts)
    return 0.03 * sound / np.sqrt(np.mean(sound**2))


def gain_db(before, after):
    """Return the change of the level in the frames of 32 ms that hold sound, in dB."""
    frames = [sound[: sound.size // FRAME * FRAME].reshape(-1, FRAME) for sound in (before, after)]
    powers = [np.mean(frame**2, axis=1) for frame in frames]
    loud = powers[0] > 1e-3 * powers[0].max()
    return 10 * np.log10(np.maximum(powers[1][loud], 1e-12) / powers[0][loud])


@cache
def denoiser(**options):
    return Denoiser("speech", **options)


def cleaned(sound, **options):
    return denoiser(**options).clean(sound.astype(np.float32), RATE)


@pytest.mark.parametrize("name", tones())
def test_tones_may_vanish_but_not_with_a_limit(name):
    sound = tones()[name]
    print(f"{name}: {np.median(gain_db(sound, cleaned(sound))):.0f} dB")
    limited = gain_db(sound, cleaned(sound, attenuation_limit_db=6.0))
    assert np.median(limited) > -6.5
    mixed = gain_db(sound, cleaned(sound, strength=0.5))
    assert np.median(mixed) > -6.5


def test_whispers_survive_with_a_limit():
    sound = whisper(3)
    lost = gain_db(sound, cleaned(sound))
    print(f"whispering: {np.mean(lost < -10):.0%} of the frames lose more than 10 dB")
    limited = gain_db(sound, cleaned(sound, attenuation_limit_db=6.0))
    assert np.mean(limited < -7) < 0.1


def test_clean_speech_keeps_its_level_from_pass_to_pass():
    sound = speech_like(3, RATE)
    once = cleaned(sound)
    twice = cleaned(once)
    for before, after in ((sound, once), (once, twice)):
        change = 10 * np.log10(np.mean(after**2) / np.mean(before**2))
        print(f"clean speech: {change:.2f} dB")
        assert change > -3
