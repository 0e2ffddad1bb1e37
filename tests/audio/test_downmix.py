from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from denoisecli.audio.downmix import Downmix, heard_channels, mono_blocks
from denoisecli.audio.files import read_mono


@pytest.fixture
def voice(speech: Callable[..., np.ndarray]) -> np.ndarray:
    return speech(2, 16000)


@pytest.mark.parametrize(
    ("gains", "loudest"),
    [((1, 1), None), ((1, 0), None), ((1, -0.3), None), ((1, -1), 0), ((0.9, -1), 1)],
)
def test_the_loudest_channel_is_taken_where_the_mean_cancels(
    voice: np.ndarray, gains: tuple[float, ...], loudest: int | None
) -> None:
    sound = np.stack([gain * voice for gain in gains]).astype(np.float32)
    expected = sound.mean(axis=0) if loudest is None else sound[loudest]
    blocks = np.array_split(sound, 7, axis=1)
    got = np.concatenate(mono_blocks(lambda: blocks), axis=1)
    np.testing.assert_array_equal(got[0], expected)
    channels = [0, 1] if loudest is None else [loudest]
    np.testing.assert_array_equal(sound[heard_channels(sound)].mean(axis=0), expected)
    assert heard_channels(sound) == channels


@pytest.mark.parametrize("channels", [1, 2])
def test_silence_does_not_cancel(channels: int) -> None:
    mean = Downmix([np.zeros((channels, 100), np.float32)])
    assert [block.shape for block in mean] == [(1, 100)]
    assert not mean.cancels
    assert not Downmix([]).cancels


def test_uncorrelated_channels_do_not_cancel(rng: np.random.Generator) -> None:
    sound = rng.standard_normal((8, 16000)).astype(np.float32)
    mean = Downmix([sound])
    list(mean)
    assert 8 < mean.lost_db < 10
    assert not mean.cancels


def test_files_with_a_channel_of_inverted_polarity_are_no_silence(
    voice: np.ndarray, audio_file: Callable[..., Path]
) -> None:
    path = audio_file("inverted.wav", np.stack([voice, -voice]), subtype="FLOAT")
    np.testing.assert_allclose(read_mono(path)[0], voice, atol=1e-6)
