"""Distances between vectors."""

from __future__ import annotations

from typing import Any

from ...tensor.ops import arithmetic as ar
from ...tensor.ops import pointwise as pw
from ...tensor.ops import reduction, shaping


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
