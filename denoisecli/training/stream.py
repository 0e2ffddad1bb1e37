"""Batches on their way to a Keras model: prepared ahead in threads, then passed on."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from denoisecli.system.pools import Workers, cpu_cores

if TYPE_CHECKING:
    import keras

Batch = tuple[Any, ...]
"""Arrays or tensors: noisy, clean and, perhaps, the bandwidths of the clean recordings."""

Result = TypeVar("Result")

THREADS = min(8, cpu_cores())
"""Number of threads that prepare batches."""

AHEAD = 2 * THREADS
"""Number of batches that are prepared ahead."""


@dataclass(frozen=True)
class Stream:
    """Batches by their indices; they can be iterated over any number of times.

    Attributes:
        make: Function from an index to its batch, which depends on nothing else.
        indices: Indices of the batches, in their order.
    """

    make: Callable[[int], Batch]
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(THREADS, "batches") as pool:
            yield from Workers(pool, AHEAD + 1).map(self.make, self.indices)

    def take(self, count: int) -> "Stream":
        """Return the first batches only, at most ``count``."""
        return Stream(self.make, self.indices[:count])


def compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    """Return a function of arrays and tensors as a program of the Keras backend.

    Its arguments keep their shapes from call to call, or it is compiled again. PyTorch computes it
    operation by operation.
    """
    import keras

    program: Callable[..., Result] = function
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        program = jax.jit(function)
    elif backend == "tensorflow":
        import tensorflow as tf

        program = tf.function(function, autograph=False)
    elif backend == "torch":  # whose tensors cannot be combined with arrays

        def tensor(value: Any) -> Any:
            is_array = isinstance(value, np.ndarray)
            return keras.ops.convert_to_tensor(value) if is_array else value

        def program(*arguments: Any) -> Result:
            return function(*keras.tree.map_structure(tensor, arguments))

    first = threading.Lock()
    is_compiled = False

    def call(*arguments: Any) -> Result:
        nonlocal is_compiled
        if is_compiled:
            return program(*arguments)
        with first:  # or else several threads would compile it
            result = program(*arguments)
            is_compiled = True
            return result

    return call


def for_keras(batches: Iterator[Batch]) -> Any:
    """Return batches, at least one, in the form that `fit` and `evaluate` of Keras take.

    On TensorFlow, this is what Keras makes of a generator, but `untuned`.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return (batch for batch in batches)  # which must be a generator
    import tensorflow as tf

    from denoisecli.datasets.stored import untuned

    first = next(batches)
    dataset = tf.data.Dataset.from_generator(
        lambda: chain([first], batches),
        output_signature=tuple(
            tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in first
        ),
    )
    return untuned(dataset.prefetch(1))


def predict(model: "keras.Model", inputs: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the outputs of a model, computed in batches: `model.predict` without `tf.data`.

    All batches have one size, since a program is compiled for each: inputs are repeated to fill up
    the last one.
    """
    count = len(inputs)
    size = min(batch_size, count)
    outputs = [
        model.predict_on_batch(inputs[np.arange(start, start + size) % count])
        for start in range(0, count, size)
    ]
    return np.concatenate(outputs)[:count]
