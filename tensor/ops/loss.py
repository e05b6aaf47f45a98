"""Losses whose derivatives need a rule of their own."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from .. import kernels
from ..kernels import compiled, compiled_vjp
from . import summing
from .one_pass import run


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
def logistic_cross_entropy(xp, input: Array, target: Array):
    """-(target * log(p) + (1 - target) * log(1 - p)) for p = sigmoid(input), without overflow."""
    return (1 - target) * input + xp.logaddexp(-input, xp.zeros_like(input))


logistic_cross_entropy.vjp(
    input=lambda F, g, input, target: g * (F.sigmoid(input) - target),
    target=lambda F, g, input: -g * input,
)


@compiled(logistic_cross_entropy, work=16, light=True)
def _logistic_cross_entropy(input: numpy.ndarray, target: numpy.ndarray) -> Any:
    return run("logistic_cross_entropy", (input, target))


@compiled_vjp(logistic_cross_entropy, work=8, light=True)
def _logistic_cross_entropy_gradients(xp: Any, g: Any, needs: tuple, input: Any, target: Any) -> Any:
    gradient = run("logistic_cross_entropy_backward", (g, input, target))
    return gradient if gradient is NotImplemented else (gradient, -g * input if needs[1] else None)


@primitive(promote="float")
def mean_squared_error(xp, input: Array, other: Array):
    """The mean of (input - other)**2 over all elements."""
    difference = input - other
    return ((difference * difference).sum() / (difference.size or math.nan)).astype(difference.dtype)


@mean_squared_error.kernel("cpu")
def _mean_squared_error(input: numpy.ndarray, other: numpy.ndarray) -> Any:
    """For few elements one inner product is much quicker than two passes, and as exact."""
    if _takes(input, other):
        total = summing.squared_distance(*map(numpy.ascontiguousarray, (input, other)))
        return numpy.asarray(total / input.dtype.type(input.size))
    difference = (input - other).ravel()
    size = difference.size
    if not 0 < size <= 4096 or difference.itemsize < 4:
        return mean_squared_error.declaration.body(numpy, input, other)
    return numpy.asarray(difference.dot(difference) / size)


def _takes(a: numpy.ndarray, b: numpy.ndarray) -> bool:
    return a.size >= kernels.LEAST_SIZE and a.shape == b.shape and a.dtype is b.dtype and kernels.takes(a, light=True)


def _slope(F: Any, g: Any, input: Any, other: Any) -> Any:
    if input.__class__ is numpy.ndarray and _takes(input, other):
        return run("squared_difference_backward", (input, other), (float(g) * 2 / input.size,))
    difference = input - other
    # [()] makes a NumPy number of a 0-d array, which takes a tenth of the time to multiply
    return difference * (g[()] * (2 / (math.prod(difference.shape) or math.nan)))


mean_squared_error.vjp(
    input=_slope,
    other=lambda F, g, input, other: _slope(F, g, other, input),
)
