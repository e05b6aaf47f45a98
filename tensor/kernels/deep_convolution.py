"""Convolutions of many channels on the CPU, as matrix products with channels along the vectors.

The kernels are packed into panels, as the second factor of a matrix product is. The first, the columns, is never built:
its element (row, k) is element rows[row] + offsets[k] of a padded image. Rows are output positions and k channels and
places in the window, for the outputs as for the gradient of the input; for the gradient of the weight rows are channels
and places, and k positions. No product is computed in vain, whatever the stride and however small the image. But the
results have to be turned around, from [position, channel] to [channel, position], and panels have whole vectors.

At a stride the positions of the input fall into residues, each of which has products with other places in the window:
these are several *results*, with rows, offsets and panels of their own.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy

from .compiler import as_record, jit, prange, serial
from .convolution_sizes import Sizes, flat
from .tiles import PRODUCT_ROWS, PRODUCT_VECTORS, VECTOR_BYTES, copy_row, transpose_square, window_tile

Array = numpy.ndarray

_DEPTH = 256  # of a block: its panel fills two thirds of the nearest cache
_ROWS = 384  # computed at a time, about
_LEAST_ROWS = 64
_PANELS = 4  # computed at a time, at most
_UNITS = 16  # pieces of work to cut a call into at least, so that all cores have some
_PARTIAL_ELEMENTS = 1 << 21  # that partial gradients of a weight may take in all


class Plan(NamedTuple):
    """The sizes of a product; channels and columns are those of one group."""

    sets: int  # of images that are computed together, or of which a sum is made
    groups: int
    batch: int
    together: int  # images, in the tables of rows or of offsets
    image: int  # elements of all channels of one group
    columns: int
    panels: int
    depth: int  # of the panels, over all results
    row_parts: int
    column_parts: int
    column: int  # elements between neighbouring columns of the output
    out: int  # elements of all columns of one group


# -- inside of kernels -------------------------------------------------------------------------------------------------


@serial
def _range(part, parts, count):
    return part * count // parts, (part + 1) * count // parts


@serial
def _first(numbers, start, stop, least):
    """Where among growing numbers the first is that is not less."""
    while start < stop:
        middle = (start + stop) // 2
        if numbers[middle] < least:
            start = middle + 1
        else:
            stop = middle
    return start


@serial
def _local(rows, pixels, first, stop, low, spare, width):
    """Some rows of a table, and the last again until tiles are full; then where in a buffer, which begins with pixel
    `low`, their results are: those of the last ones in a line of their own."""
    count = stop - first
    size = -(-count // PRODUCT_ROWS) * PRODUCT_ROWS
    local = numpy.empty(2 * size, numpy.int64)
    for i in range(size):
        local[i] = rows[first + i if i < count else stop - 1]
        local[size + i] = (pixels[first + i] - low if i < count else spare) * width
    return local


@serial
def _start(bias, b0, columns, rows, width, lanes):
    """Memory for the results of some rows and columns, where the columns' biases are, and zeros behind the last."""
    buffer = numpy.zeros((rows + lanes) * width, bias.dtype)
    for r in range(rows):
        copy_row(bias, b0, 1, buffer, r * width, 1, columns)
    return buffer


@serial
def _accumulate(image, i0, local, offsets, f0, depth, panels, b0, apart, columns, buffer):
    """Add the product of rows, see `_local`, and panels to the buffer; panels begin `apart` elements from one
    another."""
    lanes = VECTOR_BYTES // image.itemsize
    wide = PRODUCT_VECTORS * lanes
    slices, size = -(-depth // _DEPTH), local.size // 2
    for n in range(slices):
        k, last = _range(n, slices, depth)
        for c in range(0, columns, wide):
            b = b0 + c // wide * apart + k * wide
            for r in range(0, size, PRODUCT_ROWS):
                if c + lanes < columns:
                    window_tile(
                        image, i0, local, r, offsets, f0 + k, last - k, panels, b, wide, buffer, c, local, size + r,
                        PRODUCT_VECTORS,
                    )  # fmt: skip
                else:
                    window_tile(
                        image, i0, local, r, offsets, f0 + k, last - k, panels, b, wide, buffer, c, local, size + r, 1
                    )


@serial
def _put(buffer, width, count, columns, places, first, out, o0, apart):
    """out[o0 + c * apart + places[first + r]] = buffer[r, c]; places grow."""
    lanes = VECTOR_BYTES // out.itemsize
    square = numpy.empty(lanes * lanes, out.dtype)
    for c in range(0, columns, lanes):
        used = columns - c if columns - c < lanes else lanes
        r = 0
        while r < count:
            place, close = places[first + r], count - r if count - r < lanes else lanes
            while places[first + r + close - 1] != place + close - 1:
                close -= 1
            target, source = o0 + c * apart + place, r * width + c
            if close == used == lanes:
                transpose_square(buffer, source, width, out, target, apart)
            elif close == 1:
                for i in range(used):
                    out[target + i * apart] = buffer[source + i]
            else:
                transpose_square(buffer, source, width, square, 0, lanes)
                for i in range(used):
                    copy_row(square, i * lanes, 1, out, target + i * apart, 1, close)
            r += close


@serial
def _correlate_unit(p, unit, image, results, rows, pixels, places, offsets, panels, bias, out):
    """Some pixels and columns, for one group of one set of images."""
    wide = PRODUCT_VECTORS * VECTOR_BYTES // image.itemsize
    part, unit = unit % p.column_parts, unit // p.column_parts
    row_part, unit = unit % p.row_parts, unit // p.row_parts
    group, chosen = unit % p.groups, unit // p.groups
    first_image, last_image = _range(chosen, p.sets, p.batch)
    low, high = _range(row_part, p.row_parts, p.column * (last_image - first_image))
    p0, p1 = _range(part, p.column_parts, p.panels)
    columns = min(p1 * wide, p.columns) - p0 * wide
    width = (p1 - p0) * wide
    channel = group * p.columns + p0 * wide
    buffer = _start(bias, channel, columns, high - low, width, wide // PRODUCT_VECTORS)
    i0 = (first_image * p.groups + group) * p.image
    for i in range(len(results)):
        f0, depth, r0, r1 = results[i]
        start, stop = _first(pixels, r0, r1, low), _first(pixels, r0, r1, high)
        if start < stop:
            local = _local(rows, pixels, start, stop, low, high - low, width)
            b0 = ((group * p.depth + f0) * p.panels + p0 * depth) * wide
            _accumulate(image, i0, local, offsets, f0, depth, panels, b0, depth * wide, columns, buffer)
    o0 = (first_image * p.groups + group) * p.out + p0 * wide * p.column
    _put(buffer, width, high - low, columns, places, low, out, o0, p.column)


@jit
def _correlate(plan, image, results, rows, pixels, places, offsets, panels, bias, out):
    """The outputs of a convolution, or the gradient of its input."""
    for unit in prange(plan[0].sets * plan[0].groups * plan[0].row_parts * plan[0].column_parts):
        _correlate_unit(plan[0], unit, image, results, rows, pixels, places, offsets, panels, bias, out)


@serial
def _weight_unit(p, unit, image, rows, places, offsets, panels, nothing, out):
    """Some rows and columns of one group's gradient, summed over one set of images."""
    wide = PRODUCT_VECTORS * VECTOR_BYTES // image.itemsize
    part, unit = unit % p.column_parts, unit // p.column_parts
    row_part, unit = unit % p.row_parts, unit // p.row_parts
    group, chosen = unit % p.groups, unit // p.groups
    start, stop = _range(row_part, p.row_parts, rows.size)
    p0, p1 = _range(part, p.column_parts, p.panels)
    columns = min(p1 * wide, p.columns) - p0 * wide
    width = (p1 - p0) * wide
    local = _local(rows, places, start, stop, start, stop - start, width)
    buffer = _start(nothing, 0, columns, stop - start, width, wide // PRODUCT_VECTORS)
    positions = offsets.size // p.together
    first, last = _range(chosen, p.sets, p.batch)
    while first < last:
        some = min(last - first, p.together)
        b0 = (group * p.panels + p0) * p.depth + first * positions
        i0 = (first * p.groups + group) * p.image
        depth = some * positions
        _accumulate(image, i0, local, offsets, 0, depth, panels, b0 * wide, p.depth * wide, columns, buffer)
        first += some
    o0 = (chosen * p.groups + group) * p.out + p0 * wide * p.column
    _put(buffer, width, stop - start, columns, places, start, out, o0, p.column)


@jit
def _weight(plan, image, rows, places, offsets, panels, nothing, out):
    """Partial sums [sets, weight] of the gradient of the weight."""
    for unit in prange(plan[0].sets * plan[0].groups * plan[0].row_parts * plan[0].column_parts):
        _weight_unit(plan[0], unit, image, rows, places, offsets, panels, nothing, out)


@serial
def _pack_block(source, first, across, length, columns, targets, close, t0, outer, panel, base, panels, square):
    """Up to a vector's width of lines of one panel, `length` of them; see `_pack`."""
    lanes = VECTOR_BYTES // source.itemsize
    wide = PRODUCT_VECTORS * lanes
    for c in range(0, columns, lanes):
        some = columns - c if columns - c < lanes else lanes
        place = first + c * across
        whole = across > 1 and place + (lanes - 1) * across + lanes <= source.size
        start, step, apart = targets[t0]
        if whole and close and length == lanes:
            target = (base + start + outer * step + panel * apart) * wide + c
            transpose_square(source, place, across, panels, target, wide)
            continue
        if whole:
            transpose_square(source, place, across, square, 0, lanes)
        for t in range(length):
            start, step, apart = targets[t0 + t]
            target = (base + start + outer * step + panel * apart) * wide + c
            if whole:
                copy_row(square, t * lanes, 1, panels, target, 1, lanes)
            else:
                copy_row(source, place + t, across, panels, target, 1, some)


@jit
def _pack(source, groups, group_step, outer, outer_step, columns, across, targets, close, depth, panels):
    """panels[g, start + o * step + p * apart, q] = source[g * group_step + o * outer_step + (p * wide + q) * across +
    t] with (start, step, apart) = targets[t] for all groups g, o < outer, panels p, columns q < wide and t; `close`
    says that starts count up by one. What is behind the last column may be anything."""
    lanes = VECTOR_BYTES // source.itemsize
    wide = PRODUCT_VECTORS * lanes
    count = -(-columns // wide)
    blocks = -(-len(targets) // lanes)
    for job in prange(groups * count * _UNITS):  # panels by the threads that multiply them: it is in their caches
        group, panel = job // _UNITS // count, job // _UNITS % count
        start, stop = _range(job % _UNITS, _UNITS, outer * blocks)
        base, square = group * count * depth, numpy.empty(lanes * lanes, source.dtype)
        used = columns - panel * wide
        used = used if used < wide else wide
        o, t0 = start // blocks, start % blocks * lanes
        for _ in range(start, stop):
            first = group * group_step + o * outer_step + panel * wide * across + t0
            if across == 1:
                place = base + targets[0, 0] + o * targets[0, 1] + panel * targets[0, 2]
                copy_row(source, first, 1, panels, place * wide, 1, used)
            else:
                length = len(targets) - t0
                length = length if length < lanes else lanes
                _pack_block(source, first, across, length, used, targets, close, t0, o, panel, base, panels, square)
            t0 += lanes
            if t0 >= len(targets):
                t0 = 0
                o += 1


@jit
def _pad(sizes, images, out):
    """Images [planes, *image] with zeros around, or without their edges: sizes are [image, before, padded]."""
    (depth, height, width), (front, top, left), (padded_d, padded_h, padded_w) = sizes
    plane, low = padded_d * padded_h * padded_w, max(0, left)
    count = min(padded_w, width + left) - low
    z_low, z_high = max(0, front), min(padded_d, depth + front)
    y_low, y_high = max(0, top), min(padded_h, height + top)
    for i in prange(out.size // plane):
        for q in range(plane):
            out[i * plane + q] = 0
        for z in range(z_low, z_high):
            source = ((i * depth + z - front) * height + y_low - top) * width + low - left
            target = i * plane + (z * padded_h + y_low) * padded_w + low
            for _ in range(y_low, y_high):
                copy_row(images, source, 1, out, target, 1, count)
                source += width
                target += padded_w


# -- plans -------------------------------------------------------------------------------------------------------------


class _Tables(NamedTuple):
    """What a product needs besides the arrays."""

    plan: Array
    padding: Array | None  # sizes for `_pad`, if images have to be padded
    results: Array  # first offset, offsets, first row, and the row behind the last
    rows: Array
    pixels: Array  # of all images that are computed together, one for each row
    places: Array  # one for each pixel
    offsets: Array
    targets: Array  # see `_pack`


def _grid(sizes: Any, steps: Any, first: Any = (0, 0, 0)) -> Array:
    """The places of all positions, by dimension at first + i * step of lines of a size, in a flat array."""
    lines = [numpy.arange(start, stop, dtype=numpy.int64) for start, stop in zip(first, sizes, strict=True)]
    return functools.reduce(numpy.add.outer, (n * step for n, step in zip(lines, steps, strict=True))).reshape(-1)


def _strides(size: Any) -> tuple:
    return size[1] * size[2], size[2], 1


def _times(a: Any, b: Any) -> list:
    return [x * y for x, y in zip(a, b, strict=True)]


def _again(table: Array, count: int, step: int) -> Array:
    """The table again and again, each time `step` further."""
    return numpy.add.outer(numpy.arange(count) * step, table).reshape(-1)


def _padded(image: Any, before: Any, needed: Any) -> tuple[tuple, Array | None]:
    """The size of padded images, and what `_pad` has to know if they are not the images themselves."""
    if not any(before) and all(n <= size for n, size in zip(needed, image, strict=True)):
        return tuple(image), None
    return tuple(needed), numpy.array([image, before, needed], numpy.int64)


def _panels(columns: int, itemsize: int) -> int:
    return -(-columns * itemsize // (PRODUCT_VECTORS * VECTOR_BYTES))


def _product_plan(c: Sizes, itemsize: int, image: int, columns: int, depth: int, out: int) -> Plan:
    panels = _panels(columns, itemsize)
    least = -(-c.batch // max(1, _ROWS // out))
    sets = next((n for n in range(least, 2 * least) if c.batch % n == 0), least)  # equal ones, if there are such
    together = -(-c.batch // sets)
    row_parts = -(-out * together // _ROWS)
    column_parts = min(panels, max(-(-panels // _PANELS), -(-_UNITS // (sets * c.groups * row_parts))))
    return Plan(
        sets, c.groups, c.batch, together, image, columns, panels, depth, row_parts, column_parts, out, columns * out
    )


@functools.lru_cache(maxsize=256)
def _forward_tables(itemsize: int, *sizes: Any) -> _Tables:
    c = Sizes.of(*sizes)
    needed = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(c.out, c.stride, c.kernel, c.dilation, strict=True)]
    padded, padding = _padded(c.image, c.padding, needed)
    strides, plane, positions = _strides(padded), math.prod(padded), math.prod(c.out)
    offsets = numpy.add.outer(numpy.arange(c.inputs) * plane, _grid(c.kernel, _times(strides, c.dilation))).reshape(-1)
    plan = _product_plan(c, itemsize, c.inputs * plane, c.outputs, offsets.size, positions)
    return _Tables(
        as_record(plan), padding, numpy.array([[0, offsets.size, 0, positions * plan.together]]),
        _again(_grid(c.out, _times(strides, c.stride)), plan.together, c.groups * plan.image),
        numpy.arange(positions * plan.together),
        _again(numpy.arange(positions), plan.together, c.groups * plan.out), offsets,
        numpy.array([[k, 0, offsets.size] for k in range(offsets.size)]),
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _input_tables(itemsize: int, *sizes: Any) -> _Tables:
    """One result for each residue of the input's positions.

    Position i of the input is stride * t + residue - padding. The window's place j, which lies far * stride + residue
    behind its first, had it in output t - far.
    """
    c = Sizes.of(*sizes)
    reach = [max(far for far, _ in places) for places in c.reaches]
    first = [p // s for p, s in zip(c.padding, c.stride, strict=True)]  # the least t that there is
    last = [(n - 1 + p) // s for n, p, s in zip(c.image, c.padding, c.stride, strict=True)]
    before = [most - t for most, t in zip(reach, first, strict=True)]
    padded, padding = _padded(c.out, before, [t + b + 1 for t, b in zip(last, before, strict=True)])
    strides, plane, steps = _strides(padded), math.prod(padded), _strides(c.image)
    found = []
    for residue in itertools.product(*map(range, c.stride)):
        low = [-((r - p) // s) for r, p, s in zip(residue, c.padding, c.stride, strict=True)]
        high = [(n - 1 + p - r) // s + 1 for n, r, p, s in zip(c.image, residue, c.padding, c.stride, strict=True)]
        taps = [i for i, tap in enumerate(c.taps) if tuple(rest for _, rest in tap) == residue]
        origin = sum(_times(steps, numpy.subtract(residue, c.padding).tolist()))
        start = sum(_times(strides, first))
        rows = _grid(high, strides, low) - start
        if taps:  # even if no pixel has this residue: their weights are packed all the same
            found.append((taps, rows, _grid(high, _times(steps, c.stride), low) + origin))
    count = math.prod(c.image)
    plan = _product_plan(c, itemsize, c.outputs * plane, c.inputs, c.outputs * len(c.taps), count)
    results, targets = [], numpy.zeros((len(c.taps), 3), numpy.int64)
    tables: list[list[Array]] = [[], [], []]
    f0 = r0 = 0
    for taps, rows, pixels in found:
        far = [[most - n for most, (n, _) in zip(reach, c.taps[i], strict=True)] for i in taps]
        back = [sum(_times(strides, n)) for n in far]
        depth = c.outputs * len(taps)
        results.append([f0, depth, r0, r0 + len(rows) * plan.together])
        for n, i in enumerate(taps):
            targets[i] = f0 * plan.panels + n, len(taps), depth
        tables[0].append(_again(rows, plan.together, c.groups * plan.image))
        tables[1].append(_again(pixels, plan.together, count))
        tables[2].append(numpy.add.outer(numpy.arange(c.outputs) * plane, numpy.array(back, numpy.int64)).reshape(-1))
        f0, r0 = f0 + depth, results[-1][-1]
    rows, pixels, offsets = map(numpy.concatenate, tables)
    places = _again(numpy.arange(count), plan.together, c.groups * plan.out)
    return _Tables(as_record(plan), padding, numpy.array(results), rows, pixels, places, offsets, targets)


@functools.lru_cache(maxsize=256)
def _weight_tables(itemsize: int, *sizes: Any) -> _Tables:
    c = Sizes.of(*sizes)
    forward = _forward_tables(itemsize, *sizes)
    plan = Plan(*forward.plan[0])
    rows, positions = forward.offsets, math.prod(c.out)
    weights = c.groups * c.outputs * rows.size
    column_parts = min(plan.panels, max(-(-plan.panels // _PANELS), -(-_UNITS // c.groups)))
    units = c.groups * column_parts
    row_parts = max(-(-rows.size // _ROWS), min(-(-rows.size // _LEAST_ROWS), -(-_UNITS // units)))
    sets = max(1, min(c.batch, _PARTIAL_ELEMENTS // weights, -(-_UNITS // (units * row_parts))))
    together = max(1, min(-(-c.batch // sets), _DEPTH // positions))
    plan = plan._replace(
        sets=sets, together=together, depth=c.batch * positions, row_parts=row_parts, column_parts=column_parts,
        column=rows.size, out=c.outputs * rows.size,
    )  # fmt: skip
    pixels = forward.rows[:positions]
    targets = numpy.array([[k, positions, plan.depth] for k in range(positions)])
    offsets = _again(pixels, together, c.groups * plan.image)
    return forward._replace(
        plan=as_record(plan), rows=rows, places=numpy.arange(rows.size), offsets=offsets, targets=targets
    )


# -- what is called ----------------------------------------------------------------------------------------------------


def _image(array: Array, planes: int, padding: Array | None) -> Array:
    """Padded images, flat."""
    array = flat(array)
    if padding is None:
        return array
    out = numpy.empty(planes * math.prod(padding[2].tolist()), array.dtype)
    _pad(padding, array, out)
    return out


def _packed(source: Array, t: _Tables, group_step: int, outer: int, outer_step: int, across: int) -> Array:
    plan = Plan(*t.plan[0])
    lanes = VECTOR_BYTES // source.itemsize
    panels = numpy.empty(plan.groups * plan.panels * plan.depth * PRODUCT_VECTORS * lanes, source.dtype)
    close = len(t.results) == 1
    _pack(
        flat(source), plan.groups, group_step, outer, outer_step, plan.columns, across, t.targets, close, plan.depth,
        panels,
    )  # fmt: skip
    return panels


def forward(input: Array, weight: Array, bias: Array | None, out: Array, *geometry: Any) -> None:
    """The outputs of a convolution of images [n, c, *image] with geometry (stride, padding, dilation, groups)."""
    t = _forward_tables(input.itemsize, input.shape, weight.shape, *geometry)
    depth = t.offsets.size
    panels = _packed(weight, t, weight.size // geometry[-1], 1, 0, depth)
    start = numpy.zeros(len(weight), input.dtype) if bias is None else flat(bias)
    image = _image(input, input.shape[0] * input.shape[1], t.padding)
    _correlate(t.plan, image, t.results, t.rows, t.pixels, t.places, t.offsets, panels, start, out.reshape(-1))


def input_gradient(gradient: Array, weight: Array, out: Array, *geometry: Any) -> None:
    """The gradient of the input, of its shape."""
    t = _input_tables(gradient.itemsize, out.shape, weight.shape, *geometry)
    outputs, taps = len(weight) // geometry[-1], math.prod(weight.shape[2:])
    panels = _packed(weight, t, outputs * weight[0].size, outputs, weight[0].size, taps)
    start = numpy.zeros(out.shape[1], out.dtype)
    image = _image(gradient, gradient.shape[0] * gradient.shape[1], t.padding)
    _correlate(t.plan, image, t.results, t.rows, t.pixels, t.places, t.offsets, panels, start, out.reshape(-1))


def weight_gradient(gradient: Array, input: Array, shape: tuple, *geometry: Any) -> Array:
    """The gradient of a weight of that shape."""
    t = _weight_tables(input.itemsize, input.shape, shape, *geometry)
    positions = len(t.targets)
    step = gradient.shape[1] * positions
    panels = _packed(gradient, t, step // geometry[-1], len(gradient), step, positions)
    image = _image(input, input.shape[0] * input.shape[1], t.padding)
    partials = numpy.empty((int(t.plan["sets"][0]), math.prod(shape)), gradient.dtype)
    nothing = numpy.zeros(shape[0], gradient.dtype)
    _weight(t.plan, image, t.rows, t.places, t.offsets, panels, nothing, partials.reshape(-1))
    return (partials[0] if len(partials) == 1 else partials.sum(0)).reshape(shape)
