"""Chains of elementwise operations on large arrays in one pass over memory; see kernels/chains.py."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy

from ...autograd import fusion
from ...runtime import buffers
from .. import kernels
from ..kernels import sources, usable
from . import summing
from .reduction import broadcast_dims

_TILE = 4096  # bytes of a tile: with those of its operands it stays in the first cache
_CHUNK = 1 << 13  # elements that a thread takes at a time
_BOOL = numpy.dtype(bool)
_DTYPES = frozenset(map(numpy.dtype, (bool, numpy.int32, numpy.int64, numpy.float32, numpy.float64)))
_CONDITIONS = frozenset(("equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and",
                         "logical_or", "logical_xor", "logical_not"))  # fmt: skip
_CHOICES = frozenset(("where", "where_or_number", "number_or_where"))
_OF_ALL = {  # by kinds of dtypes that are not floating: what gives the same as NumPy
    "b": _CONDITIONS | _CHOICES,
    "i": _CONDITIONS | _CHOICES | {"add", "subtract", "subtract_from", "multiply", "negative"},
}
_WIDEST = 1 << 14  # elements of a row that is repeated; longer ones would push the rest out of the cache


class Chain:
    """A chain whose arrays have one shape, or are repeated along leading dimensions of it.

    A call takes the arrays of the inputs and returns those of the outputs and sums: new ones, with the bits that the
    operations give one by one. It returns None, and the operations are to be run one by one, if an array does not lie
    in memory in the order of its elements, where the results of the operations might not either.
    """

    def __init__(self, instructions: Sequence[fusion.Instruction], inputs: dict[str, tuple], outputs: Sequence[str],
                 sums: dict[str, tuple], shape: tuple, dtypes: dict[str, numpy.dtype]) -> None:  # fmt: skip
        """inputs, sums: the shapes by name; sums over rows are made by instructions "add_rows"."""
        self.instructions, self.shape, self.dtypes = instructions, shape, dtypes
        self.inputs = tuple((form, dtypes[name]) for name, form in inputs.items())
        self.outputs = tuple(dtypes[name] for name in outputs)
        self.sums = tuple((form, dtypes[name]) for name, form in sums.items())
        self.itemsize = max(dtype.itemsize for dtype in dtypes.values())
        self.operands = {name: i for i, name in enumerate((*inputs, *outputs, *sums))}
        row = max((math.prod(s) for s in inputs.values() if s != shape), default=1)
        self.tile = row * max(1, _TILE // self.itemsize // row)
        self.share = max(1, _CHUNK // self.tile)
        if sums:  # a task is a piece of rows, a tile four of these
            pieces = row_pieces(shape, self.sums[0][0])
            assert pieces is not None, "sums_rows() has refused the others"
            self.pieces = pieces
            self.tile, self.share = 4 * pieces[1], summing.HEIGHT // 4
        self.registers = self._assign({*inputs, *outputs, *sums})
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
        dtypes = [[self.dtypes[name] for name in step.inputs] for step in self.instructions]
        numbers = [numpy.array(step.numbers, d[-1]) for step, d in zip(self.instructions, dtypes, strict=True)]
        self.numbers = numbers  # the program has only their addresses
        rows = []
        for step, taken, values in zip(self.instructions, dtypes, numbers, strict=True):
            address = sources.chains.address(step.function, tuple(taken), len(values), self.dtypes[step.output])
            x, y, z = [self.operands[name] for name in (*step.inputs, *step.inputs[-1:] * 2)][:3]
            rows.append((address, x, y, z, values.ctypes.data, self.operands[step.output]))
        return numpy.array(rows, numpy.intp)

    def __call__(self, *arrays: numpy.ndarray) -> list[numpy.ndarray] | None:
        if not usable():
            return None
        ready: list[numpy.ndarray] = []
        for array, (shape, dtype) in zip(arrays, self.inputs, strict=True):
            if array.dtype is not dtype or array.shape != shape:
                return None
            whole = shape == self.shape and array.flags.c_contiguous
            laid_out = array if whole else self._laid_out(array)
            if laid_out is None:
                return None
            ready.append(laid_out)
        if self.program is None:
            self.program = self._compile()
        results = [buffers.empty(self.shape, dtype) for dtype in self.outputs]
        sums = [numpy.zeros((1, *self.pieces), dtype) for _, dtype in self.sums]
        size, whole_arrays = math.prod(self.shape), len(ready) + len(results)
        operands = (*ready, *results, *sums)
        memory_of = sources.chains.memory_of
        places = numpy.zeros((3, len(operands)), numpy.intp)
        for i, array in enumerate(operands):
            places[0, i] = memory_of(array.reshape(-1))
            if i >= whole_arrays:
                places[2, i] = array.shape[2] * array.itemsize
            elif array.size == size:
                places[1, i] = self.tile * array.itemsize
        sources.chains.run(self.program, places, self.registers, size, self.tile, self.share, self.itemsize)
        totals = [summing.total(each, math.prod(form)).reshape(form)
                  for each, (form, _) in zip(sums, self.sums, strict=True)]  # fmt: skip
        return results + totals

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


def takes(array: numpy.ndarray) -> bool:
    """Whether a chain may begin with an operation whose result this is."""
    return array.size >= kernels.LEAST_SIZE and array.dtype in _DTYPES and usable()


def dtype_of(function: str, dtypes: Sequence[numpy.dtype], numbers: tuple) -> numpy.dtype | None:
    """The dtype of a function's results; None where it is not for arguments of these."""
    condition, first = dtypes[0], dtypes[-1]
    operands = dtypes[1:] if "where" in function else dtypes
    if any(dtype is not first for dtype in operands) or first not in _DTYPES:
        return None
    if "where" in function and condition is not _BOOL:
        return None
    if first.kind != "f":
        exact = all(isinstance(x, int) and first.kind == "i" and abs(x) < 1 << 31 for x in numbers)
        if not exact or function not in _OF_ALL[first.kind]:
            return None
    return _BOOL if function in _CONDITIONS else first


def row_pieces(shape: tuple, size: tuple) -> tuple[int, int] | None:
    """How many pieces the sum over leading dimensions to a size consists of, and how wide they are; None if it is
    another sum."""
    return summing.row_pieces(shape, broadcast_dims(shape, size))


def sums_rows(shape: tuple, size: tuple, dtype: numpy.dtype, repeated: Sequence[tuple]) -> int:
    """The width of the rows that a chain can add up for a sum over leading dimensions to a size; 0 if it cannot."""
    found = row_pieces(shape, size) if dtype.kind == "f" and repeats(size, shape) else None
    if found is None or any(4 * found[1] % math.prod(row) for row in repeated):
        return 0
    return found[1]


def repeats(shape: tuple, whole: tuple) -> bool:
    """Whether arrays of a shape are repeated only along leading dimensions of the whole."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return math.prod(shape) <= _WIDEST and shape == whole[len(whole) - len(shape) :]


fusion.backend.append(sys.modules[__name__])
