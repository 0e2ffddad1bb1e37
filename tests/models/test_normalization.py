import keras
import numpy as np
import tensorflow as tf

from denoisecli.models.normalization import BatchNormalization

SHAPE = (2, 6, 5, 4)


def maps(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape or SHAPE).astype(np.float32)


def test_batch_normalization_learns_as_that_of_keras() -> None:
    inputs, upstream = tf.constant(2 * maps() + 0.5), maps(*SHAPE) ** 2
    found = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.9, epsilon=1e-5)
        layer.build(inputs.shape)
        layer.gamma.assign([1.0, 0.5, 2.0, -1.0])
        layer.beta.assign([0.0, 1.0, -1.0, 3.0])
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            total = tf.reduce_sum(outputs * upstream)
        sources = [inputs, layer.gamma.value, layer.beta.value]
        found.append([outputs, *tape.gradient(total, sources), *layer.get_weights(), layer(inputs)])
        before = layer.get_weights()
        layer.trainable = False
        layer(inputs, training=True)
        for weight, kept in zip(layer.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, kept)
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
