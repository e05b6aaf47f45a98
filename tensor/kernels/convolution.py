"""Convolutions on the CPU, as matrix products whose second operand, the columns, is never built.

A padded image is laid out as a *lattice*: for every channel a small padded plane, or several, one for each residue that
positions may leave when divided by the stride. On it, moving a window by one output is moving by one element, so a row
of the matrix of columns is a stretch of the lattice that begins at an offset of its own, and `multiply_tile` multiplies
such rows in place. Elements at the end of lattice rows belong to no output: they are computed and not copied out.

The same product with other offsets gives the gradient of the input: of the outputs' gradient as image, with the kernels
turned around; at a stride, one product for each residue that the input's positions leave. The gradient of the weight is
sums of products of two lattices. Where images are small and channels many, `deep_convolution` computes instead,
and `depthwise` where every channel has a kernel of its own.

Sizes are [depth, height, width], 1 where there are fewer dimensions.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from . import deep_convolution, depthwise
from .compiler import as_record, jit, prange, serial
from .convolution_sizes import Sizes, flat
from .tiles import (
    DOT_COLUMNS,
    DOT_ROWS,
    PRODUCT_VECTORS,
    TILE_ROWS,
    TILE_VECTORS,
    VECTOR_BYTES,
    copy_row,
    dot_tile,
    multiply_tile,
)

Array = numpy.ndarray

_LATTICE_BYTES = 1 << 18  # of a core's second cache, which also holds weights and results
_STREAMED_BYTES = 1 << 21  # for lattices whose planes are gone through once, as those of the weight's gradient
_UNITS = 8  # pieces of work to cut a call into at least, so that all cores have some
_SHARES = 32  # of the work, each with memory of its own: more than most machines have cores
_LEAST_POSITIONS = 512  # and their least sizes
_LEAST_ROWS = 16
_LEAST_SUMMED = 512  # pixels, before a tile's accumulators are added up
_PARTIAL_ELEMENTS = 1 << 21  # that partial gradients of a weight may take in all


class Plan(NamedTuple):
    """The sizes of one product on a lattice; channels and rows are those of one group."""

    batch: int
    groups: int
    channels: int  # of the image
    rows: int  # channels of the result
    image_d: int
    image_h: int
    image_w: int
    step_d: int  # of the image, between neighbours on the lattice
    step_h: int
    step_w: int
    lattice_d: int  # the size of one plane
    lattice_h: int
    lattice_w: int
    planes: int  # for each channel
    box_d: int  # how many positions are computed at a time ...
    box_h: int
    box_w: int
    count_d: int  # ... of all
    count_h: int
    count_w: int
    out_d: int
    out_h: int
    out_w: int
    out_step_d: int  # of the result, between neighbours on the lattice
    out_step_h: int
    out_step_w: int
    parts: int  # that the rows are cut into
    chunks: int = 1  # of all boxes, each with a sum of its own
    together: int = 1  # boxes that are laid out at a time


# -- inside of kernels -------------------------------------------------------------------------------------------------


@serial
def _boxes(p):
    return -(-p.count_d // p.box_d) * -(-p.count_h // p.box_h) * -(-p.count_w // p.box_w)


@serial
def _corner(p, box):
    """Where on the lattice the positions of a box begin."""
    across, down = -(-p.count_w // p.box_w), -(-p.count_h // p.box_h)
    return box // across // down * p.box_d, box // across % down * p.box_h, box % across * p.box_w


@serial
def _length(p, lanes):
    """Elements of the lattice from the first position of a box to its last, in whole vectors."""
    return -(-(((p.box_d - 1) * p.lattice_h + p.box_h - 1) * p.lattice_w + p.box_w) // lanes) * lanes


@serial
def _fill(p, images, image, starts, corner_d, corner_h, corner_w, lattice, first):
    """Lay out an image; the places of its padding are zero already."""
    size = p.lattice_d * p.lattice_h * p.lattice_w
    for plane in range(p.planes):
        d0 = corner_d * p.step_d + starts[plane, 0]
        h0 = corner_h * p.step_h + starts[plane, 1]
        w0 = corner_w * p.step_w + starts[plane, 2]
        low = max(0, -(w0 // p.step_w))
        count = max(0, min(p.lattice_w, -((p.image_w - w0) // -p.step_w)) - low)
        z_low, z_high = max(0, -(d0 // p.step_d)), min(p.lattice_d, -((p.image_d - d0) // -p.step_d))
        y_low, y_high = max(0, -(h0 // p.step_h)), min(p.lattice_h, -((p.image_h - h0) // -p.step_h))
        for c in range(p.channels):
            target = first + (c * p.planes + plane) * size + low
            source = image + c * p.image_d * p.image_h * p.image_w + w0 + low * p.step_w
            for z in range(z_low, z_high):
                for y in range(y_low, y_high):
                    s = source + ((d0 + z * p.step_d) * p.image_h + h0 + y * p.step_h) * p.image_w
                    t = target + (z * p.lattice_h + y) * p.lattice_w
                    copy_row(images, s, p.step_w, lattice, t, 1, count)


@serial
def _largest(sizes, most):
    """The largest of the sizes that is not more than there is."""
    for size in sizes:
        if size <= most:
            return size
    return 0


@serial
def _products(a, a0, depth, lattice, offsets, f0, bias, b0, out, length, rows):
    """Some rows of the product, `length` elements each."""
    lanes = VECTOR_BYTES // lattice.itemsize
    q = 0
    while q < length:
        vectors = _largest(TILE_VECTORS, (length - q) // lanes)
        multiply_tile(a, a0, depth, depth, lattice, q, offsets, f0, bias, b0, out, q, length, rows, vectors)
        q += vectors * lanes


@serial
def _scatter(p, products, length, rows, out, first, shift_d, shift_h, shift_w, corner_d, corner_h, corner_w):
    """Copy the products at output positions to the output."""
    d0 = corner_d * p.out_step_d + shift_d
    h0 = corner_h * p.out_step_h + shift_h
    w0 = corner_w * p.out_step_w + shift_w
    low = max(0, -(w0 // p.out_step_w))
    count = max(0, min(p.box_w, -((p.out_w - w0) // -p.out_step_w)) - low)
    z_low, z_high = max(0, -(d0 // p.out_step_d)), min(p.box_d, -((p.out_d - d0) // -p.out_step_d))
    y_low, y_high = max(0, -(h0 // p.out_step_h)), min(p.box_h, -((p.out_h - h0) // -p.out_step_h))
    for r in range(rows):
        target = first + r * p.out_d * p.out_h * p.out_w + w0 + low * p.out_step_w
        for z in range(z_low, z_high):
            for y in range(y_low, y_high):
                s = r * length + (z * p.lattice_h + y) * p.lattice_w + low
                t = target + ((d0 + z * p.out_step_d) * p.out_h + h0 + y * p.out_step_h) * p.out_w
                copy_row(products, s, 1, out, t, p.out_step_w, count)


@serial
def _size(p):
    """Elements of a lattice."""
    return p.channels * p.planes * p.lattice_d * p.lattice_h * p.lattice_w


@serial
def _correlate_units(plan):
    p = plan[0]
    return p.batch * p.groups * _boxes(p) * p.parts


@serial
def _correlate_share(plan, share, shares, images, starts, kernels, bias, offsets, results, out):
    """A share of the units of work: each is some rows of one box of one group of one image."""
    p = plan[0]
    boxes, units = _boxes(p), _correlate_units(plan)
    lanes = VECTOR_BYTES // images.itemsize
    length = _length(p, lanes)
    lattice = numpy.zeros(_size(p) + lanes, images.dtype)
    products = numpy.empty(TILE_ROWS[0] * length, images.dtype)
    step = -(-p.rows // (p.parts * TILE_ROWS[0])) * TILE_ROWS[0]
    for unit in range(share * units // shares, (share + 1) * units // shares):
        part, box = unit % p.parts, unit // p.parts % boxes
        image = unit // p.parts // boxes  # of all groups
        corner_d, corner_h, corner_w = _corner(p, box)
        if boxes > 1:
            lattice[:] = 0
        first = image * p.channels * p.image_d * p.image_h * p.image_w
        _fill(p, images, first, starts, corner_d, corner_h, corner_w, lattice, 0)
        stop = min(p.rows, (part + 1) * step)
        for i in range(len(results)):
            f0, depth, shift_d, shift_h, shift_w = results[i]
            row = part * step
            while row < stop:
                rows = _largest(TILE_ROWS, stop - row)
                channel = image % p.groups * p.rows + row
                a0 = f0 * p.groups * p.rows + channel * depth
                _products(kernels, a0, depth, lattice, offsets, f0, bias, channel, products, length, rows)
                first = (image * p.rows + row) * p.out_d * p.out_h * p.out_w
                _scatter(p, products, length, rows, out, first, shift_d, shift_h, shift_w, corner_d, corner_h, corner_w)
                row += rows


@jit
def _correlate(plan, images, starts, kernels, bias, offsets, results, out):
    """out[n, row] = bias[row] + kernels[row] x lattice of images[n], for all results."""
    shares = min(_correlate_units(plan), _SHARES)
    for share in prange(shares):
        _correlate_share(plan, share, shares, images, starts, kernels, bias, offsets, results, out)


@serial
def _fill_gradient(p, gradient, image, corner_d, corner_h, corner_w, rows, step, target, first):
    """Lay out some rows of a gradient as its positions are on the lattice; zeros are between them already."""
    depth, height = min(p.box_d, p.out_d - corner_d), min(p.box_h, p.out_h - corner_h)
    width = min(p.box_w, p.out_w - corner_w)
    for r in range(rows):
        for z in range(depth):
            for y in range(height):
                s = image + ((r * p.out_d + corner_d + z) * p.out_h + corner_h + y) * p.out_w + corner_w
                t = first + r * step + (z * p.lattice_h + y) * p.lattice_w
                copy_row(gradient, s, 1, target, t, 1, width)


@serial
def _dots(p, gradients, step, rows, lattices, size, images, offsets, out, o0):
    """out[row, k] += gradient rows x columns k, summed over images."""
    length = step // (VECTOR_BYTES // lattices.itemsize)
    depth, k = len(offsets), 0
    while k < depth:  # the gradient, which has fewer rows than there are columns, is what is read again and again
        width, row = _largest(DOT_COLUMNS, depth - k), 0
        while row < rows:
            height = _largest(DOT_ROWS, rows - row)
            dot_tile(
                gradients, row * step, step, rows * step, lattices, 0, offsets, k, size, images, length,
                out, o0 + row * depth + k, depth, height, width,
            )  # fmt: skip
            row += height
        k += width


@serial
def _weight_share(plan, share, shares, images, starts, gradient, offsets, out):
    """A share of the units of work: each is some rows of one group, over one chunk of the boxes of all images."""
    p = plan[0]
    boxes, units = _boxes(p), p.chunks * p.groups * p.parts
    lanes = VECTOR_BYTES // images.itemsize
    length, size = _length(p, lanes), _size(p)
    step = -(-p.rows // (p.parts * DOT_ROWS[0])) * DOT_ROWS[0]
    lattices = numpy.zeros(p.together * size + lanes, images.dtype)
    gradients = numpy.zeros(p.together * step * length, images.dtype)
    for unit in range(share * units // shares, (share + 1) * units // shares):
        group, chunk = unit // p.parts % p.groups, unit // p.parts // p.groups
        row = unit % p.parts * step
        rows = max(0, min(p.rows - row, step))
        first, stop = chunk * p.batch * boxes // p.chunks, (chunk + 1) * p.batch * boxes // p.chunks
        for start in range(first, stop, p.together):
            if boxes > 1:
                lattices[:] = 0
                gradients[:] = 0
            count = min(p.together, stop - start)
            for i in range(count):
                image = (start + i) // boxes * p.groups + group
                corner_d, corner_h, corner_w = _corner(p, (start + i) % boxes)
                pixel = image * p.channels * p.image_d * p.image_h * p.image_w
                _fill(p, images, pixel, starts, corner_d, corner_h, corner_w, lattices, i * size)
                pixel = (image * p.rows + row) * p.out_d * p.out_h * p.out_w
                place = i * rows * length
                _fill_gradient(p, gradient, pixel, corner_d, corner_h, corner_w, rows, length, gradients, place)
            place = (group * p.rows + row) * len(offsets)
            _dots(p, gradients, length, rows, lattices, size, count, offsets, out[chunk], place)


@jit
def _weight(plan, images, starts, gradient, offsets, out):
    """Partial sums [chunks, weight] of the gradient of the weight."""
    shares = min(plan[0].chunks * plan[0].groups * plan[0].parts, _SHARES)
    for share in prange(shares):
        _weight_share(plan, share, shares, images, starts, gradient, offsets, out)


@jit
def _turn(kernels, groups, channels, taps, order, results, out):
    """From kernels [groups, outputs, channels, taps] a row for each channel, for all results in turn."""
    for row in prange(groups * channels):
        first = row // channels * (kernels.size // groups) + row % channels * taps
        for i in range(len(results)):
            f0, depth = results[i, 0], results[i, 1]
            target = f0 * groups * channels + row * depth
            for k in range(depth):
                out[target + k] = kernels[first + order[f0 + k]]


@jit
def _channel_sums(gradient, out):
    """The sum over images and pixels of gradient [images, channels, pixels]."""
    for c in prange(gradient.shape[1]):
        total = out.dtype.type(0)
        for n in range(gradient.shape[0]):
            pixels = gradient[n, c]
            part = out.dtype.type(0)
            for i in range(pixels.size):
                part += pixels[i]
            total += part
        out[c] = total


# -- plans -------------------------------------------------------------------------------------------------------------


def _pieces(count: list, box: list) -> int:
    return math.prod(-(-c // b) for c, b in zip(count, box, strict=True))


def _box(count: list, reach: list, pixel_bytes: int, most: int, units: int) -> list:
    """How many positions by dimension to compute at a time: what the cache takes, and enough pieces of work."""
    box = list(count)
    for i, n in enumerate(count):
        while box[i] > 1 and (
            pixel_bytes * math.prod(b + r for b, r in zip(box, reach, strict=True)) > most
            or (units * _pieces(count, box) < _UNITS and math.prod(box) > _LEAST_POSITIONS)
        ):
            box[i] = -(-box[i] // 2)
        box[i] = -(-n // -(-n // box[i]))
    return box


def _table(rows: list) -> Array:
    return numpy.array(rows, numpy.int64)


@functools.lru_cache(maxsize=256)
def _forward_plan(itemsize: int, most: int, *sizes: Any) -> tuple[Array, Array, Array, Array]:
    """Of the product that gives the outputs: sizes, where planes start, offsets of columns, and the one result."""
    c = Sizes.of(*sizes)
    residues = [sorted({rest for _, rest in places}) for places in c.reaches]
    planes = list(itertools.product(*residues))
    reach = [max(far for far, _ in places) for places in c.reaches]
    plan = _plan(c, itemsize, most, c.inputs, c.outputs, c.image, c.stride, reach, len(planes), c.out, c.out, (1, 1, 1))
    offsets = [
        _place(plan, channel * len(planes) + planes.index(tuple(rest for _, rest in tap)), [far for far, _ in tap])
        for channel in range(c.inputs)
        for tap in c.taps
    ]
    starts = [[rest - p for rest, p in zip(plane, c.padding, strict=True)] for plane in planes]
    return as_record(plan), _table(starts), _table(offsets), _table([[0, len(offsets), 0, 0, 0]])


@functools.lru_cache(maxsize=256)
def _input_plan(itemsize: int, *sizes: Any) -> tuple[Array, Array, Array, Array, Array]:
    """Of the products that give the gradient of the input, one result for each residue of its positions.

    Position i of the input is stride * t + residue - padding. The window's place j, which lies far * stride + residue
    behind its first, had it in output t - far.
    """
    c = Sizes.of(*sizes)
    reach = [max(far for far, _ in places) for places in c.reaches]
    first = [p // s for p, s in zip(c.padding, c.stride, strict=True)]  # the least t that there is
    count = [(n - 1 + p) // s - t + 1 for n, p, s, t in zip(c.image, c.padding, c.stride, first, strict=True)]
    plan = _plan(c, itemsize, _LATTICE_BYTES, c.outputs, c.inputs, c.out, (1, 1, 1), reach, 1, count, c.image, c.stride)
    results: list = []
    offsets: list = []
    order: list = []
    for residue in itertools.product(*map(range, c.stride)):
        found = [(i, tap) for i, tap in enumerate(c.taps) if tuple(rest for _, rest in tap) == residue]
        shift = [s * t + r - p for s, t, r, p in zip(c.stride, first, residue, c.padding, strict=True)]
        results.append([len(offsets), c.outputs * len(found), *shift])
        for channel in range(c.outputs):
            for i, tap in found:
                back = [most - far for most, (far, _) in zip(reach, tap, strict=True)]
                offsets.append(_place(plan, channel, back))
                order.append(channel * c.inputs * len(c.taps) + i)
    starts = [[t - most for t, most in zip(first, reach, strict=True)]]
    return as_record(plan), _table(starts), _table(offsets), _table(results), _table(order)


@functools.lru_cache(maxsize=256)
def _weight_plan(itemsize: int, *sizes: Any) -> tuple[Array, Array, Array]:
    """Of the gradient of the weight: as the forward plan, how many sums to make, over how many boxes at a time."""
    record, starts, offsets, _ = _forward_plan(itemsize, _STREAMED_BYTES, *sizes)
    plan = Plan(*record.item())
    boxes = plan.batch * _pieces([plan.count_d, plan.count_h, plan.count_w], [plan.box_d, plan.box_h, plan.box_w])
    weights = plan.groups * plan.rows * len(offsets)
    positions = plan.box_d * plan.box_h * plan.box_w
    chunks = max(1, min(boxes, _UNITS, _PARTIAL_ELEMENTS // weights, boxes * positions // _LEAST_SUMMED))
    parts = min(-(-_UNITS // (chunks * plan.groups)), -(-plan.rows // _LEAST_ROWS))
    pixels = plan.lattice_d * plan.lattice_h * plan.lattice_w * itemsize
    fitting = _LATTICE_BYTES // (-(-plan.rows // parts) * pixels)
    streamed = _STREAMED_BYTES // (plan.channels * plan.planes * pixels)
    together = max(1, min(-(-boxes // chunks), fitting, streamed))
    return as_record(plan._replace(parts=parts, chunks=chunks, together=together)), starts, offsets


def _place(plan: Plan, plane: int, position: list) -> int:
    d, h, w = position
    return ((plane * plan.lattice_d + d) * plan.lattice_h + h) * plan.lattice_w + w


def _plan(
    c: Sizes, itemsize: int, most: int, channels: int, rows: int, image: tuple, step: tuple, reach: list,
    planes: int, count: Any, out: tuple, out_step: tuple,
) -> Plan:  # fmt: skip
    images = max(1, c.batch * c.groups)
    parts = min(-(-_UNITS // images), -(-rows // _LEAST_ROWS))
    box = _box(list(count), reach, itemsize * channels * planes, most, images * parts)
    lattice = [b + r for b, r in zip(box, reach, strict=True)]
    return Plan(  # type: ignore[call-arg]  # the lists have three elements each
        c.batch, c.groups, channels, rows, *image, *step, *lattice, planes, *box, *count, *out, *out_step, parts
    )


# -- which way ---------------------------------------------------------------------------------------------------------

# What `deep_convolution` does besides multiplying, and what is done here, in vectors' multiplications for an element
# of the output, of the weight, of a panel of gradients, and of a lattice whose elements do not lie side by side; of a
# lattice, or the output, whose elements do, and of a weight that is turned around.
_TURN, _PACK_WEIGHT, _PACK_GRADIENT, _GATHER, _COPY, _TURN_WEIGHT = 25, 60, 40, 50, 8, 200
_DOT = 1.3  # what `dot_tile` takes longer
_CALLS = 1 << 21  # what can be multiplied while two more kernels start


def _effort(plan: Plan, itemsize: int, columns: int, taps: int, positions: int, short: Callable[[int], float]) -> float:
    """How much longer than the necessary multiplications this module takes, for the positions of an image."""
    lanes = VECTOR_BYTES // itemsize
    box = ((plan.box_d - 1) * plan.lattice_h + plan.box_h - 1) * plan.lattice_w + plan.box_w
    boxes = _pieces([plan.count_d, plan.count_h, plan.count_w], [plan.box_d, plan.box_h, plan.box_w])
    vectors = -(-box // lanes)
    laid_out = (_GATHER * plan.planes if plan.step_w > 1 else _COPY) * plan.parts / columns
    copied = (laid_out + _COPY / plan.channels) / taps
    return boxes * (vectors + short(vectors)) * lanes / positions + copied


def _narrow_tiles(vectors: int) -> float:
    """What tiles of fewer vectors than there could be cost."""
    return (0, 0.35, 0.2)[vectors % 3]


def _deep_effort(c: Sizes, columns: int, itemsize: int, extra: float) -> float:
    """The same of `deep_convolution`, whose panels are padded to whole vectors."""
    width = PRODUCT_VECTORS * VECTOR_BYTES // itemsize
    multiplications = c.batch * c.groups * c.outputs * math.prod(c.out) * c.inputs * len(c.taps)
    return -(-columns // width) * width / columns * (1 + extra) + _CALLS / multiplications


@functools.lru_cache(maxsize=256)
def _deep_forward(itemsize: int, *sizes: Any) -> bool:
    """Whether channels shall be along the vectors."""
    c = Sizes.of(*sizes)
    record, *_ = _forward_plan(itemsize, _LATTICE_BYTES, *sizes)
    positions, taps = math.prod(c.out), len(c.taps)
    extra = _TURN / (c.inputs * taps) + _PACK_WEIGHT / (c.batch * positions)
    effort = _effort(Plan(*record.item()), itemsize, c.outputs, taps, positions, _narrow_tiles)
    return _deep_effort(c, c.outputs, itemsize, extra) < effort


@functools.lru_cache(maxsize=256)
def _deep_input(itemsize: int, *sizes: Any) -> bool:
    c = Sizes.of(*sizes)
    record, *_ = _input_plan(itemsize, *sizes)
    residues, taps = math.prod(c.stride), len(c.taps)
    extra = _TURN * residues / (c.outputs * taps)
    effort = _effort(Plan(*record.item()), itemsize, c.inputs, taps, math.prod(c.image) / residues, _narrow_tiles)
    effort += _TURN_WEIGHT / (c.batch * math.prod(c.out))
    return _deep_effort(c, c.inputs, itemsize, extra) < effort


@functools.lru_cache(maxsize=256)
def _deep_weight(itemsize: int, *sizes: Any) -> bool:
    c = Sizes.of(*sizes)
    record, *_ = _weight_plan(itemsize, *sizes)
    taps = len(c.taps)
    effort = _DOT * _effort(Plan(*record.item()), itemsize, c.outputs, taps, math.prod(c.out), lambda _: 2)
    return _deep_effort(c, c.outputs, itemsize, _PACK_GRADIENT / (c.inputs * taps)) < effort


# -- what is called ----------------------------------------------------------------------------------------------------


def forward(input: Array, weight: Array, bias: Array | None, out: Array, *geometry: Any) -> None:
    """The outputs of a convolution of images [n, c, *image] with geometry (stride, padding, dilation, groups)."""
    if depthwise.suits(input.shape, weight.shape, geometry[-1], input.itemsize):
        return depthwise.forward(input, weight, bias, out, *geometry)
    if _deep_forward(input.itemsize, input.shape, weight.shape, *geometry):
        return deep_convolution.forward(input, weight, bias, out, *geometry)
    plan, starts, offsets, results = _forward_plan(input.itemsize, _LATTICE_BYTES, input.shape, weight.shape, *geometry)
    offset = numpy.zeros(len(weight), input.dtype) if bias is None else flat(bias)
    _correlate(plan, flat(input), starts, flat(weight), offset, offsets, results, out.reshape(-1))


def input_gradient(gradient: Array, weight: Array, out: Array, *geometry: Any) -> None:
    """The gradient of the input, of its shape."""
    if depthwise.suits(out.shape, weight.shape, geometry[-1], out.itemsize):
        return depthwise.input_gradient(gradient, weight, out, *geometry)
    if _deep_input(gradient.itemsize, out.shape, weight.shape, *geometry):
        return deep_convolution.input_gradient(gradient, weight, out, *geometry)
    plan, starts, offsets, results, order = _input_plan(gradient.itemsize, out.shape, weight.shape, *geometry)
    turned = numpy.empty(weight.size, weight.dtype)
    _turn(flat(weight), geometry[-1], weight.shape[1], math.prod(weight.shape[2:]), order, results, turned)
    nothing = numpy.zeros(out.shape[1], out.dtype)
    _correlate(plan, flat(gradient), starts, turned, nothing, offsets, results, out.reshape(-1))


def weight_gradient(gradient: Array, input: Array, shape: tuple, *geometry: Any) -> Array:
    """The gradient of a weight of that shape."""
    if depthwise.suits(input.shape, shape, geometry[-1], input.itemsize):
        return depthwise.weight_gradient(gradient, input, shape, *geometry)
    if _deep_weight(input.itemsize, input.shape, shape, *geometry):
        return deep_convolution.weight_gradient(gradient, input, shape, *geometry)
    plan, starts, offsets = _weight_plan(input.itemsize, input.shape, shape, *geometry)
    partials = numpy.zeros((int(plan["chunks"][0]), math.prod(shape)), gradient.dtype)
    _weight(plan, flat(input), starts, flat(gradient), offsets, partials)
    return (partials[0] if len(partials) == 1 else partials.sum(0)).reshape(shape)


def bias_gradient(gradient: Array) -> Array:
    """The sum of a gradient [n, c, *image] by channel."""
    out = numpy.empty(gradient.shape[1], gradient.dtype)
    _channel_sums(flat(gradient).reshape(*gradient.shape[:2], -1), out)
    return out
