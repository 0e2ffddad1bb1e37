"""Tensor operations that the layers and the losses share, in pure ``keras.ops``."""

from collections.abc import Sequence
from typing import Any

from keras import ops


def apply_mask(
    mask: Any, spectrum: tuple[Any, Any], offsets: Sequence[int] = (0,)
) -> tuple[Any, Any]:
    """Multiply a spectrum by a mask, or filter it along time with several masks.

    Args:
        mask: One factor per offset.
        spectrum: Real and imaginary part of the noisy STFT.
        offsets: Frame that each factor applies to, relative to the output frame. The frames before
            the start and after the end are silent.

    Returns:
        Real and imaginary part of the product.

    Shape:
        - mask: (batch, frequency, time, 2 * offsets) if complex, (batch, frequency, time, 1) if it
          is a magnitude mask
        - each part of the spectrum and of the output: (batch, time, frequency)
    """
    factors = ops.unstack(ops.transpose(mask, (3, 0, 2, 1)))
    real, imaginary = spectrum
    if len(factors) == 1:
        return factors[0] * real, factors[0] * imaginary
    frames = ops.shape(real)[1]
    past, future = max(0, -min(offsets)), max(0, *offsets)
    parts = [ops.pad(part, ((0, 0), (past, future), (0, 0))) for part in spectrum]
    products = []
    for index, offset in enumerate(offsets):
        a, b = factors[2 * index : 2 * index + 2]
        c, d = (part[:, past + offset : past + offset + frames] for part in parts)
        products.append((a * c - b * d, a * d + b * c))
    first, second = zip(*products, strict=True)
    return sum(first), sum(second)


def sliced(values: Any, start: Any, count: Any) -> Any:
    """Return ``count`` entries of axis 1 from ``start``.

    On a CPU its gradient is up to ten times as fast as that of an index expression.
    """
    batch, _, *rest = ops.shape(values)
    return ops.slice(values, (0, start, *(0 for _ in rest)), (batch, count, *rest))


def raised(values: Any, power: Any) -> Any:
    """Return positive values raised to a power.

    On a CPU this and its gradient are several times as fast as the operator ``**``.
    """
    return ops.exp(power * ops.log(values))
