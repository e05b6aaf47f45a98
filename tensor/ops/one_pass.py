"""Registers compiled kernels of elementwise primitives: one pass over memory forward, one backward."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy

from ...autograd.primitive import Primitive
from ...runtime.arrays import row_major
from ..kernels import compiled, compiled_vjp, sources, takes


def one_pass(
    primitive: Primitive, saved: str | None = None, work: int = 1, kernel: Callable | None = None, worth: int = 1
) -> None:
    """Compute a primitive of one input by the functions in kernels/pointwise.py that have its name.

    Args:
        saved: what `<name>_backward` takes beside the gradient of the output: "input" or "out". None where the rule is
            as quick.
        work: how many times more there is to do for an element than an addition.
        kernel: attributes -> (name of the function, numbers), where they are not the primitive's own name and
            attributes; or None for what is left to the portable body.
        worth: see `takes`.
    """
    declaration = primitive.declaration
    name, attributes = declaration.name, declaration.attributes
    kernel = kernel or (lambda *numbers: (name, numbers))

    @compiled(primitive, work, light=True, worth=worth)
    def forward(input: Any, *values: Any, **named: Any) -> Any:
        if named or len(values) != len(attributes):
            (input,), values = declaration.bind((input, *values), named)
        chosen = kernel(*values)
        return NotImplemented if chosen is None else run(chosen[0], (input,), chosen[1])

    def element(arrays: tuple, values: tuple, suffix: str = "") -> tuple | None:
        chosen = kernel(*values)
        return chosen and (chosen[0] + suffix, arrays, chosen[1])

    declaration.element = element
    if saved is None:
        return

    def backward(g: Any, x: Any, *values: Any) -> Any:
        chosen = kernel(*values)
        gradient = NotImplemented if chosen is None else run(chosen[0] + "_backward", (g, x), chosen[1])
        return gradient if gradient is NotImplemented else (gradient,)

    declaration.element_vjp = lambda g, x, *values: element((g, x), values, "_backward")
    # what a rule saves is told by the names of its parameters
    named = ", ".join((saved, *attributes))
    function = eval(f"lambda xp, g, needs, {named}: backward(g, {named})", {"backward": backward})
    compiled_vjp(primitive, work, True, worth)(function)


def run(name: str, arrays: tuple, numbers: tuple = ()) -> Any:
    """The function of kernels/pointwise.py of each element of up to three arrays of one shape and dtype.

    The first of three may be a condition, of booleans.
    """
    last = arrays[-1]
    dtype, shape = last.dtype, last.shape
    for i, array in enumerate(arrays[:-1]):
        if array.shape != shape or (array.dtype is not dtype and (i or array.dtype is not _BOOL)):
            return NotImplemented
    if numbers:
        numbers = tuple([dtype.type(number) for number in numbers])
    if len(arrays) == 1 and last.flags.c_contiguous:
        out = numpy.empty(shape, dtype)
        _loop(name, 1)(last.reshape(-1), numbers, out.reshape(-1))
        return out
    flat, out = flattened(arrays)
    _loop(name, len(arrays))(*flat, numbers, out.ravel("K"))
    return out


_BOOL = numpy.dtype(bool)


@functools.cache
def _loop(name: str, count: int) -> Callable:
    """The kernel for that many arrays."""
    loops = sources.elementwise
    return (loops.one, loops.two, loops.three)[count - 1](getattr(sources.pointwise, name))


def flattened(arrays: tuple) -> tuple[list, numpy.ndarray]:
    """The arrays as flat ones with their elements in one order, and a new array of the last one's dtype whose memory
    has that order, too."""
    last = arrays[-1]
    if not all(a.flags.c_contiguous for a in arrays):
        order = _order(last)
        if order and all(_order(a) == order for a in arrays):
            return [a.ravel("K") for a in arrays], numpy.empty_like(last)
        arrays = tuple([a if a.flags.c_contiguous else row_major(a) for a in arrays])
    return [a.reshape(-1) for a in arrays], numpy.empty(last.shape, last.dtype)


def _order(array: numpy.ndarray) -> tuple[int, ...] | None:
    """Elements from one index to the next, for each dim; None if that is no order for a new array."""
    if not array.ndim or min(array.strides) <= 0:
        return None
    return tuple([step // array.itemsize for step in array.strides])


def of_two(primitive: Primitive, ufunc: numpy.ufunc, turned: str | None) -> None:
    """Compute a ufunc of two large arrays, or of one and a number, by the function of its name.

    Args:
        turned: the name of the function that takes its arguments in the other order, None if they have no order.
    """
    name = ufunc.__name__
    turned = turned or name

    def large(input: Any, other: Any) -> Any:
        result = NotImplemented
        if not isinstance(other, numpy.ndarray):
            if takes(input, light=True):
                result = run(name, (input,), (other,))
        elif not isinstance(input, numpy.ndarray):
            if takes(other, light=True):
                result = run(turned, (other,), (input,))
        elif takes(input, light=True):
            result = run(name, (input, other)) if input.shape == other.shape else _broadcast(name, input, other)
        return ufunc(input, other) if result is NotImplemented else result

    primitive.declaration.large = large
    if ufunc in (numpy.maximum, numpy.minimum):  # their zeros have the sign of either operand, here and in NumPy
        return

    primitive.declaration.ufunc = ufunc
    primitive.declaration.element = element_of_two(name, turned)


def element_of_two(name: str, turned: str) -> Callable[[tuple, tuple], tuple]:
    """What Declaration.element is of a function of two arrays, or of one and a number."""

    def element(operands: tuple, attributes: tuple) -> tuple:
        numbers = tuple(x for x in operands if isinstance(x, int | float))
        arrays = tuple(x for x in operands if not isinstance(x, int | float))
        return turned if isinstance(operands[0], int | float) else name, arrays, numbers

    return element


def _broadcast(name: str, x: numpy.ndarray, y: numpy.ndarray) -> Any:
    """A function of a large array and one that is repeated along leading dimensions, or along leading and last ones."""
    if x.dtype is not y.dtype or y.ndim > x.ndim or not x.flags.c_contiguous or not y.size:
        return NotImplemented
    shape = (1,) * (x.ndim - y.ndim) + y.shape
    varies = [i for i, n in enumerate(shape) if n != 1]
    first, last = (varies[0], varies[-1] + 1) if varies else (0, 0)
    if shape[first:last] != x.shape[first:last]:
        return NotImplemented
    y = numpy.ascontiguousarray(y).reshape(-1)
    inner = math.prod(x.shape[last:])
    loop, width = (sources.elementwise.rows, y.size) if inner == 1 else (sources.elementwise.columns, inner)
    out = numpy.empty(x.shape, x.dtype)
    loop(getattr(sources.pointwise, name))(x.reshape(-1, width), y, out.reshape(-1, width))
    return out
