"""Depthwise convolutions on the CPU: every channel has a kernel of its own.

The planes of as many channels as a vector has elements are turned around, from [channel, position] to [position,
channel], and padded: a vector then is one position of all these channels, and a window needs nothing else than whole
vectors, however small the image and whatever the stride. Large planes are computed in bands of rows.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import numpy

from .compiler import jit, prange, serial
from .convolution_sizes import Sizes, flat
from .tiles import PRODUCT_ROWS, VECTOR_BYTES, copy_row, lane_tile, transpose_square

Array = numpy.ndarray

_LATTICE_BYTES = 3 << 16  # of padded planes, in a core's second cache
_UNITS = 8  # pieces of work to cut a call into at least, so that all cores have some
_SHARES = 32  # of the work, each with memory of its own: more than most machines have cores


class _Line(NamedTuple):
    """One dimension of a band: how padded planes lie over the source, and what is computed of the target."""

    lattice: int  # elements of padded planes
    origin: int  # the source's element that is their first
    start: int  # the target's elements
    stop: int
    results: list  # by residue: where windows begin, where their results are from `start`, offsets and numbers of taps


def _forward_line(c: Sizes, i: int, start: int, stop: int) -> _Line:
    """Of the outputs from start to stop."""
    step, gap = c.stride[i], c.dilation[i]
    windows, taps = numpy.arange(stop - start), numpy.arange(c.kernel[i])
    lattice = (stop - 1 - start) * step + (c.kernel[i] - 1) * gap + 1
    return _Line(lattice, start * step - c.padding[i], start, stop, [(windows * step, windows, taps * gap, taps)])


def _input_line(c: Sizes, i: int, start: int, stop: int) -> _Line:
    """Of the positions stride * t + residue - padding of the input, for t from start to stop.

    The window's place j, which lies far * stride + residue behind its first, had such a position in output t - far.
    """
    step, t = c.stride[i], numpy.arange(stop - start)
    first, last = max(0, step * start - c.padding[i]), min(c.image[i], step * stop - c.padding[i])
    reach = max(far for far, _ in c.reaches[i])
    results = []
    for residue in range(step):
        position = step * (start + t) + residue - c.padding[i]
        inside = (first <= position) & (position < last)
        taps = [j for j, (_, rest) in enumerate(c.reaches[i]) if rest == residue]
        back = [reach - c.reaches[i][j][0] for j in taps]
        results.append((t[inside], position[inside] - first, numpy.array(back, int), numpy.array(taps, int)))
    return _Line(stop - start + reach, start - reach, first, last, results)


class _Plan(NamedTuple):
    """The sizes of a call."""

    batch: int
    channels: int
    source: int  # elements of a plane
    target: int
    width: int  # of the source
    low: int  # of which these columns
    high: int
    left: int  # are copied to this column of lattices
    lattice_width: int
    lattice: int  # elements of one
    read: int  # elements of the source, and of the target, that a band has at most
    written: int
    chunks: int = 1  # of the batch, each with a sum of its own


class _Band(NamedTuple):
    """A band of rows."""

    source: int  # the first row of the source
    rows: int
    top: int  # the row of the lattice that it is copied to
    start: int  # the elements of the target
    stop: int
    first: int  # the results
    last: int


class _Tables(NamedTuple):
    """What a call needs besides the arrays. Places count elements of all lanes."""

    plan: Array
    bands: Array
    results: Array  # first offset, offsets, first row, rows
    rows: Array  # where windows begin
    places: Array  # where their results are
    offsets: Array
    taps: Array  # the places in the window that the offsets are of


def _record(rows: list) -> Array:
    return numpy.array([tuple(row) for row in rows], [(name, numpy.int64) for name in rows[0]._fields])


def _whole_tiles(table: Array) -> Array:
    """The last element again until tiles are full."""
    return numpy.concatenate([table, numpy.repeat(table[-1:], -len(table) % PRODUCT_ROWS)])


@functools.lru_cache(maxsize=256)
def _tables(itemsize: int, backward: bool, *sizes: Any) -> _Tables:
    c, lanes = Sizes.of(*sizes), VECTOR_BYTES // itemsize
    line = _input_line if backward else _forward_line
    source, target = (c.out, c.image) if backward else (c.image, c.out)
    (start, stop), across = (
        (p // s, (n - 1 + p) // s + 1) if backward else (0, m)
        for n, m, s, p in list(zip(c.image, c.out, c.stride, c.padding, strict=True))[1:]
    )
    whole, width = line(c, 1, start, stop), line(c, 2, *across)
    most = max(1, _LATTICE_BYTES // (VECTOR_BYTES * width.lattice))
    units = c.batch * -(-c.groups // lanes)
    count = min(stop - start, max(-(-whole.lattice // most), -(-_UNITS // units)))
    band = -(-(stop - start) // count)
    heights = [line(c, 1, first, min(first + band, stop)) for first in range(start, stop, band)]
    bands: list[_Band] = []
    results: list[list[int]] = []
    tables: list[list[Array]] = [[], [], [], []]
    f0 = r0 = 0
    for height in heights:
        before = len(results)
        for y, x in itertools.product(height.results, width.results):
            rows = numpy.add.outer(y[0] * width.lattice, x[0]).reshape(-1)
            if rows.size:
                offsets = numpy.add.outer(y[2] * width.lattice, x[2]).reshape(-1)
                results.append([f0, len(offsets), r0, len(rows)])
                tables[0].append(_whole_tiles(rows * lanes))
                tables[1].append(_whole_tiles(numpy.add.outer(y[1] * target[2], x[1]).reshape(-1) * lanes))
                tables[2].append(offsets * lanes)
                tables[3].append(numpy.add.outer(y[3] * c.kernel[2], x[3]).reshape(-1))
                f0, r0 = f0 + len(offsets), r0 + len(tables[0][-1])
        first, last = max(0, height.origin), min(source[1], height.origin + height.lattice)
        bands.append(
            _Band(
                first, max(0, last - first), first - height.origin,
                height.start * target[2], height.stop * target[2], before, len(results),
            )
        )  # fmt: skip
    low, high = max(0, width.origin), min(source[2], width.origin + width.lattice)
    plan = _Plan(
        c.batch, c.groups, source[1] * source[2], target[1] * target[2], source[2], low, max(low, high),
        low - width.origin, width.lattice, heights[0].lattice * width.lattice,
        max(b.rows for b in bands) * source[2], max(b.stop - b.start for b in bands),
    )  # fmt: skip
    return _Tables(_record([plan]), _record(bands), numpy.array(results), *map(numpy.concatenate, tables))


# -- inside of kernels -------------------------------------------------------------------------------------------------


@serial
def _range(part, parts, count):
    return part * count // parts, (part + 1) * count // parts


@serial
def _vectors(count, dtype_of):
    """Memory for vectors of zeros, none of them across two lines of the cache: reading such takes twice as long."""
    lanes = VECTOR_BYTES // dtype_of.itemsize
    memory = numpy.zeros((count + 1) * lanes, dtype_of.dtype)
    return memory[-memory.ctypes.data % VECTOR_BYTES // dtype_of.itemsize :]


@serial
def _turn_in(source, s0, plane, lines, count, out):
    """out[q, i] = source[s0 + i * plane + q] for i < lines and q < count."""
    lanes = VECTOR_BYTES // source.itemsize
    for q in range(0, count, lanes):
        if lines == lanes and s0 + (lanes - 1) * plane + q + lanes <= source.size:
            transpose_square(source, s0 + q, plane, out, q * lanes, lanes)
        else:
            for r in range(q, count if count < q + lanes else q + lanes):
                copy_row(source, s0 + r, plane, out, r * lanes, 1, lines)


@serial
def _turn_out(values, count, out, o0, plane, lines, square):
    """out[o0 + i * plane + q] = values[q, i] for i < lines and q < count."""
    lanes = VECTOR_BYTES // out.itemsize
    for q in range(0, count, lanes):
        if lines == lanes and q + lanes <= count:
            transpose_square(values, q * lanes, lanes, out, o0 + q, plane)
        else:
            transpose_square(values, q * lanes, lanes, square, 0, lanes)
            for i in range(lines):
                copy_row(square, i * lanes, 1, out, o0 + i * plane + q, 1, count - q if count < q + lanes else lanes)


@serial
def _fill(p, band, turned, lattice):
    """Lay out the rows of a band; the places of its padding are zero."""
    lanes = VECTOR_BYTES // turned.itemsize
    for y in range(band.rows):
        target = (band.top + y) * p.lattice_width + p.left
        copy_row(turned, (y * p.width + p.low) * lanes, 1, lattice, target * lanes, 1, (p.high - p.low) * lanes)


@serial
def _correlate_share(plan, bands, share, shares, source, results, rows, places, offsets, factors, bias, out):
    """A share of the units of work: each is a band of the planes of some channels of an image."""
    p = plan[0]
    lanes = VECTOR_BYTES // source.itemsize
    groups = -(-p.channels // lanes)
    lattice, turned = _vectors(p.lattice, source), _vectors(p.read + lanes, source)
    values = _vectors(p.written + lanes, source)
    square = _vectors(lanes, source)
    start, stop = _range(share, shares, p.batch * groups * len(bands))
    for unit in range(start, stop):
        band, group, image = bands[unit % len(bands)], unit // len(bands) % groups, unit // len(bands) // groups
        channel = group * lanes
        lines = min(p.channels - channel, lanes)
        first = image * p.channels + channel
        _turn_in(source, first * p.source + band.source * p.width, p.source, lines, band.rows * p.width, turned)
        if len(bands) > 1:
            lattice[:] = 0
        _fill(p, band, turned, lattice)
        for result in range(band.first, band.last):
            f0, depth, r0, count = results[result]
            w0 = (group * offsets.size + f0) * lanes
            for r in range(r0, r0 + count, PRODUCT_ROWS):
                lane_tile(lattice, rows, r, offsets, f0, depth, factors, w0, bias, channel, 0, values, places)
        _turn_out(values, band.stop - band.start, out, first * p.target + band.start, p.target, lines, square)


@jit
def _correlate(plan, bands, source, results, rows, places, offsets, factors, bias, out):
    """target = bias + the sum over taps of a factor times the source, for the channels of all images."""
    lanes = VECTOR_BYTES // source.itemsize
    shares = min(plan[0].batch * -(-plan[0].channels // lanes) * len(bands), _SHARES)
    for share in prange(shares):
        _correlate_share(plan, bands, share, shares, source, results, rows, places, offsets, factors, bias, out)


@serial
def _weight_share(plan, bands, share, shares, source, results, rows, offsets, places, gradient, out):
    """A share of the units of work: each is the sum over some images, for some channels."""
    p = plan[0]
    lanes = VECTOR_BYTES // source.itemsize
    groups = -(-p.channels // lanes)
    lattice, turned = _vectors(p.lattice, source), _vectors(p.read + lanes, source)
    values = _vectors(p.written + lanes, source)
    sums = _vectors(offsets.size, source)
    start, stop = _range(share, shares, p.chunks * groups)
    for unit in range(start, stop):
        group, chunk = unit % groups, unit // groups
        channel = group * lanes
        lines = min(p.channels - channel, lanes)
        sums[:] = 0
        first_image, last_image = _range(chunk, p.chunks, p.batch)
        for step in range(first_image * len(bands), last_image * len(bands)):
            band = bands[step % len(bands)]
            first = step // len(bands) * p.channels + channel
            _turn_in(source, first * p.source + band.source * p.width, p.source, lines, band.rows * p.width, turned)
            _turn_in(gradient, first * p.target + band.start, p.target, lines, band.stop - band.start, values)
            if len(bands) > 1:
                lattice[:] = 0
            _fill(p, band, turned, lattice)
            r0, count = results[band.first, 2], results[band.first, 3]
            for k in range(0, offsets.size, PRODUCT_ROWS):
                lane_tile(lattice, offsets, k, rows, r0, count, values, 0, sums, k * lanes, lanes, sums, places)
        taps = out.shape[1] // p.channels
        for i in range(lines):
            for k in range(taps):
                out[chunk, (channel + i) * taps + k] = sums[k * lanes + i]


@jit
def _weight(plan, bands, source, results, rows, offsets, places, gradient, out):
    """Partial sums [chunks, weight] of the gradient of the weight."""
    lanes = VECTOR_BYTES // source.itemsize
    shares = min(plan[0].chunks * -(-plan[0].channels // lanes), _SHARES)
    for share in prange(shares):
        _weight_share(plan, bands, share, shares, source, results, rows, offsets, places, gradient, out)


# -- what is called ----------------------------------------------------------------------------------------------------


def suits(shape: tuple, weight: tuple, groups: int, itemsize: int) -> bool:
    """Whether this is a depthwise convolution of planes, or rows, of enough channels."""
    return len(shape) < 5 and weight[:2] == (groups, 1) and groups * itemsize >= VECTOR_BYTES


def _lanes(values: Array, lanes: int) -> Array:
    """From [channels, n] to [groups of channels, n, lanes], flat, with anything behind the last channel."""
    groups = -(-len(values) // lanes)
    whole = numpy.resize(values, (groups * lanes, values.shape[1]))
    return numpy.ascontiguousarray(whole.reshape(groups, lanes, -1).swapaxes(1, 2)).reshape(-1)


def _call(backward: bool, source: Array, weight: Array, bias: Array | None, out: Array, sizes: tuple) -> None:
    lanes = VECTOR_BYTES // source.itemsize
    t = _tables(source.itemsize, backward, *sizes)
    factors = _lanes(weight.reshape(len(weight), -1)[:, t.taps], lanes)
    start = numpy.zeros((len(weight), 1), out.dtype) if bias is None else bias.reshape(-1, 1)
    _correlate(
        t.plan, t.bands, flat(source), t.results, t.rows, t.places, t.offsets, factors, _lanes(start, lanes),
        out.reshape(-1),
    )  # fmt: skip


def forward(input: Array, weight: Array, bias: Array | None, out: Array, *geometry: Any) -> None:
    """The outputs of a convolution of images [n, c, *image] with geometry (stride, padding, dilation, groups)."""
    _call(False, input, weight, bias, out, (input.shape, weight.shape, *geometry))


def input_gradient(gradient: Array, weight: Array, out: Array, *geometry: Any) -> None:
    """The gradient of the input, of its shape."""
    _call(True, gradient, weight, None, out, (out.shape, weight.shape, *geometry))


def weight_gradient(gradient: Array, input: Array, shape: tuple, *geometry: Any) -> Array:
    """The gradient of a weight of that shape."""
    lanes = VECTOR_BYTES // input.itemsize
    t = _tables(input.itemsize, False, input.shape, shape, *geometry)
    taps = numpy.prod(shape[2:])
    plan = t.plan.copy()
    plan["chunks"] = min(len(input), -(-_UNITS // -(-shape[0] // lanes)))
    offsets = _whole_tiles(t.offsets[:taps])
    places = numpy.arange(len(offsets)) * lanes
    partials = numpy.empty((int(plan["chunks"][0]), shape[0] * taps), gradient.dtype)
    _weight(plan, t.bands, flat(input), t.results, t.rows, offsets, places, flat(gradient), partials)
    return (partials[0] if len(partials) == 1 else partials.sum(0)).reshape(shape)
