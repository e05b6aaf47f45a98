"""Reading and writing at indices along the middle of arrays [before, length, after], and running sums along it.

Sums are deterministic: each place is added to by one thread, in the order of the indices. Kernels return whether
an index was out of range, and leave such places alone; the portable body then says what is wrong.
"""

import numpy as np

from .compiler import jit, prange, serial


@serial
def _place(k, n):
    """An index from the start; n if it is out of range."""
    if k < 0:
        k += n
    return k if 0 <= k < n else n


@jit
def add(x, index, block, out):
    """out [before, n, after] += x [before, m, after] in the slices that index [m] names; a task is `block` columns."""
    before, n, after = out.shape
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
            for k in range(m):
                j = _place(places[k], n)
                if j == n:
                    wrong[0] = True
                else:
                    target[k] = row[j]
    else:
        for task in prange(before * m):
            i, k = task // m, task % m
            for c in range(after):
                j = _place(index[i, k, c], n)
                if j == n:
                    wrong[0] = True
                else:
                    out[i, k, c] = x[i, j, c]
    return wrong[0]


@serial
def _scatter_row(x, index, adding, wrong, out):
    for k in range(index.size):
        j = _place(index[k], out.size)
        if j == out.size:
            wrong[0] = True
        elif adding:
            out[j] += x[k]
        else:
            out[j] = x[k]


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


@jit
def running_sums(x, block, out):
    """out [before, n, after]: the sums of x along its middle up to each place."""
    before, n, after = x.shape
    if after == 1:
        for i in prange(before):
            row, target = x[i].reshape(n), out[i].reshape(n)
            total = x.dtype.type(0)
            for j in range(n):
                total += row[j]
                target[j] = total
    else:
        blocks = -(-after // block)
        for task in prange(before * blocks):
            i, columns = task // blocks, slice(task % blocks * block, (task % blocks + 1) * block)
            out[i, 0, columns] = x[i, 0, columns]
            for j in range(1, n):
                row, last, target = x[i, j, columns], out[i, j - 1, columns], out[i, j, columns]
                for c in range(row.size):
                    target[c] = last[c] + row[c]
