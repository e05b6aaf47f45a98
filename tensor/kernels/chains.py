"""Elementwise operations one after the other on tiles of arrays: what lies between them never leaves the first cache.

Each operation is a compiled loop of its own over one tile, and a chain is a table of their addresses and operands. So
nothing is compiled for a chain, and no operation can be contracted with the next: the bits are those of the operations
one by one.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

from . import pointwise
from .compiler import jit, prange, serial

# By dtype; booleans are bytes, which loops take four times as fast as bits that they have to mask.
_TYPES = {np.dtype(bool): types.uint8, **{np.dtype(str(t)): t for t in (
    types.int32, types.int64, types.float32, types.float64)}}  # fmt: skip
_LINE = 64  # bytes of a line of the cache, and of the widest vector
# Between two tiles of intermediate values, beside the tile itself: loads that follow a store to an address 4 KiB away
# wait for it.
_APART = 3 * _LINE

_READERS = tuple(map(register_jitable, (
    lambda numbers: (), lambda numbers: (numbers[0],), lambda numbers: (numbers[0], numbers[1]))))  # fmt: skip


def _of_one(function, read):
    def loop(x, y, z, numbers, out, size):
        values = read(numbers)
        for i in range(size):
            out[i] = function(x[i], *values)

    return loop


def _of_two(function, read):
    def loop(x, y, z, numbers, out, size):
        values = read(numbers)
        for i in range(size):
            out[i] = function(x[i], y[i], *values)

    return loop


def _of_three(function, read):
    def loop(x, y, z, numbers, out, size):
        values = read(numbers)
        for i in range(size):
            out[i] = function(x[i], y[i], z[i], *values)

    return loop


def _add_rows(x, y, z, numbers, out, size):
    """out [width] += x [rows, width]: four rows as kernels/reduction.py adds them, fewer one by one."""
    width = types.intp(numbers[0])
    if size == 4 * width:
        for i in range(width):
            out[i] += (x[i] + x[width + i]) + (x[2 * width + i] + x[3 * width + i])
    else:
        for i in range(size):
            out[i % width] += x[i]


_kept: list = []  # the machine code goes with what it was compiled to


@functools.cache
def address(name, dtypes, numbers, result):
    """Where the machine code of an operation on a tile begins.

    Args:
        name: of a function in kernels/pointwise.py, or "add_rows".
        dtypes: of the arrays that it takes.
        numbers: how many of these it takes, in the dtype of the last array.
        result: its dtype.
    """
    arrays = len(dtypes)
    if name == "add_rows":
        loop = _add_rows
    else:
        loop = (_of_one, _of_two, _of_three)[arrays - 1](getattr(pointwise, name), _READERS[numbers])
        # Machine code is found by its name, and that of functions within functions is the same for all of them.
        loop.__name__ = loop.__qualname__ = f"{name}_{arrays}_{numbers}"
    x, y, z = [types.CPointer(_TYPES[dtype]) for dtype in (*dtypes, *dtypes[-1:] * 2)][:3]
    signature = types.void(x, y, z, z, types.CPointer(_TYPES[result]), types.intp)
    dispatcher = serial(signature, fastmath={"contract"})(loop)
    _kept.append(dispatcher)
    compiled = dispatcher.overloads[signature.args]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


@serial
def memory_of(array):
    """The address of an array's memory; `array.ctypes.data` takes nine times as long."""
    return array.ctypes.data


@intrinsic
def _call(typing_context, address, x, y, z, numbers, out, size):
    """Call a loop at an address, on memory at others."""
    pointer = types.CPointer(types.float32)  # to the machine all pointers are one
    parameters = (pointer, pointer, pointer, pointer, pointer, types.intp)

    def generate(context, builder, signature, values):
        convention = context.call_conv
        function_type = convention.get_function_type(types.none, parameters)
        function = builder.inttoptr(values[0], ir.PointerType(function_type))
        kind = context.get_value_type(pointer)
        operands = [builder.inttoptr(value, kind) for value in values[1:6]]
        convention.call_function(builder, function, types.none, parameters, [*operands, values[6]])
        return context.get_dummy_value()

    return types.none(*[types.intp] * 7), generate


@jit
def run(program, memory, registers, size, tile, share, itemsize):
    """Run a chain over `size` elements, `tile` at a time.

    Args:
        program: [operations, 6] of address, operands x, y and z, address of the numbers, operand of the result. An
            operand is the number of an intermediate value, or `registers` and more: of an array in `memory`.
        memory: [3, arrays] of the arrays' addresses, and by how many bytes they go on with each tile and each task.
        registers: how many intermediate values there are at a time.
        share: tiles that a thread takes at a time.
    """
    tiles = (size + tile - 1) // tile
    for chunk in prange((tiles + share - 1) // share):
        apart = tile * itemsize + _APART
        scratch = np.empty(registers * apart + _LINE, np.uint8)
        start = (scratch.ctypes.data + _LINE - 1) // _LINE * _LINE
        operands = np.empty(registers + memory.shape[1], np.intp)
        for i in range(registers):
            operands[i] = start + i * apart
        for t in range(chunk * share, min(tiles, (chunk + 1) * share)):
            count = min(tile, size - t * tile)
            for i in range(memory.shape[1]):
                operands[registers + i] = memory[0, i] + t * memory[1, i] + chunk * memory[2, i]
            for k in range(program.shape[0]):
                _call(program[k, 0], operands[program[k, 1]], operands[program[k, 2]], operands[program[k, 3]],
                      program[k, 4], operands[program[k, 5]], count)  # fmt: skip
        scratch[0] = 0  # Numba frees an array after its last use, and addresses are none
