"""One thread for BLAS, the library behind the matrix products of NumPy and SciPy.

Between two calls, the further threads of OpenBLAS wait without rest, and so take the time of a core
from the network and from other processes. What is multiplied here is small.

It imports next to nothing, so that the `denoise` script can call it before NumPy is imported.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "OPENBLAS_NUM_THREADS"


def use_one_thread() -> None:
    """Let this process, if it has not imported NumPy yet, and its children use one thread.

    A number that the user has set is kept.
    """
    os.environ.setdefault(_VARIABLE, "1")


@contextmanager
def one_thread_in_children() -> Iterator[None]:
    """Let the processes that are started in the block use one thread, likewise."""
    if _VARIABLE in os.environ:
        yield
        return
    use_one_thread()
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)
