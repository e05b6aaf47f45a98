"""Reading and writing at indices along the middle of arrays [before, length, after].

Sums are deterministic: each place is added to by one thread, in the order of the indices. Kernels return whether
an index was out of range, and leave such places alone; the portable body then says what is wrong.
"""

import numpy as np

from .compiler import jit, prange, serial

_CLEARED = 1 << 14  # elements that a thread clears at a time


@serial
def _place(k, n):
    """An index from the start; n if it is out of range."""
    if k < 0:
        k += n
    return k if 0 <= k < n else n


@serial
def _wrapped(k, n):
    """An index from the start, as an unsigned number: a negative one that was too low is the largest."""
    return np.uint64(k + ((k >> 63) & n))


@serial
def _within(places, n):
    """Whether no index is out of range. Where it is known before, a loop over them has no branch in it."""
    largest = np.uint64(0)
    for k in range(places.size):
        largest = max(largest, _wrapped(places[k], n))
    return largest < np.uint64(n)


@jit
def add(x, index, block, fresh, out):
    """out [before, n, after] += x [before, m, after] in the slices that index [m] names; a task is `block` columns.

    If fresh, out begins as zeros.
    """
    before, n, after = out.shape
    if fresh:
        everything = out.reshape(out.size)
        for task in prange(-(-out.size // _CLEARED)):
            part = everything[task * _CLEARED : (task + 1) * _CLEARED]
            for k in range(part.size):
                part[k] = 0
    blocks = -(-after // block)
    wrong = np.zeros(1, np.bool_)
    for task in prange(before * blocks):
        i, left = task // blocks, task % blocks * block
        for k in range(index.size):
            j = _place(index[k], n)
            if j == n:
                wrong[0] = True
            else:
                row = x[i, k, left : left + block]
                target = out[i, j, left : left + block]
                for c in range(row.size):
                    target[c] += row[c]
    return wrong[0]


@jit
def gather(x, index, out):
    """out [before, m, after] = x [before, index, after] with index [before, m, after]."""
    before, n, after = x.shape
    m = index.shape[1]
    wrong = np.zeros(1, np.bool_)
    if after == 1:
        for i in prange(before):
            row, places, target = x[i].reshape(n), index[i].reshape(m), out[i].reshape(m)
            if _within(places, n):
                for k in range(m):
                    target[k] = row[_wrapped(places[k], n)]
            else:
                wrong[0] = True
    else:
        for task in prange(before * m):
            i, k = task // m, task % m
            places, target = index[i, k], out[i, k]
            if _within(places, n):
                for c in range(after):
                    target[c] = x[i, _wrapped(places[c], n), c]
            else:
                wrong[0] = True
    return wrong[0]


@serial
def _scatter_row(x, index, adding, wrong, out):
    if not _within(index, out.size):
        wrong[0] = True
    elif adding:
        for k in range(index.size):
            out[_wrapped(index[k], out.size)] += x[k]
    else:
        for k in range(index.size):
            out[_wrapped(index[k], out.size)] = x[k]


@jit
def scatter(x, index, block, adding, out):
    """out [before, index, after] += x [before, m, after], or = if not adding; a task is `block` columns."""
    before, n, after = out.shape
    m = index.shape[1]
    blocks = -(-after // block)
    wrong = np.zeros(1, np.bool_)
    for task in prange(before * blocks):
        i, left = task // blocks, task % blocks * block
        if after == 1:
            _scatter_row(x[i].reshape(m), index[i].reshape(m), adding, wrong, out[i].reshape(n))
        else:
            for k in range(m):
                for c in range(left, min(left + block, after)):
                    j = _place(index[i, k, c], n)
                    if j == n:
                        wrong[0] = True
                    elif adding:
                        out[i, j, c] += x[i, k, c]
                    else:
                        out[i, j, c] = x[i, k, c]
    return wrong[0]
