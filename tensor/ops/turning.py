"""Mirroring and turning in the plane of two dimensions."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from ..kernels import compiled, sources
from . import pointwise, summing
from .reduction import as_dims
from .shaping import clone, given, matrix_transpose, one_dim, transpose

_PIECE = 1 << 12  # elements of a row that a thread copies at a time


@primitive
def flip(xp, input: Array, dims: tuple):
    """The order of the elements reversed along dims."""
    return xp.flip(input, as_dims(dims, input.ndim)).copy() if dims else input.copy()


@compiled(flip, light=True)
def _flip(input: Array, dims: tuple) -> Any:
    groups = summing.neighbours(input.shape, as_dims(dims, input.ndim)) if dims and input.size else ()
    if len(groups) != 1:
        return NotImplemented
    out = numpy.empty(input.shape, input.dtype)  # neighbouring dims are as one
    sources.turning.flip(numpy.ascontiguousarray(input).reshape(groups[0]), _PIECE, out.reshape(groups[0]))
    return out


flip.vjp(input=lambda F, g, dims: F.flip(g, dims))


def flip_dims(input: Any, *each: Any, dims: Any = None) -> Any:
    """The order of the elements reversed along dims."""
    return flip(input, given(each, dims))


def fliplr(input: Any) -> Any:
    """The order of the columns reversed."""
    if input.array.ndim < 2:
        raise RuntimeError(f"Input must be >= 2-d, got {input.array.ndim} dimensions")
    return flip(input, (1,))


def flipud(input: Any) -> Any:
    """The order of the rows reversed."""
    if input.array.ndim < 1:
        raise RuntimeError("Input must be >= 1-d, got 0 dimensions")
    return flip(input, (0,))


def rot90(input: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    """The plane of two dimensions turned by k times 90 degrees, from the first towards the second."""
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    a, b = (one_dim(d, input.array.ndim) for d in dims)
    if a == b:
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {a} and dim1 = {b}")
    if k % 2 == 0:
        return flip(input, (a, b)) if k % 4 == 2 else clone(input)
    return transpose(flip(input, (b,)), a, b) if k % 4 == 1 else flip(transpose(input, a, b), (b,))


def adjoint(input: Any) -> Any:
    """The conjugate of matrices with rows and columns exchanged (`Tensor.mH`)."""
    swapped = matrix_transpose(input)
    return pointwise.conj(swapped) if input.array.dtype.kind == "c" else swapped


def hermitian(input: Any) -> Any:
    """The conjugate of a matrix with rows and columns exchanged (`Tensor.H`)."""
    if input.array.ndim not in (0, 2):
        raise RuntimeError(f"tensor.H is only supported on matrices (2-D tensors). Got {input.array.ndim}-D tensor.")
    return adjoint(input) if input.array.ndim else input
