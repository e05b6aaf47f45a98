"""Distances between vectors."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.variable import box
from ...runtime import device as devices
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import indexing, norms, reduction, shaping
from ...tensor.ops import pointwise as pw


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """sum(x1 * x2) / (max(|x1|, eps) * max(|x2|, eps)) along dim.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.cosine_similarity(torch.ones(1, 2), torch.ones(1, 2))
        tensor([1.0000])
    """
    x1, x2 = shaping.broadcast_tensors(x1, x2)
    lengths = [pw.clamp(reduction.euclidean(x, dim, True), eps) for x in (x1, x2)]
    return reduction.sum(ar.mul(ar.true_divide(x1, lengths[0]), ar.true_divide(x2, lengths[1])), dim)


def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """The p-norm of x1 - x2 + eps over the last dimension.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.pairwise_distance(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([5.0000])
    """
    return norms.vector_norm(ar.add(ar.sub(x1, x2), eps), p, -1, keepdim)


def pdist(input: Any, p: float = 2.0) -> Any:
    """The p-norm distances between all pairs of rows of [n, k], in the order (0, 1), (0, 2), ...: [n * (n-1) / 2].

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.pdist(torch.tensor([[0.0], [1.0], [3.0]]))
        tensor([1., 3., 2.])
    """
    if input.array.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.array.ndim}D")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    pairs = (box(devices.move(x, input.device)) for x in numpy.triu_indices(len(input.array), 1))
    first, second = (indexing.index_select_rows(input, rows, 0) for rows in pairs)
    differences = ar.sub(first, second)
    if not differences.array.shape[1]:
        return reduction.sum(differences, 1)
    return norms.vector_norm(differences, p, 1)
