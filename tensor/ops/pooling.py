"""Pooling over windows in two dimensions.

A window's elements are visited one kernel position at a time, for all windows at once: each position is a strided
slice of the padded images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ...autograd.primitive import primitive
from ...runtime.arrays import Array

Pair = tuple[int, int]


class Windows(NamedTuple):
    """How windows lie on images: sizes and steps by (height, width), and the padding at the end that they need."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    out: Pair
    end: Pair

    @classmethod
    def over(
        cls, image: tuple, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1), ceil_mode: bool = False
    ) -> Windows:
        """The windows on images of a size; with ceil_mode also those that start inside, but reach past the end."""
        out, end = [], []
        for n, k, s, p, d in zip(image, kernel, stride, padding, dilation, strict=True):
            reach = d * (k - 1) + 1
            count = (n + 2 * p - reach + (s - 1 if ceil_mode else 0)) // s + 1
            if ceil_mode and (count - 1) * s >= n + p:
                count -= 1  # that window would start in the padding at the end
            out.append(count)
            end.append(max(0, (count - 1) * s + reach - n - p))
        return cls(kernel, stride, padding, dilation, (out[0], out[1]), (end[0], end[1]))

    def padded(self, xp: Any, images: Array, value: float) -> Array:
        """The images with the padding that the windows need; themselves if none."""
        if not any(self.padding) and not any(self.end):
            return images
        around = ((0, 0), (0, 0), *zip(self.padding, self.end, strict=True))
        return xp.pad(images, around, constant_values=value)

    def zeros(self, xp: Any, size: tuple, dtype: Any) -> Array:
        """Zeros of the size of padded images."""
        height, width = (n + p + e for n, p, e in zip(size[2:], self.padding, self.end, strict=True))
        return xp.zeros((*size[:2], height, width), dtype)

    def interior(self, padded: Array, size: tuple) -> Array:
        """Padded images without their padding."""
        top, left = self.padding
        return padded[:, :, top : top + size[2], left : left + size[3]]

    def positions(self, padded: Array) -> Iterator[Array]:
        """For each kernel position in row-major order, the elements that all windows have there: a view."""
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                top, left = i * self.dilation[0], j * self.dilation[1]
                yield padded[
                    :,
                    :,
                    top : top + self.stride[0] * (self.out[0] - 1) + 1 : self.stride[0],
                    left : left + self.stride[1] * (self.out[1] - 1) + 1 : self.stride[1],
                ]


# -- the largest element -----------------------------------------------------------------------------------------------


def _lowest(xp: Any, dtype: Any) -> float:
    """What never is the largest element."""
    return xp.iinfo(dtype).min if dtype.kind in "iu" else -xp.inf


@primitive
def max_pool2d(xp, input: Array, windows: Windows):
    """The largest element of each window."""
    first, *rest = windows.positions(windows.padded(xp, input, _lowest(xp, input.dtype)))
    out = first.copy()
    for elements in rest:
        xp.maximum(out, elements, out=out)
    return out


max_pool2d.vjp(input=lambda F, g, input, out, windows: F.max_pool2d_scatter(g, input, out, windows))


def _winners(xp: Any, input: Array, out: Array, windows: Windows) -> Iterator[Array]:
    """For each kernel position, which windows have their largest element there; the first one counts."""
    free = xp.ones(out.shape, bool)
    for elements in windows.positions(windows.padded(xp, input, _lowest(xp, input.dtype))):
        hit = elements == out
        hit &= free
        free ^= hit
        yield hit


@primitive
def max_pool2d_scatter(xp, gradient: Array, input: Array, out: Array, windows: Windows):
    """Zeros of the input's shape with each window's gradient added at its largest element."""
    total = windows.zeros(xp, input.shape, gradient.dtype)
    for place, hit in zip(windows.positions(total), _winners(xp, input, out, windows), strict=True):
        place += gradient * hit
    return windows.interior(total, input.shape)


max_pool2d_scatter.vjp(gradient=lambda F, g, input, out, windows: F.max_pool2d_gather(g, input, out, windows))


@primitive
def max_pool2d_gather(xp, values: Array, input: Array, out: Array, windows: Windows):
    """The elements of values (of the input's shape) where each window has its largest input."""
    result = xp.zeros(out.shape, values.dtype)
    padded = windows.padded(xp, values, 0)
    for elements, hit in zip(windows.positions(padded), _winners(xp, input, out, windows), strict=True):
        result += elements * hit
    return result


max_pool2d_gather.vjp(values=lambda F, g, input, out, windows: F.max_pool2d_scatter(g, input, out, windows))


@primitive
def max_pool2d_indices(xp, input: Array, out: Array, windows: Windows):
    """Where in its flattened image each window has its largest element."""
    height, width = input.shape[2:]
    rows = xp.arange(-windows.padding[0], height + windows.end[0])[:, None]
    columns = xp.arange(-windows.padding[1], width + windows.end[1])
    places = (rows * width + columns)[None, None]
    index = xp.zeros(out.shape, xp.int64)
    for place, hit in zip(windows.positions(places), _winners(xp, input, out, windows), strict=True):
        index += place * hit
    return index


# -- the mean ----------------------------------------------------------------------------------------------------------


def _divisor(xp: Any, size: tuple, windows: Windows, count_include_pad: bool, divisor_override: int | None) -> Any:
    """What the sum over each window is divided by: one number, or an array where windows differ."""
    if divisor_override is not None:
        return divisor_override
    if not any(windows.end) and (count_include_pad or not any(windows.padding)):
        return windows.kernel[0] * windows.kernel[1]
    counts = []
    for n, k, s, p, count in zip(
        size[2:], windows.kernel, windows.stride, windows.padding, windows.out, strict=True
    ):
        low, high = (-p, n + p) if count_include_pad else (0, n)
        starts = [i * s - p for i in range(count)]
        counts.append(xp.asarray([min(start + k, high) - max(start, low) for start in starts]))
    return counts[0][:, None] * counts[1]


@primitive
def avg_pool2d(xp, input: Array, windows: Windows, count_include_pad: bool, divisor_override: int | None):
    """The mean of each window."""
    first, *rest = windows.positions(windows.padded(xp, input, 0))
    out = first.copy()
    for elements in rest:
        out += elements
    mean = out / xp.asarray(_divisor(xp, input.shape, windows, count_include_pad, divisor_override), out.dtype)
    return mean.astype(out.dtype, copy=False)  # integers: the fraction is dropped


avg_pool2d.vjp(
    input=lambda F, g, input_shape, windows, count_include_pad, divisor_override: F.avg_pool2d_spread(
        g, input_shape, windows, count_include_pad, divisor_override
    )
)


@primitive
def avg_pool2d_spread(
    xp, gradient: Array, size: tuple, windows: Windows, count_include_pad: bool, divisor_override: int | None
):
    """Images of a size with every window's gradient shared out over its elements."""
    share = gradient / xp.asarray(_divisor(xp, size, windows, count_include_pad, divisor_override), gradient.dtype)
    total = windows.zeros(xp, size, gradient.dtype)
    for place in windows.positions(total):
        place += share
    return windows.interior(total, size)


avg_pool2d_spread.vjp(
    gradient=lambda F, g, windows, count_include_pad, divisor_override: F.avg_pool2d(
        g, windows, count_include_pad, divisor_override
    )
)
