"""Elements in the reverse order along the middle of arrays [before, n, after]."""

import numpy as np

from .compiler import jit, prange, serial


@serial
def _turn(row, out):
    last = np.uint64(row.size - 1)  # of signed numbers Numba would ask whether they count from the end
    for k in range(row.size):
        out[k] = row[last - np.uint64(k)]


@jit
def flip(x, piece, out):
    before, n, after = x.shape
    if after == 1:
        pieces = -(-n // piece)
        for task in prange(before * pieces):
            i, start = task // pieces, task % pieces * piece
            end = min(start + piece, n)
            _turn(x[i].reshape(n)[n - end : n - start], out[i].reshape(n)[start:end])
    else:
        for task in prange(before * n):
            i, j = task // n, task % n
            for c in range(after):
                out[i, j, c] = x[i, np.uint64(n - 1 - j), c]
