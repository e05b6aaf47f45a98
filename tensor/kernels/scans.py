"""Running sums, running products and recurrences along the middle of arrays [before, n, after], and what products need.

Rows, where `after` is 1, are taken four at a time: in one row each step waits for the one before. Totals are float64
whatever the elements are, as in PyTorch: thousands of float32 numbers would leave half of a float32's digits.
"""

import numpy as np

from .compiler import jit, prange, serial


@serial
def _four(group, rows):
    """The rows of a group; in the last a row may come twice, and is computed twice."""
    start, last = 4 * group, rows - 1
    return start, min(start + 1, last), min(start + 2, last), min(start + 3, last)


@jit
def sums(x, backwards, block, out):
    """out: the sums of x up to each place, or from it to the end."""
    before, n, after = x.shape
    if after == 1:
        x2, out2 = x.reshape(before, n), out.reshape(before, n)
        for group in prange(-(-before // 4)):
            a, b, c, d = _four(group, before)
            t0 = t1 = t2 = t3 = np.float64(0)
            if backwards:
                for j in range(n - 1, -1, -1):
                    t0, t1, t2, t3 = t0 + x2[a, j], t1 + x2[b, j], t2 + x2[c, j], t3 + x2[d, j]
                    out2[a, j], out2[b, j], out2[c, j], out2[d, j] = t0, t1, t2, t3
            else:
                for j in range(n):
                    t0, t1, t2, t3 = t0 + x2[a, j], t1 + x2[b, j], t2 + x2[c, j], t3 + x2[d, j]
                    out2[a, j], out2[b, j], out2[c, j], out2[d, j] = t0, t1, t2, t3
    else:
        blocks = -(-after // block)
        for task in prange(before * blocks):
            i, columns = task // blocks, slice(task % blocks * block, (task % blocks + 1) * block)
            totals = np.zeros(out[i, 0, columns].size)
            for step in range(n):
                j = n - 1 - step if backwards else step
                row, target = x[i, j, columns], out[i, j, columns]
                for c in range(row.size):
                    totals[c] += row[c]
                    target[c] = totals[c]


@jit
def products(x, block, out):
    """out: the products of x up to each place."""
    before, n, after = x.shape
    if after == 1:
        x2, out2 = x.reshape(before, n), out.reshape(before, n)
        for group in prange(-(-before // 4)):
            a, b, c, d = _four(group, before)
            t0 = t1 = t2 = t3 = np.float64(1)
            for j in range(n):
                t0, t1, t2, t3 = t0 * x2[a, j], t1 * x2[b, j], t2 * x2[c, j], t3 * x2[d, j]
                out2[a, j], out2[b, j], out2[c, j], out2[d, j] = t0, t1, t2, t3
    else:
        blocks = -(-after // block)
        for task in prange(before * blocks):
            i, columns = task // blocks, slice(task % blocks * block, (task % blocks + 1) * block)
            totals = np.ones(out[i, 0, columns].size)
            for j in range(n):
                row, target = x[i, j, columns], out[i, j, columns]
                for c in range(row.size):
                    totals[c] *= row[c]
                    target[c] = totals[c]


@jit
def recurrence(x, factor, backwards, block, out):
    """out[j] = x[j] + factor[j] * out[j - 1], or backwards x[j] + factor[j + 1] * out[j + 1]."""
    before, n, after = x.shape
    first, step = (n - 1, -1) if backwards else (0, 1)
    if after == 1:
        x2, f2, out2 = x.reshape(before, n), factor.reshape(before, n), out.reshape(before, n)
        for group in prange(-(-before // 4)):
            a, b, c, d = _four(group, before)
            t0 = t1 = t2 = t3 = np.float64(0)
            for k in range(n):
                j = first + step * k
                if k:
                    f = j + backwards
                    t0, t1, t2, t3 = f2[a, f] * t0, f2[b, f] * t1, f2[c, f] * t2, f2[d, f] * t3
                t0, t1, t2, t3 = t0 + x2[a, j], t1 + x2[b, j], t2 + x2[c, j], t3 + x2[d, j]
                out2[a, j], out2[b, j], out2[c, j], out2[d, j] = t0, t1, t2, t3
    else:
        blocks = -(-after // block)
        for task in prange(before * blocks):
            i, columns = task // blocks, slice(task % blocks * block, (task % blocks + 1) * block)
            totals = x[i, first, columns].astype(np.float64)
            out[i, first, columns] = totals
            for k in range(1, n):
                j = first + step * k
                row, factors, target = x[i, j, columns], factor[i, j + backwards, columns], out[i, j, columns]
                for c in range(row.size):
                    totals[c] = row[c] + factors[c] * totals[c]
                    target[c] = totals[c]


@serial
def _product(row):
    total = row.dtype.type(1)
    for j in range(row.size):
        total *= row[j]
    return total


@jit
def row_products(x, piece, out):
    """out [rows, pieces]: the products of the pieces of each row of x [rows, n]."""
    pieces = out.shape[1]
    for task in prange(out.size):
        i, c = task // pieces, task % pieces
        out[i, c] = _product(x[i, c * piece : (c + 1) * piece])


@serial(fastmath={"contract"})  # the product of g and the product may overflow
def _divide(g, product, row, gradient):
    for j in range(row.size):
        gradient[j] = g * (product / row[j])


@serial
def _others_in_row(g, row, gradient):
    product = row.dtype.type(1)
    for j in range(row.size - 1, -1, -1):  # first of those after it
        gradient[j] = product
        product *= row[j]
    product = g
    for j in range(row.size):
        gradient[j] *= product
        product *= row[j]


@serial
def _others(g, x, i, columns, gradient):
    """For some columns of x[i]: the product of g and all other elements of the column."""
    n = x.shape[1]
    product = np.ones_like(g[i, columns])
    for j in range(n - 1, -1, -1):  # first of those after it
        row, target = x[i, j, columns], gradient[i, j, columns]
        for c in range(row.size):
            target[c] = product[c]
            product[c] *= row[c]
    product[:] = g[i, columns]
    for j in range(n):
        row, target = x[i, j, columns], gradient[i, j, columns]
        for c in range(row.size):
            target[c] *= product[c]
            product[c] *= row[c]


@jit
def products_backward(g, x, out, piece, block, gradient):
    """The gradient of products out [before, after] of x: g times the product of all others.

    Of a row it is the quotient of the product and each element, unless the product is zero, subnormal or not finite.
    """
    before, n, after = x.shape
    if after == 1:
        least = np.finfo(x.dtype).tiny
        pieces = -(-n // piece)
        for task in prange(before * pieces):
            i, c = task // pieces, task % pieces
            product, part = out[i, 0], slice(c * piece, (c + 1) * piece)
            if least <= abs(product) < np.inf:
                _divide(g[i, 0], product, x[i].reshape(n)[part], gradient[i].reshape(n)[part])
            elif c == 0:
                _others_in_row(g[i, 0], x[i].reshape(n), gradient[i].reshape(n))
    else:
        blocks = -(-after // block)
        for task in prange(before * blocks):
            i, columns = task // blocks, slice(task % blocks * block, (task % blocks + 1) * block)
            _others(g, x, i, columns, gradient)
