"""Windows that slide over images of any number of dimensions.

A window's elements are visited one kernel position at a time, for all windows at once: each position is a strided
slice of the padded images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...autograd.primitive import primitive
from ...runtime.arrays import Array


class Windows(NamedTuple):
    """How windows lie on images: sizes and steps by dimension, and the padding at the end that they need."""

    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    out: tuple
    end: tuple

    @classmethod
    def over(
        cls, image: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple, ceil_mode: bool = False
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
        return cls(kernel, stride, padding, dilation, tuple(out), tuple(end))

    def is_one_over(self, image: tuple) -> bool:
        """Whether there is one window, and it is the whole image."""
        return self.kernel == image and max(self.out) == 1 and not any(self.padding) and not any(self.end)

    def padded(self, xp: Any, images: Array, value: float) -> Array:
        """The images with the padding that the windows need; themselves if none."""
        if not any(self.padding) and not any(self.end):
            return images
        around = ((0, 0), (0, 0), *zip(self.padding, self.end, strict=True))
        return xp.pad(images, around, constant_values=value)

    def zeros(self, xp: Any, size: tuple, dtype: Any) -> Array:
        """Zeros of the size of padded images."""
        padded = (n + p + e for n, p, e in zip(size[2:], self.padding, self.end, strict=True))
        return xp.zeros((*size[:2], *padded), dtype)

    def interior(self, padded: Array, size: tuple) -> Array:
        """Padded images without their padding."""
        return padded[(..., *(slice(p, p + n) for p, n in zip(self.padding, size[2:], strict=True)))]

    def positions(self, padded: Array) -> Iterator[Array]:
        """For each kernel position in row-major order, the elements that all windows have there: a view."""
        for position in itertools.product(*map(range, self.kernel)):
            starts = (i * d for i, d in zip(position, self.dilation, strict=True))
            steps = zip(starts, self.stride, self.out, strict=True)
            yield padded[(..., *(slice(a, a + s * (n - 1) + 1, s) for a, s, n in steps))]


@primitive
def im2col(xp, input: Array, windows: Windows):
    """The elements [n, channels * kernel, windows] of all windows on images [n, channels, *image]."""
    n, channels = input.shape[:2]
    count = math.prod(windows.kernel)
    columns = xp.empty((n, channels, count, *windows.out), input.dtype)
    for k, elements in enumerate(windows.positions(windows.padded(xp, input, 0))):
        columns[:, :, k] = elements
    return columns.reshape(n, channels * count, math.prod(windows.out))


im2col.vjp(input=lambda F, g, input_shape, windows: F.col2im(g, input_shape, windows))


@primitive
def col2im(xp, input: Array, size: tuple, windows: Windows):
    """Images of a size with every window's elements added where they lie."""
    columns = input.reshape(*size[:2], math.prod(windows.kernel), *windows.out)
    images = windows.zeros(xp, size, input.dtype)
    for k, place in enumerate(windows.positions(images)):
        place += columns[:, :, k]
    return windows.interior(images, size)


col2im.vjp(input=lambda F, g, windows: F.im2col(g, windows))
