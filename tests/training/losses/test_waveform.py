from typing import Any, get_args

import numpy as np
import pytest
import tensorflow as tf
from helpers import mostly_slow

from denoisecli.audio.stft import stft
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.spec.training import LossName
from denoisecli.training.losses.signals import SILENCE, Signals
from denoisecli.training.losses.waveform import LOSSES, si_sdr_db, total_loss

LENGTH = 2000


def spec_of(**losses: float) -> Spec:
    level = [{"filters": 1}]
    terms = [{"kind": kind, "weight": weight} for kind, weight in losses.items()]
    training = {"losses": terms} if terms else {}
    return parse_spec(
        {"name": "x", "downsampling": level, "upsampling": level, "training": training}
    )


SPEC = spec_of()
COMPARING = [kind for kind in LOSSES if kind != "listening_quality"]
"""All losses but the one that needs no reference; see test_listening.py."""


@pytest.fixture(autouse=True)
def _needs_speechmos(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("kind") == "listening_quality":
        pytest.importorskip("speechmos")


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return clean signals and noises that are orthogonal, (3, LENGTH) each."""
    clean, noise = rng.normal(0, 0.1, (2, 3, LENGTH))
    noise -= clean * np.sum(clean * noise, 1, keepdims=True) / np.sum(clean**2, 1, keepdims=True)
    return clean.astype(np.float32), noise.astype(np.float32)


def numpy_si_sdr(estimate: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Compute equation 2 of Le Roux et al. 2019 for every row."""
    estimate, clean = estimate.astype(float), clean.astype(float)
    target = np.sum(estimate * clean, 1, keepdims=True) / np.sum(clean**2, 1, keepdims=True) * clean
    return 10 * np.log10(np.sum(target**2, 1) / np.sum((estimate - target) ** 2, 1))


def test_the_spec_allows_exactly_these_losses() -> None:
    own = {kind for kind in LOSSES if ":" in kind}  # registered by a test before this one
    assert set(LOSSES) - own == set(get_args(LossName))


@pytest.mark.parametrize("kind", COMPARING)
def test_minimum_at_equality(kind: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noise = pair
    noisy = clean + noise
    best = np.asarray(LOSSES[kind](Signals(clean, clean, noisy, SPEC)))
    least = {"si_sdr": -50.0, "weighted_sdr": -1.0}.get(kind, 0.0)
    assert best.shape == (3,)
    np.testing.assert_allclose(best, least, atol=1e-3)
    losses = [
        np.asarray(LOSSES[kind](Signals(clean + share * noise, clean, noisy, SPEC)))
        for share in (0.03, 0.1, 0.3, 1.0)
    ]
    assert (np.diff([best, *losses], axis=0) > 0).all()  # the more noise, the worse


@pytest.mark.parametrize("kind", COMPARING)
def test_rows_are_independent(kind: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noise = pair
    together = LOSSES[kind](Signals(clean + 0.5 * noise, clean, clean + noise, SPEC))
    alone = [
        LOSSES[kind](Signals(c + 0.5 * n, c, c + n, SPEC))
        for c, n in zip(clean[:, None], noise[:, None], strict=True)
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-4)


def test_si_sdr_of_orthogonal_noise(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noise = pair
    noise *= np.linalg.norm(clean, axis=1, keepdims=True) / np.linalg.norm(
        noise, axis=1, keepdims=True
    )
    for snr_db in (-10, 0, 7, 20):
        estimate = (clean + 10 ** (-snr_db / 20) * noise).astype(np.float32)
        np.testing.assert_allclose(si_sdr_db(estimate, clean), snr_db, atol=0.01)
        np.testing.assert_allclose(numpy_si_sdr(estimate, clean), snr_db, atol=0.01)


def test_si_sdr_equals_its_formula_at_any_scale(
    pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> None:
    clean, noise = pair
    estimate = (0.4 * clean + 0.2 * noise + rng.normal(0, 0.02, clean.shape)).astype(np.float32)
    expected = numpy_si_sdr(estimate, clean)
    for scale in (1, 100, 0.05, -1):
        found = si_sdr_db(np.float32(scale) * estimate, clean)
        np.testing.assert_allclose(found, expected, atol=0.01)
    np.testing.assert_allclose(si_sdr_db(clean, clean), 50, atol=1e-3)
    np.testing.assert_allclose(
        LOSSES["si_sdr"](Signals(estimate, clean, clean, SPEC)), -expected, atol=0.01
    )


def test_si_sdr_of_silence(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noise = pair
    faint = (clean * np.sqrt(0.9 * SILENCE / np.mean(clean**2, 1, keepdims=True))).astype("f")
    np.testing.assert_array_equal(si_sdr_db(noise, faint), 0)
    np.testing.assert_array_equal(si_sdr_db(noise, 0 * clean), 0)
    assert (np.asarray(si_sdr_db(noise, 1.1 * faint)) < -20).all()


def test_waveform_l1(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noise = pair
    found = LOSSES["waveform_l1"](Signals(clean + noise, clean, clean, SPEC))
    expected = np.abs(noise).mean(1) / clean.std(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    found = LOSSES["waveform_l1"](Signals(noise, 0 * clean, noise, SPEC))
    np.testing.assert_allclose(found, np.abs(noise).mean(1) / 0.01, rtol=1e-4)


def test_weighted_sdr(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noise = pair
    loss = LOSSES["weighted_sdr"]
    noisy = clean + noise
    share = np.sum(clean**2, 1) / (np.sum(clean**2, 1) + np.sum(noise**2, 1))
    np.testing.assert_allclose(loss(Signals(clean, clean, noisy, SPEC)), -1, atol=1e-5)
    found = loss(Signals(noisy, clean, noisy, SPEC))
    np.testing.assert_allclose(found, -(share**1.5), atol=1e-3)
    # An inverted estimate: its term of the speech is the worst possible.
    found = loss(Signals(-clean, clean, noisy, SPEC))
    residual = 2 * clean + noise
    cosine = np.sum(residual * noise, 1) / np.linalg.norm(residual, axis=1)
    cosine /= np.linalg.norm(noise, axis=1)
    np.testing.assert_allclose(found, share - (1 - share) * cosine, atol=1e-3)
    for estimate in (noise, 0 * clean, 100 * clean):
        assert (np.abs(loss(Signals(estimate, clean, noisy, SPEC))) <= 1 + 1e-6).all()


def test_compressed_losses_of_a_gain(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean = 100 * pair[0]  # far above the floor of the compression
    power = SPEC.features.compression
    energy = np.array([np.mean(np.abs(stft(row)) ** (2 * power)) for row in clean])
    for gain in (0.1, 0.5, 3):
        estimate = np.float32(gain) * clean
        for kind in ("compressed_magnitude", "compressed_complex"):
            found = LOSSES[kind](Signals(estimate, clean, clean, SPEC))
            np.testing.assert_allclose(found, energy * (1 - gain**power) ** 2, rtol=0.01)
    # Only the complex loss depends on the sign.
    flipped = LOSSES["compressed_magnitude"](Signals(-clean, clean, clean, SPEC))
    np.testing.assert_allclose(flipped, 0, atol=1e-6)
    flipped = LOSSES["compressed_complex"](Signals(-clean, clean, clean, SPEC))
    np.testing.assert_allclose(flipped, 4 * energy, rtol=0.01)


def test_band_levels_of_a_gain_at_any_level() -> None:
    rng = np.random.default_rng(3)
    spec = parse_spec(
        {
            "name": "x",
            "audio": {"sample_rate": 48000},
            "stft": {"n_fft": 1536, "hop_length": 768},
            "downsampling": [{"filters": 1}],
            "upsampling": [{"filters": 1}],
        }
    )
    loud = rng.normal(0, 0.1, (1, 48000)).astype(np.float32)
    for level in (1, 10):
        for gain_db in (-12, 6):
            estimate = np.float32(level * 10 ** (gain_db / 20)) * loud
            found = LOSSES["band_levels"](Signals(estimate, level * loud, loud, spec))
            np.testing.assert_allclose(found, abs(gain_db), rtol=0.01)


def test_band_levels_hear_each_part_of_the_spectrum_alike() -> None:
    rng = np.random.default_rng(3)
    spectrum = np.fft.rfft(rng.normal(0, 0.1, 16000))
    hertz = np.fft.rfftfreq(16000, 1 / 16000)
    clean = np.fft.irfft(spectrum)[None].astype(np.float32)

    def without(low: float, high: float) -> float:
        estimate = np.fft.irfft(np.where((hertz >= low) & (hertz < high), 0, spectrum))
        signals = Signals(estimate[None].astype(np.float32), clean, clean, SPEC)
        return float(LOSSES["band_levels"](signals)[0])

    # Two ERBs each.
    assert without(800, 1070) == pytest.approx(without(4000, 5000), rel=0.4)


@pytest.mark.parametrize(
    "silent", mostly_slow(["estimate", "clean", "both", "noise", "all"], "clean", "all")
)
@pytest.mark.parametrize("kind", LOSSES)
def test_finite_on_digital_silence(
    kind: str, silent: str, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    clean, noise = pair
    nothing = np.zeros_like(clean)
    estimate, clean, noisy = {
        "estimate": (nothing, clean, clean + noise),
        "clean": (0.5 * noise, nothing, noise),
        "both": (nothing, nothing, noise),
        "noise": (clean, clean, clean),
        "all": (nothing, nothing, nothing),
    }[silent]
    variable = tf.Variable(estimate)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(LOSSES[kind](Signals(variable, clean, noisy, SPEC)))
        value += total_loss(variable, clean, noisy, spec_of(**{kind: 1.0}))
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, variable)).all()


def descend(kind: str, clean: np.ndarray, noisy: np.ndarray) -> tuple[float, float]:
    """Return the loss before and after a small step down its gradient."""
    variable = tf.Variable(noisy)

    def loss() -> Any:
        return total_loss(variable, clean, noisy, spec_of(**{kind: 1.0}))

    with tf.GradientTape() as tape:
        before = loss()
    gradient = tape.gradient(before, variable)
    variable.assign_sub(gradient * (1e-3 * np.linalg.norm(noisy) / np.linalg.norm(gradient)))
    return float(before), float(loss())


@pytest.mark.parametrize("kind", LOSSES)
def test_a_step_down_the_gradient_lowers_the_loss(
    kind: str, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    before, after = descend(kind, pair[0], pair[0] + pair[1])
    assert after < before


def test_total_is_the_weighted_sum(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noise = pair
    noisy, estimate = clean + noise, clean + 0.3 * noise
    weights = {kind: 0.1 * (index + 1) for index, kind in enumerate(LOSSES)}
    gain = 0.1 / np.std(noisy, axis=1, keepdims=True)
    scaled = [(gain * sound).astype(np.float32) for sound in (estimate, clean, noisy)]
    expected = sum(
        weight * np.mean(LOSSES[kind](Signals(*scaled, SPEC))) for kind, weight in weights.items()
    )
    found = total_loss(estimate, clean, noisy, spec_of(**weights))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_levels_are_measured_without_the_mean(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noise = pair
    estimate = clean + noise
    silent = Signals(estimate, 0 * clean + 0.3, estimate, SPEC)
    assert not np.asarray(silent.audible).any()
    spec = spec_of(waveform_l1=1.0)
    plain, shifted = (
        float(total_loss(estimate + dc, clean + dc, estimate + dc, spec)) for dc in (0.0, 0.3)
    )
    assert shifted == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("loudness", [0.05, 1, 20])
def test_total_does_not_depend_on_loudness(
    loudness: float, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    clean, noise = pair
    sounds = [clean + 0.3 * noise, clean, clean + noise]
    spec = spec_of(**dict.fromkeys(LOSSES, 1.0))
    scaled = [np.float32(loudness) * sound for sound in sounds]
    expected = float(total_loss(*sounds, spec))
    assert float(total_loss(*scaled, spec)) == pytest.approx(expected, rel=1e-3)
