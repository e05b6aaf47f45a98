"""The elementwise half of recurrent cells, one pass a step."""

import functools

from . import compiler
from .approximations import sigmoid, tanh
from .compiler import prange

jit = functools.partial(compiler.jit, fastmath={"contract"})


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
