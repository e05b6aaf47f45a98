"""Running sums, products and extremes along a dimension, and differences and integrals made of neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.variable import Variable, box
from ...runtime import dtypes
from ...runtime.arrays import Array, module_of
from ..kernels import compiled, sources
from . import arithmetic as ar
from . import placing, reduction, shaping
from .cast import accepts_dtype
from .shaping import one_dim


def scan(xp: Any, function: Callable, array: Array, axis: int) -> Array:
    """The running result of an associative function along an axis, by doubling: in step k over 2**k elements.

    Only some of CuPy's functions have `accumulate`.
    """
    out = xp.moveaxis(array.copy(), axis, 0)
    step = 1
    while step < len(out):
        out[step:] = function(out[step:], out[:-step])  # the right side is computed before it is written
        step *= 2
    return xp.moveaxis(out, 0, axis)


_BLOCK = 64  # columns that a thread computes at a time


def _scan(kernel: Callable, input: Array, dim: int, *arguments: Any) -> Any:
    """What a compiled kernel of kernels/scans.py computes along dim, or NotImplemented."""
    if not (input.size and input.ndim):
        return NotImplemented
    out = numpy.empty(input.shape, input.dtype)
    kernel(placing.middle(input, dim), *arguments, _BLOCK, placing.middle(out, dim))
    return out


@primitive
def cumsum(xp, input: Array, dim: int):
    """The running sum along dim; integers are summed as int64."""
    if input.dtype.kind == "V":  # CuPy has no running sum of bfloat16
        return cumsum.declaration.body(xp, input.astype(xp.float32), dim).astype(input.dtype)
    dtype = xp.int64 if input.dtype.kind in "bui" else None
    return xp.cumsum(input, one_dim(dim, input.ndim) if input.ndim else None, dtype).reshape(input.shape)


@compiled(cumsum, work=4, light=True, worth=4)
def _cumsum(input: Array, dim: int) -> Any:
    return _scan(sources.scans.sums, input, one_dim(dim, input.ndim), False)


@primitive
def reversed_cumsum(xp, input: Array, dim: int):
    """The running sum along dim that begins at its end."""
    if not input.ndim:
        return input.copy()
    return xp.flip(cumsum.declaration.body(xp, xp.flip(input, dim), dim), dim).copy()


@compiled(reversed_cumsum, work=4, light=True, worth=4)
def _reversed_cumsum(input: Array, dim: int) -> Any:
    return _scan(sources.scans.sums, input, one_dim(dim, input.ndim), True)


cumsum.vjp(input=lambda F, g, dim: F.reversed_cumsum(g, dim))
reversed_cumsum.vjp(input=lambda F, g, dim: F.cumsum(g, dim))


@primitive
def linear_recurrence(xp, input: Array, factor: Array, dim: int, backwards: bool):
    """out[i] = input[i] + factor[i] * out[i - 1] along dim; or backwards, input[i] + factor[i + 1] * out[i + 1].

    The first factor belongs to no pair of neighbours, and has no effect.
    """
    if input.dtype.kind == "V":  # as running sums
        single = linear_recurrence.declaration.body(
            xp, input.astype(xp.float32), factor.astype(xp.float32), dim, backwards
        )
        return single.astype(input.dtype)
    out, product = (xp.moveaxis(x.copy(), dim, 0) for x in (input, factor))
    step = 1
    while step < len(out):  # by doubling, as in scan(): of 2**k steps the sum and the product of factors are known
        if backwards:
            out[:-step] += product[step:] * out[step:]
        else:
            out[step:] += product[step:] * out[:-step]
        product[step:] = product[step:] * product[:-step]
        step *= 2
    return xp.ascontiguousarray(xp.moveaxis(out, 0, dim))


@compiled(linear_recurrence, work=16, light=True)
def _linear_recurrence(input: Array, factor: Array, dim: int, backwards: bool) -> Any:
    if factor.dtype is not input.dtype:
        return NotImplemented
    return _scan(sources.scans.recurrence, input, dim, placing.middle(factor, dim), backwards)


@linear_recurrence.joint_vjp
def _linear_recurrence_inputs(
    F: Any, g: Any, needs: tuple, factor: Any, out: Any, dim: int, backwards: bool
) -> tuple:
    """The recurrence of the gradients the other way, with the same factors."""
    to_input = F.linear_recurrence(g, factor, dim, not backwards)
    if not needs[1]:
        return to_input, None
    later, earlier = (out, to_input) if backwards else (to_input, out)
    return to_input, later * _previous(F, earlier, dim, F.zeros_like)


def _previous(F: Any, x: Any, dim: int, start: Callable) -> Any:
    """The element before each one along dim, `start` (F.zeros_like or F.ones_like) before the first."""
    n = x.shape[dim]
    return F.cat([start(F.narrow(x, dim, 0, 1)), F.narrow(x, dim, 0, n - 1)], dim) if n else x


@primitive
def cumprod(xp, input: Array, dim: int):
    """The running product along dim; integers are multiplied as int64."""
    if input.dtype.kind == "V":  # CuPy has no running product of bfloat16
        return cumprod.declaration.body(xp, input.astype(xp.float32), dim).astype(input.dtype)
    dtype = xp.int64 if input.dtype.kind in "bui" else None
    return xp.cumprod(input, one_dim(dim, input.ndim) if input.ndim else None, dtype).reshape(input.shape)


@compiled(cumprod, work=16, light=True)
def _cumprod(input: Array, dim: int) -> Any:
    return _scan(sources.scans.products, input, one_dim(dim, input.ndim))


def _cumprod_input(F: Any, g: Any, input: Any, out: Any, dim: int) -> Any:
    """The product of what comes before, times g[i] + input[i + 1] * (g[i + 1] + input[i + 2] * (g[i + 2] + ...)).

    Nothing is divided: it is right, to any order, also where elements are 0.
    """
    if not g.shape:
        return g
    dim = one_dim(dim, len(g.shape))
    return F.linear_recurrence(g, input, dim, True) * _previous(F, out, dim, F.ones_like)


cumprod.vjp(input=_cumprod_input)


@primitive
def strict_upper(xp, input: Array, length: int, ndim: int, dim: int):
    """A boolean matrix, true above its diagonal, over dims (dim, dim + 1); for rules."""
    upper = xp.arange(length)[:, None] < xp.arange(length)
    return upper.reshape((1,) * dim + (length, length) + (1,) * (ndim - dim - 1))


def _running_log_sum(xp: Any, array: Array, dim: int) -> Array:
    """The running log(sum(exp)) along dim, of real or complex numbers."""
    if array.dtype.kind != "c":
        return scan(xp, xp.logaddexp, array, dim)
    out = xp.moveaxis(array.copy(), dim, 0)
    for i in range(1, len(out)):  # one by one: the order decides which of the logarithm's values comes out
        a, b = out[i - 1], out[i]
        larger, smaller = xp.where(a.real >= b.real, a, b), xp.where(a.real >= b.real, b, a)
        out[i] = larger + xp.log(1 + xp.exp(smaller - larger))
    return xp.moveaxis(out, 0, dim)


@primitive(promote="float")
def logcumsumexp(xp, input: Array, dim: int):
    """The running log(sum(exp(input))) along dim, without overflow."""
    return _running_log_sum(xp, input, one_dim(dim, input.ndim)) if input.ndim else input.copy()


def _logcumsumexp_input(F: Any, g: Any, input: Any, out: Any, dim: int) -> Any:
    """sum over k >= i of g[k] * exp(input[i] - out[k]), by all pairs."""
    if not g.shape:
        return g
    dim = one_dim(dim, len(g.shape))
    n = g.shape[dim]
    before = F.logical_not(F.strict_upper(input, n, len(g.shape), dim))  # [k, i]: i <= k
    weights = F.unsqueeze(input, dim) - F.unsqueeze(out, dim + 1)
    weights = F.where(before, F.exp(F.where(before, weights, F.zeros_like(weights))), F.zeros_like(weights))
    return F.sum(F.unsqueeze(g, dim + 1) * weights, dim)


logcumsumexp.vjp(input=_logcumsumexp_input)


def _logcumsumexp_fast(xp: Any, g: Any, needs: tuple, input: Array, out: Array, dim: int) -> tuple:
    """In linear memory: the same sum in logarithms, of the positive and the negative gradients."""
    if not g.ndim:
        return (g,)
    dim = one_dim(dim, g.ndim)

    def part(positive: Array) -> Array:
        terms = xp.flip(xp.log(positive) - out, dim)
        return xp.exp(xp.flip(_running_log_sum(xp, terms, dim), dim) + input)

    if g.dtype.kind == "c":
        return (part(g),)
    return (part(xp.maximum(g, 0)) - part(xp.maximum(-g, 0)),)


for _device in ("cpu", "cuda"):
    logcumsumexp.fused_vjp(_device)(_logcumsumexp_fast)


def _running_extreme(name: str, doc: str) -> Any:
    def body(xp, input: Array, dim: int):  # type: ignore[no-untyped-def]
        if not input.ndim:
            return input.copy(), xp.zeros((), xp.int64)
        dim = one_dim(dim, input.ndim)
        values = scan(xp, xp.maximum if name == "cummax" else xp.minimum, input, dim)
        reached = (input == values) | (input != input)  # the last place that equals the extreme, or is nan
        places = xp.arange(input.shape[dim]).reshape((-1,) + (1,) * (input.ndim - dim - 1))
        return values, scan(xp, xp.maximum, xp.where(reached, places, 0), dim)

    body.__name__, body.__doc__ = name, doc
    function = primitive(body, outputs=("values", "indices"))
    function.vjp(
        input=lambda F, g, indices, input_shape, dim: (
            F.scatter_zeros(g[0], indices, input_shape, one_dim(dim, len(input_shape))) if input_shape else g[0]
        )
    )
    return function


cummax = _running_extreme("cummax", "The largest element so far along dim, and where it is.")
cummin = _running_extreme("cummin", "The smallest element so far along dim, and where it is.")


# -- the forms users call ----------------------------------------------------------------------------------------------

cumsum_as = accepts_dtype(cumsum)
cumprod_as = accepts_dtype(cumprod)


@takes_out
def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """The n-th difference of neighbours along dim: input[i + 1] - input[i], n times.

    Args:
        prepend, append: tensors to join before and after along dim first.

    Example:
        >>> import paceline as torch
        >>> torch.diff(torch.tensor([1, 4, 9]))
        tensor([3, 5])
    """
    if not input.array.ndim:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    dim = one_dim(dim, input.array.ndim)
    if n == 0:
        return shaping.clone(input)
    parts = [x for x in (prepend, input, append) if x is not None]
    x = shaping.cat(parts, dim) if len(parts) > 1 else input
    for _ in range(min(n, x.array.shape[dim])):
        length = max(x.array.shape[dim] - 1, 0)
        later, earlier = shaping.narrow(x, dim, x.array.shape[dim] - length, length), shaping.narrow(x, dim, 0, length)
        x = ar.logical_xor(later, earlier) if x.array.dtype.kind == "b" else ar.sub(later, earlier)
    return x


def _interval(y: Any, x: Any, dx: Any, dim: int) -> tuple:
    """Left and right neighbours along dim, and the distances between them."""
    count = max(y.array.shape[dim] - 1, 0)
    neighbours = [shaping.narrow(y, dim, start, count) for start in (0, y.array.shape[dim] - count)]
    if x is None:
        return *neighbours, 1 if dx is None else dx
    if x.array.ndim == 1 and y.array.ndim > 1:
        if x.array.shape[0] != y.array.shape[dim]:
            raise RuntimeError("trapezoid: There must be one `x` value for each sample point")
        x = shaping.reshape(x, (-1,) + (1,) * (y.array.ndim - dim - 1))
        return *neighbours, diff(x, 1, 0)
    return *neighbours, diff(x, 1, dim - y.array.ndim)


def trapezoid(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Any:
    """The integral along dim by the trapezoidal rule: the sum of (y[i] + y[i+1]) / 2 * (x[i+1] - x[i]).

    Args:
        y: values of the function.
        x: where they were taken; by default dx apart.
        dx: the distance of the samples, 1 by default.

    Example:
        >>> import paceline as torch
        >>> torch.trapezoid(torch.tensor([1.0, 2.0, 4.0]))
        tensor(4.5000)
    """
    dim = one_dim(dim, y.array.ndim)
    if x is None and y.array.shape[dim]:  # sums of small integers do not overflow this way
        ends = ar.add(shaping.select(y, dim, 0), shaping.select(y, dim, -1))
        return ar.mul(ar.sub(reduction.sum(y, dim), ar.mul(ends, 0.5)), 1.0 if dx is None else dx)
    left, right, width = _interval(y, x, dx, dim)
    return ar.true_divide(reduction.sum(ar.mul(ar.add(left, right), width), dim), 2.0)


def cumulative_trapezoid(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Any:
    """The running integral along dim by the trapezoidal rule; see `trapezoid`."""
    dim = one_dim(dim, y.array.ndim)
    left, right, width = _interval(y, x, dx, dim)
    return ar.true_divide(cumsum(ar.mul(ar.add(left, right), width), dim), 2.0)


def gradient(input: Any, *, spacing: Any = None, dim: Any = None, edge_order: int = 1) -> tuple:
    """Estimates of the partial derivatives of a function sampled on a grid, by second-order differences.

    Args:
        spacing: the distance of the samples (a number, or one for each dim), or their coordinates (a vector for each).
        dim: the dimensions to differentiate along; all by default.
        edge_order: 1 or 2, the order of the differences at both ends.

    Example:
        >>> import paceline as torch
        >>> torch.gradient(torch.tensor([1.0, 4.0, 9.0]))[0]
        tensor([3., 4., 5.])
    """
    if edge_order not in (1, 2):
        raise RuntimeError("torch.gradient only supports edge_order=1 and edge_order=2.")
    dims = reduction.as_dims(dim, input.array.ndim)
    spacing = 1 if spacing is None else spacing
    spacings = list(spacing) if isinstance(spacing, list | tuple) else [spacing] * len(dims)
    if len(spacings) != len(dims):
        raise RuntimeError(
            f"torch.gradient expected spacing to be unspecified, a scalar, or a list of length {len(dims)}, "
            f"got {len(spacings)}"
        )
    for d in dims:
        if input.array.shape[d] < edge_order + 1:
            raise RuntimeError("torch.gradient expected each dimension size to be at least edge_order+1")
    return tuple(_derivative(input, d, s, edge_order) for d, s in zip(dims, spacings, strict=True))


def _derivative(f: Any, dim: int, spacing: Any, edge_order: int) -> Any:
    """For steps a before and b after a point: (a/b * (f[i+1] - f[i]) + b/a * (f[i] - f[i-1])) / (a + b)."""
    n = f.array.shape[dim]
    if isinstance(spacing, Variable) and spacing.array.ndim:
        steps = shaping.reshape(diff(spacing), (-1,) + (1,) * (f.array.ndim - dim - 1))
    else:
        xp, dtype = module_of(f.array), f.array.dtype if f.array.dtype.kind in "fcV" else None
        width = spacing.item() if isinstance(spacing, Variable) else spacing
        steps = box(xp.full((n - 1,) + (1,) * (f.array.ndim - dim - 1), width, dtype))
        if dtype is None:
            steps = steps.to(dtypes.get_default_dtype())
    slopes = ar.true_divide(diff(f, 1, dim), steps)
    along = steps.array.ndim - (f.array.ndim - dim)

    def at(x: Any, start: int, count: int = 1) -> Any:
        d = along if x is steps else dim
        return shaping.narrow(x, d, start % x.array.shape[d], count)

    first, last = at(slopes, 0), at(slopes, -1)
    if n == 2:
        return shaping.cat([first, last], dim)
    before, after = at(steps, 0, n - 2), at(steps, 1, n - 2)
    left, right = at(slopes, 0, n - 2), at(slopes, 1, n - 2)
    inner = ar.true_divide(ar.add(ar.mul(right, before), ar.mul(left, after)), ar.add(before, after))
    if edge_order == 2:
        first = _extrapolated(first, at(slopes, 1), at(steps, 0), at(steps, 1))
        last = _extrapolated(last, at(slopes, -2), at(steps, -1), at(steps, -2))
    return shaping.cat([first, inner, last], dim)


def _extrapolated(slope: Any, inner: Any, step: Any, inner_step: Any) -> Any:
    """The derivative at an end from the slopes of the two intervals next to it."""
    change = ar.true_divide(ar.sub(slope, inner), ar.add(step, inner_step))
    return ar.add(slope, ar.mul(change, step))
