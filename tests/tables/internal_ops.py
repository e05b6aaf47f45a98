"""Rows for the primitives that no public function shows directly: building blocks, and functions that `nn.functional`
wraps."""

from __future__ import annotations

import numpy as np

from paceline.runtime import device, dtypes

from .ops import erf, ints, mask, rnd, sigmoid, spread, unary
from .table import Op
from .table import Sample as S


def internal(name, samples, reference, **options):
    return Op(name, samples, reference, internal=True, **options)


def _gated(a, b):
    return a * sigmoid(b)


def _first_in_order(x, dim, count, descending):
    order = np.argsort(-x if descending else x, dim)
    return tuple(v.take(range(count), dim) for v in (np.take_along_axis(x, order, dim), order))


def _embed(x, size, index):
    out = np.zeros(size, x.dtype)
    np.add.at(out, index, x)
    return out


def _pad(x, pad, value=0.0):
    """Element by element: where does each output element come from?"""
    out = np.full([n + a + b for n, (a, b) in zip(x.shape, pad, strict=True)], value)
    for place in np.ndindex(out.shape):
        source = tuple(i - a for i, (a, _) in zip(place, pad, strict=True))
        if all(0 <= i < n for i, n in zip(source, x.shape, strict=True)):
            out[place] = x[source]
    return out


def _along(index, dim):
    """The index arrays that put_along_axis would build."""
    grids = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    grids[dim] = index
    return tuple(grids)


def _gelu(x, approximate="none"):
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


_SLOPES = np.array([[-4.0, -0.5, 0.3], [1.5, 3.5, -1.0]])  # on both sides of 3 and -3


def _dropout(x, key, p):
    """With SplitMix64 in Python's integers."""
    out = np.zeros_like(x)
    for i, place in enumerate(np.ndindex(x.shape)):
        z = (key + i * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        out[place] = x[place] / (1 - p) if (z ^ z >> 31) >> 32 >= p * 2**32 else 0
    return out


ACTIVATIONS = [
    internal("dropout", [S(np.ones((5, 7)), 2**64 - 5, 0.3), S(np.ones((3, 4)).T, 12345, 0.5)], _dropout),
    unary("leaky_relu", lambda x, s=0.01: np.where(x > 0, x, x * s), internal=True),
    internal("leaky_relu", [S(rnd(3), 0.3)], lambda x, s: np.where(x > 0, x, x * s)),
    unary("elu", lambda x: np.where(x > 0, x, np.expm1(x)), internal=True),
    internal("elu", [S(rnd(4), 1.7, 1.1)], lambda x, a, s: s * np.where(x > 0, x, a * np.expm1(x))),
    unary("gelu", _gelu, internal=True),
    internal("glu", [S(rnd(2, 4)), S(rnd(4, 1), 0)], lambda x, dim=-1: _gated(*np.split(x, 2, dim))),
    internal("gelu", [S(rnd(2, 3), "tanh")], _gelu),
    internal(
        "hardtanh", [S(spread(2, 3)), S(spread(4), -0.4, 0.2)], lambda x, low=-1.0, high=1.0: np.clip(x, low, high)
    ),
    unary("silu", lambda x: x * sigmoid(x), internal=True),
    unary("logsigmoid", lambda x: np.log(sigmoid(x)), internal=True),
    internal("mish", [S(_SLOPES), S(_SLOPES.T)], lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    internal("hardsigmoid", [S(_SLOPES), S(_SLOPES.T)], lambda x: np.clip(x + 3, 0, 6) / 6),
    internal("hardswish", [S(_SLOPES), S(_SLOPES.T)], lambda x: x * np.clip(x + 3, 0, 6) / 6),
    unary("softplus", lambda x: np.log1p(np.exp(x)), internal=True),
    internal("softplus", [S(rnd(3), 2.0, 1.0)], lambda x, b, t: np.where(b * x > t, x, np.log1p(np.exp(b * x)) / b)),
    internal(
        "relu_backward", [S(rnd(2, 3), np.maximum(rnd(2, 3), 0).astype(np.float32))], lambda g, out: g * (out > 0)
    ),
    internal(
        "linear",
        [
            S(rnd(2, 3), rnd(2, 3), rnd(2)),
            S(rnd(2, 3), rnd(2, 3)),
            S(rnd(3), rnd(2, 3), rnd(2)),
            S(rnd(2, 1, 3), rnd(2, 3), rnd(2)),
            S(rnd(0, 3), rnd(2, 3), rnd(2)),
            S(rnd(2, 1, 0), rnd(2, 0), rnd(2)),
            S(rnd(2, 1, 0), rnd(0, 0)),
        ],
        lambda x, w, b=0.0: x @ w.T + b,
    ),
]

BLOCKS = [
    internal(
        "trunc_divide",
        [
            S(np.array([-7.0, 7.0, 2.5]), np.array([2.0, 2.0, -2.0])),
            S(ints(5), 2),
            S(ints(5), -3),
            S(ints(5), np.array([2, -2, 1, -1, 3])),
            S(np.array([3, 4, 5], np.uint8), 2),
            S(7, np.array([2, -2])),
        ],
        lambda a, b: np.trunc(a / b),
        differentiable=False,
    ),
    internal("bitwise_left_shift", [S(ints(3, low=0), 2)], np.left_shift, differentiable=False),
    internal("bitwise_right_shift", [S(ints(3), 1)], np.right_shift, differentiable=False),
    internal("zeros_like", [S(rnd(2, 3))], np.zeros_like, differentiable=False),
    internal("ones_like", [S(rnd(2, 3))], np.ones_like, differentiable=False),
    internal(
        "identity_like",
        [S(rnd(2, 3, 3), 3, 3, 1)],
        lambda x, n, ndim, dim: np.eye(3, dtype=bool)[None, :, :, None],
        differentiable=False,
    ),
    internal(
        "euclidean",
        [S(rnd(2, 3)), S(rnd(2, 3), 1), S(rnd(2, 3), 0, True)],
        lambda x, dim=None, keepdim=False: np.sqrt((x * x).sum(dim, keepdims=keepdim)),
    ),
    internal(
        "cast",
        [S(rnd(3), dtypes.float32, dtypes.float64)],
        lambda x, dtype, source: x.astype(dtype.numpy),
        second=False,
    ),
    internal("move", [S(rnd(3), device.CPU, device.CPU)], lambda x, to, source: x),
    internal("matmul_nd", [S(rnd(2, 3), rnd(3, 2)), S(rnd(2, 1, 2), rnd(2, 2, 2))], np.matmul),
    internal("matmul_nd", [S(rnd(2, 1, 2), rnd(2, 2)), S(rnd(1, 2), rnd(2, 2, 1))], np.matmul, emulated=False),
    internal("sum_rows", [S(rnd(3, 2)), S(rnd(2, 2, 2))], lambda x: x.sum(0)),
    internal("contiguous_copy", [S(rnd(3, 2).T)], np.copy),
    internal(
        "embed_range",
        [S(rnd(2, 2), (2, 4), 1, 1), S(rnd(2), (3,), 0, -2)],
        lambda x, size, dim, start: _embed(
            x, size, (slice(None),) * dim + (np.arange(start, start + x.shape[dim]) % size[dim],)
        ),
    ),
    internal(
        "embed_diagonal",
        [S(rnd(2), (2, 3), 1, 0, 1), S(rnd(1), (2, 2), -1, 0, 1), S(rnd(2, 2), (2, 2, 2), 0, 0, 2)],
        lambda x, size, k, a, b: (
            np.diag(x, k)[: size[0], : size[1]] if x.ndim == 1 else np.einsum("bi,ij->ibj", x, np.eye(2))
        ),
    ),
    internal(
        "embed_slice",
        [S(rnd(2), (2, 3), (slice(None), 1)), S(rnd(2, 2), (2, 3), (slice(None), slice(0, 3, 2)))],
        _embed,
    ),
    internal("slice_view", [S(rnd(2, 3), (slice(None), 1)), S(rnd(3), (slice(0, 3, 2),))], lambda x, index: x[index]),
    internal(
        "pad_constant",
        [S(rnd(2, 3), ((1, 0), (0, 2))), S(rnd(2, 3), ((0, 0), (-1, 1)), 1.5), S(rnd(3), ((-1, -1),))],
        _pad,
    ),
    internal(
        "scatter_zeros",
        [S(rnd(2, 2), np.array([[0, 0], [2, 1]]), (2, 3), 1)],
        lambda x, index, size, dim: _embed(x, size, _along(index, dim)),
    ),
    internal(
        "gather_along", [S(rnd(2, 3), np.array([[0, 0], [2, 1]]), 1)], lambda x, index, dim: x[_along(index, dim)]
    ),
    internal(
        "one_along",
        [S(rnd(2, 3), np.array([2, 0]), 1), S(rnd(2, 3), np.array([1, 0, 1]), 0)],
        lambda x, index, dim: x[_along(np.expand_dims(index, dim), dim)].squeeze(dim),
    ),
    internal("index_select_rows", [S(rnd(2, 3), np.array([2, 2]), 1)], lambda x, index, dim: x.take(index, dim)),
    internal(
        "index_add_zeros",
        [S(rnd(2, 2), np.array([2, 2]), (2, 3), 1)],
        lambda x, index, size, dim: _embed(x, size, (slice(None),) * dim + (index,)),
    ),
    internal(
        "scatter_write",
        [S(rnd(2, 3), rnd(2, 2), np.array([[0, 2], [2, 1]]), 1)],
        lambda x, src, index, dim: _written(x, src, index, dim),
    ),
    internal(
        "scatter_sum",
        [S(rnd(2, 3), rnd(2, 2), np.array([[0, 0], [2, 1]]), 1)],
        lambda x, src, index, dim: x + _embed(src, x.shape, _along(index, dim)),
    ),
    internal(
        "fill_where", [S(rnd(2, 3), mask(2, 3), 0.5), S(rnd(2, 3), mask(3), 1.0)], lambda x, m, v: np.where(m, v, x)
    ),
    internal(
        "first_in_order",
        [S(spread(2, 3), 1, 2, True), S(spread(5, 3), 0, 3, False), S(spread(3), 0, 0, True)],
        _first_in_order,
        emulated=False,
    ),
    internal("sort", [S(spread(2, 3), 1)], lambda x, dim: (np.sort(x, dim), np.argsort(x, dim)), emulated=False),
]


def _written(x, src, index, dim):
    out = x.copy()
    out[_along(index, dim)] = src
    return out


INTERNAL = ACTIVATIONS + BLOCKS
