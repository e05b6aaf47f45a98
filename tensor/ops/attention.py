"""Attention as one operation."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...autograd.variable import Variable, box
from ...runtime.arrays import Array, module_of
from ..kernels import compiled, sources, takes
from . import few
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


@functools.lru_cache(maxsize=64)
def _ahead(length: int, source: int, dtype: Any) -> numpy.ndarray:
    """What hides keys from the queries before them when it is added to scores; not to be written into."""
    return numpy.where(numpy.tri(length, source, dtype=bool), 0, -math.inf).astype(dtype)


def _few_attention(
    query: numpy.ndarray, key: numpy.ndarray, value: numpy.ndarray, mask: Any, causal: bool, scale: float
) -> Any:
    """Keeps the weights, which are few."""
    rows, source = query.size // query.shape[-1] if query.size else 0, key.shape[-2]
    if mask is not None or not 0 < rows * source <= few.MOST or not few.is_few(value):
        return NotImplemented
    weights = numpy.matmul(query * scale, key.swapaxes(-2, -1))
    if causal:
        weights += _ahead(*weights.shape[-2:], weights.dtype)
    table = weights.reshape(rows, source)
    table -= few.row_peaks(table)[:, None]
    numpy.exp(table, table)
    table /= table.dot(few.ones(table, source))[:, None]
    return numpy.matmul(weights, value), (weights,)


def _few_gradients(g: Any, query: Any, key: Any, value: Any, weights: Any, scale: float) -> tuple:
    slopes = numpy.matmul(g, value.swapaxes(-2, -1))
    slopes *= weights
    source = weights.shape[-1]
    totals = slopes.reshape(-1, source).dot(few.ones(slopes, source)).reshape((*slopes.shape[:-1], 1))
    slopes -= weights * totals
    slopes *= scale
    of_key, of_value = (numpy.matmul(w.swapaxes(-2, -1), x) for w, x in ((slopes, query), (weights, g)))
    return numpy.matmul(slopes, key), of_key, of_value, None


@compiled(attention, few=_few_attention)
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


@attention.fused_vjp("cpu")
def _compiled_attention_gradients(
    xp: Any,
    g: numpy.ndarray,
    needs: tuple,
    query: numpy.ndarray,
    key: numpy.ndarray,
    value: numpy.ndarray,
    mask: Any,
    out: numpy.ndarray,
    sums: Any,
    causal: bool,
    scale: float,
) -> Any:
    if type(sums) is tuple:
        return _few_gradients(g, query, key, value, sums[0], scale)
    if needs[3] or not (key.size and value.size) or not takes(g):
        return NotImplemented
    given = tuple(map(_four_dims, (query, key, value)))
    slopes = tuple(map(numpy.empty_like, given))
    masking = (_addend(mask, query, key), mask is not None, causal, scale)
    results = (_four_dims(out), sums.reshape(given[0].shape[:-1]))
    sources.attention.backward(g.dtype)(_four_dims(g), *given, *masking, *results, *slopes)
    return (*(s.reshape(x.shape) for s, x in zip(slopes, (query, key, value), strict=True)), None)
