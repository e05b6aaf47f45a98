"""Resampling along a dimension: every output element is a weighted sum of a few input elements, its taps."""

from __future__ import annotations

import functools
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from ..kernels import compiled, sources
from .placing import middle


class Taps:
    """A banded linear map from vectors of `size` elements.

    Attributes:
        size: of the vectors.
        index: integers [out, taps], the elements that each output is made of.
        weight: float64 [out, taps], their factors; None for a plain selection of one element each.
    """

    def __init__(self, size: int, index: numpy.ndarray, weight: numpy.ndarray | None = None) -> None:
        self.size = size
        self.index = index
        self.weight = weight

    @functools.cached_property
    def transposed(self) -> Taps:
        """The map of gradients: for each input element, which outputs it is a part of, and with what factor."""
        out, taps = self.index.shape
        source = self.index.reshape(-1)
        weight = numpy.ones(out * taps) if self.weight is None else self.weight.reshape(-1)
        order = numpy.argsort(source, kind="stable")
        counts = numpy.bincount(source, minlength=self.size)
        rank = numpy.arange(len(order)) - numpy.repeat(counts.cumsum() - counts, counts)
        width = max(1, counts.max(initial=0))
        first = numpy.minimum(counts.cumsum() - counts, len(order) - 1)
        index = numpy.repeat((order // taps)[first][:, None], width, 1)  # factor 0: what belongs here anyhow
        factors = numpy.zeros((self.size, width))
        index[source[order], rank] = order // taps
        factors[source[order], rank] = weight[order]
        result = Taps(out, index, factors)
        result.transposed = self
        return result

    @functools.cached_property
    def by_tap(self) -> numpy.ndarray:
        """The elements [taps, out], as kernels go through them."""
        return numpy.ascontiguousarray(self.index.T).astype(numpy.uint64)


@primitive
def resample(xp, input: Array, dim: int, taps: Taps):
    """The input with the taps' map applied along a dimension."""
    index = xp.asarray(taps.index)
    if taps.weight is None:
        return xp.take(input, index[:, 0], dim)
    weight = xp.asarray(taps.weight.astype(input.dtype)).reshape(index.shape + (1,) * (input.ndim - dim - 1))
    out = xp.take(input, index[:, 0], dim)
    out *= weight[:, 0]
    for k in range(1, index.shape[1]):
        term = xp.take(input, index[:, k], dim)
        term *= weight[:, k]
        out += term
    return out


def _terms(input: Array, dim: int, taps: Taps) -> int:
    """How many products there are to add."""
    return input.size // taps.size * taps.index.size


@compiled(resample, sized_by=_terms, light=True, worth=4)
def _resample(input: Array, dim: int, taps: Taps) -> Any:
    if taps.weight is None:  # NumPy copies as quickly
        return NotImplemented
    out = numpy.empty((*input.shape[:dim], len(taps.index), *input.shape[dim + 1 :]), input.dtype)
    weight = taps.weight.T.astype(input.dtype, "C")
    sources.resampling.resample(middle(input, dim), taps.by_tap, weight, middle(out, dim))
    return out


resample.vjp(input=lambda F, g, dim, taps: F.resample(g, dim, taps.transposed))
