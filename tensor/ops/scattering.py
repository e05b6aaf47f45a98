"""Writing to places that index tensors name: scatter, index_add and their kin, and the reductions among them."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.variable import Variable, box
from ...runtime import dtypes
from ...runtime.arrays import Array, module_of
from ..kernels import compiled
from . import arithmetic as ar
from . import cast, indexing, placing, shaping
from .indexing import along, check_fits, check_index
from .shaping import one_dim

# -- primitives: a copy of the input with src written or reduced at the places that gather_along reads -----------------


def _corner(array: Array, shape: tuple) -> Array:
    """The part of a source that an index of that shape pairs with; a number is its own part."""
    return array[tuple(map(slice, shape))] if getattr(array, "shape", shape) != shape else array


def _to_source(F: Any, g: Any, src_shape: tuple, index: Any) -> Any:
    """A gradient of the paired part of a source as one of the whole source."""
    return F.embed_slice(g, src_shape, tuple(map(slice, index.shape))) if tuple(index.shape) != tuple(src_shape) else g


@primitive
def scatter_write(xp, input: Array, src: Array, index: Array, dim: int):
    """A copy of the input with src written at the places that gather_along reads."""
    out = input.copy()
    out[along(xp, index, dim)] = _corner(src, index.shape)
    return out


@compiled(scatter_write, placing.WORK, sized_by=2, light=True)
def _scatter_write(input: Array, src: Array, index: Array, dim: int) -> Any:
    return placing.scatter(input.copy(), src, index, dim, False)


scatter_write.vjp(
    input=lambda F, g, index, dim: F.scatter_write(g, 0.0, index, dim),
    src=lambda F, g, src_shape, index, dim: _to_source(F, F.gather_along(g, index, dim), src_shape, index),
)


@primitive
def scatter_sum(xp, input: Array, src: Array, index: Array, dim: int):
    """A copy of the input with src added at the places that gather_along reads."""
    return placing.add_along(xp, input.copy(), index, _corner(src, index.shape), dim)


@compiled(scatter_sum, placing.WORK, sized_by=2, light=True)
def _scatter_sum(input: Array, src: Array, index: Array, dim: int) -> Any:
    return placing.scatter(input.copy(), src, index, dim, True)


scatter_sum.vjp(
    input=lambda F, g: g,
    src=lambda F, g, src_shape, index, dim: _to_source(F, F.gather_along(g, index, dim), src_shape, index),
)


def _combined(xp: Any, function: Any, input: Array, src: Array, index: Array, dim: int) -> Array:
    """A copy of the input with every place combined with the elements of src that go there.

    By sorting and doubling steps within the runs of one place: CuPy has no atomic product, and the order is always the
    same.
    """
    places = xp.arange(input.size).reshape(input.shape)[along(xp, index, dim)].reshape(-1)
    order = xp.argsort(places, kind="stable")
    places, values = places[order], _corner(src, index.shape).reshape(-1)[order]
    step = 1
    while step < len(places):
        same = places[step:] == places[:-step]
        if not same.any():
            break
        values[step:] = xp.where(same, function(values[step:], values[:-step]), values[step:])
        step *= 2
    last = xp.ones(len(places), bool)
    last[:-1] = places[1:] != places[:-1]
    out = input.copy().reshape(-1)
    out[places[last]] = function(out[places[last]], values[last])
    return out.reshape(input.shape)


@primitive
def scatter_product(xp, input: Array, src: Array, index: Array, dim: int):
    """A copy of the input multiplied by src at the places that gather_along reads."""
    return _combined(xp, xp.multiply, input, src, index, dim)


def _is_zero(F: Any, x: Any) -> Any:
    return F.where(F.eq(x, 0), F.ones_like(x), F.zeros_like(x))


def _nonzero(F: Any, x: Any) -> Any:
    return F.where(F.eq(x, 0), F.ones_like(x), x)


def _others(F: Any, x: Any, product: Any, zeros: Any) -> Any:
    """The product of all other factors, from that of the factors that are not 0 and the number of those that are."""
    none = F.zeros_like(product)
    if_zero = F.where(F.eq(zeros, 1), product, none)
    return F.where(F.eq(x, 0), if_zero, F.where(F.eq(zeros, 0), product / _nonzero(F, x), none))


@scatter_product.joint_vjp
def _scatter_product(F: Any, g: Any, needs: tuple, input: Any, src: Any, index: Any, dim: int) -> tuple:
    product = F.scatter_product(_nonzero(F, input), _nonzero(F, src), index, dim)
    zeros = F.scatter_sum(_is_zero(F, input), _is_zero(F, src), index, dim)
    to_src = None
    if needs[1]:
        part = F.slice_view(src, tuple(map(slice, index.shape)))
        others = _others(F, part, F.gather_along(product, index, dim), F.gather_along(zeros, index, dim))
        to_src = _to_source(F, F.gather_along(g, index, dim) * others, tuple(src.shape), index)
    return g * _others(F, input, product, zeros) if needs[0] else None, to_src, None


@primitive
def scatter_extreme(xp, input: Array, src: Array, index: Array, dim: int, largest: bool):
    """A copy of the input with the larger (smaller) of itself and src at the places that gather_along reads."""
    return _combined(xp, xp.maximum if largest else xp.minimum, input, src, index, dim)


@scatter_extreme.joint_vjp
def _scatter_extreme(F: Any, g: Any, needs: tuple, input: Any, src: Any, index: Any, dim: int, out: Any) -> tuple:
    """Candidates equal to the extreme share the gradient evenly."""
    part = F.slice_view(src, tuple(map(slice, index.shape)))
    own = F.eq(input, out) * F.ones_like(out)
    theirs = F.eq(part, F.gather_along(out, index, dim)) * F.ones_like(part)
    share = g / F.scatter_sum(own, theirs, index, dim)
    to_src = _to_source(F, F.gather_along(share, index, dim) * theirs, tuple(src.shape), index) if needs[1] else None
    return share * own, to_src, None


# -- scatter -----------------------------------------------------------------------------------------------------------


def _vector(x: Any) -> Any:
    """A 0-d tensor as a vector of one element, which is what PyTorch indexes it as."""
    return shaping.reshape(x, (1,)) if isinstance(x, Variable) and x.array.ndim == 0 else x


def _prepared(input: Any, dim: int, index: Any, src: Any, function: str, by_kernel: bool = False) -> tuple:
    """The arguments of a scatter, checked; 0-d tensors made vectors, numbers tensors.

    Args:
        by_kernel: whether those of placing.scatter may look for indices that are out of range.
    """
    dim = one_dim(dim, input.array.ndim)
    by_kernel = by_kernel and isinstance(index, Variable) and isinstance(src, Variable)
    looked_at = by_kernel and placing.is_looked_at(input.array, index.array, dim, src.array)
    check_index(index, input.array.shape[dim] if input.array.ndim else 1, function, dim, sized=not looked_at)
    input, index = _vector(input), _vector(index)
    if isinstance(src, Variable):
        if src.array.dtype != input.array.dtype:
            raise RuntimeError(
                f"{function}(): Expected self.dtype to be equal to src.dtype, got {input.dtype!r} and {src.dtype!r}"
            )
        src = _vector(src)
        if index.array.size:
            check_fits(index.array.shape, src.array.shape, -1, function, "src")
    else:
        xp = module_of(input.array)
        src = box(xp.broadcast_to(xp.asarray(src, input.array.dtype), index.array.shape))
    if index.array.size:
        check_fits(index.array.shape, input.array.shape, dim, function, "self")
    return input, src, index, dim


@takes_out
def scatter(input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Any:
    """A copy of the input with elements of src (or one number) written along dim at the given indices.

    For dim 0 of a matrix: out[index[i][j]][j] = src[i][j].

    Args:
        index: integers; no larger than src in any dimension, nor than the input in the dimensions other than dim.
        src: a tensor of the input's dtype, or a number (also called value).
        reduce: None to write, "add" or "multiply" to combine with what is there.

    Example:
        >>> import paceline as torch
        >>> torch.zeros(2, 2).scatter(1, torch.tensor([[1], [0]]), 5.0)
        tensor([[0., 5.],
                [5., 0.]])
    """
    functions = {None: scatter_write, "add": scatter_sum, "multiply": scatter_product}
    if reduce not in functions:
        raise RuntimeError(f"scatter(): reduce argument must be either add or multiply, got {reduce!r}")
    shape = input.array.shape
    input, src, index, dim = _prepared(
        input, dim, index, value if src is None else src, "scatter", by_kernel=reduce != "multiply"
    )
    return shaping.reshape(functions[reduce](input, src, index, dim) if index.array.size else input.clone(), shape)


@takes_out
def scatter_add(input: Any, dim: int, index: Any, src: Any) -> Any:
    """A copy of the input with elements of src added along dim at the given indices; see `scatter`."""
    shape = input.array.shape
    input, src, index, dim = _prepared(input, dim, index, src, "scatter_add", by_kernel=True)
    return shaping.reshape(scatter_sum(input, src, index, dim) if index.array.size else input.clone(), shape)


_REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


@takes_out
def scatter_reduce(input: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Any:
    """A copy of the input with elements of src reduced into it along dim at the given indices.

    Args:
        index, src: as for `scatter`.
        reduce: "sum", "prod", "mean", "amax" or "amin".
        include_self: whether the input's own elements take part in the places that are written to.

    Example:
        >>> import paceline as torch
        >>> torch.tensor([1.0, 2.0]).scatter_reduce(0, torch.tensor([0, 0]), torch.tensor([3.0, 8.0]), "mean")
        tensor([4., 2.])
    """
    if reduce not in _REDUCTIONS:
        raise RuntimeError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce!r}")
    shape = input.array.shape
    input, src, index, dim = _prepared(input, dim, index, src, "scatter_reduce")
    if not index.array.size:
        return shaping.reshape(input.clone(), shape)
    if not include_self:
        start = _identity(reduce, input.array.dtype)
        input = scatter_write(input, start, index, dim)
    if reduce == "prod":
        out = scatter_product(input, src, index, dim)
    elif reduce in ("amax", "amin"):
        out = scatter_extreme(input, src, index, dim, reduce == "amax")
    else:
        out = scatter_sum(input, src, index, dim)
        if reduce == "mean":
            counts = _counts(input, index, dim, include_self)
            out = ar.true_divide(out, counts) if out.array.dtype.kind in "fcV" else ar.floor_divide(out, counts)
    return shaping.reshape(out, shape)


def _identity(reduce: str, dtype: numpy.dtype) -> Any:
    """What leaves every number as it is under a reduction."""
    if reduce not in ("amax", "amin"):
        return 1 if reduce == "prod" else 0
    if dtype.kind == "b":
        return reduce == "amin"
    if dtype.kind in "iu":
        limits = numpy.iinfo(dtype)
        return limits.min if reduce == "amax" else limits.max
    return -math.inf if reduce == "amax" else math.inf


def _counts(input: Any, index: Any, dim: int, include_self: bool) -> Any:
    """How many elements a mean is over in each place; 1 where nothing was written."""
    ones = box(module_of(input.array).ones(index.array.shape, input.array.dtype))
    counts = box(module_of(input.array).ones(input.array.shape, input.array.dtype))
    if not include_self:
        counts = scatter_write(counts, 0, index, dim)
    return scatter_sum(counts, ones, index, dim)


# -- by a vector of indices along one dimension ------------------------------------------------------------------------


def _rows(input: Any, dim: int, index: Any, source: Any, function: str) -> tuple:
    """The arguments of an index_* operation, checked; 0-d tensors made vectors."""
    dim = one_dim(dim, input.array.ndim)
    size = input.array.shape[dim] if input.array.ndim else 1
    if isinstance(index, Variable) and index.array.ndim > 1:
        raise IndexError(f"{function}(): Index should have dimension 1 or 0 (got {index.array.ndim})")
    check_index(index, size, function, dim, IndexError)
    input, index, source = _vector(input), _vector(index), _vector(source)
    if isinstance(source, Variable):
        if source.array.dtype != input.array.dtype:
            raise RuntimeError(
                f"{function}(): self and source expected to have the same dtype, but got (self) {input.dtype!r} and "
                f"(source) {source.dtype!r}"
            )
        expected = (*input.array.shape[:dim], index.array.size, *input.array.shape[dim + 1 :])
        if source.array.shape != expected:
            raise IndexError(
                f"{function}(): Number of indices ({index.array.size}) should be equal to source.size(dim): source has "
                f"shape {list(source.array.shape)}, expected {list(expected)}"
            )
    return input, index, source, dim


@takes_out
def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Any:
    """A copy of the input with alpha times the slices of source added where a vector of indices says."""
    shape = input.array.shape
    input, index, source, dim = _rows(input, dim, index, source, "index_add")
    added = indexing.index_add_zeros(source, index, input.array.shape, dim)
    return shaping.reshape(ar.add(input, added if alpha == 1 else ar.mul(added, alpha)), shape)


@takes_out
def index_copy(input: Any, dim: int, index: Any, source: Any) -> Any:
    """A copy of the input with the slices of source written where a vector of indices says."""
    shape = input.array.shape
    input, index, source, dim = _rows(input, dim, index, source, "index_copy")
    return shaping.reshape(indexing.index_put(input, source, (slice(None),) * dim + (index.array,)), shape)


def index_fill(input: Any, dim: int, index: Any, value: Any) -> Any:
    """A copy of the input with one value in the slices that a vector of indices names."""
    if isinstance(value, Variable) and value.array.ndim:
        raise RuntimeError(
            f"index_fill() only supports a 0-dimensional value tensor, got {value.array.ndim} dimensions"
        )
    dim = one_dim(dim, input.array.ndim)
    size = input.array.shape[dim] if input.array.ndim else 1
    check_index(index, size, "index_fill", dim, IndexError, sized=False)
    indexing.check_range(index.array, size, f"dimension {dim}", IndexError)  # negative indices are allowed here alone
    xp = module_of(input.array)
    named = xp.zeros(size, bool)
    named[index.array] = True
    mask = named.reshape((-1,) + (1,) * (input.array.ndim - dim - 1)) if input.array.ndim else named[0]
    return indexing.masked_fill(input, box(xp.asarray(mask)), value)


@takes_out
def index_reduce(input: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True) -> Any:
    """A copy of the input with the slices of source reduced into those that a vector of indices names.

    Args:
        reduce: "prod", "mean", "amax" or "amin".
        include_self: whether the input's own slices take part.
    """
    if reduce not in _REDUCTIONS[1:]:
        raise RuntimeError(f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}.")
    shape = input.array.shape
    input, index, source, dim = _rows(input, dim, index, source, "index_reduce")
    column = (-1,) + (1,) * (source.array.ndim - dim - 1)
    places = shaping.expand(shaping.reshape(index, column), source.array.shape)
    return shaping.reshape(scatter_reduce(input, dim, places, source, reduce, include_self=include_self), shape)


# -- other places ------------------------------------------------------------------------------------------------------


def put(input: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    """A copy of the input with the elements of source written (or added) at indices into the flattened input."""
    check_index(index, 0, "put", 0, sized=False)
    if index.array.size != source.array.size:
        raise IndexError(
            "put_(): Expected source and index to have the same number of elements, but got source.numel() = "
            f"{source.array.size}, index.numel() = {index.array.size}"
        )
    if source.array.dtype != input.array.dtype:
        raise RuntimeError(
            f"put_(): self and source expected to have the same dtype, got {input.dtype!r} and {source.dtype!r}"
        )
    indexing.check_range(index.array, input.array.size, "the flattened tensor", IndexError)
    values = shaping.reshape(source, (-1,))
    out = indexing.index_put(shaping.reshape(input, (-1,)), values, (index.array.reshape(-1),), accumulate)
    return shaping.reshape(out, input.array.shape)


def masked_scatter(input: Any, mask: Any, source: Any) -> Any:
    """A copy of the input with the elements of source written, in order, where a boolean mask holds.

    Example:
        >>> import paceline as torch
        >>> torch.zeros(3).masked_scatter(torch.tensor([True, False, True]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([1., 0., 2.])
    """
    if mask.array.dtype.kind != "b":
        raise RuntimeError(f"masked_scatter_ only supports boolean masks, but got mask with dtype {mask.dtype!r}")
    if source.array.dtype != input.array.dtype:
        raise RuntimeError(
            f"masked_scatter: expected self and source to have same dtypes but got {input.dtype!r} and {source.dtype!r}"
        )
    shape = numpy.broadcast_shapes(input.array.shape, mask.array.shape)
    input, mask = shaping.expand(input, shape), shaping.expand(mask, shape)
    count = int(mask.array.sum())
    if count > source.array.size:
        raise RuntimeError(f"masked_scatter: source has {source.array.size} elements, the mask asks for {count}")
    return indexing.index_put(input, shaping.narrow(shaping.reshape(source, (-1,)), 0, 0, count), (mask.array,))


def _replace(input: Any, src: Any, index: tuple) -> Any:
    """A copy of the input with src, of exactly the right shape, at an index."""
    if input.array[index].shape != src.array.shape:
        raise RuntimeError(
            "expected src to have a size equal to the slice of self. "
            f"src size = {list(src.array.shape)}, slice size = {list(input.array[index].shape)}"
        )
    return indexing.index_put(input, cast.to_dtype(src, dtypes.of(input.array.dtype)), index)


def select_scatter(input: Any, src: Any, dim: int, index: int) -> Any:
    """A copy of the input with src in the place of one slice of a dimension."""
    dim = one_dim(dim, input.array.ndim)
    if not -input.array.shape[dim] <= index < input.array.shape[dim]:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {input.array.shape[dim]}")
    return _replace(input, src, (slice(None),) * dim + (index, ...))


@takes_out
def slice_scatter(
    input: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    """A copy of the input with src in the place of the slices start, start + step, ... below end of a dimension."""
    dim = one_dim(dim, input.array.ndim)
    return _replace(input, src, (slice(None),) * dim + (slice(start, end, step),))


def diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """A copy of the input with src on a diagonal of two dimensions."""
    dims = (one_dim(dim1, input.array.ndim), one_dim(dim2, input.array.ndim))
    rows, columns = (input.array.shape[d] for d in dims)
    i = module_of(input.array).arange(max(0, min(rows + min(offset, 0), columns - max(offset, 0))))
    place = (..., i - min(offset, 0), i + max(offset, 0))
    return shaping.movedim(_replace(shaping.movedim(input, dims, (-2, -1)), src, place), (-2, -1), dims)
