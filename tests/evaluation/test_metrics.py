import math
import sys

import numpy as np
import pesq as pesq_package
import pystoi
import pytest
from helpers import speech_like

from denoisecli.audio.resampling import resample
from denoisecli.errors import AudioError, UsageError
from denoisecli.evaluation import metrics
from denoisecli.evaluation.metrics import METRICS, blind_metrics, measure

RATE = 16000


@pytest.fixture
def clean(speech, noise):
    sound = (speech(2.0, RATE) + 0.001 * noise(2.0, RATE)).astype(np.float64)
    return (sound - sound.mean()).astype(np.float32)


@pytest.fixture
def noisy(clean, noise):
    return clean + noise(2.0, RATE)


@pytest.fixture
def orthogonal(clean, noise):
    """Noise that has the energy of the clean sound and is not correlated with it."""
    clean, sound = clean.astype(np.float64), noise(2.0, RATE).astype(np.float64)
    sound -= sound.mean()
    sound -= np.dot(sound, clean) / np.dot(clean, clean) * clean
    return sound * np.linalg.norm(clean) / np.linalg.norm(sound)


@pytest.mark.parametrize("db", [-20.0, 0.0, 7.5, 60.0])
@pytest.mark.parametrize("gain", [0.01, 1.0, -3.0])
def test_si_sdr_in_closed_form(clean, orthogonal, db, gain):
    estimate = gain * (clean + 10 ** (-db / 20) * orthogonal)
    assert metrics.si_sdr(clean, estimate, RATE) == pytest.approx(db, abs=1e-6)
    assert metrics.si_sdr(5 * clean, estimate, RATE) == pytest.approx(db, abs=1e-5)


@pytest.mark.parametrize("db", [-20.0, 0.0, 7.5, 60.0])
def test_snr_in_closed_form(clean, orthogonal, db):
    estimate = clean + 10 ** (-db / 20) * orthogonal
    assert metrics.snr(clean, estimate, RATE) == pytest.approx(db, abs=1e-6)
    assert metrics.snr(clean, 2 * clean, RATE) == pytest.approx(0, abs=1e-6)


def test_si_sdr_and_snr_are_limited(clean, orthogonal):
    assert metrics.si_sdr(clean, clean, RATE) == metrics.snr(clean, clean, RATE) == 100
    assert metrics.snr(clean, 1e7 * clean, RATE) == -100
    slow, fast = np.tile([1.0, 1.0, -1.0, -1.0], 250), np.tile([1.0, -1.0], 500)
    assert metrics.si_sdr(slow, fast, RATE) == -100


@pytest.mark.parametrize("offset", [-0.5, 1.0])
@pytest.mark.parametrize("metric", [metrics.snr, metrics.si_sdr, metrics.segmental_snr])
def test_ratios_leave_out_a_dc_offset(metric, clean, orthogonal, offset):
    clean[: RATE // 4] = 0  # no frame counts more because of the offset
    estimate = clean + orthogonal
    expected = metric(clean, estimate, RATE)
    assert metric(clean + offset, estimate, RATE) == pytest.approx(expected, abs=1e-3)
    assert metric(clean + offset, estimate + offset, RATE) == pytest.approx(expected, abs=1e-3)
    assert metric(clean, estimate + offset, RATE) == pytest.approx(expected, abs=1e-3)


def test_a_constant_estimate_holds_nothing_of_the_reference(clean):
    constant = np.full_like(clean, 0.3)
    assert metrics.si_sdr(clean, constant, RATE) == -metrics.MAX_DB
    assert metrics.snr(clean, constant, RATE) == pytest.approx(0)


@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_lsd_of_a_gain_is_that_gain(rng, gain):
    sound = 0.1 * rng.standard_normal(RATE)
    db = abs(20 * np.log10(gain))
    assert metrics.lsd(sound, gain * sound, RATE) == pytest.approx(db, abs=1e-3)
    assert metrics.lsd(10 * sound, 10 * gain * sound, RATE) == pytest.approx(db, abs=1e-3)


def test_lsd_does_not_see_below_80_db(clean, rng):
    inaudible = 1e-7 * np.abs(clean).max() * rng.standard_normal(clean.size)
    assert metrics.lsd(clean, clean + inaudible, RATE) < 0.5
    assert 0 < metrics.lsd(clean, np.zeros_like(clean), RATE) <= 80


def test_pesq_and_stoi_match_the_packages(clean, noisy):
    expected = {
        "pesq_wb": pesq_package.pesq(RATE, clean, noisy, "wb"),
        "pesq_nb": pesq_package.pesq(
            8000, *(resample(s, RATE, 8000) for s in (clean, noisy)), "nb"
        ),
        "stoi": pystoi.stoi(clean, noisy, RATE),
        "estoi": pystoi.stoi(clean, noisy, RATE, extended=True),
    }
    assert measure(clean, noisy, RATE, expected) == pytest.approx(expected, abs=1e-3)


def test_perfect_scores(clean):
    """The maxima of P.862.2 and P.862.1, and the upper end of each other scale."""
    scores = measure(clean, clean, RATE)
    assert scores["pesq_wb"] == pytest.approx(4.644, abs=1e-3)
    assert scores["pesq_nb"] == pytest.approx(4.549, abs=1e-3)
    assert scores["stoi"] == pytest.approx(1, abs=1e-6)
    assert scores["estoi"] == pytest.approx(1, abs=1e-6)
    assert scores["segmental_snr"] == 35
    assert scores["lsd"] == 0
    assert scores["csig"] == scores["cbak"] == scores["covl"] == 5


def test_higher_is_better_is_right_for_all_metrics(clean, noise):
    disturbance = noise(2.0, RATE)
    bad, good = (measure(clean, clean + gain * disturbance, RATE) for gain in (1.0, 0.1))
    for name, metric in METRICS.items():
        assert (good[name] > bad[name]) == metric.higher_is_better, name


def test_sample_rate_matters_little(clean, noisy):
    at_16 = measure(clean, noisy, RATE)
    at_48 = measure(*(resample(sound, RATE, 48000) for sound in (clean, noisy)), 48000)
    for name in ("pesq_wb", "pesq_nb", "stoi", "estoi", "si_sdr", "snr", "csig", "cbak", "covl"):
        assert at_48[name] == pytest.approx(at_16[name], abs=0.05), name


def test_metrics_of_wide_band_speech_are_undefined_below_16_khz(clean, noisy):
    at_8 = measure(*(resample(sound, RATE, 8000) for sound in (clean, noisy)), 8000)
    undefined = {name for name, value in at_8.items() if math.isnan(value)}
    assert undefined == {"pesq_wb", "csig", "cbak", "covl"}
    assert undefined == {name for name, metric in METRICS.items() if metric.lowest_rate > 8000}
    assert at_8["pesq_nb"] == pytest.approx(metrics.pesq_nb(clean, noisy, RATE), abs=0.05)
    assert [metrics.pesq_for(rate) for rate in (8000, 16000)] == ["pesq_nb", "pesq_wb"]


def test_si_sdr_60hz_ignores_hum_and_rumble(clean):
    time = np.arange(clean.size) / RATE
    hum = 0.5 * np.sin(2 * np.pi * 20 * time)
    assert metrics.si_sdr(clean, clean + hum, RATE) < 0
    assert metrics.si_sdr_60hz(clean, clean + hum, RATE) > 25
    assert metrics.si_sdr_60hz(clean + hum, clean, RATE) > 25
    tone = 0.1 * np.sin(2 * np.pi * 1000 * time)
    assert metrics.si_sdr_60hz(clean, clean + tone, RATE) == pytest.approx(
        metrics.si_sdr(clean, clean + tone, RATE), abs=0.1
    )
    assert metrics.si_sdr_60hz(clean, 1 - 3 * clean, RATE) > 60  # level and offset do not matter
    assert math.isnan(metrics.si_sdr_60hz(clean, clean, 120))


def test_composite_follows_from_its_parts(clean, noisy):
    c = metrics.composite(clean, noisy, RATE)
    assert c.csig == pytest.approx(3.093 - 1.029 * c.llr + 0.603 * c.pesq_wb - 0.009 * c.wss)
    assert c.cbak == pytest.approx(
        1.634 + 0.478 * c.pesq_wb - 0.007 * c.wss + 0.063 * c.segmental_snr
    )
    assert c.covl == pytest.approx(
        max(1.594 + 0.805 * c.pesq_wb - 0.512 * c.llr - 0.007 * c.wss, 1.0)
    )


def test_composite_is_the_same_for_16_bits_and_float(clean, noisy):
    """Spectral holes end at -98 dB in 16 bits, and have no floor in float."""
    spectrum = np.fft.rfft(noisy)
    spectrum[spectrum.size // 2 :] = 0
    holes = np.fft.irfft(spectrum, noisy.size)
    rounded = np.round(holes * 2**15) / 2**15
    as_float, as_int = (metrics.composite(clean, sound, RATE) for sound in (holes, rounded))
    assert as_float.llr == pytest.approx(as_int.llr, rel=1e-6)
    assert as_float.wss == pytest.approx(as_int.wss, rel=1e-6)


def test_measure_equals_each_metric_alone(clean, noisy):
    names = ["covl", "si_sdr", "pesq_wb", "segmental_snr"]
    scores = measure(clean, noisy, RATE, names)
    assert list(scores) == names
    assert scores == {name: METRICS[name].function(clean, noisy, RATE) for name in names}


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_silent_reference_gives_nan(noisy, value):
    scores = measure(np.full_like(noisy, value), noisy, RATE)
    assert all(math.isnan(score) for score in scores.values())


def test_silent_estimate(clean):
    """A model that mutes what it cannot clean gets the worst scores, not none."""
    scores = measure(clean, np.zeros_like(clean), RATE)
    assert {name for name, score in scores.items() if math.isnan(score)} == set()
    assert scores["si_sdr"] == scores["si_sdr_60hz"] == -metrics.MAX_DB
    assert (scores["pesq_wb"], scores["pesq_nb"]) == (1.0, 1.0)
    assert scores["csig"] == scores["covl"] == 1
    assert scores["snr"] == scores["stoi"] == scores["estoi"] == 0


@pytest.mark.parametrize("timesteps", [1, 100, 4000])
def test_too_short_gives_nan_instead_of_an_error(clean, noisy, timesteps):
    piece = slice(RATE // 2, RATE // 2 + timesteps)
    scores = measure(clean[piece], noisy[piece], RATE)
    for name in ("stoi", "estoi"):
        assert math.isnan(scores[name])
    assert math.isnan(scores["pesq_wb"]) == (timesteps < 4000)
    assert math.isfinite(scores["snr"]) == (timesteps > 1)  # one sample is a constant


def test_little_speech_gives_nan_instead_of_the_placeholder_of_the_package(clean, noisy):
    """If too few frames are left, pystoi warns and returns 0.00001."""
    speck = np.zeros_like(clean)
    speck[8000:11000] = clean[8000:11000]
    assert math.isnan(metrics.stoi(speck, noisy, RATE))


def test_more_utterances_than_pesq_can_hold(rng):
    """In one piece this would crash: PESQ writes past the end of its table of 50 utterances."""
    time = np.arange(45 * RATE) / RATE
    bursts = 0.1 * rng.standard_normal(time.size) * (time % 0.5 < 0.25)
    score = metrics.pesq_nb(bursts, bursts + 0.001 * rng.standard_normal(time.size), RATE)
    assert 1 < score < 4.5


def test_long_sounds_are_the_mean_of_pieces(clean, noisy, monkeypatch):
    halves = [
        metrics.pesq_wb(a, b, RATE)
        for a, b in zip(np.split(clean, 2), np.split(noisy, 2), strict=True)
    ]
    monkeypatch.setattr(metrics, "PESQ_SECONDS", 1.5)
    assert metrics.pesq_wb(clean, noisy, RATE) == pytest.approx(np.mean(halves))
    clean[:RATE] = 0  # a piece without speech is left out
    assert metrics.pesq_wb(clean, noisy, RATE) == pytest.approx(halves[1])
    noisy[RATE:] = 0  # silence in place of speech has the worst score
    assert metrics.pesq_wb(clean, noisy, RATE) == 1


@pytest.mark.parametrize("name", ["pesq_wb", "pesq_nb"])
def test_muting_is_no_better_than_the_loudest_noise(clean, rng, name):
    pesq = getattr(metrics, name)
    noisy = clean + 10 * rng.standard_normal(clean.size).astype(np.float32)
    assert pesq(clean, np.zeros_like(clean), RATE) <= pesq(clean, noisy, RATE)


@pytest.mark.parametrize("name", METRICS)
def test_signals_that_cannot_be_compared_are_refused(clean, noisy, name):
    function = METRICS[name].function
    with pytest.raises(AudioError, match="32000 samples and the estimate 31999"):
        function(clean, noisy[:-1], RATE)
    with pytest.raises(AudioError, match="no samples"):
        function(clean[:0], noisy[:0], RATE)
    for value in (np.nan, np.inf):
        broken = noisy.copy()
        broken[7] = value
        with pytest.raises(AudioError, match="the estimate contains NaN"):
            function(clean, broken, RATE)
        with pytest.raises(AudioError, match="the reference contains NaN"):
            function(broken, clean, RATE)


@pytest.mark.parametrize(("name", "package"), [("pesq_nb", "pesq"), ("estoi", "pystoi")])
def test_missing_package(clean, noisy, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)  # import raises ImportError
    with pytest.raises(UsageError, match=rf"{package}.*: pip install \"denoisecli\[metrics\]\""):
        METRICS[name].function(clean, noisy, RATE)
    with pytest.raises(UsageError, match="pip install"):
        metrics.check_metrics(["snr", name])
    metrics.check_metrics(["snr", "si_sdr", "lsd"])


def test_unknown_metric(clean, noisy):
    with pytest.raises(UsageError, match="no metric 'pesq'; choose from pesq_wb, pesq_nb"):
        measure(clean, noisy, RATE, ["pesq"])


def test_a_silent_output_has_the_worst_ratings():
    """Or else the recordings that were muted would be left out of all means."""
    pytest.importorskip("speechmos")
    noisy = speech_like(3, 16000)
    names = ["dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak"]
    found = blind_metrics(noisy, np.zeros_like(noisy), 16000, names)
    assert [found[name] for name in names] == [1.0, 1.0, 1.0]
    silent = blind_metrics(0 * noisy, 0 * noisy, 16000, names)
    assert all(math.isnan(silent[name]) for name in names)
