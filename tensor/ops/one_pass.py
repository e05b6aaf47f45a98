"""Registers compiled kernels of elementwise primitives: one pass over memory forward, one backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from ...autograd.primitive import Primitive
from ..kernels import compiled, compiled_vjp, sources, takes


def one_pass(primitive: Primitive, saved: str | None = None, work: int = 1, kernel: Callable | None = None) -> None:
    """Compute a primitive of one input by the functions in kernels/pointwise.py that have its name.

    Args:
        saved: what `<name>_backward` takes beside the gradient of the output: "input" or "out". None where the rule is
            as quick.
        work: how many times more there is to do for an element than an addition.
        kernel: attributes -> (name of the function, numbers), where they are not the primitive's own name and
            attributes; or None for what is left to the portable body.
    """
    declaration = primitive.declaration
    name, attributes = declaration.name, declaration.attributes
    kernel = kernel or (lambda *numbers: (name, numbers))

    @compiled(primitive, work)
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
    compiled_vjp(primitive, work)(eval(f"lambda xp, g, needs, {named}: backward(g, {named})", {"backward": backward}))


def run(name: str, arrays: tuple, numbers: tuple = ()) -> Any:
    """The function of kernels/pointwise.py of each element of one or two arrays of one shape and dtype."""
    first, last = arrays[0], arrays[-1]
    dtype = first.dtype
    if last.dtype is not dtype or last.shape != first.shape:
        return NotImplemented
    function = getattr(sources.pointwise, name)
    loop = (sources.elementwise.one if len(arrays) == 1 else sources.elementwise.two)(function)
    flat, out = flattened(arrays)
    loop(*flat, tuple(map(dtype.type, numbers)), out.ravel("K"))
    return out


def flattened(arrays: tuple) -> tuple[list, numpy.ndarray]:
    """The arrays as flat ones with their elements in one order, and a new array whose memory has that order, too."""
    first = arrays[0]
    strides = first.strides
    if not first.flags.c_contiguous and min(strides) > 0 and all(a.strides == strides for a in arrays):
        return [a.ravel("K") for a in arrays], numpy.empty_like(first)
    return [numpy.ascontiguousarray(a).reshape(-1) for a in arrays], numpy.empty(first.shape, first.dtype)


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
            if takes(input):
                result = run(name, (input,), (other,))
        elif not isinstance(input, numpy.ndarray):
            if takes(other):
                result = run(turned, (other,), (input,))
        elif takes(input):
            result = run(name, (input, other)) if input.shape == other.shape else _broadcast(name, input, other)
        return ufunc(input, other) if result is NotImplemented else result

    primitive.declaration.large = large
    if ufunc in (numpy.maximum, numpy.minimum):  # their zeros have the sign of either operand, here and in NumPy
        return

    def element(operands: tuple, attributes: tuple) -> tuple | None:
        numbers = tuple(x for x in operands if isinstance(x, int | float))
        arrays = tuple(x for x in operands if not isinstance(x, int | float))
        return turned if isinstance(operands[0], int | float) else name, arrays, numbers

    primitive.declaration.element = element


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
