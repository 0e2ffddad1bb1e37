import numpy as np
import pytest
import tensorflow as tf

from denoisecli.audio import stft as reference
from denoisecli.spec.network import Stft
from denoisecli.training.losses.tensor_stft import as_map, istft, stft

SETTINGS = [
    Stft(n_fft=64, hop_length=32),
    Stft(n_fft=64, hop_length=16, window="hann"),
    Stft(n_fft=50, hop_length=17, window="hamming"),
    Stft(n_fft=66, hop_length=7, window="blackman"),
    Stft(n_fft=512, hop_length=128, window="hann"),
]
LENGTHS = [1, 31, 64, 1000, 1023]


def sound(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape[-1]).normal(0, 0.1, shape).astype(np.float32)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_numpy(settings: Stft, length: int) -> None:
    audio = sound(2, length)
    real, imaginary = stft(audio, settings)
    assert real.shape == imaginary.shape == (2, 1 + length // settings.hop_length, settings.bins)
    options = settings.model_dump()
    expected = [reference.stft(row, **options) for row in audio]
    found = np.asarray(as_map((real, imaginary)))
    np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], expected, atol=1e-5)

    gain = np.random.default_rng(0).uniform(size=real.shape).astype(np.float32)
    changed = (real * gain, imaginary * gain)
    complex_rows = np.swapaxes(np.asarray(changed[0]) + 1j * np.asarray(changed[1]), 1, 2)
    expected = [reference.istft(row, length=length, **options) for row in complex_rows]
    # After the centre of the last frame, the tail of its window magnifies rounding errors.
    whole = max(1, length // settings.hop_length * settings.hop_length)
    found = np.asarray(istft(changed, settings, length))
    assert found.shape == audio.shape
    np.testing.assert_allclose(found[:, :whole], np.stack(expected)[:, :whole], atol=1e-5)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_perfect_reconstruction(settings: Stft, length: int) -> None:
    audio = sound(3, length)
    back = np.asarray(istft(stft(audio, settings), settings, length))
    np.testing.assert_allclose(back, audio, atol=1e-5)


@pytest.mark.parametrize("settings", SETTINGS[:3], ids=str)
def test_gradients(settings: Stft) -> None:
    for audio in (np.zeros((1, 200), np.float32), sound(1, 200)):
        variable = tf.Variable(audio)
        with tf.GradientTape() as tape:
            back = istft(stft(variable, settings), settings, 200)
            energy = tf.reduce_sum(tf.square(back)) / 2
        gradient = tape.gradient(energy, variable).numpy()
        np.testing.assert_allclose(gradient, audio, atol=1e-5)  # both ways together: the identity


def test_graph_with_unknown_sizes() -> None:
    settings = SETTINGS[0]

    @tf.function(input_signature=[tf.TensorSpec((None, None))])
    def there_and_back(audio: tf.Tensor) -> tf.Tensor:
        return istft(stft(audio, settings), settings, tf.shape(audio)[1])

    for length in (40, 777):
        audio = sound(2, length)
        np.testing.assert_allclose(there_and_back(audio), audio, atol=1e-5)
