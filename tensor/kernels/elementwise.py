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
