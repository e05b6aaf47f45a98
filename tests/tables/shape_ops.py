"""Rows for strided views, joining, splitting, turning, creation."""

from __future__ import annotations

import itertools

import numpy as np

from .ops import rnd
from .structure_ops import exact, internal
from .table import Op
from .table import Sample as S

# -- strided views, copies ---------------------------------------------------------------------------------------------


def _window(x, size, stride, offset=0):
    return np.lib.stride_tricks.as_strided(x.reshape(-1)[offset:], size, [s * x.itemsize for s in stride])


def _window_written(x, src, size, stride, offset=0):
    out = x.copy()
    _window(out, size, stride, offset)[...] = src
    return out


def _windows(x, dim, size, step):
    starts = range(0, x.shape[dim] - size + 1, step)
    return np.stack([np.moveaxis(x.take(range(a, a + size), dim), dim, -1) for a in starts], dim)


def _into(x, shape, size, stride, offset, source):
    out = np.zeros(int(np.prod(shape)))
    np.add.at(out, _window(np.arange(out.size), size, stride, offset), x)
    return out.reshape(shape)


_STRIDED = [S(rnd(6), (2, 2), (1, 2), 1), S(rnd(2, 3), (2, 3), (1, 1)), S(rnd(4), (), (), 2)]
_ROWS = ((3, 1), 0)  # the strides and offset of a [2, 3] tensor

STRIDED = [
    Op("as_strided", _STRIDED, _window),
    Op("as_strided_copy", _STRIDED, _window),
    Op(
        "as_strided_scatter",
        [S(rnd(6), rnd(2, 2), (2, 2), (1, 3)), S(rnd(2, 3), rnd(2), (2,), (2,), 1)],
        _window_written,
    ),
    internal(
        "as_strided_window",
        [S(rnd(2, 3), (2, 2), (1, 3), 1, _ROWS)],
        lambda x, size, stride, offset, source: _window(x, size, stride, offset),
    ),
    internal("as_strided_sum", [S(rnd(2, 2), (2, 3), (2, 2), (1, 1), 1, _ROWS)], _into),
    Op("unfold", [S(rnd(5), 0, 3, 2), S(rnd(2, 4), 1, 2, 1), S(rnd(3, 2), 0, 2, 1)], _windows),
    Op("unfold_copy", [S(rnd(5), 0, 3, 2)], _windows),
    Op("alias_copy", [S(rnd(2, 3))], np.copy),
    internal("alias", [S(rnd(2, 3))], np.copy),
    Op("diagonal_copy", [S(rnd(3, 3), 1)], np.diagonal),
    Op("expand_copy", [S(rnd(2, 1), (2, 3))], np.broadcast_to),
    Op("narrow_copy", [S(rnd(5), 0, 1, 2)], lambda x, dim, a, n: x[a : a + n]),
    Op("permute_copy", [S(rnd(2, 3), (1, 0))], np.transpose),
    Op("select_copy", [S(rnd(2, 3), 1, 0)], lambda x, dim, i: x[:, i]),
    Op(
        "slice_copy",
        [S(rnd(5), 0, 1, 4, 2), S(rnd(2, 3), 1, 1)],
        lambda x, dim, a, b=None, step=1: x[(slice(None),) * dim + (slice(a, b, step),)],
    ),
    Op("split_copy", [S(rnd(4), 2)], lambda x, n: tuple(np.split(x, 2))),
    Op("split_with_sizes_copy", [S(rnd(4), [1, 3])], lambda x, n: tuple(np.split(x, [1]))),
    Op("squeeze_copy", [S(rnd(1, 3), 0)], np.squeeze),
    Op("unsqueeze_copy", [S(rnd(3), 0)], np.expand_dims),
    Op("t_copy", [S(rnd(2, 3))], np.transpose),
    Op("transpose_copy", [S(rnd(2, 3), 0, 1)], np.swapaxes),
    Op("unbind_copy", [S(rnd(2, 3))], tuple),
    Op("view_copy", [S(rnd(2, 3), (6,))], np.reshape),
]

# -- joining, splitting, turning ---------------------------------------------------------------------------------------


def _parts(function):
    return lambda x, given: tuple(function(x, given))


def _blocks(*xs):
    out = np.zeros((sum(np.atleast_2d(x).shape[0] for x in xs), sum(np.atleast_2d(x).shape[1] for x in xs)))
    row = column = 0
    for x in map(np.atleast_2d, xs):
        out[row : row + x.shape[0], column : column + x.shape[1]] = x
        row, column = row + x.shape[0], column + x.shape[1]
    return out


def _embedded(x, offset=0, dim1=-2, dim2=-1):
    n = x.shape[-1] + abs(offset)
    out = np.zeros((*x.shape[:-1], n, n))
    i = np.arange(x.shape[-1])
    out[..., i + max(-offset, 0), i + max(offset, 0)] = x
    return np.moveaxis(out, (-2, -1), (dim1, dim2))


def _padded(x, pad, value=0.0):
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    return np.pad(x, [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1], constant_values=value)


JOINING = [
    Op("atleast_1d", [S(rnd()), S(rnd(2))], np.atleast_1d),
    Op("atleast_2d", [S(rnd()), S(rnd(2)), S(rnd(2, 1))], np.atleast_2d),
    Op("atleast_3d", [S(rnd()), S(rnd(2)), S(rnd(2, 1)), S(rnd(1, 2, 1))], np.atleast_3d),
    Op("hstack", [S([rnd(2), rnd(1)]), S([rnd(2, 1), rnd(2, 2)])], np.hstack),
    Op("vstack", [S([rnd(2), rnd(2)]), S([rnd(1, 2), rnd(2, 2)])], np.vstack, aliases=("row_stack",)),
    Op("dstack", [S([rnd(2), rnd(2)]), S([rnd(2, 2), rnd(2, 2)])], np.dstack),
    Op("column_stack", [S([rnd(2), rnd(2, 2)])], np.column_stack),
    Op("block_diag", [S(rnd(1, 2), rnd(2, 2), rnd(3))], _blocks),
    Op("constant_pad_nd", [S(rnd(2, 3), [1, 0]), S(rnd(2, 3), [0, 1, 2, 0], 1.5)], _padded),
    Op(
        "cartesian_prod",
        [S(rnd(2), rnd(3)), S(rnd(2))],
        lambda *xs: np.array(list(itertools.product(*xs))) if len(xs) > 1 else xs[0],
    ),
    Op(
        "combinations",
        [S(rnd(4)), S(rnd(3), 2, True)],
        lambda x, r=2, again=False: np.array(
            list((itertools.combinations_with_replacement if again else itertools.combinations)(x, r))
        ),
    ),
    Op(
        "tensor_split",
        [S(rnd(5), 2), S(rnd(5), [1, 3]), S(rnd(2, 4), 3, 1)],
        lambda x, n, dim=0: tuple(np.array_split(x, n, dim)),
    ),
    Op("hsplit", [S(rnd(4), 2), S(rnd(2, 3), [1])], _parts(np.hsplit)),
    Op("vsplit", [S(rnd(4, 2), 2)], _parts(np.vsplit)),
    Op("dsplit", [S(rnd(1, 2, 4), [1, 2])], _parts(np.dsplit)),
    Op("split_with_sizes", [S(rnd(4), [1, 3])], lambda x, n: tuple(np.split(x, [1]))),
    Op("unsafe_split", [S(rnd(4), 2)], _parts(np.split)),
    Op("unsafe_chunk", [S(rnd(5), 2)], _parts(np.array_split)),
    Op("repeat_interleave", [S(rnd(2, 3), 2), S(rnd(3), np.array([1, 0, 2])), S(rnd(2, 3), 2, 1)], np.repeat),
    exact("repeat_interleave", [S(np.array([1, 0, 2]))], lambda n: np.repeat(np.arange(3), n)),
    Op("diagflat", [S(rnd(2)), S(rnd(1, 2), -1)], np.diagflat),
    Op("diag_embed", [S(rnd(2)), S(rnd(2, 3), 1), S(rnd(2, 2), -1, 0, 2)], _embedded),
    Op("fliplr", [S(rnd(2, 3))], np.fliplr),
    Op("flipud", [S(rnd(2, 3)), S(rnd(3))], np.flipud),
    Op(
        "rot90",
        [S(rnd(2, 3)), S(rnd(2, 3), 2), S(rnd(2, 3), -1), S(rnd(1, 2, 3), 1, (1, 2)), S(rnd(2, 2), 4)],
        np.rot90,
    ),
    Op("adjoint", [S(rnd(2, 3)), S(rnd(1, 2, 3))], lambda x: x.swapaxes(-2, -1)),
    Op("H", [S(rnd(2, 3))], np.transpose, call=lambda t, x: x.H),
    Op("mH", [S(rnd(1, 2, 3))], lambda x: x.swapaxes(1, 2), call=lambda t, x: x.mH),
    Op("ravel", [S(rnd(2, 3)), S(rnd()), S(rnd(3, 2).T)], np.ravel),
    Op("moveaxis", [S(rnd(2, 1, 3), 0, 2)], np.moveaxis),
    exact("unravel_index", [S(np.array([5, 0, 3]), (2, 3))], np.unravel_index),
    exact("broadcast_shapes", [S((2, 1), (3,)), S((1,), (2, 2))], np.broadcast_shapes),
]

# -- creation ----------------------------------------------------------------------------------------------------------


def _strides(x):
    return x.stride()


CREATION = [
    exact("asarray", [S(np.array([1.0, 2.0])), S([1, 2], copy=True)], lambda x, copy=False: np.asarray(x)),
    exact(
        "frombuffer",
        [S(b"\x01\x02\x03", 1)],
        lambda b, k: np.array([2, 3]),
        call=lambda t, b, k: t.frombuffer(bytearray(b), dtype=t.uint8, offset=k),
    ),
    exact("storage_offset", [S(rnd(4, 2))], lambda x: 3, call=lambda t, x: x[1:, 1].storage_offset()),
    exact("scalar_tensor", [S(2.5), S(3)], np.float32),
    exact("empty_strided", [S((2, 3), (1, 2))], lambda *a: (1, 2), call=lambda t, *a: _strides(t.empty_strided(*a))),
    exact(
        "new_empty_strided",
        [S(rnd(1), (2, 3), (1, 2))],
        lambda *a: (1, 2),
        call=lambda t, x, *a: _strides(x.new_empty_strided(*a)),
    ),
    exact("empty_permuted", [S((2, 3), (1, 0))], lambda *a: (1, 2), call=lambda t, *a: _strides(t.empty_permuted(*a))),
    exact("zeros", [S((2, 3))], np.zeros, call=lambda t, size: t.zeros(size=size, layout=t.strided, pin_memory=False)),
    exact(
        "arange",
        [S(0.0, 1.0, 0.1)],
        np.arange,
        call=lambda t, *a: t.arange(*a, dtype=t.float64, out=t.empty(10, dtype=t.float64)),
    ),
]

ROWS = [*STRIDED, *JOINING, *CREATION]
