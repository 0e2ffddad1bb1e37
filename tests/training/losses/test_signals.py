import numpy as np
import pytest
import soxr

from denoisecli.spec.document import Spec, parse_spec
from denoisecli.training.losses.signals import Signals
from denoisecli.training.losses.waveform import LOSSES, total_loss

RATE = 48000
HIGH = ("compressed_magnitude", "compressed_complex", "si_sdr")


def spec_at(rate: int, n_fft: int, *losses: str) -> Spec:
    level = [{"filters": 1}]
    return parse_spec(
        {
            "name": "x",
            "audio": {"sample_rate": rate},
            "stft": {"n_fft": n_fft, "hop_length": n_fft // 2},
            "downsampling": level,
            "upsampling": level,
            "training": {"losses": list(losses)} if losses else {},
        }
    )


SPEC = spec_at(RATE, 1536, *HIGH)


def band(rng: np.random.Generator, low: float, high: float, rows: int = 2) -> np.ndarray:
    """Return half a second of noise in a band, (rows, timesteps)."""
    spectrum = np.fft.rfft(rng.normal(0, 0.1, (rows, RATE // 2)))
    hertz = np.fft.rfftfreq(RATE // 2, 1 / RATE)
    return np.fft.irfft(spectrum * ((hertz >= low) & (hertz < high))).astype(np.float32)


def test_at_16k_is_a_resampling(rng: np.random.Generator) -> None:
    sound = band(rng, 100, 7000)
    found, _ = Signals(sound, sound, sound, SPEC).at_16k
    expected = np.stack([soxr.resample(row, RATE, 16000, "VHQ") for row in sound])
    inner = slice(600, -600)
    error = np.asarray(found)[:, inner] - expected[:, inner]
    assert np.square(error).mean() < 1e-6 * np.square(expected).mean()


def test_at_16k_changes_nothing_at_16_khz(rng: np.random.Generator) -> None:
    sound = rng.normal(0, 0.1, (2, 4000)).astype(np.float32)
    for n_fft in (512, 640):
        found, _ = Signals(sound, 2 * sound, sound, spec_at(16000, n_fft)).at_16k
        np.testing.assert_array_equal(found, sound)


@pytest.mark.parametrize("kind", ["perceptual", "intelligibility"])
def test_the_rate_does_not_change_perceptual_losses(kind: str, rng: np.random.Generator) -> None:
    clean = band(rng, 100, 6000) * np.hanning(4800)[np.arange(RATE // 2) % 4800]
    estimate = (clean + 0.1 * band(rng, 100, 6000)).astype(np.float32)
    clean = clean.astype(np.float32)
    at_48k = LOSSES[kind](Signals(estimate, clean, estimate, SPEC))
    low, low_clean = (
        np.stack([soxr.resample(row, RATE, 16000, "VHQ") for row in sound])
        for sound in (estimate, clean)
    )
    at_16k = LOSSES[kind](Signals(low, low_clean, low, spec_at(16000, 512)))
    np.testing.assert_allclose(at_48k, at_16k, rtol=0.03)


def test_the_rate_does_not_change_spectra(rng: np.random.Generator) -> None:
    sound = band(rng, 100, 7000)
    (real, imaginary), _ = Signals(sound, sound, sound, SPEC).spectra
    low = np.stack([soxr.resample(row, RATE, 16000, "VHQ") for row in sound])
    (low_real, low_imaginary), _ = Signals(low, low, low, spec_at(16000, 512)).spectra
    found = np.hypot(real, imaginary)[:, 2:-2, 4:220]
    expected = np.hypot(low_real, low_imaginary)[:, 2:-2, 4:220]
    np.testing.assert_allclose(found, expected, atol=2e-3 * expected.max())


def test_weights_of_bins() -> None:
    weights = np.asarray(Signals(None, None, None, SPEC).bin_weights)
    assert weights.shape == (769,)
    np.testing.assert_allclose(weights[:257].sum() / len(weights), 1, rtol=1e-6)
    np.testing.assert_allclose(weights[512] / weights[0], 0.5, rtol=1e-6)  # 16 kHz
    np.testing.assert_array_equal(Signals(None, None, None, spec_at(16000, 512)).bin_weights, 1)


def test_nothing_is_learned_above_the_bandwidth_of_a_recording(rng: np.random.Generator) -> None:
    """What the estimate has there, while there is speech, changes no loss."""
    clean, hiss = band(rng, 100, 7000), band(rng, 9500, 23000)
    narrow = np.full((2, 12), 8000, np.float32)
    quiet = float(total_loss(clean, clean, clean + hiss, SPEC, narrow))
    assert float(total_loss(clean + hiss, clean, clean + hiss, SPEC, narrow)) == pytest.approx(
        quiet, abs=3
    )
    full = np.full((2, 12), RATE / 2, np.float32)
    assert float(total_loss(clean + hiss, clean, clean + hiss, SPEC, full)) > quiet + 10
    below = band(rng, 2000, 4000)  # but below it, all is learned
    assert float(total_loss(clean + below, clean, clean + below, SPEC, narrow)) > quiet + 10


def test_pauses_are_silent_at_all_frequencies(rng: np.random.Generator) -> None:
    clean, hiss = band(rng, 100, 7000), band(rng, 9500, 23000)
    clean[:, RATE // 4 :] = 0
    hiss[:, : RATE // 4 + 2000] = 0
    narrow = np.full((2, 12), 8000, np.float32)
    quiet = float(total_loss(clean, clean, clean + hiss, SPEC, narrow))
    assert float(total_loss(clean + hiss, clean, clean + hiss, SPEC, narrow)) > quiet + 10


def test_bandwidths_belong_to_stretches_of_time(rng: np.random.Generator) -> None:
    clean, hiss = band(rng, 100, 7000), band(rng, 9500, 23000)
    hiss[:, : RATE // 4 + 3000] = 0
    first, second = (np.full((2, 12), 8000, np.float32) for _ in range(2))
    first[:, :6] = second[:, 6:] = 24000
    quiet = float(total_loss(clean, clean, clean + hiss, SPEC, first))
    noisy = clean + hiss
    assert float(total_loss(noisy, clean, noisy, SPEC, first)) == pytest.approx(quiet, abs=5)
    assert float(total_loss(noisy, clean, noisy, SPEC, second)) > quiet + 10
