"""One gain for all channels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import constant_mask, smoothed_power_mask

from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.frames import FrameStream
from denoisecli.cleaning.masking import Blocks
from denoisecli.cleaning.transform import linked

RATE = 48000


def rms(sound: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(np.square(sound), axis=-1))


@pytest.fixture
def panned(speech: Callable[..., np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A voice that is 12 dB louder on the left, in noise of the same level on both sides."""
    voice = speech(6, RATE)
    noise = 0.5 * rms(voice) * rng.standard_normal((2, voice.size))
    return (np.array([[1.0], [0.25]]) * voice + noise).astype(np.float32)


@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_bins_keep_the_levels_of_the_channels(
    sample_rate: int,
    model_folder: Callable[..., Path],
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
) -> None:
    """A tone that only differs in level between the channels does so afterwards."""
    folder = model_folder(smoothed_power_mask(), output={"mask": "magnitude"})
    sound = speech(2, sample_rate)
    both = np.stack([sound, -0.1 * sound])
    alone, linked = (
        Denoiser(folder, link_channels=link).clean(both, sample_rate) for link in (False, True)
    )
    np.testing.assert_allclose(linked[1], -0.1 * linked[0], atol=5e-5)
    assert np.abs(alone[1] + 0.1 * alone[0]).max() > 1e-3


def test_one_channel_and_equal_gains_are_as_without(
    model_folder: Callable[..., Path], panned: np.ndarray
) -> None:
    linked = Denoiser("speech", link_channels=True)
    np.testing.assert_array_equal(
        linked.clean(panned[0], RATE), Denoiser("speech").clean(panned[0], RATE)
    )
    half = Denoiser(model_folder(constant_mask(0.5)), link_channels=True)
    np.testing.assert_allclose(half.clean(panned, RATE), panned / 2, atol=1e-5)


def test_frames_are_linked_as_blocks_are(panned: np.ndarray) -> None:
    denoiser = Denoiser("speech-live", link_channels=True)
    stream = denoiser.stream(RATE, 2)
    assert isinstance(stream._masked, FrameStream)
    frames = np.concatenate([stream.process(panned), stream.finish()], axis=1)
    stream = denoiser.stream(RATE, 2, blocks=Blocks(9.0))
    blocks = np.concatenate([stream.process(panned), stream.finish()], axis=1)
    np.testing.assert_allclose(frames, blocks, atol=1e-5)


def test_digital_silence_in_all_channels_stays_silent(rng: np.random.Generator) -> None:
    """The filter over frames leaves sound there, so that the gain of the bin has no limit."""
    noisy = rng.standard_normal((2, 5, 7, 2)).astype(np.float32).view(np.complex64)[..., 0]
    noisy[:, :, 3] = 0
    with np.errstate(all="raise"):
        result = linked(noisy, 100 * np.roll(noisy, 1, axis=2), 0)
    assert np.isfinite(result).all()
    assert np.all(result[:, :, 3] == 0)
    assert np.abs(result[:, :, 4]).max() < 1e-6  # where what is cleaned is silent
