"""Recurrent layers: the elementwise half of a cell's step as one node, and all steps of a layer as one node."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from ...autograd.primitive import RAW_NUMPY, primitive, raw_namespace
from ...runtime.arrays import Array
from ...runtime.threads import get_num_threads
from ..kernels import compiled, sources, takes, usable
from . import multiplying
from . import pointwise as pw


@primitive(outputs=("h", "c"))
def lstm_gates(xp, gates: Array, cell: Array):
    """The LSTM's new hidden and cell state from its gates before activation [n, 4 * size] and its old cell [n, size].

    i, f, g, o = gates;  c = sigmoid(f) * cell + sigmoid(i) * tanh(g);  h = sigmoid(o) * tanh(c)
    """
    n = cell.shape[-1]
    opened = pw.sigmoid.declaration.body(xp, gates)  # all at once: for few elements calls are what takes time
    c = xp.tanh(gates[..., 2 * n : 3 * n])
    c *= opened[..., :n]
    c += opened[..., n : 2 * n] * cell
    h = xp.tanh(c)
    h *= opened[..., 3 * n :]
    return h, c


@lstm_gates.joint_vjp
def _lstm_gates(F: Any, g: Any, needs: tuple, gates: Any, cell: Any) -> tuple:
    n = cell.shape[-1]
    opened = F.sigmoid(gates)
    slopes = opened * (1 - opened)
    i, f, _, o = (F.narrow(opened, -1, k * n, n) for k in range(4))
    of_i, of_f, _, of_o = (F.narrow(slopes, -1, k * n, n) for k in range(4))
    u = F.tanh(F.narrow(gates, -1, 2 * n, n))
    t = F.tanh(f * cell + i * u)
    gh, gc = g
    gc = gc + gh * o * (1 - t * t)
    return F.cat([gc * u * of_i, gc * cell * of_f, gc * i * (1 - u * u), gh * t * of_o], -1), gc * f


_LSTM_WORK = 8  # for an element of the gates, of which there are four for one of the state


@compiled(lstm_gates, work=_LSTM_WORK, light=True, worth=2)
def _compiled_lstm(gates: Any, cell: Any) -> Any:
    if not _rows(gates, cell):
        return NotImplemented
    h, c = numpy.empty_like(cell), numpy.empty_like(cell)
    sources.recurrent.lstm(gates, cell, h, c)
    return h, c


def _takes_lstm(g: tuple) -> bool:
    return takes(g[0], 4 * _LSTM_WORK, light=True, worth=2)


@lstm_gates.fused_vjp("cpu", _takes_lstm)
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
    opened = sigmoid(xp, both)
    u = opened[..., :n] * from_hidden[..., 2 * n :]
    u += from_input[..., 2 * n :]
    u = xp.tanh(u)
    h = hidden - u
    h *= opened[..., n:]
    h += u
    return h


@gru_gates.joint_vjp
def _gru_gates(F: Any, g: Any, needs: tuple, from_input: Any, from_hidden: Any, hidden: Any) -> tuple:
    n = hidden.shape[-1]
    opened = F.sigmoid(F.narrow(from_input, -1, 0, 2 * n) + F.narrow(from_hidden, -1, 0, 2 * n))
    slopes = opened * (1 - opened)
    r, z = F.narrow(opened, -1, 0, n), F.narrow(opened, -1, n, n)
    of_u = F.narrow(from_hidden, -1, 2 * n, n)
    u = F.tanh(F.narrow(from_input, -1, 2 * n, n) + r * of_u)
    gu = g * (1 - z) * (1 - u * u)
    gr = gu * of_u * F.narrow(slopes, -1, 0, n)
    gz = g * (hidden - u) * F.narrow(slopes, -1, n, n)
    return F.cat([gr, gz, gu], -1), F.cat([gr, gz, gu * r], -1), g * z


# -- one step of each kind ---------------------------------------------------------------------------------------------


class _Cell(NamedTuple):
    """One step of a kind of layer: from the gates before activation, the input's and the hidden state's part of them.

    Attributes:
        step: (F, input's part, hidden state's part, state) -> new state, a tuple that begins with the hidden state.
        slopes: (F, gradients of the new state, and the arguments of step) -> gradients of the input's part, of the
            hidden state's part, and of the old state as far as it does not go through the latter (None: not at all).
    """

    step: Callable
    slopes: Callable


def _lstm_step(F: Any, x: Any, h: Any, state: tuple) -> tuple:
    return tuple(F.lstm_gates(x + h, state[1]))


def _lstm_slopes(F: Any, g: tuple, x: Any, h: Any, state: tuple) -> tuple:
    gates, found = x + h, NotImplemented
    if F is RAW_NUMPY and _takes_lstm(g):
        found = _compiled_lstm_vjp(numpy, g, (), gates, state[1])
    slopes, cell = _lstm_gates(F, g, (), gates, state[1]) if found is NotImplemented else found
    return slopes, slopes, (None, cell)


def _gru_step(F: Any, x: Any, h: Any, state: tuple) -> tuple:
    return (F.gru_gates(x, h, state[0]),)


def _gru_slopes(F: Any, g: tuple, x: Any, h: Any, state: tuple) -> tuple:
    of_x, of_h, of_state = _gru_gates(F, g[0], (), x, h, state[0])
    return of_x, of_h, (of_state,)


def _tanh_step(F: Any, x: Any, h: Any, state: tuple) -> tuple:
    return (F.tanh(x + h),)


def _tanh_slopes(F: Any, g: tuple, x: Any, h: Any, state: tuple) -> tuple:
    out = F.tanh(x + h)
    slopes = g[0] * (1 - out * out)
    return slopes, slopes, (None,)


def _relu_step(F: Any, x: Any, h: Any, state: tuple) -> tuple:
    return (F.relu(x + h),)


def _relu_slopes(F: Any, g: tuple, x: Any, h: Any, state: tuple) -> tuple:
    slopes = F.relu_backward(g[0], F.relu(x + h))
    return slopes, slopes, (None,)


_CELLS = {
    "LSTM": _Cell(_lstm_step, _lstm_slopes),
    "GRU": _Cell(_gru_step, _gru_slopes),
    "RNN_TANH": _Cell(_tanh_step, _tanh_slopes),
    "RNN_RELU": _Cell(_relu_step, _relu_slopes),
}

# -- whole layers ------------------------------------------------------------------------------------------------------


@primitive(outputs=("out", "h_n", "c_n"), residuals=("kept",))
def lstm_layer(
    xp,
    input: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    weight_hr: Array | None,
    h: Array,
    c: Array,
    counts: tuple,
    reverse: bool = False,
):
    """One layer of LSTM in one direction.

    Args:
        input: [rows, features]: the first counts[0] rows are the first step of as many sequences, the next counts[1]
            rows the second step of the first counts[1] of them, and so on.
        weight_ih: [4 * size, features].
        weight_hh: [4 * size, size], or [4 * size, projected].
        bias_ih, bias_hh: [4 * size].
        weight_hr: [projected, size], which projects the hidden state.
        h, c: [n, size] or for h [n, projected]: the state before the first step.
        counts: how many sequences have each step, not rising; the first is n.
        reverse: go from the last step of each sequence to the first.

    Returns:
        The hidden state after each step [rows, size], and the state (h, c) at the end.
    """
    weights = weight_ih, weight_hh, bias_ih, bias_hh, weight_hr
    out, state, steps = _run(raw_namespace(input), _CELLS["LSTM"], input, weights, (h, c), counts, reverse)
    return out, *state, steps


@lstm_layer.joint_vjp
def _lstm_layer(
    F: Any,
    g: Any,
    needs: tuple,
    input: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any,
    bias_hh: Any,
    weight_hr: Any,
    h: Any,
    c: Any,
    counts: tuple,
    reverse: bool,
) -> tuple:
    weights = weight_ih, weight_hh, bias_ih, bias_hh, weight_hr
    _, _, steps = _run(F, _CELLS["LSTM"], input, weights, (h, c), counts, reverse)
    found, state = _gradients(F, _CELLS["LSTM"], g, needs, input, weights, steps, counts, reverse)
    return (*found, *state)


@primitive(outputs=("out", "h_n"), residuals=("kept",))
def rnn_layer(
    xp,
    input: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    h: Array,
    mode: str,
    counts: tuple,
    reverse: bool = False,
):
    """One layer of "GRU", "RNN_TANH" or "RNN_RELU", which `mode` says, in one direction; the rest as `lstm_layer`."""
    weights = weight_ih, weight_hh, bias_ih, bias_hh, None
    out, state, steps = _run(raw_namespace(input), _CELLS[mode], input, weights, (h,), counts, reverse)
    return out, *state, steps


@rnn_layer.joint_vjp
def _rnn_layer(
    F: Any,
    g: Any,
    needs: tuple,
    input: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any,
    bias_hh: Any,
    h: Any,
    mode: str,
    counts: tuple,
    reverse: bool,
) -> tuple:
    weights = weight_ih, weight_hh, bias_ih, bias_hh, None
    _, _, steps = _run(F, _CELLS[mode], input, weights, (h,), counts, reverse)
    found, state = _gradients(F, _CELLS[mode], g, needs, input, weights, steps, counts, reverse)
    return (*found[:5], *state)


class _Step(NamedTuple):
    """What backward needs of one step: the parts of the gates, the state before, and an LSTM's h before projection."""

    x: Any
    h: Any
    state: tuple
    unprojected: Any


def _order(counts: tuple, reverse: bool) -> list[tuple[int, int, int]]:
    """(step, its first row, its number of rows) in the order of computing."""
    starts = itertools.accumulate(counts, initial=0)
    steps = list(zip(range(len(counts)), starts, counts, strict=False))
    return steps[::-1] if reverse else steps


def _first(F: Any, states: tuple, n: int) -> tuple:
    """The states of the first n sequences."""
    return tuple(s if s.shape[0] == n else F.narrow(s, 0, 0, n) for s in states)


def _replaced(F: Any, states: tuple, new: tuple) -> tuple:
    """The states with those of the first sequences replaced: the others have ended, or not begun."""
    n, total = new[0].shape[0], states[0].shape[0]
    if n == total:
        return new
    return tuple(F.cat([x, F.narrow(s, 0, n, total - n)], 0) for x, s in zip(new, states, strict=True))


def _joined(F: Any, rows: list) -> Any:
    """The rows of all steps."""
    return F.cat(rows, 0) if len(rows) > 1 else rows[0]


def _run(
    F: Any, cell: _Cell, input: Any, weights: tuple, state: tuple, counts: tuple, reverse: bool
) -> tuple[Any, tuple, list[_Step]]:
    """The output, the state at the end, and all steps in the order of rows, computed one after the other."""
    weight_ih, weight_hh, bias_ih, bias_hh, weight_hr = weights
    from_input = F.linear(input, weight_ih, bias_ih)  # one product for all steps
    outputs: list = [None] * len(counts)
    steps: list = [None] * len(counts)
    for t, start, n in _order(counts, reverse):
        before = _first(F, state, n)
        x, h = F.narrow(from_input, 0, start, n), F.linear(before[0], weight_hh, bias_hh)
        after = cell.step(F, x, h, before)
        steps[t] = _Step(x, h, before, after[0])
        if weight_hr is not None:
            after = (F.linear(after[0], weight_hr, None), *after[1:])
        outputs[t] = after[0]
        state = _replaced(F, state, after)
    return F.cat(outputs, 0), state, steps


def _gradients(
    F: Any, cell: _Cell, g: tuple, needs: tuple, input: Any, weights: tuple, steps: list[_Step], counts: tuple,
    reverse: bool,
) -> tuple[tuple, tuple]:  # fmt: skip
    """Backward through time: the gradients of the input and the weights, and those of the state at the beginning."""
    weight_ih, weight_hh, _, _, weight_hr = weights
    g, g_state = g[0], tuple(g[1:])
    of_input: list = [None] * len(counts)
    of_hidden: list = [None] * len(counts)
    of_output: list = [None] * len(counts)
    for t, start, n in reversed(_order(counts, reverse)):
        step = steps[t]
        after = _first(F, g_state, n)
        of_output[t] = after[0] + F.narrow(g, 0, start, n)
        through = of_output[t] if weight_hr is None else F.matmul_nd(of_output[t], weight_hr)
        of_input[t], of_hidden[t], before = cell.slopes(F, (through, *after[1:]), step.x, step.h, step.state)
        back = F.matmul_nd(of_hidden[t], weight_hh)
        before = (back if before[0] is None else before[0] + back, *before[1:])
        g_state = _replaced(F, g_state, before)
    hidden = _joined(F, [step.state[0] for step in steps])
    of_x = _joined(F, of_input)
    of_h = of_x if of_hidden[0] is of_input[0] else _joined(F, of_hidden)
    found = _of_weights(F, F.matmul_nd, needs, of_x, of_h, input, hidden, weight_ih)
    of_projection = None
    if weight_hr is not None:
        unprojected = _joined(F, [step.unprojected for step in steps])
        of_projection = F.matmul_nd(F.transpose(_joined(F, of_output), 0, 1), unprojected)
    return (*found, of_projection), g_state


def _of_weights(
    F: Any, multiply: Callable, needs: tuple, of_x: Any, of_h: Any, input: Any, hidden: Any, weight_ih: Any
) -> tuple:
    """The gradients of the input, both weights and both biases from those of the gates: one product for all steps.

    Args:
        of_x, of_h: [rows, gates]: the gradients of the input's and the hidden state's part of the gates.
        hidden: [rows, size]: the hidden state before each step.
    """
    bias_ih = F.sum_rows(of_x) if needs[3] else None
    same = of_h is of_x and needs[3]
    return (
        multiply(of_x, weight_ih) if needs[0] else None,
        multiply(F.transpose(of_x, 0, 1), input) if needs[1] else None,
        multiply(F.transpose(of_h, 0, 1), hidden) if needs[2] else None,
        bias_ih,
        (bias_ih if same else F.sum_rows(of_h)) if needs[4] else None,
    )


# -- kernels for whole layers ------------------------------------------------------------------------------------------


_GATE_WORK = 8  # for an element of the gates, see kernels.takes


def _gates(input: Array, weight_ih: Array, *rest: Any) -> int:
    """How many elements the gates of all steps have."""
    return len(input) * len(weight_ih)


def _forward(mode: str, input: Array, weights: tuple, state: tuple, counts: tuple, reverse: bool) -> Any:
    """The output, the state at the end, and for backward the gates after activation and `memory`."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    if len(counts) < 2 or not _dense(input.dtype, *weights, *state):
        return NotImplemented
    gates = _product(input, weight_ih.T, bias_ih)
    state = tuple(s.copy() for s in state)
    keeps = mode in ("LSTM", "GRU")
    out, memory = (numpy.empty((len(gates), state[0].shape[1]), gates.dtype) if keeps else gates for _ in range(2))
    bias = numpy.empty(0, gates.dtype) if bias_hh is None else bias_hh
    kernel = sources.recurrent.forward(gates.dtype)
    kind = getattr(sources.recurrent, mode)
    rows = _job_rows(weight_hh, len(state[0]))
    kernel(kind, rows, weight_hh, *_places(counts), reverse, bias, gates, state[0], state[-1], out, memory)
    return out, *state, (gates, memory)


def _backward(
    mode: str, g: tuple, needs: tuple, input: Array, weights: tuple, state: tuple, out: Array, kept: Any,
    counts: tuple, reverse: bool,
) -> Any:  # fmt: skip
    """The gradients of the input and the weights, and of the state at the beginning, from what forward has kept."""
    if isinstance(kept, list):
        return _gradients(raw_namespace(input), _CELLS[mode], g, needs, input, weights, kept, counts, reverse)
    if not usable():
        return NotImplemented
    gates, memory = kept
    g = tuple(map(numpy.ascontiguousarray, g))
    weight_ih, weight_hh = weights[:2]
    hidden = _before(state[0], out, counts, reverse)
    before = _before(state[1], memory, counts, reverse) if mode == "LSTM" else hidden
    g_state = tuple(x.copy() for x in g[1:])
    slopes = numpy.empty_like(gates)
    from_input = numpy.empty_like(gates) if mode == "GRU" else slopes
    kernel, kind = sources.recurrent.backward(gates.dtype), getattr(sources.recurrent, mode)
    kernel(
        kind, _job_rows(weight_hh, len(state[0])), weight_hh, *_places(counts), reverse, g[0], gates, memory, before,
        g_state[0], g_state[-1], slopes, from_input,
    )  # fmt: skip
    return _of_weights(RAW_NUMPY, _product, needs, from_input, slopes, input, hidden, weight_ih) + (None,), g_state


_NEAR = 1 << 19  # bytes of weights that stay near the processor; larger ones are read for more sequences at once


def _job_rows(weight: Array, sequences: int) -> int:
    """How many sequences go through all steps together; the bits do not depend on it."""
    share = 1 if weight.nbytes <= _NEAR else -(-sequences // get_num_threads())
    return min(-(-share // 8) * 8, 32)


def _product(a: Array, b: Array, bias: Any = None) -> Array:
    """a @ b + bias, whose bits do not depend on the number of threads."""
    out = multiplying.product(a, b, bias, least=multiplying.BLAS_THREADS)
    if out is NotImplemented:
        out = a.dot(b)
        if bias is not None:
            out += bias
    return out


def _dense(dtype: Any, *arrays: Any) -> bool:
    return all(x is None or (x.dtype is dtype and x.flags.c_contiguous) for x in arrays)


def _places(counts: tuple) -> tuple[Array, Array]:
    """The number of rows of each step, and the first of them."""
    rows = numpy.array(counts)
    return rows, numpy.cumsum(rows) - rows


def _before(first: Array, rows: Array, counts: tuple, reverse: bool) -> Array:
    """A state before each step, from the one at the beginning and those after each step."""
    found: list = [None] * len(counts)
    state = first
    for t, start, n in _order(counts, reverse):
        found[t] = (state[:n],) if n <= len(state) else (state, first[len(state) : n])
        state = rows[start : start + n]
    return numpy.concatenate([part for parts in found for part in parts])


@compiled(lstm_layer, _GATE_WORK, _gates)
def _compiled_lstm_layer(
    input: Array, weight_ih: Array, weight_hh: Array, bias_ih: Any, bias_hh: Any, weight_hr: Any, h: Array, c: Array,
    counts: tuple, reverse: bool = False,
) -> Any:  # fmt: skip
    if weight_hr is not None:
        return NotImplemented
    return _forward("LSTM", input, (weight_ih, weight_hh, bias_ih, bias_hh), (h, c), counts, reverse)


@lstm_layer.fused_vjp("cpu")
@lstm_layer.fused_vjp("cuda")
def _kept_lstm_layer_vjp(
    xp: Any, g: tuple, needs: tuple, input: Array, weight_ih: Array, weight_hh: Array, bias_ih: Any, bias_hh: Any,
    weight_hr: Any, h: Array, c: Array, out: Array, kept: Any, counts: tuple, reverse: bool,
) -> Any:  # fmt: skip
    weights = weight_ih, weight_hh, bias_ih, bias_hh, weight_hr
    found = _backward("LSTM", g, needs, input, weights, (h, c), out, kept, counts, reverse)
    return found if found is NotImplemented else (*found[0], *found[1])


@compiled(rnn_layer, _GATE_WORK, _gates)
def _compiled_rnn_layer(
    input: Array, weight_ih: Array, weight_hh: Array, bias_ih: Any, bias_hh: Any, h: Array, mode: str, counts: tuple,
    reverse: bool = False,
) -> Any:  # fmt: skip
    return _forward(mode, input, (weight_ih, weight_hh, bias_ih, bias_hh), (h,), counts, reverse)


@rnn_layer.fused_vjp("cpu")
@rnn_layer.fused_vjp("cuda")
def _kept_rnn_layer_vjp(
    xp: Any, g: tuple, needs: tuple, input: Array, weight_ih: Array, weight_hh: Array, bias_ih: Any, bias_hh: Any,
    h: Array, out: Array, kept: Any, mode: str, counts: tuple, reverse: bool,
) -> Any:  # fmt: skip
    weights = weight_ih, weight_hh, bias_ih, bias_hh, None
    found = _backward(mode, g, needs, input, weights, (h,), out, kept, counts, reverse)
    return found if found is NotImplemented else (*found[0][:5], *found[1])
