"""Sources of matrix products: what stays in registers, what stays in the cache.

Numba's loops leave the choice of registers to LLVM, which spills them; `product_tile` writes the vector instructions
down. Around it the blocks are those of Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
All blocks are cut by size, so that results do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .compiler import jit, prange, serial
from .tiles import copy_row

_FEATURES = binding.get_host_cpu_features()
_VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx2") else 16
TILE_ROWS = 8 if _VECTOR_BYTES == 64 else 4


def _lanes(kind):
    return _VECTOR_BYTES * 8 // kind.bitwidth


@intrinsic(prefer_literal=True)
def product_tile(_, a, a0, a_row, a_step, depth, b, b0, b_step, start, s0, s_row, out, o0, o_row, rows, vectors):
    """out[o0 + r * o_row + q] = start[s0 + r * s_row + q] + sum over k < depth of a[a0 + r * a_row + k * a_step] *
    b[b0 + k * b_step + q] for a tile of rows x vectors, whose sums stay in registers."""
    height, width = rows.literal_value, vectors.literal_value

    def generate(context, builder, signature, args):
        a, a0, a_row, a_step, depth, b, b0, b_step, start, s0, s_row, out, o0, o_row, _, _ = args
        scalar = context.get_data_type(signature.args[5].dtype)
        lanes = _lanes(signature.args[5].dtype)
        vector = ir.VectorType(scalar, lanes)
        kinds = signature.args

        def number(n):
            return ir.Constant(ir.IntType(64), n)

        def address(position, array, index):
            return builder.gep(context.make_array(kinds[position])(context, builder, array).data, [index])

        def place(pointer, v):
            return builder.bitcast(builder.gep(pointer, [number(v * lanes)]), vector.as_pointer())

        align = kinds[5].dtype.bitwidth // 8
        factors = [builder.gep(address(0, a, a0), [builder.mul(a_row, number(r))]) for r in range(height)]
        origins = [builder.gep(address(8, start, s0), [builder.mul(s_row, number(r))]) for r in range(height)]
        results = [builder.gep(address(11, out, o0), [builder.mul(o_row, number(r))]) for r in range(height)]
        right = address(5, b, b0)
        sums = [
            [cgutils.alloca_once_value(builder, builder.load(place(p, v), align=align)) for v in range(width)]
            for p in origins
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

    return (
        types.void(a, a0, a_row, a_step, depth, b, b0, b_step, start, s0, s_row, out, o0, o_row, rows, vectors),
        generate,
    )


def lanes_of(x):
    raise NotImplementedError


@overload(lanes_of, inline="always")
def _compilelanes_of(x):
    lanes = _lanes(x.dtype)
    return lambda x: lanes


@serial
def product(a, a0, a_row, a_step, b, b0, b_step, out, o0, o_row, m, n, depth):
    """Add to out[o0 + r * o_row + q] the sum over k < depth of a[a0 + r * a_row + k * a_step] * b[b0 + k * b_step + q],
    for r < m and q < n; n is a multiple of a vector's length. Indices count elements of the memory."""
    lanes = lanes_of(b)
    q = 0
    while q + 2 * lanes <= n:
        r = 0
        while r + TILE_ROWS <= m:
            left, place = a0 + r * a_row, o0 + r * o_row + q
            product_tile(
                a, left, a_row, a_step, depth, b, b0 + q, b_step, out, place, o_row, out, place, o_row, TILE_ROWS, 2
            )
            r += TILE_ROWS
        while r < m:
            left, place = a0 + r * a_row, o0 + r * o_row + q
            product_tile(a, left, a_row, a_step, depth, b, b0 + q, b_step, out, place, o_row, out, place, o_row, 1, 2)
            r += 1
        q += 2 * lanes
    if q < n:
        for r in range(m):
            left, place = a0 + r * a_row, o0 + r * o_row + q
            product_tile(a, left, a_row, a_step, depth, b, b0 + q, b_step, out, place, o_row, out, place, o_row, 1, 1)


@intrinsic
def _transpose_square(_, a, a0, a_row, out, o0, o_row):
    """out[o0 + j * o_row + i] = a[a0 + i * a_row + j] for i, j < lanes, by interleaving halves of the rows again and
    again: a perfect shuffle rotates the bits of an index."""

    def generate(context, builder, signature, args):
        a, a0, a_row, out, o0, o_row = args
        kind = signature.args[0].dtype
        lanes, align = _lanes(kind), kind.bitwidth // 8
        vector = ir.VectorType(context.get_data_type(kind), lanes)
        source, target = (
            builder.gep(context.make_array(t)(context, builder, x).data, [start])
            for t, x, start in ((signature.args[0], a, a0), (signature.args[3], out, o0))
        )

        def line(pointer, step, i):
            step = builder.mul(step, ir.Constant(ir.IntType(64), i))
            return builder.bitcast(builder.gep(pointer, [step]), vector.as_pointer())

        rows = [builder.load(line(source, a_row, i), align=align) for i in range(lanes)]
        half = lanes // 2
        merged = [[start + n // 2 + lanes * (n % 2) for n in range(lanes)] for start in (0, half)]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), lanes), indices) for indices in merged]
        for _ in range(lanes.bit_length() - 1):
            rows = [builder.shuffle_vector(rows[i], rows[i + half], mask) for i in range(half) for mask in masks]
        for i, row in enumerate(rows):
            builder.store(row, line(target, o_row, i), align=align)
        return context.get_dummy_value()

    return types.void(a, a0, a_row, out, o0, o_row), generate


DEPTH = 256  # of a block: a panel of b of that depth fills two thirds of the nearest cache
BLOCK_ROWS = 64
BLOCK_PANELS = 8
JOBS = 16
PACKED = 1 << 20  # elements of b packed at a time
PACKED_ROWS = 64  # of them by one job


@serial
def pack_panels(b, step, across, k0, k, depth, p0, count, columns, panels, packed):
    """panels[p * packed + k + i, q] = b[(k0 + k + i) * step + (p * width + q) * across] for i < depth and `count`
    panels from p0 on; zeros behind the last column."""
    lanes, width = lanes_of(b), 2 * lanes_of(b)
    first = (k0 + k) * step
    whole = min(count, columns // width - p0)
    if across == 1:
        for i in range(depth):
            for p in range(p0, p0 + whole):
                target, source = (p * packed + k + i) * width, first + i * step + p * width
                copy_row(b, source, 1, panels, target, 1, width)
    elif step == 1:
        square = depth // lanes * lanes
        for p in range(p0, p0 + whole):
            for q in range(0, width, lanes):
                source, target = first + (p * width + q) * across, (p * packed + k) * width + q
                for i in range(0, square, lanes):
                    _transpose_square(b, source + i, across, panels, target + i * width, width)
                for i in range(square, depth):
                    for n in range(lanes):
                        panels[target + i * width + n] = b[source + i + n * across]
    else:
        whole = 0
    for p in range(p0 + whole, p0 + count):
        for i in range(depth):
            for q in range(width):
                c = p * width + q
                panels[(p * packed + k + i) * width + q] = b[first + i * step + c * across] if c < columns else 0


@serial
def _pack_rows(a, a_row, a_step, first, rows, depth, block):
    """The rows in groups of TILE_ROWS, of which the last is filled with zeros: each as [TILE_ROWS, depth], or as
    [depth, TILE_ROWS] if rows lie side by side."""
    for group in range(0, rows, TILE_ROWS):
        count, start, place = min(TILE_ROWS, rows - group), first + group * a_row, group * depth
        if count < TILE_ROWS:
            for i in range(TILE_ROWS * depth):
                block[place + i] = 0
        if a_row == 1:
            for k in range(depth):
                copy_row(a, start + k * a_step, 1, block, place + k * TILE_ROWS, 1, count)
        elif a_step == 1:
            for r in range(count):
                copy_row(a, start + r * a_row, 1, block, place + r * depth, 1, depth)
        else:
            for r in range(count):
                for k in range(depth):
                    block[place + r * depth + k] = a[start + r * a_row + k * a_step]


@serial
def _multiply_panel(block, b_row, b_step, rows, panels, p0, width, depth, out, o0, o_row, columns, start, s0, edge):
    """out[o0 + r * o_row + c] = the product of a packed block and a packed panel, and start[s0 + c], for c < columns;
    with s0 < 0 it is added to what is there."""
    source = out if s0 < 0 else start
    for first in range(0, rows, TILE_ROWS):
        place = o0 + first * o_row
        if first + TILE_ROWS <= rows and columns == width:
            origin, step = (place, o_row) if s0 < 0 else (s0, 0)
            product_tile(
                block,
                first * depth,
                b_row,
                b_step,
                depth,
                panels,
                p0,
                width,
                source,
                origin,
                step,
                out,
                place,
                o_row,
                TILE_ROWS,
                2,
            )
            continue
        for i in range(TILE_ROWS * width):
            edge[i] = 0
        at = first * depth
        if columns > width // 2:
            product_tile(
                block, at, b_row, b_step, depth, panels, p0, width, edge, 0, width, edge, 0, width, TILE_ROWS, 2
            )
        else:
            product_tile(
                block, at, b_row, b_step, depth, panels, p0, width, edge, 0, width, edge, 0, width, TILE_ROWS, 1
            )
        for r in range(min(TILE_ROWS, rows - first)):
            for c in range(columns):
                old = out[place + r * o_row + c] if s0 < 0 else start[s0 + c]
                out[place + r * o_row + c] = old + edge[r * width + c]


@jit
def multiply(a, a_row, a_step, b, b_step, b_column, rows, columns, depth, bias, out):
    """out[r, c] = bias[c] + sum over k of a[r * a_row + k * a_step] * b[k * b_step + c * b_column]; all arrays flat. An
    empty bias is none."""
    width = 2 * lanes_of(b)
    total = (columns + width - 1) // width
    column_blocks = (total + BLOCK_PANELS - 1) // BLOCK_PANELS
    most, wanted = (rows + 15) // 16, (JOBS + column_blocks - 1) // column_blocks
    row_blocks = max((rows + BLOCK_ROWS - 1) // BLOCK_ROWS, min(most, wanted))
    block_rows = ((rows + row_blocks - 1) // row_blocks + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS
    at_once = max(DEPTH, PACKED // (total * width) // DEPTH * DEPTH)
    panels, start = np.empty(total * width * min(depth, at_once), b.dtype), np.zeros(total * width, b.dtype)
    for c in range(bias.size):
        start[c] = bias[c]
    for k0 in range(0, depth, at_once):
        packed = min(at_once, depth - k0)
        layers = (packed + PACKED_ROWS - 1) // PACKED_ROWS
        for job in prange(column_blocks * layers):
            p0, k = job // layers * BLOCK_PANELS, job % layers * PACKED_ROWS
            pack_panels(
                b,
                b_step,
                b_column,
                k0,
                k,
                min(PACKED_ROWS, packed - k),
                p0,
                min(BLOCK_PANELS, total - p0),
                columns,
                panels,
                packed,
            )
        for job in prange(row_blocks * column_blocks):
            r0, p0 = job // column_blocks * block_rows, job % column_blocks * BLOCK_PANELS
            count = max(0, min(block_rows, rows - r0))
            block, edge = np.empty(block_rows * DEPTH, b.dtype), np.empty(TILE_ROWS * width, b.dtype)
            slices = (packed + DEPTH - 1) // DEPTH
            for n in range(slices):
                k = n * packed // slices
                deep = (n + 1) * packed // slices - k
                _pack_rows(a, a_row, a_step, r0 * a_row + (k0 + k) * a_step, count, deep, block)
                block_row, block_step = (1, TILE_ROWS) if a_row == 1 else (deep, 1)
                for c in range(p0 * width, min(p0 + BLOCK_PANELS, total) * width, width):
                    _multiply_panel(
                        block,
                        block_row,
                        block_step,
                        count,
                        panels,
                        c * packed + k * width,
                        width,
                        deep,
                        out,
                        r0 * columns + c,
                        columns,
                        min(width, columns - c),
                        start,
                        -1 if k0 + k else c,
                        edge,
                    )
