"""Rows for reductions and statistics, sorting and searching, scattering."""

from __future__ import annotations

import itertools

import numpy as np

from .ops import ints, mask, np_reduce, rnd, spread
from .table import Op
from .table import Sample as S

NAN = np.nan


def exact(name, samples, reference, **options):
    """A row for what has no derivative."""
    return Op(name, samples, reference, differentiable=False, **options)


def internal(name, samples, reference, **options):
    return Op(name, samples, reference, internal=True, **options)


def sorting(name, samples, reference, **options):
    return Op(name, samples, reference, emulated=False, **options)


# -- reductions --------------------------------------------------------------------------------------------------------


def _cumulative(function):
    return lambda x, dim: function(x, dim) if x.ndim else x.copy()


def _running(function, better):
    """The running extreme and the last place that has it, one element after the other."""

    def reference(x, dim):
        moved = np.moveaxis(np.atleast_1d(x), dim, 0)
        values, places = np.empty(moved.shape), np.zeros(moved.shape, int)
        for column in np.ndindex(moved.shape[1:]):
            best = 0
            for i in range(len(moved)):
                if not better(moved[(best, *column)], moved[(i, *column)]):
                    best = i
                values[(i, *column)], places[(i, *column)] = moved[(best, *column)], best
        back = lambda a: np.moveaxis(a, 0, dim).reshape(x.shape)  # noqa: E731
        return back(values), back(places)

    return reference


def _recurrence(x, factor, dim, backwards):
    """One element after the other."""
    x, factor, out = (np.moveaxis(a, dim, 0) for a in (x, factor, np.empty_like(x)))
    last = 0
    for i in reversed(range(len(x))) if backwards else range(len(x)):
        edge = i + backwards
        last = out[i] = x[i] + (factor[edge] * last if 0 < edge < len(x) else 0)
    return np.moveaxis(out, 0, dim)


_RECURRENCES = (((5, 2), 0), ((3, 2, 3), 1), ((6, 7), 1), ((2, 1), 1), ((0, 2), 0))


def _variance(x, dim=None, unbiased=True, keepdim=False, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return np.var(x, dim, ddof=int(unbiased) if correction is None else correction, keepdims=keepdim)


_SPREAD = [
    S(rnd(2, 3)),
    S(rnd(2, 3), 1),
    S(rnd(2, 3), False),
    S(rnd(2, 2, 2), (0, 2), keepdim=True),
    S(rnd(3), correction=0.5),
]
_ZEROS = np.array([[0.0, 2.0, 3.0], [1.5, 0.0, 0.0], [-1.0, 0.5, 0.0]])
_HOLES = np.array([[1.0, NAN, 2.5], [0.5, -1.0, 3.0]])

REDUCTIONS = [
    exact("nansum", [S(_HOLES), S(_HOLES, 1), S(_HOLES, 0, True), S(ints(3))], np_reduce(np.nansum)),
    Op("nansum", [S(rnd(2, 3), 1)], np_reduce(np.sum)),
    exact("nanmean", [S(_HOLES), S(_HOLES, 1), S(_HOLES, 0, True)], np_reduce(np.nanmean)),
    Op("nanmean", [S(rnd(2, 3), 1)], np_reduce(np.mean)),
    exact(
        "count_nonzero",
        [S(ints(3, 4, low=0, high=2)), S(ints(3, 4, low=0, high=2), 1), S(_ZEROS, (0, 1))],
        lambda x, dim=None: np.count_nonzero(x, dim),
    ),
    Op(
        "aminmax",
        [S(spread(2, 3)), S(spread(2, 3), dim=1), S(spread(2, 3), dim=0, keepdim=True)],
        lambda x, dim=None, keepdim=False: (x.min(dim, keepdims=keepdim), x.max(dim, keepdims=keepdim)),
    ),
    Op("prod", [S(_ZEROS, 1), S(_ZEROS, 0, True), S(_ZEROS)], np_reduce(np.prod)),
    Op(
        "cumprod",
        [S(rnd(2, 3), 1), S(rnd(3), 0), S(rnd(), 0), S(_ZEROS, 0), S(_ZEROS, -1)],
        _cumulative(np.cumprod),
    ),
    internal(
        "reversed_cumsum",
        [S(rnd(2, 3), 0), S(rnd(2, 3), 1), S(rnd(), 0)],
        lambda x, dim: np.flip(np.cumsum(np.flip(x, dim), dim), dim) if x.ndim else x,
    ),
    internal(
        "linear_recurrence",
        [S(rnd(*shape), rnd(*shape), dim, back) for shape, dim in _RECURRENCES for back in (False, True)],
        _recurrence,
    ),
    Op(
        "logcumsumexp",
        [S(rnd(2, 3), 1), S(rnd(3), 0), S(rnd(), 0), S(rnd(2, 2) + 800.0, 0)],
        lambda x, dim: np.logaddexp.accumulate(x, dim) if x.ndim else x,
        fused=True,
    ),
    Op("cummax", [S(spread(2, 4), 1), S(spread(3), 0), S(spread(), 0)], _running(np.maximum, lambda a, b: a > b)),
    Op("cummin", [S(spread(2, 4), 1), S(spread(3), 0)], _running(np.minimum, lambda a, b: a < b)),
    internal(
        "strict_upper",
        [S(rnd(2), 3, 3, 1)],
        lambda x, n, ndim, dim: np.triu(np.ones((3, 3), bool), 1)[None, :, :, None],
        differentiable=False,
    ),
    Op("var", _SPREAD, _variance),
    Op("std", _SPREAD, lambda *a, **k: np.sqrt(_variance(*a, **k))),
    Op(
        "var_mean",
        _SPREAD,
        lambda x, dim=None, *a, keepdim=False, **k: (
            _variance(x, dim, *a, keepdim=keepdim, **k),
            x.mean(None if isinstance(dim, bool) else dim, keepdims=keepdim),
        ),
    ),
    Op("std_mean", [S(rnd(2, 3), 1)], lambda x, dim: (x.std(dim, ddof=1), x.mean(dim))),
    internal("variance", [S(rnd(2, 3), (1,), 1, False)], lambda x, dim, c, k: x.var(dim, ddof=c)),
    internal("deviation", [S(rnd(2, 3), (1,), 1, True)], lambda x, dim, c, k: x.std(dim, ddof=c, keepdims=k)),
    Op(
        "norm",
        [S(rnd(2, 3)), S(rnd(2, 3), 3, 1), S(rnd(2, 3), 1), S(spread(2, 3), float("inf"), 0)],
        lambda x, p=2, dim=None: np.linalg.norm(x.reshape(-1) if dim is None else x, p, dim),
    ),
    Op("norm", [S(rnd(3, 2), "nuc")], lambda x, p: np.linalg.norm(x, p), emulated=False),
    Op("dist", [S(rnd(2, 3), rnd(3)), S(rnd(3), rnd(3), 3)], lambda x, y, p=2: np.linalg.norm((x - y).reshape(-1), p)),
    Op(
        "renorm",
        [S(rnd(3, 2), 2, 0, 1.0), S(rnd(2, 3), 1, 1, 0.5)],
        lambda x, p, dim, top: _renormed(x, p, dim, top),
        second=False,
    ),
]


def _renormed(x, p, dim, top):
    sizes = np.linalg.norm(x, p, 1 - dim, keepdims=True)
    return x * np.where(sizes > top, top / (sizes + 1e-7), 1)


# -- differences, integrals, statistics --------------------------------------------------------------------------------


def _trapezoid(y, x=None, dx=1.0, dim=-1):
    return np.trapezoid(y, x, dx, dim)


def _running_trapezoid(y, x=None, dx=1.0, dim=-1):
    ends = [np.trapezoid(y[..., : i + 1], None if x is None else x[..., : i + 1], dx) for i in range(1, y.shape[-1])]
    return np.stack(ends, -1)


def _flat(hist, edges):
    return hist, *edges


_POINTS = np.array([0.0, 1.4, 2.5, 4.9])

DIFFERENCES = [
    Op(
        "diff",
        [S(rnd(4)), S(rnd(2, 3), 1, 0), S(rnd(4), 2), S(rnd(2, 2), prepend=rnd(2, 1)), S(rnd(2), 3), S(mask(4))],
        lambda x, n=1, dim=-1, **k: np.diff(x, n, dim, **k),
    ),
    Op("trapezoid", [S(rnd(4)), S(rnd(2, 4), _POINTS), S(rnd(4, 2), dx=0.5, dim=0)], _trapezoid, aliases=("trapz",)),
    Op("cumulative_trapezoid", [S(rnd(4)), S(rnd(2, 4), _POINTS), S(rnd(2, 3), dx=0.5)], _running_trapezoid),
    Op(
        "gradient",
        [S(rnd(4), dim=0, spacing=0.5), S(rnd(2, 4), dim=1, edge_order=2), S(rnd(3), spacing=2.0)],
        lambda x, spacing=1, dim=None, edge_order=1: (
            np.gradient(x, spacing, axis=0 if dim is None else dim, edge_order=edge_order),
        ),
    ),
    Op("gradient", [S(rnd(3, 2))], lambda x: tuple(np.gradient(x))),
    Op(
        "gradient",
        [S(rnd(4), spacing=[_POINTS])],
        lambda x, spacing: (np.gradient(x, spacing[0]),),
        differentiable=False,
    ),
    Op(
        "cov",
        [S(rnd(2, 3)), S(rnd(4)), S(rnd(2, 3), correction=0), S(rnd(2, 3), fweights=np.array([1, 2, 1]))],
        lambda x, correction=1, fweights=None: np.cov(x, ddof=correction, fweights=fweights),
    ),
    exact("cov", [S(rnd(2, 3), aweights=np.array([0.2, 1.0, 0.5]))], lambda x, aweights: np.cov(x, aweights=aweights)),
    Op("corrcoef", [S(rnd(2, 4))], np.corrcoef),
    sorting(
        "quantile",
        [S(spread(5), 0.3), S(spread(2, 4), 0.5, 1), S(spread(2, 3), 0.25, 0, True), S(spread(2, 3), 0.9)],
        lambda x, q, dim=None, keepdim=False: np.quantile(x, q, dim, keepdims=keepdim),
    ),
    *[
        sorting(
            "quantile",
            [S(spread(6), 0.33, interpolation=kind)],
            lambda x, q, interpolation: np.quantile(x, q, method=interpolation),
        )
        for kind in ("lower", "higher", "midpoint", "nearest")
    ],
    sorting("nanquantile", [S(_HOLES, 0.4, 1), S(_HOLES, 0.7)], np.nanquantile, differentiable=False),
    exact(
        "bincount",
        [S(np.array([0, 3, 3])), S(np.array([1, 1]), minlength=4), S(np.array([0, 2, 2]), np.array([0.5, 1.0, 2.0]))],
        np.bincount,
    ),
    exact(
        "histc",
        [S(rnd(20), 4, -2, 2), S(np.array([1.0, 2.0, 4.0]), 3)],
        lambda x, bins, low=0, high=0: np.histogram(x, bins, (low, high) if high else None)[0],
    ),
    exact(
        "histogram",
        [S(rnd(20), 4), S(rnd(20), 4, range=(-1.0, 1.0)), S(rnd(9), 3, density=True)],
        lambda x, bins, range=None, density=False: np.histogram(x, bins, range, density),
    ),
    exact(
        "histogramdd",
        [S(rnd(20, 2), [2, 3])],
        lambda x, bins: _flat(*np.histogramdd(x, bins)),
        call=lambda t, *a: _flat(*t.histogramdd(*a)),
    ),
]


# -- order -------------------------------------------------------------------------------------------------------------


def _kth(x, k, dim=-1, keepdim=False):
    return tuple(_taken(f(x, dim), k - 1, dim, keepdim) for f in (np.sort, np.argsort))


def _taken(x, i, dim, keepdim):
    return x.take([i] if keepdim else i, dim)


_REPEATED = np.array([[2.0, 1.0, 2.0, 5.0], [3.0, 3.0, 1.0, 1.0]])


def _mode(x):
    values = [min(set(row), key=lambda v: (-list(row).count(v), v)) for row in x]
    return np.array(values), np.array([max(np.flatnonzero(row == v)) for row, v in zip(x, values, strict=True)])


def _unique_rows(x, return_inverse=False, return_counts=False, dim=None):
    found = np.unique(x, return_inverse=True, return_counts=True, axis=dim)
    inverse = found[1].reshape(x.shape if dim is None else -1)
    return (found[0], *((inverse,) * return_inverse), *((found[2],) * return_counts))


def _groups(x, return_inverse=False, return_counts=False):
    runs = [(value, len(list(run))) for value, run in itertools.groupby(x.tolist())]
    inverse = np.repeat(np.arange(len(runs)), [n for _, n in runs])
    counts = np.array([n for _, n in runs])
    return (np.array([v for v, _ in runs]), *((inverse,) * return_inverse), *((counts,) * return_counts))


_MESSY = np.array([[3, 1, 3], [1, 1, 2], [3, 1, 3]])

ORDER = [
    sorting("msort", [S(spread(3, 2)), S(spread(3))], lambda x: np.sort(x, 0)),
    sorting("kthvalue", [S(spread(5), 2), S(spread(2, 4), 3, 1), S(spread(3, 2), 1, 0, True)], _kth),
    sorting("nanmedian", [S(spread(4)), S(spread(5))], lambda x: np.sort(x)[(x.size - 1) // 2]),
    sorting("nanmedian", [S(_HOLES, 1)], lambda x, dim: (np.array([1.0, 0.5]), np.array([0, 0])), differentiable=False),
    sorting(
        "median", [S(np.array([1.0, NAN, 0.0]), 0)], lambda x, dim: (np.array(NAN), np.array(1)), differentiable=False
    ),
    sorting("mode", [S(_REPEATED)], _mode, differentiable=False),
    exact(
        "searchsorted",
        [
            S(np.array([1.0, 3.0, 5.0]), np.array([3.0, 0.0, 9.0])),
            S(np.array([1, 2, 2]), np.array([2]), side="right"),
            S(np.array([1, 2, 2]), np.array([[2], [0]]), right=True),
        ],
        lambda a, v, side="left", right=False: np.searchsorted(a, v, "right" if right else side),
    ),
    exact(
        "searchsorted",
        [S(np.array([[1.0, 3.0], [0.0, 2.0]]), np.array([[2.0], [2.0]]))],
        lambda a, v: np.array([[1], [1]]),
    ),
    exact(
        "bucketize",
        [S(rnd(2, 3), np.array([-1.0, 0.0, 1.0])), S(np.array([1, 2]), np.array([1, 2]), right=True)],
        lambda x, edges, right=False: np.searchsorted(edges, x, "right" if right else "left"),
    ),
    sorting(
        "isin", [S(ints(2, 3), ints(4)), S(ints(3), 2), S(ints(5), ints(2), invert=True)], np.isin, differentiable=False
    ),
    sorting(
        "unique",
        [S(_MESSY, dim=0), S(_MESSY, return_inverse=True, return_counts=True), S(_MESSY, return_inverse=True, dim=1)],
        _unique_rows,
        differentiable=False,
    ),
    exact(
        "unique_consecutive",
        [S(np.array([1, 1, 2, 1])), S(np.array([1, 1, 2, 1]), True, True), S(np.array([4]), return_counts=True)],
        _groups,
    ),
    exact("unique_consecutive", [S(np.array([[1, 1], [1, 1], [2, 1]]), dim=0)], lambda x, dim: x[[0, 2]]),
    exact("argwhere", [S(ints(2, 3, low=0, high=2)), S(np.array(1))], np.argwhere),
]

# -- scattering --------------------------------------------------------------------------------------------------------

_PLACES = np.array([[0, 0, 2], [2, 1, 2]])


def _scattered(combine):
    """Element by element along dim 1 of matrices."""

    def reference(x, dim, index, src, *args, reduce=None, include_self=True):
        out, hits = x.copy(), {}
        for row, column in np.ndindex(index.shape):
            hits.setdefault((row, index[row, column]), []).append(src[row, column])
        for place, values in hits.items():
            out[place] = combine([x[place]] * include_self + values)
        return out

    return reference


def _by_rows(combine):
    def reference(x, dim, index, source, *args, include_self=True, **kwargs):
        out = x.copy()
        for i in set(index.tolist()):
            rows = [x[i]] * include_self + [source[j] for j in np.flatnonzero(index == i)]
            out[i] = combine(rows)
        return out

    return reference


def _filled(x, dim, index, value):
    out = x.copy()
    out[(slice(None),) * dim + (index,)] = value
    return out


def _put(x, index, source, accumulate=False):
    out = x.reshape(-1).copy()
    if accumulate:
        np.add.at(out, index, source)
    else:
        out[index] = source
    return out.reshape(x.shape)


def _masked(x, m, source):
    out = np.broadcast_to(x, np.broadcast_shapes(x.shape, m.shape)).copy()
    out[np.broadcast_to(m, out.shape)] = source.reshape(-1)[: int(np.broadcast_to(m, out.shape).sum())]
    return out


def _with(place):
    """A copy of x with src at the place that the further arguments name."""

    def reference(x, src, *args):
        out = x.copy()
        out[place(x, *args)] = src
        return out

    return reference


_REDUCE = {"sum": sum, "prod": np.prod, "mean": np.mean, "amax": max, "amin": min}
_CHOSEN = np.array([[True, False, True], [False, True, True]])

SCATTERING = [
    *[
        sorting(
            "scatter_reduce",
            [S(spread(2, 3), 1, _PLACES, spread(2, 3) + 0.11, kind, include_self=own) for own in (True, False)],
            _scattered(_REDUCE[kind]),
        )
        for kind in _REDUCE
    ],
    sorting(
        "scatter_reduce",
        [S(np.array([[0.0, 2.0, 0.0]]), 1, np.array([[0, 1, 1]]), np.array([[3.0, 0.0, 5.0]]), "prod")],
        _scattered(np.prod),
        second=False,
    ),
    sorting("scatter", [S(spread(2, 3), 1, _PLACES, spread(2, 3), reduce="multiply")], _scattered(np.prod)),
    Op("scatter", [S(spread(2, 3), 1, _PLACES, spread(2, 3), reduce="add")], _scattered(sum)),
    internal(
        "scatter_product",
        [S(spread(2, 3), spread(2, 3), _PLACES, 1)],
        lambda x, s, i, d: _scattered(np.prod)(x, d, i, s),
        emulated=False,
    ),
    internal(
        "scatter_extreme",
        [S(spread(2, 3), spread(2, 3) + 0.1, _PLACES, 1, True)],
        lambda x, s, i, d, top: _scattered(max)(x, d, i, s),
        emulated=False,
    ),
    *[
        sorting(
            "index_reduce",
            [
                S(spread(3, 2), 0, np.array([0, 2, 0]), spread(3, 2) + 0.11, kind, include_self=own)
                for own in (True, False)
            ],
            _by_rows(lambda rows, f=function: f(rows, 0)),
        )
        for kind, function in (("prod", np.prod), ("mean", np.mean), ("amax", np.max), ("amin", np.min))
    ],
    Op(
        "index_copy",
        [S(rnd(3, 2), 0, np.array([2, 0]), rnd(2, 2)), S(rnd(2, 3), 1, np.array([1]), rnd(2, 1))],
        lambda x, dim, i, s: _filled(x, dim, i, s),
    ),
    Op("index_fill", [S(rnd(3, 2), 0, np.array([2, 0]), 1.5), S(rnd(2, 3), 1, np.array([-1, 2]), 0.5)], _filled),
    Op("put", [S(rnd(2, 3), np.array([5, 0]), rnd(2)), S(rnd(2, 3), np.array([1, 1]), rnd(2), True)], _put),
    Op("take", [S(rnd(2, 3), np.array([[5, 0], [1, -1]])), S(rnd(3), np.array(2))], np.take),
    Op(
        "take_along_dim",
        [S(rnd(2, 3), np.array([[0, 0], [2, 1]]), 1), S(rnd(2, 3), np.array([[1]]), 0), S(rnd(2, 3), np.array([4, 0]))],
        lambda x, i, dim=None: np.take_along_axis(
            x.reshape(-1) if dim is None else x, np.broadcast_to(i, (1, 3)) if dim == 0 else i, dim or 0
        ),
    ),
    Op("masked_scatter", [S(rnd(2, 3), _CHOSEN, rnd(5)), S(rnd(3), _CHOSEN, rnd(2, 2))], _masked),
    Op(
        "select_scatter",
        [S(rnd(2, 3), rnd(2), 1, 0), S(rnd(2, 3), rnd(3), 0, -1)],
        _with(lambda x, dim, i: (slice(None),) * dim + (i,)),
    ),
    Op(
        "slice_scatter",
        [S(rnd(4, 2), rnd(2, 2), 0, 1, 3), S(rnd(2, 5), rnd(2, 2), 1, 0, 4, 2)],
        _with(lambda x, dim, a, b, step=1: (slice(None),) * dim + (slice(a, b, step),)),
    ),
    Op(
        "diagonal_scatter",
        [S(rnd(3, 3), rnd(3)), S(rnd(3, 4), rnd(3), 1)],
        _with(lambda x, k=0: (np.arange(3), np.arange(3) + k)),
    ),
]

ROWS = [*REDUCTIONS, *DIFFERENCES, *ORDER, *SCATTERING]
