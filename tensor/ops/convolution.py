"""Convolution in any number of dimensions: three primitives, each of which is the derivative of the others.

All are one matrix product over *columns*: for every output position the patch of the input that its window covers
(Chellapilla, Puri and Simard, High Performance Convolutional Neural Networks for Document Processing, 2006). The batch
is cut into pieces whose columns stay in the processor's cache. With a window of one element at every position the
images are their own columns.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from ..kernels import compiled, compiled_vjp, sources

# columns held at a time: what a processor's cache takes, or what keeps a GPU busy
_COLUMN_BYTES = {"numpy": 1 << 22, "cupy": 1 << 28}


@dataclass(frozen=True)
class _Geometry:
    """The sizes of one convolution, by spatial dimension; channels are those of one group."""

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    kernel: tuple
    image: tuple
    padded: tuple
    out: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    lattice: tuple  # the positions that columns are kept for

    @functools.cached_property
    def full_rows(self) -> bool:
        """Whether columns are kept for all positions of the padded rows, not only those that are outputs.

        At stride 1 the columns of one kernel position are then one contiguous piece of the image, which copies several
        times faster; the surplus columns at the end of each row are multiplied for nothing.
        """
        return self.lattice[1:] == self.padded[1:] and set(self.stride) == {1}

    @functools.cached_property
    def pointwise(self) -> bool:
        """Whether every window is one element, and every element has one."""
        return self.image == self.out and set(self.kernel) == {1} and not any(self.padding)

    @functools.cached_property
    def depth(self) -> int:
        """Elements of one column."""
        return self.in_channels * math.prod(self.kernel)

    @functools.cached_property
    def length(self) -> int:
        """Columns of one image."""
        return math.prod(self.lattice)

    @functools.cached_property
    def positions(self) -> list[tuple[tuple, int]]:
        """The kernel's positions, and how far each lies behind the window's first element in a padded image."""
        steps = [d * math.prod(self.padded[i + 1 :]) for i, d in enumerate(self.dilation)]
        return [
            (place, sum(i * step for i, step in zip(place, steps, strict=True)))
            for place in itertools.product(*map(range, self.kernel))
        ]

    @functools.cached_property
    def filled(self) -> int:
        """Columns of one image before the surplus at the very end, which would reach past the image."""
        last_of_first_row = math.prod(self.kernel[1:]) - 1
        return self.length - self.positions[last_of_first_row][1] if self.full_rows else self.length

    def elements(self, position: tuple) -> tuple:
        """The slices of a padded image that hold all windows' elements at a kernel position."""
        starts = (i * d for i, d in zip(position, self.dilation, strict=True))
        return tuple(slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(starts, self.stride, self.out, strict=True))

    def piece(self, xp: Any, itemsize: int) -> int:
        """Images to work on at a time."""
        image = self.groups * max(self.depth, self.out_channels) * self.length * itemsize
        return max(1, min(self.batch, _COLUMN_BYTES[xp.__name__] // max(image, 1)))


def output_size(image: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """The number of windows along one dimension."""
    return (image + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@functools.lru_cache(maxsize=1024)
def _geometry(image: tuple, weight: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> _Geometry:
    batch, _, *size = image
    kernel = weight[2:]
    padded = tuple(n + 2 * p for n, p in zip(size, padding, strict=True))
    out = tuple(output_size(*args) for args in zip(size, kernel, stride, padding, dilation, strict=True))
    full_rows = set(stride) == {1} and math.prod(padded[1:]) <= 1.5 * math.prod(out[1:])
    return _Geometry(
        batch, groups, weight[1], weight[0] // groups, kernel, tuple(size), padded, out, stride, padding, dilation,
        (out[0], *padded[1:]) if full_rows else out,
    )  # fmt: skip


@functools.cache
def _stride_tricks(xp: Any) -> Any:
    return importlib.import_module(f"{xp.__name__}.lib.stride_tricks")  # which CuPy does not load by itself


def _windows(xp: Any, images: Array, s: _Geometry) -> Array:
    """A view [groups, channels, *kernel, batch, *columns] of padded images, without copying.

    The columns are one dimension with full rows, as many as the image has otherwise.
    """
    n, c, *steps = images.strides
    shape = (s.groups, s.in_channels, *s.kernel, images.shape[0])
    strides = (s.in_channels * c, c, *(d * step for d, step in zip(s.dilation, steps, strict=True)), n)
    if s.full_rows:
        shape, strides = (*shape, s.filled), (*strides, steps[-1])
    else:
        shape, strides = (*shape, *s.out), (*strides, *(n * step for n, step in zip(s.stride, steps, strict=True)))
    return _stride_tricks(xp).as_strided(images, shape, strides)


def _columns(xp: Any, images: Array, s: _Geometry) -> Iterator[tuple[slice, Array]]:
    """Pieces of the batch, each with its columns [groups, depth, images * columns]; one buffer serves them all."""
    size = s.piece(xp, images.itemsize)
    padded = None
    if s.padded != s.image:
        padded = xp.zeros((size, images.shape[1], *s.padded), images.dtype)
    windows = _windows(xp, xp.ascontiguousarray(images) if padded is None else padded, s)
    every_position = (slice(None),) * (2 + len(s.kernel))
    memory = xp.empty(s.groups * s.depth * size * s.length, images.dtype)
    for start in range(0, s.batch, size):
        piece = slice(start, min(start + size, s.batch))
        n = piece.stop - start
        if padded is None:
            part = windows[(*every_position, piece)]
        else:
            _interior(padded[:n], s)[...] = images[piece]
            part = windows[(*every_position, slice(n))]
        columns = memory[: s.groups * s.depth * n * s.length].reshape(*part.shape[: len(every_position) + 1], s.length)
        columns[..., s.filled :] = 0  # what is multiplied for nothing must at least not be nan
        columns[..., : s.filled].reshape(part.shape)[...] = part
        yield piece, columns.reshape(s.groups, s.depth, n * s.length)


def _interior(padded: Array, s: _Geometry) -> Array:
    """Padded images without their padding: a view."""
    return padded[(..., *(slice(p, p + n) for p, n in zip(s.padding, s.image, strict=True)))]


def _outputs(lattice: Array, s: _Geometry) -> Array:
    """What is at output positions, of an array whose last dimensions are the lattice: a view."""
    return lattice[(..., *map(slice, s.out))]


def _by_column(xp: Any, gradient: Array, s: _Geometry) -> Array:
    """The gradient [n, channels, *out] as [groups, channels, n * columns], 0 at surplus columns."""
    n = len(gradient)
    by_group = gradient.reshape(n, s.groups, s.out_channels, *s.out)
    order = (1, 2, 0, *range(3, by_group.ndim))
    if s.lattice == s.out:
        return by_group.transpose(order).reshape(s.groups, s.out_channels, n * s.length)
    spread = xp.zeros((s.groups, s.out_channels, n, *s.lattice), gradient.dtype)
    _outputs(spread, s)[...] = by_group.transpose(order)
    return spread.reshape(s.groups, s.out_channels, n * s.length)


@primitive
def convolution(
    xp,
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: tuple = (1, 1),
    padding: tuple = (0, 0),
    dilation: tuple = (1, 1),
    groups: int = 1,
):
    """Cross-correlation of images [n, c, *image] with kernels [o, c / groups, *kernel]: [n, o, *out]."""
    s = _geometry(input.shape, weight.shape, stride, padding, dilation, groups)
    kernels = weight.reshape(groups, s.out_channels, s.depth)
    ones = (1,) * len(s.out)
    if s.pointwise:
        out = xp.matmul(kernels, input.reshape(s.batch, groups, s.in_channels, s.length))
        out = out.reshape(s.batch, groups * s.out_channels, *s.out).astype(input.dtype, copy=False)
        if bias is not None:
            out += bias.reshape(-1, *ones)
        return out
    out = xp.empty((s.batch, groups, s.out_channels, *s.out), input.dtype)
    for piece, columns in _columns(xp, input, s):
        part = out[piece].transpose(1, 2, 0, *range(3, out.ndim))
        product = _outputs(xp.matmul(kernels, columns).reshape(*part.shape[:3], *s.lattice), s)
        if bias is None:
            part[...] = product
        else:
            xp.add(product, bias.reshape(groups, s.out_channels, 1, *ones), out=part)
    return out.reshape(s.batch, groups * s.out_channels, *s.out)


convolution.vjp(
    input=lambda F, g, weight, input_shape, stride, padding, dilation, groups: F.convolution_input(
        g, weight, input_shape, stride, padding, dilation, groups
    ),
    weight=lambda F, g, input, weight_shape, stride, padding, dilation, groups: F.convolution_weight(
        g, input, weight_shape, stride, padding, dilation, groups
    ),
    bias=lambda F, g: F.sum(g, (0, *range(2, len(g.shape)))),
)


@primitive
def convolution_input(
    xp, gradient: Array, weight: Array, size: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int
):
    """The gradient of a convolution with respect to its input of that size, given that of its output."""
    s = _geometry(size, weight.shape, stride, padding, dilation, groups)
    kernels = weight.reshape(groups, s.out_channels, s.depth).swapaxes(1, 2)
    if s.pointwise:
        return xp.matmul(kernels, gradient.reshape(s.batch, groups, s.out_channels, s.length)).reshape(size)
    around = tuple(d * (k - 1) - p for d, k, p in zip(dilation, s.kernel, padding, strict=True))
    if set(stride) == {1} and s.out_channels <= s.in_channels and min(around) >= 0:
        # a convolution too, with the kernels turned around: copying columns costs half of what adding them up does
        return convolution.declaration.body(xp, gradient, _turned(weight, s), None, stride, around, dilation, groups)
    out = xp.empty(size, gradient.dtype)
    step = s.piece(xp, gradient.itemsize)
    for start in range(0, s.batch, step):
        part = gradient[start : start + step]
        columns = xp.matmul(kernels, _by_column(xp, part, s))
        out[start : start + step] = _interior(_gathered(xp, columns, len(part), s), s)
    return out


def _turned(weight: Array, s: _Geometry) -> Array:
    """The kernels mirrored in every spatial dimension, with input and output channels exchanged."""
    by_group = weight.reshape(s.groups, s.out_channels, s.in_channels, *s.kernel).swapaxes(1, 2)
    mirrored = by_group[(..., *[slice(None, None, -1)] * len(s.kernel))]
    return mirrored.reshape(s.groups * s.in_channels, s.out_channels, *s.kernel)


def _gathered(xp: Any, columns: Array, n: int, s: _Geometry) -> Array:
    """Padded images with every column added where it was taken from."""
    images = xp.zeros((n, s.groups, s.in_channels, *s.padded), columns.dtype)
    columns = columns.reshape(s.groups, s.in_channels, *s.kernel, n, *((s.length,) if s.full_rows else s.out))
    flat = images.reshape(n, s.groups, s.in_channels, -1)
    for position, first in s.positions:
        values = columns[(slice(None), slice(None), *position)]
        values = values.transpose(2, 0, 1, *range(3, values.ndim))
        if s.full_rows:
            place = flat[..., first : first + s.filled]
            values = values[..., : s.filled]
        else:
            place = images[(..., *s.elements(position))]
        place += values
    return images.reshape(n, s.groups * s.in_channels, *s.padded)


convolution_input.vjp(
    gradient=lambda F, g, weight, stride, padding, dilation, groups: F.convolution(
        g, weight, None, stride, padding, dilation, groups
    ),
    weight=lambda F, g, gradient, weight_shape, stride, padding, dilation, groups: F.convolution_weight(
        gradient, g, weight_shape, stride, padding, dilation, groups
    ),
)


@primitive
def convolution_weight(
    xp, gradient: Array, input: Array, size: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int
):
    """The gradient of a convolution with respect to its weight of that size, given that of its output."""
    s = _geometry(input.shape, size, stride, padding, dilation, groups)
    total = xp.zeros((groups, s.depth, s.out_channels), gradient.dtype)
    for piece, columns in _columns(xp, input, s):  # this order of the factors suits BLAS where channels are few
        total += xp.matmul(columns, _by_column(xp, gradient[piece], s).swapaxes(1, 2))
    return xp.ascontiguousarray(total.swapaxes(1, 2)).reshape(size)


convolution_weight.vjp(
    gradient=lambda F, g, input, stride, padding, dilation, groups: F.convolution(
        input, g, None, stride, padding, dilation, groups
    ),
    input=lambda F, g, gradient, input_shape, stride, padding, dilation, groups: F.convolution_input(
        gradient, g, input_shape, stride, padding, dilation, groups
    ),
)


# -- kernels: see tensor/kernels/convolution.py ------------------------------------------------------------------------

_WORK = 16  # multiplications for an element, at least, in all but the smallest convolutions


def _suits(*arrays: Array | None) -> bool:
    """Whether the kernels take these arrays: one dtype, at most three dimensions besides batch and channels."""
    first: Any = arrays[0]
    return first.ndim <= 5 and all(x is None or x.dtype == first.dtype for x in arrays)


@compiled(convolution, _WORK)
def _forward(input, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):  # type: ignore[no-untyped-def]
    if not _suits(input, weight, bias):
        return NotImplemented
    s = _geometry(input.shape, weight.shape, stride, padding, dilation, groups)
    out = numpy.empty((s.batch, len(weight), *s.out), input.dtype)
    sources.convolution.forward(input, weight, bias, out, stride, padding, dilation, groups)
    return out


@compiled(convolution_input, _WORK)
def _input_gradient(gradient, weight, size, *geometry):  # type: ignore[no-untyped-def]
    if not _suits(gradient, weight):
        return NotImplemented
    out = numpy.empty(size, gradient.dtype)
    sources.convolution.input_gradient(gradient, weight, out, *geometry)
    return out


@compiled(convolution_weight, _WORK)
def _weight_gradient(gradient, input, size, *geometry):  # type: ignore[no-untyped-def]
    if not _suits(gradient, input):
        return NotImplemented
    return sources.convolution.weight_gradient(gradient, input, size, *geometry)


@compiled_vjp(convolution, _WORK)
def _(xp, g, needs, input, weight, stride, padding, dilation, groups):  # type: ignore[no-untyped-def]
    if not _suits(g, input, weight):
        return NotImplemented
    geometry = (stride, padding, dilation, groups)
    return (
        _input_gradient(g, weight, input.shape, *geometry) if needs[0] else None,
        _weight_gradient(g, input, weight.shape, *geometry) if needs[1] else None,
        sources.convolution.bias_gradient(g) if needs[2] else None,
    )
