"""Arithmetic on two tensors, comparison, logic and bits."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...autograd.variable import Variable
from ...runtime.arrays import Array
from .. import kernels
from ..kernels import compiled_vjp, takes
from .one_pass import element_of_two, of_two, run

numeric = primitive(promote="numeric")
floating = primitive(promote="float")


@numeric
def add(xp, input: Array, other: Array):
    """input + other, elementwise."""
    return xp.add(input, other)


add.vjp(input=lambda F, g: g, other=lambda F, g: g)


@numeric
def sub(xp, input: Array, other: Array):
    """input - other, elementwise."""
    return xp.subtract(input, other)


sub.vjp(input=lambda F, g: g, other=lambda F, g: -g)


@numeric
def mul(xp, input: Array, other: Array):
    """input * other, elementwise."""
    return xp.multiply(input, other)


mul.vjp(input=lambda F, g, other: g * other, other=lambda F, g, input: g * input)


@floating
def true_divide(xp, input: Array, other: Array):
    """input / other, elementwise."""
    return xp.true_divide(input, other)


true_divide.declaration.title = "DivBackward0"  # PyTorch's name
true_divide.vjp(
    input=lambda F, g, other: g / other,
    # not of the quotient, which users change in place, as PyTorch lets them
    other=lambda F, g, input, other: -g * (input / other) / other,
)


@numeric
def floor_divide(xp, input: Array, other: Array):
    """The quotient rounded down, elementwise."""
    return xp.floor_divide(input, other)


@numeric
def trunc_divide(xp, input: Array, other: Array):
    """The quotient rounded towards zero, elementwise."""
    quotient = xp.floor_divide(input, other)
    if quotient.dtype.kind not in "biu":
        return xp.trunc(xp.true_divide(input, other))
    # one too low where the signs differ and there is a remainder
    signs_differ = xp.not_equal(xp.less(input, 0), xp.less(other, 0))
    return quotient + xp.logical_and(xp.remainder(input, other), signs_differ)


for quotient in (floor_divide, trunc_divide):  # steps
    quotient.vjp(input=lambda F, g: F.zeros_like(g), other=lambda F, g: F.zeros_like(g))


@numeric
def remainder(xp, input: Array, other: Array):
    """The remainder with the divisor's sign, as Python's %."""
    return xp.remainder(input, other)


remainder.vjp(input=lambda F, g: g, other=lambda F, g, input, other: -g * F.floor_divide(input, other))


@numeric
def fmod(xp, input: Array, other: Array):
    """The remainder with the dividend's sign, as C's fmod."""
    return xp.fmod(input, other)


fmod.vjp(input=lambda F, g: g, other=lambda F, g, input, other: -g * F.trunc_divide(input, other))


@numeric
def pow(xp, input: Array, other: Array):
    """input raised to the power other, elementwise."""
    if isinstance(other, int | float | complex):
        if other == 2:
            return input * input
        if other in _POWERS and input.dtype.kind == "f":
            return _POWERS[other](xp, input)
    elif other.dtype.kind == "i":
        return _integer_power(xp, input, other)
    return xp.power(input, other).astype(xp.result_type(input, other), copy=False)  # of bools NumPy makes int8


# as PyTorch computes them; many times quicker than a power, which is right for any exponent
_POWERS: dict[Any, Callable] = {
    3: lambda xp, x: x * x * x,
    0.5: lambda xp, x: xp.sqrt(x),
    -0.5: lambda xp, x: 1 / xp.sqrt(x),
    -1: lambda xp, x: 1 / x,
    -2: lambda xp, x: 1 / (x * x),
}


def _integer_power(xp: Any, base: Any, exponent: Array) -> Array:
    """Integer powers; negative ones are 1 / base**|exponent| without its fraction, which NumPy refuses."""
    positive = xp.power(base, xp.maximum(exponent, 0))
    sign = xp.where(xp.bitwise_and(exponent, 1), base, 1)  # of a power of -1
    unit = xp.equal(xp.abs(base), 1)
    return xp.where(xp.less(exponent, 0), xp.where(unit, sign, 0), positive).astype(exponent.dtype, copy=False)


def _pow_input(F: Any, g: Any, input: Any, other: Any) -> Any:
    if isinstance(other, int | float | complex):
        if other == 2:
            return g * (2 * input)
        return F.zeros_like(g) if other == 0 else g * (other * F.pow(input, other - 1))
    # 0 * inf would be nan where the exponent is 0
    return g * F.where(F.eq(other, 0), F.zeros_like(g), other * F.pow(input, other - 1))


def _pow_other(F: Any, g: Any, input: Any, other: Any, out: Any) -> Any:
    if isinstance(input, int | float | complex):
        return g * out * _log_of_base(input)
    # the limit at base 0 is 0 for exponents >= 0
    flat = F.logical_and(F.eq(input, 0), F.ge(other, 0))
    return g * F.where(flat, F.zeros_like(out), out * F.log(F.where(flat, F.ones_like(input), input)))


def _log_of_base(base: Any) -> Any:
    if isinstance(base, complex):
        return cmath.log(base)
    return math.log(base) if base > 0 else -math.inf if base == 0 else math.nan


pow.vjp(input=_pow_input, other=_pow_other)

_POWER_KERNELS = {2: "square", 3: "cube", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}
_POWER_BACKWARD = {2: "square_backward", 3: "cube_backward", 0.5: "root_backward"}


def _large_pow(input: Any, other: Any) -> Any:
    if isinstance(other, int | float) and other in _POWER_KERNELS and takes(input, light=True):
        return run(_POWER_KERNELS[other], (input,))
    return pow.declaration.body_for(input if isinstance(input, numpy.ndarray) else other)(input, other)


pow.declaration.large = _large_pow


@compiled_vjp(pow, light=True)
def _pow_backward(xp: Any, g: Any, needs: tuple, input: Any, other: Any) -> Any:
    if isinstance(other, int | float) and other in _POWER_BACKWARD:
        return run(_POWER_BACKWARD[other], (g, input)), None
    return NotImplemented


def _power_element(table: dict, arrays: tuple, other: Any) -> tuple | None:
    name = table.get(other) if isinstance(other, int | float) else None
    return name and (name, arrays, ())


pow.declaration.element = lambda inputs, attributes: _power_element(_POWER_KERNELS, inputs[:1], inputs[1])
pow.declaration.element_vjp = lambda g, input, other: _power_element(_POWER_BACKWARD, (g, input), other)


@numeric
def maximum(xp, input: Array, other: Array):
    """The larger of the two, elementwise; nan if either is. Equal elements share the gradient."""
    return xp.maximum(input, other)


def _larger_share(F: Any, g: Any, a: Any, b: Any) -> Any:
    """The part of the gradient that goes to `a` where it is the larger one, half of it where they are equal."""
    return F.where(F.gt(a, b), g, F.where(F.eq(a, b), g * 0.5, 0.0))


maximum.vjp(
    input=lambda F, g, input, other: _larger_share(F, g, input, other),
    other=lambda F, g, input, other: _larger_share(F, g, other, input),
)


@numeric
def minimum(xp, input: Array, other: Array):
    """The smaller of the two, elementwise; nan if either is. Equal elements share the gradient."""
    return xp.minimum(input, other)


minimum.vjp(
    input=lambda F, g, input, other: _larger_share(F, g, other, input),
    other=lambda F, g, input, other: _larger_share(F, g, input, other),
)


@compiled_vjp(maximum, light=True)
def _maximum_backward(xp: Any, g: Any, needs: tuple, input: Any, other: Any) -> Any:
    return _compiled_shares(g, needs, input, other)


@compiled_vjp(minimum, light=True)
def _minimum_backward(xp: Any, g: Any, needs: tuple, input: Any, other: Any) -> Any:
    return _compiled_shares(g, needs, other, input)


def _compiled_shares(g: Any, needs: tuple, a: Any, b: Any) -> Any:
    """As `_larger_share`, for both."""
    if not (isinstance(a, numpy.ndarray) and isinstance(b, numpy.ndarray)) or a.shape != b.shape:
        return NotImplemented
    pairs = ((a, b), (b, a))
    return tuple(run("larger_share", (g, *pair)) if needed else None for needed, pair in zip(needs, pairs, strict=True))


@floating
def atan2(xp, input: Array, other: Array):
    """The angle of the point (other, input), in radians."""
    return xp.arctan2(input, other)


atan2.vjp(
    input=lambda F, g, input, other: g * other / (input * input + other * other),
    other=lambda F, g, input, other: -g * input / (input * input + other * other),
)


@primitive(promote="numeric", keep=("condition",))
def where(xp, condition: Array, input: Array, other: Array):
    """input where the condition holds, other elsewhere."""
    if condition.dtype.kind != "b" and condition.dtype != numpy.uint8:
        name = condition.dtype.name
        raise ValueError(f"expected condition to be a boolean tensor, but got a tensor with dtype {name}")
    out = xp.where(condition, input, other)
    dtype = getattr(input, "dtype", None) or other.dtype
    return out if out.dtype == dtype else out.astype(dtype)  # CuPy makes bfloat16 float32


where.vjp(
    input=lambda F, g, condition: F.where(condition, g, 0.0),
    other=lambda F, g, condition: F.where(condition, 0.0, g),
)


@where.kernel("cpu")
def _where(condition: numpy.ndarray, input: Any, other: Any) -> Any:
    if getattr(other, "size", 0) >= kernels.LEAST_SIZE or getattr(input, "size", 0) >= kernels.LEAST_SIZE:
        result = large_where(condition, input, other)
        if result is not NotImplemented:
            return result
    return where.declaration.body(numpy, condition, input, other)


def large_where(condition: numpy.ndarray, input: Any, other: Any) -> Any:
    """`where` by a kernel, if the result has the shape of a large array among the last two; or NotImplemented."""
    input, other = _number(input, other), _number(other, input)
    array = other if isinstance(other, numpy.ndarray) else input
    if condition.dtype.kind != "b" or not isinstance(array, numpy.ndarray) or not takes(array, light=True):
        return NotImplemented
    if condition.shape != array.shape:
        if array.shape != numpy.broadcast_shapes(condition.shape, array.shape):
            return NotImplemented
        condition = numpy.broadcast_to(condition, array.shape)
    if not isinstance(other, numpy.ndarray):
        return run("where_or_number", (condition, input), (other,))
    if not isinstance(input, numpy.ndarray):
        return run("number_or_where", (condition, other), (input,))
    return run("where", (condition, input, other))


def _number(x: Any, beside: Any) -> Any:
    """An array of one element as a number, if the array beside it has its dtype."""
    return x.item() if isinstance(x, numpy.ndarray) and not x.ndim and x.dtype == getattr(beside, "dtype", None) else x


def _where_element(operands: tuple, attributes: tuple) -> tuple | None:
    condition, *values = operands
    arrays = tuple(x for x in values if not isinstance(x, int | float))
    numbers = tuple(x for x in values if isinstance(x, int | float))
    if len(numbers) == 2 or isinstance(condition, int | float):
        return None
    name = "where" if not numbers else "number_or_where" if values[0] is numbers[0] else "where_or_number"
    return name, (condition, *arrays), numbers


where.declaration.element = _where_element


@primitive
def zeros_like(xp, input: Array):
    """Zeros of the same shape and dtype."""
    return xp.zeros_like(input)


@primitive
def ones_like(xp, input: Array):
    """Ones of the same shape and dtype."""
    return xp.ones_like(input)


@numeric
def eq(xp, input: Array, other: Array):
    """Whether the elements are equal."""
    return xp.equal(input, other)


@numeric
def ne(xp, input: Array, other: Array):
    """Whether the elements differ."""
    return xp.not_equal(input, other)


@numeric
def lt(xp, input: Array, other: Array):
    """Whether input < other, elementwise."""
    return xp.less(input, other)


@numeric
def le(xp, input: Array, other: Array):
    """Whether input <= other, elementwise."""
    return xp.less_equal(input, other)


@numeric
def gt(xp, input: Array, other: Array):
    """Whether input > other, elementwise."""
    return xp.greater(input, other)


@numeric
def ge(xp, input: Array, other: Array):
    """Whether input >= other, elementwise."""
    return xp.greater_equal(input, other)


@numeric
def logical_and(xp, input: Array, other: Array):
    """Whether both elements are nonzero."""
    return xp.logical_and(input, other)


@numeric
def logical_or(xp, input: Array, other: Array):
    """Whether at least one of the elements is nonzero."""
    return xp.logical_or(input, other)


@numeric
def logical_xor(xp, input: Array, other: Array):
    """Whether exactly one of the elements is nonzero."""
    return xp.logical_xor(input, other)


@primitive
def logical_not(xp, input: Array):
    """Whether the element is zero."""
    return xp.logical_not(input)


@numeric
def bitwise_and(xp, input: Array, other: Array):
    """Bitwise and of integers or booleans."""
    return xp.bitwise_and(input, other)


@numeric
def bitwise_or(xp, input: Array, other: Array):
    """Bitwise or of integers or booleans."""
    return xp.bitwise_or(input, other)


@numeric
def bitwise_xor(xp, input: Array, other: Array):
    """Bitwise exclusive or of integers or booleans."""
    return xp.bitwise_xor(input, other)


@primitive
def bitwise_not(xp, input: Array):
    """Bitwise not of integers, logical not of booleans."""
    return xp.invert(input)


@numeric
def bitwise_left_shift(xp, input: Array, other: Array):
    """Integers shifted left by other bits."""
    return xp.left_shift(input, other)


@numeric
def bitwise_right_shift(xp, input: Array, other: Array):
    """Integers shifted right by other bits."""
    return xp.right_shift(input, other)


# The hot operations go straight to NumPy's own functions, without a Python frame in between.
add.kernel("cpu")(numpy.add)
sub.kernel("cpu")(numpy.subtract)
mul.kernel("cpu")(numpy.multiply)

for operation, ufunc, turned in (
    (add, numpy.add, None),
    (sub, numpy.subtract, "subtract_from"),
    (mul, numpy.multiply, None),
    (true_divide, numpy.true_divide, "divide_into"),
    (maximum, numpy.maximum, None),
    (minimum, numpy.minimum, None),
):
    of_two(operation, ufunc, turned)

for operation, name, turned in (
    (eq, "equal", "equal"),
    (ne, "not_equal", "not_equal"),
    (lt, "less", "greater"),
    (le, "less_equal", "greater_equal"),
    (gt, "greater", "less"),
    (ge, "greater_equal", "less_equal"),
    (logical_and, "logical_and", "logical_and"),
    (logical_or, "logical_or", "logical_or"),
    (logical_xor, "logical_xor", "logical_xor"),
):
    operation.declaration.element = element_of_two(name, turned)
logical_not.declaration.element = lambda inputs, attributes: ("logical_not", inputs, ())


_BOOL = numpy.dtype(bool)


def _of_booleans(name: str) -> Callable[[tuple, tuple], tuple | None]:
    return lambda operands, attributes: (
        (name, operands, ()) if all(getattr(x, "dtype", None) is _BOOL for x in operands) else None
    )


for operation, name in ((bitwise_and, "logical_and"), (bitwise_or, "logical_or"), (bitwise_xor, "logical_xor"),
                        (bitwise_not, "logical_not")):  # fmt: skip
    operation.declaration.element = _of_booleans(name)


# -- the forms users call, where they take more than the primitive does ------------------------------------------------


def _scaled(other: Any, alpha: float) -> Any:
    return other if alpha == 1 else mul(other, alpha) if isinstance(other, Variable) else other * alpha


def add_scaled(input: Any, other: Any, *, alpha: float = 1, out: Any = None) -> Any:
    """input + alpha * other.

    Example:
        >>> import paceline as torch
        >>> torch.add(torch.tensor([1.0, 2.0]), 1, alpha=10)
        tensor([11., 12.])
    """
    return add(input, _scaled(other, alpha), out=out)


def sub_scaled(input: Any, other: Any, *, alpha: float = 1, out: Any = None) -> Any:
    """input - alpha * other."""
    return sub(input, _scaled(other, alpha), out=out)


def div(input: Any, other: Any, *, rounding_mode: str | None = None, out: Any = None) -> Any:
    """input / other, elementwise.

    Args:
        rounding_mode: None for true division (integers give floats), "floor" or "trunc" to round the quotient.

    Example:
        >>> import paceline as torch
        >>> torch.div(torch.tensor([-7, 7]), 2, rounding_mode="floor")
        tensor([-4,  3])
    """
    if rounding_mode is None:
        return true_divide(input, other, out=out)
    if rounding_mode == "floor":
        return floor_divide(input, other, out=out)
    if rounding_mode == "trunc":
        return trunc_divide(input, other, out=out)
    raise RuntimeError(f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'")
