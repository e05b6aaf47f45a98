"""Triangular parts of matrices."""

from .compiler import jit, prange, serial


@serial
def _copy(row, out):
    for c in range(row.size):
        out[c] = row[c]


@serial
def _clear(out):
    for c in range(out.size):
        out[c] = 0


@jit
def triangle(x, diagonal, lower, out):
    """out [count, rows, columns]: x on and below (or above) a diagonal, zeros elsewhere."""
    count, rows, columns = x.shape
    for task in prange(count * rows):
        row, target = x[task // rows, task % rows], out[task // rows, task % rows]
        edge = task % rows + diagonal + lower  # between the columns below and above
        edge = min(max(edge, 0), columns)
        if lower:
            _copy(row[:edge], target[:edge])
            _clear(target[edge:])
        else:
            _clear(target[:edge])
            _copy(row[edge:], target[edge:])
