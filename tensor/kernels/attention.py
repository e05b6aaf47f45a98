"""Sources of attention without the matrix of all weights: blocks of keys against tiles of queries, in the cache.

A tile of queries lies transposed, queries side by side, so that what softmax does for each query is done for a vector of
them, and every product has the form of `product`. Maximum and sum of a query's weights so far are corrected as blocks
go by (Milakov and Gimelshein, Online normalizer calculation for softmax, 2018); backward computes the weights anew from
the logarithm of their sum (Dao et al., FlashAttention, 2022).
"""

from __future__ import annotations

import functools

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .approximations import exp, log
from .compiler import jit, prange, serial

QUERIES = 64  # of a tile: a multiple of every vector's length
KEYS = 128  # of a block

_FEATURES = binding.get_host_cpu_features()
_VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx2") else 16
_ROWS = 8 if _VECTOR_BYTES == 64 else 4


def _lanes(kind):
    return _VECTOR_BYTES * 8 // kind.bitwidth


@intrinsic(prefer_literal=True)
def _product_tile(_, a, a0, a_row, a_step, depth, b, b0, b_step, out, o0, o_row, add, rows, vectors):
    """`product` for a tile of rows x vectors, whose sums stay in registers."""
    height, width = rows.literal_value, vectors.literal_value

    def generate(context, builder, signature, args):
        a, a0, a_row, a_step, depth, b, b0, b_step, out, o0, o_row, add, _, _ = args
        scalar = context.get_data_type(signature.args[5].dtype)
        lanes = _lanes(signature.args[5].dtype)
        vector = ir.VectorType(scalar, lanes)
        kinds = signature.args

        def number(n):
            return ir.Constant(ir.IntType(64), n)

        def start(position, array, index):
            return builder.gep(context.make_array(kinds[position])(context, builder, array).data, [index])

        def place(pointer, v):
            return builder.bitcast(builder.gep(pointer, [number(v * lanes)]), vector.as_pointer())

        align = kinds[5].dtype.bitwidth // 8
        factors = [builder.gep(start(0, a, a0), [builder.mul(a_row, number(r))]) for r in range(height)]
        results = [builder.gep(start(8, out, o0), [builder.mul(o_row, number(r))]) for r in range(height)]
        right = start(5, b, b0)
        zero = ir.Constant(vector, None)
        sums = [
            [
                cgutils.alloca_once_value(builder, builder.select(add, builder.load(place(p, v), align=align), zero))
                for v in range(width)
            ]
            for p in results
        ]
        fma_type = ir.FunctionType(vector, (vector,) * 3)
        suffix = f"v{lanes}f{kinds[5].dtype.bitwidth}"
        fma = cgutils.get_or_insert_function(builder.module, fma_type, f"llvm.fmuladd.{suffix}")
        undefined = ir.Constant(vector, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        with cgutils.for_range(builder, depth) as loop:
            line = builder.gep(right, [builder.mul(loop.index, b_step)])
            values = [builder.load(place(line, v), align=align) for v in range(width)]
            along = builder.mul(loop.index, a_step)
            for row, pointer in zip(sums, factors, strict=True):
                factor = builder.load(builder.gep(pointer, [along]))
                spread = builder.insert_element(undefined, factor, ir.Constant(ir.IntType(32), 0))
                spread = builder.shuffle_vector(spread, undefined, everywhere)
                for total, value in zip(row, values, strict=True):
                    builder.store(builder.call(fma, [spread, value, builder.load(total)]), total)
        for row, pointer in zip(sums, results, strict=True):
            for v, total in enumerate(row):
                builder.store(builder.load(total), place(pointer, v), align=align)
        return context.get_dummy_value()

    return types.void(a, a0, a_row, a_step, depth, b, b0, b_step, out, o0, o_row, add, rows, vectors), generate


def _lanes_of(x):
    raise NotImplementedError


@overload(_lanes_of, inline="always")
def _compile_lanes_of(x):
    lanes = _lanes(x.dtype)
    return lambda x: lanes


@serial
def product(a, a0, a_row, a_step, b, b0, b_step, out, o0, o_row, m, n, depth, add):
    """out[o0 + r * o_row + q] = sum over k < depth of a[a0 + r * a_row + k * a_step] * b[b0 + k * b_step + q], or that
    added, for r < m and q < n; n is a multiple of a vector's length. Indices count elements of the memory."""
    lanes = _lanes_of(b)
    q = 0
    while q + 2 * lanes <= n:
        r = 0
        while r + _ROWS <= m:
            _product_tile(
                a,
                a0 + r * a_row,
                a_row,
                a_step,
                depth,
                b,
                b0 + q,
                b_step,
                out,
                o0 + r * o_row + q,
                o_row,
                add,
                _ROWS,
                2,
            )
            r += _ROWS
        while r < m:
            _product_tile(
                a, a0 + r * a_row, a_row, a_step, depth, b, b0 + q, b_step, out, o0 + r * o_row + q, o_row, add, 1, 2
            )
            r += 1
        q += 2 * lanes
    if q < n:
        for r in range(m):
            _product_tile(
                a, a0 + r * a_row, a_row, a_step, depth, b, b0 + q, b_step, out, o0 + r * o_row + q, o_row, add, 1, 1
            )


@serial
def _steps(x):
    """How many elements of memory lie between neighbours along each dimension."""
    size = x.itemsize
    return x.strides[0] // size, x.strides[1] // size, x.strides[2] // size, x.strides[3] // size


@serial
def _scores(k, b, h, k0, kn, queries, i0, count, mask, masked, causal, scores):
    """scores[key, query] of one block and one tile."""
    s0, s1, s2, s3 = _steps(k)
    product(
        k, b * s0 + h * s1 + k0 * s2, s2, s3, queries, 0, QUERIES, scores, 0, QUERIES, kn, QUERIES, k.shape[3], False
    )
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
        product(v, b * s0 + h * s1 + k0 * s2, s3, s2, scores, 0, QUERIES, total, 0, QUERIES, width, QUERIES, kn, True)
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
    length, features = q.shape[2:]
    keys, width = v.shape[2:]
    kind, dtype = q.dtype.type, q.dtype
    lanes = _lanes_of(q)
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
            product(
                v,
                b * v_batch + h * v_head + k0 * v_row,
                v_row,
                v_step,
                gs,
                0,
                QUERIES,
                slopes,
                0,
                QUERIES,
                kn,
                QUERIES,
                width,
                False,
            )
            _weigh(scores, slopes, kn, tile_sums, delta)
            product(
                scores,
                0,
                QUERIES,
                1,
                g_rows,
                0,
                width_padded,
                value_slopes,
                k0 * width_padded,
                width_padded,
                kn,
                width_padded,
                QUERIES,
                True,
            )
            product(
                slopes,
                0,
                QUERIES,
                1,
                query_rows,
                0,
                features_padded,
                key_slopes,
                k0 * features_padded,
                features_padded,
                kn,
                features_padded,
                QUERIES,
                True,
            )
            product(
                k,
                b * k_batch + h * k_head + k0 * k_row,
                k_step,
                k_row,
                slopes,
                0,
                QUERIES,
                query_slopes,
                0,
                QUERIES,
                features,
                QUERIES,
                kn,
                True,
            )
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
