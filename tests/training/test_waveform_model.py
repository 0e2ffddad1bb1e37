from typing import Any

import keras
import numpy as np
import pytest

from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training.losses.waveform import LOSSES
from denoisecli.training.waveform_model import WaveformModel, build_network


def spec_of(**sections: Any) -> Spec:
    return parse_spec(
        {
            "name": "test",
            "audio": {"sample_rate": 4000},
            "stft": {"n_fft": 32, "hop_length": 16},
            "downsampling": [{"filters": 4, "strides": [4, 1]}],
            "valley": [{"block": "recurrent", "axis": "time", "units": 3}],
            "upsampling": [{"filters": 4}],
            **sections,
        }
    )


def model_of(spec: Spec, **options: Any) -> WaveformModel:
    keras.utils.set_random_seed(0)
    return WaveformModel(spec, build_network(spec, spec.training.precision), **options)


@pytest.fixture
def sounds(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of noisy and of clean sounds."""
    clean = 0.1 * rng.standard_normal((4, 8000)).astype(np.float32)
    return clean + 0.05 * rng.standard_normal(clean.shape).astype(np.float32), clean


@pytest.mark.slow
def test_silence_is_harmless(sounds: tuple[np.ndarray, np.ndarray]) -> None:
    """All losses and gradients stay finite, whether a row is silent or the whole batch."""
    losses = [{"kind": kind, "weight": 1.0} for kind in LOSSES]
    model = model_of(spec_of(audio={"sample_rate": 16000}, training={"losses": losses}))
    model.compile(optimizer=keras.optimizers.SGD(1e-3))
    noisy, clean = sounds
    noisy[0], clean[0] = 0, 0  # digital silence
    clean[1] = 0  # noise only
    noisy[2] = clean[2]  # nothing to do
    for batch in ((noisy, clean), (0 * noisy, 0 * clean)):
        result = model.train_on_batch(*batch, return_dict=True)
        assert np.isfinite(list(result.values())).all()
        for weight in model.network.weights:
            assert np.isfinite(np.asarray(weight)).all(), weight.path


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(precision: str, sounds: tuple[np.ndarray, np.ndarray]) -> None:
    """The network computes in 16 bits, the rest in 32; the weights fit either network."""
    noisy, clean = (sound[:2, :400] for sound in sounds)
    full, mixed = (
        model_of(spec_of(training={"precision": name})) for name in ("float32", precision)
    )
    assert keras.config.dtype_policy().name == "float32"
    expected, found = (np.asarray(model(noisy)) for model in (full, mixed))
    assert found.dtype == np.float32
    for old, new in zip(full.network.weights, mixed.network.weights, strict=True):
        assert new.dtype == "float32"
        np.testing.assert_array_equal(old, new)
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    assert 1e-6 < error < 0.02
    # Faint sound, whose powers 16 bits do not hold.
    faint = np.asarray(mixed(noisy * 1e-4))
    assert np.sqrt(np.mean((faint * 1e4 - np.asarray(full(noisy * 1e-4)) * 1e4) ** 2)) < 0.01
    assert np.isfinite(float(mixed.compute_loss(noisy, clean, found)))


def test_devices_share_a_loss(sounds: tuple[np.ndarray, np.ndarray]) -> None:
    noisy, clean = sounds
    whole, half = (model_of(spec_of(), replicas=replicas) for replicas in (1, 2))
    parts = [
        float(half.compute_loss(noisy[part], clean[part], noisy[part]))
        for part in (slice(2), slice(2, 4))
    ]
    assert sum(parts) == pytest.approx(float(whole.compute_loss(noisy, clean, noisy)), rel=1e-5)


def test_the_improvement_leaves_out_what_is_above_the_bandwidth(rng: np.random.Generator) -> None:
    """An estimate is not rewarded for silence where nothing is known about the speech."""
    model = model_of(spec_of())
    times = np.arange(4000) / 4000
    clean = np.stack([0.2 * np.sin(2 * np.pi * f * times) for f in (250, 375)]).astype(np.float32)
    noise = 0.05 * rng.standard_normal(clean.shape).astype(np.float32)
    highs = 0.1 * np.sin(2 * np.pi * 1800 * times, dtype=np.float32)
    bands = np.full((2, 12), 1000.0, np.float32)

    def improvement(bandwidth: np.ndarray | None, left: float) -> float:
        model.reset_metrics()
        estimate = clean + 0.1 * noise + left * highs
        figures = model.compute_metrics(clean + noise + highs, clean, estimate, bandwidth)
        return float(figures["si_sdr_improvement"])

    assert improvement(bands, 0.0) == pytest.approx(improvement(bands, 1.0), abs=0.1)
    assert improvement(bands, 1.0) == pytest.approx(20, abs=1)
    assert improvement(None, 0.0) > improvement(None, 1.0) + 10


def test_a_constant_is_neither_speech_nor_noise(sounds: tuple[np.ndarray, np.ndarray]) -> None:
    model = model_of(spec_of())
    noisy, clean = sounds
    expected = float(model.compute_metrics(noisy[1:], clean[1:], clean[1:])["si_sdr_improvement"])
    clean[0] = 0.3
    model.reset_metrics()
    figures = model.compute_metrics(noisy, clean, clean)
    assert float(figures["si_sdr_improvement"]) == pytest.approx(expected, rel=1e-5)
