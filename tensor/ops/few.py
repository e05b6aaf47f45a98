"""Reductions of few elements: NumPy's own take a microsecond to begin with, BLAS and argmax a quarter of that."""

from __future__ import annotations

import functools
from typing import Any

import numpy

MOST = 1 << 13  # elements; by more BLAS multiplies a vector in several threads, on whose number its bits depend
_ONES = {kind: numpy.ones(MOST, kind) for kind in "fd"}


def is_few(x: Any) -> bool:
    """Whether an array is of float32 or float64 and has at most MOST elements, at least one."""
    return x.dtype.char in _ONES and 0 < x.size <= MOST


def ones(x: Any, count: int) -> Any:
    """So many ones in the dtype of an array, to multiply it with where its sum is asked for; not to be written into."""
    return _ONES[x.dtype.char][:count]


@functools.lru_cache(maxsize=1024)
def row_starts(rows: int, length: int) -> Any:
    """Where the rows of a matrix begin among its elements; not to be written into."""
    return numpy.arange(0, rows * length, length or 1)


def row_peaks(x: Any) -> Any:
    """The largest element of each row of a matrix, nan if there is one."""
    return x.reshape(-1).take(row_starts(*x.shape) + x.argmax(1))
