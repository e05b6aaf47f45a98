"""Rows of a table by index."""

from __future__ import annotations

from typing import Any

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from ..kernels import compiled
from . import placing


@primitive
def embedding(xp, weight: Array, indices: Array, padding_idx: int | None, scale_grad_by_freq: bool = False):
    """The rows of weight [n, d] that indices [...] name: [..., d]. The padding row gets no gradient.

    With scale_grad_by_freq the gradient of a row is divided by how often its index occurs.
    """
    return weight.take(indices, 0)


def _embedding_weight(
    F: Any,
    g: Any,
    weight_shape: tuple,
    indices: Any,
    padding_idx: int | None,
    scale_grad_by_freq: bool,
    *,
    into: Array | None = None,
) -> Any:
    if scale_grad_by_freq:
        g = g / F.occurrences(indices)
    if into is not None and (into.dtype is not g.dtype or not into.flags.c_contiguous):
        into = None
    return F.embedding_scatter(g, indices, weight_shape, padding_idx, into)


embedding.vjp(weight=_embedding_weight)


@primitive
def occurrences(xp, indices: Array):
    """How often each index [...] occurs among all of them: [..., 1]."""
    return xp.bincount(indices.reshape(-1))[indices][..., None]


@primitive
def embedding_scatter(xp, gradient: Array, indices: Array, size: tuple, padding_idx: int | None, into: Any = None):
    """A table of a size with each row of the gradient added at its index, except at the padding row.

    It is written into the array `into`, if one is given.
    """
    rows = gradient.reshape(indices.size, size[1])
    if into is None:
        into = xp.zeros(size, gradient.dtype)
    else:
        into.fill(0)
    return _without(placing.add_rows(xp, into, indices.reshape(-1), rows), padding_idx)


def _touched(gradient: Array, indices: Array, size: tuple, padding_idx: int | None, into: Any = None) -> int:
    """How many elements are added, and the time in which the table is cleared in such."""
    return gradient.size + size[0] * size[1] // 8


@compiled(embedding_scatter, work=2, sized_by=_touched, light=True, worth=8)
def _embedding_scatter(
    gradient: Array, indices: Array, size: tuple, padding_idx: int | None, into: Array | None = None
) -> Any:
    rows = gradient.reshape(indices.size, size[1])
    return _without(placing.sum_slices(rows, indices.reshape(-1), size, 0, into), padding_idx)


def _without(table: Any, padding_idx: int | None) -> Any:
    """The table with zeros in the padding row."""
    if padding_idx is not None and table is not NotImplemented:
        table[padding_idx] = 0
    return table


embedding_scatter.vjp(gradient=lambda F, g, indices, padding_idx: F.embedding_gather(g, indices, padding_idx))


@primitive
def embedding_gather(xp, table: Array, indices: Array, padding_idx: int | None):
    """The rows of a table by index, zeros for the padding index."""
    rows = table.take(indices, 0)
    if padding_idx is not None:
        rows *= (indices != padding_idx)[..., None]
    return rows


embedding_gather.vjp(
    table=lambda F, g, table_shape, indices, padding_idx: F.embedding_scatter(g, indices, table_shape, padding_idx)
)
