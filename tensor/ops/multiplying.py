"""Products of large matrices by compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy

from .. import kernels
from ..kernels import sources

# Multiplications from which on a kernel is called: by then it has made up for the 2 us more that calling it takes. The
# price is paid once on a machine: the first step with such a product compiles the kernel, for most of a second.
LEAST_WORK = 1 << 20
_ALONE = 1 << 21  # to here one thread computes alone, for a second one may take as long to wake up
BLAS_THREADS = 1 << 18  # from here on BLAS uses several threads, on whose number its bits depend

_DTYPES = (numpy.float32, numpy.float64)


def product(
    a: numpy.ndarray, b: numpy.ndarray, bias: Any = None, out: Any = None, least: int | None = None
) -> Any:
    """a @ b + bias for two matrices and a row, if they are large and of one floating dtype, or NotImplemented.

    Large is what takes `least` multiplications or more, LEAST_WORK unless given.

    The result does not depend on the number of threads, as that of BLAS does.
    """
    dtype, (rows, depth), columns = a.dtype, a.shape, b.shape[1]
    work = rows * depth * columns
    if work < (LEAST_WORK if least is None else least) or not kernels.usable(work < _ALONE):
        return NotImplemented
    if dtype not in _DTYPES or b.dtype != dtype or b.shape[0] != depth:
        return NotImplemented
    if bias is not None and (bias.dtype != dtype or not bias.flags.c_contiguous):
        return NotImplemented
    if out is None or not out.flags.c_contiguous:
        out = numpy.empty((rows, columns), dtype)
    left, right = _flat(a), _flat(b)
    sources.products.multiply(*left, *right, rows, columns, depth, bias, out.reshape(-1))
    return out


def _flat(x: numpy.ndarray) -> tuple[numpy.ndarray, int, int]:
    """The memory of a matrix, and how many elements lie between neighbours in a column and in a row."""
    if x.flags.f_contiguous and not x.flags.c_contiguous:
        return x.T.reshape(-1), 1, x.shape[0]
    return numpy.ascontiguousarray(x).reshape(-1), x.shape[1], 1
