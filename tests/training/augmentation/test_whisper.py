import numpy as np
import pytest
import scipy.signal
from helpers import speech_like

from denoisecli.training.augmentation.ops import rms
from denoisecli.training.augmentation.whisper import Whisper

RATE, BATCH = 8000, 4
LENGTH = 2 * RATE


@pytest.fixture(scope="module")
def whispered() -> tuple[np.ndarray, np.ndarray, Whisper]:
    """Return speech, its whisper without a tilt, and the augmentation."""
    pitches = (110.0, 150.0, 190.0, 230.0)
    speech = np.stack([speech_like(2.0, RATE, f0) for f0 in pitches])
    whisper = Whisper(1.0, RATE)
    parameters = whisper.draw(BATCH, LENGTH, np.random.default_rng(3))
    parameters["tilt_db"][:] = 0
    changed, target = map(np.asarray, whisper.apply(speech, speech, parameters))
    np.testing.assert_array_equal(changed, target)
    return speech, changed, whisper


def test_the_voice_is_gone(whispered: tuple[np.ndarray, np.ndarray, Whisper]) -> None:
    speech, changed, _ = whispered

    def periodicity(signal: np.ndarray) -> float:
        """Return the largest correlation with itself one pitch period (3 to 12 ms) later."""
        piece = signal[RATE // 2 : RATE // 2 + 1024]
        lags = np.correlate(piece, piece, "full")[1023:]
        return float((lags[24:96] / lags[0]).max())

    for before, after in zip(speech, changed, strict=True):
        assert periodicity(before) > 0.8
        assert periodicity(after) < 0.6


def test_levels_and_envelopes_are_kept(whispered: tuple[np.ndarray, np.ndarray, Whisper]) -> None:
    speech, changed, _ = whispered
    np.testing.assert_allclose(rms(changed), rms(speech), rtol=1e-4)
    for before, after in zip(speech, changed, strict=True):
        # The syllables, in frames of 100 ms.
        frames = [np.sqrt(np.mean(part.reshape(20, -1) ** 2, axis=1)) for part in (before, after)]
        assert np.corrcoef(*frames)[0, 1] > 0.9
        # The spectrum, smoothed over several harmonics.
        bands = [
            scipy.signal.welch(part, RATE, nperseg=2048)[1][:1000].reshape(20, -1).mean(axis=1)
            for part in (before, after)
        ]
        levels = 10 * np.log10(np.array(bands))
        assert np.abs(levels[0] - levels[1])[levels[0] > levels[0].max() - 25].mean() < 4


def test_the_envelope_is_that_of_linear_prediction(rng: np.random.Generator) -> None:
    whisper = Whisper(1.0, RATE)
    n_fft, order = whisper.frames.n_fft, whisper.order
    frames = scipy.signal.lfilter([1], [1, -1.2, 0.8], rng.normal(size=(3, n_fft)), axis=1)
    frames = frames * np.hanning(n_fft)
    power = (np.abs(np.fft.rfft(frames)) ** 2).astype(np.float32)[None]
    found = np.asarray(whisper._envelope(power))[0]
    for frame, envelope in zip(frames, found, strict=True):
        lags = np.correlate(frame, frame, "full")[n_fft - 1 : n_fft + order]
        # The envelope of a frame that is longer by zeros has no aliases in time.
        lags[0] *= 1 + 1e-4
        coefficients = scipy.linalg.solve_toeplitz(lags[:-1], -lags[1:])
        error = lags[0] + coefficients @ lags[1:]
        response = np.abs(np.fft.rfft(np.concatenate([[1], coefficients]), n_fft)) ** 2
        window = scipy.signal.windows.hann(n_fft, sym=False)
        expected = np.sqrt(error / response / np.sum(window**2))
        ratio_db = 20 * np.log10(envelope / expected)
        assert np.abs(ratio_db).max() < 1


def test_the_tilt_is_0_to_6_db_per_octave() -> None:
    speech = np.stack([speech_like(1.0, RATE)] * 2)
    whisper = Whisper(1.0, RATE)
    parameters = whisper.draw(2, RATE, np.random.default_rng(3))
    assert ((parameters["tilt_db"] >= 0) & (parameters["tilt_db"] <= 6)).all()
    parameters["noise"][1] = parameters["noise"][0]
    parameters["tilt_db"][:] = 0, 6
    changed = np.asarray(whisper.apply(speech, speech, parameters)[0])[parameters["rows"]]
    hertz, power = scipy.signal.welch(changed, RATE, nperseg=256)
    gain = 10 * np.log10(power[1] / power[0])
    octave = gain[np.searchsorted(hertz, 2000)] - gain[np.searchsorted(hertz, 1000)]
    assert octave == pytest.approx(6, abs=1)


def test_silence_stays_silent() -> None:
    whisper = Whisper(1.0, RATE)
    silence = np.zeros((2, 4000), np.float32)
    parameters = whisper.draw(2, 4000, np.random.default_rng(3))
    for part in whisper.apply(silence, silence, parameters):
        assert np.abs(np.asarray(part)).max() < 1e-4
        assert np.isfinite(np.asarray(part)).all()
