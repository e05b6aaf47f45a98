"""Order: sorting, selecting by rank, searching in sorted values, distinct values."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.return_types import return_type
from ...autograd.variable import Variable, box
from ...runtime.arrays import Array, module_of
from .. import kernels
from ..kernels import compiled, sources
from . import arithmetic as ar
from . import cumulative, indexing, placing, reduction, shaping
from .shaping import one_dim

_MANY = 1024  # elements; from here on NumPy sorts integers of 64 bits many times as fast as it sorts stably
_SHORT = frozenset(map(numpy.dtype, ("float16", "float32", "bool", "uint8", "int8", "uint16", "int16", "int32")))


def _sorted_with_places(input: Array, dim: int, descending: bool) -> tuple[Array, Array]:
    """As `sort`, of elements of at most 32 bits: the upper half of each integer is ordered as they are, and the lower
    half is their place."""
    rows = numpy.ascontiguousarray(input.swapaxes(dim, -1))
    keys = (_ordered(rows) if rows.dtype.kind == "f" else rows).astype(numpy.int64)
    if descending:
        numpy.invert(keys, keys)
    keys <<= 32
    keys |= numpy.arange(rows.shape[-1])
    keys.sort()
    keys &= 0xFFFFFFFF
    starts = numpy.arange(0, rows.size, rows.shape[-1]).reshape((*rows.shape[:-1], 1))
    values = rows.take(keys + starts)
    return tuple(numpy.ascontiguousarray(x.swapaxes(dim, -1)) for x in (values, keys))  # type: ignore[return-value]


def _ordered(x: Array) -> Array:
    """Integers of 32 bits that compare as the elements do: -0 equals 0, and nan is the largest."""
    bits = (x + 0).astype(numpy.float32, copy=False).view(numpy.int32)
    keys = bits >> 31
    keys &= 0x7FFFFFFF  # of negative numbers the larger bits are the smaller number
    keys ^= bits
    numpy.putmask(keys, x != x, 0x7FFFFFFF)
    return keys


@primitive(outputs=("values", "indices"))
def sort(xp, input: Array, dim: int = -1, descending: bool = False, stable: bool = False):
    """The elements in order along dim, and where they came from; stable, and nan is the largest."""
    if input.ndim == 0:
        return input.copy(), xp.zeros((), xp.int64)
    dim = one_dim(dim, input.ndim)
    if xp is numpy and input.size >= _MANY and input.dtype in _SHORT:
        return _sorted_with_places(input, dim, descending)
    # descending and stable: sort the reversed input ascending, and reverse the result
    keys = input.astype(xp.float32) if input.dtype.kind == "V" else input  # bfloat16 has no order for nan
    keys = xp.flip(keys, dim) if descending else keys
    order = xp.argsort(keys, dim, kind="stable")
    if descending:
        order = xp.flip(input.shape[dim] - 1 - order, dim)
    order = order.astype(xp.int64)
    return xp.take_along_axis(input, order, dim), order


sort.vjp(
    input=lambda F, g, indices, input_shape, dim: (
        F.scatter_zeros(g[0], indices, input_shape, one_dim(dim, len(input_shape))) if input_shape else g[0]
    )
)


@sort.fused_vjp("cpu")
def _unsorted(xp: Any, g: tuple, needs: tuple, indices: Array, input_shape: tuple, dim: int) -> tuple:
    """The written rule, which need not add: no place is named twice."""
    written = input_shape and placing.written_along(xp, input_shape, indices, g[0], one_dim(dim, len(input_shape)))
    return (written if input_shape else g[0],)


@takes_out
def sort_by(input: Any, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Any:
    """The elements in order along dim, and where they came from; always stable.

    Example:
        >>> import paceline as torch
        >>> torch.sort(torch.tensor([3, 1, 2])).indices
        tensor([1, 2, 0])
    """
    return sort(input, dim, descending, stable)


@takes_out
def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """The indices that sort the elements along dim."""
    return sort(input, dim, descending, stable).indices


@takes_out
def msort(input: Any) -> Any:
    """The elements in order along the first dimension."""
    return sort(input, 0).values


@primitive(outputs=("values", "indices"))
def first_in_order(xp, input: Array, dim: int, count: int, descending: bool):
    """The first elements of `sort` along dim, and where they came from."""
    values, order = sort.declaration.body(xp, input, dim, descending)
    chosen = (slice(None),) * dim + (slice(count),)
    return values[chosen], order[chosen]


first_in_order.vjp(
    input=lambda F, g, indices, input_shape, dim: F.scatter_zeros(g[0], indices, input_shape, dim)
)

first_in_order.fused_vjp("cpu")(_unsorted)

_FEW = 32  # kernels look for so many by putting each candidate in its place among the best
_TOGETHER = 1 << 11  # elements in the rows that a thread searches at a time


@compiled(first_in_order, work=8, light=True, worth=2)
def _first_in_order(input: Array, dim: int, count: int, descending: bool) -> Any:
    if not 0 < count <= _FEW:
        return NotImplemented
    rows = numpy.ascontiguousarray(input if dim == input.ndim - 1 else numpy.moveaxis(input, dim, -1))
    size = (*rows.shape[:-1], count)
    values, places = numpy.empty(size, rows.dtype), numpy.empty(size, numpy.int64)
    flat = (values.reshape(-1, count), places.reshape(-1, count))
    height = -(-_TOGETHER // rows.shape[-1])
    sources.reduction.largest_of_rows(rows.reshape(-1, rows.shape[-1]), height, not descending, *flat)
    if dim == input.ndim - 1:
        return values, places
    return numpy.moveaxis(values, -1, dim), numpy.moveaxis(places, -1, dim)


@takes_out
def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (or smallest) elements along dim in order, and where they are."""
    dim = one_dim(dim, input.array.ndim)
    length = input.array.shape[dim] if input.array.ndim else 1
    if not 0 <= k <= length:
        raise RuntimeError(f"selected index k out of range: k is {k}, dimension {dim} has {length}")
    return _found("topk", *(first_in_order(input, dim, k, largest) if input.array.ndim else sort(input)))


# -- one element along a dimension -------------------------------------------------------------------------------------


def _found(name: str, values: Any, indices: Any) -> Any:
    """The results of the operation of that name."""
    return return_type(name, "values", "indices")(values, indices)


def _pick(name: str, input: Any, dim: int, index: Any, keepdim: bool) -> Any:
    """The elements that an index with a dimension of size 1 names, and the index, as results of that operation."""
    values = indexing.gather(input, dim, index)
    if not keepdim:
        values, index = shaping.squeeze(values, dim), shaping.squeeze(index, dim)
    return _found(name, values, index)


def _reduced_dim(input: Any, dim: int, name: str) -> int:
    """The dimension to reduce, which must have elements."""
    dim = one_dim(dim, input.array.ndim)
    if input.array.ndim and not input.array.shape[dim]:
        raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size.")
    return dim


@primitive
def one_along(xp, input: Array, index: Array, dim: int):
    """The elements that an index names along a dimension, which it and the result do not have."""
    return input[_one_along(xp, input.shape, index, dim)].reshape(index.shape)


def _one_along(xp: Any, shape: tuple, index: Array, dim: int) -> tuple:
    return indexing.along(xp, index.reshape((*shape[:dim], 1, *shape[dim + 1 :])), dim)


@compiled(one_along, placing.WORK, sized_by=1, light=True)
def _compiled_one_along(input: Array, index: Array, dim: int) -> Any:
    kept = index.reshape((*index.shape[:dim], 1, *index.shape[dim:]))
    found = placing.gather(input, kept, dim)
    return found if found is NotImplemented else found.reshape(index.shape)


one_along.vjp(
    input=lambda F, g, input_shape, index, dim: F.scatter_zeros(
        F.unsqueeze(g, dim), F.unsqueeze(index, dim), input_shape, dim
    )
)


@one_along.fused_vjp("cpu")
def _one_along_input(xp: Any, g: Array, needs: tuple, input_shape: tuple, index: Array, dim: int) -> Any:
    """The written rule for few places: none is named twice, so that nothing has to be added."""
    if g.size >= kernels.LEAST_SIZE:
        return NotImplemented
    gradient = numpy.zeros(input_shape, g.dtype)
    gradient[_one_along(numpy, input_shape, index, dim)] = g.reshape((*g.shape[:dim], 1, *g.shape[dim:]))
    return gradient, None


def _extreme(input: Any, name: str, dim: Any, keepdim: bool) -> Any:
    dim, find = _reduced_dim(input, dim, name), getattr(reduction, "arg" + name)
    if not input.array.ndim:
        return _pick(name, input, dim, find(input, dim, True), keepdim)
    index = find(input, dim)
    values = one_along(input, index, dim)
    if keepdim:
        values, index = shaping.unsqueeze(values, dim), shaping.unsqueeze(index, dim)
    return _found(name, values, index)


@takes_out
def max(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element; with dim, the largest along it and their indices; with a tensor, the larger of both.

    Example:
        >>> import paceline as torch
        >>> torch.tensor([[1.0, 5.0], [7.0, 2.0]]).max(1).values
        tensor([5., 7.])
    """
    if isinstance(dim, Variable):
        return ar.maximum(input, dim)
    return reduction.amax(input) if dim is None else _extreme(input, "max", dim, keepdim)


@takes_out
def min(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element; with dim, the smallest along it and their indices; with a tensor, the smaller of both."""
    if isinstance(dim, Variable):
        return ar.minimum(input, dim)
    return reduction.amin(input) if dim is None else _extreme(input, "min", dim, keepdim)


@takes_out
def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest element along dim, counting from 1, and where it is."""
    dim = one_dim(dim, input.array.ndim)
    length = input.array.shape[dim] if input.array.ndim else 1
    if not 1 <= k <= length:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {dim}: k is {k}, size {length}")
    order = sort(input, dim).indices
    return _pick("kthvalue", input, dim, shaping.narrow(order, dim, k - 1, 1) if order.array.ndim else order, keepdim)


def _median(input: Any, dim: int, keepdim: bool, name: str) -> Any:
    """The lower of the middle elements; with nan among them, nan, unless it is nanmedian() that asks."""
    values, order = sort(input.detach(), dim)
    if not input.array.ndim:
        return _pick(name, input, dim, order, keepdim)
    xp = module_of(values.array)
    length = values.array.shape[dim]
    nans = xp.isnan(values.array).sum(dim, keepdims=True) if values.array.dtype.kind in "fV" else 0
    if name == "nanmedian":
        rank = xp.maximum(length - nans - 1, 0) // 2
    else:
        rank = xp.where(nans > 0, length - nans, (length - 1) // 2)  # the first nan
    shape = (*values.array.shape[:dim], 1, *values.array.shape[dim + 1 :])
    index = xp.take_along_axis(order.array, xp.broadcast_to(rank, shape).astype(xp.int64), dim)
    return _pick(name, input, dim, box(index), keepdim)


@takes_out
def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median, nan if any element is; with dim, along it and with indices.

    Example:
        >>> import paceline as torch
        >>> torch.median(torch.tensor([1.0, 3.0, 2.0, 9.0]))
        tensor(2.)
    """
    if dim is not None:
        return _median(input, _reduced_dim(input, dim, "median"), keepdim, "median")
    return _median(shaping.reshape(input, (-1,)), 0, False, "median").values if input.array.size else _nothing(input)


@takes_out
def nanmedian(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of the elements that are not nan; with dim, along it and with indices."""
    if dim is not None:
        return _median(input, _reduced_dim(input, dim, "nanmedian"), keepdim, "nanmedian")
    return _median(shaping.reshape(input, (-1,)), 0, False, "nanmedian").values if input.array.size else _nothing(input)


def _nothing(input: Any) -> Any:
    """The median of no elements: nan, or the smallest integer."""
    dtype = input.array.dtype
    value = numpy.iinfo(dtype).min if dtype.kind in "iu" else numpy.nan
    return box(module_of(input.array).asarray(value, dtype))


@takes_out
def mode(input: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent element along dim (the smallest of several), and where it occurs last."""
    dim = _reduced_dim(input, dim, "mode")
    if not input.array.ndim:
        return _pick("mode", input, dim, box(module_of(input.array).zeros((), numpy.int64)), keepdim)
    values, order = sort(input.detach(), dim)
    xp, length = module_of(values.array), values.array.shape[dim]
    ranked = xp.moveaxis(values.array, dim, -1)
    starts = xp.concatenate([xp.ones_like(ranked[..., :1], bool), ranked[..., 1:] != ranked[..., :-1]], -1)
    places = xp.arange(length)
    run = cumulative.scan(xp, xp.maximum, xp.where(starts, places, 0), -1)  # where the run of each element starts
    last = (places - run).argmax(-1)  # the end of the longest run, the first of several
    index = xp.take_along_axis(order.array, xp.expand_dims(last, dim), dim)
    return _pick("mode", input, dim, box(index.astype(xp.int64)), keepdim)


# -- searching ---------------------------------------------------------------------------------------------------------


@takes_out
def searchsorted(
    sorted_sequence: Any,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """Where to insert values into sorted sequences, along the last dimension, so that they stay sorted.

    Args:
        sorted_sequence: a vector, or rows that match those of the input.
        input: values to look up; a tensor or a number.
        out_int32: whether to give int32 instead of int64.
        right, side: "left" finds the first suitable place, "right" (or right=True) the last.
        sorter: indices that sort the sequences, if they are not sorted.

    Example:
        >>> import paceline as torch
        >>> torch.searchsorted(torch.tensor([1, 3, 5]), torch.tensor([3, 4]))
        tensor([1, 2])
    """
    if side not in (None, "left", "right"):
        raise RuntimeError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError(
            "torch.searchsorted(): side and right can't be set to opposites, got side of left while right was True"
        )
    sequence, xp = sorted_sequence.array, module_of(sorted_sequence.array)
    values = input.array if isinstance(input, Variable) else xp.asarray(input)
    if sequence.ndim != 1 and sequence.shape[:-1] != values.shape[:-1]:
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
            f"tensor and input value tensor must match, but we got boundaries tensor {list(sequence.shape)} and input "
            f"value tensor {list(values.shape)}"
        )
    if sorter is not None:
        sequence = xp.take_along_axis(sequence, sorter.array, -1)
    where = "right" if right or side == "right" else "left"
    if sequence.ndim == 1:
        found = xp.searchsorted(sequence, values, where)
    else:
        found = xp.empty(values.shape, xp.int64)
        for row in numpy.ndindex(sequence.shape[:-1]):
            found[row] = xp.searchsorted(sequence[row], values[row], where)
    return box(xp.asarray(found, xp.int32 if out_int32 else xp.int64))


@takes_out
def bucketize(input: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    """The number of the bucket that each value falls into, between sorted boundaries.

    Example:
        >>> import paceline as torch
        >>> torch.bucketize(torch.tensor([0.5, 2.0, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([0, 1, 3])
    """
    if boundaries.array.ndim != 1:
        raise RuntimeError(f"bucketize(): boundaries tensor must be 1 dimension, but got dim({boundaries.array.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


@takes_out
def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Any:
    """Whether each element is among the test elements; either of the two may be a number."""
    like = elements if isinstance(elements, Variable) else test_elements
    xp = module_of(like.array)
    a, b = (x.array if isinstance(x, Variable) else xp.asarray(x) for x in (elements, test_elements))
    return box(xp.asarray(xp.isin(a, b, assume_unique=assume_unique, invert=invert)))


# -- distinct values ---------------------------------------------------------------------------------------------------


def unique(
    input: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The distinct elements in order; optionally where each element went, and how often each occurs.

    Args:
        sorted: accepted; they always are.
        dim: compare the slices of this dimension instead of elements.
    """
    xp = module_of(input.array)
    if dim is None:
        ranked, order = (x.array for x in sort(box(input.array.reshape(-1)), 0))
        shape, axis = input.array.shape, 0
    else:
        axis = one_dim(dim, input.array.ndim)
        rows = _rows(xp, input.array, axis)
        order = xp.lexsort(xp.flip(rows.T, 0)) if rows.size else xp.arange(len(rows))
        ranked, shape = xp.take(input.array, order, axis), (len(rows),)
    values, groups, counts = _runs(xp, ranked, axis)
    inverse = xp.empty(order.shape, xp.int64)
    inverse[order] = groups
    return _chosen(values, inverse.reshape(shape), counts, return_inverse, return_counts)


def unique_consecutive(
    input: Any, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The elements (slices of dim) without those equal to the one before; optionally their places and run lengths."""
    xp = module_of(input.array)
    if dim is None:
        values, inverse, counts = _runs(xp, input.array.reshape(-1), 0)
        inverse = inverse.reshape(input.array.shape)
    else:
        values, inverse, counts = _runs(xp, input.array, one_dim(dim, input.array.ndim))
    return _chosen(values, inverse, counts, return_inverse, return_counts)


def _rows(xp: Any, array: Array, axis: int) -> Array:
    """The slices of a dimension, flattened to the rows of a matrix."""
    length = array.shape[axis]
    return xp.moveaxis(array, axis, 0).reshape(length, array.size // (length or 1))


def _runs(xp: Any, array: Array, axis: int) -> tuple:
    """The first slice of each run of equal ones, the number of the run of each slice, and the lengths of the runs."""
    length = array.shape[axis]
    rows = _rows(xp, array, axis)
    starts = xp.ones(length, bool)
    starts[1:] = (rows[1:] != rows[:-1]).any(1)
    first = xp.nonzero(starts)[0]
    counts = xp.diff(xp.concatenate([first, xp.asarray([length])])) if length else first
    return xp.take(array, first, axis), xp.cumsum(starts) - 1, counts


def _chosen(values: Array, inverse: Array, counts: Array, return_inverse: bool, return_counts: bool) -> Any:
    results = [box(values)]
    if return_inverse:
        results.append(box(inverse.astype(numpy.int64)))
    if return_counts:
        results.append(box(counts.astype(numpy.int64)))
    return results[0] if len(results) == 1 else tuple(results)
