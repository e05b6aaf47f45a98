"""Matrices made of their diagonals, and diagonals of matrices."""

from __future__ import annotations

from typing import Any

from ...autograd.out import takes_out
from .shaping import diagonal, embed_diagonal, one_dim, reshape


@takes_out
def diag(input: Any, diagonal_offset: int = 0) -> Any:
    """The diagonal of a matrix, or the matrix with a vector on its diagonal."""
    if input.array.ndim == 2:
        return diagonal(input, diagonal_offset)
    if input.array.ndim != 1:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.array.ndim}D")
    n = input.array.shape[0] + (diagonal_offset if diagonal_offset > 0 else -diagonal_offset)
    return embed_diagonal(input, (n, n), diagonal_offset, 0, 1)


def diagflat(input: Any, offset: int = 0) -> Any:
    """The square matrix with the flattened input on a diagonal."""
    return diag(reshape(input, (-1,)), offset)


def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """The last dimension on a diagonal of two new dimensions dim1 and dim2, zeros elsewhere.

    Example:
        >>> import paceline as torch
        >>> torch.diag_embed(torch.tensor([1, 2]))
        tensor([[1, 0],
                [0, 2]])
    """
    *batch, length = input.array.shape
    ndim = len(batch) + 2
    dims = (one_dim(dim1, ndim), one_dim(dim2, ndim))
    if dims[0] == dims[1]:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    n = length + abs(offset)
    sizes = iter(batch)
    size = tuple(n if i in dims else next(sizes) for i in range(ndim))
    return embed_diagonal(input, size, offset, *dims)
