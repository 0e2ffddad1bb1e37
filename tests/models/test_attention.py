import keras
import numpy as np
import pytest

from denoisecli.models.attention import AxisAttention

SHAPE = (2, 6, 5, 4)


def maps(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape or SHAPE).astype(np.float32)


def run(layer: keras.layers.Layer, *inputs: np.ndarray) -> np.ndarray:
    return np.asarray(layer(*inputs))


@pytest.mark.parametrize("axis", ["time", "frequency"])
def test_attention_is_that_of_keras(axis: str) -> None:
    inputs = maps()
    layer = AxisAttention(axis, heads=2, key_dim=3)
    layer.build(SHAPE)
    inward, outward = (maps(*weight.shape) for weight in (layer.inward, layer.outward))
    layer.inward.assign(inward)
    layer.outward.assign(outward)
    rows = inputs if axis == "time" else inputs.transpose(0, 2, 1, 3)
    if axis == "frequency":
        assert layer.positions.shape == (6, 4)
        layer.positions.assign(maps(6, 4))
        rows = rows + maps(6, 4)
    rows = rows.reshape(-1, rows.shape[2], 4)
    reference = keras.layers.MultiHeadAttention(2, 3, use_bias=False)
    reference.build(rows.shape, rows.shape)
    kernels = inward.reshape(4, 3, 2, 3).transpose(1, 0, 2, 3)
    reference.set_weights([*kernels, outward.reshape(2, 3, 4)])
    expected = np.asarray(reference(rows, rows))
    found = run(layer, inputs)
    if axis == "frequency":
        found = found.transpose(0, 2, 1, 3)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)


def test_unknown_axis() -> None:
    with pytest.raises(ValueError, match="axis must be 'frequency' or 'time', found 'channels'"):
        AxisAttention("channels", 1, 1)
