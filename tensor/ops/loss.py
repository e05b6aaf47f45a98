"""Losses whose derivatives need a rule of their own."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array


@primitive(promote="float")
def bernoulli_cross_entropy(xp, input: Array, target: Array):
    """-(target * log(input) + (1 - target) * log(1 - input)), each logarithm at least -100."""
    return -(target * _bounded_log(xp, input) + (1 - target) * _bounded_log(xp, 1 - input))


def _bounded_log(xp: Any, p: Array) -> Array:
    return xp.maximum(xp.log(p), -100)


# the bound of the denominator keeps the gradient finite at input 0 and 1, where that of the logarithms is not
bernoulli_cross_entropy.vjp(
    input=lambda F, g, input, target: g * (input - target) / F.clamp(input * (1 - input), 1e-12),
    target=lambda F, g, input: g * (F.clamp(F.log(1 - input), -100) - F.clamp(F.log(input), -100)),
)


@primitive(promote="float")
def squared_error(xp, input: Array, target: Array, scale: float):
    """scale times the sum of (input - target)**2 over all elements."""
    difference = input - target
    return ((difference * difference).sum() * scale).astype(difference.dtype)


@squared_error.kernel("cpu")
def _squared_error(input: numpy.ndarray, target: numpy.ndarray, scale: float) -> Any:
    """For few elements one inner product is much quicker than two passes, and as exact."""
    difference = input - target
    if difference.size > 4096 or difference.dtype.kind == "V":
        return squared_error.declaration.body(numpy, input, target, scale)
    flat = difference.reshape(-1)
    return numpy.vecdot(flat, flat) * scale


def _squared_error_input(F: Any, g: Any, input: Any, target: Any, scale: float) -> Any:
    return (input - target) * (g * (2 * scale))


squared_error.vjp(
    input=_squared_error_input,
    target=lambda F, g, input, target, scale: -_squared_error_input(F, g, input, target, scale),
)
