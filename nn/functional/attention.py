"""Attention."""

from __future__ import annotations

import math
from typing import Any

from ...tensor import creation
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import indexing, linalg, shaping
from ...tensor.ops.softmax import softmax
from .dropout import dropout


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Any:
    """softmax(query @ key^T * scale + mask) @ value.

    Args:
        query: [..., length, features].
        key: [..., source length, features].
        value: [..., source length, value features].
        attn_mask: broadcasts to [..., length, source length]; True means that the query may look there, floating
            numbers are added to the scores.
        dropout_p: probability of a zero in the attention weights; applied whenever it is not 0.
        is_causal: whether query i may only look at keys 0 ... i.
        scale: 1 / sqrt(features) if None.

    Source: Vaswani et al., Attention Is All You Need, 2017.

    Example:
        >>> import paceline as torch
        >>> q = torch.ones(1, 3, 2)
        >>> torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).shape
        paceline.Size([1, 3, 2])
    """
    q, k, v = query.array.shape, key.array.shape, value.array.shape
    if min(len(q), len(k), len(v)) < 2 or q[-1] != k[-1] or k[-2] != v[-2]:
        raise RuntimeError(
            "scaled_dot_product_attention(): expected query [..., length, features], key [..., source, features] and "
            f"value [..., source, value features], got {list(q)}, {list(k)} and {list(v)}"
        )
    if is_causal:
        if attn_mask is not None:
            raise RuntimeError("scaled_dot_product_attention(): attn_mask must not be given with is_causal=True")
        attn_mask = creation.ones(q[-2], k[-2], dtype="bool", device=query.device).tril()
    scaled = ar.mul(query, 1 / math.sqrt(q[-1]) if scale is None else scale)
    scores = linalg.matmul(scaled, shaping.transpose(key, -2, -1))
    if attn_mask is not None:
        if attn_mask.array.dtype.kind == "b":
            scores = indexing.masked_fill(scores, attn_mask.logical_not(), -math.inf)
        else:
            scores = ar.add(scores, attn_mask)
    weights = softmax(scores, -1)
    if dropout_p:
        weights = dropout(weights, dropout_p)
    return linalg.matmul(weights, value)
