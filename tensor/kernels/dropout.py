"""Dropout in one pass, its mask drawn on the way."""

import numpy

from .compiler import jit, prange, serial

_STEP, _MIX, _MIX_AGAIN = map(numpy.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_30, _27, _31, _32 = map(numpy.uint64, (30, 27, 31, 32))


@serial
def _bits(key, i):
    """The i-th number of the stream that a key starts, see `ops.dropout.bits`."""
    z = key + numpy.uint64(i) * _STEP
    z = (z ^ (z >> _30)) * _MIX
    z = (z ^ (z >> _27)) * _MIX_AGAIN
    return (z ^ (z >> _31)) >> _32


@jit
def dropout(x, key, limit, scale, out):
    zero = scale - scale
    for i in prange(x.size):
        out[i] = x[i] * (scale if _bits(key, i) >= limit else zero)
