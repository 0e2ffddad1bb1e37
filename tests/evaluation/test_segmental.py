import math

import numpy as np
import pytest
from scipy.linalg import solve_toeplitz, toeplitz
from scipy.signal import lfilter

from denoisecli.evaluation import segmental
from denoisecli.evaluation.segmental import llr, segmental_snr, wss

RATE = 16000


@pytest.fixture
def clean(speech, noise):
    return (speech(1.0, RATE) + 0.001 * noise(1.0, RATE)).astype(np.float64)


@pytest.fixture
def noisy(clean, noise):
    return clean + noise(1.0, RATE)


def frames_of(sound, sample_rate):
    """As composite.m cuts them: 30 ms, a quarter of that apart, without the last one."""
    length = round(0.03 * sample_rate)
    hop = length // 4
    number = int(sound.size / hop - length / hop)
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, length + 1) / (length + 1)))
    return [sound[i * hop : i * hop + length] * window for i in range(number)]


def mean_of_best(values):
    return np.mean(np.sort(values)[: math.floor(0.95 * len(values) + 0.5)])


def llr_by_definition(clean, estimate, sample_rate):
    order = 16 if sample_rate >= 10000 else 10
    values = []
    for frames in zip(*(frames_of(s, sample_rate) for s in (clean, estimate)), strict=True):
        lags = [np.correlate(f, f, "full")[f.size - 1 : f.size + order] for f in frames]
        filters = [np.concatenate([[1], -solve_toeplitz(r[:-1], r[1:])]) for r in lags]
        energies = [a @ toeplitz(lags[0]) @ a for a in filters]
        values.append(np.log(energies[1] / energies[0]))
    return mean_of_best(values)


def wss_by_definition(clean, estimate, sample_rate):
    """Klatt's measure, band by band, searching for the peaks as the text describes it."""
    length = round(0.03 * sample_rate)
    n_fft = 2 ** int(np.ceil(np.log2(2 * length)))
    bands = len(segmental._CENTRES)
    filters = np.zeros((bands, n_fft // 2))
    for band in range(bands):
        centre = segmental._CENTRES[band] / (sample_rate / 2) * (n_fft // 2)
        width = segmental._BANDWIDTHS[band] / (sample_rate / 2) * (n_fft // 2)
        norm = np.log(70) - np.log(segmental._BANDWIDTHS[band])
        shape = np.exp(-11 * ((np.arange(n_fft // 2) - np.floor(centre)) / width) ** 2 + norm)
        filters[band] = shape * (shape > np.exp(-30 / (2 * 2.303)))

    def parts(frame):
        power = np.abs(np.fft.fft(frame, n_fft)[: n_fft // 2]) ** 2
        energy = 10 * np.log10(np.maximum(filters @ power, 1e-10))
        slope = np.diff(energy)
        weight = np.zeros(bands - 1)
        for band in range(bands - 1):
            n = band
            if slope[band] > 0:
                while n < bands - 1 and slope[n] > 0:
                    n += 1
                peak = energy[n - 1]
            else:
                while n >= 0 and slope[n] <= 0:
                    n -= 1
                peak = energy[n + 1]
            weight[band] = 20 / (20 + energy.max() - energy[band]) / (1 + peak - energy[band])
        return weight, slope

    values = []
    for frames in zip(*(frames_of(s, sample_rate) for s in (clean, estimate)), strict=True):
        (weight_a, slope_a), (weight_b, slope_b) = map(parts, frames)
        weight = (weight_a + weight_b) / 2
        values.append(np.sum(weight * (slope_a - slope_b) ** 2) / np.sum(weight))
    return mean_of_best(values)


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_same_as_by_definition(clean, noisy, sample_rate):
    signals = clean, noisy, sample_rate
    assert llr(*signals) == pytest.approx(llr_by_definition(*signals), rel=1e-6)
    assert wss(*signals) == pytest.approx(wss_by_definition(*signals), rel=1e-9)


def test_nothing_between_a_sound_and_itself_at_any_level(clean):
    assert segmental_snr(clean, clean, RATE) == 35
    for gain in (1, 0.25, 4):
        assert llr(clean, gain * clean, RATE) == pytest.approx(0, abs=1e-9)
        assert wss(clean, gain * clean, RATE) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("gain", "snr_db"), [(0.1, 20), (1, 0), (10, -10), (1e-9, 35)])
def test_segmental_snr_in_closed_form(clean, gain, snr_db):
    """Error and signal differ by a factor in each frame; the SNR of a frame is limited."""
    assert segmental_snr(clean, (1 + gain) * clean, RATE) == pytest.approx(snr_db, abs=1e-6)


def test_llr_in_closed_form(rng):
    """A first-order process against white noise: the prediction gain, -log(1 - a²)."""
    white = rng.standard_normal((2, 10 * RATE))
    process = lfilter([1], [1, -0.9], white[0])
    assert llr(process, white[1], RATE) == pytest.approx(-np.log(1 - 0.81), abs=0.12)


def test_distances_grow_with_the_noise(clean, noise):
    disturbance = noise(1.0, RATE)
    noisy = [clean + gain * disturbance for gain in (0.1, 0.5, 2)]
    for distance in (llr, wss):
        values = [distance(clean, sound, RATE) for sound in noisy]
        assert 0 < values[0] < values[1] < values[2]
    snrs = [segmental_snr(clean, sound, RATE) for sound in noisy]
    assert 35 > snrs[0] > snrs[1] > snrs[2] > -10


@pytest.mark.parametrize("distance", [segmental_snr, llr, wss])
def test_silence_in_the_reference_is_left_out(clean, noisy, distance):
    pause = np.zeros(RATE)
    long = distance(np.r_[clean, pause], np.r_[noisy, noisy], RATE)
    assert long == pytest.approx(distance(clean, noisy, RATE), rel=0.05, abs=0.15)
    assert math.isnan(distance(pause, noisy, RATE))


@pytest.mark.parametrize("distance", [segmental_snr, llr, wss])
def test_too_short_for_a_frame(clean, noisy, distance):
    for timesteps in (1, 480, 599):
        assert math.isnan(distance(clean[:timesteps], noisy[:timesteps], RATE))
    assert math.isfinite(distance(clean[8000:8600], noisy[8000:8600], RATE))


def test_silent_estimate_is_bad_but_no_failure(clean, noisy):
    silent = np.zeros_like(clean)
    assert segmental_snr(clean, silent, RATE) == pytest.approx(0, abs=1e-9)
    assert llr(clean, noisy, RATE) < llr(clean, silent, RATE) < 20
    assert wss(clean, silent, RATE) > 0


@pytest.mark.parametrize("distance", [segmental_snr, llr, wss])
def test_blocks_do_not_show(clean, noisy, distance, monkeypatch):
    whole = distance(clean, noisy, RATE)
    monkeypatch.setattr(segmental, "_BLOCK", 7)
    assert distance(clean, noisy, RATE) == pytest.approx(whole, rel=1e-12)
