"""Attention as one operation."""

from __future__ import annotations

import math
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...autograd.variable import Variable, box
from ...runtime.arrays import Array, module_of
from ..kernels import compiled, compiled_vjp, sources
from .softmax import largest


@primitive(residuals=("sums",))
def attention(
    xp, query: Array, key: Array, value: Array, mask: Array | None = None, causal: bool = False, scale: float = 1.0
):
    """softmax(query @ key^T * scale + mask) @ value; 0 where a query may look at nothing.

    Args:
        query: [..., length, features].
        key: [..., source, features].
        value: [..., source, value features].
        mask: broadcasts to [..., length, source]; True means that the query may look there, floating numbers are added
            to the scores.
        causal: whether query i may only look at keys 0 ... i.
        scale: of the scores.
    """
    scores = xp.matmul(query * scale, key.swapaxes(-2, -1))
    if mask is not None and mask.dtype != bool:
        scores += mask
    seen = _seen(xp, mask, causal, scores.shape)
    if seen is not None:
        scores = xp.where(seen, scores, xp.asarray(-math.inf, scores.dtype))
    peaks = largest(xp, scores, -1)
    peaks[xp.isneginf(peaks)] = 0
    scores -= peaks
    weights = xp.exp(scores, out=scores)
    totals = weights.sum(-1, keepdims=True)
    totals[totals == 0] = 1
    weights /= totals
    out = xp.matmul(weights, value).astype(query.dtype, copy=False)  # of bfloat16 NumPy makes float32
    return out, (peaks + xp.log(totals))[..., 0]


def _seen(xp: Any, mask: Any, causal: bool, shape: tuple) -> Any:
    """Where queries may look, broadcast to scores of a shape; None for everywhere."""
    seen = xp.tri(*shape[-2:], dtype=bool) if causal else None
    if mask is not None:
        where = mask if mask.dtype == bool else mask != -math.inf
        seen = where if seen is None else seen & where
    return seen


@attention.joint_vjp
def _attention_gradients(
    F: Any, g: Any, needs: tuple, query: Any, key: Any, value: Any, mask: Any, causal: bool, scale: float
) -> tuple:
    scores = F.matmul_nd(query * scale, F.transpose(key, -2, -1))
    recorded = isinstance(g, Variable)
    given = mask.array if recorded and mask is not None else mask
    if given is not None and given.dtype != bool:
        scores = scores + mask
    shape, dtype, xp = (scores.shape, (g.array if recorded else g).dtype, module_of(g.array if recorded else g))
    seen = _seen(xp, given, causal, tuple(shape))
    if seen is None:
        weights = F.softmax(scores, -1)
    else:  # hidden scores are constants: -inf, but 0 in rows that see nothing, whose softmax would be nan
        hidden = ~seen
        low = xp.where(hidden & seen.any(-1, keepdims=True), -math.inf, 0).astype(dtype)
        hidden, low, seen = (box(x) if recorded else x for x in (hidden, low, seen.astype(dtype)))
        weights = F.softmax(F.fill_where(scores, hidden, 0.0) + low, -1) * seen
    slopes = weights * F.matmul_nd(g, F.transpose(value, -2, -1))
    slopes = slopes - weights * F.sum(slopes, -1, True)
    return (
        F.matmul_nd(slopes, key) * scale if needs[0] else None,
        F.matmul_nd(F.transpose(slopes, -2, -1), query) * scale if needs[1] else None,
        F.matmul_nd(F.transpose(weights, -2, -1), g) if needs[2] else None,
        F.sum_to_size(slopes, tuple(mask.shape)) if needs[3] else None,
    )


def _four_dims(x: numpy.ndarray) -> numpy.ndarray:
    """[batch, heads, ...] of an array with fewer or more dimensions before the last two."""
    if x.ndim == 4:
        return x
    return x.reshape(-1, *x.shape[-3:]) if x.ndim > 4 else x[(None,) * (4 - x.ndim)]


def _addend(mask: Any, query: numpy.ndarray, key: numpy.ndarray) -> numpy.ndarray:
    """The mask as numbers to add to scores [batch, heads, length, source]; without one nothing is read of it."""
    if mask is None:
        return numpy.empty((1, 1, 1, 1), query.dtype)
    if mask.dtype == bool:
        mask = numpy.where(mask, 0, -math.inf)
    shape = (*query.shape[:-1], key.shape[-2])
    return _four_dims(numpy.broadcast_to(mask.astype(query.dtype, copy=False), shape))


@compiled(attention)
def _compiled_attention(
    query: numpy.ndarray, key: numpy.ndarray, value: numpy.ndarray, mask: Any, causal: bool, scale: float
) -> Any:
    if not (key.size and value.size) or query.ndim < 2:
        return NotImplemented
    q, k, v = map(_four_dims, (query, key, value))
    out = numpy.empty_like(q) if v.shape[-1] == q.shape[-1] else numpy.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    sums = numpy.empty(q.shape[:-1], q.dtype)
    masking = (_addend(mask, query, key), mask is not None, causal, scale)
    sources.attention.forward(q.dtype)(q, k, v, *masking, out, sums)
    return out.reshape(*query.shape[:-1], out.shape[-1]), sums.reshape(query.shape[:-1])


@compiled_vjp(attention)
def _compiled_attention_gradients(
    xp: Any,
    g: numpy.ndarray,
    needs: tuple,
    query: numpy.ndarray,
    key: numpy.ndarray,
    value: numpy.ndarray,
    mask: Any,
    out: numpy.ndarray,
    sums: numpy.ndarray,
    causal: bool,
    scale: float,
) -> Any:
    if needs[3] or not (key.size and value.size):
        return NotImplemented
    given = tuple(map(_four_dims, (query, key, value)))
    slopes = tuple(map(numpy.empty_like, given))
    masking = (_addend(mask, query, key), mask is not None, causal, scale)
    results = (_four_dims(out), sums.reshape(given[0].shape[:-1]))
    sources.attention.backward(g.dtype)(_four_dims(g), *given, *masking, *results, *slopes)
    return (*(s.reshape(x.shape) for s, x in zip(slopes, (query, key, value), strict=True)), None)
