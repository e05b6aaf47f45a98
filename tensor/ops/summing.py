"""Sums, extremes and products of large arrays by compiled kernels, along any dims."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from ...runtime.arrays import Array
from ..kernels import sources
from . import few

VALUE, SIZE, SQUARE = 0, 1, 2  # what is summed: the elements, their sizes, their squares

_PIECE = 1024  # elements of a row that are added without a break
HEIGHT = 64  # rows that are added without a break
_BLOCK = 1024  # columns that a thread adds at a time
_LONG = 4096  # elements of a row whose exponentials a thread adds at a time
_COLUMNS = 64  # columns whose products a thread computes at a time
_SMALL = 1 << 13  # fewer sums of pieces are NumPy's to add
_LEAST_ROW = 64


def add_rows(x: Array, out: Array | None = None) -> Array:
    """The sum over the first dimension of a matrix, in `out` if given; of a small one as a product with ones, which
    takes BLAS a half to a thirtieth of the time of NumPy's reduction."""
    if few.is_few(x):
        return few.ones(x, len(x)).dot(x, out)
    return numpy.add.reduce(x, 0, None, out)


def sum_along(input: Array, dims: tuple[int, ...], keepdim: bool, power: int = VALUE) -> Array:
    """The sum along dims of a large contiguous float array, of its values, sizes or squares; or NotImplemented."""
    groups = neighbours(input.shape, dims)
    if not _takes(input, groups):
        return NotImplemented
    shape = _reduced(input.shape, dims, keepdim)
    for group in groups:
        input = _sum_middle(input.reshape(group), power)
        power = VALUE
    return input.reshape(shape)


def extreme_along(input: Array, dims: tuple[int, ...], keepdim: bool, smallest: bool) -> Array:
    """The largest (or smallest) element along dims of a large contiguous float array; or NotImplemented."""
    groups = neighbours(input.shape, dims)
    if not _takes(input, groups) or groups[0] == (1, input.size, 1):  # NumPy is quick along one row
        return NotImplemented
    shape = _reduced(input.shape, dims, keepdim)
    for group in groups:
        input = _extreme_middle(input.reshape(group), smallest)
    return input.reshape(shape)


def extreme_places(input: Array, dim: int, smallest: bool) -> Array:
    """Where the largest (or smallest) elements along dim are first: for a dim that others follow; or NotImplemented."""
    ((before, length, after),) = neighbours(input.shape, (dim,))
    if after == 1 or after < _LEAST_ROW <= length or not _takes(input, [(before, length, after)]):  # NumPy is quick
        return NotImplemented
    best, places = numpy.empty((before, after), input.dtype), numpy.empty((before, after), numpy.int64)
    x = input.reshape(before, length, after)
    sources.reduction.extreme_places(x, _BLOCK, smallest, best, places)
    return places.reshape(_reduced(input.shape, (dim,), False))


def shares_of_extremes(g: Array, input: Array, out: Array, dims: tuple[int, ...]) -> Array:
    """The gradient of a large input from that of its extremes along neighbouring dims; or NotImplemented."""
    return _to_input(sources.reduction.extremes_backward, g, input, out, dims)


def log_total_along(input: Array, dims: tuple[int, ...], keepdim: bool) -> Array:
    """logsumexp along dims of a large contiguous float array; or NotImplemented."""
    groups = neighbours(input.shape, dims)
    if not _takes(input, groups):
        return NotImplemented
    shape = _reduced(input.shape, dims, keepdim)
    for before, length, after in groups:
        if after > 1:
            out = numpy.empty((before, after), input.dtype)
            sources.softmax.log_totals_of_columns(input.reshape(before, length, after), out)
            input = out
        else:
            input = _log_totals(input.reshape(before, length))
    return input.reshape(shape)


def _log_totals(x: Array) -> Array:
    """logsumexp of the rows of x: [rows, 1]."""
    out = numpy.empty((len(x), -(-x.shape[1] // _LONG)), x.dtype)
    sources.softmax.log_totals(x, _LONG, out)
    return out if out.shape[1] == 1 else _log_totals(out)


def weights_in_log_total(g: Array, input: Array, out: Array, dims: tuple[int, ...]) -> Array:
    """The gradient of a large input from that of its logsumexp along neighbouring dims; or NotImplemented."""
    return _to_input(sources.softmax.log_totals_backward, g, input, out, dims, _LONG)


def _to_input(kernel: Callable, g: Array, input: Array, out: Array, dims: tuple[int, ...], *arguments: Any) -> Array:
    """What a kernel computes of [before, length, after] from the gradient [before, after] of a reduction's output."""
    groups = neighbours(input.shape, dims)
    if len(groups) != 1 or not _takes(input, groups) or g.dtype is not input.dtype:
        return NotImplemented
    ((before, length, after),) = groups
    gradient = numpy.empty(input.shape, input.dtype)
    g, out = (numpy.ascontiguousarray(x).reshape(before, after) for x in (g, out))
    x = input.reshape(before, length, after)
    kernel(g, x, out, *arguments, gradient.reshape(x.shape))
    return gradient


def product_along(input: Array, dims: tuple[int, ...], keepdim: bool) -> Array:
    """The product along dims of a large contiguous float array, if these are its last ones; or NotImplemented."""
    groups = neighbours(input.shape, dims)
    if len(groups) != 1 or not _takes(input, groups) or groups[0][2] != 1:  # along others NumPy is quick
        return NotImplemented
    rows, length, _ = groups[0]
    products = numpy.empty((rows, -(-length // _PIECE)), input.dtype)
    sources.scans.row_products(input.reshape(rows, length), _PIECE, products)
    return products.prod(1).reshape(_reduced(input.shape, dims, keepdim))


def products_of_others(g: Array, input: Array, out: Array, dims: tuple[int, ...]) -> Array:
    """The gradient of a large input from that of its products along neighbouring dims; or NotImplemented."""
    return _to_input(sources.scans.products_backward, g, input, out, dims, _PIECE, _COLUMNS)


def _takes(input: Array, groups: list[tuple[int, int, int]]) -> bool:
    return input.flags.c_contiguous and input.size > 0 and len(groups) > 0


def _reduced(shape: tuple[int, ...], dims: tuple[int, ...], keepdim: bool) -> tuple[int, ...]:
    if keepdim:
        return tuple(1 if i in dims else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in dims)


def sum_of_squares(x: Array) -> Array:
    """The sum of the squares of all elements of a contiguous float array."""
    return _sum_middle(x.reshape(1, -1, 1), SQUARE).reshape(())


def squared_distance(x: Array, y: Array) -> Array:
    """The sum of (x - y)**2 over two contiguous float arrays of one shape and dtype."""
    parts = numpy.empty(-(-x.size // _PIECE), x.dtype)
    sources.reduction.squared_distances(x.reshape(-1), y.reshape(-1), _PIECE, parts)
    return _sum_middle(parts.reshape(1, -1, 1), VALUE).reshape(())


def neighbours(shape: tuple[int, ...], dims: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(size before, length, size after) of each group of neighbouring dims to reduce, the last first."""
    groups = []
    after, stop = 1, len(shape)
    while stop:
        start = stop
        while start and (start - 1 in dims) == (stop - 1 in dims):
            start -= 1
        size = math.prod(shape[start:stop])
        if stop - 1 in dims:
            groups.append((math.prod(shape[:start]), size, after))
        else:
            after *= size
        stop = start
    return groups


def _sum_middle(x: Array, power: int) -> Array:
    """The sum of x [before, length, after] along its middle: [before, after]."""
    before, length, after = x.shape
    if length == 1 and power == VALUE:
        return x.reshape(before, after)
    if after == 1:
        return _sum_rows(x.reshape(before, length), power)
    if x.size < _SMALL and power == VALUE:
        return numpy.ascontiguousarray(x.swapaxes(1, 2)).sum(2)  # NumPy adds in pairs along contiguous dims only
    sums = numpy.zeros((before, *_pieces(length, after)), x.dtype)
    sources.reduction.along_columns(x.reshape(before, length * after), HEIGHT, _BLOCK, power, sums)
    return total(sums, after)


def _pieces(length: int, after: int) -> tuple[int, int]:
    """How many pieces of HEIGHT rows are added, and the width of these: short rows of a long array side by side make
    wide ones, whose columns are added up later."""
    beside = max(1, _BLOCK // after) if length * after > _BLOCK else 1
    return -(-length // (beside * HEIGHT)), beside * after


def total(sums: Array, after: int) -> Array:
    """The sum of the sums of pieces [before, pieces, width]: [before, after]."""
    return _sum_middle(sums.reshape(len(sums), -1, after), VALUE)


def row_pieces(shape: tuple[int, ...], dims: tuple[int, ...]) -> tuple[int, int] | None:
    """The `_pieces` of a sum over leading dims of a contiguous array, or None if it is another sum."""
    groups, size = neighbours(shape, dims), math.prod(shape)
    if len(groups) != 1 or size < _SMALL:
        return None
    ((before, length, after),) = groups
    return _pieces(length, after) if before == 1 < after and length > 1 else None


def _extreme_middle(x: Array, smallest: bool) -> Array:
    """The largest (or smallest) of x [before, length, after] along its middle: [before, after]."""
    before, length, after = x.shape
    if x.size < _SMALL or (after == 1 and before == 1):
        return (x.min if smallest else x.max)(1)
    if after == 1:
        out = numpy.empty(before, x.dtype)
        sources.reduction.extremes_of_rows(x.reshape(before, length), smallest, out)
        return out
    pieces, width = _pieces(length, after)
    out = numpy.full((before, pieces, width), numpy.inf if smallest else -numpy.inf, x.dtype)
    sources.reduction.extremes(x.reshape(before, length * after), HEIGHT, _BLOCK, smallest, out)
    out = out.reshape(before, -1, after)
    return (out.min if smallest else out.max)(1) if width == after else _extreme_middle(out, smallest)


def _sum_rows(x: Array, power: int) -> Array:
    """The sums of the rows of x: [rows, 1]."""
    rows, length = x.shape
    if x.size < _SMALL and power == VALUE:
        return x.sum(1, keepdims=True)
    sums = numpy.empty((rows, -(-length // _PIECE)), x.dtype)
    if rows < sums.shape[1]:
        for row, parts in zip(x, sums, strict=True):
            sources.reduction.along_row(row, _PIECE, power, parts)
    else:
        sources.reduction.along_rows(x, _PIECE, power, sums)
    return sums if sums.shape[1] == 1 else _sum_rows(sums, VALUE)
