"""What the network hears of recordings with a DC offset, and of very quiet ones."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from denoisecli.cleaning.conditioning import Conditioner
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.models.catalogue import find_model, model_names

RATE = 16000
CELL = 256


def condition(
    sound: np.ndarray, *, pieces: Sequence[int] = (1 << 20,), lead_in: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the network hears of a sound, and what comes out if it changes nothing."""
    conditioner = Conditioner(len(sound), RATE, lead_in)
    heard, clean, position = [], [], 0
    while position < sound.shape[1]:
        size = pieces[len(heard) % len(pieces)]
        heard.append(conditioner.process(sound[:, position : position + size]))
        position += size
    heard.append(conditioner.finish())
    for block in heard:
        _, restored = conditioner.restore(block)
        clean.append(restored)
    return np.concatenate(heard, axis=1), np.concatenate(clean, axis=1)


def rms(sound: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(sound**2, axis=-1))


@pytest.fixture
def noisy(speech: Callable[..., np.ndarray], noise: Callable[..., np.ndarray]) -> np.ndarray:
    return (0.3 * speech(4, RATE) + 0.1 * noise(4, RATE))[None]


def test_usual_sound_stays_as_it_is(noisy: np.ndarray) -> None:
    heard, clean = condition(noisy, lead_in=2.0)
    np.testing.assert_array_equal(heard, noisy)
    np.testing.assert_array_equal(clean, noisy)


@pytest.mark.parametrize("offset", [0.5, -0.1, 0.05])
def test_an_offset_is_removed_from_the_first_sample_on(noisy: np.ndarray, offset: float) -> None:
    heard, clean = condition(noisy + np.float32(offset), lead_in=2.0)
    assert np.abs(heard - noisy).max() < 0.1 * rms(noisy)[0]
    np.testing.assert_allclose(clean, heard, atol=1e-6)


def test_an_offset_of_a_stream_fades_without_a_thump(noisy: np.ndarray) -> None:
    _, clean = condition(noisy + np.float32(0.1))
    removed = noisy + np.float32(0.1) - clean
    assert np.abs(removed[:, RATE // 2 :] - 0.1).max() < 0.015
    # Per millisecond less than a sine of 20 Hz of the same amplitude.
    assert np.abs(removed[:, 16:] - removed[:, :-16]).max() < 0.1 * 2 * np.pi * 20 / 1000


@pytest.mark.parametrize("level", [-45, -60, -75])
def test_quiet_sound_is_heard_at_the_usual_level(noisy: np.ndarray, level: float) -> None:
    quiet = noisy * np.float32(10 ** (level / 20) / rms(noisy)[0])
    heard, clean = condition(quiet, lead_in=2.0)
    assert -36 < 20 * np.log10(rms(heard)[0]) < -33
    np.testing.assert_allclose(clean, quiet, rtol=1e-5)


def test_silence_stays_silence() -> None:
    heard, clean = condition(np.zeros((2, RATE), np.float32))
    assert not heard.any()
    assert not clean.any()


@pytest.mark.parametrize("before", [0.0, 1e-5, 1e-3])
@pytest.mark.parametrize("start", [0, 100, CELL - 1])
def test_loud_sound_behind_silence_is_not_raised(
    noisy: np.ndarray, before: float, start: int
) -> None:
    silence = before * np.sign(noisy)[:, : 2 * RATE + start]
    loud = noisy / np.abs(noisy).max()
    sound = np.concatenate([silence, loud], axis=1).astype(np.float32)
    heard, clean = condition(sound, pieces=(100, 7777))
    late = slice(silence.shape[1], None)
    assert (np.abs(heard[:, late]) <= np.maximum(np.abs(sound[:, late]), 0.317)).all()
    np.testing.assert_allclose(clean, sound, rtol=1e-5)


@pytest.mark.parametrize("model", ["speech", "speech-live"])
def test_noise_behind_silence_does_not_come_out_as_a_burst(
    model: str, rng: np.random.Generator
) -> None:
    rate = 48000
    silence = 1e-4 * rng.standard_normal(2 * rate)
    noise = 0.3 * rng.standard_normal(rate // 2)
    sound = np.concatenate([silence, noise]).clip(-1, 1).astype(np.float32)
    clean = Denoiser(model).clean(sound, rate)
    for start in range(silence.size, sound.size, rate // 50):
        assert rms(clean[start : start + rate // 50]) < 0.1


@pytest.mark.parametrize("lead_in", [0.0, 2.0])
def test_the_size_of_the_blocks_makes_no_difference(noisy: np.ndarray, lead_in: float) -> None:
    sound = np.concatenate([0.001 * noisy, 0.001 * noisy + np.float32(0.05)])
    expected = condition(sound, lead_in=lead_in)
    for pieces in ((1, 100, 7777), (CELL,), (RATE,)):
        for got, whole in zip(
            condition(sound, lead_in=lead_in, pieces=pieces), expected, strict=True
        ):
            np.testing.assert_allclose(got, whole, atol=1e-6)


def test_channels_are_conditioned_each_for_itself(noisy: np.ndarray) -> None:
    sound = np.concatenate([noisy, 0.001 * noisy + np.float32(0.2)])
    both = condition(sound)[0]
    for channel in range(2):
        np.testing.assert_array_equal(both[channel], condition(sound[channel : channel + 1])[0][0])


def si_sdr(sound: np.ndarray, clean: np.ndarray) -> float:
    target = clean * (sound @ clean) / (clean @ clean)
    return 10 * np.log10((target @ target) / ((sound - target) @ (sound - target)))


@pytest.mark.slow
@pytest.mark.parametrize("model", model_names())
@pytest.mark.parametrize(("level", "offset"), [(-40, 0.05), (-25, 0.1), (-60, 0), (-75, 0)])
def test_bundled_models_clean_them_as_any_other(
    model: str,
    level: float,
    offset: float,
    speech: Callable[..., np.ndarray],
    noise: Callable[..., np.ndarray],
) -> None:
    rate = find_model(model).spec.audio.sample_rate
    clean = speech(6, rate)
    noisy = clean + 0.3 * noise(6, rate)
    scale = np.float32(10 ** (level / 20) / rms(noisy))
    denoiser = Denoiser(model)
    usual = denoiser.clean(noisy * np.float32(10 ** (-25 / 20) / rms(noisy)), rate)
    got = denoiser.clean(noisy * scale + np.float32(offset), rate)
    assert abs(got.mean()) < 0.02 * offset + 1e-4
    got -= got.mean()
    # What models do in the first seconds differs a little from level to level.
    for start, loss in ((0, 1.5), (2 * rate, 0.5)):
        assert si_sdr(got[start:], clean[start:]) > si_sdr(usual[start:], clean[start:]) - loss


def test_strength_mixes_the_offset_back(
    model_folder: Callable[..., Path], noisy: np.ndarray
) -> None:
    from helpers import constant_mask

    sound = noisy + np.float32(0.1)
    half = Denoiser(model_folder(constant_mask(1.0)), strength=0.5).clean(sound, RATE)
    np.testing.assert_allclose(half.mean(), 0.05, atol=0.005)
