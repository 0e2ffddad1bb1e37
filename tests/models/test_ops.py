import numpy as np
import pytest
import tensorflow as tf

from denoisecli.cleaning.masking import apply_taps
from denoisecli.models import ops

SHAPE = (2, 6, 5, 4)


def maps(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape or SHAPE).astype(np.float32)


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
