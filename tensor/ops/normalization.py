"""Normalization: (input - mean) / sqrt(variance + eps) over some dimensions, then weight and bias over others.

The backward of the written rules derives the statistics from the input again, so that derivatives of any order are
right. Ordinary backward uses the statistics of the forward pass.
"""

from __future__ import annotations

import functools
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
    """A parameter in the shape in which it broadcasts to the input; or the input in another shape, if one is given."""
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
    size: tuple | None = None,
):
    """(input - mean) / sqrt(variance + eps) * weight + bias, where mean and variance are the input's over dims.

    weight and bias broadcast to the input, in another shape if one is given. mean and variance are given by who has
    them, both or none; the rule knows that they depend on the input. Without `centered` they are 0 and the mean square.
    Where a size is given, all of this is meant of the input in that shape.
    """
    weight, bias, given = _spread(weight, shape), _spread(bias, shape), input.shape
    input = _spread(input, size)
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
    return out.reshape(given), mean, scale


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
    size: tuple | None,
) -> tuple:
    given = tuple(input.shape)
    if size is not None:
        input, g = F.reshape(input, size), F.reshape(g, size)
    deviation = input - F.mean(input, dims, True) if centered else input
    scale = F.rsqrt(F.mean(deviation * deviation, dims, True) + eps)
    normal = deviation * scale
    slope = g if weight is None else g * (weight if shape is None else F.reshape(weight, shape))
    of_input = _through_statistics(F, slope, normal, scale, dims, centered) if needs[0] else None
    return (
        of_input if of_input is None or size is None else F.reshape(of_input, given),
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
    size: tuple | None,
) -> tuple:
    """The same from the statistics of the forward pass, with few temporary arrays."""
    found, given = None, input.shape
    input, g = _spread(input, size), _spread(g, size)
    if xp is numpy and kernels.takes(g, _WORK, light=True, worth=_WORTH):
        found = _compiled_gradients(g, input, center, scale, weight, bias, dims, centered, shape)
    if found is None:
        spread = _spread(weight, shape), _spread(bias, shape)
        found = _gradients(g, needs, input, center, scale, *spread, dims, centered)
    of_input, of_weight, of_bias = found
    return (
        _spread(of_input, size and given) if needs[0] else None,
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


_WORK = 4  # passes over the elements
_WORTH = 8  # a kernel takes the place of a dozen calls of NumPy and more

# -- compiled ----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def _layout(shape: tuple, dims: tuple, *parameters: tuple | None) -> str | None:
    """Which kernels take an input and parameters of these shapes: "rows", "groups", "channels", or None."""
    shapes = [size for size in parameters if size is not None]
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


def _shape_of(parameter: Any, shape: tuple | None) -> tuple | None:
    """The shape in which a parameter broadcasts to the input."""
    return None if parameter is None else shape or parameter.shape


@functools.lru_cache(maxsize=256)
def _filled(value: float, shape: tuple, dtype: Any) -> Array:
    """What stands for a parameter that is not there; not to be written into."""
    return numpy.full(shape, value, dtype)


def _parameters(weight: Any, bias: Any, shape: tuple, dtype: Any) -> tuple:
    """Both in a shape, those of the identity in place of None."""
    return (
        _filled(1, shape, dtype) if weight is None else weight.reshape(shape),
        _filled(0, shape, dtype) if bias is None else bias.reshape(shape),
    )


def _chunks(rows: int, row_size: int) -> int:
    """How many parts to sum rows in; what a part holds stays in the cache."""
    return max(1, min(rows, rows * row_size >> 13))


def _by_channel(x: numpy.ndarray) -> numpy.ndarray:
    """[n, channels, ...] as [n, channels, places], or [n, channels] where each channel has one place."""
    x = numpy.ascontiguousarray(x)
    places = math.prod(x.shape[2:])
    return x.reshape(x.shape[0], x.shape[1]) if places == 1 else x.reshape(x.shape[0], x.shape[1], places)


def _pieces(x: numpy.ndarray) -> int:
    """How many parts to sum the channels of [n, channels, places] or [n, channels] in."""
    return _chunks(len(x), x.shape[-1])


@compiled(moments, _WORK, light=True, worth=_WORTH)
def _compiled_moments(input: numpy.ndarray, dims: tuple) -> Any:
    if _layout(input.shape, dims) != "channels":
        return NotImplemented
    x = _by_channel(input)
    kernel = sources.normalization.column_moments if x.ndim == 2 else sources.normalization.channel_moments
    shape = (1, x.shape[1]) + (1,) * (input.ndim - 2)
    mean, variance = numpy.empty(x.shape[1], x.dtype), numpy.empty(x.shape[1], x.dtype)
    kernel(x, _pieces(x), mean, variance)
    return mean.reshape(shape), variance.reshape(shape)


@compiled(normalize, _WORK, light=True, worth=_WORTH)
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
    size: tuple | None = None,
) -> Any:
    size, given = size or input.shape, input.shape
    layout = _layout(size, dims, _shape_of(weight, shape), _shape_of(bias, shape))
    if layout is None or (layout == "channels") != (mean is not None):
        return NotImplemented
    dtype = input.dtype
    out, eps = numpy.empty(given, dtype), dtype.type(eps)
    if layout == "channels":
        x, scale = _by_channel(input), numpy.empty(size[1], dtype)
        kernel = sources.normalization.columns if x.ndim == 2 else sources.normalization.channels
        parameters = _parameters(weight, bias, scale.shape, dtype)
        kernel(x, mean.reshape(-1), variance.reshape(-1), eps, *parameters, out.reshape(x.shape), scale)
        return out, mean, scale.reshape(mean.shape)
    lead, x = size[: len(size) - len(dims)], numpy.ascontiguousarray(input)
    rows = math.prod(lead)
    center, scale = numpy.empty(rows, dtype), numpy.empty(rows, dtype)
    if layout == "rows":
        shape = (rows, input.size // rows)
        parameters = _parameters(weight, bias, shape[1:], dtype)
        sources.normalization.rows(x.reshape(shape), *parameters, eps, centered, out.reshape(shape), center, scale)
    else:
        parameters = _parameters(weight, bias, size[1:3], dtype)
        sources.normalization.groups(x.reshape(size), *parameters, eps, out.reshape(size), center, scale)
    kept = lead + (1,) * len(dims)
    return out, center.reshape(kept), scale.reshape(kept)


def _compiled_gradients(
    g: Any,
    input: Any,
    center: Any,
    scale: Any,
    weight: Any,
    bias: Any,
    dims: tuple,
    centered: bool,
    shape: tuple | None,
) -> tuple | None:
    size, dtype = input.shape, input.dtype
    layout = _layout(size, dims, _shape_of(weight, shape), _shape_of(bias, shape))
    if layout is None or dtype is not g.dtype:
        return None
    x, g, gradient = numpy.ascontiguousarray(input), numpy.ascontiguousarray(g), numpy.empty(size, dtype)
    statistics = (center.reshape(-1), scale.reshape(-1))
    if layout == "channels":
        x = _by_channel(x)
        kernel = sources.normalization.columns_backward if x.ndim == 2 else sources.normalization.channels_backward
        of_weight, of_bias = numpy.empty(size[1], dtype), numpy.empty(size[1], dtype)
        factor, _ = _parameters(weight, None, of_weight.shape, dtype)
        slopes = gradient.reshape(x.shape)
        kernel(g.reshape(x.shape), x, _pieces(x), *statistics, factor, slopes, of_weight, of_bias)
        return gradient, of_weight, of_bias
    if layout == "rows":
        shape = (len(statistics[0]), input.size // len(statistics[0]))
        factor, _ = _parameters(weight, None, shape[1:], dtype)
        parts = numpy.empty((2, min(_chunks(*shape), 32), shape[1]), dtype)
        arrays = (g.reshape(shape), x.reshape(shape), factor, *statistics, centered, gradient.reshape(shape))
        sources.normalization.rows_backward(*arrays, parts)
    else:
        factor, _ = _parameters(weight, None, size[1:3], dtype)
        parts = numpy.empty((2, *size[:3]), dtype)
        sources.normalization.groups_backward(g, x, factor, *statistics, gradient, parts)
    of_weight, of_bias = parts[:, 0] if parts.shape[1] == 1 else numpy.add.reduce(parts, 1)
    return gradient, of_weight, of_bias


# -- with statistics that are given ------------------------------------------------------------------------------------


@primitive
def normalize_by(
    xp, input: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None, eps: float
):
    """(input - mean) / sqrt(variance + eps) * weight + bias for each channel: an input [n, channels, ...], the others
    [channels]."""
    shape = (-1,) + (1,) * (input.ndim - 2)
    scale = 1 / xp.sqrt(variance + eps)
    if weight is not None:
        scale *= weight
    out = input - mean.reshape(shape)
    out *= scale.reshape(shape)
    if bias is not None:
        out += bias.reshape(shape)
    return out


@normalize_by.joint_vjp
def _normalize_by(F: Any, g: Any, needs: tuple, input: Any, mean: Any, variance: Any, weight: Any, eps: float) -> tuple:
    shape = (1, -1) + (1,) * (len(input.shape) - 2)
    scale = F.rsqrt(variance + eps)
    factor = scale if weight is None else scale * weight
    of_input = g * F.reshape(factor, shape) if needs[0] or needs[1] else None
    of_scale = _channel_sums(F, g * (input - F.reshape(mean, shape))) if needs[2] or needs[3] else None
    return (
        of_input,
        -_channel_sums(F, of_input) if needs[1] else None,
        of_scale * factor * scale * scale * -0.5 if needs[2] else None,
        of_scale * scale if needs[3] else None,
        _channel_sums(F, g) if needs[4] else None,
    )


def _channel_sums(F: Any, x: Any) -> Any:
    return F.sum(x, (0, *range(2, len(x.shape))))


@compiled(normalize_by, _WORK, light=True, worth=_WORTH)
def _compiled_normalize_by(
    input: numpy.ndarray, mean: Any, variance: Any, weight: Any, bias: Any, eps: float
) -> Any:
    x, out, scale = _by_channel(input), numpy.empty(input.shape, input.dtype), numpy.empty(mean.shape, input.dtype)
    kernel = sources.normalization.columns if x.ndim == 2 else sources.normalization.channels
    parameters = _parameters(weight, bias, mean.shape, x.dtype)
    kernel(x, mean, variance, x.dtype.type(eps), *parameters, out.reshape(x.shape), scale)
    return out
