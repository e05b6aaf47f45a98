"""Rounding, and what kind of number an element is."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from . import arithmetic as ar


def _step_function(name: str, doc: str) -> Any:
    def body(xp, input: Array):  # type: ignore[no-untyped-def]
        return input.copy() if input.dtype.kind in "biu" else getattr(xp, name)(input)

    body.__name__, body.__doc__ = name, doc
    function = primitive(body)
    function.vjp(input=lambda F, g: F.zeros_like(g))
    return function


floor = _step_function("floor", "The largest integer not above the element.")
ceil = _step_function("ceil", "The smallest integer not below the element.")
trunc = _step_function("trunc", "The element without its fraction.")


@primitive
def round(xp, input: Array, decimals: int = 0):
    """The nearest number with that many decimals; halves go to the even neighbour."""
    return xp.round(input, decimals)


round.vjp(input=lambda F, g: F.zeros_like(g))


@takes_out
def frac(input: Any) -> Any:
    """The fraction that trunc() takes away."""
    return ar.sub(input, trunc(input))


@primitive
def isnan(xp, input: Array):
    """Whether the element is not a number."""
    return xp.isnan(input)


@primitive
def isinf(xp, input: Array):
    """Whether the element is infinite."""
    return xp.isinf(input)


@primitive
def isfinite(xp, input: Array):
    """Whether the element is neither infinite nor nan."""
    return xp.isfinite(input)


@primitive
def nan_to_num(xp, input: Array, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None):
    """Numbers in place of nan and infinities; None means the largest or smallest of the dtype."""
    if input.dtype.kind in "biu":
        return input.copy()
    if input.dtype.kind == "c":
        out = xp.empty_like(input)
        for part, target in ((input.real, out.real), (input.imag, out.imag)):
            target[...] = nan_to_num.declaration.body(xp, part, nan, posinf, neginf)
        return out
    kind = input.dtype.type
    limits = ml_dtypes.finfo(input.dtype)
    out = xp.where(xp.isnan(input), kind(nan), input)
    out = xp.where(xp.equal(out, kind(math.inf)), kind(limits.max if posinf is None else posinf), out)
    return xp.where(xp.equal(out, kind(-math.inf)), kind(limits.min if neginf is None else neginf), out)


nan_to_num.vjp(input=lambda F, g, input: F.where(F.isfinite(input), g, F.zeros_like(g)))


@primitive
def signbit(xp, input: Array):
    """Whether the sign bit is set: negative numbers and -0."""
    return xp.less(input, 0) if input.dtype.kind in "biu" else xp.signbit(input)


@takes_out
def isposinf(input: Any) -> Any:
    """Whether the element is +inf."""
    return ar.eq(input, math.inf)


@takes_out
def isneginf(input: Any) -> Any:
    """Whether the element is -inf."""
    return ar.eq(input, -math.inf)
