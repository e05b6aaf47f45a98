"""Pooling over windows in any number of dimensions."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from ..kernels import compiled, compiled_vjp, sources
from .sliding_windows import Windows

# -- the largest element -----------------------------------------------------------------------------------------------


def _lowest(xp: Any, dtype: Any) -> float:
    """What never is the largest element."""
    return xp.iinfo(dtype).min if dtype.kind in "iu" else -xp.inf


@primitive(residuals=("winners",))
def max_pool(xp, input: Array, windows: Windows):
    """The largest element of each window; nan if it has one. The kernel may remember where these were."""
    first, *rest = windows.positions(windows.padded(xp, input, _lowest(xp, input.dtype)))
    out = first.copy()
    for elements in rest:
        xp.maximum(out, elements, out=out)
    return out, None


# by the input alone, not by the output: what follows may overwrite that, as ReLU(inplace=True) often does
max_pool.vjp(input=lambda F, g, input, windows: F.max_pool_scatter(g, input, windows))


def _winners(xp: Any, input: Array, windows: Windows) -> Iterator[Array]:
    """For each kernel position, which windows have their largest element there: the first of equals, the last nan."""
    images = windows.padded(xp, input, _lowest(xp, input.dtype))
    first, *rest = windows.positions(images)
    index = xp.uint8 if len(rest) < 256 else xp.int32
    largest, winner = first.copy(), xp.zeros(first.shape, index)
    if images is not input:  # in a window of -inf only, the padding is not what wins
        inside = windows.padded(xp, xp.ones((1, 1, *input.shape[2:]), xp.uint8), 0)
        winner += xp.argmax(xp.stack(list(windows.positions(inside))), axis=0).astype(index)
    for place, elements in enumerate(rest, 1):
        larger = elements > largest
        larger |= elements != elements
        xp.maximum(winner, larger * index(place), out=winner)
        xp.maximum(largest, elements, out=largest)
    for place in range(1 + len(rest)):
        yield winner == place


@primitive
def max_pool_scatter(xp, gradient: Array, input: Array, windows: Windows):
    """Zeros of the input's shape with each window's gradient added at its largest element."""
    total = windows.zeros(xp, input.shape, gradient.dtype)
    for place, hit in zip(windows.positions(total), _winners(xp, input, windows), strict=True):
        place += gradient * hit
    return windows.interior(total, input.shape)


max_pool_scatter.vjp(gradient=lambda F, g, input, windows: F.max_pool_gather(g, input, windows))


@primitive
def max_pool_gather(xp, values: Array, input: Array, windows: Windows):
    """The elements of values (of the input's shape) where each window has its largest input."""
    result = xp.zeros((*input.shape[:2], *windows.out), values.dtype)
    padded = windows.padded(xp, values, 0)
    for elements, hit in zip(windows.positions(padded), _winners(xp, input, windows), strict=True):
        result += elements * hit
    return result


max_pool_gather.vjp(values=lambda F, g, input, windows: F.max_pool_scatter(g, input, windows))


@primitive
def max_pool_indices(xp, input: Array, windows: Windows):
    """Where in its flattened image each window has its largest element."""
    places = xp.zeros((1,) * input.ndim, xp.int64)
    for n, before, after in zip(input.shape[2:], windows.padding, windows.end, strict=True):
        places = places[..., None] * n + xp.arange(-before, n + after)
    places = places.reshape(places.shape[-input.ndim :])
    index = xp.zeros((*input.shape[:2], *windows.out), xp.int64)
    for place, hit in zip(windows.positions(places), _winners(xp, input, windows), strict=True):
        index += place * hit
    return index


# -- the mean ----------------------------------------------------------------------------------------------------------


def _divisor(xp: Any, size: tuple, windows: Windows, count_include_pad: bool, divisor_override: int | None) -> Any:
    """What the sum over each window is divided by: one number, or an array where windows differ."""
    if divisor_override is not None:
        return divisor_override
    if not any(windows.end) and (count_include_pad or not any(windows.padding)):
        return math.prod(windows.kernel)
    counts = []
    for n, k, s, p, count in zip(size[2:], windows.kernel, windows.stride, windows.padding, windows.out, strict=True):
        low, high = (-p, n + p) if count_include_pad else (0, n)
        starts = [i * s - p for i in range(count)]
        counts.append(xp.asarray([max(1, min(start + k, high) - max(start, low)) for start in starts]))
    return functools.reduce(lambda product, count: product[..., None] * count, counts)


@primitive
def avg_pool(xp, input: Array, windows: Windows, count_include_pad: bool, divisor_override: int | None):
    """The mean of each window."""
    first, *rest = windows.positions(windows.padded(xp, input, 0))
    out = first.copy()
    for elements in rest:
        out += elements
    mean = out / xp.asarray(_divisor(xp, input.shape, windows, count_include_pad, divisor_override), out.dtype)
    return mean.astype(out.dtype, copy=False)  # integers: the fraction is dropped


avg_pool.vjp(
    input=lambda F, g, input_shape, windows, count_include_pad, divisor_override: F.avg_pool_spread(
        g, input_shape, windows, count_include_pad, divisor_override
    )
)


@primitive
def avg_pool_spread(
    xp, gradient: Array, size: tuple, windows: Windows, count_include_pad: bool, divisor_override: int | None
):
    """Images of a size with every window's gradient shared out over its elements."""
    share = gradient / xp.asarray(_divisor(xp, size, windows, count_include_pad, divisor_override), gradient.dtype)
    total = windows.zeros(xp, size, gradient.dtype)
    for place in windows.positions(total):
        place += share
    return windows.interior(total, size)


avg_pool_spread.vjp(
    gradient=lambda F, g, windows, count_include_pad, divisor_override: F.avg_pool(
        g, windows, count_include_pad, divisor_override
    )
)


# -- kernels: see tensor/kernels/pooling.py ----------------------------------------------------------------------------


def _geometry(windows: Windows) -> tuple:
    return windows.kernel, windows.stride, windows.padding, windows.dilation, windows.out


@functools.lru_cache(maxsize=256)
def _divisors(plane: tuple, windows: Windows, dtype: Any, *options: Any) -> Array:
    """What the sum over each window of a plane is divided by; not to be written into."""
    divisor = numpy.asarray(_divisor(numpy, (1, 1, *plane), windows, *options), dtype)
    return numpy.ascontiguousarray(numpy.broadcast_to(divisor, windows.out)).reshape(-1)


_WORK = 8
_WORTH = 4  # the portable bodies make a pass for each place in a window


@compiled(max_pool, _WORK, light=True, worth=_WORTH)
def _max_pool(input, windows):  # type: ignore[no-untyped-def]
    if input.ndim > 5:
        return NotImplemented
    out = numpy.empty((*input.shape[:2], *windows.out), input.dtype)
    return out, sources.pooling.max_pool(input, out, *_geometry(windows))


@compiled_vjp(max_pool, 4 * _WORK, True, _WORTH)  # of the elements of a window, four at least, one has a gradient
def _(xp, g, needs, input, windows, winners):  # type: ignore[no-untyped-def]
    out = numpy.empty(input.shape, g.dtype)
    if winners is None and not sources.pooling.side_by_side(input.shape[2:], *_geometry(windows)):
        return NotImplemented
    sources.pooling.max_pool_backward(g, input, winners, out, *_geometry(windows))
    return (out,)


@compiled(avg_pool, _WORK, light=True, worth=_WORTH)
def _avg_pool(input, windows, count_include_pad, divisor_override):  # type: ignore[no-untyped-def]
    if input.ndim > 5:
        return NotImplemented
    out = numpy.empty((*input.shape[:2], *windows.out), input.dtype)
    divisors = _divisors(input.shape[2:], windows, input.dtype, count_include_pad, divisor_override)
    sources.pooling.avg_pool(input, divisors, out, *_geometry(windows))
    return out


@compiled(avg_pool_spread, _WORK, lambda gradient, size, *_: math.prod(size), light=True, worth=_WORTH)
def _avg_pool_spread(gradient, size, windows, count_include_pad, divisor_override):  # type: ignore[no-untyped-def]
    if gradient.ndim > 5:
        return NotImplemented
    out = numpy.empty(size, gradient.dtype)
    divisors = _divisors(size[2:], windows, gradient.dtype, count_include_pad, divisor_override)
    sources.pooling.avg_pool_backward(gradient, divisors, out, *_geometry(windows))
    return out
