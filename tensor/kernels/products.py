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
from .tiles import (
    PRODUCT_ROWS,
    PRODUCT_VECTORS,
    VECTOR_BYTES,
    apart,
    copy_row,
    copy_vectors,
    fetch_square,
    product_tile,
    transpose_square,
)


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
OWN_JOBS = 8  # of a product with few rows, where each job packs what it multiplies ...
FEW_JOBS = 4  # ... and of one with fewer than LARGE multiplications
LARGE = 1 << 24
PACKED = 1 << 20  # elements of b packed at a time for all jobs ...
PACKED_ROWS = 64  # ... and rows of them by one job
OWN_PACKED = 1 << 17  # elements that a job packs for itself: half of a level-2 cache of 1 MiB
AHEAD = 4  # rows or vectors of b that are fetched before they are packed: the processor stops at the end of a page


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
    edge: int  # elements of a block of rows
    own: int  # elements of a job's own memory: for that block, one tile and, if not shared, what it packs of b ...
    own_row: int  # ... from this row on, of a panel's width


@serial
def pack_panels(b, step, across, k, row, depth, p0, count, columns, panels, packed):
    """panels[(p - p0) * packed + row + i, q] = b[(k + i) * step + (p * width + q) * across] for i < depth and `count`
    panels from p0 on; zeros behind the last column."""
    apart()
    lanes = VECTOR_BYTES // b.itemsize
    width = PRODUCT_VECTORS * lanes
    first = k * step + p0 * width * across
    columns -= p0 * width
    done = 0
    whole = columns // width if columns // width < count else count
    if across == 1:
        done = depth
        for i in range(depth):  # a row that lies in one piece is read for all panels before the next one
            for p in range(whole):
                copy_vectors(b, first + i * step + p * width, AHEAD * step, panels, (p * packed + row + i) * width)
    elif step == 1:  # columns lie side by side
        done = depth & -lanes
        for p in range(whole):
            for i in range(0, done, lanes):
                for q in range(0, width, lanes):
                    source = first + (p * width + q) * across + i
                    fetch_square(b, source + AHEAD * lanes, across)
                    transpose_square(b, source, across, panels, (p * packed + row + i) * width + q, width)
    for p in range(count):
        used = width if p < whole else columns - p * width
        for i in range(done if p < whole else 0, depth):
            target = (p * packed + row + i) * width
            copy_row(b, first + i * step + p * width * across, across, panels, target, 1, used)
            for q in range(used, width):
                panels[target + q] = 0


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
    source = out if s0 < 0 else start
    step = o_row if s0 < 0 else 0
    for first in range(0, rows, PRODUCT_ROWS):
        a0 = first * depth
        at = o0 + first * o_row
        count = rows - first
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
def _multiply_block(s, a, block, panels, row, start, out, r0, p0, k0, packed):
    """One block of rows, packed into `block`, by one of panels, which begin at that row of `panels`."""
    width = PRODUCT_VECTORS * VECTOR_BYTES // out.itemsize
    rows = s.rows - r0 if s.rows - r0 < s.block_rows else s.block_rows
    last = p0 + s.block_panels if p0 + s.block_panels < s.panels else s.panels
    slices = -(-packed // DEPTH)
    for n in range(slices):
        k = n * packed // slices
        deep = (n + 1) * packed // slices - k
        block_row = 1 if s.a_row == 1 else deep
        block_step = PRODUCT_ROWS if s.a_row == 1 else 1
        _pack_rows(a, s.a_row, s.a_step, r0 * s.a_row + (k0 + k) * s.a_step, rows, deep, block)
        for p in range(p0, last):
            c = p * width
            used = s.columns - c if s.columns - c < width else width
            _multiply_panel(
                block, block_row, block_step, rows, panels, ((p - p0) * packed + row + k) * width, deep,
                out, r0 * s.columns + c, s.columns, used, start, -1 if k0 + k else c, s.edge,
            )  # fmt: skip


@serial
def _pack_block(s, b, panels, row, k, depth, p0, packed):
    """Some rows of a block of panels."""
    count = s.panels - p0 if s.panels - p0 < s.block_panels else s.block_panels
    pack_panels(b, s.b_row, s.b_step, k, row, depth, p0, count, s.columns, panels, packed)


@jit
def _multiply(sizes, a, b, panels, start, out):
    """The product; panels is memory for what is packed of b."""
    s = sizes[0]
    for k0 in range(0, s.depth, s.at_once):
        packed = s.depth - k0 if s.depth - k0 < s.at_once else s.at_once
        if s.shared:
            layers = -(-packed // PACKED_ROWS)
            for job in prange(s.column_blocks * layers):
                p0 = job // layers * s.block_panels
                k = job % layers * PACKED_ROWS
                depth = packed - k if packed - k < PACKED_ROWS else PACKED_ROWS
                _pack_block(s, b, panels, p0 * packed + k, k0 + k, depth, p0, packed)
        for job in prange(s.row_jobs * s.column_blocks):
            r0 = job // s.column_blocks * s.job_rows
            p0 = job % s.column_blocks * s.block_panels
            own = np.empty(s.own, out.dtype)  # stays in this core's cache
            if not s.shared:
                _pack_block(s, b, own, s.own_row, k0, packed, p0, packed)
            ready = panels if s.shared else own
            row = p0 * packed if s.shared else s.own_row
            last = r0 + s.job_rows if r0 + s.job_rows < s.rows else s.rows
            for r in range(r0, last, s.block_rows):
                _multiply_block(s, a, own, ready, row, start, out, r, p0, k0, packed)


@functools.lru_cache(maxsize=1024)  # they take longer to find than a small product
def _sizes(rows, columns, depth, a_row, a_step, b_row, b_step, itemsize):
    """The sizes of a product as the kernel takes them, and how much memory it wants for what is packed of b."""
    width = PRODUCT_VECTORS * VECTOR_BYTES // itemsize
    panels = -(-columns // width)
    row_blocks = -(-rows // BLOCK_ROWS)
    large = rows * columns * depth >= LARGE
    shared = panels == 1 or (large and (row_blocks > 1 or panels < 2 * OWN_JOBS))
    block_panels = BLOCK_PANELS
    if not shared:
        block_panels = min(BLOCK_PANELS, -(-panels // (OWN_JOBS if large else FEW_JOBS)))
    column_blocks = -(-panels // block_panels)
    if shared:
        row_blocks = max(row_blocks, min(-(-rows // 16), -(-JOBS // column_blocks)))
    block_rows = -(-rows // (row_blocks * PRODUCT_ROWS)) * PRODUCT_ROWS
    row_jobs, job_rows = (row_blocks, block_rows) if shared else (1, rows)
    at_once = PACKED // (panels * width) if shared else OWN_PACKED // (block_panels * width)
    at_once = min(depth, max(DEPTH, at_once // DEPTH * DEPTH))
    edge = block_rows * DEPTH
    own_row = edge // width + PRODUCT_ROWS
    own = own_row * width + (0 if shared else block_panels * width * at_once)
    sizes = Sizes(
        rows, columns, depth, a_row, a_step, b_row, b_step, panels, block_panels, column_blocks, block_rows,
        row_jobs, job_rows, shared, at_once, edge, own, own_row,
    )  # fmt: skip
    return as_record(sizes), panels * width * at_once if shared else 0


def multiply(a, a_row, a_step, b, b_row, b_step, rows, columns, depth, bias, out):
    """out[r, c] = bias[c] + sum over k of a[r * a_row + k * a_step] * b[k * b_row + c * b_step]; no bias is None."""
    sizes, packed = _sizes(rows, columns, depth, a_row, a_step, b_row, b_step, out.itemsize)
    start = np.zeros(columns, out.dtype) if bias is None else bias
    _multiply(sizes, a, b, np.empty(packed, out.dtype), start, out)
