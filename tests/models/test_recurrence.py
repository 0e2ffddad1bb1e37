import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.saving.serialization_lib import ObjectSharingScope

from denoisecli.models.recurrence import AxisRecurrent, Gru

SHAPE = (2, 6, 5, 4)


def maps(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape or SHAPE).astype(np.float32)


def run(layer: keras.layers.Layer, *inputs: np.ndarray) -> np.ndarray:
    return np.asarray(layer(*inputs))


@pytest.mark.parametrize("axis", ["time", "frequency"])
def test_recurrent_runs_along_its_axis(axis: str) -> None:
    inputs = maps()
    steps_last = inputs if axis == "time" else inputs.transpose(0, 2, 1, 3)
    for cell, kind in (("gru", keras.layers.GRU), ("lstm", keras.layers.LSTM)):
        layer = AxisRecurrent(axis, cell, 3, bidirectional=False)
        found = run(layer, inputs)
        reference = kind(3, return_sequences=True)
        reference.build((None, None, 4))
        reference.set_weights(layer.get_weights())
        rows = np.asarray(reference(steps_last.reshape(-1, steps_last.shape[2], 4)))
        expected = rows.reshape(*steps_last.shape[:3], 3)
        if axis == "frequency":
            expected = expected.transpose(0, 2, 1, 3)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("backwards", [False, True])
def test_gru_learns_as_that_of_keras(backwards: bool) -> None:
    inputs = tf.constant(maps(2, 7, 4))
    upstream = maps(2, 7, 3)
    found = []
    for kind in (Gru, keras.layers.GRU):
        layer = kind(3, return_sequences=True, go_backwards=backwards)
        layer.build(inputs.shape)
        layer.set_weights([maps(*weight.shape) for weight in layer.get_weights()])
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(layer(inputs) * upstream)
        weights = [weight.value for weight in layer.trainable_variables]
        found.append([total, *tape.gradient(total, [inputs, *weights])])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_layers_are_not_taken_for_others_while_a_model_is_loaded() -> None:
    """Keras knows layers by their address, which was that of layers that had been freed."""
    with ObjectSharingScope():
        made = [AxisRecurrent("frequency", "gru", 4, True) for _ in range(100)]
    layers = [
        one
        for each in made
        for one in (each.recurrent.forward_layer, each.recurrent.backward_layer)
    ]
    assert len({id(layer) for layer in layers}) == 200
    assert [layer.go_backwards for layer in layers] == 100 * [False, True]
