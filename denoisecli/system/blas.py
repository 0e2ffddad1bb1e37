"""One thread for BLAS, the library behind the matrix products of NumPy and SciPy.

Idle threads of OpenBLAS spin for a while, which takes CPU time from the network and from other
processes. The matrices here are small, so that one thread is enough.

This module imports next to nothing, so that the `denoise` script can call it before NumPy is
imported.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "OPENBLAS_NUM_THREADS"


def use_one_thread() -> None:
    """Let BLAS use one thread in this process and its children; NumPy must not be imported yet.

    A number of threads that the user has set is kept.
    """
    os.environ.setdefault(_VARIABLE, "1")


@contextmanager
def one_thread_in_children() -> Iterator[None]:
    """Let BLAS use one thread in processes that are started in the block, in the same way."""
    if _VARIABLE in os.environ:
        yield
        return
    use_one_thread()
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)
