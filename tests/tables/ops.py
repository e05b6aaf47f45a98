"""The table of operations: one row for each primitive, public function and method. tests/test_ops.py runs the rows,
tests/parity/test_ops.py compares them with PyTorch."""

from __future__ import annotations

import math
import operator

import numpy as np

from .table import Op
from .table import Sample as S

_rng = np.random.default_rng(20)


def rnd(*shape, low=-2.0, high=2.0):
    """A float64 array: a differentiable input."""
    return np.asarray(_rng.uniform(low, high, shape))


def ints(*shape, low=-5, high=6):
    return np.asarray(_rng.integers(low, high, shape))


def mask(*shape):
    return np.asarray(_rng.random(shape) < 0.5)


def spread(*shape):
    """Distinct values, well apart: finite differences do not change their order."""
    size = int(np.prod(shape))
    return (_rng.permutation(size) * 0.3 - 0.15 * size + 0.07).reshape(shape)


def unary(name, reference, low=-2.0, high=2.0, **options):
    """A row for an elementwise function: plain, 0-d, empty, transposed and strided inputs."""
    shapes = [rnd(2, 3, low=low, high=high), rnd(low=low, high=high), rnd(0, 2, low=low, high=high)]
    strided = [rnd(3, 2, low=low, high=high).T, rnd(2, 4, low=low, high=high)[:, ::2]]
    return Op(name, [S(x) for x in shapes + strided], reference, **options)


def binary(name, reference, low=-2.0, high=2.0, low2=None, numbers=(2.5,), **options):
    """A row for an elementwise function of two: equal shapes, broadcasting, 0-d, empty, a number on the right."""
    low2 = low if low2 is None else low2
    shapes = [((2, 3), (2, 3)), ((2, 1), (1, 3)), ((3,), (2, 3)), ((), (3,)), ((2,), ()), ((), ()), ((0, 2), (2,))]
    samples = [S(rnd(*a, low=low, high=high), rnd(*b, low=low2, high=high)) for a, b in shapes]
    samples += [S(rnd(2, 2, low=low, high=high).T, rnd(2, 2, low=low2, high=high))]
    return Op(name, samples + [S(rnd(3, low=low, high=high), n) for n in numbers], reference, **options)


def compare(name, reference, **options):
    """A row for a comparison: some elements are equal."""
    a = np.array([1.0, 2.0, 3.0])
    samples = [
        S(a, np.array([1.0, 3.0, 2.0])),
        S(a[:, None], a),
        S(a, 2),
        S(a, 2.5),
        S(np.array(1.0), a),
        S(ints(2, 3), ints(3)),
    ]
    return Op(name, samples, reference, differentiable=False, **options)


def logical(name, reference, other=True, **options):
    """A row for a logical function, of numbers and truth values."""
    a, b = mask(2, 3), mask(3)
    x, y = np.array([0.0, 1.0, -2.0]), np.array([3.0, 0.0, 1.0])
    samples = [S(a, b), S(x, y)] if other else [S(a), S(x), S(ints(3))]
    return Op(name, samples, reference, differentiable=False, **options)


def bitwise(name, reference, samples=None, **options):
    samples = samples or [S(ints(2, 3), ints(3)), S(mask(4), mask(4)), S(ints(3), 6)]
    return Op(name, samples, reference, differentiable=False, **options)


def reduction(name, reference, make=rnd, whole=True, **options):
    """A row for a reduction over one dimension, several, and all; with and without keepdim; 0-d and 1-d inputs."""
    samples = [
        S(make(2, 3), 1),
        S(make(2, 3), -2, True),
        S(make(2, 1, 2), (0, 2)),
        S(make(2, 2), (0, 1), keepdim=True),
        S(make(3), 0),
        S(make(3, 2).T, dim=1),
    ]
    return Op(name, samples + [S(make(2, 3)), S(make())] * whole, reference, **options)


def np_reduce(function):
    """A NumPy reduction under PyTorch's names of the arguments."""
    return lambda x, dim=None, keepdim=False: function(x, axis=dim, keepdims=keepdim)


def erf(x):
    return np.vectorize(math.erf, otypes=[float])(x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, dim):
    e = np.exp(x - x.max(dim, keepdims=True))
    return e / e.sum(dim, keepdims=True)


def trunc_divide(a, b):
    return np.trunc(a / b)


ARITHMETIC = [
    binary("add", lambda a, b, alpha=1: a + alpha * b),
    Op("add", [S(rnd(2), rnd(2), alpha=3), S(rnd(2), 2.0, alpha=0.5)], lambda a, b, alpha: a + alpha * b),
    binary("sub", lambda a, b, alpha=1: a - alpha * b, aliases=("subtract",)),
    Op("sub", [S(rnd(2), rnd(2), alpha=3), S(rnd(2), 2.0, alpha=0.5)], lambda a, b, alpha: a - alpha * b),
    binary("mul", np.multiply, aliases=("multiply",)),
    binary("true_divide", np.true_divide, low2=0.5),
    binary("div", np.divide, low2=0.5, aliases=("divide",)),
    Op(
        "div",
        [
            S(np.array([-7.0, 7.0, 2.5]), np.array([2.0, 2.0, -2.0]), rounding_mode="trunc"),
            S(ints(3), 2, rounding_mode="trunc"),
        ],
        lambda a, b, rounding_mode: np.trunc(a / b),
        differentiable=False,
    ),
    Op(
        "div",
        [
            S(np.array([-7.0, 7.0, 2.5]), np.array([2.0, 2.0, -2.0]), rounding_mode="floor"),
            S(ints(3), 2, rounding_mode="floor"),
        ],
        lambda a, b, rounding_mode: np.floor(a / b),
        differentiable=False,
    ),
    binary("floor_divide", np.floor_divide, low2=0.5, differentiable=False),
    binary("remainder", np.remainder, low2=0.5, numbers=(0.7, -0.7)),
    binary("fmod", np.fmod, low2=0.5, numbers=(0.7, -0.7)),
    binary("pow", np.power, low=0.3, numbers=(2, 3, 2.0, 0.5, -0.5, -1, -2, 0)),
    Op(
        "pow",
        [S(np.array([-2.0, 3.0, -0.5]), 3), S(np.array([-2.0, 3.0]), -2.0), S(2.0, rnd(3)), S(np.array([0.0, 1.5]), 2)],
        np.power,
    ),
    Op("pow", [S(np.array([0.0, 2.0, 0.0]), np.array([2.0, 0.0, 0.0]))], np.power, differentiable=False),
    Op("pow", [S(np.array([2, -3, 0]), np.array([3, 2, 0])), S(np.array([2, -3]), 2)], np.power, differentiable=False),
    Op("maximum", [S(spread(2, 3), spread(2, 3) + 0.13), S(spread(2, 1), spread(3) + 0.13)], np.maximum),
    Op("minimum", [S(spread(2, 3), spread(2, 3) + 0.13), S(spread(2, 1), spread(3) + 0.13)], np.minimum),
    binary("atan2", np.arctan2, aliases=("arctan2",), numbers=()),
    Op(
        "where",
        [
            S(mask(2, 3), rnd(2, 3), rnd(3)),
            S(mask(2, 1), rnd(3), 1.5),
            S(mask(3), 0.5, rnd(3)),
            S(mask(0), rnd(0), rnd(0)),
        ],
        np.where,
    ),
    Op("lerp", [S(rnd(2, 3), rnd(3), 0.3), S(rnd(2), rnd(2), rnd(2))], lambda a, b, w: a + w * (b - a)),
    Op(
        "addcmul",
        [S(rnd(2), rnd(2), rnd(2)), S(rnd(2, 2), rnd(2, 1), rnd(2), value=0.5)],
        lambda a, b, c, value=1: a + value * b * c,
    ),
    Op(
        "addcdiv",
        [S(rnd(2), rnd(2), rnd(2, low=1)), S(rnd(2, 2), rnd(2, 1), rnd(2, low=1), value=0.5)],
        lambda a, b, c, value=1: a + value * b / c,
    ),
    compare("eq", np.equal),
    compare("ne", np.not_equal, aliases=("not_equal",)),
    compare("lt", np.less, aliases=("less",)),
    compare("le", np.less_equal, aliases=("less_equal",)),
    compare("gt", np.greater, aliases=("greater",)),
    compare("ge", np.greater_equal, aliases=("greater_equal",)),
    logical("logical_and", np.logical_and),
    logical("logical_or", np.logical_or),
    logical("logical_xor", np.logical_xor),
    logical("logical_not", np.logical_not, other=False),
    bitwise("bitwise_and", np.bitwise_and),
    bitwise("bitwise_or", np.bitwise_or),
    bitwise("bitwise_xor", np.bitwise_xor),
    Op("conj", [S(rnd(2)), S(ints(2))], np.conj),
    bitwise("bitwise_not", np.bitwise_not, [S(ints(3)), S(mask(3))]),
]

POINTWISE = [
    unary("neg", np.negative, aliases=("negative",)),
    unary("abs", np.abs, aliases=("absolute",)),
    unary("sign", np.sign, aliases=()),
    unary("exp", np.exp),
    unary("exp2", np.exp2),
    unary("expm1", np.expm1),
    unary("log", np.log, 0.3),
    unary("log2", np.log2, 0.3),
    unary("log10", np.log10, 0.3),
    unary("log1p", np.log1p, -0.6),
    unary("sqrt", np.sqrt, 0.3),
    unary("rsqrt", lambda x: 1 / np.sqrt(x), 0.3),
    unary("square", np.square),
    unary("reciprocal", lambda x: 1 / x, 0.3),
    unary("sin", np.sin),
    unary("cos", np.cos),
    unary("tan", np.tan, -1, 1),
    unary("asin", np.arcsin, -0.8, 0.8, aliases=("arcsin",)),
    unary("acos", np.arccos, -0.8, 0.8, aliases=("arccos",)),
    unary("atan", np.arctan, aliases=("arctan",)),
    unary("sinh", np.sinh),
    unary("cosh", np.cosh),
    unary("tanh", np.tanh),
    unary("asinh", np.arcsinh, aliases=("arcsinh",)),
    unary("acosh", np.arccosh, 1.3, 3, aliases=("arccosh",)),
    unary("atanh", np.arctanh, -0.8, 0.8, aliases=("arctanh",)),
    unary("erf", erf),
    unary("erfc", lambda x: np.vectorize(math.erfc, otypes=[float])(x), -3, 3),
    unary("sigmoid", sigmoid),
    unary("relu", lambda x: np.maximum(x, 0)),
    unary("floor", np.floor),
    unary("ceil", np.ceil),
    unary("trunc", np.trunc, aliases=("fix",)),
    unary("frac", lambda x: x - np.trunc(x)),
    unary("round", lambda x, decimals=0: np.round(x, decimals)),
    Op(
        "round",
        [
            S(np.array([0.5, 1.5, -2.5, 1.25])),
            S(np.array([1.256, -2.344]), decimals=2),
            S(np.array([1256.0]), decimals=-2),
        ],
        lambda x, decimals=0: np.round(x, decimals),
        differentiable=False,
    ),
    Op(
        "clamp",
        [
            S(spread(2, 3), -0.4, 0.4),
            S(spread(3), min=0.0),
            S(spread(3), max=0.0),
            S(spread(3), None, 0.2),
            S(spread(3), 0.3, -0.3),
        ],
        lambda x, min=None, max=None: np.minimum(
            np.maximum(x, -np.inf if min is None else min), np.inf if max is None else max
        ),
        aliases=("clip",),
    ),
    Op(
        "clamp",
        [
            S(spread(2, 3), rnd(3, low=-0.3, high=-0.2), rnd(3, low=0.2, high=0.3)),
            S(spread(3), min=rnd(3, low=0.01, high=0.02)),
        ],
        lambda x, min=None, max=None: np.minimum(np.maximum(x, min), np.inf if max is None else max),
    ),
    Op("isnan", [S(np.array([1.0, np.nan, np.inf])), S(ints(3))], np.isnan, differentiable=False),
    Op("isinf", [S(np.array([1.0, np.nan, -np.inf])), S(ints(3))], np.isinf, differentiable=False),
    Op("isfinite", [S(np.array([1.0, np.nan, np.inf])), S(ints(3))], np.isfinite, differentiable=False),
    Op(
        "nan_to_num",
        [
            S(np.array([1.0, np.nan, np.inf, -np.inf])),
            S(np.array([np.nan, np.inf]), nan=1.0, posinf=2.0, neginf=3.0),
            S(rnd(2)),
        ],
        lambda x, **k: np.nan_to_num(x, **k),
        differentiable=False,
    ),
    Op("softmax", [S(rnd(2, 3), 1), S(rnd(2, 3), dim=0), S(rnd(3, 2).T, -1), S(rnd(3) * 400, 0)], softmax),
    Op(
        "log_softmax",
        [S(rnd(2, 3), 1), S(rnd(2, 3), dim=0), S(rnd(3, 2).T, -1)],
        lambda x, dim: np.log(softmax(x, dim)),
    ),
]

REDUCTIONS = [
    reduction("sum", np_reduce(np.sum)),
    Op("sum", [S(rnd(0)), S(rnd(0, 2), 0), S(rnd(2, 0), 0)], np_reduce(np.sum)),
    Op(
        "sum",
        [S(ints(2, 3)), S(mask(2, 3), 1), S(ints(2, 3).astype(np.uint8), 0)],
        np_reduce(np.sum),
        differentiable=False,
    ),
    reduction("mean", np_reduce(np.mean)),
    reduction("amax", np_reduce(np.max), spread),
    reduction("amin", np_reduce(np.min), spread),
    reduction("logsumexp", lambda x, dim, keepdim=False: np.log(np.exp(x).sum(dim, keepdims=keepdim)), whole=False),
    Op(
        "prod",
        [
            S(rnd(2, 3)),
            S(rnd(2, 3), 1),
            S(rnd(2, 3), -2, True),
            S(np.array([[0.0, 2.0], [3.0, 0.0]])),
            S(np.array([0.0, 0.0, 3.0])),
            S(np.array([0.0, 2.0, 3.0]), 0),
            S(rnd()),
            S(rnd(0)),
        ],
        np_reduce(np.prod),
    ),
    Op("prod", [S(ints(2, 3)), S(ints(3), 0)], np_reduce(np.prod), differentiable=False),
    Op(
        "cumsum",
        [S(rnd(2, 3), 0), S(rnd(2, 3), -1), S(rnd(), 0), S(rnd(3, 2).T, 1), S(rnd(0, 2), 0)],
        lambda x, dim: np.cumsum(x, dim) if x.ndim else x,
    ),
    Op("cumsum", [S(ints(3), 0), S(mask(3), 0)], np.cumsum, differentiable=False),
    reduction(
        "var", lambda x, dim=None, unbiased=True, keepdim=False: np.var(x, dim, ddof=1, keepdims=keepdim), whole=False
    ),
    reduction(
        "std", lambda x, dim=None, unbiased=True, keepdim=False: np.std(x, dim, ddof=1, keepdims=keepdim), whole=False
    ),
    Op(
        "var",
        [
            S(rnd(2, 3), unbiased=False),
            S(rnd(2, 3), 1, False),
            S(rnd(2, 3), 1, correction=0),
            S(rnd(2, 3), (0, 1), correction=2, keepdim=True),
        ],
        lambda x, dim=None, unbiased=True, correction=None, keepdim=False: np.var(
            x, dim, ddof=correction or 0, keepdims=keepdim
        ),
    ),
    Op(
        "std",
        [S(rnd(2, 3), False), S(rnd(2, 3), 1, correction=0)],
        lambda x, dim=None, correction=None: np.std(x, dim or None, ddof=0),
    ),
    Op(
        "norm",
        [
            S(rnd(2, 3)),
            S(rnd(2, 3), 2, 1),
            S(rnd(2, 3), 3, 0, True),
            S(rnd(2, 3), 1),
            S(spread(2, 3), math.inf, 1),
            S(spread(3), -math.inf),
        ],
        lambda x, p=2, dim=None, keepdim=False: np.linalg.norm(x.reshape(-1) if dim is None else x, p, dim, keepdim),
    ),
    Op("norm", [S(np.array([0.0, 2.0, -1.0]), 0)], lambda x, p: np.float64(np.count_nonzero(x)), differentiable=False),
    Op(
        "all",
        [S(mask(2, 3)), S(mask(2, 3), 1), S(np.array([1.0, 0.0]), 0, True), S(mask(0)), S(ints(2, 3), 0)],
        np_reduce(np.all),
        differentiable=False,
    ),
    Op(
        "any",
        [S(mask(2, 3)), S(mask(2, 3), 1), S(np.array([1.0, 0.0]), 0, True), S(mask(0)), S(ints(2, 3), 0)],
        np_reduce(np.any),
        differentiable=False,
    ),
    Op(
        "argmax",
        [
            S(spread(2, 3)),
            S(spread(2, 3), 1),
            S(spread(2, 3), -2, True),
            S(np.array([1.0, 3.0, 3.0])),
            S(rnd()),
            S(rnd(3, 0), 0),
        ],
        np_reduce(np.argmax),
        differentiable=False,
    ),
    Op(
        "argmin",
        [
            S(spread(2, 3)),
            S(spread(2, 3), 1),
            S(spread(2, 3), -2, True),
            S(np.array([3.0, 1.0, 1.0])),
            S(rnd()),
            S(rnd(3, 0), 0),
        ],
        np_reduce(np.argmin),
        differentiable=False,
    ),
    Op("max", [S(spread(2, 3)), S(rnd())], np.max),
    Op(
        "max",
        [S(spread(2, 3), 1), S(spread(2, 3), -2, True), S(np.array([1.0, 3.0, 2.0]), dim=0)],
        lambda x, dim, keepdim=False: (x.max(dim, keepdims=keepdim), x.argmax(dim, keepdims=keepdim)),
    ),
    Op("max", [S(spread(2, 3), spread(3) + 0.1)], np.maximum),
    Op("min", [S(spread(2, 3)), S(rnd())], np.min),
    Op(
        "min",
        [S(spread(2, 3), 1), S(spread(2, 3), -2, True)],
        lambda x, dim, keepdim=False: (x.min(dim, keepdims=keepdim), x.argmin(dim, keepdims=keepdim)),
    ),
    Op("min", [S(spread(2, 3), spread(3) + 0.1)], np.minimum),
    Op("median", [S(spread(5)), S(spread(2, 2))], lambda x: np.sort(x.reshape(-1))[(x.size - 1) // 2], emulated=False),
    Op(
        "median",
        [S(spread(2, 3), 1), S(spread(2, 4), -1, True)],
        lambda x, dim, keepdim=False: tuple(
            v.take([(x.shape[dim] - 1) // 2] if keepdim else (x.shape[dim] - 1) // 2, dim)
            for v in (np.sort(x, dim), np.argsort(x, dim))
        ),
        emulated=False,
    ),
]

SHAPE = [
    Op(
        "reshape",
        [S(rnd(2, 3), (3, 2)), S(rnd(2, 3), (-1,)), S(rnd(3, 2).T, (3, -1)), S(rnd(1), ()), S(rnd(0, 2), (2, 0))],
        np.reshape,
    ),
    Op("view", [S(rnd(2, 3), 3, 2), S(rnd(2, 3), -1), S(rnd(2, 3), (6, 1))], lambda x, *s: x.reshape(*s)),
    Op("view_as", [S(rnd(2, 3), ints(3, 2))], lambda x, y: x.reshape(y.shape)),
    Op("reshape_as", [S(rnd(3, 2).T, ints(6))], lambda x, y: x.reshape(y.shape)),
    Op(
        "flatten",
        [S(rnd(2, 1, 3)), S(rnd(2, 1, 3), 1), S(rnd(2, 1, 3), 0, 1), S(rnd())],
        lambda x, a=0, b=-1: x.reshape(-1) if not a and b == -1 else x.reshape(2, 3),
    ),
    Op("unflatten", [S(rnd(2, 6), 1, (2, 3)), S(rnd(6), 0, (-1, 2))], lambda x, d, s: x.reshape(*x.shape[:d], *s)),
    Op("permute", [S(rnd(2, 1, 3), (2, 0, 1)), S(rnd(2, 3), (-1, 0)), S(rnd(), ())], np.transpose),
    Op("transpose", [S(rnd(2, 1, 3), 0, 2), S(rnd(2, 3), -1, -2)], np.swapaxes, aliases=("swapaxes", "swapdims")),
    Op("t", [S(rnd(2, 3)), S(rnd(3)), S(rnd())], np.transpose),
    Op("T", [S(rnd(2, 3))], np.transpose, call=lambda t, x: x.T),
    Op("mT", [S(rnd(1, 2, 3))], lambda x: x.swapaxes(1, 2), call=lambda t, x: x.mT),
    Op("movedim", [S(rnd(2, 1, 3), 0, 2), S(rnd(2, 1, 3), (0, 1), (-1, 0))], np.moveaxis),
    Op(
        "expand",
        [S(rnd(2, 1), 2, 3), S(rnd(3), (2, -1)), S(rnd(), 2)],
        lambda x, *s: np.broadcast_to(x, (2,) if not x.ndim else (2, 3)),
    ),
    Op("expand_as", [S(rnd(3), ints(2, 3))], lambda x, y: np.broadcast_to(x, y.shape)),
    Op("broadcast_to", [S(rnd(3), (2, 3)), S(rnd(2, 1), (2, 2))], np.broadcast_to),
    Op("broadcast_tensors", [S(rnd(2, 1), rnd(3))], lambda *xs: tuple(np.broadcast_arrays(*xs))),
    Op("sum_to_size", [S(rnd(2, 3), (1, 3)), S(rnd(2, 3), (3,))], lambda x, size: x.sum(0, keepdims=len(size) == 2)),
    Op("unsqueeze", [S(rnd(2, 3), 0), S(rnd(2, 3), -1), S(rnd(), 0)], np.expand_dims),
    Op(
        "squeeze",
        [S(rnd(1, 2, 1)), S(rnd(1, 2, 1), 0), S(rnd(1, 2, 1), -1), S(rnd(1, 1, 2), (0, 1)), S(rnd())],
        np.squeeze,
    ),
    Op("squeeze", [S(rnd(2, 1), 0)], lambda x, dim: x),
    Op(
        "cat",
        [S([rnd(2, 3), rnd(1, 3)]), S([rnd(2, 1), rnd(2, 2)], 1), S((rnd(2), rnd(0), rnd(1)), dim=-1), S([rnd(2)])],
        lambda xs, dim=0: np.concatenate(xs, dim),
        aliases=("concat", "concatenate"),
    ),
    Op(
        "stack",
        [S([rnd(2), rnd(2)]), S([rnd(2, 3), rnd(2, 3)], 1), S((rnd(), rnd()), dim=-1)],
        lambda xs, dim=0: np.stack(xs, dim),
    ),
    Op(
        "split",
        [S(rnd(5), 2), S(rnd(2, 3), 2, 1), S(rnd(2, 4), [1, 3], dim=1)],
        lambda x, s, dim=0: tuple(
            np.split(x, range(s, x.shape[dim], s) if isinstance(s, int) else np.cumsum(s)[:-1], dim)
        ),
    ),
    Op("chunk", [S(rnd(5), 2), S(rnd(2, 3), 3, 1)], lambda x, n, dim=0: tuple(np.array_split(x, n, dim))),
    Op("unbind", [S(rnd(2, 3)), S(rnd(2, 3), 1)], lambda x, dim=0: tuple(np.moveaxis(x, dim, 0))),
    Op(
        "narrow",
        [S(rnd(2, 4), 1, 1, 2), S(rnd(3), 0, -2, 2), S(rnd(3), 0, 3, 0)],
        lambda x, dim, a, n: x.take(np.arange(a, a + n) % max(x.shape[dim], 1), dim),
    ),
    Op("select", [S(rnd(2, 3), 1, 0), S(rnd(2, 3), -2, -1), S(rnd(3), 0, 1)], lambda x, dim, i: x.take(i, dim)),
    Op("flip", [S(rnd(2, 3), (0,)), S(rnd(2, 3), (0, 1)), S(rnd(2, 3), [-1])], np.flip),
    Op("roll", [S(rnd(2, 3), 1), S(rnd(2, 3), 2, 1), S(rnd(2, 3), (1, -1), (0, 1))], np.roll),
    Op("tile", [S(rnd(2, 1), (2, 2)), S(rnd(2, 1), (2,)), S(rnd(2), (2, 1))], np.tile),
    Op("repeat", [S(rnd(2, 1), 1, 3), S(rnd(2), 2, 2)], lambda x, *n: np.tile(x, n)),
    Op(
        "tril",
        [S(rnd(2, 3)), S(rnd(3, 2), 1), S(rnd(2, 2, 2), diagonal=-1)],
        lambda x, diagonal=0: np.tril(x, diagonal),
    ),
    Op(
        "triu",
        [S(rnd(2, 3)), S(rnd(3, 2), 1), S(rnd(2, 2, 2), diagonal=-1)],
        lambda x, diagonal=0: np.triu(x, diagonal),
    ),
    Op("diagonal", [S(rnd(2, 3)), S(rnd(2, 3), 1), S(rnd(3, 2), -1), S(rnd(2, 2, 2), 0, 0, 2)], np.diagonal),
    Op("diag", [S(rnd(2, 3)), S(rnd(2, 3), 1), S(rnd(2)), S(rnd(2), 1), S(rnd(2), -1)], np.diag),
    Op("clone", [S(rnd(2, 3)), S(rnd(3, 2).T), S(rnd())], np.copy),
    Op("contiguous", [S(rnd(2, 3)), S(rnd(3, 2).T), S(rnd())], np.copy),
    Op(
        "meshgrid",
        [S(rnd(2), rnd(3), indexing="ij"), S(rnd(2), rnd(3), indexing="xy")],
        lambda *xs, indexing: tuple(np.meshgrid(*xs, indexing=indexing)),
    ),
]


def _put(x, index, values, accumulate=False):
    out = x.copy()
    if accumulate:
        np.add.at(out, index, values)
    else:
        out[index] = values
    return out


def _scatter(x, dim, index, src):
    out = x.copy()
    np.put_along_axis(out, index, src if isinstance(src, float) else src[tuple(map(slice, index.shape))], dim)
    return out


def _scatter_add(x, dim, index, src):
    out = x.copy()
    for place in np.ndindex(index.shape):
        out[(*place[:dim], index[place], *place[dim + 1 :])] += src[place]
    return out


def _index_add(x, dim, index, source, alpha=1):
    out = x.copy()
    np.add.at(np.moveaxis(out, dim, 0), index, alpha * np.moveaxis(source, dim, 0))
    return out


def _set(t, x, index, value):
    out = x.clone()
    out[index] = value
    return out


def _sorted(x, dim=-1, descending=False, stable=True):
    order = np.argsort(-x if descending else x, dim, kind="stable")
    return np.take_along_axis(x, order, dim), order


_cube = rnd(2, 3, 2)
INDICES = [
    0,
    -1,
    (1, 2),
    slice(1, None),
    (slice(None), slice(0, 3, 2)),
    (Ellipsis, 1),
    None,
    (0, None, slice(1)),
    (slice(None), 1),
    (slice(2, 1),),
    np.array([0, 1, 1]),
    np.array([[0], [1]]),
    (np.array([0, 1]), np.array([1, 2])),
    (slice(None), np.array([2, 0])),
    (np.array([0, 1]), slice(None), np.array([1, 0])),
    (Ellipsis, np.array([-1, 0])),
    (slice(1), np.array([0, 2])),
    np.array([True, False]),
    (slice(None), np.array([True, False, True])),
    (None, np.array([1])),
    np.array(1),
    [0, 1],
    np.zeros(0, np.int64),
    (np.array([[0], [1]]), np.array([0, 2])),
]

INDEXING = [
    Op(
        "__getitem__",
        [S(_cube, index) for index in INDICES]
        + [S(_cube, mask(2, 3)), S(_cube, mask(2, 3, 2)), S(rnd(), ()), S(rnd(), Ellipsis)],
        operator.getitem,
        call=lambda t, x, index: x[index],
    ),
    Op(
        "__setitem__",
        [S(_cube, index, 1.5) for index in INDICES if not (isinstance(index, np.ndarray) and index.size == 3)]
        + [
            S(_cube, 0, rnd(3, 2)),
            S(_cube, slice(None), rnd(2)),
            S(_cube, (slice(None), 1), rnd(2, 1)),
            S(_cube, np.array([1, 0]), rnd(2, 1, 1)),
            S(_cube, mask(2, 3), 0.5),
            S(_cube, _cube > 0, 2.0),
            S(_cube, (Ellipsis, np.array([1])), rnd(1)),
            S(rnd(), (), 2.0),
        ],
        lambda x, index, value: _put(x, index, value),
        call=_set,
    ),
    Op(
        "index_put",
        [
            S(rnd(3, 2), (np.array([0, 2]),), rnd(2, 2)),
            S(rnd(3, 2), (np.array([0, 2]), np.array([1, 1])), rnd(2)),
            S(rnd(3), (np.array([0, 0, 1]),), rnd(3), accumulate=True),
            S(rnd(3), (np.array([True, False, True]),), rnd(1)),
        ],
        _put,
    ),
    Op(
        "gather",
        [
            S(rnd(2, 3), 1, np.array([[0, 0], [2, 1]])),
            S(rnd(2, 3), -2, np.array([[1, 0]])),
            S(rnd(3), 0, np.array([2, 2, 0, 1])),
        ],
        lambda x, dim, index: np.take_along_axis(
            x[tuple(slice(n) if d != dim % x.ndim else slice(None) for d, n in enumerate(index.shape))], index, dim
        ),
    ),
    Op(
        "scatter",
        [
            S(rnd(2, 3), 1, np.array([[0, 2], [2, 1]]), rnd(2, 2)),
            S(rnd(2, 3), 0, np.array([[1, 0, 1]]), rnd(2, 3)),
            S(rnd(2, 3), 1, np.array([[0], [1]]), 1.5),
        ],
        _scatter,
    ),
    Op(
        "scatter_add",
        [S(rnd(2, 3), 1, np.array([[0, 0], [2, 1]]), rnd(2, 2)), S(rnd(3), 0, np.array([1, 1]), rnd(3))],
        _scatter_add,
    ),
    Op(
        "index_select",
        [S(rnd(2, 3), 1, np.array([2, 0, 2])), S(rnd(2, 3), -2, np.array([1])), S(rnd(3), 0, np.zeros(0, np.int64))],
        lambda x, dim, index: x.take(index, dim),
    ),
    Op(
        "index_add",
        [S(rnd(2, 3), 1, np.array([2, 2]), rnd(2, 2)), S(rnd(3), 0, np.array([1, 0]), rnd(2), alpha=2)],
        _index_add,
    ),
    Op(
        "masked_select",
        [S(rnd(2, 3), mask(2, 3)), S(rnd(2, 3), np.array([True, False, True])), S(rnd(3), mask(2, 3))],
        lambda x, m: np.broadcast_to(x, np.broadcast_shapes(x.shape, m.shape))[
            np.broadcast_to(m, np.broadcast_shapes(x.shape, m.shape))
        ],
    ),
    Op(
        "masked_fill",
        [S(rnd(2, 3), mask(2, 3), 0.5), S(rnd(2, 3), mask(3), 1), S(rnd(2, 3), mask(2, 1), rnd())],
        lambda x, m, v: np.where(m, v, x),
    ),
    Op(
        "nonzero",
        [S(np.array([[0.0, 1.0], [2.0, 0.0]])), S(mask(2, 3)), S(np.array(3)), S(np.array(0))],
        lambda x: np.stack(np.nonzero(x), 1) if x.ndim else np.zeros((int(x != 0), 0)),
        differentiable=False,
    ),
    Op("nonzero", [S(mask(2, 3), as_tuple=True)], lambda x, as_tuple: np.nonzero(x), differentiable=False),
    Op(
        "sort",
        [
            S(spread(2, 3)),
            S(spread(2, 3), 0),
            S(spread(2, 3), -1, True),
        ],
        _sorted,
        emulated=False,
    ),
    Op(
        "sort",
        [S(np.array([2.0, 1.0, 2.0, 1.0]), dim=0, descending=True, stable=True), S(np.array([1, 0, 1]), stable=True)],
        _sorted,
        differentiable=False,
        emulated=False,
    ),
    Op(
        "argsort",
        [S(spread(2, 3)), S(spread(2, 3), 0, True)],
        lambda x, *a: _sorted(x, *a)[1],
        differentiable=False,
        emulated=False,
    ),
    Op(
        "topk",
        [S(spread(5), 2), S(spread(2, 3), 2, 1), S(spread(2, 3), 1, 0, False)],
        lambda x, k, dim=-1, largest=True: tuple(v.take(range(k), dim) for v in _sorted(x, dim, largest)),
        emulated=False,
    ),
    Op(
        "unique",
        [S(np.array([3, 1, 3, 2])), S(np.array([[0.5, 0.5], [0.1, 0.5]]))],
        np.unique,
        differentiable=False,
        emulated=False,
    ),
    Op(
        "unique",
        [S(np.array([3, 1, 3, 2]), return_inverse=True, return_counts=True)],
        np.unique,
        differentiable=False,
        emulated=False,
    ),
    Op("bincount", [S(np.array([0, 2, 2])), S(np.array([1]), minlength=4)], np.bincount, differentiable=False),
]

LINALG = [
    Op(
        "matmul",
        [
            S(rnd(2, 3), rnd(3, 2)),
            S(rnd(3), rnd(3)),
            S(rnd(2, 3), rnd(3)),
            S(rnd(3), rnd(3, 2)),
            S(rnd(2, 2, 3), rnd(3, 2)),
            S(rnd(2, 1, 3), rnd(2, 3, 2)),
            S(rnd(2, 1, 3), rnd(3)),
            S(rnd(3, 2).T, rnd(2, 3).T),
            S(rnd(0, 2), rnd(2, 3)),
            S(rnd(2, 0), rnd(0, 2)),
            S(rnd(0, 1, 2), rnd(2, 1)),
        ],
        np.matmul,
    ),
    Op(
        "matmul",
        [S(rnd(2, 1, 1, 2), rnd(2, 2, 1)), S(rnd(3), rnd(2, 3, 1)), S(rnd(1, 1, 2), rnd(2, 2, 1))],
        np.matmul,
        emulated=False,
    ),
    Op("mm", [S(rnd(2, 3), rnd(3, 2))], np.matmul),
    Op("bmm", [S(rnd(2, 1, 3), rnd(2, 3, 2))], np.matmul),
    Op("mv", [S(rnd(2, 3), rnd(3))], np.matmul),
    Op("dot", [S(rnd(3), rnd(3))], np.dot),
    Op("outer", [S(rnd(2), rnd(3))], np.outer),
    Op(
        "addmm",
        [S(rnd(2), rnd(2, 3), rnd(3, 2)), S(rnd(2, 2), rnd(2, 3), rnd(3, 2), beta=0.5, alpha=2)],
        lambda m, a, b, beta=1, alpha=1: beta * m + alpha * (a @ b),
    ),
    Op(
        "einsum",
        [
            S("ij,jk->ik", rnd(2, 3), rnd(3, 2)),
            S("ij->ji", rnd(2, 3)),
            S("ii->i", rnd(2, 2)),
            S("bij,bjk->bik", rnd(2, 1, 3), rnd(2, 3, 1)),
            S("...ij,...jk", rnd(2, 1, 2), rnd(2, 2)),
            S("i,j", rnd(2), rnd(2)),
            S("ij,ij,j->", rnd(2, 2), rnd(2, 2), rnd(2)),
            S("ii", rnd(2, 2)),
        ],
        np.einsum,
    ),
]

OPERATORS = [
    *(
        Op(
            f"__{name}__",
            [S(rnd(2, 3), rnd(3)), S(rnd(2, low=0.5), 1.5), S(ints(3), 2)],
            getattr(operator, name),
            call=lambda t, a, b, f=getattr(operator, name): f(a, b),
        )
        for name in ("add", "sub", "mul")
    ),
    *(
        Op(
            f"__r{name}__",
            [S(rnd(2, 3)), S(ints(3))],
            lambda a, f=getattr(operator, name): f(3, a),
            call=lambda t, a, f=getattr(operator, name): f(3, a),
        )
        for name in ("add", "sub", "mul")
    ),
    Op(
        "__truediv__",
        [S(rnd(2), rnd(2, low=1)), S(rnd(2), 2), S(np.array([1, 2]), 2)],
        operator.truediv,
        call=lambda t, a, b: a / b,
    ),
    Op("__rtruediv__", [S(rnd(2, low=1)), S(np.array([1, 2]))], lambda a: 3 / a, call=lambda t, a: 3 / a),
    Op(
        "__floordiv__",
        [S(rnd(2), rnd(2, low=1)), S(ints(4), 2), S(ints(4), -2)],
        operator.floordiv,
        call=lambda t, a, b: a // b,
        differentiable=False,
    ),
    Op(
        "__rfloordiv__",
        [S(rnd(2, low=1)), S(np.array([1, -2]))],
        lambda a: 3 // a,
        call=lambda t, a: 3 // a,
        differentiable=False,
    ),
    Op("__mod__", [S(rnd(2), rnd(2, low=1)), S(ints(4), 3), S(ints(4), -3)], operator.mod, call=lambda t, a, b: a % b),
    Op("__rmod__", [S(rnd(2, low=1)), S(np.array([1, -2]))], lambda a: 3 % a, call=lambda t, a: 3 % a),
    Op("__pow__", [S(rnd(2, low=1), rnd(2)), S(rnd(2), 2), S(ints(3), 2)], operator.pow, call=lambda t, a, b: a**b),
    Op("__rpow__", [S(rnd(2)), S(np.array([1, 2]))], lambda a: 3**a, call=lambda t, a: 3**a),
    Op("__matmul__", [S(rnd(2, 3), rnd(3, 2))], operator.matmul, call=lambda t, a, b: a @ b),
    Op("__neg__", [S(rnd(2))], operator.neg, call=lambda t, a: -a),
    Op("__abs__", [S(rnd(2))], abs, call=lambda t, a: abs(a)),
    *(
        Op(
            f"__{name}__",
            [S(np.array([1.0, 2.0]), np.array([1.0, 3.0])), S(np.array([1, 2]), 1.5)],
            getattr(operator, name),
            call=lambda t, a, b, f=getattr(operator, name): f(a, b),
            differentiable=False,
        )
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
    ),
    *(
        Op(
            f"__{name}__",
            [S(ints(3), ints(3)), S(mask(3), mask(3)), S(mask(3), True)],
            f,
            call=lambda t, a, b, f=f: f(a, b),
            differentiable=False,
        )
        for name, f in (("and", operator.and_), ("or", operator.or_), ("xor", operator.xor))
    ),
    *(
        Op(
            f"__r{name}__",
            [S(ints(3)), S(mask(3))],
            lambda a, f=f: f(True, a),
            call=lambda t, a, f=f: f(True, a),
            differentiable=False,
        )
        for name, f in (("and", operator.and_), ("or", operator.or_), ("xor", operator.xor))
    ),
    Op("__invert__", [S(ints(3)), S(mask(3))], operator.invert, call=lambda t, a: ~a, differentiable=False),
    Op("__lshift__", [S(ints(3, low=0), 2)], operator.lshift, call=lambda t, a, b: a << b, differentiable=False),
    Op("__rshift__", [S(ints(3), 1)], operator.rshift, call=lambda t, a, b: a >> b, differentiable=False),
]


def _same(x):
    return x


METHODS = [
    Op(
        "copy_",
        [S(rnd(2, 3), rnd(3)), S(rnd(2), rnd(2))],
        lambda x, y: np.broadcast_to(y, x.shape),
        call=lambda t, x, y: x.clone().copy_(y),
    ),
    Op(
        "fill_",
        [S(rnd(2, 3), 1.5)],
        lambda x, v: np.full_like(x, v),
        call=lambda t, x, v: x.clone().fill_(v),
        differentiable=False,
    ),
    Op("fill_", [S(rnd(2, 3), rnd())], lambda x, v: np.full_like(x, v), call=lambda t, x, v: x.clone().fill_(v)),
    Op("zero_", [S(rnd(2, 3))], np.zeros_like, call=lambda t, x: x.clone().zero_(), differentiable=False),
    Op(
        "where_method",
        [S(rnd(2, 3), mask(2, 3), rnd(3)), S(rnd(2), mask(2), 0.5)],
        lambda x, c, y: np.where(c, x, y),
        call=lambda t, x, c, y: x.where(c, y),
    ),
    Op("double", [S(rnd(2)), S(ints(2))], np.float64),
    Op("float", [S(rnd(2)), S(ints(2))], np.float32, second=False),
    *(
        Op(name, [S(np.array([1.7, -2.2, 0.0]).clip(low)), S(mask(3))], kind, differentiable=False)
        for name, kind, low in (
            ("int", np.int32, -9),
            ("long", np.int64, -9),
            ("short", np.int16, -9),
            ("char", np.int8, -9),
            ("byte", np.uint8, 0),
            ("bool", np.bool_, -9),
        )
    ),
    Op("to", [S(rnd(2)), S(rnd(2), "cpu")], lambda x, *a: x, call=lambda t, x, *a: x.to(*a)),
    Op("type_as", [S(ints(2), rnd(2))], lambda x, y: x.astype(y.dtype), differentiable=False),
    Op("cpu", [S(rnd(2))], _same),
    Op("detach", [S(rnd(2))], _same, call=lambda t, x: x.detach(), differentiable=False),
]

CREATION = [
    Op("zeros", [S(2, 3), S((2, 3)), S(0), S(())], lambda *s: np.zeros(s[0] if isinstance(s[0], tuple) else s)),
    Op("ones", [S(2, 3), S((2, 3)), S(0), S(())], lambda *s: np.ones(s[0] if isinstance(s[0], tuple) else s)),
    Op("full", [S((2, 3), 1.5), S((2,), 3), S((), True)], np.full),
    Op("eye", [S(3), S(2, 3)], np.eye),
    Op("arange", [S(5), S(1, 4), S(0, 1, 0.25), S(5, 1, -2), S(2.5), S(0)], np.arange),
    Op("linspace", [S(0, 1, 5), S(3, -1, 3), S(1, 2, 1), S(0, 1, 0)], np.linspace),
    Op("logspace", [S(0, 2, 3), S(0, 3, 4, base=2.0)], lambda a, b, n, base=10.0: np.logspace(a, b, n, base=base)),
    Op("tril_indices", [S(3, 3), S(2, 3, 1)], lambda r, c, k=0: np.stack(np.tril_indices(r, k, c))),
    Op("triu_indices", [S(3, 3), S(2, 3, 1)], lambda r, c, k=0: np.stack(np.triu_indices(r, k, c))),
    Op("zeros_like", [S(rnd(2, 3)), S(ints(2))], np.zeros_like, differentiable=False),
    Op("ones_like", [S(rnd(2, 3)), S(ints(2))], np.ones_like, differentiable=False),
    Op("full_like", [S(rnd(2, 3), 1.5), S(ints(2), 3)], np.full_like, differentiable=False),
    Op("tensor", [S([1, 2]), S([[1.5, 2]]), S(True), S(2.5), S([]), S([True, False])], np.array),
    Op("new_tensor", [S(rnd(2), [1.5])], lambda x, d: np.array(d), differentiable=False),
    Op("new_zeros", [S(rnd(2), 3), S(ints(2), (2, 1))], lambda x, s: np.zeros(s, x.dtype), differentiable=False),
    Op("new_ones", [S(rnd(2), 3)], lambda x, s: np.ones(s, x.dtype), differentiable=False),
    Op("new_full", [S(rnd(2), (3,), 2.0)], lambda x, s, v: np.full(s, v, x.dtype), differentiable=False),
]

QUESTIONS = [
    Op(
        "isclose",
        [
            S(np.array([1.0, 2.0, np.nan]), np.array([1.0, 2.1, np.nan])),
            S(np.array([np.nan]), np.array([np.nan]), equal_nan=True),
            S(np.array([1.0]), np.array([1.1]), rtol=0.2),
        ],
        np.isclose,
        differentiable=False,
    ),
    Op(
        "allclose",
        [S(np.array([1.0, 2.0]), np.array([1.0, 2.1])), S(np.array([1.0]), np.array([1.1]), atol=0.2)],
        np.allclose,
        differentiable=False,
    ),
    Op(
        "equal",
        [S(rnd(2), rnd(2)), S(np.ones(2), np.ones(2)), S(np.ones(2), np.ones(3))],
        np.array_equal,
        differentiable=False,
    ),
    Op("numel", [S(rnd(2, 3)), S(rnd())], np.size, differentiable=False),
    Op("is_floating_point", [S(rnd(2)), S(ints(2))], lambda x: x.dtype.kind == "f", differentiable=False),
    Op("is_complex", [S(rnd(2))], np.iscomplexobj, differentiable=False),
    Op("is_tensor", [S(rnd(2)), S(3)], lambda x: isinstance(x, np.ndarray), differentiable=False),
    Op("item", [S(rnd()), S(rnd(1, 1))], np.ndarray.item, differentiable=False),
    Op("tolist", [S(rnd(2, 2)), S(rnd()), S(ints(2)), S(mask(2))], np.ndarray.tolist, differentiable=False),
    Op(
        "size",
        [S(rnd(2, 3)), S(rnd(2, 3), -1)],
        lambda x, dim=None: x.shape if dim is None else x.shape[dim],
        differentiable=False,
    ),
    Op("dim", [S(rnd(2, 3)), S(rnd())], np.ndim, differentiable=False, aliases=("ndimension",)),
    Op("nelement", [S(rnd(2, 3))], np.size, differentiable=False),
    Op("element_size", [S(rnd(2))], lambda x: x.itemsize, differentiable=False),
    Op(
        "stride",
        [S(rnd(2, 3)), S(rnd(2, 3).T), S(rnd(2, 3), 0)],
        lambda x, dim=None: tuple(s // 8 for s in x.strides) if dim is None else x.strides[dim] // 8,
        differentiable=False,
    ),
    Op("is_contiguous", [S(rnd(2, 3)), S(rnd(2, 3).T)], lambda x: x.flags.c_contiguous, differentiable=False),
    Op("__len__", [S(rnd(2, 3))], len, call=lambda t, x: len(x), differentiable=False),
    Op(
        "__contains__",
        [S(np.array([1.0, 2.0]), 2.0), S(np.array([1.0]), 3)],
        operator.contains,
        call=lambda t, x, v: v in x,
        differentiable=False,
    ),
    Op("__iter__", [S(rnd(2, 3))], tuple, call=lambda t, x: tuple(x)),
    Op("__bool__", [S(rnd(1)), S(np.array(0.0))], bool, call=lambda t, x: bool(x), differentiable=False),
    Op("__float__", [S(rnd()), S(np.array(2))], float, call=lambda t, x: float(x), differentiable=False),
    Op("__int__", [S(np.array(2.7)), S(np.array(2))], int, call=lambda t, x: int(x), differentiable=False),
    Op("__complex__", [S(np.array(2.5))], complex, call=lambda t, x: complex(x), differentiable=False),
    Op("__index__", [S(np.array(2))], lambda x: [5, 6, 7][x], call=lambda t, x: [5, 6, 7][x], differentiable=False),
]

PUBLIC = [*ARITHMETIC, *POINTWISE, *REDUCTIONS, *SHAPE, *INDEXING, *LINALG, *OPERATORS, *METHODS, *CREATION, *QUESTIONS]
