from pathlib import Path

import numpy as np
import pytest
from helpers import pink_noise

from denoisecli.adaptation.material import _divide, _spoken, voices
from denoisecli.adaptation.voice_activity import has_speech, widened
from denoisecli.audio.files import read_mono
from denoisecli.errors import UsageError

RATE = 16000


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.9] * 8, True),
        ([], False),
        ([0.9] * 7, False),
        ([0.4] * 100, False),
        (([0.9] * 4 + [0.1]) * 20, False),
        ([0.9] * 8 + [0.0] * 700, True),
        ([0.9] * 8 + [0.0] * 900, False),
    ],
)
def test_somebody_speaks_if_it_is_certain_for_a_quarter_of_a_second(
    probabilities: list[float], expected: bool
) -> None:
    """Music sounds like a voice for a chunk or two, and so do a few per cent of it."""
    assert has_speech(np.array(probabilities, np.float32)) == expected


@pytest.mark.parametrize("size", [1, 5, 12])
def test_a_widened_condition_keeps_its_length(size: int) -> None:
    """Also if it is shorter than the margins."""
    holds = np.zeros(size, bool)
    holds[0] = True
    assert widened(holds, 6).tolist() == [place <= 6 for place in range(size)]


def test_recordings_shorter_than_the_margins_are_divided_like_others(
    rng: np.random.Generator,
) -> None:
    noise = 0.01 * pink_noise(0.5, RATE, rng)
    assert _divide(noise, noise, RATE) == ([], None)
    voice = read_mono(voices()[0], RATE)[0][RATE : 2 * RATE]
    assert sum(part.size for part in _spoken(Path("me.wav"), voice, RATE)) > 0.9 * RATE
    with pytest.raises(UsageError, match=r"no speech in me\.wav"):
        _spoken(Path("me.wav"), noise, RATE)
