"""Recurrent layers: the elementwise half of one step in one pass, and all steps of a layer in one call.

The sequences of a batch do not know of each other, so a job takes some of them through all steps: no thread waits for
another, and the weights are packed for the product once. Every element is a sum in the order of its terms, however
sequences are cut into jobs and tiles.
"""

import functools

import numba
import numpy as np
from numba import types

from . import compiler
from .approximations import sigmoid, tanh
from .compiler import prange
from .products import pack_panels
from .tiles import PRODUCT_ROWS, VECTOR_BYTES, product_tile

jit = functools.partial(compiler.jit, fastmath={"contract"})
serial = functools.partial(compiler.serial, fastmath={"contract"})


@jit
def lstm(gates, cell, h, c):
    size = cell.shape[1]
    for row in prange(cell.shape[0]):
        for j in range(size):
            i, f, o = sigmoid(gates[row, j]), sigmoid(gates[row, size + j]), sigmoid(gates[row, 3 * size + j])
            c[row, j] = f * cell[row, j] + i * tanh(gates[row, 2 * size + j])
            h[row, j] = o * tanh(c[row, j])


@jit
def lstm_backward(gh, gc, gates, cell, ggates, gcell):
    size = cell.shape[1]
    for row in prange(cell.shape[0]):
        for j in range(size):
            i, f, o = sigmoid(gates[row, j]), sigmoid(gates[row, size + j]), sigmoid(gates[row, 3 * size + j])
            u = tanh(gates[row, 2 * size + j])
            t = tanh(f * cell[row, j] + i * u)
            g = gh[row, j]
            d = gc[row, j] + (g * o - g * o * t * t)
            ggates[row, j] = d * u * (i - i * i)
            ggates[row, size + j] = d * cell[row, j] * (f - f * f)
            ggates[row, 2 * size + j] = d * (i - i * u * u)
            ggates[row, 3 * size + j] = g * t * (o - o * o)
            gcell[row, j] = d * f


# -- whole layers ------------------------------------------------------------------------------------------------------

LSTM, GRU, RNN_TANH, RNN_RELU = range(4)  # what a step computes

# The loops over one row below are many and short on purpose: LLVM vectorizes a loop only if it has to compare few
# arrays to know that they do not overlap.


@serial
def _copy(x, out):
    for j in range(out.size):
        out[j] = x[j]


@serial
def _sigmoid_of_sum(x, y):
    for j in range(x.size):
        x[j] = sigmoid(x[j] + y[j])


@serial
def _tanh_of_sum(x, y):
    for j in range(x.size):
        x[j] = tanh(x[j] + y[j])


@serial
def _lstm_step(gates, linear, padded, h, c, memory):
    size = h.size
    for part in range(4):
        x, y = gates[part * size : (part + 1) * size], linear[part * padded : part * padded + size]
        if part == 2:
            _tanh_of_sum(x, y)
        else:
            _sigmoid_of_sum(x, y)
    i, f, u, o = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size], gates[3 * size :]
    for j in range(size):
        c[j] = f[j] * c[j] + i[j] * u[j]
    for j in range(size):
        h[j] = o[j] * tanh(c[j])
    _copy(c, memory)


@serial
def _lstm_slopes(g, gates, memory, before, dh, dc, slopes, padded, work):
    size = g.size
    i, f, u, o = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size], gates[3 * size :]
    t, e = work[:size], work[size:]
    for j in range(size):
        t[j] = tanh(memory[j])
    for j in range(size):
        e[j] = g[j] + dh[j]
    for j in range(size):
        dc[j] += e[j] * o[j] * (1 - t[j] * t[j])
    part = slopes[:size]
    for j in range(size):
        part[j] = dc[j] * u[j] * (i[j] - i[j] * i[j])
    part = slopes[padded : padded + size]
    for j in range(size):
        part[j] = dc[j] * before[j] * (f[j] - f[j] * f[j])
    part = slopes[2 * padded : 2 * padded + size]
    for j in range(size):
        part[j] = dc[j] * i[j] * (1 - u[j] * u[j])
    part = slopes[3 * padded : 3 * padded + size]
    for j in range(size):
        part[j] = e[j] * t[j] * (o[j] - o[j] * o[j])
    for j in range(size):
        dc[j] *= f[j]


@serial
def _gru_step(gates, linear, padded, h, memory):
    size = h.size
    for part in range(2):
        _sigmoid_of_sum(gates[part * size : (part + 1) * size], linear[part * padded : part * padded + size])
    _copy(linear[2 * padded : 2 * padded + size], memory)
    r, z, u = gates[:size], gates[size : 2 * size], gates[2 * size :]
    for j in range(size):
        u[j] = tanh(u[j] + r[j] * memory[j])
    for j in range(size):
        h[j] = u[j] + z[j] * (h[j] - u[j])


@serial
def _gru_slopes(g, gates, memory, before, dh, slopes, padded, from_input, carried, work):
    size = g.size
    r, z, u = gates[:size], gates[size : 2 * size], gates[2 * size :]
    e, du = work[:size], work[size:]
    for j in range(size):
        e[j] = g[j] + dh[j]
    for j in range(size):
        carried[j] = e[j] * z[j]
    for j in range(size):
        du[j] = (e[j] - carried[j]) * (1 - u[j] * u[j])
    part = slopes[:size]
    for j in range(size):
        part[j] = du[j] * memory[j] * (r[j] - r[j] * r[j])
    part = slopes[padded : padded + size]
    for j in range(size):
        part[j] = e[j] * (before[j] - u[j]) * (z[j] - z[j] * z[j])
    part = slopes[2 * padded : 2 * padded + size]
    for j in range(size):
        part[j] = du[j] * r[j]
    _copy(slopes, from_input[:size])
    _copy(slopes[padded:], from_input[size : 2 * size])
    _copy(du, from_input[2 * size :])


@serial
def _plain_step(cell, gates, linear, h):
    if cell == RNN_TANH:
        _tanh_of_sum(gates, linear)
    else:
        for j in range(h.size):
            x = gates[j] + linear[j]
            gates[j] = 0 if x <= 0 else x  # of NaN: NaN
    _copy(gates, h)


@serial
def _plain_slopes(cell, g, gates, dh, slopes):
    if cell == RNN_TANH:
        for j in range(g.size):
            slopes[j] = (g[j] + dh[j]) * (1 - gates[j] * gates[j])
    else:
        for j in range(g.size):
            slopes[j] = g[j] + dh[j] if gates[j] > 0 else 0


@serial
def _multiply(x, depth, rows, panels, width, start, out, columns):
    """out[r] = start[r] + x[r] @ panels for `rows` rows, and for some more where that is quicker."""
    for c in range(0, columns, width):
        if rows > 2:
            for r in range(0, rows, PRODUCT_ROWS):
                at = r * columns + c
                product_tile(
                    x, r * depth, depth, 1, depth, panels, c * depth, width,
                    start, at, columns, out, at, columns, PRODUCT_ROWS, 2,
                )  # fmt: skip
        else:
            for r in range(rows):
                at = r * columns + c
                product_tile(
                    x, r * depth, depth, 1, depth, panels, c * depth, width,
                    start, at, columns, out, at, columns, 1, 2,
                )  # fmt: skip


@serial
def _time(step, steps, backwards):
    return steps - 1 - step if backwards else step


@serial
def _forward_job(cell, first, rows, counts, starts, reverse, panels, width, bias, gates, h, c, out, memory):
    size, columns = h.shape[1], bias.size
    padded = columns // (gates.shape[1] // size)
    last = min(first + rows, h.shape[0])
    state, linear = np.zeros((rows, size), h.dtype), np.empty((rows, columns), h.dtype)
    start = np.empty((rows, columns), h.dtype)
    state[: last - first] = h[first:last]
    for r in range(rows):
        _copy(bias, start[r])
    for step in range(counts.size):
        t = _time(step, counts.size, reverse)
        n = min(last, counts[t]) - first
        _multiply(state.reshape(-1), size, n, panels, width, start.reshape(-1), linear.reshape(-1), columns)
        for r in range(n):
            row = starts[t] + first + r
            if cell == LSTM:
                _lstm_step(gates[row], linear[r], padded, state[r], c[first + r], memory[row])
            elif cell == GRU:
                _gru_step(gates[row], linear[r], padded, state[r], memory[row])
            else:
                _plain_step(cell, gates[row], linear[r], state[r])
            _copy(state[r], out[row])
    h[first:last] = state[: last - first]


def _forward(cell, rows, weight, counts, starts, reverse, bias, gates, h, c, out, memory):
    """All steps of one layer in one direction; step t has the first counts[t] sequences in rows from starts[t] on.
    A job takes `rows` sequences.

    gates [rows, parts * size]: the input's part of the gates becomes what they are after activation;
    h, c [n, size]: the state before becomes the state after; out [rows, size]: h after each step;
    memory [rows, size]: LSTM's c after each step, or the hidden state's part of GRU's third gate.
    weight [parts * size, size] and bias [parts * size], or empty, are the hidden state's.
    """
    size = h.shape[1]
    parts, width = gates.shape[1] // size, 2 * VECTOR_BYTES // weight.itemsize
    padded = (size + width - 1) // width * width
    panels, start = np.empty(parts * padded * size, h.dtype), np.zeros(parts * padded, h.dtype)
    for part in prange(parts):
        target = panels[part * padded * size :]
        pack_panels(weight.reshape(-1), 1, size, part * size * size, 0, size, 0, padded // width, size, target, size)
    for j in range(bias.size):
        start[j // size * padded + j % size] = bias[j]
    for job in prange((h.shape[0] + rows - 1) // rows):
        _forward_job(cell, job * rows, rows, counts, starts, reverse, panels, width, start, gates, h, c, out, memory)


@serial
def _backward_job(
    cell, first, rows, counts, starts, reverse, panels, padded, width, g, gates, memory, before, dh, dc,
    slopes, from_input,
):  # fmt: skip
    size, parts = g.shape[1], gates.shape[1] // g.shape[1]
    last = min(first + rows, dh.shape[0])
    local, work = np.zeros((rows, parts * padded), g.dtype), np.empty(2 * size, g.dtype)
    carried, result = np.zeros((rows, padded), g.dtype), np.empty((rows, padded), g.dtype)
    for step in range(counts.size):
        t = _time(step, counts.size, not reverse)
        n = min(last, counts[t]) - first
        for r in range(n):
            i, row, own = first + r, starts[t] + first + r, local[r]
            if cell == LSTM:
                _lstm_slopes(g[row], gates[row], memory[row], before[row], dh[i], dc[i], own, padded, work)
            elif cell == GRU:
                _gru_slopes(
                    g[row], gates[row], memory[row], before[row], dh[i], own, padded, from_input[row], carried[r], work
                )
            else:
                _plain_slopes(cell, g[row], gates[row], dh[i], own)
            for part in range(parts):
                _copy(own[part * padded :], slopes[row, part * size : (part + 1) * size])
        _multiply(local.reshape(-1), parts * padded, n, panels, width, carried.reshape(-1), result.reshape(-1), padded)
        for r in range(n):
            _copy(result[r], dh[first + r])


def _backward(cell, rows, weight, counts, starts, reverse, g, gates, memory, before, dh, dc, slopes, from_input):
    """The gradients of `_forward`: of the gates before activation, as the hidden state's part of them (slopes) and the
    input's (the same array but for GRU) have them.

    g [rows, size]: the gradient of out; before [rows, size]: LSTM's c and GRU's h before each step; dh, dc [n, size]:
    the gradients of the state after become those of the state before.
    """
    size = g.shape[1]
    parts, width = gates.shape[1] // size, 2 * VECTOR_BYTES // weight.itemsize
    padded = (size + width - 1) // width * width
    panels = np.zeros(parts * padded * padded, g.dtype)
    for part in prange(parts):
        at = part * padded
        pack_panels(
            weight.reshape(-1), size, 1, part * size, at, size, 0, padded // width, size, panels, parts * padded
        )
    for job in prange((dh.shape[0] + rows - 1) // rows):
        _backward_job(
            cell, job * rows, rows, counts, starts, reverse, panels, padded, width, g, gates, memory, before, dh, dc,
            slopes, from_input,
        )  # fmt: skip


@functools.cache
def _types(dtype):
    """The types of what both functions take first, up to `reverse`, and of arrays given and filled."""
    number = numba.from_dtype(dtype)
    given, filled = types.Array(number, 2, "C", readonly=True), types.Array(number, 2, "C")
    places = types.Array(types.int64, 1, "C")
    return (types.int64, types.int64, given, places, places, types.boolean), given, filled


@functools.cache
def forward(dtype):
    """`_forward` for a dtype."""
    first, given, filled = _types(dtype)
    bias = types.Array(given.dtype, 1, "C", readonly=True)
    return jit((*first, bias, filled, filled, filled, filled, filled))(_forward)


@functools.cache
def backward(dtype):
    """`_backward` for a dtype."""
    first, given, filled = _types(dtype)
    return jit((*first, given, given, given, given, filled, filled, filled, filled))(_backward)
