import keras
import numpy as np
import pytest
import tensorflow as tf

from denoisecli.cleaning.masking import apply_taps
from denoisecli.models import layers, ops
from denoisecli.models.attention import AxisAttention
from denoisecli.models.normalization import BatchNormalization
from denoisecli.models.recurrence import AxisRecurrent, Gru

SHAPE = (2, 6, 5, 4)


def maps(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape or SHAPE).astype(np.float32)


def run(layer: keras.layers.Layer, *inputs: np.ndarray) -> np.ndarray:
    return np.asarray(layer(*inputs))


def all_layers() -> list[tuple[keras.layers.Layer, list[tuple[int, ...]]]]:
    """One of each kind, with the shapes of its inputs."""
    everything = ("magnitude", "imaginary", "real")
    return [
        (layers.Features(0.3, ("magnitude",)), [(2, 6, 5, 2)]),
        (layers.Features(1.0, everything), [(2, 6, 5, 2)]),
        (layers.FrequencyMatrix(maps(6, 3)), [SHAPE]),
        (layers.PadToMultiple((4, 1)), [SHAPE]),
        (layers.PadToMultiple((4, 3)), [SHAPE]),
        (layers.PadToMultiple((3, 5)), [SHAPE]),
        (layers.CropLike(), [(2, 8, 7, 3), SHAPE]),
        (layers.CausalPad(3, 2), [SHAPE]),
        *(
            (AxisRecurrent(axis, cell, 3, both), [SHAPE])
            for axis, cell, both in (
                ("time", "gru", True),
                ("frequency", "gru", False),
                ("time", "lstm", False),
                ("frequency", "lstm", True),
            )
        ),
        (AxisAttention("time", 2, 3), [SHAPE]),
        (AxisAttention("frequency", 3, 2), [SHAPE]),
        (layers.BoundedMask("complex", 2.0), [SHAPE]),
        (layers.BoundedMask("magnitude", 2.0), [SHAPE]),
        (layers.BoundedMask("complex", 2.0, gain=True), [SHAPE]),
    ]


@pytest.mark.parametrize(("layer", "shapes"), all_layers())
def test_shapes_and_config(layer: keras.layers.Layer, shapes: list[tuple[int, ...]]) -> None:
    inputs = [maps(*shape) for shape in shapes]
    output = run(layer, *inputs)
    assert np.isfinite(output).all()
    assert layer.compute_output_shape(*shapes) == output.shape
    # With any number of frames, as the network is built.
    symbolic = layer(*(keras.Input((shape[1], None, shape[3])) for shape in shapes))
    for found, expected in zip(symbolic.shape, output.shape, strict=True):
        assert found in (None, expected)
    assert symbolic.shape[0] is symbolic.shape[2] is None

    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(layer)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(run(copy, *inputs), output)


def test_features() -> None:
    spectrum = maps(2, 6, 5, 2)
    numbers = spectrum[..., 0] + 1j * spectrum[..., 1]
    compressed = np.abs(numbers) ** 0.3 * np.exp(1j * np.angle(numbers))
    found = run(layers.Features(0.3, ("real", "imaginary", "magnitude")), spectrum)
    expected = np.stack([compressed.real, compressed.imag, np.abs(compressed)], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found = run(layers.Features(1.0, ("imaginary",)), spectrum)
    np.testing.assert_allclose(found, spectrum[..., 1:], atol=1e-5)
    silence = run(layers.Features(0.3, ("real", "magnitude")), np.zeros((1, 3, 2, 2), "float32"))
    assert np.abs(silence).max() < 0.02


def test_frequency_matrix() -> None:
    inputs, matrix = maps(), maps(6, 3)
    found = run(layers.FrequencyMatrix(matrix.tolist()), inputs)
    expected = np.moveaxis(np.tensordot(inputs, matrix, (1, 0)), -1, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_padding_and_cropping() -> None:
    inputs = maps()
    padded = run(layers.PadToMultiple((4, 3)), inputs)
    assert padded.shape == (2, 8, 6, 4)
    np.testing.assert_array_equal(padded[:, 6:], 0)
    np.testing.assert_array_equal(padded[:, :, 5:], 0)
    np.testing.assert_array_equal(run(layers.CropLike(), padded, inputs), inputs)
    np.testing.assert_array_equal(run(layers.PadToMultiple((3, 5)), inputs), inputs)

    past = run(layers.CausalPad(3, 2), inputs)
    assert past.shape == (2, 9, 7, 4)
    np.testing.assert_array_equal(past[:, 1:7, 2:], inputs)
    assert np.abs(past).sum() == pytest.approx(np.abs(inputs).sum(), rel=1e-5)


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


@pytest.mark.parametrize(("start", "count"), [(0, 6), (2, 3), (5, 1)])
def test_sliced(start: int, count: int) -> None:
    values, weights = tf.constant(maps()), tf.constant(maps(2, count, 5, 4))
    with tf.GradientTape() as tape:
        tape.watch(values)
        found = ops.sliced(values, start, count)
        total = tf.reduce_sum(found * weights)
    np.testing.assert_array_equal(found, values[:, start : start + count])
    expected = np.zeros(SHAPE, np.float32)
    expected[:, start : start + count] = weights
    np.testing.assert_array_equal(tape.gradient(total, values), expected)


def test_raised() -> None:
    values = np.geomspace(1e-12, 1e6, 50).astype(np.float32)
    for power in (0.15, -0.35, 1.2):
        np.testing.assert_allclose(ops.raised(values, power), values**power, rtol=2e-5)


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


@pytest.mark.parametrize("limit", [1.1, 2.0, 10.0])
def test_bounded_mask(limit: float) -> None:
    for mask, low, one in (("complex", -limit, [1, 0]), ("magnitude", 0, [1])):
        layer = layers.BoundedMask(mask, limit)
        extremes = np.float32([-1e9, 1e9]).reshape(1, 1, 2, 1)
        np.testing.assert_allclose(run(layer, extremes).ravel(), [low, limit], rtol=1e-6)
        identity = np.float32(layer.identity_bias()).reshape(1, 1, 1, -1)
        np.testing.assert_allclose(run(layer, identity).ravel(), one, atol=1e-6)


@pytest.mark.parametrize("mask", ["complex", "magnitude"])
def test_gain_multiplies_all_parts(mask: str) -> None:
    inputs, gain = maps(2, 6, 5, 4), maps(2, 6, 5, 1)
    bounded = run(layers.BoundedMask(mask, 2.0), inputs)
    found = run(layers.BoundedMask(mask, 2.0, gain=True), np.concatenate([inputs, gain], axis=-1))
    np.testing.assert_allclose(found, bounded / (1 + np.exp(-gain)), rtol=1e-5)


def test_apply_mask() -> None:
    real, imaginary = maps(2, 5, 6), maps(2, 5, 6)[::-1]
    mask = maps(2, 6, 5, 2)
    numbers = np.swapaxes(real + 1j * imaginary, 1, 2)
    first, second = ops.apply_mask(mask, (real, imaginary))
    found = np.swapaxes(np.asarray(first) + 1j * np.asarray(second), 1, 2)
    np.testing.assert_allclose(found, (mask[..., 0] + 1j * mask[..., 1]) * numbers, atol=1e-6)
    first, second = ops.apply_mask(mask[..., :1], (real, imaginary))
    found = np.swapaxes(np.asarray(first) + 1j * np.asarray(second), 1, 2)
    np.testing.assert_allclose(found, mask[..., 0] * numbers, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_masks_of_several_frames_are_a_filter(frames: int) -> None:
    offsets = (0, -1, -2, 1)
    spectrum, factors = maps(2, 6, frames, 2), maps(2, 6, frames, 8)
    expected = np.zeros((2, 6, frames), complex)
    for index, offset in enumerate(offsets):
        factor = factors[..., 2 * index] + 1j * factors[..., 2 * index + 1]
        for frame in range(frames):
            if 0 <= frame + offset < frames:
                then = spectrum[:, :, frame + offset]
                expected[:, :, frame] += factor[:, :, frame] * (then[..., 0] + 1j * then[..., 1])
    parts = np.swapaxes(spectrum[..., 0], 1, 2), np.swapaxes(spectrum[..., 1], 1, 2)
    first, second = ops.apply_mask(factors, parts, offsets)
    found = np.swapaxes(np.asarray(first) + 1j * np.asarray(second), 1, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)

    pairs = np.moveaxis(factors, -1, 1).astype(np.float32)
    as_numbers = (pairs[:, ::2] + 1j * pairs[:, 1::2]).astype(np.complex64)
    for one, noisy, clean in zip(as_numbers, spectrum, expected, strict=True):
        numbers = (noisy[..., 0] + 1j * noisy[..., 1]).astype(np.complex64)
        np.testing.assert_allclose(apply_taps(one, numbers, offsets), clean, atol=1e-5)
