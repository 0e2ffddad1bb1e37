"""The loss `listening_quality`, compared with DNSMOS as ONNX Runtime runs it."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from denoisecli.audio import dnsmos as module
from denoisecli.audio.dnsmos import RATING_CURVES, SAMPLE_RATE, WINDOW_SECONDS
from denoisecli.errors import SpecError, UsageError
from denoisecli.spec.document import parse_spec
from denoisecli.training.losses.listening import ratings
from denoisecli.training.losses.own import require_losses
from denoisecli.training.losses.signals import Signals
from denoisecli.training.losses.waveform import LOSSES

pytest.importorskip("speechmos")

LEVELS = {"downsampling": [{"filters": 1}], "upsampling": [{"filters": 1}]}
SPEC = parse_spec({"name": "x", **LEVELS, "training": {"losses": ["listening_quality"]}})


@pytest.fixture
def sounds(speech: Callable[..., np.ndarray], noise: Callable[..., np.ndarray]) -> np.ndarray:
    """Clean, noisy and very noisy speech of the length of a window."""
    length = int(WINDOW_SECONDS * SAMPLE_RATE)
    clean, hiss = speech(10, SAMPLE_RATE)[:length], noise(10, SAMPLE_RATE)[:length]
    return np.stack([clean + share * hiss for share in (0, 0.1, 0.5)]).astype(np.float32)


@pytest.mark.slow
def test_ratings_are_those_of_dnsmos(sounds: np.ndarray) -> None:
    found = ops.convert_to_numpy(ratings(sounds))
    for sound, rating in zip(sounds, found, strict=True):
        outputs = module._session().run(None, {"input_1": sound[None]})[0][0]
        expected = [np.polyval(*pair) for pair in zip(RATING_CURVES, outputs, strict=True)]
        np.testing.assert_allclose(rating, expected, atol=2e-3)


@pytest.mark.slow
def test_three_seconds_are_rated_nearly_as_nine(sounds: np.ndarray) -> None:
    short = sounds[:, : 3 * SAMPLE_RATE]
    repeated = np.tile(short, 4)[:, : sounds.shape[1]]
    found, expected = (ops.convert_to_numpy(ratings(each)) for each in (short, repeated))
    np.testing.assert_allclose(found, expected, atol=0.15)


def test_a_step_down_the_gradient_improves_the_rating(sounds: np.ndarray) -> None:
    tf = pytest.importorskip("tensorflow")
    clean, noisy = sounds[:1, :32000], sounds[1:2, :32000]
    x: Any = tf.Variable(noisy)
    with tf.GradientTape() as tape:
        loss = LOSSES["listening_quality"](Signals(x, clean, noisy, SPEC))
    gradient = tape.gradient(loss, x).numpy()
    assert np.isfinite(gradient).all()
    step = gradient / np.abs(gradient).max() * 1e-3
    better = LOSSES["listening_quality"](Signals(noisy - step, clean, noisy, SPEC))
    assert better[0] < loss[0]
    assert 0 < loss[0] < 4


def test_silence_costs_nothing(sounds: np.ndarray) -> None:
    silent = np.zeros_like(sounds[:, :16000])
    loss = LOSSES["listening_quality"](Signals(sounds[:, :16000], silent, silent, SPEC))
    np.testing.assert_array_equal(loss, 0)


@pytest.mark.parametrize(("batch", "rated"), [(1, 1), (4, 1), (5, 2), (8, 2)])
def test_a_quarter_of_the_batch_is_rated(
    batch: int, rated: int, sounds: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def rate(sound: Any) -> Any:
        counts.append(sound.shape[0])
        return ops.zeros((sound.shape[0], 3))

    monkeypatch.setattr("denoisecli.training.losses.waveform.ratings", rate)
    x = np.tile(sounds[:1, :16000], (batch, 1))
    loss = ops.convert_to_numpy(LOSSES["listening_quality"](Signals(x, x, x, SPEC)))
    assert counts == [rated]
    np.testing.assert_allclose(loss.mean(), 5)
    np.testing.assert_array_equal(loss[rated:], 0)


def test_the_batch_may_have_any_size(sounds: np.ndarray) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only tf.function traces unknown sizes")
    tf = pytest.importorskip("tensorflow")
    unknown = tf.TensorSpec([None, 16000])
    loss = tf.function(
        lambda x, y: LOSSES["listening_quality"](Signals(x, y, y, SPEC)),
        input_signature=[unknown, unknown],
    )
    x, y = sounds[1:, :16000], sounds[:2, :16000]
    found, expected = loss(x, y), LOSSES["listening_quality"](Signals(x, y, y, SPEC))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    low = {"audio": {"sample_rate": 8000}, "training": {"losses": ["listening_quality"]}}
    with pytest.raises(SpecError, match=r"losses\[0\]: 'listening_quality' .* 16000, found 8000"):
        parse_spec({"name": "x", **LEVELS, **low})
    require_losses(SPEC)
    monkeypatch.setattr("denoisecli.system.extras.find_spec", lambda name: None)
    message = r"listening_quality needs speechmos: pip install \"denoisecli\[dnsmos\]\""
    with pytest.raises(UsageError, match=message):
        require_losses(SPEC)
