"""Pooling on the CPU, plane by plane: every plane is one channel of one image.

A row of windows is gone through one kernel position at a time: neighbouring windows then read elements at a constant
distance, which vectorizes. Windows of 2 x 2 side by side, the usual ones, are read in one pass.

Sizes are [depth, height, width], 1 where there are fewer dimensions, in one table [image, kernel, stride, padding,
dilation, out] of three each.
"""

from __future__ import annotations

import functools
import itertools

import numpy

from .compiler import jit, prange, serial

Array = numpy.ndarray

_SHARES = 64  # of the planes, each with memory of its own: more than most machines have cores


# -- rows of windows ---------------------------------------------------------------------------------------------------


# Their elements are those of `elements`, `step` apart. Numba lets indices count from the end, so one that might be
# negative does not vectorize: rows start at 0.


@serial
def _winner(elements, first, step, largest, winner):
    """Of equals the first wins, of nan the last; anything against the padding (a winner below 0)."""
    for i in range(largest.size):
        x = elements[i * step]
        wins = (x > largest[i]) | (x != x) | (winner[i] < 0)
        largest[i] = x if wins else largest[i]
        winner[i] = first + i * step if wins else winner[i]


@serial
def _add(elements, step, total):
    for i in range(total.size):
        total[i] += elements[i * step]


@serial
def _share_out(values, step, elements):
    for i in range(values.size):
        elements[i * step] += values[i]


# -- planes ------------------------------------------------------------------------------------------------------------


@serial
def _largest_plane(s, places, image, out, winners):
    width = s[5, 2]
    for row in range(s[5, 0] * s[5, 1]):
        largest, winner = out[row * width : (row + 1) * width], winners[row * width : (row + 1) * width]
        largest[:] = -numpy.inf
        winner[:] = -1
        for p in range(places.shape[1]):
            first, start, stop = places[row, p]
            if s[2, 2] == 1:
                _winner(image[first:], first, 1, largest[start:stop], winner[start:stop])
            elif s[2, 2] == 2:
                _winner(image[first:], first, 2, largest[start:stop], winner[start:stop])
            else:
                _winner(image[first:], first, s[2, 2], largest[start:stop], winner[start:stop])


@serial
def _pair(a, b):
    """The larger, nan if one is."""
    return b if (b > a) | (b != b) else a


@serial
def _largest_pairs(s, image, out):
    height, width, length = s[5, 1], s[5, 2], s[0, 2]
    for z in range(s[5, 0]):
        for y in range(height):
            top = image[(z * s[0, 1] + 2 * y) * length :]
            low, row = top[length:], out[(z * height + y) * width :]
            for i in range(width):
                row[i] = _pair(_pair(top[2 * i], top[2 * i + 1]), _pair(low[2 * i], low[2 * i + 1]))


@serial
def _winner_pairs(s, image, gradient, out):
    height, width, length = s[5, 1], s[5, 2], s[0, 2]
    none = out.dtype.type(0)
    if 2 * height < s[0, 1] or 2 * width < length:
        out[:] = 0
    for z in range(s[5, 0]):
        for y in range(height):
            first = (z * s[0, 1] + 2 * y) * length
            top, low, g = image[first:], image[first + length :], gradient[(z * height + y) * width :]
            out_top, out_low = out[first:], out[first + length :]
            for i in range(width):
                a, b, c, d, value = top[2 * i], top[2 * i + 1], low[2 * i], low[2 * i + 1], g[i]
                left, right = _pair(a, b), _pair(c, d)
                below = (right > left) | (right != right)
                second, fourth = (b > a) | (b != b), (d > c) | (d != d)
                out_top[2 * i] = none if below | second else value
                out_top[2 * i + 1] = none if below | (not second) else value
                out_low[2 * i] = value if below & (not fourth) else none
                out_low[2 * i + 1] = value if below & fourth else none


@serial
def _sum_plane(s, places, image, divisor, out):
    width = s[5, 2]
    for row in range(s[5, 0] * s[5, 1]):
        total = out[row * width : (row + 1) * width]
        total[:] = 0
        for p in range(places.shape[1]):
            first, start, stop = places[row, p]
            if s[2, 2] == 1:
                _add(image[first:], 1, total[start:stop])
            elif s[2, 2] == 2:
                _add(image[first:], 2, total[start:stop])
            else:
                _add(image[first:], s[2, 2], total[start:stop])
        for i in range(width):
            total[i] /= divisor[row * width + i]


@serial
def _spread_plane(s, places, gradient, divisor, values, out):
    out[:] = 0
    width = s[5, 2]
    for row in range(s[5, 0] * s[5, 1]):
        for i in range(width):
            values[i] = gradient[row * width + i] / divisor[row * width + i]
        for p in range(places.shape[1]):
            first, start, stop = places[row, p]
            if s[2, 2] == 1:
                _share_out(values[start:stop], 1, out[first:])
            elif s[2, 2] == 2:
                _share_out(values[start:stop], 2, out[first:])
            else:
                _share_out(values[start:stop], s[2, 2], out[first:])


# -- kernels of arrays [planes, elements] ------------------------------------------------------------------------------


@serial
def _part(share, shares, planes):
    """The planes of a share."""
    return range(share * planes // shares, (share + 1) * planes // shares)


@jit
def _max_pool(s, places, images, out, winners):
    shares = min(len(images), _SHARES)
    for share in prange(shares):
        for i in _part(share, shares, len(images)):
            _largest_plane(s, places, images[i], out[i], winners[i])


@jit
def _max_pool_pairs(s, images, out):
    shares = min(len(images), _SHARES)
    for share in prange(shares):
        for i in _part(share, shares, len(images)):
            _largest_pairs(s, images[i], out[i])


@jit
def _max_pool_backward(gradients, winners, out):
    shares = min(len(out), _SHARES)
    for share in prange(shares):
        for i in _part(share, shares, len(out)):
            plane, gradient, winner = out[i], gradients[i], winners[i]
            plane[:] = 0
            for k in range(gradient.size):
                plane[winner[k]] += gradient[k]


@jit
def _max_pool_pairs_backward(s, images, gradients, out):
    shares = min(len(images), _SHARES)
    for share in prange(shares):
        for i in _part(share, shares, len(images)):
            _winner_pairs(s, images[i], gradients[i], out[i])


@jit
def _avg_pool(s, places, images, divisor, out):
    shares = min(len(images), _SHARES)
    for share in prange(shares):
        for i in _part(share, shares, len(images)):
            _sum_plane(s, places, images[i], divisor, out[i])


@jit
def _avg_pool_backward(s, places, gradients, divisor, out):
    shares = min(len(out), _SHARES)
    for share in prange(shares):
        values = numpy.empty(s[5, 2], out.dtype)
        for i in _part(share, shares, len(out)):
            _spread_plane(s, places, gradients[i], divisor, values, out[i])


# -- what is called ----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _sizes(
    image: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple, out: tuple
) -> tuple[Array, Array]:
    """The table of sizes; and for each row of windows and kernel position the first and last but one window that have
    it inside of the image, after where the first of them has it."""
    rows = ((image, 1), (kernel, 1), (stride, 1), (padding, 0), (dilation, 1), (out, 1))
    table = numpy.array([(one,) * (3 - len(row)) + tuple(row) for row, one in rows], numpy.int64)
    (_, height, width), kernel, steps, *_, count = table.tolist()
    places = []
    for window in itertools.product(*map(range, count[:2]), (0,)):
        for position in itertools.product(*map(range, kernel)):
            parts = zip(window, steps, position, table[4].tolist(), table[3].tolist(), strict=True)
            d, h, w = (i * s + j * gap - p for i, s, j, gap, p in parts)
            start, stop = max(0, -(w // steps[2])), min(count[2], -((w - width) // steps[2]))
            if 0 <= d < table[0, 0] and 0 <= h < height and start < stop:
                places.append(((d * height + h) * width + w + start * steps[2], start, stop))
            else:
                places.append((0, 0, 0))  # none of the row has it
    return table, numpy.array(places, numpy.int64).reshape(count[0] * count[1], -1, 3)


@functools.lru_cache(maxsize=256)
def side_by_side(image: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple, out: tuple) -> bool:
    """Whether windows are 2 x 2, side by side, and all inside of the image."""
    spatial = len(image)
    flat = (1,) * (spatial - 2) + (2, 2)
    inside = spatial > 1 and all(n * m <= i for n, m, i in zip(out, flat, image, strict=True))
    return inside and kernel == stride == flat and not any(padding) and set(dilation) == {1}


def _planes(array: Array) -> Array:
    """An array [n, channels, *image] as [planes, elements]; contiguous and writable, which Numba compiles once for."""
    array = numpy.ascontiguousarray(array)
    array = array if array.flags.writeable else array.copy()
    return array.reshape(array.shape[0] * array.shape[1], -1)


def max_pool(input: Array, out: Array, *geometry: tuple) -> Array | None:
    """The largest element of windows of a geometry (kernel, stride, padding, dilation, out).

    Returns where in their planes these were, for `max_pool_backward`; None where it looks faster than it remembers.
    """
    image = input.shape[2:]
    sizes, places = _sizes(image, *geometry)
    if side_by_side(image, *geometry):
        _max_pool_pairs(sizes, _planes(input), _planes(out))
        return None
    winners = numpy.empty(out.shape, numpy.int32)
    _max_pool(sizes, places, _planes(input), _planes(out), _planes(winners))
    return winners


def max_pool_backward(gradient: Array, input: Array, winners: Array | None, out: Array, *geometry: tuple) -> None:
    """The gradient of `max_pool`'s input."""
    if winners is None:
        sizes, _ = _sizes(input.shape[2:], *geometry)
        _max_pool_pairs_backward(sizes, _planes(input), _planes(gradient), _planes(out))
    else:
        _max_pool_backward(_planes(gradient), _planes(winners), _planes(out))


def avg_pool(input: Array, divisor: Array, out: Array, *geometry: tuple) -> None:
    """The sum over each window, divided by `divisor`, one number for each window of a plane."""
    _avg_pool(*_sizes(input.shape[2:], *geometry), _planes(input), divisor, _planes(out))


def avg_pool_backward(gradient: Array, divisor: Array, out: Array, *geometry: tuple) -> None:
    """The gradient of `avg_pool`'s input."""
    _avg_pool_backward(*_sizes(out.shape[2:], *geometry), _planes(gradient), divisor, _planes(out))
