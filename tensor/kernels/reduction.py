"""Sums and extremes of float arrays along dimensions.

Elements are added in pieces of a fixed length, the sums of the pieces again, and so on: the order depends on the shape
alone, and rounding errors grow with the logarithm of the length, as in pairwise summation.
"""

import numpy as np

from .approximations import rank, ranked
from .compiler import jit, prange, serial

VALUE, SIZE, SQUARE = 0, 1, 2  # what is summed of each element


@serial
def _total(x, power):
    # of a slice: in a loop from elsewhere than 0 Numba allows for negative indices, and nothing is vectorized
    total = x.dtype.type(0)
    if power == SQUARE:
        for j in range(x.size):
            total += x[j] * x[j]
    elif power == SIZE:
        for j in range(x.size):
            total += abs(x[j])
    else:
        for j in range(x.size):
            total += x[j]
    return total


@serial
def _add(x, power, out):
    if power == SQUARE:
        for j in range(x.size):
            out[j] += x[j] * x[j]
    elif power == SIZE:
        for j in range(x.size):
            out[j] += abs(x[j])
    else:
        for j in range(x.size):
            out[j] += x[j]


@serial(fastmath={"contract"})  # kernels/chains.py adds rows in this order, too
def _add_four(w, x, y, z, out):
    for j in range(out.size):
        out[j] += (w[j] + x[j]) + (y[j] + z[j])


@jit
def along_row(x, piece, power, out):
    """out [pieces] of x [n]: one long row, its pieces in parallel."""
    for c in prange(out.size):
        out[c] = _total(x[c * piece : (c + 1) * piece], power)


@serial
def _squared_distance(x, y):
    total = x.dtype.type(0)
    for j in range(x.size):
        total += (x[j] - y[j]) * (x[j] - y[j])
    return total


@jit
def squared_distances(x, y, piece, out):
    """out [pieces]: the sums of (x - y)**2 over pieces of x and y [n]."""
    for c in prange(out.size):
        out[c] = _squared_distance(x[c * piece : (c + 1) * piece], y[c * piece : (c + 1) * piece])


@jit
def along_rows(x, piece, power, out):
    """out [rows, pieces] of x [rows, n]: many rows, in parallel."""
    for i in prange(x.shape[0]):
        for c in range(out.shape[1]):
            out[i, c] = _total(x[i, c * piece : (c + 1) * piece], power)


@jit
def along_columns(x, height, block, power, out):
    """out [groups, pieces, width] += x [groups, n] as rows of that width, the last perhaps shorter, `height` a piece.

    A task is a piece of `block` columns, so that the sums stay in the level-1 cache.
    """
    n = x.shape[1]
    groups, pieces, width = out.shape
    blocks = -(-width // block)
    for task in prange(groups * pieces * blocks):
        i, rest = task // (pieces * blocks), task % (pieces * blocks)
        c, left = rest // blocks, rest % blocks * block
        right = min(left + block, width)
        sums, start, end = out[i, c, left:right], c * height * width + left, min((c + 1) * height * width, n)
        while power == VALUE and start + 3 * width + sums.size <= end:
            a, b = x[i, start : start + sums.size], x[i, start + width : start + width + sums.size]
            start += 2 * width
            _add_four(a, b, x[i, start : start + sums.size], x[i, start + width : start + width + sums.size], sums)
            start += 2 * width
        while start < end:
            part = x[i, start : min(start + sums.size, n)]
            _add(part, power, sums)
            start += width


@serial
def _less(x, least):
    """A NaN replaces everything and is replaced by nothing."""
    return x if (x < least) | (x != x) else least


@serial
def _greater(x, most):
    return x if (x > most) | (x != x) else most


@serial
def _keep_extreme(x, smallest, out):
    if smallest:
        for j in range(x.size):
            out[j] = _less(x[j], out[j])
    else:
        for j in range(x.size):
            out[j] = _greater(x[j], out[j])


@jit
def extremes(x, height, block, smallest, out):
    """out [groups, pieces, width] = the extremes of the columns of x [groups, n] and of out; see `along_columns`."""
    n = x.shape[1]
    groups, pieces, width = out.shape
    blocks = -(-width // block)
    for task in prange(groups * pieces * blocks):
        i, rest = task // (pieces * blocks), task % (pieces * blocks)
        c, left = rest // blocks, rest % blocks * block
        best = out[i, c, left : min(left + block, width)]
        for start in range(c * height * width + left, min((c + 1) * height * width, n), width):
            row = x[i, start : min(start + best.size, n)]
            _keep_extreme(row, smallest, best[: row.size])


@jit
def extremes_of_rows(x, smallest, out):
    """out [rows] = the extremes of the rows of x [rows, n]."""
    for i in prange(x.shape[0]):
        row = x[i]
        best = rank(-row[0] if smallest else row[0])
        if smallest:
            for j in range(row.size):
                best = max(best, rank(-row[j]))
        else:
            for j in range(row.size):
                best = max(best, rank(row[j]))
        value = ranked(best)
        out[i] = -value if smallest else value


@jit
def largest_of_rows(x, height, smallest, values, places):
    """The k largest elements of each row of x [rows, n] in order, and where they are; of equal ones the first.

    Few elements are larger than all but k - 1 before them, so that hardly any is put in its place among these. A task
    is `height` rows.
    """
    rows, n = x.shape
    k = values.shape[1]
    for task in prange(-(-rows // height)):
        ranks = np.empty(k, np.int64)
        for i in range(task * height, min((task + 1) * height, rows)):
            for j in range(n):
                place = rank(x[i, j])
                place = ~place if smallest else place
                if j >= k and place <= ranks[k - 1]:
                    continue
                c = min(j, k - 1)
                while c > 0 and place > ranks[c - 1]:
                    ranks[c] = ranks[c - 1]
                    places[i, c] = places[i, c - 1]
                    c -= 1
                ranks[c] = place
                places[i, c] = j
            for c in range(k):
                values[i, c] = x[i, places[i, c]]


@jit
def extremes_backward(g, x, out, gradient):
    """Of [groups, n, width]: the gradient [groups, width] of extremes `out`, shared evenly by all that equal them."""
    groups, n, width = x.shape
    if width == 1:
        for i in prange(groups):
            row, shares, best = x[i].reshape(n), gradient[i].reshape(n), out[i, 0]
            hits = x.dtype.type(0)
            for j in range(n):
                hits += x.dtype.type(row[j] == best)
            share = g[i, 0] / hits
            for j in range(n):
                shares[j] = x.dtype.type(row[j] == best) * share
    else:
        for i in prange(groups):
            hits = np.zeros(width, x.dtype)
            for j in range(n):
                for c in range(width):
                    hits[c] += x.dtype.type(x[i, j, c] == out[i, c])
            for c in range(width):
                hits[c] = g[i, c] / hits[c]
            for j in range(n):
                for c in range(width):
                    gradient[i, j, c] = x.dtype.type(x[i, j, c] == out[i, c]) * hits[c]


@jit
def extreme_places(x, block, smallest, best, out):
    """out [groups, width]: the first row of x [groups, n, width] with the extreme of each column; best: the extreme."""
    groups, n, width = x.shape
    blocks = -(-width // block)
    for task in prange(groups * blocks):
        i, columns = task // blocks, slice(task % blocks * block, (task % blocks + 1) * block)
        values, places = best[i, columns], out[i, columns]
        values[:] = x[i, 0, columns]
        places[:] = 0
        for j in range(1, n):
            row = x[i, j, columns]
            for c in range(row.size):
                better = row[c] < values[c] if smallest else row[c] > values[c]
                better = better or (row[c] != row[c] and values[c] == values[c])
                values[c] = row[c] if better else values[c]
                places[c] = j if better else places[c]
