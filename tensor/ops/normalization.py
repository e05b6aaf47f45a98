"""Normalization: (input - mean) / sqrt(variance + eps) over some dimensions, then weight and bias over others.

The backward of the written rules derives the statistics from the input again, so that derivatives of any order are
right. Ordinary backward uses the statistics of the forward pass.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from .. import kernels
from ..kernels import compiled, sources


@primitive(outputs=("mean", "variance"))
def moments(xp, input: Array, dims: tuple):
    """Mean and biased variance over dims, which stay as dimensions of size 1; constants to the tape."""
    mean = input.mean(dims, keepdims=True)
    deviation = input - mean
    deviation *= deviation
    return mean, deviation.mean(dims, keepdims=True)


@primitive(residuals=("center", "scale"))
def normalize(
    xp,
    input: Array,
    mean: Array | None,
    variance: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    dims: tuple = (-1,),
    eps: float = 1e-5,
    centered: bool = True,
):
    """(input - mean) / sqrt(variance + eps) * weight + bias, where mean and variance are the input's over dims.

    weight and bias broadcast to the input. mean and variance are given by who has them, both or none; the rule knows
    that they depend on the input. Without `centered` they are 0 and the mean square.
    """
    if not centered:
        out = input.copy()
        mean = xp.zeros((1,) * input.ndim, input.dtype)
        scale = 1 / xp.sqrt((input * input).mean(dims, keepdims=True) + eps)
    else:
        if mean is None:
            mean = input.mean(dims, keepdims=True)
        out = input - mean
        if variance is None:
            variance = (out * out).mean(dims, keepdims=True)
        scale = 1 / xp.sqrt(variance + eps)
    if weight is not None and weight.shape == scale.shape:
        out *= scale * weight
    else:
        out *= scale
        if weight is not None:
            out *= weight
    if bias is not None:
        out += bias
    return out, mean, scale


@normalize.joint_vjp
def _normalize_gradients(
    F: Any, g: Any, needs: tuple, input: Any, weight: Any, bias: Any, dims: tuple, eps: float, centered: bool
) -> tuple:
    deviation = input - F.mean(input, dims, True) if centered else input
    scale = F.rsqrt(F.mean(deviation * deviation, dims, True) + eps)
    normal = deviation * scale
    slope = g if weight is None else g * weight
    return (
        _through_statistics(F, slope, normal, scale, dims, centered) if needs[0] else None,
        None,
        None,
        F.sum_to_size(g * normal, tuple(weight.shape)) if needs[3] else None,
        F.sum_to_size(g, tuple(bias.shape)) if needs[4] else None,
    )


def _through_statistics(F: Any, g: Any, normal: Any, scale: Any, dims: tuple, centered: bool) -> Any:
    """The gradient of the input, whose mean and variance were taken out, from that of the normalized values."""
    across = normal * F.mean(g * normal, dims, True)
    return scale * (g - F.mean(g, dims, True) - across if centered else g - across)


def _fused_gradients(
    xp: Any,
    g: Any,
    needs: tuple,
    input: Any,
    center: Any,
    scale: Any,
    weight: Any,
    bias: Any,
    dims: tuple,
    centered: bool,
) -> tuple:
    """The same from the statistics of the forward pass, with few temporary arrays."""
    if xp is numpy and kernels.takes(g):
        found = _compiled_gradients(g, needs, input, center, scale, weight, bias, dims, centered)
        if found is not None:
            return found
    normal = input - center
    normal *= scale
    product = g * normal
    gradient = weight_gradient = bias_gradient = None
    if needs[3]:
        weight_gradient = _summed(product, weight.shape)
    if needs[4]:
        bias_gradient = _summed(g, bias.shape)
    if needs[0]:
        if weight is None:
            gradient = g.copy()
        else:
            product *= weight
            gradient = g * weight
        if centered:
            gradient -= gradient.mean(dims, keepdims=True)
        normal *= product.mean(dims, keepdims=True)
        gradient -= normal
        gradient *= scale
    return gradient, None, None, weight_gradient, bias_gradient


def _summed(x: Array, shape: tuple) -> Array:
    """The sum over the dimensions along which a parameter of a shape was broadcast."""
    lead = x.ndim - len(shape)
    dims = tuple(i for i in range(x.ndim) if i < lead or shape[i - lead] == 1)
    return x.sum(dims).reshape(shape)


for _device in ("cpu", "cuda"):
    normalize.fused_vjp(_device)(_fused_gradients)


# -- compiled ----------------------------------------------------------------------------------------------------------


def _layout(shape: tuple, dims: tuple, weight: Any, bias: Any) -> str | None:
    """Which kernels take the input and parameters: "rows", "groups", "channels", or None."""
    shapes = [p.shape for p in (weight, bias) if p is not None]
    lead = len(shape) - len(dims)
    if not math.prod(shape):
        return None
    if lead > 0 and dims == tuple(range(lead, len(shape))):
        if all(s == shape[lead:] for s in shapes):
            return "rows"
        if len(shape) == 4 and lead == 2 and all(s == (1, *shape[1:3], 1) for s in shapes):
            return "groups"
    if lead == 1 and dims == (0, *range(2, len(shape))):
        if all(s == (1, shape[1]) + (1,) * (len(shape) - 2) for s in shapes):
            return "channels"
    return None


def _parameters(weight: Any, bias: Any, shape: tuple, dtype: Any) -> tuple:
    """Both in a shape, those of the identity in place of None."""
    return (
        numpy.ones(shape, dtype) if weight is None else weight.reshape(shape),
        numpy.zeros(shape, dtype) if bias is None else bias.reshape(shape),
    )


def _chunks(rows: int, row_size: int) -> int:
    """How many parts to sum rows in; what a part holds stays in the cache."""
    return max(1, min(rows, rows * row_size >> 13))


def _by_channel(x: numpy.ndarray) -> numpy.ndarray:
    """[n, channels, ...] as [n, channels, places], or [n, channels] where each channel has one place."""
    x = numpy.ascontiguousarray(x)
    places = math.prod(x.shape[2:])
    return x.reshape(x.shape[0], x.shape[1]) if places == 1 else x.reshape(x.shape[0], x.shape[1], places)


@compiled(moments)
def _compiled_moments(input: numpy.ndarray, dims: tuple) -> Any:
    if _layout(input.shape, dims, None, None) != "channels":
        return NotImplemented
    x = _by_channel(input)
    kernel = sources.normalization.column_moments if x.ndim == 2 else sources.normalization.channel_moments
    chunks = _chunks(x.shape[0], x.size // x.shape[0] if x.ndim == 2 else x.shape[2])
    shape = (1, x.shape[1]) + (1,) * (input.ndim - 2)
    mean, variance = numpy.empty((2, x.shape[1]), x.dtype)
    kernel(x, chunks, mean, variance)
    return mean.reshape(shape), variance.reshape(shape)


@compiled(normalize)
def _compiled_normalize(
    input: numpy.ndarray,
    mean: Any,
    variance: Any,
    weight: Any,
    bias: Any,
    dims: tuple,
    eps: float,
    centered: bool = True,
) -> Any:
    layout = _layout(input.shape, dims, weight, bias)
    if layout is None or (layout == "channels") != (mean is not None):
        return NotImplemented
    dtype, eps = input.dtype, input.dtype.type(eps)
    if layout == "channels":
        x, out = _by_channel(input), numpy.empty(input.shape, dtype)
        scale = 1 / numpy.sqrt(variance + eps)
        kernel = sources.normalization.columns if x.ndim == 2 else sources.normalization.channels
        parameters = _parameters(weight, bias, x.shape[1:2], dtype)
        kernel(x, mean.reshape(-1), scale.reshape(-1), *parameters, out.reshape(x.shape))
        return out, mean, scale
    lead = input.ndim - len(dims)
    x, out = numpy.ascontiguousarray(input), numpy.empty(input.shape, dtype)
    center, scale = numpy.empty((2, math.prod(input.shape[:lead])), dtype)
    if layout == "rows":
        shape = (center.size, input.size // center.size)
        parameters = _parameters(weight, bias, shape[1:], dtype)
        sources.normalization.rows(x.reshape(shape), *parameters, eps, centered, out.reshape(shape), center, scale)
    else:
        parameters = _parameters(weight, bias, input.shape[1:3], dtype)
        sources.normalization.groups(x, *parameters, eps, out, center, scale)
    kept = (*input.shape[:lead], *(1 for _ in dims))
    return out, center.reshape(kept), scale.reshape(kept)


def _compiled_gradients(
    g: Any, needs: tuple, input: Any, center: Any, scale: Any, weight: Any, bias: Any, dims: tuple, centered: bool
) -> tuple | None:
    layout = _layout(input.shape, dims, weight, bias)
    if layout is None or input.dtype is not g.dtype:
        return None
    x, g, gradient = numpy.ascontiguousarray(input), numpy.ascontiguousarray(g), numpy.empty(input.shape, input.dtype)
    statistics = (center.reshape(-1), scale.reshape(-1))
    if layout == "channels":
        x = _by_channel(x)
        kernel = sources.normalization.columns_backward if x.ndim == 2 else sources.normalization.channels_backward
        chunks = _chunks(x.shape[0], x.size // x.shape[0] if x.ndim == 2 else x.shape[2])
        weight_gradient, bias_gradient = numpy.empty((2, x.shape[1]), x.dtype)
        shape = x.shape
        factor = _parameters(weight, None, shape[1:2], x.dtype)[0]
        parameters = weight_gradient, bias_gradient
        kernel(g.reshape(shape), x, chunks, *statistics, factor, gradient.reshape(shape), *parameters)
    elif layout == "rows":
        shape = (center.size, input.size // center.size)
        factor = _parameters(weight, None, shape[1:], x.dtype)[0]
        parts = numpy.empty((2, min(shape[0], 32), shape[1]), x.dtype)
        arrays = (g.reshape(shape), x.reshape(shape), factor, *statistics, centered, gradient.reshape(shape))
        sources.normalization.rows_backward(*arrays, *parts)
        weight_gradient, bias_gradient = parts.sum(1)
    else:
        factor = _parameters(weight, None, input.shape[1:3], x.dtype)[0]
        parts = numpy.empty((2, *input.shape[:3]), x.dtype)
        sources.normalization.groups_backward(g, x, factor, *statistics, gradient, *parts)
        weight_gradient, bias_gradient = parts.sum(1)
    return (
        gradient if needs[0] else None,
        None,
        None,
        weight_gradient.reshape(weight.shape) if needs[3] else None,
        bias_gradient.reshape(bias.shape) if needs[4] else None,
    )
