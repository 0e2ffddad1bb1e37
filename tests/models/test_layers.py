import keras
import numpy as np
import pytest

from denoisecli.models import layers
from denoisecli.models.attention import AxisAttention
from denoisecli.models.recurrence import AxisRecurrent

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
        (layers.BoundedMask("complex", 2.0, True, ratio=3.0, threshold_db=-6.0), [SHAPE]),
        (layers.BoundedMask("complex", 2.0, True, ratio=3.0, upper_ratio=0.4), [SHAPE]),
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


@pytest.mark.parametrize("upper_ratio", [1.0, 0.4])
def test_the_expander_multiplies_the_decibels_on_both_sides_of_its_threshold(
    upper_ratio: float,
) -> None:
    logits = np.linspace(-200, 200, 401, dtype="float32").reshape(1, 1, -1, 1).repeat(5, axis=1)
    one = np.full_like(logits, 1e9)  # a mask of 1
    options = {"ratio": 2.5, "upper_ratio": upper_ratio, "threshold_db": -12.0, "first_band": 3}
    layer = layers.BoundedMask("magnitude", 1.0, True, **options)
    found = run(layer, np.concatenate([one, logits], axis=-1))[0, ..., 0].astype("float64")
    plain_db = -20 * np.logaddexp(0, -logits[0, 0, :, 0].astype("float64")) / np.log(10)
    expanded_db = np.where(
        plain_db > -12, upper_ratio * plain_db, -12 * upper_ratio + 2.5 * (plain_db + 12)
    )
    for band in range(5):
        decibels = expanded_db if band >= 3 else plain_db
        np.testing.assert_allclose(found[band], 10 ** (decibels / 20), rtol=1e-4, atol=1e-37)
