"""Reductions along dimensions, and cumulative operations."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.return_types import return_type
from ...runtime import dtypes
from ...runtime.arrays import Array
from ..kernels import compiled, compiled_vjp, takes
from . import arithmetic as ar
from . import summing
from .cast import accepts_dtype

Dim = int | tuple[int, ...] | None


def as_dims(dim: Any, ndim: int) -> tuple[int, ...]:
    """Dimensions as non-negative numbers; None or () means all of them."""
    if dim is None or dim == () or dim == []:
        return tuple(range(ndim))
    dims = [dim] if isinstance(dim, int) else list(dim)
    span = max(ndim, 1)
    for d in dims:
        if not isinstance(d, int):
            raise TypeError(f"dim must be an int or a tuple of ints, got {d!r}")
        if not -span <= d < span:
            raise IndexError(
                f"Dimension out of range (expected to be in range of [{-span}, {span - 1}], but got {d})"
            )
    normal = tuple(d % span for d in dims)
    if len(set(normal)) != len(normal):
        raise RuntimeError(f"dim {normal[0]} appears multiple times in the list of dims")
    return normal if ndim else ()


def _axes(dim: Any, ndim: int) -> Any:
    """What NumPy takes for dim; with no work in the usual cases."""
    return dim if dim is None or (type(dim) is int and -ndim <= dim < ndim) else as_dims(dim, ndim)


def restore(F: Any, g: Any, shape: tuple, dim: Dim, keepdim: bool) -> Any:
    """A reduced gradient over its input's shape again."""
    if not keepdim and shape and g.shape:
        dims = as_dims(dim, len(shape))
        g = F.reshape(g, tuple(1 if i in dims else n for i, n in enumerate(shape)))
    return F.expand(g, shape)


def _keep(shape: tuple, dim: Dim) -> tuple[int, ...]:
    dims = as_dims(dim, len(shape))
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


@primitive
def sum(xp, input: Array, dim: Dim = None, keepdim: bool = False):
    """The sum of the elements along dim (all dimensions if None); integers are summed as int64."""
    dtype = numpy.int64 if input.dtype.kind in "bui" else None
    return input.sum(_axes(dim, input.ndim), dtype, None, keepdim)


sum.vjp(input=lambda F, g, input_shape, dim, keepdim: restore(F, g, input_shape, dim, keepdim))


@compiled(sum, light=True)
def _sum(input: Array, dim: Dim = None, keepdim: bool = False) -> Any:
    return summing.sum_along(input, as_dims(dim, input.ndim), keepdim)


@primitive
def sum_to_size(xp, input: Array, size: tuple):
    """The sum over the dimensions along which a tensor of that size would be broadcast to the input's shape."""
    dtype = numpy.int64 if input.dtype.kind in "bui" else None
    return input.sum(broadcast_dims(input.shape, size), dtype, keepdims=True).reshape(size)


def broadcast_dims(shape: tuple, size: tuple) -> tuple[int, ...]:
    """The dims of a shape along which an array of a size is repeated to fill it."""
    lead = len(shape) - len(size)
    return tuple(i for i, n in enumerate(shape) if i < lead or (size[i - lead] == 1 and n != 1))


@compiled(sum_to_size, light=True)
def _sum_to_size(input: Array, size: tuple) -> Any:
    total = summing.sum_along(input, broadcast_dims(input.shape, size), True)
    return total if total is NotImplemented else total.reshape(size)


sum_to_size.vjp(input=lambda F, g, input_shape: F.expand(g, input_shape))


@primitive
def mean(xp, input: Array, dim: Dim = None, keepdim: bool = False):
    """The mean of the elements along dim (all dimensions if None)."""
    if input.dtype.kind in "bui":
        raise TypeError(
            "could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: "
            f"{dtypes.of(input.dtype).name}"
        )
    total = input.sum(_axes(dim, input.ndim), None, None, keepdim)
    count = input.size // (total.size or 1)
    return total / count if count else total * math.nan


@compiled(mean, light=True)
def _mean(input: Array, dim: Dim = None, keepdim: bool = False) -> Any:
    total = summing.sum_along(input, as_dims(dim, input.ndim), keepdim)
    return total if total is NotImplemented else total / (input.size // total.size)


def _mean_input(F: Any, g: Any, input_shape: tuple, dim: Dim, keepdim: bool) -> Any:
    count = math.prod(input_shape[d] for d in as_dims(dim, len(input_shape)))
    return restore(F, g * (1 / count if count else math.nan), input_shape, dim, keepdim)


mean.vjp(input=_mean_input)


@primitive
def prod(xp, input: Array, dim: int | None = None, keepdim: bool = False):
    """The product of the elements along dim (all dimensions if None); integers are multiplied as int64."""
    dtype = numpy.int64 if input.dtype.kind in "bui" else None
    return input.prod(_axes(dim, input.ndim), dtype, keepdims=keepdim)


@compiled(prod, light=True, worth=8)
def _prod(input: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    return summing.product_along(input, as_dims(dim, input.ndim), keepdim)


def product_before(F: Any, input: Any, dim: int) -> Any:
    """The product of the elements before each one along dim."""
    n = input.shape[dim]
    if n == 0:
        return input
    ones = F.ones_like(F.narrow(input, dim, 0, 1))
    return F.cumprod(F.cat([ones, F.narrow(input, dim, 0, n - 1)], dim), dim)


def _prod_input(F: Any, g: Any, input: Any, dim: int | None, keepdim: bool) -> Any:
    """The product of all other elements, without dividing: right also where elements are 0."""
    shape = tuple(input.shape)
    if not shape:
        return g
    if dim is None:
        return F.reshape(_prod_input(F, F.reshape(g, ()), F.reshape(input, (-1,)), 0, False), shape)
    after = F.flip(product_before(F, F.flip(input, (dim,)), dim), (dim,))
    return restore(F, g, shape, dim, keepdim) * (product_before(F, input, dim) * after)


prod.vjp(input=_prod_input)


@compiled_vjp(prod, by_gradient=False)
def _prod_fused(xp: Any, g: Array, needs: tuple, input: Array, out: Array, dim: int | None) -> Any:
    if not takes(input, light=True, worth=8):
        return NotImplemented
    found = summing.products_of_others(g, input, out, as_dims(dim, input.ndim))
    return found if found is NotImplemented else (found,)


@primitive
def identity_like(xp, input: Array, length: int, ndim: int, dim: int):
    """A boolean identity matrix over dims (dim, dim + 1), to broadcast over the others; for rules."""
    return xp.eye(length, dtype=bool).reshape((1,) * dim + (length, length) + (1,) * (ndim - dim - 1))


def _extreme(name: str, doc: str) -> Any:
    def body(xp, input: Array, dim: Dim = None, keepdim: bool = False):  # type: ignore[no-untyped-def]
        if input.size == 0 and input.ndim and 0 in [input.shape[d] for d in as_dims(dim, input.ndim)]:
            kind = ValueError if dim is None else IndexError
            raise kind(f"cannot reduce dimension of size 0; the input has shape {list(input.shape)}")
        return getattr(input, name[1:])(_axes(dim, input.ndim), None, keepdim)

    body.__name__, body.__doc__ = name, doc
    function = primitive(body)
    function.vjp(input=_extreme_input)

    @compiled(function, light=True)
    def kernel(input: Array, dim: Dim = None, keepdim: bool = False) -> Any:
        return summing.extreme_along(input, as_dims(dim, input.ndim), keepdim, name == "amin")

    @compiled_vjp(function, light=True)
    def backward(
        xp: Any, g: Array, needs: tuple, input: Array, out: Array, dim: Dim = None, keepdim: bool = False
    ) -> Any:
        found = summing.shares_of_extremes(g, input, out, as_dims(dim, input.ndim))
        return found if found is NotImplemented else (found,)

    return function


def _extreme_input(F: Any, g: Any, input: Any, out: Any, dim: Dim, keepdim: bool) -> Any:
    """Elements equal to the extreme share the gradient evenly."""
    shape = tuple(input.shape)
    kept = _keep(shape, dim)
    hits = F.where(F.eq(input, F.reshape(out, kept)), F.ones_like(input), 0.0)
    return hits * (F.reshape(g, kept) / F.sum(hits, dim, True))


amax = _extreme("amax", "The largest element along dim (all dimensions if None).")
amin = _extreme("amin", "The smallest element along dim (all dimensions if None).")


def _arg_extreme(name: str, doc: str) -> Any:
    def body(xp, input: Array, dim: int | None = None, keepdim: bool = False):  # type: ignore[no-untyped-def]
        if input.size == 0 and (dim is None or not input.shape[dim]):
            raise IndexError(f"expected a reduction dim with elements, not shape {list(input.shape)}")
        if not input.ndim:
            as_dims(dim, 0)
            dim = None
        index = getattr(input, name)(_axes(dim, input.ndim))
        if keepdim:
            index = index.reshape((1,) * input.ndim) if dim is None else xp.expand_dims(index, dim)
        return xp.asarray(index, xp.int64)

    body.__name__, body.__doc__ = name, doc
    function = primitive(body)

    @compiled(function, light=True)
    def kernel(input: Array, dim: int | None = None, keepdim: bool = False) -> Any:
        if dim is None or not input.ndim:
            return NotImplemented
        (dim,) = as_dims(dim, input.ndim)
        index = summing.extreme_places(input, dim, name == "argmin")
        return numpy.expand_dims(index, dim) if keepdim and index is not NotImplemented else index

    return function


argmax = _arg_extreme("argmax", "The index of the largest element along dim (of the flattened input if None).")
argmin = _arg_extreme("argmin", "The index of the smallest element along dim (of the flattened input if None).")


def _truth(name: str, doc: str) -> Any:
    def body(xp, input: Array, dim: Dim = None, keepdim: bool = False):  # type: ignore[no-untyped-def]
        found = getattr(input, name)(_axes(dim, input.ndim), keepdims=keepdim)
        return found.astype(input.dtype) if input.dtype == numpy.uint8 else found  # PyTorch's old boolean type

    body.__name__, body.__doc__ = name, doc
    return primitive(body)


all = _truth("all", "Whether all elements along dim are nonzero.")
any = _truth("any", "Whether any element along dim is nonzero.")


@primitive(promote="float")
def logsumexp(xp, input: Array, dim: Dim, keepdim: bool = False):
    """log(sum(exp(input))) along dim, without overflow."""
    dims = as_dims(dim, input.ndim)
    top = input.real.max(dims, keepdims=True) if input.size else xp.zeros((), input.dtype)
    top = xp.where(xp.isfinite(top), top, 0).astype(input.dtype, copy=False)  # CuPy makes bfloat16 float32
    out = xp.log(xp.exp(input - top).sum(dims, keepdims=True)) + top
    return out if keepdim else xp.squeeze(out, dims)


@compiled(logsumexp, work=8, light=True)
def _logsumexp(input: Array, dim: Dim, keepdim: bool = False) -> Any:
    return summing.log_total_along(input, as_dims(dim, input.ndim), keepdim)


logsumexp.vjp(
    input=lambda F, g, input, out, dim, keepdim: restore(F, g, tuple(input.shape), dim, keepdim)
    * F.exp(input - restore(F, out, tuple(input.shape), dim, keepdim))
)


@compiled_vjp(logsumexp, by_gradient=False)
def _logsumexp_fused(xp: Any, g: Array, needs: tuple, input: Array, out: Array, dim: Dim) -> Any:
    if not takes(input, 8, light=True):
        return NotImplemented
    found = summing.weights_in_log_total(g, input, out, as_dims(dim, input.ndim))
    return found if found is NotImplemented else (found,)


# -- made of the above -------------------------------------------------------------------------------------------------

sum_as = accepts_dtype(sum)
mean_as = accepts_dtype(mean)
prod_as = accepts_dtype(prod)


@accepts_dtype
@takes_out
def nansum(input: Any, dim: Dim = None, keepdim: bool = False) -> Any:
    """The sum along dim of the elements that are not nan.

    Example:
        >>> import paceline as torch
        >>> torch.nansum(torch.tensor([1.0, float("nan"), 2.0]))
        tensor(3.)
    """
    return sum(_without_nan(input), dim, keepdim)


@accepts_dtype
@takes_out
def nanmean(input: Any, dim: Dim = None, keepdim: bool = False) -> Any:
    """The mean along dim of the elements that are not nan."""
    counts = sum(ar.eq(input, input), dim, keepdim)
    return ar.true_divide(nansum(input, dim, keepdim), counts)


def _without_nan(input: Any) -> Any:
    return ar.where(ar.eq(input, input), input, 0) if input.array.dtype.kind in "fcV" else input


def count_nonzero(input: Any, dim: Dim = None) -> Any:
    """The number of elements along dim that are not 0."""
    return sum(ar.ne(input, 0), dim)


_Extremes = return_type("aminmax", "min", "max")


@takes_out
def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest and the largest element, of all or along dim."""
    return _Extremes(amin(input, dim, keepdim), amax(input, dim, keepdim))


@primitive
def euclidean(xp, input: Array, dim: Dim = None, keepdim: bool = False):
    """sqrt(sum(input**2)) along dim; its gradient at 0 is 0."""
    return xp.sqrt((input * input).sum(as_dims(dim, input.ndim), keepdims=keepdim))


@compiled(euclidean, light=True)
def _euclidean(input: Array, dim: Dim = None, keepdim: bool = False) -> Any:
    total = summing.sum_along(input, as_dims(dim, input.ndim), keepdim, summing.SQUARE)
    return total if total is NotImplemented else numpy.sqrt(total)


def _euclidean_input(F: Any, g: Any, input: Any, out: Any, dim: Dim, keepdim: bool) -> Any:
    shape = tuple(input.shape)
    safe = F.where(F.eq(out, 0), F.ones_like(out), out)
    return input * restore(F, g / safe, shape, dim, keepdim)


euclidean.vjp(input=_euclidean_input)
