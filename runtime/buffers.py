"""Large arrays whose memory is used again: touching fresh pages costs more than most arithmetic on them."""

from __future__ import annotations

import math
import threading
from sys import getrefcount

import numpy

_LEAST = 32 << 20  # bytes; glibc uses the memory of smaller arrays again, see runtime/memory.py
_KEPT = 1 << 30  # bytes, of what is used again
_large: list[numpy.ndarray] = []
_changing = threading.Lock()


def _unused() -> int:
    """The references to an array of a list that nobody else refers to, within a loop over it."""
    for array in [numpy.empty(1)]:
        return getrefcount(array)
    raise AssertionError


_UNUSED = _unused()


def empty(shape: tuple, dtype: numpy.dtype) -> numpy.ndarray:
    """An array for the caller alone. One that the C library would take from the system, and give back when it is
    freed, is an earlier one again that nobody refers to any more, if there is one; up to 1 GiB of these are kept."""
    size = math.prod(shape) * dtype.itemsize
    if size <= _LEAST:
        return numpy.empty(shape, dtype)
    with _changing:
        for array in _large:
            if getrefcount(array) == _UNUSED and array.shape == shape and array.dtype is dtype and array.flags.carray:
                return array
        result = numpy.empty(shape, dtype)
        if size + sum(array.nbytes for array in _large) > _KEPT:
            _large[:] = [array for array in _large if getrefcount(array) != _UNUSED]
        if size + sum(array.nbytes for array in _large) <= _KEPT:
            _large.append(result)
    return result
