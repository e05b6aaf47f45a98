"""Sources of matrix products: the blocks around the tiles, those of Goto and van de Geijn, Anatomy of High-Performance
Matrix Multiplication, 2008.

All blocks are cut by size, so that results do not depend on the number of threads. Arrays are flat, and indices count
elements of their memory. What can be computed once in Python is, and the smaller of two numbers is chosen in place
(Numba compiles every min() as a function), for what is written here is what a first training step waits for.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from .compiler import as_record, jit, prange, serial
from .tiles import PRODUCT_ROWS, PRODUCT_VECTORS, VECTOR_BYTES, apart, copy_row, product_tile, transpose_square


@serial
def product(a, a0, a_row, a_step, b, b0, b_step, out, o0, o_row, m, n, depth):
    """Add to out[o0 + r * o_row + q] the sum over k < depth of a[a0 + r * a_row + k * a_step] * b[b0 + k * b_step + q],
    for r < m and q < n; n is a multiple of a vector's length."""
    apart()
    lanes = VECTOR_BYTES // b.itemsize
    q = 0
    while q + 2 * lanes <= n:
        r = 0
        while r < m:
            left, at = a0 + r * a_row, o0 + r * o_row + q
            if r + PRODUCT_ROWS <= m:
                product_tile(
                    a, left, a_row, a_step, depth, b, b0 + q, b_step, out, at, o_row, out, at, o_row, PRODUCT_ROWS, 2
                )
                r += PRODUCT_ROWS
            else:
                product_tile(a, left, a_row, a_step, depth, b, b0 + q, b_step, out, at, o_row, out, at, o_row, 1, 2)
                r += 1
        q += 2 * lanes
    if q < n:
        for r in range(m):
            left, at = a0 + r * a_row, o0 + r * o_row + q
            product_tile(a, left, a_row, a_step, depth, b, b0 + q, b_step, out, at, o_row, out, at, o_row, 1, 1)


DEPTH = 256  # of a block: a panel of b of that depth fills two thirds of the nearest cache
BLOCK_ROWS = 64
BLOCK_PANELS = 8
JOBS = 16
FEW_JOBS = 4  # of a product with fewer than LARGE multiplications, for which threads are called together only once
LARGE = 1 << 24
PACKED = 1 << 20  # elements of b packed at a time
PACKED_ROWS = 64  # of them by one job


class Sizes(NamedTuple):
    """Of a product and the blocks that it is cut into."""

    rows: int
    columns: int
    depth: int
    a_row: int  # elements between neighbours in a column of a ...
    a_step: int  # ... and in a row of it
    b_row: int
    b_step: int
    panels: int  # of b, of two vectors width each
    block_panels: int
    column_blocks: int
    block_rows: int
    row_jobs: int  # into which the rows of a block of columns are cut ...
    job_rows: int  # ... and how many rows one of them computes
    shared: bool  # whether several jobs use what is packed of b
    at_once: int  # rows of b that are packed at a time


@serial
def pack_panels(b, step, across, k0, k, depth, p0, count, columns, panels, packed):
    """panels[p * packed + k + i, q] = b[(k0 + k + i) * step + (p * width + q) * across] for i < depth and `count`
    panels from p0 on; zeros behind the last column."""
    apart()
    lanes = VECTOR_BYTES // b.itemsize
    width, first = PRODUCT_VECTORS * lanes, (k0 + k) * step
    for p in range(p0, p0 + count):
        source, target, used = first + p * width * across, (p * packed + k) * width, columns - p * width
        used = used if used < width else width
        i = 0
        if step == 1 and across != 1 and used == width:  # columns lie side by side
            while i + lanes <= depth:
                for q in range(0, width, lanes):
                    transpose_square(b, source + q * across + i, across, panels, target + i * width + q, width)
                i += lanes
        while i < depth:
            copy_row(b, source + i * step, across, panels, target + i * width, 1, used)
            for q in range(used, width):
                panels[target + i * width + q] = 0
            i += 1


@serial
def _pack_rows(a, a_row, a_step, first, rows, depth, block):
    """The rows in groups of PRODUCT_ROWS, of which the last is filled with what was there: each as [row, depth], or as
    [depth, row] if rows lie side by side."""
    apart()
    for group in range(0, rows, PRODUCT_ROWS):
        start, place, count = first + group * a_row, group * depth, rows - group
        count = count if count < PRODUCT_ROWS else PRODUCT_ROWS
        if a_row == 1:
            for k in range(depth):
                copy_row(a, start + k * a_step, 1, block, place + k * PRODUCT_ROWS, 1, count)
        else:
            for r in range(count):
                copy_row(a, start + r * a_row, a_step, block, place + r * depth, 1, depth)


@serial
def _multiply_panel(block, b_row, b_step, rows, panels, p0, depth, out, o0, o_row, columns, start, s0, edge):
    """out[o0 + r * o_row + c] = the product of a packed block and a packed panel, and start[s0 + c], for c < columns;
    with s0 < 0 it is added to what is there. From `edge` on the block's memory is free."""
    apart()
    lanes = VECTOR_BYTES // out.itemsize
    width = PRODUCT_VECTORS * lanes
    source, step = (out, o_row) if s0 < 0 else (start, 0)
    for first in range(0, rows, PRODUCT_ROWS):
        a0, at, count = first * depth, o0 + first * o_row, rows - first
        origin = at if s0 < 0 else s0
        if count >= PRODUCT_ROWS and columns == width:
            product_tile(
                block, a0, b_row, b_step, depth, panels, p0, width, source, origin, step, out, at, o_row,
                PRODUCT_ROWS, PRODUCT_VECTORS,
            )  # fmt: skip
            continue
        count = count if count < PRODUCT_ROWS else PRODUCT_ROWS
        for r in range(count):
            copy_row(source, origin + r * step, 1, block, edge + r * width, 1, columns)
        if columns > lanes:
            product_tile(
                block, a0, b_row, b_step, depth, panels, p0, width, block, edge, width, block, edge, width,
                PRODUCT_ROWS, PRODUCT_VECTORS,
            )  # fmt: skip
        else:
            product_tile(
                block, a0, b_row, b_step, depth, panels, p0, width, block, edge, width, block, edge, width,
                PRODUCT_ROWS, 1,
            )  # fmt: skip
        for r in range(count):
            copy_row(block, edge + r * width, 1, out, at + r * o_row, 1, columns)


@serial
def _multiply_block(s, a, panels, start, out, r0, p0, k0, packed):
    """One block of rows by one of panels."""
    width = PRODUCT_VECTORS * VECTOR_BYTES // out.itemsize
    rows, last = s.rows - r0, p0 + s.block_panels
    rows, last = rows if rows < s.block_rows else s.block_rows, last if last < s.panels else s.panels
    edge = s.block_rows * DEPTH
    block = np.empty(edge + PRODUCT_ROWS * width, out.dtype)
    slices = -(-packed // DEPTH)
    for n in range(slices):
        k = n * packed // slices
        deep = (n + 1) * packed // slices - k
        block_row, block_step = (1, PRODUCT_ROWS) if s.a_row == 1 else (deep, 1)
        _pack_rows(a, s.a_row, s.a_step, r0 * s.a_row + (k0 + k) * s.a_step, rows, deep, block)
        for p in range(p0, last):
            c = p * width
            used = s.columns - c if s.columns - c < width else width
            _multiply_panel(
                block, block_row, block_step, rows, panels, c * packed + k * width, deep,
                out, r0 * s.columns + c, s.columns, used, start, -1 if k0 + k else c, edge,
            )  # fmt: skip


@serial
def _pack_block(s, b, panels, k0, k, depth, p0, packed):
    """Some rows of a block of panels."""
    count = s.panels - p0 if s.panels - p0 < s.block_panels else s.block_panels
    pack_panels(b, s.b_row, s.b_step, k0, k, depth, p0, count, s.columns, panels, packed)


@jit
def _multiply(sizes, a, b, panels, start, out):
    """The product; panels is memory for what is packed of b."""
    s = sizes[0]
    for k0 in range(0, s.depth, s.at_once):
        packed = s.depth - k0 if s.depth - k0 < s.at_once else s.at_once
        if s.shared:
            layers = -(-packed // PACKED_ROWS)
            for job in prange(s.column_blocks * layers):
                p0, k = job // layers * s.block_panels, job % layers * PACKED_ROWS
                depth = packed - k if packed - k < PACKED_ROWS else PACKED_ROWS
                _pack_block(s, b, panels, k0, k, depth, p0, packed)
        for job in prange(s.row_jobs * s.column_blocks):
            r0, p0 = job // s.column_blocks * s.job_rows, job % s.column_blocks * s.block_panels
            if not s.shared:
                _pack_block(s, b, panels, k0, 0, packed, p0, packed)
            last = r0 + s.job_rows if r0 + s.job_rows < s.rows else s.rows
            for r in range(r0, last, s.block_rows):
                _multiply_block(s, a, panels, start, out, r, p0, k0, packed)


@functools.lru_cache(maxsize=1024)  # they take longer to find than a small product
def _sizes(rows, columns, depth, a_row, a_step, b_row, b_step, itemsize):
    """The sizes of a product as the kernel takes them, and how much memory it wants for what is packed of b."""
    width = PRODUCT_VECTORS * VECTOR_BYTES // itemsize
    panels = -(-columns // width)
    shared = panels == 1 or rows * columns * depth >= LARGE
    block_panels = BLOCK_PANELS if shared else -(-panels // FEW_JOBS)
    column_blocks = -(-panels // block_panels)
    row_blocks = -(-rows // BLOCK_ROWS)
    if shared:
        row_blocks = max(row_blocks, min(-(-rows // 16), -(-JOBS // column_blocks)))
    block_rows = -(-rows // (row_blocks * PRODUCT_ROWS)) * PRODUCT_ROWS
    row_jobs, job_rows = (row_blocks, block_rows) if shared else (1, rows)
    at_once = max(DEPTH, PACKED // (panels * width) // DEPTH * DEPTH)
    sizes = Sizes(
        rows, columns, depth, a_row, a_step, b_row, b_step, panels, block_panels, column_blocks, block_rows,
        row_jobs, job_rows, shared, at_once,
    )  # fmt: skip
    return as_record(sizes), panels * width * min(depth, at_once)


def multiply(a, a_row, a_step, b, b_row, b_step, rows, columns, depth, bias, out):
    """out[r, c] = bias[c] + sum over k of a[r * a_row + k * a_step] * b[k * b_row + c * b_step]; no bias is None."""
    sizes, packed = _sizes(rows, columns, depth, a_row, a_step, b_row, b_step, out.itemsize)
    start = np.zeros(columns, out.dtype) if bias is None else bias
    _multiply(sizes, a, b, np.empty(packed, out.dtype), start, out)
