"""Rows of a table by index."""

from __future__ import annotations

from typing import Any

import numpy

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
    F: Any, g: Any, weight_shape: tuple, indices: Any, padding_idx: int | None, scale_grad_by_freq: bool
) -> Any:
    if scale_grad_by_freq:
        g = g / F.occurrences(indices)
    return F.embedding_scatter(g, indices, weight_shape, padding_idx)


embedding.vjp(weight=_embedding_weight)


@primitive
def occurrences(xp, indices: Array):
    """How often each index [...] occurs among all of them: [..., 1]."""
    return xp.bincount(indices.reshape(-1))[indices][..., None]


@primitive
def embedding_scatter(xp, gradient: Array, indices: Array, size: tuple, padding_idx: int | None):
    """A table of a size with each row of the gradient added at its index, except at the padding row."""
    rows = gradient.reshape(indices.size, size[1])
    return _without(placing.add_rows(xp, xp.zeros(size, gradient.dtype), indices.reshape(-1), rows), padding_idx)


@compiled(embedding_scatter, work=2, light=True, worth=8)
def _embedding_scatter(gradient: Array, indices: Array, size: tuple, padding_idx: int | None) -> Any:
    rows = gradient.reshape(indices.size, size[1])
    return _without(placing.add_slices(numpy.zeros(size, rows.dtype), rows, indices.reshape(-1), 0), padding_idx)


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
