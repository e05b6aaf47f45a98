"""Activation functions."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from ..kernels import compiled
from . import arithmetic as ar
from . import pointwise as pw
from .one_pass import one_pass, run
from .shaping import one_dim

floating = primitive(promote="float")


@floating
def softplus(xp, input: Array, beta: float = 1, threshold: float = 20):
    """log(1 + exp(beta * input)) / beta; the input itself where beta * input > threshold."""
    scaled = input * beta
    return xp.where(scaled > threshold, input, xp.logaddexp(scaled, xp.zeros_like(scaled)) / beta)


softplus.vjp(
    input=lambda F, g, input, beta, threshold: F.where(
        F.gt(input * beta, threshold), g, g * F.sigmoid(input * beta)
    )
)
one_pass(softplus, "input", work=8, worth=4)


@primitive
def relu(xp, input: Array):
    """max(input, 0)."""
    return xp.maximum(input, xp.zeros(input.shape, input.dtype))  # NumPy compares with a number slowly


relu.vjp(input=lambda F, g, out: F.relu_backward(g, out))
one_pass(relu)
_small = relu.declaration.replayed


def _relu_replayed(raw: tuple, attributes: tuple) -> Any:
    if _small(raw, attributes) is None:
        return None
    zeros = numpy.zeros(raw[0].shape, raw[0].dtype)
    return lambda input: numpy.maximum(input, zeros)


relu.declaration.replayed = _relu_replayed


@primitive
def relu_backward(xp, gradient: Array, output: Array):
    """The gradient where the output of relu was positive, 0 elsewhere."""
    return gradient * (output > (_ZEROS.get(output.dtype.char, 0) if xp is numpy else 0))


_ZEROS = {kind: numpy.zeros((), kind) for kind in "fd"}  # NumPy compares with a Python number in twice the time


relu_backward.vjp(gradient=lambda F, g, output: F.relu_backward(g, output))


@compiled(relu_backward, light=True)
def _relu_backward(gradient: Any, output: Any) -> Any:
    return run("relu_backward", (gradient, output))


relu_backward.declaration.element = lambda inputs, attributes: ("relu_backward", inputs, ())


@primitive
def leaky_relu(xp, input: Array, negative_slope: float = 0.01):
    """The input where positive, negative_slope * input elsewhere."""
    if 0 < negative_slope <= 1:
        return xp.maximum(input, input * negative_slope)
    return xp.where(input > 0, input, input * negative_slope)


leaky_relu.vjp(
    input=lambda F, g, input, negative_slope: F.where(F.gt(input, 0), g, g * negative_slope)
)
one_pass(leaky_relu, "input")


@floating
def elu(xp, input: Array, alpha: float = 1.0, scale: float = 1.0):
    """scale * (the input where positive, alpha * (exp(input) - 1) elsewhere)."""
    below = xp.expm1(xp.minimum(input, 0)) * alpha
    return (xp.where(input > 0, input, below) * scale).astype(input.dtype, copy=False)


elu.vjp(
    input=lambda F, g, input, alpha, scale: F.where(
        F.gt(input, 0), g * scale, g * (scale * alpha * F.exp(F.clamp(input, None, 0)))
    )
)
one_pass(elu, "input", work=8, worth=2)


@floating
def gelu(xp, input: Array, approximate: str = "none"):
    """input * Phi(input), with Phi the normal distribution function; approximate="tanh" uses its tanh form.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
    """
    if approximate == "tanh":
        t = xp.tanh((input * input * (_GELU * 0.044715) + _GELU) * input)
    elif approximate == "none":
        t = pw.erf.declaration.body(xp, input * math.sqrt(0.5))
    else:
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
    t += 1
    t *= input
    t *= 0.5
    return t.astype(input.dtype, copy=False)


_GELU = math.sqrt(2 / math.pi)


def _gelu_input(F: Any, g: Any, input: Any, approximate: str) -> Any:
    if approximate == "none":
        density = F.exp(input * input * -0.5) * (1 / math.sqrt(2 * math.pi))
        return g * (0.5 * (1 + F.erf(input * math.sqrt(0.5))) + input * density)
    square = input * input
    t = F.tanh(input * (square * (_GELU * 0.044715) + _GELU))
    return g * (0.5 * (1 + t) + input * (1 - t * t) * (square * (_GELU * 1.5 * 0.044715) + 0.5 * _GELU))


gelu.vjp(input=_gelu_input)
one_pass(gelu, "input", work=16, kernel={"none": ("gelu", ()), "tanh": ("gelu_tanh", ())}.get, worth=2)


@floating
def silu(xp, input: Array):
    """input * sigmoid(input)."""
    return input * pw.sigmoid.declaration.body(xp, input)


def _silu_input(F: Any, g: Any, input: Any) -> Any:
    s = F.sigmoid(input)
    return g * (s * (1 + input * (1 - s)))


silu.vjp(input=_silu_input)
one_pass(silu, "input", work=8, worth=2)


@floating
def glu(xp, input: Array, dim: int = -1):
    """a * sigmoid(b), where a and b are the halves of the input along dim; Dauphin et al., 2016."""
    a, b = _halves(input, one_dim(dim, input.ndim))
    return a * pw.sigmoid.declaration.body(xp, b)


def _halves(x: Any, dim: int) -> tuple[Any, Any]:
    half = x.shape[dim] // 2
    before = (slice(None),) * dim
    return x[(*before, slice(half))], x[(*before, slice(half, None))]


def _glu_input(F: Any, g: Any, input: Any, dim: int) -> Any:
    dim = one_dim(dim, len(input.shape))
    half = input.shape[dim] // 2
    s = F.sigmoid(F.narrow(input, dim, half, half))
    of_a = g * s
    return F.cat([of_a, of_a * F.narrow(input, dim, 0, half) * (1 - s)], dim)


glu.vjp(input=_glu_input)


@compiled(glu, work=8, light=True)
def _glu(input: Any, dim: int = -1) -> Any:
    return run("glu", _halves(input, one_dim(dim, input.ndim)))


@floating
def logsigmoid(xp, input: Array):
    """log(sigmoid(input)), without overflow."""
    return -xp.logaddexp(-input, xp.zeros_like(input))


logsigmoid.vjp(input=lambda F, g, input: g * F.sigmoid(-input))
one_pass(logsigmoid, "input", work=8, worth=4)


@primitive
def hardtanh(xp, input: Array, min_val: float = -1.0, max_val: float = 1.0):
    """The input limited to [min_val, max_val]; unlike clamp, no gradient at the limits themselves."""
    if input.dtype.kind in "iu":
        min_val, max_val = int(min_val), int(max_val)
    return pw.clamp.declaration.body(xp, input, min_val, max_val)


hardtanh.vjp(
    input=lambda F, g, input, min_val, max_val: F.where(
        F.logical_and(F.gt(input, min_val), F.lt(input, max_val)), g, F.zeros_like(g)
    )
)
one_pass(hardtanh, "input")


@floating
def mish(xp, input: Array):
    """input * tanh(softplus(input)); Misra, Mish, 2019."""
    return input * xp.tanh(softplus.declaration.body(xp, input))


def _mish_input(F: Any, g: Any, input: Any) -> Any:
    t = F.tanh(F.softplus(input, 1.0, 20.0))
    return g * (t + input * (1 - t * t) * F.sigmoid(input))


mish.vjp(input=_mish_input)
one_pass(mish, "input", work=8, worth=4)


@floating
def hardsigmoid(xp, input: Array):
    """min(max(input + 3, 0), 6) / 6."""
    return pw.clamp.declaration.body(xp, input + 3, 0, 6) / 6


hardsigmoid.vjp(
    input=lambda F, g, input: F.where(F.lt(F.abs(input), 3), g / 6, F.zeros_like(g))
)
one_pass(hardsigmoid, "input")


@floating
def hardswish(xp, input: Array):
    """input * hardsigmoid(input); Howard et al., Searching for MobileNetV3, 2019."""
    return input * hardsigmoid.declaration.body(xp, input)


def _hardswish_input(F: Any, g: Any, input: Any) -> Any:
    rising = F.where(F.lt(input, 3), g * (input / 3 + 0.5), g)
    return F.where(F.le(input, -3), F.zeros_like(g), rising)


hardswish.vjp(input=_hardswish_input)
one_pass(hardswish, "input", worth=16)


def relu6(input: Any) -> Any:
    """min(max(input, 0), 6)."""
    return hardtanh(input, 0.0, 6.0)


def selu(input: Any) -> Any:
    """The self-normalizing elu of Klambauer et al., Self-Normalizing Neural Networks, 2017."""
    return elu(input, 1.6732632423543772, 1.0507009873554805)


def softsign(input: Any) -> Any:
    """input / (1 + |input|)."""
    return ar.true_divide(input, ar.add(pw.abs(input), 1))


def tanhshrink(input: Any) -> Any:
    """input - tanh(input)."""
    return ar.sub(input, pw.tanh(input))
