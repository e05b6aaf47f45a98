"""The sizes of convolutions, in three dimensions whatever the number that they have."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy

Array = numpy.ndarray


def _solid(sizes: tuple, one: int) -> tuple:
    """Sizes of three dimensions."""
    return (one,) * (3 - len(sizes)) + tuple(sizes)


class Sizes(NamedTuple):
    """A convolution's sizes in three dimensions; channels are those of one group."""

    batch: int
    groups: int
    inputs: int
    outputs: int
    image: tuple
    kernel: tuple
    out: tuple
    stride: tuple
    padding: tuple
    dilation: tuple

    @classmethod
    def of(cls, image: tuple, weight: tuple, stride: tuple, padding: tuple, dilation: tuple, groups: int) -> Sizes:
        size, kernel, stride, dilation = (_solid(x, 1) for x in (image[2:], weight[2:], stride, dilation))
        padding = _solid(padding, 0)
        if set(kernel) == set(stride) == {1} and not any(padding):
            size = (1, 1, math.prod(size))  # what lies side by side does not matter
        out = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
        )
        stride = tuple(  # a single window makes none: with this one no two of its elements are in the same residue
            s if n > 1 else (k - 1) * d + 1 for n, s, k, d in zip(out, stride, kernel, dilation, strict=True)
        )
        return cls(image[0], groups, weight[1], weight[0] // groups, size, kernel, out, stride, padding, dilation)

    @property
    def reaches(self) -> list[list[tuple[int, int]]]:
        """By dimension and place in the window, its distance from the first: in steps of the stride, and the rest."""
        return [
            [divmod(j * d, s) for j in range(k)]
            for k, s, d in zip(self.kernel, self.stride, self.dilation, strict=True)
        ]

    @property
    def taps(self) -> list[tuple]:
        """For each place in a window, by dimension, what `reaches` has."""
        return list(itertools.product(*self.reaches))


def flat(array: Array) -> Array:
    """One dimension, contiguous and writable: Numba would compile everything again for read-only arrays."""
    array = numpy.ascontiguousarray(array)
    return (array if array.flags.writeable else array.copy()).reshape(-1)
