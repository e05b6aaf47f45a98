"""Running sums, running products and recurrences along the middle of arrays [before, n, after], and what products need.

Rows, where `after` is 1, are taken four at a time: in one row each step waits for the one before. What is left of the
rows is taken one by one. Totals are float64 whatever the elements are, as in PyTorch: thousands of float32 numbers
would leave half of a float32's digits.
"""

import numpy as np

from .compiler import jit, prange, serial


@serial
def _tasks(rows):
    """How many groups of four rows there are, and how many tasks: the groups, and the rows that are left."""
    groups = rows // 4
    return groups, groups + rows % 4


@serial
def _sums_of_row(x, backwards, out):
    total = np.float64(0)
    if backwards:
        for j in range(x.size - 1, -1, -1):
            total += x[j]
            out[j] = total
    else:
        for j in range(x.size):
            total += x[j]
            out[j] = total


@serial
def _sums_of_four(x, a, backwards, out):
    b, c, d = a + 1, a + 2, a + 3
    t0 = t1 = t2 = t3 = np.float64(0)
    if backwards:
        for j in range(x.shape[1] - 1, -1, -1):
            t0, t1, t2, t3 = t0 + x[a, j], t1 + x[b, j], t2 + x[c, j], t3 + x[d, j]
            out[a, j], out[b, j], out[c, j], out[d, j] = t0, t1, t2, t3
    else:
        for j in range(x.shape[1]):
            t0, t1, t2, t3 = t0 + x[a, j], t1 + x[b, j], t2 + x[c, j], t3 + x[d, j]
            out[a, j], out[b, j], out[c, j], out[d, j] = t0, t1, t2, t3


@jit
def sums(x, backwards, block, out):
    """out: the sums of x up to each place, or from it to the end."""
    before, n, after = x.shape
    if after == 1:
        rows, results = x.reshape(before, n), out.reshape(before, n)
        groups, tasks = _tasks(before)
        for task in prange(tasks):
            if task < groups:
                _sums_of_four(rows, 4 * task, backwards, results)
            else:
                _sums_of_row(rows[3 * groups + task], backwards, results[3 * groups + task])
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


@serial
def _products_of_row(x, out):
    total = np.float64(1)
    for j in range(x.size):
        total *= x[j]
        out[j] = total


@serial
def _products_of_four(x, a, out):
    b, c, d = a + 1, a + 2, a + 3
    t0 = t1 = t2 = t3 = np.float64(1)
    for j in range(x.shape[1]):
        t0, t1, t2, t3 = t0 * x[a, j], t1 * x[b, j], t2 * x[c, j], t3 * x[d, j]
        out[a, j], out[b, j], out[c, j], out[d, j] = t0, t1, t2, t3


@jit
def products(x, block, out):
    """out: the products of x up to each place."""
    before, n, after = x.shape
    if after == 1:
        rows, results = x.reshape(before, n), out.reshape(before, n)
        groups, tasks = _tasks(before)
        for task in prange(tasks):
            if task < groups:
                _products_of_four(rows, 4 * task, results)
            else:
                _products_of_row(rows[3 * groups + task], results[3 * groups + task])
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


@serial
def _recurrence_of_row(x, factor, backwards, out):
    first, step = (x.size - 1, -1) if backwards else (0, 1)
    total = np.float64(x[first])
    out[first] = total
    for k in range(1, x.size):
        j = first + step * k
        total = x[j] + factor[j + backwards] * total
        out[j] = total


@serial
def _recurrence_of_four(x, factor, a, backwards, out):
    b, c, d = a + 1, a + 2, a + 3
    n = x.shape[1]
    first, step = (n - 1, -1) if backwards else (0, 1)
    t0, t1, t2, t3 = np.float64(x[a, first]), np.float64(x[b, first]), np.float64(x[c, first]), np.float64(x[d, first])
    out[a, first], out[b, first], out[c, first], out[d, first] = t0, t1, t2, t3
    for k in range(1, n):
        j, f = first + step * k, first + step * k + backwards
        t0, t1 = x[a, j] + factor[a, f] * t0, x[b, j] + factor[b, f] * t1
        t2, t3 = x[c, j] + factor[c, f] * t2, x[d, j] + factor[d, f] * t3
        out[a, j], out[b, j], out[c, j], out[d, j] = t0, t1, t2, t3


@jit
def recurrence(x, factor, backwards, block, out):
    """out[j] = x[j] + factor[j] * out[j - 1], or backwards x[j] + factor[j + 1] * out[j + 1]."""
    before, n, after = x.shape
    if after == 1:
        rows, factors, results = x.reshape(before, n), factor.reshape(before, n), out.reshape(before, n)
        groups, tasks = _tasks(before)
        for task in prange(tasks):
            if task < groups:
                _recurrence_of_four(rows, factors, 4 * task, backwards, results)
            else:
                i = 3 * groups + task
                _recurrence_of_row(rows[i], factors[i], backwards, results[i])
    else:
        first, step = (n - 1, -1) if backwards else (0, 1)
        blocks = -(-after // block)
        for task in prange(before * blocks):
            i, columns = task // blocks, slice(task % blocks * block, (task % blocks + 1) * block)
            totals = x[i, first, columns].astype(np.float64)
            out[i, first, columns] = totals
            for k in range(1, n):
                j = first + step * k
                row, weights, target = x[i, j, columns], factor[i, j + backwards, columns], out[i, j, columns]
                for c in range(row.size):
                    totals[c] = row[c] + weights[c] * totals[c]
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
