"""Statistics: variance and covariance, quantiles, counts and histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...autograd.out import takes_out
from ...autograd.plan import FLOATING
from ...autograd.primitive import primitive
from ...autograd.return_types import return_type
from ...autograd.variable import Variable, box
from ...runtime import dtypes
from ...runtime.arrays import Array, module_of
from . import arithmetic as ar
from . import indexing, linalg, ordering, reduction, shaping
from . import pointwise as pw
from .complex import complex as complex_of
from .complex import imag, real
from .reduction import Dim, as_dims, restore

_Histogram = return_type("histogram", "hist", "bin_edges")
_HistogramDD = return_type("histogramdd", "hist", "bin_edges")

# -- variance ----------------------------------------------------------------------------------------------------------


@primitive(holomorphic=False)
def variance(xp, input: Array, dim: Dim, correction: float, keepdim: bool):
    """sum(|input - mean|**2) / max(n - correction, 0) along dim."""
    dims = as_dims(dim, input.ndim)
    count = math.prod(input.shape[d] for d in dims)
    deviation = input - input.sum(dims, keepdims=True) / (count or math.nan)
    power = deviation.real**2 + deviation.imag**2 if input.dtype.kind == "c" else deviation * deviation
    freedom = count - correction
    return (power.sum(dims, keepdims=keepdim) / xp.asarray(freedom if freedom > 0 else 0.0)).astype(input.real.dtype)


def _variance_input(F: Any, g: Any, input: Any, dim: Dim, correction: float, keepdim: bool) -> Any:
    shape = tuple(input.shape)
    freedom = math.prod(shape[d] for d in as_dims(dim, len(shape))) - correction
    scale = 2 / freedom if freedom > 0 else math.inf
    return restore(F, g * scale, shape, dim, keepdim) * (input - F.mean(input, dim, True))


variance.vjp(input=_variance_input)


@primitive(holomorphic=False)
def deviation(xp, input: Array, dim: Dim, correction: float, keepdim: bool):
    """The square root of the variance; its gradient at 0 is 0."""
    return xp.sqrt(variance.declaration.body(xp, input, dim, correction, keepdim))


def _deviation_input(F: Any, g: Any, input: Any, out: Any, dim: Dim, correction: float, keepdim: bool) -> Any:
    flat = F.eq(out, 0)
    g = F.where(flat, F.zeros_like(g), g / (2 * F.where(flat, F.ones_like(out), out)))
    return _variance_input(F, g, input, dim, correction, keepdim)


deviation.vjp(input=_deviation_input)


def _spread(
    function: Any, input: Any, dim: Any, unbiased: bool, keepdim: bool, correction: float | None, name: str
) -> Any:
    if isinstance(dim, bool):  # torch.var(x, False)
        dim, unbiased = None, dim
    if input.array.dtype not in FLOATING:
        raise RuntimeError(f"{name} only support floating point and complex dtypes, got {input.dtype!r}")
    if correction is None:
        correction = 1 if unbiased else 0
    return function(input, as_dims(dim, input.array.ndim), correction, keepdim)


@takes_out
def var(
    input: Any, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None
) -> Any:
    """The variance along dim: the sum of squared deviations over n - correction (1 if unbiased, else 0).

    Example:
        >>> import paceline as torch
        >>> torch.var(torch.tensor([1.0, 2.0, 3.0]))
        tensor(1.)
    """
    return _spread(variance, input, dim, unbiased, keepdim, correction, "var")


@takes_out
def std(
    input: Any, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None
) -> Any:
    """The standard deviation along dim: the square root of `var`."""
    return _spread(deviation, input, dim, unbiased, keepdim, correction, "std")


def _mean_too(function: Any, name: str) -> Any:
    def both(
        input: Any, dim: Dim = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None
    ) -> tuple:
        spread = function(input, dim, unbiased, keepdim, correction=correction)
        return spread, reduction.mean(input, None if isinstance(dim, bool) else dim, keepdim)

    both.__name__ = both.__qualname__ = name
    both.__doc__ = f"`{function.__name__}` along dim, and the mean."
    return both


var_mean, std_mean = _mean_too(var, "var_mean"), _mean_too(std, "std_mean")


def cov(input: Any, *, correction: float = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """The covariance matrix of variables (rows) over observations (columns).

    Args:
        input: [variables, observations], or one variable.
        correction: what is taken off the number of observations.
        fweights: how often each observation counts, integers.
        aweights: the importance of each observation.

    Example:
        >>> import paceline as torch
        >>> torch.cov(torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
        tensor([[ 2., -2.],
                [-2.,  2.]])
    """
    if input.array.ndim > 2:
        raise RuntimeError(
            f"cov(): expected input to have two or fewer dimensions but got an input with {input.array.ndim} dimensions"
        )
    x = shaping.reshape(input, (1, -1)) if input.array.ndim < 2 else input
    if x.array.dtype not in FLOATING:
        x = x.to(dtypes.get_default_dtype())
    count = x.array.shape[1]
    for name, w in (("fweights", fweights), ("aweights", aweights)):
        if w is not None and w.array.shape != (count,):
            raise RuntimeError(f"cov(): expected {name} to have the shape [{count}], got {list(w.array.shape)}")
    weights = fweights if aweights is None else aweights if fweights is None else ar.mul(fweights, aweights)
    if weights is None:
        total: Any = float(count)
        average = ar.true_divide(reduction.sum(x, 1, True), total or math.nan)
        freedom: Any = total - correction
    else:
        total = reduction.sum(weights)
        average = ar.true_divide(reduction.sum(ar.mul(x, weights), 1, True), total)
        lost = correction
        if aweights is not None and correction:
            lost = ar.mul(ar.true_divide(reduction.sum(ar.mul(weights, aweights)), total), correction)
        freedom = ar.sub(total, lost)
    centered = ar.sub(x, average)
    weighted = centered if weights is None else ar.mul(centered, weights)
    product = linalg.matmul(centered, pw.conj(shaping.transpose(weighted, 0, 1)))
    freedom = max(freedom, 0.0) if isinstance(freedom, float) else pw.clamp_between(freedom, min=0)
    return shaping.squeeze(ar.true_divide(product, freedom))


def corrcoef(input: Any) -> Any:
    """The matrix of Pearson's correlation coefficients of variables (rows) over observations (columns)."""
    if input.array.ndim > 2:
        raise RuntimeError(
            "corrcoef(): expected input to have two or fewer dimensions but got an input with "
            f"{input.array.ndim} dimensions"
        )
    c = cov(input)
    if not c.array.ndim:
        return ar.true_divide(c, c)
    scale = pw.sqrt(real(shaping.diagonal(c)))
    c = ar.true_divide(ar.true_divide(c, shaping.unsqueeze(scale, 1)), shaping.unsqueeze(scale, 0))
    if c.array.dtype.kind != "c":
        return pw.clamp_between(c, min=-1, max=1)
    parts = (pw.clamp_between(part(c), min=-1, max=1) for part in (real, imag))
    return complex_of(*parts)


# -- quantiles ---------------------------------------------------------------------------------------------------------

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


@takes_out
def quantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """The q-quantiles along dim; nan where there is a nan.

    Args:
        q: a number in [0, 1], or a vector of them, whose dimension comes first in the result.
        dim: the dimension to reduce; None for the flattened input.
        interpolation: between the two elements next to the rank q * (n - 1): "linear", "lower", "higher", "midpoint"
            or "nearest".

    Example:
        >>> import paceline as torch
        >>> torch.quantile(torch.tensor([1.0, 2.0, 3.0, 4.0]), 0.5)
        tensor(2.5000)
    """
    return _quantile(input, q, dim, keepdim, interpolation, "quantile")


@takes_out
def nanquantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """The q-quantiles along dim of the elements that are not nan; see `quantile`."""
    return _quantile(input, q, dim, keepdim, interpolation, "nanquantile")


def _quantile(input: Any, q: Any, dim: int | None, keepdim: bool, interpolation: str, name: str) -> Any:
    q = _checked_q(input, q, interpolation, name)
    ndim = input.array.ndim
    if dim is None or not ndim:
        rows = shaping.reshape(input, (-1,))
        kept: tuple = (1,) * ndim
    else:
        dim = shaping.one_dim(dim, ndim)
        rows = shaping.movedim(input, dim, -1)
        kept = tuple(1 if i == dim else n for i, n in enumerate(input.array.shape))
    ranked = ordering.sort(rows, -1).values
    xp, n = module_of(ranked.array), ranked.array.shape[-1]
    nans = xp.isnan(ranked.array).sum(-1, keepdims=True)
    column = shaping.reshape(q, (-1,))
    if name == "quantile":
        rank = ar.where(box(nans > 0), float(n - 1), ar.mul(column, float(n - 1)))  # nan is the last one
    else:
        rank = ar.mul(column, box(xp.maximum(n - nans - 1, 0).astype(q.array.dtype)))
    values = _interpolated(ranked, rank, interpolation)
    values = shaping.movedim(values, -1, 0)
    outer = q.array.shape
    return shaping.reshape(values, (*outer, *(kept if keepdim else values.array.shape[1:])))


def _checked_q(input: Any, q: Any, interpolation: str, name: str) -> Any:
    if interpolation not in _INTERPOLATIONS:
        raise RuntimeError(
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {interpolation}"
        )
    dtype = input.array.dtype
    if not input.array.size:
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    if dtype.name not in ("float32", "float64"):
        raise RuntimeError(f"{name}() input tensor must be either float or double dtype, got {input.dtype!r}")
    if not isinstance(q, Variable):
        if not 0 <= q <= 1:
            raise RuntimeError(f"{name}() q must be in the range [0, 1] but got {q}")
        return box(module_of(input.array).asarray(q, dtype))
    if q.array.ndim > 1:
        raise RuntimeError(f"{name}() q must be a scalar or 1D tensor, got {q.array.ndim} dimensions")
    if q.array.dtype != dtype:
        raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor: {q.dtype!r}, {input.dtype!r}")
    if q.array.size and not (float(q.array.min()) >= 0 and float(q.array.max()) <= 1):
        raise RuntimeError(f"{name}() q values must be in the range [0, 1]")
    return q


def _interpolated(ranked: Any, rank: Any, interpolation: str) -> Any:
    """The values at ranks that are no whole numbers, along the last dimension."""
    xp = module_of(rank.array)
    shape = (*ranked.array.shape[:-1], rank.array.shape[-1])

    def at(places: Array) -> Any:
        return indexing.gather(ranked, -1, box(xp.broadcast_to(places.astype(xp.int64), shape)))

    if interpolation in ("lower", "higher", "nearest"):
        function = {"lower": xp.floor, "higher": xp.ceil, "nearest": xp.rint}[interpolation]
        return at(function(rank.array))
    below = xp.floor(rank.array)
    weight = ar.sub(rank, box(below)) if interpolation == "linear" else 0.5
    return pw.lerp(at(below), at(xp.ceil(rank.array)), weight)


# -- counts ------------------------------------------------------------------------------------------------------------


def bincount(input: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each non-negative integer occurs, or the sum of the weights of its occurrences.

    Example:
        >>> import paceline as torch
        >>> torch.bincount(torch.tensor([0, 2, 2]))
        tensor([1, 0, 2])
    """
    if input.array.ndim != 1 or input.array.dtype.kind not in "iu" or (input.array.size and int(input.array.min()) < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise RuntimeError(f"minlength should be >= 0, got {minlength}")
    xp = module_of(input.array)
    if weights is None:
        return box(xp.bincount(input.array, minlength=minlength).astype(xp.int64))
    if weights.array.shape != input.array.shape:
        raise RuntimeError(
            f"weights should have the same shape as input: {list(weights.array.shape)}, {list(input.array.shape)}"
        )
    sums = xp.bincount(input.array, weights.array.astype(xp.float64), minlength)
    return box(sums.astype(xp.float32 if weights.array.dtype == xp.float32 else xp.float64))


@takes_out
def histc(input: Any, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    """The number of elements in each of `bins` equal intervals from min to max; of the whole range if both are 0."""
    if bins <= 0:
        raise RuntimeError(f"torch.histc(): bins must be > 0, but got {bins}")
    x, xp = input.array.reshape(-1), module_of(input.array)
    low, high = float(min), float(max)
    if low == high and x.size:
        low, high = float(x.min()), float(x.max())
    if low == high:
        low, high = low - 1, high + 1
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"torch.histc: range of [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError("torch.histc: max must be larger than min")
    inside = x[(x >= low) & (x <= high)]
    kind = x.dtype if x.dtype.kind in "fV" else xp.float64  # what is near an edge depends on the precision
    scaled = ((inside - low).astype(kind) * bins).astype(kind) / (high - low)
    number = scaled.astype(kind).astype(xp.int64)
    counts = xp.bincount(xp.minimum(number, bins - 1), minlength=bins)
    return box(counts.astype(input.array.dtype))


@takes_out
def histogram(
    input: Any, bins: Any, *, range: Sequence[float] | None = None, weight: Any = None, density: bool = False
) -> Any:
    """How many elements (or what total weight) lie in each bin, and the edges of the bins.

    Args:
        bins: the number of equal bins, or the increasing edges.
        range: (low, high) of equal bins; by default of the data.
        weight: of each element.
        density: whether to divide by the total and the width of the bins.
    """
    x, xp = input.array, module_of(input.array)
    edges = [bins.array] if isinstance(bins, Variable) else _equal_edges(xp, x.reshape(-1, 1), [bins], range)
    hist = _counted(xp, x.reshape(-1, 1), edges, weight, density)
    return _Histogram(box(hist), box(edges[0]))


def histogramdd(
    input: Any, bins: Any, *, range: Sequence[float] | None = None, weight: Any = None, density: bool = False
) -> Any:
    """The histogram of points in several dimensions.

    Args:
        input: [..., D] points.
        bins: the number of bins in all or in each of the D dimensions, or the edges in each.
        range: low and high of each dimension, one after the other.
        weight, density: as for `histogram`.
    """
    count = input.array.shape[-1]
    points, xp = input.array.reshape(-1, count), module_of(input.array)
    numbers = [bins] * count if isinstance(bins, int) else list(bins)
    if len(numbers) != count:
        raise RuntimeError(f"torch.histogramdd(): bins tensor should have {count} elements, got {len(numbers)}")
    if isinstance(numbers[0], Variable):
        edges = [b.array for b in numbers]  # type: ignore[union-attr]
    else:
        edges = _equal_edges(xp, points, numbers, range)
    hist = _counted(xp, points, edges, weight, density)
    return _HistogramDD(box(hist), tuple(box(e) for e in edges))


def _equal_edges(xp: Any, points: Array, numbers: list, range: Sequence[float] | None) -> list:
    edges = []
    for d, bins in enumerate(numbers):
        if bins <= 0:
            raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {bins} for dimension {d}")
        if range is not None:
            low, high = range[2 * d], range[2 * d + 1]
        else:
            low, high = (float(points[:, d].min()), float(points[:, d].max())) if len(points) else (0.0, 1.0)
        if low == high:
            low, high = low - 0.5, high + 0.5
        edges.append(xp.linspace(low, high, bins + 1).astype(points.dtype))
    return edges


def _counted(xp: Any, points: Array, edges: list, weight: Any, density: bool) -> Array:
    """The weights of points in the cells of a grid; each cell has its left edges, the last ones the right as well."""
    shape = tuple(len(e) - 1 for e in edges)
    flat, inside = xp.zeros(len(points), xp.int64), xp.ones(len(points), bool)
    for d, edge in enumerate(edges):
        x = points[:, d]
        inside &= (x >= edge[0]) & (x <= edge[-1])
        flat = flat * shape[d] + xp.minimum(xp.searchsorted(edge, x, "right") - 1, shape[d] - 1)
    weights = None if weight is None else weight.array.reshape(-1)[inside]
    hist = xp.bincount(flat[inside], weights, math.prod(shape)).reshape(shape).astype(points.dtype)
    if density:
        hist = hist / hist.sum()
        for d, edge in enumerate(edges):
            hist = hist / xp.diff(edge).reshape((-1,) + (1,) * (len(shape) - d - 1))
    return hist.astype(points.dtype)
