"""Resampling along the middle of arrays [before, n, after]."""

import numpy as np

from .compiler import jit, prange, serial
from .tiles import VECTOR_BYTES, transpose_square

_TOGETHER = 1 << 12  # elements that a thread computes at a time


@serial
def _sum_of_taps(x, index, weight, j, out):
    """out [after] = the sum of x[index[k, j]] * weight[k, j] over k, rows of x [n, after]."""
    for k in range(len(index)):
        row, factor = x[index[k, j]], weight[k, j]
        if k == 0:
            for c in range(out.size):
                out[c] = row[c] * factor
        else:
            for c in range(out.size):
                out[c] += row[c] * factor


@serial
def _turn(x, out):
    """out = x.T by whole squares, the rest element by element."""
    rows, columns = x.shape
    lanes = VECTOR_BYTES // x.itemsize
    whole = rows // lanes * lanes, columns // lanes * lanes
    for r in range(0, whole[0], lanes):
        for c in range(0, whole[1], lanes):
            transpose_square(x.reshape(-1), r * columns + c, columns, out.reshape(-1), c * rows + r, rows)
    for r in range(rows):
        for c in range(whole[1] if r < whole[0] else 0, columns):
            out[c, r] = x[r, c]


@jit
def resample(x, index, weight, out):
    """out[:, j] is the sum of x[:, index[k, j]] * weight[k, j] over k; index is unsigned, and in range."""
    before, n, after = x.shape
    m = index.shape[1]
    if after == 1:  # some rows become columns, which vectors go across
        lanes = VECTOR_BYTES // x.itemsize
        for task in prange(-(-before // lanes)):
            rows = slice(task * lanes, (task + 1) * lanes)
            x2, out2 = x[rows].reshape(-1, n), out[rows].reshape(-1, m)
            turned, sums = np.empty((n, len(x2)), x.dtype), np.empty((m, len(x2)), x.dtype)
            _turn(x2, turned)
            for j in range(m):
                _sum_of_taps(turned, index, weight, j, sums[j])
            _turn(sums, out2)
    else:
        rows_of_task = 1 + _TOGETHER // after
        for task in prange(-(-before * m // rows_of_task)):
            for row in range(task * rows_of_task, min((task + 1) * rows_of_task, before * m)):
                _sum_of_taps(x[row // m], index, weight, row % m, out[row // m, row % m])
