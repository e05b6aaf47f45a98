"""Sums of large arrays by compiled kernels, along any dims: what the kernels of reductions have in common."""

from __future__ import annotations

import math

import numpy

from ...runtime.arrays import Array
from ..kernels import sources

VALUE, SIZE, SQUARE = 0, 1, 2  # what is summed: the elements, their sizes, their squares

_PIECE = 512  # elements of a row that are added without a break
_HEIGHT = 64  # rows that are added without a break
_BLOCK = 1024  # columns that a thread adds at a time
_SMALL = 1 << 13  # fewer sums of pieces are NumPy's to add
_LEAST_SIZE = 1 << 17  # for fewer elements NumPy is as quick, unless it must add along or across very short rows
_LEAST_ROW = 64


def sum_along(input: Array, dims: tuple[int, ...], keepdim: bool, power: int = VALUE) -> Array:
    """The sum along dims of a large contiguous float array, of its values, sizes or squares; or NotImplemented."""
    if not input.flags.c_contiguous or not input.size:
        return NotImplemented
    groups = _groups(input.shape, dims)
    if input.size < _LEAST_SIZE and (not groups or max(groups[0][1:]) >= _LEAST_ROW):
        return NotImplemented
    kept = tuple(1 if i in dims else n for i, n in enumerate(input.shape))
    for before, length, after in groups:
        input = _sum_middle(input.reshape(before, length, after), power)
        power = VALUE
    return input.reshape(kept if keepdim else tuple(n for i, n in enumerate(kept) if i not in dims))


def sum_of_squares(x: Array) -> Array:
    """The sum of the squares of all elements of a contiguous float array."""
    return _sum_middle(x.reshape(1, -1, 1), SQUARE).reshape(())


def _groups(shape: tuple[int, ...], dims: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(size before, length, size after) of each group of neighbouring dims to sum along, the last first."""
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
    # short rows of a long array side by side make wide ones; their columns are added up later
    beside = max(1, _BLOCK // after) if length * after > _BLOCK else 1
    pieces = -(-length // (beside * _HEIGHT))
    sums = numpy.zeros((before, pieces, beside * after), x.dtype)
    sources.reduction.along_columns(x.reshape(before, length * after), _HEIGHT, _BLOCK, power, sums)
    return _sum_middle(sums.reshape(before, pieces * beside, after), VALUE)


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
