"""Attention."""

from __future__ import annotations

import math
from typing import Any

from ...tensor import creation
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import indexing, linalg, shaping
from ...tensor.ops.attention import attention
from ...tensor.ops.softmax import softmax
from .dropout import dropout
from .linear import linear


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
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
        enable_gqa: keys and values have fewer heads (dimension -3), each of which serves several of the query's.

    Source: Vaswani et al., Attention Is All You Need, 2017.

    Example:
        >>> import paceline as torch
        >>> q = torch.ones(1, 3, 2)
        >>> torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).shape
        paceline.Size([1, 3, 2])
    """
    if enable_gqa:
        key, value = _shared_heads(query, key), _shared_heads(query, value)
    q, k, v = query.array.shape, key.array.shape, value.array.shape
    if min(len(q), len(k), len(v)) < 2 or q[-1] != k[-1] or k[-2] != v[-2]:
        raise RuntimeError(
            "scaled_dot_product_attention(): expected query [..., length, features], key [..., source, features] and "
            f"value [..., source, value features], got {list(q)}, {list(k)} and {list(v)}"
        )
    if is_causal and attn_mask is not None:
        raise RuntimeError("scaled_dot_product_attention(): attn_mask must not be given with is_causal=True")
    scale = 1 / math.sqrt(q[-1]) if scale is None else scale
    if not dropout_p and _uniform(query, key, value, attn_mask):
        return attention(query, key, value, attn_mask, is_causal, scale)
    if is_causal:
        attn_mask = creation.ones(q[-2], k[-2], dtype="bool", device=query.device).tril()
    scores = linalg.matmul(ar.mul(query, scale), shaping.transpose(key, -2, -1))
    if attn_mask is not None:
        if attn_mask.array.dtype.kind == "b":
            scores = indexing.masked_fill(scores, attn_mask.logical_not(), -math.inf)
        else:
            scores = ar.add(scores, attn_mask)
    weights = softmax(scores, -1)
    if dropout_p:
        weights = dropout(weights, dropout_p)
    return linalg.matmul(weights, value)


def _uniform(query: Any, key: Any, value: Any, mask: Any) -> bool:
    """Whether all are of one floating dtype and one batch shape, as the operation wants them."""
    q, k, v = query.array, key.array, value.array
    return (
        q.dtype.kind in "fV"
        and k.dtype == v.dtype == q.dtype
        and k.shape[:-2] == v.shape[:-2] == q.shape[:-2]
        and (mask is None or mask.array.dtype in (q.dtype, bool))
        and (mask is None or mask.array.ndim <= q.ndim)
    )


def _shared_heads(query: Any, x: Any) -> Any:
    """Each head of x repeated for the heads of the query that it serves."""
    heads, have = query.shape[-3], x.shape[-3]
    if heads % have:
        raise RuntimeError(
            f"scaled_dot_product_attention(): with enable_gqa the query's {heads} heads must be a multiple of the "
            f"{have} of key and value"
        )
    x = x.unsqueeze(-3).expand(*x.shape[:-2], heads // have, *x.shape[-2:])
    return x.reshape(*x.shape[:-4], heads, *x.shape[-2:])


def multi_head_attention_forward(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Any, Any]:
    """Attention of several heads on projections of query, key and value, and the projection of their outputs.

    Args:
        query: [length, n, embed_dim] or [length, embed_dim].
        key, value: [source, n, features] or [source, features].
        embed_dim_to_check: features of the query.
        num_heads: parts of the features that attend separately.
        in_proj_weight, in_proj_bias: [3 * embed_dim, embed_dim] and [3 * embed_dim], or None with separate weights.
        bias_k, bias_v: [1, 1, embed_dim], a key and a value to append to all sequences, or None.
        add_zero_attn: append a key and a value of zeros.
        dropout_p: probability of a zero in the attention weights in training.
        out_proj_weight, out_proj_bias: of the output's projection.
        key_padding_mask: [n, source]: True, or -inf, for keys to ignore.
        need_weights: return the attention weights, too.
        attn_mask: [length, source] or [n * num_heads, length, source]: True for pairs to ignore, or numbers to add.
        use_separate_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight: projections of different sizes.
        static_k, static_v: [n * num_heads, source, head features], in place of the projected key and value.
        average_attn_weights: weights averaged over heads.
        is_causal: says that attn_mask is the causal mask, which must be given.

    Returns:
        The output, as the query, and weights [n, length, source] or [n, num_heads, length, source], or None.
    """
    batched = query.ndim == 3
    if not batched:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, n, embed_dim = query.shape
    _check_attention(query, key, value, embed_dim_to_check, num_heads, attn_mask, is_causal)
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        weights = shaping.chunk(in_proj_weight, 3)
    biases = (None, None, None) if in_proj_bias is None else shaping.chunk(in_proj_bias, 3)
    q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    if bias_k is not None:
        k, v = shaping.cat([k, bias_k.expand(1, n, -1)]), shaping.cat([v, bias_v.expand(1, n, -1)])
    q, k, v = (_by_head(x, n * num_heads) for x in (q, k, v))  # [n * heads, length or source, head features]
    k, v = k if static_k is None else static_k, v if static_v is None else static_v
    if add_zero_attn:
        k, v = (shaping.cat([x, x.new_zeros(x.shape[0], 1, x.shape[2])], 1) for x in (k, v))
    source = k.shape[1]
    appended = bias_k is not None or add_zero_attn
    causal = is_causal and key_padding_mask is None and not need_weights and not appended
    if causal:
        attn_mask = None  # said to be the causal one, which attention knows without it
    mask = _joined_mask(attn_mask, key_padding_mask, n, num_heads, length, source, q.dtype)
    attention_weights = None
    if need_weights:
        scores = linalg.matmul(q * (1 / math.sqrt(q.shape[-1])), k.transpose(1, 2))
        attention_weights = softmax(scores if mask is None else scores + mask, -1)
        attention_weights = dropout(attention_weights, dropout_p, training)
        heads = linalg.matmul(attention_weights, v)  # [n * heads, length, head features]
    else:
        heads = scaled_dot_product_attention(q, k, v, mask, dropout_p if training else 0.0, causal)
    output = linear(heads.transpose(0, 1).reshape(length, n, embed_dim), out_proj_weight, out_proj_bias)
    shown = None
    if attention_weights is not None:
        shown = attention_weights.reshape(n, num_heads, length, source)
        shown = shown.mean(1) if average_attn_weights else shown
    if not batched:
        output, shown = output.squeeze(1), None if shown is None else shown.squeeze(0)
    return output, shown


def _check_attention(
    query: Any, key: Any, value: Any, embed_dim: int, num_heads: int, attn_mask: Any, is_causal: bool
) -> None:
    name = "multi_head_attention_forward"
    if query.shape[2] != embed_dim:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim}, but got {query.shape[2]}")
    if embed_dim % num_heads:
        raise AssertionError(f"embed_dim {embed_dim} not divisible by num_heads {num_heads}")
    if key.shape[:2] != value.shape[:2] or key.shape[1] != query.shape[1]:
        raise RuntimeError(
            f"{name}(): key {list(key.shape)} and value {list(value.shape)} must agree in length and batch, and in "
            f"batch with the query {list(query.shape)}"
        )
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint.")


def _by_head(x: Any, rows: int) -> Any:
    """[length, n, features] as [n * heads, length, head features]."""
    return x.reshape(x.shape[0], rows, -1).transpose(0, 1)


def _joined_mask(
    attn_mask: Any, key_padding_mask: Any, n: int, num_heads: int, length: int, source: int, dtype: Any
) -> Any:
    """Both masks as numbers to add to scores [n * heads, length, source], for keys appended since as well."""
    mask = None
    if attn_mask is not None:
        mask = _as_addend(attn_mask, source, dtype)
        if tuple(mask.shape[-2:]) != (length, source) or (mask.ndim == 3 and mask.shape[0] != n * num_heads):
            raise RuntimeError(
                f"The shape of the {mask.ndim}D attn_mask is {list(attn_mask.shape)}, but should be {[length, source]} "
                f"or {[n * num_heads, length, source]}."
            )
    if key_padding_mask is not None:
        padding = _as_addend(key_padding_mask, source, dtype)
        if tuple(padding.shape) != (n, source):
            raise AssertionError(f"expecting key_padding_mask shape of {(n, source)}, but got {list(padding.shape)}")
        padding = padding.reshape(n, 1, 1, source).expand(n, num_heads, 1, source).reshape(n * num_heads, 1, source)
        mask = padding if mask is None else mask + padding
    return mask


def _as_addend(mask: Any, source: int, dtype: Any) -> Any:
    """A mask as numbers to add, with zeros for keys that were appended."""
    if mask.array.dtype.kind == "b":
        mask = creation.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)
    missing = source - mask.shape[-1]
    if missing > 0:
        mask = shaping.cat([mask, mask.new_zeros(*mask.shape[:-1], missing)], -1)
    return mask
