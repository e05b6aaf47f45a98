"""Convolution in two dimensions: three primitives, each of which is the derivative of the others.

All are one matrix product over *columns*: for every output position the patch of the input that its window covers
(Chellapilla, Puri and Simard, High Performance Convolutional Neural Networks for Document Processing, 2006). The batch
is cut into pieces whose columns stay in the processor's cache.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...autograd.primitive import primitive
from ...runtime.arrays import Array

Pair = tuple[int, int]

# columns held at a time: what a processor's cache takes, or what keeps a GPU busy
_COLUMN_BYTES = {"numpy": 1 << 22, "cupy": 1 << 28}


class _Geometry(NamedTuple):
    """The sizes of one convolution; channels are those of one group."""

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    kernel: Pair
    image: Pair
    padded: Pair
    out: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    row: int  # columns per output row

    @property
    def full_rows(self) -> bool:
        """Whether columns are kept for every position of a padded row, not only those that are outputs.

        At stride 1 the columns of one kernel position are then one contiguous piece of the image, which copies several
        times faster; the surplus columns at the end of each row are multiplied for nothing.
        """
        return self.row == self.padded[1]

    @property
    def depth(self) -> int:
        """Elements of one column."""
        return self.in_channels * math.prod(self.kernel)

    @property
    def length(self) -> int:
        """Columns of one image."""
        return self.out[0] * self.row

    @property
    def filled(self) -> int:
        """Columns of one image before the surplus at the very end, which would reach past the image."""
        return self.length - (self.kernel[1] - 1) * self.dilation[1] if self.full_rows else self.length

    def piece(self, xp: Any, itemsize: int) -> int:
        """Images to work on at a time."""
        image = self.groups * max(self.depth, self.out_channels) * self.length * itemsize
        return max(1, min(self.batch, _COLUMN_BYTES[xp.__name__] // max(image, 1)))


def output_size(image: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """The number of windows along one dimension."""
    return (image + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@functools.lru_cache(maxsize=1024)
def _geometry(image: tuple, weight: tuple, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> _Geometry:
    batch, _, *size = image
    kernel = (weight[2], weight[3])
    padded = (size[0] + 2 * padding[0], size[1] + 2 * padding[1])
    out = tuple(output_size(*args) for args in zip(size, kernel, stride, padding, dilation, strict=True))
    full_rows = stride == (1, 1) and padded[1] <= 1.5 * out[1]
    return _Geometry(
        batch, groups, weight[1], weight[0] // groups, kernel, (size[0], size[1]), padded, (out[0], out[1]),
        stride, padding, dilation, padded[1] if full_rows else out[1],
    )  # fmt: skip


@functools.cache
def _stride_tricks(xp: Any) -> Any:
    return importlib.import_module(f"{xp.__name__}.lib.stride_tricks")  # which CuPy does not load by itself


def _windows(xp: Any, images: Array, s: _Geometry) -> Array:
    """A view [groups, channels, kernel height, kernel width, batch, columns] of padded images, without copying.

    The columns are one dimension with full rows, two (height, width) otherwise.
    """
    as_strided = _stride_tricks(xp).as_strided
    n, c, h, w = images.strides
    shape = (s.groups, s.in_channels, *s.kernel, images.shape[0])
    strides = (s.in_channels * c, c, s.dilation[0] * h, s.dilation[1] * w, n)
    if s.full_rows:
        return as_strided(images, (*shape, s.filled), (*strides, w))
    return as_strided(images, (*shape, *s.out), (*strides, s.stride[0] * h, s.stride[1] * w))


def _columns(xp: Any, images: Array, s: _Geometry) -> Iterator[tuple[slice, Array]]:
    """Pieces of the batch, each with its columns [groups, depth, images * columns]; one buffer serves them all."""
    size = s.piece(xp, images.itemsize)
    padded = None
    if s.padded != s.image:
        padded = xp.zeros((size, images.shape[1], *s.padded), images.dtype)
    windows = _windows(xp, xp.ascontiguousarray(images) if padded is None else padded, s)
    memory = xp.empty(s.groups * s.depth * size * s.length, images.dtype)
    for start in range(0, s.batch, size):
        piece = slice(start, min(start + size, s.batch))
        n = piece.stop - start
        if padded is None:
            part = windows[:, :, :, :, piece]
        else:
            _interior(padded[:n], s)[...] = images[piece]
            part = windows[:, :, :, :, :n]
        columns = memory[: s.groups * s.depth * n * s.length].reshape(*part.shape[:5], s.length)
        columns[..., s.filled :] = 0  # what is multiplied for nothing must at least not be nan
        columns[..., : s.filled].reshape(part.shape)[...] = part
        yield piece, columns.reshape(s.groups, s.depth, n * s.length)


def _interior(padded: Array, s: _Geometry) -> Array:
    """Padded images without their padding: a view."""
    (top, left), (height, width) = s.padding, s.image
    return padded[:, :, top : top + height, left : left + width]


def _by_column(xp: Any, gradient: Array, s: _Geometry) -> Array:
    """The gradient [n, channels, height, width] as [groups, channels, n * columns], 0 at surplus columns."""
    n = len(gradient)
    spread = xp.zeros((s.groups, s.out_channels, n, s.out[0], s.row), gradient.dtype)
    spread[..., : s.out[1]] = gradient.reshape(n, s.groups, s.out_channels, *s.out).transpose(1, 2, 0, 3, 4)
    return spread.reshape(s.groups, s.out_channels, n * s.length)


@primitive
def conv2d(
    xp,
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
):
    """Cross-correlation of images [n, c, h, w] with kernels [o, c / groups, kh, kw]: [n, o, out height, out width]."""
    s = _geometry(input.shape, weight.shape, stride, padding, dilation, groups)
    kernels = weight.reshape(groups, s.out_channels, s.depth)
    out = xp.empty((s.batch, groups, s.out_channels, *s.out), input.dtype)
    for piece, columns in _columns(xp, input, s):
        part = out[piece].transpose(1, 2, 0, 3, 4)
        product = xp.matmul(kernels, columns).reshape(*part.shape[:4], s.row)[..., : s.out[1]]
        if bias is None:
            part[...] = product
        else:
            xp.add(product, bias.reshape(groups, s.out_channels, 1, 1, 1), out=part)
    return out.reshape(s.batch, groups * s.out_channels, *s.out)


conv2d.vjp(
    input=lambda F, g, weight, input_shape, stride, padding, dilation, groups: F.conv2d_input(
        g, weight, input_shape, stride, padding, dilation, groups
    ),
    weight=lambda F, g, input, weight_shape, stride, padding, dilation, groups: F.conv2d_weight(
        g, input, weight_shape, stride, padding, dilation, groups
    ),
    bias=lambda F, g: F.sum(g, (0, 2, 3)),
)


@primitive
def conv2d_input(
    xp, gradient: Array, weight: Array, size: tuple, stride: Pair, padding: Pair, dilation: Pair, groups: int
):
    """The gradient of conv2d with respect to its input of that size, given that of its output."""
    s = _geometry(size, weight.shape, stride, padding, dilation, groups)
    kernels = weight.reshape(groups, s.out_channels, s.depth).swapaxes(1, 2)
    out = xp.empty(size, gradient.dtype)
    step = s.piece(xp, gradient.itemsize)
    for start in range(0, s.batch, step):
        part = gradient[start : start + step]
        columns = xp.matmul(kernels, _by_column(xp, part, s))
        out[start : start + step] = _interior(_gathered(xp, columns, len(part), s), s)
    return out


def _gathered(xp: Any, columns: Array, n: int, s: _Geometry) -> Array:
    """Padded images with every column added where it was taken from."""
    images = xp.zeros((n, s.groups, s.in_channels, *s.padded), columns.dtype)
    shape = (s.length,) if s.full_rows else s.out
    columns = columns.reshape(s.groups, s.in_channels, *s.kernel, n, *shape)
    flat = images.reshape(n, s.groups, s.in_channels, -1)
    for i in range(s.kernel[0]):
        for j in range(s.kernel[1]):
            top, left = i * s.dilation[0], j * s.dilation[1]
            if s.full_rows:
                first = top * s.padded[1] + left
                place = flat[..., first : first + s.filled]
                place += columns[:, :, i, j, :, : s.filled].transpose(2, 0, 1, 3)
            else:
                rows = slice(top, top + s.stride[0] * (s.out[0] - 1) + 1, s.stride[0])
                place = images[..., rows, left : left + s.stride[1] * (s.out[1] - 1) + 1 : s.stride[1]]
                place += columns[:, :, i, j].transpose(2, 0, 1, 3, 4)
    return images.reshape(n, s.groups * s.in_channels, *s.padded)


conv2d_input.vjp(
    gradient=lambda F, g, weight, stride, padding, dilation, groups: F.conv2d(
        g, weight, None, stride, padding, dilation, groups
    ),
    weight=lambda F, g, gradient, weight_shape, stride, padding, dilation, groups: F.conv2d_weight(
        gradient, g, weight_shape, stride, padding, dilation, groups
    ),
)


@primitive
def conv2d_weight(
    xp, gradient: Array, input: Array, size: tuple, stride: Pair, padding: Pair, dilation: Pair, groups: int
):
    """The gradient of conv2d with respect to its weight of that size, given that of its output."""
    s = _geometry(input.shape, size, stride, padding, dilation, groups)
    total = xp.zeros((groups, s.depth, s.out_channels), gradient.dtype)
    for piece, columns in _columns(xp, input, s):  # this order of the factors suits BLAS where channels are few
        total += xp.matmul(columns, _by_column(xp, gradient[piece], s).swapaxes(1, 2))
    return xp.ascontiguousarray(total.swapaxes(1, 2)).reshape(size)


conv2d_weight.vjp(
    gradient=lambda F, g, input, stride, padding, dilation, groups: F.conv2d(
        input, g, None, stride, padding, dilation, groups
    ),
    input=lambda F, g, gradient, input_shape, stride, padding, dilation, groups: F.conv2d_input(
        gradient, g, input_shape, stride, padding, dilation, groups
    ),
)
