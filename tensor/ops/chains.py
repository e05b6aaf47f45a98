"""Chains of elementwise operations on large arrays in one pass over memory; see kernels/chains.py."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy

from ...autograd import fusion
from ...runtime import buffers
from ..kernels import sources, takes, usable

__all__ = ["Chain", "repeats", "takes"]

_TILE = 4096  # bytes of a tile: with those of its operands it stays in the first cache
_WIDEST = 1 << 14  # elements of a row that is repeated; longer ones would push the rest out of the cache


class Chain:
    """A chain whose arrays have one shape, or are repeated along leading dimensions of it.

    A call takes the arrays of the inputs and returns those of the outputs: new ones, with the bits that the operations
    give one by one. It returns None, and the operations are to be run one by one, if an array does not lie in memory
    in the order of its elements, where the results of the operations might not either.
    """

    def __init__(self, instructions: Sequence[fusion.Instruction], inputs: dict[str, tuple], outputs: Sequence[str],
                 shape: tuple, dtype: numpy.dtype) -> None:  # fmt: skip
        """inputs: the shapes by name."""
        self.instructions, self.shape, self.dtype = instructions, shape, dtype
        self.shapes = tuple(inputs.values())
        self.outputs = len(outputs)
        self.operands = {name: i for i, name in enumerate((*inputs, *outputs))}
        row = max((math.prod(s) for s in self.shapes if s != shape), default=1)
        self.tile = row * max(1, _TILE // dtype.itemsize // row)
        self.registers = self._assign({*inputs, *outputs})
        self.program: numpy.ndarray | None = None

    def _assign(self, elsewhere: set[str]) -> int:
        """Give each intermediate value a place that is free from its first to its last use; returns their number.

        A result is not put in the place of an operand that ends there: compiled loops take two arrays that overlap for
        a reason to go one element at a time.
        """
        last = {name: k for k, step in enumerate(self.instructions) for name in step.inputs}
        places: dict[str, int] = {}
        free: list[int] = []
        count = 0
        for k, step in enumerate(self.instructions):
            if step.output not in elsewhere:
                if not free:
                    free.append(count)
                    count += 1
                places[step.output] = free.pop()
            free += [places[name] for name in set(step.inputs) if name in places and last[name] == k]
        self.operands = places | {name: i + count for name, i in self.operands.items()}
        return count

    def _compile(self) -> numpy.ndarray:
        address, operands = sources.chains.address, self.operands
        numbers = [numpy.array(step.numbers, self.dtype) for step in self.instructions]
        self.numbers = numbers  # the program has only their addresses
        rows = [(address(step.function, len(step.inputs), len(step.numbers), self.dtype), operands[step.inputs[0]],
                 operands[step.inputs[-1]], values.ctypes.data, operands[step.output])
                for step, values in zip(self.instructions, numbers, strict=True)]  # fmt: skip
        return numpy.array(rows, numpy.intp)

    def __call__(self, *arrays: numpy.ndarray) -> list[numpy.ndarray] | None:
        dtype, itemsize = self.dtype, self.dtype.itemsize
        if not usable():
            return None
        ready: list[numpy.ndarray] = []
        for array, shape in zip(arrays, self.shapes, strict=True):
            if array.dtype is not dtype or array.shape != shape:
                return None
            whole = shape == self.shape and array.flags.c_contiguous
            laid_out = array if whole else self._laid_out(array)
            if laid_out is None:
                return None
            ready.append(laid_out)
        if self.program is None:
            self.program = self._compile()
        results = [buffers.empty(self.shape, dtype) for _ in range(self.outputs)]
        steps = [itemsize if array.size == results[0].size else 0 for array in ready] + [itemsize] * self.outputs
        memory_of = sources.chains.memory_of
        places = numpy.array([[memory_of(array.reshape(-1)) for array in (*ready, *results)], steps], numpy.intp)
        sources.chains.run(self.program, places, self.registers, results[0].size, self.tile, itemsize)
        return results

    def _laid_out(self, array: numpy.ndarray) -> numpy.ndarray | None:
        """An array in the order of its elements, or a tile's worth of one that is repeated."""
        if array.shape != self.shape:
            return numpy.resize(array, self.tile)
        if not any(array.strides):  # one number, such as the gradient of a sum
            return numpy.full(self.tile, array.flat[0])
        steps = [step for step in array.strides if step]
        if len(steps) < array.ndim and steps == sorted(steps, reverse=True):  # expanded
            return numpy.ascontiguousarray(array)
        return None


def repeats(shape: tuple, whole: tuple) -> bool:
    """Whether arrays of a shape are repeated only along leading dimensions of the whole."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return math.prod(shape) <= _WIDEST and shape == whole[len(whole) - len(shape) :]


fusion.backend.append(sys.modules[__name__])
