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


@compiled(logistic_cross_entropy, work=16, light=True, worth=2)
def _logistic_cross_entropy(input: numpy.ndarray, target: numpy.ndarray) -> Any:
    return run("logistic_cross_entropy", (input, target))


@compiled_vjp(logistic_cross_entropy, work=8, light=True, worth=2)
def _logistic_cross_entropy_gradients(xp: Any, g: Any, needs: tuple, input: Any, target: Any) -> Any:
    gradient = run("logistic_cross_entropy_backward", (g, input, target))
    return gradient if gradient is NotImplemented else (gradient, -g * input if needs[1] else None)


@primitive(promote="float")
def huber(xp, input: Array, target: Array, delta: float):
    """0.5 * d**2 where d = |input - target| < delta, delta * (d - 0.5 * delta) elsewhere.

    Source: Huber, Robust Estimation of a Location Parameter, 1964.
    """
    size = xp.abs(input - target)
    bounded = xp.minimum(size, size.dtype.type(delta))
    size -= bounded * 0.5
    size *= bounded
    return size


huber.vjp(
    input=lambda F, g, input, target, delta: g * F.clamp(input - target, -delta, delta),
    target=lambda F, g, input, target, delta: g * F.clamp(target - input, -delta, delta),
)


@compiled(huber, light=True)
def _huber(input: numpy.ndarray, target: numpy.ndarray, delta: float) -> Any:
    return run("huber", (input, target), (delta,))


@compiled_vjp(huber, light=True)
def _huber_gradients(xp: Any, g: Any, needs: tuple, input: Any, target: Any, delta: float) -> Any:
    gradient = run("huber_backward", (g, input, target), (delta,))
    return gradient if gradient is NotImplemented else (gradient, -gradient if needs[1] else None)


@primitive
def negative_log_likelihood(xp, input: Array, target: Array, reduction: str = "none"):
    """For log-probabilities [n, classes] and class indices [n]: -input[i, target[i]], [n] or reduced to one."""
    losses = -input[xp.arange(len(target)), target]
    return losses if reduction == "none" else losses.sum() / mean_divisor(len(target), reduction)


def mean_divisor(rows: int, reduction: str) -> float:
    """What the sum of all losses is divided by: 0 rows have the mean nan."""
    return 1 if reduction != "mean" else rows or math.nan


def _losses_of(F: Any, g: Any, rows: int, reduction: str) -> Any:
    """The gradient of the losses of all rows."""
    return g if reduction == "none" else F.expand(g / mean_divisor(rows, reduction), (rows,))


negative_log_likelihood.vjp(
    input=lambda F, g, input_shape, target, reduction: F.scatter_zeros(
        -F.unsqueeze(_losses_of(F, g, len(target), reduction), 1), F.unsqueeze(target, 1), input_shape, 1
    )
)


def _place_by_class(xp: Any, g: Any, needs: tuple, input_shape: tuple, target: Any, reduction: str) -> tuple:
    """The written rule where each row has one place, so that nothing has to be added."""
    rows = len(target)
    gradient = xp.zeros(input_shape, g.dtype)
    gradient[xp.arange(rows), target] = -g / mean_divisor(rows, reduction)
    return gradient, None


for _device in ("cpu", "cuda"):
    negative_log_likelihood.fused_vjp(_device)(_place_by_class)


@primitive(promote="float", residuals=("difference",))
def mean_squared_error(xp, input: Array, other: Array):
    """The mean of (input - other)**2 over all elements; few keep their differences for backward."""
    difference = input - other
    return ((difference * difference).sum() / (difference.size or math.nan)).astype(difference.dtype), None


@mean_squared_error.kernel("cpu")
def _mean_squared_error(input: numpy.ndarray, other: numpy.ndarray) -> Any:
    """For few elements one inner product is much quicker than two passes, and as exact."""
    if input.size >= kernels.LEAST_SIZE and _takes(input, other):
        total = summing.squared_distance(*map(numpy.ascontiguousarray, (input, other)))
        return numpy.asarray(total / input.dtype.type(input.size)), None
    difference = input - other
    size = difference.size
    if not 0 < size <= 4096 or difference.itemsize < 4:
        return mean_squared_error.declaration.body(numpy, input, other)
    flat = difference.ravel()
    return numpy.asarray(flat.dot(flat) / size), difference


def _takes(a: numpy.ndarray, b: numpy.ndarray) -> bool:
    return a.shape == b.shape and a.dtype is b.dtype and kernels.takes(a, light=True)


def _slope(F: Any, g: Any, input: Any, other: Any, difference: Any) -> Any:
    raw = input.__class__ is numpy.ndarray
    if difference is None:
        if raw and input.size >= kernels.LEAST_SIZE and _takes(input, other):
            return run("squared_difference_backward", (input, other), (float(g) * 2 / input.size,))
        difference = input - other
    count = difference.size if raw else math.prod(difference.shape)
    # [()] makes a NumPy number of a 0-d array, which takes a tenth of the time to multiply
    return difference * (g[()] * (2 / (count or math.nan)))


mean_squared_error.vjp(
    input=_slope,
    other=lambda F, g, input, other, difference: _slope(F, -g, input, other, difference),
)
