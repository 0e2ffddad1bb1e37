import math

import keras
import numpy as np
import pytest
import soxr

from denoisecli import Denoiser
from denoisecli.audio.stft import stft
from denoisecli.cleaning.transform import GAIN_BAND, ROLL_OFF, Transform, join
from denoisecli.models.folder import ModelFolder
from denoisecli.models.registry import build_model
from denoisecli.spec.document import Spec, parse_spec

LEVEL = {"filters": 3}
GRU = {"block": "recurrent", "axis": "time", "units": 4, "bidirectional": False}


def spec_of(causal: bool, sample_rate: int = 48000) -> Spec:
    n_fft = 512 * sample_rate // 16000
    return parse_spec(
        {
            "name": "test",
            "causal": causal,
            "audio": {"sample_rate": sample_rate},
            "stft": {"n_fft": n_fft, "hop_length": n_fft // 2},
            "features": {"bands": {"count": 31, "above_hz": sample_rate / 6}},
            "downsampling": [{"filters": 3, "strides": [4, 1]}],
            "valley": [GRU],
            "upsampling": [{"filters": 3}],
            "output": {"past_taps": 1, "future_taps": int(not causal), "gain": True},
        }
    )


@pytest.fixture(scope="module", params=[True, False], ids=["causal", "looks ahead"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A model at 48 kHz with weights that do something."""
    network = build_model(spec_of(request.param))
    for seed, weight in enumerate(network.trainable_variables):
        if len(weight.shape) > 1:
            weight.assign(keras.random.normal(weight.shape, stddev=0.2, seed=seed))
    folder = ModelFolder(tmp_path_factory.mktemp("model"))
    folder.write_network(network)
    return folder


@pytest.mark.parametrize(
    ("sample_rate", "hop_length"),
    [(1, 1), (8000, 128), (11025, 176), (22050, 353), (44100, 706), (48000, 768), (96000, 1536)],
)
def test_frames_last_equally_long_at_every_rate(sample_rate: int, hop_length: int) -> None:
    transform = Transform(spec_of(False), sample_rate)
    assert transform.sample_rate == sample_rate
    assert (transform.stft.hop_length, transform.stft.n_fft) == (hop_length, 2 * hop_length)
    if sample_rate >= 11025:
        assert hop_length / sample_rate == pytest.approx(0.016, rel=0.003)


def test_windows_that_are_no_multiple_of_the_hop_are_even_at_every_rate() -> None:
    stft = {"n_fft": 768, "hop_length": 256}
    spec = parse_spec(
        {"name": "test", "stft": stft, "downsampling": [LEVEL], "upsampling": [LEVEL]}
    )
    stfts = [Transform(spec, rate).stft for rate in (16000, 44100, 22050, 48000)]
    lengths = [(768, 256), (2118, 706), (1060, 353), (2304, 768)]
    assert [(each.n_fft, each.hop_length) for each in stfts] == lengths


def test_bins_above_the_model_have_the_gain_of_those_below() -> None:
    spectrum = np.ones((385, 4), np.complex64)
    heard, rest = Transform(spec_of(False, 16000), 24000).split(spectrum)
    below, above = int(ROLL_OFF[0] * 256), math.ceil(ROLL_OFF[1] * 256)
    np.testing.assert_array_equal(heard[:below], 1)
    assert (np.diff(heard[below : above + 1].real, axis=0) < 0).all()
    assert abs(heard[above]).max() < 1e-6
    slope = np.linspace(0, 1, 257)[:, None] * np.array([[1.0, 0.5, 1j, 4.0]])
    joined = join(0 * heard, rest, slope.astype(np.complex64))
    np.testing.assert_array_equal(joined[:below], 0)
    gains = np.array([1, 0.5, 1, 1 / np.mean(GAIN_BAND)]) * np.mean(GAIN_BAND)
    np.testing.assert_allclose(joined[257:], np.broadcast_to(gains, (128, 4)), atol=0.005)


def test_nothing_is_lost_between_split_and_join(rng: np.random.Generator) -> None:
    for sample_rate in (8000, 44100, 48000, 96000):
        transform = Transform(spec_of(False), sample_rate)
        spectrum = rng.normal(size=(transform.stft.bins, 3)).astype(np.complex64)
        heard, rest = transform.split(spectrum)
        back = transform.from_model(transform.to_model(heard))
        joined = join(back, rest, np.ones_like(transform.to_model(heard)))
        np.testing.assert_allclose(joined, spectrum, rtol=1e-5)


def test_the_spectrum_is_that_at_the_rate_of_the_model(rng: np.random.Generator) -> None:
    low = soxr.resample(rng.normal(0, 0.1, 3000), 5000, 16000)
    high = soxr.resample(low, 16000, 48000, "VHQ")
    transform = Transform(spec_of(False), 16000)
    spectrum = stft(low.astype(np.float32), n_fft=512, hop_length=256, window="sqrt_hann")
    found = transform.to_model(spectrum)
    expected = stft(high.astype(np.float32), n_fft=1536, hop_length=768, window="sqrt_hann")
    frames = slice(3, min(found.shape[1], expected.shape[1]) - 3)
    error = np.abs(found[:, frames] - expected[:, frames])
    assert error.max() < 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(transform.from_model(found), spectrum, rtol=1e-6)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100])
def test_lower_rates_are_cleaned_as_at_the_rate_of_the_model(
    folder: ModelFolder, sample_rate: int, rng: np.random.Generator
) -> None:
    noise = rng.normal(0, 0.1, sample_rate).astype(np.float32)
    sound = soxr.resample(soxr.resample(noise, sample_rate, 6000), 6000, sample_rate, "VHQ")
    denoiser = Denoiser(folder.path)
    found = denoiser.clean(sound, sample_rate)
    assert found.shape == sound.shape
    high = denoiser.clean(soxr.resample(sound, sample_rate, 48000, "VHQ"), 48000)
    expected = soxr.resample(high, 48000, sample_rate, "VHQ")[: sound.size]
    inner = slice(sample_rate // 20, -sample_rate // 20)
    changed = np.square(expected - sound)[inner].mean()
    assert changed > 0.01 * np.square(sound).mean()
    if 48000 % sample_rate:  # the frames begin elsewhere
        assert np.square(found).mean() == pytest.approx(np.square(expected).mean(), rel=0.1)
    else:
        assert np.square(found - expected)[inner].mean() < 1e-4 * changed


def test_higher_rates_are_cleaned_as_at_the_rate_of_the_model(
    folder: ModelFolder, rng: np.random.Generator
) -> None:
    low = rng.normal(0, 0.1, 24000).astype(np.float32)
    low = soxr.resample(soxr.resample(low, 48000, 40000), 40000, 48000, "VHQ")
    denoiser = Denoiser(folder.path)
    found = denoiser.clean(soxr.resample(low, 48000, 96000, "VHQ"), 96000)
    expected = soxr.resample(denoiser.clean(low, 48000), 48000, 96000, "VHQ")
    inner = slice(4800, -4800)
    changed = np.square(denoiser.clean(low, 48000) - low).mean()
    assert np.square(found - expected)[inner].mean() < 1e-3 * changed


def test_streams_at_lower_rates_equal_files(folder: ModelFolder, rng: np.random.Generator) -> None:
    sound = rng.normal(0, 0.1, (1, 9000)).astype(np.float32)
    denoiser = Denoiser(folder.path)
    whole = denoiser.stream(16000)
    expected = np.concatenate([whole.process(sound), whole.finish()], axis=1)
    pieces = denoiser.stream(16000)
    blocks = [pieces.process(sound[:, i : i + 777]) for i in range(0, 9000, 777)]
    found = np.concatenate([*blocks, pieces.finish()], axis=1)
    assert found.shape == sound.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if denoiser.spec.causal:
        for rate in (8000, 16000, 44100, 48000, 96000):
            assert denoiser.stream(rate).delay == pytest.approx(0.032, abs=1e-4)
