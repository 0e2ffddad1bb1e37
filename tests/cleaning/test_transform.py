import keras
import numpy as np
import pytest
import soxr

from denoisecli import Denoiser
from denoisecli.audio.stft import stft
from denoisecli.cleaning.transform import Transform
from denoisecli.models.folder import ModelFolder
from denoisecli.models.registry import build_model
from denoisecli.spec.document import Spec, parse_spec

GRU = {"block": "recurrent", "axis": "time", "units": 4, "bidirectional": False}


def spec_of(causal: bool) -> Spec:
    return parse_spec(
        {
            "name": "test",
            "causal": causal,
            "audio": {"sample_rate": 48000},
            "stft": {"n_fft": 1536, "hop_length": 768},
            "features": {"bands": {"count": 31, "above_hz": 8000}},
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
    ("sample_rate", "n_fft"),
    [(8000, 256), (16000, 512), (32000, 1024), (48000, 1536), (44100, 0), (22050, 0), (96000, 0)],
)
def test_rates(sample_rate: int, n_fft: int) -> None:
    transform = Transform(spec_of(False), sample_rate)
    assert transform.sample_rate == (sample_rate if n_fft else 48000)
    assert (transform.stft.n_fft, transform.stft.hop_length) == (n_fft or 1536, n_fft // 2 or 768)


def test_too_low_rates_are_resampled() -> None:
    assert Transform(spec_of(False), 500).sample_rate == 500
    assert Transform(spec_of(False), 250).sample_rate == 48000  # a window of 8 samples


def test_the_spectrum_is_that_at_the_rate_of_the_model(rng: np.random.Generator) -> None:
    low = soxr.resample(rng.normal(0, 0.1, 3000), 5000, 16000)
    high = soxr.resample(low, 16000, 48000, "VHQ")
    transform = Transform(spec_of(False), 16000)
    spectrum = stft(low.astype(np.float32), n_fft=512, hop_length=256, window="sqrt_hann")
    found = transform.to_model(spectrum, axis=0)
    expected = stft(high.astype(np.float32), n_fft=1536, hop_length=768, window="sqrt_hann")
    frames = slice(3, min(found.shape[1], expected.shape[1]) - 3)
    error = np.abs(found[:, frames] - expected[:, frames])
    assert error.max() < 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(transform.from_model(found, axis=0), spectrum, rtol=1e-6)


@pytest.mark.parametrize("sample_rate", [8000, 16000])
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
    assert np.square(found - expected)[inner].mean() < 1e-4 * changed


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
        assert pieces.delay == pytest.approx(0.032, abs=1e-3)
