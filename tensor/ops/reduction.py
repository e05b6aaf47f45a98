"""Reductions along dimensions, and cumulative operations."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime import dtypes
from ...runtime.arrays import Array
from . import arithmetic as ar
from . import pointwise as pw

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


def _restore(F: Any, g: Any, shape: tuple, dim: Dim, keepdim: bool) -> Any:
    """A reduced gradient over its input's shape again."""
    if not keepdim and shape:
        dims = as_dims(dim, len(shape))
        g = F.reshape(g, tuple(1 if i in dims else n for i, n in enumerate(shape)))
    return F.expand(g, shape)


def _keep(shape: tuple, dim: Dim) -> tuple[int, ...]:
    dims = as_dims(dim, len(shape))
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


@primitive
def sum(xp, input: Array, dim: Dim = None, keepdim: bool = False, dtype: dtypes.dtype | None = None):
    """The sum of the elements along dim (all dimensions if None); integers are summed as int64."""
    if dtype is None and input.dtype.kind in "bui":
        dtype = dtypes.int64
    return input.sum(as_dims(dim, input.ndim), None if dtype is None else dtype.numpy, keepdims=keepdim)


sum.vjp(input=lambda F, g, input_shape, dim, keepdim: _restore(F, g, input_shape, dim, keepdim))


@primitive
def sum_to_size(xp, input: Array, size: tuple):
    """The sum over the dimensions along which a tensor of that size would be broadcast to the input's shape."""
    lead = input.ndim - len(size)
    dims = tuple(i for i in range(input.ndim) if i < lead or (size[i - lead] == 1 and input.shape[i] != 1))
    dtype = numpy.int64 if input.dtype.kind in "bui" else None
    return input.sum(dims, dtype, keepdims=True).reshape(size)


sum_to_size.vjp(input=lambda F, g, input_shape: F.expand(g, input_shape))


@primitive
def mean(xp, input: Array, dim: Dim = None, keepdim: bool = False, dtype: dtypes.dtype | None = None):
    """The mean of the elements along dim (all dimensions if None)."""
    if dtype is not None:
        input = input.astype(dtype.numpy, copy=False)
    elif input.dtype.kind in "bui":
        name = dtypes.of(input.dtype).name
        raise TypeError(f"could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: {name}")
    dims = as_dims(dim, input.ndim)
    count = math.prod(input.shape[d] for d in dims)
    total = input.sum(dims, keepdims=keepdim)
    return total / count if count else total * math.nan


def _mean_input(F: Any, g: Any, input_shape: tuple, dim: Dim, keepdim: bool) -> Any:
    count = math.prod(input_shape[d] for d in as_dims(dim, len(input_shape)))
    return _restore(F, g * (1 / count if count else math.nan), input_shape, dim, keepdim)


mean.vjp(input=_mean_input)


@primitive
def prod(xp, input: Array, dim: int | None = None, keepdim: bool = False, dtype: dtypes.dtype | None = None):
    """The product of the elements along dim (all dimensions if None); integers are multiplied as int64."""
    if dtype is None and input.dtype.kind in "bui":
        dtype = dtypes.int64
    return input.prod(as_dims(dim, input.ndim), None if dtype is None else dtype.numpy, keepdims=keepdim)


def _prod_input(F: Any, g: Any, input: Any, dim: int | None, keepdim: bool) -> Any:
    """The product of all other elements, without dividing: right also where elements are 0."""
    shape = tuple(input.shape)
    if not shape:
        return g
    if dim is None:
        return F.reshape(_prod_input(F, g, F.reshape(input, (-1,)), 0, False), shape)
    length = shape[dim]
    spread = F.expand(F.reshape(input, _with_axis(shape, dim)), _with_axis(shape, dim, length))
    eye = F.identity_like(input, length, len(shape), dim % len(shape))
    others = F.prod(F.where(eye, F.ones_like(spread), spread), dim % len(shape) + 1)
    return _restore(F, g, shape, dim, keepdim) * others


def _with_axis(shape: tuple, dim: int, length: int = 1) -> tuple:
    d = dim % len(shape)
    return (*shape[:d], length, *shape[d:])


prod.vjp(input=_prod_input)


@primitive
def identity_like(xp, input: Array, length: int, ndim: int, dim: int):
    """A boolean identity matrix over dims (dim, dim + 1), to broadcast over the others; for rules."""
    return xp.eye(length, dtype=bool).reshape((1,) * dim + (length, length) + (1,) * (ndim - dim - 1))


def _extreme(name: str, doc: str) -> Any:
    def body(xp, input: Array, dim: Dim = None, keepdim: bool = False):  # type: ignore[no-untyped-def]
        if input.size == 0 and input.ndim and not all(input.shape[d] for d in as_dims(dim, input.ndim)):
            raise IndexError(f"{name}(): cannot reduce dimension of size 0; the input has shape {list(input.shape)}")
        return getattr(input, name[1:])(as_dims(dim, input.ndim), keepdims=keepdim)

    body.__name__, body.__doc__ = name, doc
    function = primitive(body)
    function.vjp(input=_extreme_input)
    return function


def _extreme_input(F: Any, g: Any, input: Any, out: Any, dim: Dim, keepdim: bool) -> Any:
    """Elements equal to the extreme share the gradient evenly."""
    shape = tuple(input.shape)
    hits = F.eq(input, _restore(F, out, shape, dim, keepdim))
    hits = F.add(hits, F.zeros_like(F.expand(F.reshape(g, _keep(shape, dim)), shape)))
    return hits * _restore(F, g, shape, dim, keepdim) / F.sum(hits, as_dims(dim, len(shape)) or None, True)


amax = _extreme("amax", "The largest element along dim (all dimensions if None).")
amin = _extreme("amin", "The smallest element along dim (all dimensions if None).")


def _arg_extreme(name: str, doc: str) -> Any:
    def body(xp, input: Array, dim: int | None = None, keepdim: bool = False):  # type: ignore[no-untyped-def]
        if input.size == 0:
            raise IndexError(f"{name}(): expected a reduction dim with elements; the input has shape {list(input.shape)}")
        if dim is not None:
            (dim,) = as_dims(dim, input.ndim) or (None,)
        index = getattr(xp, name)(input, dim)
        if keepdim:
            index = index.reshape((1,) * input.ndim) if dim is None else xp.expand_dims(index, dim)
        return xp.asarray(index, xp.int64)

    body.__name__, body.__doc__ = name, doc
    return primitive(body)


argmax = _arg_extreme("argmax", "The index of the largest element along dim (of the flattened input if None).")
argmin = _arg_extreme("argmin", "The index of the smallest element along dim (of the flattened input if None).")


@primitive
def all(xp, input: Array, dim: Dim = None, keepdim: bool = False):
    """Whether all elements along dim are nonzero."""
    return xp.all(input, as_dims(dim, input.ndim), keepdims=keepdim)


@primitive
def any(xp, input: Array, dim: Dim = None, keepdim: bool = False):
    """Whether any element along dim is nonzero."""
    return xp.any(input, as_dims(dim, input.ndim), keepdims=keepdim)


@primitive(promote="float")
def logsumexp(xp, input: Array, dim: Dim, keepdim: bool = False):
    """log(sum(exp(input))) along dim, without overflow."""
    dims = as_dims(dim, input.ndim)
    top = input.max(dims, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0)
    out = xp.log(xp.exp(input - top).sum(dims, keepdims=True)) + top
    return out if keepdim else xp.squeeze(out, dims)


logsumexp.vjp(
    input=lambda F, g, input, out, dim, keepdim: _restore(F, g, tuple(input.shape), dim, keepdim)
    * F.exp(input - _restore(F, out, tuple(input.shape), dim, keepdim))
)


@primitive
def cumsum(xp, input: Array, dim: int, dtype: dtypes.dtype | None = None):
    """The running sum along dim."""
    if dtype is None and input.dtype.kind in "bui":
        dtype = dtypes.int64
    (axis,) = as_dims(dim, input.ndim) or (None,)
    return xp.cumsum(input, axis, None if dtype is None else dtype.numpy).reshape(input.shape)


cumsum.vjp(input=lambda F, g, dim: F.flip(F.cumsum(F.flip(g, (dim,)), dim), (dim,)))


# -- made of the above ---------------------------------------------------------------------------------------------------


def var(input: Any, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None) -> Any:
    """The variance along dim: the sum of squared deviations over n - correction (1 if unbiased, else 0).

    Example:
        >>> import paceline as torch
        >>> torch.var(torch.tensor([1.0, 2.0, 3.0]))
        tensor(1.)
    """
    if isinstance(dim, bool):  # torch.var(x, False)
        dim, unbiased = None, dim
    deviation = ar.sub(input, mean(input, dim, True))
    count = math.prod(input.shape[d] for d in as_dims(dim, input.ndim))
    freedom = count - (correction if correction is not None else 1 if unbiased else 0)
    return ar.true_divide(sum(pw.square(deviation), dim, keepdim), float(freedom) if freedom > 0 else 0.0)


def std(input: Any, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None) -> Any:
    """The standard deviation along dim: the square root of `var`."""
    return pw.sqrt(var(input, dim, unbiased, keepdim, correction=correction))


def norm(input: Any, p: float | str = "fro", dim: Dim = None, keepdim: bool = False) -> Any:
    """The p-norm along dim: sum(|input|**p)**(1/p); p may be inf, and "fro" means 2.

    Example:
        >>> import paceline as torch
        >>> torch.norm(torch.tensor([3.0, 4.0]))
        tensor(5.)
    """
    p = 2.0 if p == "fro" else p
    if not isinstance(p, int | float):
        raise RuntimeError(f"norm(): expected p to be a number, inf or 'fro', got {p!r}")
    if p == math.inf:
        return amax(pw.abs(input), dim, keepdim)
    if p == -math.inf:
        return amin(pw.abs(input), dim, keepdim)
    if p == 0:
        return sum(ar.ne(input, 0), dim, keepdim, dtypes.of(input.array.dtype))
    if p == 1:
        return sum(pw.abs(input), dim, keepdim)
    if p == 2:
        return euclidean(input, dim, keepdim)
    return ar.pow(sum(ar.pow(pw.abs(input), p), dim, keepdim), 1 / p)


@primitive
def euclidean(xp, input: Array, dim: Dim = None, keepdim: bool = False):
    """sqrt(sum(input**2)) along dim; its gradient at 0 is 0."""
    return xp.sqrt((input * input).sum(as_dims(dim, input.ndim), keepdims=keepdim))


def _euclidean_input(F: Any, g: Any, input: Any, out: Any, dim: Dim, keepdim: bool) -> Any:
    shape = tuple(input.shape)
    safe = F.where(F.eq(out, 0), F.ones_like(out), out)
    return input * _restore(F, g / safe, shape, dim, keepdim)


euclidean.vjp(input=_euclidean_input)
