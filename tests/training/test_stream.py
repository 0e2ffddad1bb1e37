"""Tests of batches that are prepared ahead, and of the form in which Keras takes them."""

from collections.abc import Iterator

import keras
import numpy as np
import pytest

from denoisecli.training.stream import Batch, Stream, for_keras, predict


def batches() -> Iterator[Batch]:
    """Yield three batches, the last of which is smaller."""
    for shape in ((4, 3), (4, 3), (2, 3)):
        yield np.full(shape, 1, np.float32), np.zeros(shape, np.float32)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of tf.data")
def test_keras_gets_every_batch_untuned() -> None:
    dataset = for_keras(batches())
    # A tuned dataset now and then takes a minute to be deleted, in which nothing else runs.
    assert dataset.options().autotune.enabled is False
    for batch, expected in zip(dataset, batches(), strict=True):
        for part, value in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(part, value)


def test_predictions_are_those_of_keras(rng: np.random.Generator) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    inputs = rng.normal(size=(7, 3)).astype(np.float32)
    expected = keras.ops.convert_to_numpy(model(inputs))
    for count, size in ((7, 3), (6, 3), (2, 3), (7, 7)):
        found = predict(model, inputs[:count], batch_size=size)
        np.testing.assert_allclose(found, expected[:count], rtol=1e-5)


def test_predictions_take_one_program(rng: np.random.Generator) -> None:
    sizes = []

    class Model:
        def predict_on_batch(self, inputs: np.ndarray) -> np.ndarray:
            sizes.append(len(inputs))
            return 2 * inputs

    inputs = rng.normal(size=(9, 3)).astype(np.float32)
    np.testing.assert_array_equal(predict(Model(), inputs, batch_size=8), 2 * inputs)
    assert sizes == [8, 8]


def test_batches_come_in_order_and_again() -> None:
    stream = Stream(lambda index: (index,), range(9))
    assert list(stream) == list(stream) == [(index,) for index in range(9)]
    assert list(stream.take(2)) == [(0,), (1,)]


def test_an_error_reaches_the_reader() -> None:
    with pytest.raises(ZeroDivisionError):
        list(Stream(lambda index: (1 // (2 - index),), range(9)))
