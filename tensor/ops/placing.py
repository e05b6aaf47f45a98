"""Arrays read and written at indices: what gathering, scattering and embeddings share.

What takes no `xp` calls compiled kernels, and returns NotImplemented for what they do not take; indices that are out of
range it refuses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...runtime.arrays import Array
from ...runtime.threads import get_num_threads
from ..kernels import sources, takes

WORK = 4  # that of an element at an index
_LINE = 16  # elements of a cache line
_INT64 = numpy.dtype(numpy.int64)


def is_looked_at(array: Any, index: Any, dim: int, source: Any = None) -> bool:
    """Whether kernels for elements of an array at an index array look themselves for indices that are out of range.

    They do so on their way; a look of its own takes a sixth of the time of gathering on one thread.

    Args:
        source: what is written, if anything is.
    """
    if not array.__class__ is index.__class__ is numpy.ndarray:
        return False
    if not (takes(array, WORK, index.size, light=True) and _pairs(array, index, dim)):
        return False
    return source is None or (source.shape == index.shape and source.dtype == array.dtype)


def _done(out: Array, wrong: bool, index: Array, size: int, dim: int) -> Array:
    """What a kernel computed, unless it found an index that is out of range."""
    if wrong:
        low, high = int(index.min()), int(index.max())
        bad = low if low < 0 else high
        raise RuntimeError(f"index {bad} is out of bounds for dimension {dim} with size {size}")
    return out


def add_slices(out: Array, source: Array, index: Array, dim: int, fresh: bool) -> Any:
    """out with the slices of source along dim added to those that a vector of indices names; a fresh array may have
    anything in it, and its other slices are zeros then."""
    if index.dtype != numpy.int64 or index.ndim != 1 or source.dtype != out.dtype or not source.size:
        return NotImplemented
    x, out3 = middle(source, dim), middle(out, dim)
    wrong = sources.scattering.add(x, numpy.ascontiguousarray(index), _columns(out3), fresh, out3)
    return _done(out, wrong, index, out.shape[dim], dim)


def take_slices(input: Array, index: Array, dim: int) -> Any:
    """The columns that a vector of indices names, if dim is the last; along others NumPy copies whole rows."""
    if index.dtype != numpy.int64 or not (input.size and index.size) or math.prod(input.shape[dim + 1 :]) != 1:
        return NotImplemented
    out = numpy.empty((*input.shape[:dim], index.size, *input.shape[dim + 1 :]), input.dtype)
    x, columns = numpy.ascontiguousarray(input).reshape(-1, input.shape[dim]), out.reshape(-1, index.size)
    wrong = sources.scattering.select(x, numpy.ascontiguousarray(index), columns)
    return _done(out, wrong, index, input.shape[dim], dim)


def sum_slices(source: Array, index: Array, size: tuple, dim: int, into: Array | None = None) -> Any:
    """Zeros of a size, in place of `into` if that is given, with slices added as by `add_slices`."""
    return add_slices(numpy.empty(size, source.dtype) if into is None else into, source, index, dim, True)


def gather(input: Array, index: Array, dim: int) -> Any:
    """The elements of input along dim at the places that an index array names."""
    if not _pairs(input, index, dim):
        return NotImplemented
    vector = _repeated(index, dim)
    if vector is not None:
        wrong = ((vector < 0) | (vector >= input.shape[dim])).any()
        return _done(numpy.take(input, vector, dim, mode="clip"), wrong, index, input.shape[dim], dim)
    out = numpy.empty(index.shape, input.dtype)
    wrong = sources.scattering.gather(middle(input, dim), middle(index, dim), middle(out, dim))
    return _done(out, wrong, index, input.shape[dim], dim)


def scatter(out: Array, source: Array, index: Array, dim: int, adding: bool) -> Any:
    """out (a fresh array) with the elements of source written, or added, at the places that an index array names."""
    if isinstance(source, int | float):
        source = numpy.full(index.shape, source, out.dtype)
    if not _pairs(out, index, dim) or source.shape != index.shape or source.dtype != out.dtype:
        return NotImplemented
    vector = _repeated(index, dim)
    if vector is not None and adding:
        return add_slices(out, source, vector, dim, False)
    places, out3 = middle(index, dim), middle(out, dim)
    wrong = sources.scattering.scatter(middle(source, dim), places, _columns(out3), adding, out3)
    return _done(out, wrong, index, out.shape[dim], dim)


def _columns(out: Array) -> int:
    """How many columns a thread writes to, and no other does: the more, the faster it reads its parts of rows."""
    return -(-out.shape[2] // (_LINE * get_num_threads())) * _LINE


def add_along(xp: Any, out: Array, index: Array, values: Array, dim: int) -> Array:
    """out, which is contiguous, with values added at the places that an index array of their shape names along dim."""
    return _add_flat(xp, out, flat_places(xp, index, out.shape, dim), values) if index.size else out


def written_along(xp: Any, size: tuple, index: Array, values: Array, dim: int) -> Array:
    """Zeros of a size with values at the places that an index array of their shape names along dim, none twice."""
    out = xp.zeros(size, values.dtype)
    if index.size:
        out.reshape(-1)[flat_places(xp, index, size, dim)] = values
    return out


def wide(index: Array) -> Array:
    """An index array of int64: in a shorter dtype, of which PyTorch takes some, places in memory would wrap around."""
    return index if index.dtype is _INT64 else index.astype(_INT64)


def flat_places(xp: Any, index: Array, size: tuple, dim: int) -> Array:
    """Where the elements that an index array names along dim are in a flattened array of a size."""
    index = wide(index)
    places, step = index, 1
    for i in range(index.ndim - 1, -1, -1):
        if i == dim:
            places = places if step == 1 else places + index * (step - 1)  # index itself is in it already
        elif index.shape[i] != 1:
            steps = xp.arange(0, index.shape[i] * step, step)
            places = places + steps.reshape((-1,) + (1,) * (index.ndim - i - 1))
        step *= size[i]
    return places


def add_rows(xp: Any, out: Array, places: Array, rows: Array) -> Array:
    """out, which is contiguous, with rows [..., *shape of a row] added to those that places [...] name."""
    if xp is not numpy:
        xp.add.at(out, places, rows)
        return out
    size = math.prod(out.shape[1:])
    return _add_flat(xp, out, (wide(places) % len(out)).reshape(-1, 1) * size + xp.arange(size), rows)


def _add_flat(xp: Any, out: Array, places: Array, values: Array) -> Array:
    """NumPy adds many times as fast at the indices of a vector as at any others."""
    xp.add.at(out.reshape(-1), places.reshape(-1), values.reshape(-1))
    return out


def middle(array: Array, dim: int) -> Array:
    """An array as a contiguous one of three dims, the given one in the middle."""
    before, after = math.prod(array.shape[:dim]), math.prod(array.shape[dim + 1 :])
    return numpy.ascontiguousarray(array).reshape(before, array.shape[dim], after)


def _pairs(array: Array, index: Array, dim: int) -> bool:
    """Whether an index array goes through all of the other dims of an array."""
    if index.dtype != _INT64 or not index.size or not index.ndim or index.ndim != array.ndim:
        return False
    return index.shape[:dim] == array.shape[:dim] and index.shape[dim + 1 :] == array.shape[dim + 1 :]


def _repeated(index: Array, dim: int) -> Array | None:
    """The vector of indices that an index array repeats along all other dims, as after expand(); None if none."""
    if any(stride and n > 1 for i, (stride, n) in enumerate(zip(index.strides, index.shape, strict=True)) if i != dim):
        return None
    return index[tuple(slice(None) if i == dim else 0 for i in range(index.ndim))]
