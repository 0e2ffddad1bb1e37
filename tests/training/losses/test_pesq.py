from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers import pink_noise, speech_like
from pesq import pesq
from scipy.signal import butter, sosfilt

from denoisecli.audio.stft import istft, stft
from denoisecli.errors import SpecError
from denoisecli.spec.document import parse_spec
from denoisecli.training.losses.pesq import SAMPLE_RATE, degradation, disturbance
from denoisecli.training.losses.signals import SILENCE, Signals
from denoisecli.training.losses.waveform import LOSSES

SECONDS = 3.0
LENGTH = round(SECONDS * SAMPLE_RATE)
LEVELS = {"downsampling": [{"filters": 1}], "upsampling": [{"filters": 1}]}


def at_snr(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Return the noise scaled to an SNR."""
    return noise * (np.linalg.norm(clean) / np.linalg.norm(noise) * 10 ** (-snr_db / 20))


def utterance(f0: float, rng: np.random.Generator) -> np.ndarray:
    """Return voiced syllables with two formants, fricatives between them, and faint noise."""
    voice = speech_like(SECONDS, SAMPLE_RATE, f0)
    for centre in rng.uniform((300, 900), (800, 2500)):
        band = butter(1, [0.8 * centre, 1.25 * centre], "bandpass", fs=SAMPLE_RATE, output="sos")
        voice = voice + 3 * sosfilt(band, voice)
    hiss = sosfilt(
        butter(2, 3000, "highpass", fs=SAMPLE_RATE, output="sos"), rng.standard_normal(LENGTH)
    )
    t = np.arange(LENGTH) / SAMPLE_RATE
    hiss *= np.clip(np.sin(2 * np.pi * (1.05 * t + rng.uniform())) - 0.7, 0, None)
    return (0.1 * voice + 0.03 * hiss + 1e-5 * rng.standard_normal(LENGTH)).astype(np.float32)


def babble(rng: np.random.Generator) -> np.ndarray:
    return sum(np.roll(utterance(f0, rng), rng.integers(LENGTH)) for f0 in rng.uniform(90, 250, 6))


def rumble(rng: np.random.Generator) -> np.ndarray:
    low_pass = butter(4, 40, fs=SAMPLE_RATE, output="sos")
    return sosfilt(low_pass, rng.standard_normal(LENGTH)) + 0.002 * rng.standard_normal(LENGTH)


def bursts(rng: np.random.Generator) -> np.ndarray:
    gate = np.repeat(rng.random(LENGTH // 4000) < 0.3, 4000)
    return (gate + 0.01) * rng.standard_normal(LENGTH)


NOISES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "white": lambda rng: rng.standard_normal(LENGTH),
    "pink": lambda rng: pink_noise(SECONDS, SAMPLE_RATE, rng),
    "babble": babble,
    "rumble": rumble,
    "bursts": bursts,
}


def muffled(sound: np.ndarray, cutoff: float) -> np.ndarray:
    return sosfilt(butter(4, cutoff, fs=SAMPLE_RATE, output="sos"), sound).astype(np.float32)


def subtracted(noisy: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return the result of spectral subtraction, which leaves musical noise."""
    settings: Any = {"n_fft": 512, "hop_length": 128, "window": "hann"}
    spectrum = stft(noisy.astype(np.float32), **settings)
    power = np.square(np.abs(spectrum))
    mean = np.square(np.abs(stft(noise.astype(np.float32), **settings))).mean(1, keepdims=True)
    gain = np.sqrt(np.maximum(1 - 1.5 * mean / (power + 1e-12), 0.01)).astype(np.float32)
    return istft(gain * spectrum, length=noisy.size, **settings)


@pytest.fixture
def clean(rng: np.random.Generator) -> np.ndarray:
    return utterance(130.0, rng)


def gradient(estimate: np.ndarray, clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the degradation of a batch and its gradient with respect to the estimate."""
    variable = tf.Variable(estimate)
    with tf.GradientTape() as tape:
        values = degradation(variable, clean)
        total = tf.reduce_sum(values)
    return np.asarray(values), np.asarray(tape.gradient(total, variable))


def mos_lqo(estimate: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return the score of wide-band PESQ (P.862.2), about 1 (bad) to 4.64 (equal)."""
    raw = 4.5 - np.asarray(degradation(estimate, clean))
    return 0.999 + 4 / (1 + np.exp(3.8224 - 1.3669 * raw))


@pytest.mark.slow
def test_agrees_with_pesq(rng: np.random.Generator) -> None:
    pairs = []
    for index, snr_db in enumerate((-5, 5, 15, 30)):
        for name, noise in NOISES.items():
            clean = utterance(90 + 40 * index, rng)
            added = at_snr(clean, noise(rng), snr_db).astype(np.float32)
            pairs.append((name, clean, clean + added))
            if name != "rumble" and snr_db in (5, 15):
                pairs.append((f"{name} subtracted", clean, subtracted(clean + added, added)))
            if name == "pink" and snr_db in (5, 15, 30):
                cutoff = 1000.0 + 100 * snr_db
                pairs.append((f"{name} muffled", clean, muffled(clean + added, cutoff)))
    expected = np.array([pesq(SAMPLE_RATE, clean, estimate, "wb") for _, clean, estimate in pairs])
    clean, estimates = (np.stack(sounds) for sounds in list(zip(*pairs, strict=True))[1:])
    found = mos_lqo(estimates, clean)
    assert len(pairs) >= 24
    assert np.ptp(expected) > 3
    assert np.corrcoef(found, expected)[0, 1] > 0.98
    assert np.abs(found - expected).mean() < 0.1


def test_no_difference(clean: np.ndarray) -> None:
    values, slopes = gradient(clean[None], clean[None])
    np.testing.assert_allclose(values, 0, atol=1e-3)
    assert np.isfinite(slopes).all()
    np.testing.assert_allclose(mos_lqo(clean[None], clean[None]), 4.644, atol=2e-3)


def test_worse_with_noise(clean: np.ndarray, rng: np.random.Generator) -> None:
    noise = pink_noise(SECONDS, SAMPLE_RATE, rng)
    snrs = (50, 40, 30, 25, 20, 15, 10, 5, 0, -5, -10, -20, -30)  # to where all is masked
    noisy = np.stack([clean + at_snr(clean, noise, snr_db) for snr_db in snrs])
    values = degradation(noisy, np.stack([clean] * len(snrs)))
    assert (np.diff(values) > 0).all()
    assert (np.diff(mos_lqo(noisy, np.stack([clean] * len(snrs)))) < 0).all()


def test_noise_added_is_worse_than_speech_missing(
    clean: np.ndarray, rng: np.random.Generator
) -> None:
    added = clean + at_snr(clean, bursts(rng), 15).astype(np.float32)
    symmetric, asymmetric = disturbance(np.stack([added, clean]), np.stack([clean, added]))
    np.testing.assert_allclose(symmetric[0], symmetric[1], rtol=0.3)
    assert asymmetric[0] > 1.5 * asymmetric[1]


def test_does_not_depend_on_levels(clean: np.ndarray, rng: np.random.Generator) -> None:
    noisy = clean + at_snr(clean, babble(rng), 8).astype(np.float32)
    expected = degradation(noisy[None], clean[None])
    for gain, clean_gain in ((0.05, 0.05), (20, 20), (0.1, 1), (5, 0.2)):
        found = degradation(np.float32(gain) * noisy[None], np.float32(clean_gain) * clean[None])
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_compensates_linear_filtering(clean: np.ndarray, rng: np.random.Generator) -> None:
    """A gentle spectral tilt costs less than noise of the same energy."""
    tilted = (clean - 0.3 * np.roll(clean, 1)).astype(np.float32)
    noise = at_snr(clean, pink_noise(SECONDS, SAMPLE_RATE, rng), 0)
    noise *= np.linalg.norm(tilted - clean) / np.linalg.norm(noise)
    coloured, noisy = degradation(np.stack([tilted, clean + noise]), np.stack([clean, clean]))
    assert coloured < 0.2 < 1 < noisy


def test_rumble_costs_little(clean: np.ndarray, rng: np.random.Generator) -> None:
    as_noise = degradation((clean + at_snr(clean, babble(rng), 0))[None], clean[None])
    t = np.arange(LENGTH) / SAMPLE_RATE
    for hertz in (0, 4, 10):
        low = at_snr(clean, np.cos(2 * np.pi * hertz * t), 0).astype(np.float32)
        assert degradation((clean + low)[None], clean[None]) < 0.5 < 2 < as_noise


def test_gradient_is_the_slope(clean: np.ndarray, rng: np.random.Generator) -> None:
    noise = at_snr(clean, pink_noise(SECONDS, SAMPLE_RATE, rng), 10).astype(np.float32)
    _, slopes = gradient((clean + noise)[None], clean[None])
    step = np.float32(0.02)
    louder, softer = (
        degradation((clean + g * noise)[None], clean[None]) for g in (1 + step, 1 - step)
    )
    slope = float(louder[0] - softer[0]) / (2 * step)
    np.testing.assert_allclose(np.sum(slopes * noise), slope, rtol=0.1)


def square_wave(length: int) -> np.ndarray:
    return np.where(np.arange(length) // 20 % 2, 1.0, -1.0).astype(np.float32)


@pytest.mark.parametrize("length", [1, 100, 511, 4000, 16000])
def test_finite(length: int, rng: np.random.Generator) -> None:
    noise = rng.normal(0, 0.1, length).astype(np.float32)
    nothing, impulse = np.zeros_like(noise), np.eye(1, length, dtype=np.float32)[0]
    hum = 0.5 * np.sin(2 * np.pi * 50 / SAMPLE_RATE * np.arange(length)).astype(np.float32)
    sounds = [noise, 1e-6 * noise, nothing, square_wave(length), np.ones_like(noise), hum, impulse]
    estimates = np.stack([sound for sound in sounds for _ in sounds])
    clean = np.stack([clean for _ in sounds for clean in sounds])
    values, slopes = gradient(estimates, clean)
    assert values.shape == (len(sounds) ** 2,)
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (values < 8).all()
    assert np.isfinite(slopes).all()


def test_silent_clean_counts_as_zero(clean: np.ndarray, rng: np.random.Generator) -> None:
    faint = clean * np.sqrt(0.9 * SILENCE / np.mean(clean**2), dtype=np.float32)
    estimate = rng.normal(0, 0.1, LENGTH).astype(np.float32)
    spec = parse_spec({"name": "x", **LEVELS})
    for silent in (faint, 0 * clean):
        found = LOSSES["perceptual"](Signals(estimate[None], silent[None], estimate[None], spec))
        np.testing.assert_array_equal(found, 0)
    found = LOSSES["perceptual"](Signals(estimate[None], 1.1 * faint[None], estimate[None], spec))
    assert found > 1


@pytest.mark.slow
def test_graph_of_any_shape(clean: np.ndarray) -> None:
    sounds = np.stack([clean, clean[::-1]])
    noisy = sounds + 0.1 * np.roll(sounds, 1000, axis=1)
    unknown = tf.TensorSpec([None, None])
    graph = tf.function(degradation, input_signature=[unknown, unknown])
    for length in (700, 5120, LENGTH):
        found = graph(noisy[:, :length], sounds[:, :length])
        expected = degradation(noisy[:, :length], sounds[:, :length])
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_other_sample_rates_are_refused() -> None:
    losses = [{"kind": "si_sdr", "weight": 1.0}, {"kind": "perceptual", "weight": 0.1}]
    document = {"name": "x", **LEVELS, "training": {"losses": losses}}
    assert parse_spec({**document, "audio": {"sample_rate": SAMPLE_RATE}}).training.losses
    message = r"training\.losses\[1\]: 'perceptual' .* 16000, found 8000"
    with pytest.raises(SpecError, match=message):
        parse_spec({**document, "audio": {"sample_rate": 8000}})
