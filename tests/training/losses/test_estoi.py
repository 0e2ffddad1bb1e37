from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers import pink_noise, speech_like
from pystoi import stoi
from scipy.signal import butter, resample_poly, sosfilt

from denoisecli.spec.document import parse_spec
from denoisecli.training.losses.estoi import estoi
from denoisecli.training.losses.signals import SILENCE, Signals
from denoisecli.training.losses.waveform import LOSSES

RATE = 16000
SECONDS = 4.0
LENGTH = round(SECONDS * RATE)
LEVELS = {"downsampling": [{"filters": 1}], "upsampling": [{"filters": 1}]}


@pytest.fixture
def clean(rng: np.random.Generator) -> np.ndarray:
    """Return syllables of changing pitch and timbre, with a pause in the middle."""
    parts = []
    for f0 in (110.0, 180.0, 140.0, 220.0):
        voice = speech_like(SECONDS / 4, RATE, f0)
        for centre in rng.uniform((300, 900), (800, 2500)):
            band = butter(1, [0.8 * centre, 1.25 * centre], "bandpass", fs=RATE, output="sos")
            voice = voice + 3 * sosfilt(band, voice)
        parts.append(voice)
    sound = 0.1 * np.concatenate(parts) + 1e-5 * rng.standard_normal(LENGTH)
    sound[LENGTH // 2 : LENGTH // 2 + 8000] *= 1e-4
    return sound.astype(np.float32)


def score(estimate: np.ndarray, clean: np.ndarray, sample_rate: int = RATE) -> float:
    return float(estoi(estimate[None], clean[None], sample_rate)[0])


def test_agrees_with_pystoi(clean: np.ndarray, rng: np.random.Generator) -> None:
    ours, theirs = [], []
    for snr_db in range(-10, 21, 5):
        for noise in (rng.standard_normal(LENGTH), pink_noise(SECONDS, RATE, rng)):
            factor = np.std(clean) / np.std(noise) * 10 ** (-snr_db / 20)
            noisy = (clean + factor * noise).astype(np.float32)
            ours.append(score(noisy, clean))
            theirs.append(stoi(clean, noisy, RATE, extended=True))
    assert np.ptp(theirs) > 0.5
    assert np.corrcoef(ours, theirs)[0, 1] > 0.975
    np.testing.assert_allclose(ours, theirs, atol=0.1)


def test_equal_and_unrelated(clean: np.ndarray, rng: np.random.Generator) -> None:
    assert score(clean, clean) == pytest.approx(1, abs=0.02)
    assert score(0.01 * clean, clean) == pytest.approx(1, abs=0.02)  # a gain changes nothing
    assert abs(score(rng.standard_normal(LENGTH).astype(np.float32), clean)) < 0.1
    assert score(0 * clean, clean) == pytest.approx(0, abs=1e-3)


def test_noise_in_pauses_does_not_count(clean: np.ndarray, rng: np.random.Generator) -> None:
    """As if these frames were cut out."""
    noisy = clean.copy()
    pause = slice(LENGTH // 2 + 800, LENGTH // 2 + 7200)
    noisy[pause] += 0.1 * rng.standard_normal(6400).astype(np.float32)
    assert score(noisy, clean) == pytest.approx(score(clean, clean), abs=1e-3)


def test_other_sample_rates(clean: np.ndarray, rng: np.random.Generator) -> None:
    noisy = clean + 0.02 * rng.standard_normal(LENGTH).astype(np.float32)
    expected = score(noisy, clean)
    for rate in (8000, 48000):
        x, y = (resample_poly(sound, rate, RATE).astype(np.float32) for sound in (noisy, clean))
        assert score(x, y, rate) == pytest.approx(expected, abs=0.06)


def test_loss_and_its_gradient(clean: np.ndarray, rng: np.random.Generator) -> None:
    """The gradient is finite on silence, and a step down it improves the estimate."""
    faint = clean * np.sqrt(0.9 * SILENCE / np.mean(clean**2), dtype=np.float32)
    noise = 0.05 * rng.standard_normal((5, LENGTH)).astype(np.float32)
    target = np.stack([clean, 0 * clean, faint, clean, clean])
    estimate = target + noise
    estimate[3:] = [0 * clean, clean]
    spec = parse_spec({"name": "x", **LEVELS})
    x: Any = tf.Variable(estimate)
    with tf.GradientTape() as tape:
        losses = LOSSES["intelligibility"](Signals(x, target, x, spec))
        total = tf.reduce_sum(losses)
    gradient = tape.gradient(total, x).numpy()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(losses[1:3], 0)
    np.testing.assert_array_equal(gradient[1:3], 0)
    assert float(losses[3]) == pytest.approx(1, abs=1e-3)
    assert float(losses[4]) == pytest.approx(0, abs=0.02)
    step = gradient[0] / np.abs(gradient[0]).max() * 0.005
    better = LOSSES["intelligibility"](Signals(estimate[:1] - step, target[:1], target[:1], spec))
    assert better[0] < losses[0]


@pytest.mark.slow
def test_sounds_of_any_length(clean: np.ndarray) -> None:
    unknown = tf.TensorSpec([None, None])
    graph = tf.function(lambda x, y: estoi(x, y, RATE), input_signature=[unknown, unknown])
    for length in (100, 700, 6400, LENGTH):
        sounds = np.stack([clean[:length], clean[::-1][:length]])
        found = graph(sounds, sounds + 0.01)
        np.testing.assert_allclose(found, estoi(sounds, sounds + 0.01, RATE), atol=1e-4)
