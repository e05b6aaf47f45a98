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
    mean = _mean(input, dims)
    deviation = input - mean
    deviation *= deviation
    return mean, _mean(deviation, dims)


def _mean(x: Array, dims: tuple) -> Array:
    """The mean over dims, which stay; of float32 and float64 what mean() gives, in half the time."""
    if x.itemsize < 4:
        return x.mean(dims, keepdims=True)
    total = x.sum(dims, keepdims=True)
    total /= x.size / (total.size or 1) or math.nan
    return total


def _spread(parameter: Any, shape: tuple | None) -> Any:
    """A parameter in the shape in which it broadcasts to the input."""
    return parameter if parameter is None or shape is None else parameter.reshape(shape)


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
    shape: tuple | None = None,
):
    """(input - mean) / sqrt(variance + eps) * weight + bias, where mean and variance are the input's over dims.

    weight and bias broadcast to the input, in another shape if one is given. mean and variance are given by who has
    them, both or none; the rule knows that they depend on the input. Without `centered` they are 0 and the mean square.
    """
    weight, bias = _spread(weight, shape), _spread(bias, shape)
    if not centered:
        out = input.copy()
        mean = xp.zeros((1,) * input.ndim, input.dtype)
        scale = 1 / xp.sqrt(_mean(input * input, dims) + eps)
    else:
        if mean is None:
            mean = _mean(input, dims)
        out = input - mean
        if variance is None:
            variance = _mean(out * out, dims)
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
    F: Any,
    g: Any,
    needs: tuple,
    input: Any,
    weight: Any,
    bias: Any,
    dims: tuple,
    eps: float,
    centered: bool,
    shape: tuple | None,
) -> tuple:
    deviation = input - F.mean(input, dims, True) if centered else input
    scale = F.rsqrt(F.mean(deviation * deviation, dims, True) + eps)
    normal = deviation * scale
    slope = g if weight is None else g * (weight if shape is None else F.reshape(weight, shape))
    return (
        _through_statistics(F, slope, normal, scale, dims, centered) if needs[0] else None,
        None,
        None,
        _to_parameter(F, g * normal, weight, shape) if needs[3] else None,
        _to_parameter(F, g, bias, shape) if needs[4] else None,
    )


def _to_parameter(F: Any, g: Any, parameter: Any, shape: tuple | None) -> Any:
    """The gradient of a parameter from that of what it was spread over."""
    size = tuple(parameter.shape)
    return F.sum_to_size(g, size) if shape is None else F.reshape(F.sum_to_size(g, shape), size)


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
    shape: tuple | None,
) -> tuple:
    """The same from the statistics of the forward pass, with few temporary arrays."""
    spread = _spread(weight, shape), _spread(bias, shape)
    found = None
    if xp is numpy and kernels.takes(g, _WORK):
        found = _compiled_gradients(g, input, center, scale, *spread, dims, centered)
    of_input, of_weight, of_bias = found or _gradients(g, needs, input, center, scale, *spread, dims, centered)
    return (
        of_input if needs[0] else None,
        None,
        None,
        of_weight.reshape(weight.shape) if needs[3] else None,
        of_bias.reshape(bias.shape) if needs[4] else None,
    )


def _gradients(
    g: Any, needs: tuple, input: Any, center: Any, scale: Any, weight: Any, bias: Any, dims: tuple, centered: bool
) -> tuple:
    normal = input - center
    normal *= scale
    product = g * normal
    of_weight = _summed(product, weight.shape) if needs[3] else None
    of_bias = _summed(g, bias.shape) if needs[4] else None
    if not needs[0]:
        return None, of_weight, of_bias
    if weight is None:
        of_input = g.copy()
    else:
        product *= weight
        of_input = g * weight
    if centered:
        of_input -= _mean(of_input, dims)
    normal *= _mean(product, dims)
    of_input -= normal
    of_input *= scale
    return of_input, of_weight, of_bias


def _summed(x: Array, shape: tuple) -> Array:
    """The sum over the dimensions along which a parameter of a shape was broadcast."""
    lead = x.ndim - len(shape)
    return x.sum(tuple([i for i in range(x.ndim) if i < lead or shape[i - lead] == 1]))


for _device in ("cpu", "cuda"):
    normalize.fused_vjp(_device)(_fused_gradients)


_WORK = 4  # passes that the portable bodies make for one of a kernel's

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


@compiled(moments, _WORK)
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


@compiled(normalize, _WORK)
def _compiled_normalize(
    input: numpy.ndarray,
    mean: Any,
    variance: Any,
    weight: Any,
    bias: Any,
    dims: tuple,
    eps: float,
    centered: bool = True,
    shape: tuple | None = None,
) -> Any:
    weight, bias = _spread(weight, shape), _spread(bias, shape)
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
    g: Any, input: Any, center: Any, scale: Any, weight: Any, bias: Any, dims: tuple, centered: bool
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
    return gradient, weight_gradient, bias_gradient


# -- with statistics that are given ------------------------------------------------------------------------------------


@primitive
def scale_channels(xp, input: Array, mean: Array, scale: Array, bias: Array | None):
    """(input - mean) * scale + bias for each channel: an input [n, channels, ...], the others [channels]."""
    shape = (-1,) + (1,) * (input.ndim - 2)
    out = input - mean.reshape(shape)
    out *= scale.reshape(shape)
    if bias is not None:
        out += bias.reshape(shape)
    return out


@scale_channels.joint_vjp
def _scale_channels(F: Any, g: Any, needs: tuple, input: Any, mean: Any, scale: Any) -> tuple:
    shape = (1, -1) + (1,) * (len(input.shape) - 2)
    factor = F.reshape(scale, shape)
    of_input = g * factor if needs[0] or needs[1] else None
    total = _channel_sums(F, g) if needs[3] else None
    return (
        of_input,
        -_channel_sums(F, of_input) if needs[1] else None,
        _channel_sums(F, g * (input - F.reshape(mean, shape))) if needs[2] else None,
        total,
    )


def _channel_sums(F: Any, x: Any) -> Any:
    return F.sum(x, (0, *range(2, len(x.shape))))


@compiled(scale_channels)
def _compiled_scale_channels(input: numpy.ndarray, mean: Any, scale: Any, bias: Any) -> Any:
    x, out = _by_channel(input), numpy.empty(input.shape, input.dtype)
    kernel = sources.normalization.columns if x.ndim == 2 else sources.normalization.channels
    weight, bias = _parameters(None, bias, mean.shape, x.dtype)
    kernel(x, mean, scale, weight, bias, out.reshape(x.shape))
    return out
