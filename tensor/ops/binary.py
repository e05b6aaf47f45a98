"""Further elementwise functions of two tensors: exponents and magnitudes, floating representation, divisors."""

from __future__ import annotations

from typing import Any

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.variable import Variable
from ...runtime import dtypes
from ...runtime.arrays import Array
from . import arithmetic as ar
from . import cast, pointwise

numeric = primitive(promote="numeric")
floating = primitive(promote="float")


@floating
def logaddexp(xp, input: Array, other: Array):
    """log(exp(input) + exp(other)), without overflow."""
    if input.dtype.kind != "c":
        return xp.logaddexp(input, other)
    first_larger = input.real >= other.real
    larger, smaller = xp.where(first_larger, input, other), xp.where(first_larger, other, input)
    return larger + xp.log1p(xp.exp(smaller - larger))


logaddexp.vjp(
    input=lambda F, g, input, other: g * F.sigmoid(input - other),
    other=lambda F, g, input, other: g * F.sigmoid(other - input),
)


@floating
def logaddexp2(xp, input: Array, other: Array):
    """log2(2**input + 2**other), without overflow."""
    return xp.logaddexp2(input, other)


logaddexp2.vjp(
    input=lambda F, g, input, other: g / (1 + F.exp2(other - input)),
    other=lambda F, g, input, other: g / (1 + F.exp2(input - other)),
)


@floating
def hypot(xp, input: Array, other: Array):
    """sqrt(input**2 + other**2), without overflow."""
    return xp.hypot(input, other)


hypot.vjp(
    input=lambda F, g, input, out: g * (input / out),
    other=lambda F, g, other, out: g * (other / out),
)


@numeric
def fmax(xp, input: Array, other: Array):
    """The larger of the two, elementwise; where one is nan, the other."""
    return xp.fmax(input, other)


fmax.vjp(
    input=lambda F, g, input, other: F.where(F.logical_or(F.ge(input, other), F.isnan(other)), g, F.zeros_like(g)),
    other=lambda F, g, input, other: F.where(F.logical_or(F.ge(input, other), F.isnan(other)), F.zeros_like(g), g),
)


@numeric
def fmin(xp, input: Array, other: Array):
    """The smaller of the two, elementwise; where one is nan, the other."""
    return xp.fmin(input, other)


fmin.vjp(
    input=lambda F, g, input, other: F.where(F.logical_or(F.le(input, other), F.isnan(other)), g, F.zeros_like(g)),
    other=lambda F, g, input, other: F.where(F.logical_or(F.le(input, other), F.isnan(other)), F.zeros_like(g), g),
)


@numeric
def heaviside(xp, input: Array, values: Array):
    """0 where the input is negative, 1 where it is positive, values where it is 0."""
    return xp.where(xp.equal(input, 0), values, xp.greater(input, 0)).astype(input.dtype, copy=False)


@floating
def copysign(xp, input: Array, other: Array):
    """|input| with the sign of other."""
    return xp.copysign(input, other)


copysign.vjp(
    input=lambda F, g, input, other: g * F.sign(input) * F.copysign(F.ones_like(g), other),
    other=lambda F, g: F.zeros_like(g),
)


@numeric
def nextafter(xp, input: Array, other: Array):
    """The floating number next to the input in the direction of other."""
    return xp.nextafter(input, other)


# a step by one unit in the last place does not change the slope
nextafter.vjp(input=lambda F, g: g, other=lambda F, g: F.zeros_like(g))


@primitive(outputs=("mantissa", "exponent"))
def frexp(xp, input: Array):
    """The input as mantissa * 2**exponent, 0.5 <= |mantissa| < 1."""
    return xp.frexp(input)


frexp.vjp(
    input=lambda F, g, exponent: g[0] * F.exp2(F.cast(-exponent, dtypes.of(g[0].dtype), dtypes.int32))
)


@numeric
def gcd(xp, input: Array, other: Array):
    """The greatest common divisor of integers."""
    return xp.gcd(input, other)


@numeric
def lcm(xp, input: Array, other: Array):
    """The least common multiple of integers."""
    return xp.lcm(input, other)


@primitive
def overwrite(xp, input: Array, value: Array):
    """One value everywhere, in the input's shape and dtype."""
    out = xp.empty_like(input)
    out[...] = value
    return out


overwrite.vjp(input=lambda F, g: F.zeros_like(g), value=lambda F, g: g)


# -- made of other operations ------------------------------------------------------------------------------------------


@takes_out
def ldexp(input: Any, other: Any) -> Any:
    """input * 2**other."""
    return ar.mul(input, ar.pow(2.0, other) if isinstance(other, Variable) else 2.0**other)


@takes_out
def float_power(input: Any, exponent: Any) -> Any:
    """input raised to the power exponent, computed in float64 (complex128 if either is complex)."""
    operands = [_doubled(input), _doubled(exponent)]
    return ar.pow(*operands)


def _doubled(operand: Any) -> Any:
    if not isinstance(operand, Variable):
        return complex(operand) if isinstance(operand, complex) else float(operand)
    return cast.to_dtype(operand, dtypes.complex128 if operand.array.dtype.kind == "c" else dtypes.float64)


def fill(input: Any, value: Any) -> Any:
    """A tensor like the input with one value, a number or a 0-d tensor, everywhere."""
    if isinstance(value, Variable):
        if value.array.ndim:
            raise RuntimeError(f"fill only supports 0-dimension value tensor but got {value.array.ndim} dimensions")
        value = cast.to_dtype(value, dtypes.of(input.array.dtype))
    return overwrite(input, value)


def rsub(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """other - alpha * input."""
    return ar.sub(other, input if alpha == 1 else ar.mul(input, alpha))


@takes_out
def clamp_min(input: Any, min: Any) -> Any:
    """The input, but at least min (a number or a tensor)."""
    return pointwise.clamp_between(input, min)


@takes_out
def clamp_max(input: Any, max: Any) -> Any:
    """The input, but at most max (a number or a tensor)."""
    return pointwise.clamp_between(input, None, max)
