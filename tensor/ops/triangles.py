"""The triangular parts of matrices."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from ..kernels import compiled, sources


def _check_matrices(input: Array) -> None:
    if input.ndim < 2:
        raise ValueError(f"input tensor must have at least 2 dimensions, got {input.ndim}")


_FEW = 1 << 12  # elements of a matrix whose triangles are kept


@functools.lru_cache(maxsize=64)
def _triangle(rows: int, columns: int, diagonal: int) -> Array:
    """Where the elements on and below a diagonal are; not to be written into."""
    return numpy.tri(rows, columns, diagonal, bool)


@primitive
def tril(xp, input: Array, diagonal: int = 0):
    """The part on and below a diagonal, zeros elsewhere."""
    _check_matrices(input)
    if xp is numpy and math.prod(input.shape[-2:]) <= _FEW:
        return numpy.where(_triangle(*input.shape[-2:], diagonal), input, numpy.zeros((), input.dtype))
    return xp.tril(input, diagonal)


@compiled(tril, light=True)
def _tril(input: Array, diagonal: int = 0) -> Any:
    return _part(input, diagonal, True)


tril.vjp(input=lambda F, g, diagonal: F.tril(g, diagonal))


@primitive
def triu(xp, input: Array, diagonal: int = 0):
    """The part on and above a diagonal, zeros elsewhere."""
    _check_matrices(input)
    if xp is numpy and math.prod(input.shape[-2:]) <= _FEW:
        return numpy.where(_triangle(*input.shape[-2:], diagonal - 1), numpy.zeros((), input.dtype), input)
    return xp.triu(input, diagonal)


@compiled(triu, light=True)
def _triu(input: Array, diagonal: int = 0) -> Any:
    return _part(input, diagonal, False)


def _part(input: Array, diagonal: int, lower: bool) -> Any:
    if input.ndim < 2 or not input.size:
        return NotImplemented
    matrices = numpy.ascontiguousarray(input).reshape(-1, *input.shape[-2:])
    out = numpy.empty_like(matrices)
    sources.triangles.triangle(matrices, int(diagonal), lower, out)
    return out.reshape(input.shape)


triu.vjp(input=lambda F, g, diagonal: F.triu(g, diagonal))
