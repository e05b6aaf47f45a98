"""Sources of attention without the matrix of all weights: blocks of keys against tiles of queries, in the cache.

A tile of queries lies transposed, queries side by side, so that what softmax does for each query is done for a vector
of queries, and every product has the form of `product`. Maximum and sum of a query's weights so far are corrected as
blocks go by (Milakov and Gimelshein, Online normalizer calculation for softmax, 2018); backward computes the weights
anew from the logarithm of their sum (Dao et al., FlashAttention, 2022).
"""

from __future__ import annotations

import functools

import numba
import numpy as np
from numba import types

from .approximations import exp, log
from .compiler import jit, prange, serial
from .products import product
from .tiles import VECTOR_BYTES

QUERIES = 64  # of a tile: a multiple of every vector's length
KEYS = 128  # of a block


@serial
def _steps(x):
    """How many elements of memory lie between neighbours along each dimension."""
    size = x.itemsize
    return x.strides[0] // size, x.strides[1] // size, x.strides[2] // size, x.strides[3] // size


@serial
def _scores(k, b, h, k0, kn, queries, i0, count, mask, masked, causal, scores):
    """scores[key, query] of one block and one tile."""
    s0, s1, s2, s3 = _steps(k)
    for j in range(kn * QUERIES):
        scores[j] = 0
    product(k, b * s0 + h * s1 + k0 * s2, s2, s3, queries, 0, QUERIES, scores, 0, QUERIES, kn, QUERIES, k.shape[3])
    if masked:
        for r in range(kn):
            for i in range(count):
                scores[r * QUERIES + i] += mask[b, h, i0 + i, k0 + r]
    if causal and k0 + kn > i0:
        for r in range(kn):
            for i in range(max(0, min(QUERIES, k0 + r - i0))):
                scores[r * QUERIES + i] = -np.inf


@serial
def _load_tile(x, b, h, i0, count, scale, tile):
    """tile[feature, query]; zeros for what the last tile lacks."""
    for d in range(x.shape[3]):
        for i in range(count):
            tile[d * QUERIES + i] = x[b, h, i0 + i, d] * scale
        for i in range(count, QUERIES):
            tile[d * QUERIES + i] = 0


@serial
def _visible(i0, length, keys, causal):
    """How many keys the queries of a tile may look at."""
    return min(keys, i0 + QUERIES) if causal else keys


@serial
def _forward_tile(q, k, v, mask, masked, causal, scale, out, sums, b, h, i0, queries, scores, total, of_query):
    length, keys, width = q.shape[2], k.shape[2], v.shape[3]
    kind = q.dtype.type
    count = min(QUERIES, length - i0)
    norm, peak, base, factor = of_query
    _load_tile(q, b, h, i0, count, scale, queries)
    for j in range(width * QUERIES):
        total[j] = 0
    for i in range(QUERIES):
        norm[i] = 0
        peak[i] = -np.inf
    s0, s1, s2, s3 = _steps(v)
    end = _visible(i0, length, keys, causal)
    for k0 in range(0, end, KEYS):
        kn = min(KEYS, end - k0)
        _scores(k, b, h, k0, kn, queries, i0, count, mask, masked, causal, scores)
        for i in range(QUERIES):
            factor[i] = peak[i]
        for r in range(kn):
            for i in range(QUERIES):
                s = scores[r * QUERIES + i]
                peak[i] = s if s > peak[i] else peak[i]
        for i in range(QUERIES):
            base[i] = peak[i] if peak[i] > -np.inf else kind(0)
            factor[i] = exp(factor[i] - base[i])
            norm[i] *= factor[i]
        for r in range(kn):
            for i in range(QUERIES):
                e = exp(scores[r * QUERIES + i] - base[i])
                scores[r * QUERIES + i] = e
                norm[i] += e
        if k0:
            for d in range(width):
                for i in range(QUERIES):
                    total[d * QUERIES + i] *= factor[i]
        product(v, b * s0 + h * s1 + k0 * s2, s3, s2, scores, 0, QUERIES, total, 0, QUERIES, width, QUERIES, kn)
    for i in range(count):
        if norm[i] == 0:  # it may look at nothing
            sums[b, h, i0 + i] = np.inf
            norm[i] = 1
        else:
            sums[b, h, i0 + i] = peak[i] + log(norm[i])
        share = kind(1) / norm[i]
        for d in range(width):
            out[b, h, i0 + i, d] = total[d * QUERIES + i] * share


def _forward(q, k, v, mask, masked, causal, scale, out, sums):
    """sums[batch, head, query] gets the logarithm of the sum of exp(scores)."""
    batch, heads, length, features = q.shape
    tiles = (length + QUERIES - 1) // QUERIES
    pairs = (tiles + 1) // 2  # an early and a late tile together: with the causal mask the late ones take longer
    for job in prange(batch * heads * pairs):
        b, h, first = job // (pairs * heads), job // pairs % heads, job % pairs
        queries, scores = np.empty(features * QUERIES, q.dtype), np.empty(KEYS * QUERIES, q.dtype)
        total, more = np.empty(v.shape[3] * QUERIES, q.dtype), np.empty((4, QUERIES), q.dtype)
        of_query = (more[0], more[1], more[2], more[3])  # sum of weights, largest score, the same or 0, correction
        last = tiles - 1 - first
        for t in range(first, last + 1, max(last - first, 1)):
            _forward_tile(
                q, k, v, mask, masked, causal, scale, out, sums, b, h, t * QUERIES, queries, scores, total, of_query
            )


@serial
def _transpose(tile, count, padded, rows):
    """rows[query, feature] of tile[feature, query]."""
    for i in range(QUERIES):
        for d in range(count):
            rows[i * padded + d] = tile[d * QUERIES + i]
        for d in range(count, padded):
            rows[i * padded + d] = 0


@serial
def _weigh(scores, slopes, kn, sums, delta):
    """Scores become weights, and slopes of weights become those of scores."""
    for r in range(kn):
        for i in range(QUERIES):
            e = exp(scores[r * QUERIES + i] - sums[i])
            scores[r * QUERIES + i] = e
            slopes[r * QUERIES + i] = e * (slopes[r * QUERIES + i] - delta[i])


@serial
def _backward_head(g, q, k, v, mask, masked, causal, scale, out, sums, dq, dk, dv, b, h):
    _, _, length, features = q.shape
    _, _, keys, width = v.shape
    kind, dtype = q.dtype.type, q.dtype
    lanes = VECTOR_BYTES // q.itemsize
    features_padded, width_padded = -(-features // lanes) * lanes, -(-width // lanes) * lanes
    queries, gs = np.empty(features * QUERIES, dtype), np.empty(width * QUERIES, dtype)
    query_rows, g_rows = np.empty(features_padded * QUERIES, dtype), np.empty(width_padded * QUERIES, dtype)
    scores, slopes = np.empty(KEYS * QUERIES, dtype), np.empty(KEYS * QUERIES, dtype)
    tile_sums, delta = np.empty(QUERIES, dtype), np.empty(QUERIES, dtype)
    query_slopes = np.empty(features * QUERIES, dtype)
    key_slopes, value_slopes = np.zeros(keys * features_padded, dtype), np.zeros(keys * width_padded, dtype)
    k_batch, k_head, k_row, k_step = _steps(k)
    v_batch, v_head, v_row, v_step = _steps(v)
    for i0 in range(0, length, QUERIES):
        count = min(QUERIES, length - i0)
        _load_tile(q, b, h, i0, count, scale, queries)
        _load_tile(g, b, h, i0, count, kind(1), gs)
        _transpose(queries, features, features_padded, query_rows)
        _transpose(gs, width, width_padded, g_rows)
        for i in range(QUERIES):
            tile_sums[i] = sums[b, h, i0 + i] if i < count else np.inf
            delta[i] = 0
        for i in range(count):
            for d in range(width):
                delta[i] += g_rows[i * width_padded + d] * out[b, h, i0 + i, d]
        for j in range(features * QUERIES):
            query_slopes[j] = 0
        end = _visible(i0, length, keys, causal)
        for k0 in range(0, end, KEYS):
            kn = min(KEYS, end - k0)
            _scores(k, b, h, k0, kn, queries, i0, count, mask, masked, causal, scores)
            for j in range(kn * QUERIES):
                slopes[j] = 0
            at = b * v_batch + h * v_head + k0 * v_row
            product(v, at, v_row, v_step, gs, 0, QUERIES, slopes, 0, QUERIES, kn, QUERIES, width)
            _weigh(scores, slopes, kn, tile_sums, delta)
            step = width_padded
            product(scores, 0, QUERIES, 1, g_rows, 0, step, value_slopes, k0 * step, step, kn, step, QUERIES)
            step = features_padded
            product(slopes, 0, QUERIES, 1, query_rows, 0, step, key_slopes, k0 * step, step, kn, step, QUERIES)
            at = b * k_batch + h * k_head + k0 * k_row
            product(k, at, k_step, k_row, slopes, 0, QUERIES, query_slopes, 0, QUERIES, features, QUERIES, kn)
        for i in range(count):
            for d in range(features):
                dq[b, h, i0 + i, d] = query_slopes[d * QUERIES + i] * scale
    for j in range(keys):
        for d in range(features):
            dk[b, h, j, d] = key_slopes[j * features_padded + d]
        for d in range(width):
            dv[b, h, j, d] = value_slopes[j * width_padded + d]


def _backward(g, q, k, v, mask, masked, causal, scale, out, sums, dq, dk, dv):
    heads = q.shape[1]
    for job in prange(q.shape[0] * heads):
        _backward_head(g, q, k, v, mask, masked, causal, scale, out, sums, dq, dk, dv, job // heads, job % heads)


@functools.cache
def _signature(dtype):
    """The types of both functions' common arguments: arrays of any strides, so that one compilation serves all."""
    number = numba.from_dtype(dtype)
    given = types.Array(number, 4, "A", readonly=True)
    result, sums = types.Array(number, 4, "A"), types.Array(number, 3, "C")
    return given, result, (given, given, given, given, types.boolean, types.boolean, number, result, sums)


@functools.cache
def forward(dtype):
    """`_forward` for a dtype."""
    _, _, arguments = _signature(dtype)
    return jit(arguments)(_forward)


@functools.cache
def backward(dtype):
    """`_backward` for a dtype."""
    given, result, arguments = _signature(dtype)
    return jit((given, *arguments, result, result, result))(_backward)
