"""Triangular parts of matrices."""

from .compiler import jit, prange


@jit
def triangle(x, diagonal, lower, out):
    """out [count, rows, columns]: x on and below (or above) a diagonal, zeros elsewhere."""
    count, rows, columns = x.shape
    for task in prange(count * rows):
        row, target = x[task // rows, task % rows], out[task // rows, task % rows]
        edge = task % rows + diagonal + lower  # between the columns below and above
        edge = min(max(edge, 0), columns)
        for c in range(edge):
            target[c] = row[c] if lower else 0
        for c in range(edge, columns):
            target[c] = 0 if lower else row[c]
