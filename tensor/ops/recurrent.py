"""The elementwise half of recurrent cells: one node a step instead of a dozen."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from ..kernels import compiled, sources, takes
from . import pointwise as pw


@primitive(outputs=("h", "c"))
def lstm_gates(xp, gates: Array, cell: Array):
    """The LSTM's new hidden and cell state from its gates before activation [n, 4 * size] and its old cell [n, size].

    i, f, g, o = gates;  c = sigmoid(f) * cell + sigmoid(i) * tanh(g);  h = sigmoid(o) * tanh(c)
    """
    n = cell.shape[-1]
    sigmoid = pw.sigmoid.declaration.body
    i, f, o = (sigmoid(xp, gates[..., k * n : (k + 1) * n]) for k in (0, 1, 3))
    c = f * cell + i * xp.tanh(gates[..., 2 * n : 3 * n])
    return o * xp.tanh(c), c


@lstm_gates.joint_vjp
def _lstm_gates(F: Any, g: Any, needs: tuple, gates: Any, cell: Any) -> tuple:
    n = cell.shape[-1]
    i, f, u, o = (F.narrow(gates, -1, k * n, n) for k in range(4))
    i, f, u, o = F.sigmoid(i), F.sigmoid(f), F.tanh(u), F.sigmoid(o)
    t = F.tanh(f * cell + i * u)
    gh, gc = g
    gc = gc + gh * o * (1 - t * t)
    parts = [gc * u * i * (1 - i), gc * cell * f * (1 - f), gc * i * (1 - u * u), gh * t * o * (1 - o)]
    return F.cat(parts, -1), gc * f


_LSTM_WORK = 8


@compiled(lstm_gates, work=_LSTM_WORK)
def _compiled_lstm(gates: Any, cell: Any) -> Any:
    if not _rows(gates, cell):
        return NotImplemented
    h, c = numpy.empty_like(cell), numpy.empty_like(cell)
    sources.recurrent.lstm(gates, cell, h, c)
    return h, c


@lstm_gates.fused_vjp("cpu", lambda g: takes(g[0], _LSTM_WORK))
def _compiled_lstm_vjp(xp: Any, g: Any, needs: tuple, gates: Any, cell: Any) -> Any:
    if not _rows(*g, gates, cell):
        return NotImplemented
    gradients = numpy.empty_like(gates), numpy.empty_like(cell)
    sources.recurrent.lstm_backward(*g, gates, cell, *gradients)
    return gradients


def _rows(*arrays: Any) -> bool:
    """Whether they are [n, size], as kernels take them."""
    return all(a.ndim == 2 and a.flags.c_contiguous and a.dtype is arrays[0].dtype for a in arrays)


@primitive
def gru_gates(xp, from_input: Array, from_hidden: Array, hidden: Array):
    """The GRU's new hidden state from its gates before activation, input's and hidden's parts [n, 3 * size] apart.

    r = sigmoid(x_r + h_r);  z = sigmoid(x_z + h_z);  u = tanh(x_n + r * h_n);  h = u + z * (hidden - u)
    """
    n = hidden.shape[-1]
    sigmoid = pw.sigmoid.declaration.body
    both = from_input[..., : 2 * n] + from_hidden[..., : 2 * n]
    r, z = sigmoid(xp, both[..., :n]), sigmoid(xp, both[..., n:])
    u = xp.tanh(from_input[..., 2 * n :] + r * from_hidden[..., 2 * n :])
    return u + z * (hidden - u)


@gru_gates.joint_vjp
def _gru_gates(F: Any, g: Any, needs: tuple, from_input: Any, from_hidden: Any, hidden: Any) -> tuple:
    n = hidden.shape[-1]
    x, h = ([F.narrow(gates, -1, k * n, n) for k in range(3)] for gates in (from_input, from_hidden))
    r, z = F.sigmoid(x[0] + h[0]), F.sigmoid(x[1] + h[1])
    u = F.tanh(x[2] + r * h[2])
    gu = g * (1 - z) * (1 - u * u)
    gr = gu * h[2] * r * (1 - r)
    gz = g * (hidden - u) * z * (1 - z)
    return F.cat([gr, gz, gu], -1), F.cat([gr, gz, gu * r], -1), g * z
