"""Loops over flat arrays, made from functions of one element: one pass, on all threads."""

import functools

from . import compiler
from .compiler import prange

# Elements are no sums: to reorder x * (n / d) gains nothing and overflows, and 1 / sqrt(x) shall not be an estimate.
jit = functools.partial(compiler.jit, fastmath={"contract"})


@functools.cache
def one(function):
    """A kernel (x, numbers, out): out = function(x, *numbers), elementwise."""

    @jit
    def loop(x, numbers, out):
        for i in prange(out.size):
            out[i] = function(x[i], *numbers)

    return loop


@functools.cache
def two(function):
    """A kernel (x, y, numbers, out): out = function(x, y, *numbers), elementwise."""

    @jit
    def loop(x, y, numbers, out):
        for i in prange(out.size):
            out[i] = function(x[i], y[i], *numbers)

    return loop


@functools.cache
def three(function):
    """A kernel (x, y, z, numbers, out): out = function(x, y, z, *numbers), elementwise."""

    @jit
    def loop(x, y, z, numbers, out):
        for i in prange(out.size):
            out[i] = function(x[i], y[i], z[i], *numbers)

    return loop


@functools.cache
def rows(function):
    """A kernel (x, y, out): out = function(x, y) for x [n, m] and y [m]."""

    @jit
    def loop(x, y, out):
        for i in prange(x.shape[0]):
            for j in range(x.shape[1]):
                out[i, j] = function(x[i, j], y[j])

    return loop


@functools.cache
def columns(function):
    """A kernel (x, y, out): out = function(x, y[:, None]) for x [repeats * n, m] and y [n], which is repeated."""

    @jit
    def loop(x, y, out):
        for i in prange(x.shape[0]):
            value = y[i % y.size]
            for j in range(x.shape[1]):
                out[i, j] = function(x[i, j], value)

    return loop
