"""Reading and writing at indices along the middle of arrays [before, length, after].

Sums are deterministic: each place is added to by one thread, in the order of the indices. Kernels return whether
an index was out of range, and leave such places alone.

Indices are made unsigned: signed ones Numba would count from the end if they were negative, which takes longer than
the reading, and rows are not made arrays of their own, which takes as long as ten elements.
"""

import numpy as np

from .compiler import jit, prange, serial

_CLEARED = 1 << 14  # elements that a thread clears at a time


@serial
def _within(places, n):
    """Whether all are in [0, n), read as unsigned numbers; where it is known before, a loop has no branch in it."""
    largest = np.uint64(0)
    for k in range(places.size):
        largest = max(largest, np.uint64(places[k]))
    return largest < np.uint64(n)


@jit
def select(x, index, out):
    """out [rows, m]: the columns of x [rows, n] that index [m] names."""
    wrong = not _within(index, x.shape[1])
    if wrong:
        return wrong
    for i in prange(len(x)):
        for k in range(index.size):
            out[i, k] = x[i, np.uint64(index[k])]
    return wrong


@jit
def add(x, index, block, fresh, out):
    """out [before, n, after] += x [before, m, after] in the slices that index [m] names; a task is `block` columns.

    If fresh, out begins as zeros.
    """
    before, n, after = out.shape
    wrong = not _within(index, n)
    if wrong:
        return wrong
    if fresh:
        everything = out.reshape(out.size)
        for task in prange(-(-out.size // _CLEARED)):
            part = everything[task * _CLEARED : (task + 1) * _CLEARED]
            for k in range(part.size):
                part[k] = 0
    if after == 1:
        for i in prange(before):
            for k in range(index.size):
                out[i, np.uint64(index[k]), 0] += x[i, k, 0]
        return wrong
    blocks = -(-after // block)
    for task in prange(before * blocks):
        i, left = task // blocks, np.uint64(task % blocks * block)
        width = min(block, after - task % blocks * block)
        for k in range(index.size):
            j = np.uint64(index[k])
            for c in range(width):
                out[i, j, left + np.uint64(c)] += x[i, k, left + np.uint64(c)]
    return wrong


@jit
def gather(x, index, out):
    """out [before, m, after] = x [before, index, after] with index [before, m, after]."""
    before, n, after = x.shape
    m = index.shape[1]
    wrong = np.zeros(1, np.bool_)
    if after == 1:
        for i in prange(before):
            largest = np.uint64(0)
            for k in range(m):
                largest = max(largest, np.uint64(index[i, k, 0]))
            if largest < np.uint64(n):
                for k in range(m):
                    out[i, k, 0] = x[i, np.uint64(index[i, k, 0]), 0]
            else:
                wrong[0] = True
    else:
        for task in prange(before * m):
            i, k = task // m, task % m
            if _within(index[i, k], n):
                for c in range(after):
                    out[i, k, c] = x[i, np.uint64(index[i, k, c]), c]
            else:
                wrong[0] = True
    return wrong[0]


@jit
def scatter(x, index, block, adding, out):
    """out [before, index, after] += x [before, m, after], or = if not adding; a task is `block` columns."""
    before, n, after = out.shape
    m = index.shape[1]
    wrong = np.zeros(1, np.bool_)
    if after == 1:
        for i in prange(before):
            largest = np.uint64(0)
            for k in range(m):
                largest = max(largest, np.uint64(index[i, k, 0]))
            if largest >= np.uint64(n):
                wrong[0] = True
            elif adding:
                for k in range(m):
                    out[i, np.uint64(index[i, k, 0]), 0] += x[i, k, 0]
            else:
                for k in range(m):
                    out[i, np.uint64(index[i, k, 0]), 0] = x[i, k, 0]
        return wrong[0]
    blocks = -(-after // block)
    for task in prange(before * blocks):
        i, left = task // blocks, task % blocks * block
        width = min(block, after - left)
        for k in range(m):
            if not _within(index[i, k, left : left + width], n):
                wrong[0] = True
            elif adding:
                for c in range(left, left + width):
                    out[i, np.uint64(index[i, k, c]), c] += x[i, k, c]
            else:
                for c in range(left, left + width):
                    out[i, np.uint64(index[i, k, c]), c] = x[i, k, c]
    return wrong[0]
