"""Vector instructions for matrix products: small tiles of the result, held in registers, and copies of rows.

Numba's loops leave the choice of registers to LLVM, which spills them. These intrinsics write the vector instructions
down: a tile of rows x vectors accumulators stays in registers for the whole depth of the product, so that for every
value loaded several products are added (Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication,
2008). For convolutions the rows of one operand are found through a table of offsets: the columns are never copied
together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_FEATURES = binding.get_host_cpu_features()
VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx2") else 16
_SIXTEEN_REGISTERS = binding.get_process_triple().startswith("x86_64") and VECTOR_BYTES < 64

# Sizes of tiles, the largest first. 24 accumulators leave 8 of 32 registers for what is loaded, 12 leave 4 of 16. A
# tile has to be wide in both directions for the loads to keep up with the multiplications.
TILE_ROWS = (4, 2, 1) if _SIXTEEN_REGISTERS else (8, 4, 2, 1)
TILE_VECTORS = (3, 2, 1)
DOT_ROWS = (2, 1) if _SIXTEEN_REGISTERS else (4, 2, 1)
DOT_COLUMNS = (6, 3, 1)
# The tile of matrices that are packed for it. At their edges it is computed whole, so it is not as wide as could be.
PRODUCT_ROWS = 8 if VECTOR_BYTES == 64 else 4
PRODUCT_VECTORS = 2


class _Writer:
    """Writes the vector instructions of one intrinsic for elements of one dtype."""

    def __init__(self, context: Any, builder: Any, dtype: Any) -> None:
        self.context = context
        self.builder = builder
        self.dtype = dtype
        self.itemsize = dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.itemsize
        self.suffix = f"v{self.lanes}f{dtype.bitwidth}"
        self.scalar = context.get_data_type(dtype)
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.zero = ir.Constant(self.vector, None)

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)

    def call(self, name: str, body: Callable, *arguments: Any, **sizes: int) -> None:
        """Call a function of its own with that body: inside of others LLVM would give registers away."""
        function = self.function(f"{name}_{self.suffix}", ir.VoidType(), *(a.type for a in arguments))
        if function.is_declaration:
            function.linkage = "internal"
            function.attributes.update(("noinline", "optsize"))
            inside = ir.IRBuilder(function.append_basic_block())
            body(_Writer(self.context, inside, self.dtype), *function.args, **sizes)
            inside.ret_void()
        self.builder.call(function, arguments)

    def element(self, array_type: Any, array: Any, index: Any) -> Any:
        """The address of an element of an array."""
        data = self.context.make_array(array_type)(self.context, self.builder, array).data
        return self.builder.gep(data, [index])

    def steps(self, pointer: Any, step: Any, count: int) -> list:
        """The addresses pointer, pointer + step, ..."""
        return [self.builder.gep(pointer, [self.builder.mul(step, self.number(i))]) for i in range(count)]

    def through(self, pointer: Any, table: Any, index: Any) -> Any:
        """The address of the element that an entry of a table names."""
        return self.builder.gep(pointer, [self.builder.load(self.builder.gep(table, [index]))])

    def number(self, value: int) -> Any:
        return ir.Constant(ir.IntType(64), value)

    def _vector_at(self, pointer: Any, index: int) -> Any:
        pointer = self.builder.gep(pointer, [self.number(index * self.lanes)])
        return self.builder.bitcast(pointer, self.vector.as_pointer())

    def load(self, pointer: Any, index: int = 0) -> Any:
        return self.builder.load(self._vector_at(pointer, index), align=self.itemsize)

    def store(self, value: Any, pointer: Any, index: int = 0) -> None:
        self.builder.store(value, self._vector_at(pointer, index), align=self.itemsize)

    def spread(self, pointer: Any) -> Any:
        """A vector of one element repeated."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(nothing, self.builder.load(pointer), ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, nothing, everywhere)

    def copy_some(self, source: Any, target: Any, count: Any) -> None:
        """Copy fewer elements than a vector has."""
        number, mask = ir.VectorType(ir.IntType(32), self.lanes), ir.VectorType(ir.IntType(1), self.lanes)
        low = self.builder.trunc(count, ir.IntType(32))
        limit = self.builder.insert_element(ir.Constant(number, ir.Undefined), low, ir.Constant(ir.IntType(32), 0))
        limit = self.builder.shuffle_vector(limit, limit, ir.Constant(number, [0] * self.lanes))
        chosen = self.builder.icmp_signed("<", ir.Constant(number, list(range(self.lanes))), limit)
        pointer, align = self.vector.as_pointer(), ir.IntType(32)
        load = self.function(f"llvm.masked.load.{self.suffix}.p0", self.vector, pointer, align, mask, self.vector)
        store = self.function(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), self.vector, pointer, align, mask)
        itemsize = ir.Constant(align, self.itemsize)
        value = self.builder.call(load, [self._vector_at(source, 0), itemsize, chosen, self.zero])
        self.builder.call(store, [value, self._vector_at(target, 0), itemsize, chosen])

    def variables(self, starts: list) -> list:
        """Variables with these values to begin with; LLVM keeps them in registers."""
        return [cgutils.alloca_once_value(self.builder, start) for start in starts]

    def add_products(self, sums: list[list], rows: list, step: Any, line: Callable[[Any], Any], depth: Any) -> None:
        """Add to the vectors of each row of sums, for all k < depth, element k * step of the row times line(k)."""
        with cgutils.for_range(self.builder, depth) as loop:
            place = line(loop.index)
            values = [self.load(place, v) for v in range(len(sums[0]))]
            along = self.builder.mul(loop.index, step)
            for totals, row in zip(sums, rows, strict=True):
                factor = self.spread(self.builder.gep(row, [along]))
                for total, value in zip(totals, values, strict=True):
                    self.add_product(total, factor, value)

    def fetch(self, pointer: Any) -> None:
        anything, kind = ir.IntType(8).as_pointer(), ir.IntType(32)
        prefetch = self.function("llvm.prefetch.p0", ir.VoidType(), anything, kind, kind, kind)
        self.builder.call(prefetch, [self.builder.bitcast(pointer, anything), kind(0), kind(3), kind(1)])

    def store_all(self, sums: list[list], rows: list) -> None:
        for totals, row in zip(sums, rows, strict=True):
            for v, total in enumerate(totals):
                self.store(self.builder.load(total), row, v)

    def add_product(self, accumulator: Any, a: Any, b: Any) -> None:
        multiply_add = self.function(f"llvm.fmuladd.{self.suffix}", self.vector, self.vector, self.vector, self.vector)
        total = self.builder.call(multiply_add, [a, b, self.builder.load(accumulator)])
        self.builder.store(total, accumulator)

    def add_up(self, start: Any, vector: Any) -> Any:
        """The sum of a vector's elements and a start."""
        total = self.function(f"llvm.vector.reduce.fadd.{self.suffix}", self.scalar, self.scalar, self.vector)
        return self.builder.call(total, [start, vector], fastmath=("reassoc",))


def _choose(builder: Any, sizes: list[tuple[int, int]], height: Any, width: Any) -> Iterator:
    """Go through the sizes of tiles; what is written in between is run for the size height x width."""
    for rows, columns in sizes:
        tall = builder.icmp_signed("==", height, ir.Constant(height.type, rows))
        wide = builder.icmp_signed("==", width, ir.Constant(width.type, columns))
        with builder.if_then(builder.and_(tall, wide)):
            yield rows, columns


@intrinsic
def apart(_):  # type: ignore[no-untyped-def]
    """Keep the function that calls this as it is: inside of its callers LLVM takes twice as long for it."""

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), write


def _multiply(
    w: _Writer, a: Any, step: Any, depth: Any, image: Any, table: Any, bias: Any, out: Any, out_step: Any, height: int,
    width: int,
) -> None:  # fmt: skip
    sums = [w.variables([w.spread(p)] * width) for p in w.steps(bias, w.number(1), height)]
    w.add_products(sums, w.steps(a, step, height), w.number(1), lambda k: w.through(image, table, k), depth)
    w.store_all(sums, w.steps(out, out_step, height))


@intrinsic
def multiply_tile(_, a, a0, step, depth, image, i0, offsets, f0, bias, b0, out, o0, out_step, rows, vectors):  # type: ignore[no-untyped-def]
    """out[o0 + r * out_step + q] = bias[b0 + r] + sum over k of a[a0 + r * step + k] * image[i0 + offsets[f0 + k] + q]
    for r < rows, which is in TILE_ROWS, and q < vectors, which is in TILE_VECTORS, times the elements of a vector."""
    signature = types.void(a, a0, step, depth, image, i0, offsets, f0, bias, b0, out, o0, out_step, rows, vectors)

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        a, a0, step, depth, image, i0, offsets, f0, bias, b0, out, o0, out_step, rows, vectors = args
        kind = signature.args
        w = _Writer(context, builder, kind[4].dtype)
        a, image, table = w.element(kind[0], a, a0), w.element(kind[4], image, i0), w.element(kind[6], offsets, f0)
        bias, out = w.element(kind[8], bias, b0), w.element(kind[10], out, o0)
        for height, width in _choose(builder, list(itertools.product(TILE_ROWS, TILE_VECTORS)), rows, vectors):
            given = (a, step, depth, image, table, bias, out, out_step)
            w.call(f"multiply_tile_{height}_{width}", _multiply, *given, height=height, width=width)
        return context.get_dummy_value()

    return signature, write


def _add_product(
    w: _Writer, a: Any, a_row: Any, a_step: Any, depth: Any, b: Any, b_step: Any, start: Any, s_row: Any, out: Any,
    o_row: Any, height: int, width: int,
) -> None:  # fmt: skip
    sums = [w.variables([w.load(p, v) for v in range(width)]) for p in w.steps(start, s_row, height)]
    rows = w.steps(a, a_row, height)
    w.add_products(sums, rows, a_step, lambda k: w.builder.gep(b, [w.builder.mul(k, b_step)]), depth)
    w.store_all(sums, w.steps(out, o_row, height))


@intrinsic(prefer_literal=True)
def product_tile(_, a, a0, a_row, a_step, depth, b, b0, b_step, start, s0, s_row, out, o0, o_row, rows, vectors):  # type: ignore[no-untyped-def]
    """out[o0 + r * o_row + q] = start[s0 + r * s_row + q] + sum over k < depth of a[a0 + r * a_row + k * a_step] *
    b[b0 + k * b_step + q] for r < rows and q < vectors times the elements of a vector."""
    height, width = rows.literal_value, vectors.literal_value

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        a, a0, a_row, a_step, depth, b, b0, b_step, start, s0, s_row, out, o0, o_row, _, _ = args
        kind = signature.args
        w = _Writer(context, builder, kind[5].dtype)
        a, b = w.element(kind[0], a, a0), w.element(kind[5], b, b0)
        start, out = w.element(kind[8], start, s0), w.element(kind[11], out, o0)
        given = (a, a_row, a_step, depth, b, b_step, start, s_row, out, o_row)
        w.call(f"product_tile_{height}_{width}", _add_product, *given, height=height, width=width)
        return context.get_dummy_value()

    arguments = (a, a0, a_row, a_step, depth, b, b0, b_step, start, s0, s_row, out, o0, o_row, rows, vectors)
    return types.void(*arguments), write


def _add_window(
    w: _Writer, image: Any, rows: Any, offsets: Any, depth: Any, b: Any, b_step: Any, out: Any, places: Any, width: int
) -> None:
    places = [w.through(out, places, w.number(r)) for r in range(PRODUCT_ROWS)]
    sums = [w.variables([w.load(p, v) for v in range(width)]) for p in places]
    lines = [w.through(image, rows, w.number(r)) for r in range(PRODUCT_ROWS)]
    with cgutils.for_range(w.builder, depth) as loop:
        offset = w.builder.load(w.builder.gep(offsets, [loop.index]))
        place = w.builder.gep(b, [w.builder.mul(loop.index, b_step)])
        values = [w.load(place, v) for v in range(width)]
        for totals, line in zip(sums, lines, strict=True):
            factor = w.spread(w.builder.gep(line, [offset]))
            for total, value in zip(totals, values, strict=True):
                w.add_product(total, factor, value)
    w.store_all(sums, places)


@intrinsic(prefer_literal=True)
def window_tile(_, image, i0, rows, r0, offsets, f0, depth, b, b0, b_step, out, o0, places, p0, vectors):  # type: ignore[no-untyped-def]
    """Add to out[o0 + places[p0 + r] + q] the sum over k < depth of image[i0 + rows[r0 + r] + offsets[f0 + k]] *
    b[b0 + k * b_step + q] for r < PRODUCT_ROWS and q < vectors times the elements of a vector."""
    width = vectors.literal_value

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        image, i0, rows, r0, offsets, f0, depth, b, b0, b_step, out, o0, places, p0, _ = args
        kind = signature.args
        w = _Writer(context, builder, kind[0].dtype)
        image, rows = w.element(kind[0], image, i0), w.element(kind[2], rows, r0)
        offsets, b, out = w.element(kind[4], offsets, f0), w.element(kind[7], b, b0), w.element(kind[10], out, o0)
        places = w.element(kind[12], places, p0)
        w.call(f"window_tile_{width}", _add_window, image, rows, offsets, depth, b, b_step, out, places, width=width)
        return context.get_dummy_value()

    return types.void(image, i0, rows, r0, offsets, f0, depth, b, b0, b_step, out, o0, places, p0, vectors), write


def _add_lanes(
    w: _Writer, image: Any, rows: Any, offsets: Any, depth: Any, factors: Any, start: Any, s_row: Any, out: Any,
    places: Any,
) -> None:  # fmt: skip
    sums = w.variables([w.load(p) for p in w.steps(start, s_row, PRODUCT_ROWS)])
    lines = [w.through(image, rows, w.number(r)) for r in range(PRODUCT_ROWS)]
    with cgutils.for_range(w.builder, depth) as loop:
        offset = w.builder.load(w.builder.gep(offsets, [loop.index]))
        factor = w.load(w.builder.gep(factors, [w.builder.mul(loop.index, w.number(w.lanes))]))
        for total, line in zip(sums, lines, strict=True):
            w.add_product(total, w.load(w.builder.gep(line, [offset])), factor)
    for r, total in enumerate(sums):
        w.store(w.builder.load(total), w.through(out, places, w.number(r)))


@intrinsic
def lane_tile(_, image, rows, r0, offsets, f0, depth, factors, w0, start, s0, s_row, out, places):  # type: ignore[no-untyped-def]
    """out[places[r0 + r]] = start[s0 + r * s_row] + the sum over k < depth of image[rows[r0 + r] + offsets[f0 + k]] *
    factors[w0 + k] for r < PRODUCT_ROWS, where each of these is a vector; factors lie side by side."""

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        image, rows, r0, offsets, f0, depth, factors, w0, start, s0, s_row, out, places = args
        kind, zero = signature.args, ir.Constant(ir.IntType(64), 0)
        w = _Writer(context, builder, kind[0].dtype)
        image, rows = w.element(kind[0], image, zero), w.element(kind[1], rows, r0)
        offsets, factors = w.element(kind[3], offsets, f0), w.element(kind[6], factors, w0)
        start, out = w.element(kind[8], start, s0), w.element(kind[11], out, zero)
        places = w.element(kind[12], places, r0)
        w.call("lane_tile", _add_lanes, image, rows, offsets, depth, factors, start, s_row, out, places)
        return context.get_dummy_value()

    return types.void(image, rows, r0, offsets, f0, depth, factors, w0, start, s0, s_row, out, places), write


def _dot(
    w: _Writer, a: Any, step: Any, a_image: Any, image: Any, table: Any, b_image: Any, images: Any, length: Any,
    out: Any, out_step: Any, height: int, width: int,
) -> None:  # fmt: skip
    builder = w.builder
    lefts = w.steps(a, step, height)
    rights = [w.through(image, table, w.number(j)) for j in range(width)]
    sums = [w.variables([w.zero] * width) for _ in range(height)]
    with cgutils.for_range(builder, images) as outer:
        left, right = builder.mul(outer.index, a_image), builder.mul(outer.index, b_image)
        with cgutils.for_range(builder, length) as loop:
            q = builder.mul(loop.index, w.number(w.lanes))
            values = [w.load(builder.gep(p, [builder.add(left, q)])) for p in lefts]
            for j, pointer in enumerate(rights):
                pixel = w.load(builder.gep(pointer, [builder.add(right, q)]))
                for row, value in zip(sums, values, strict=True):
                    w.add_product(row[j], value, pixel)
    for row, pointer in zip(sums, w.steps(out, out_step, height), strict=True):
        for total, place in zip(row, w.steps(pointer, w.number(1), width), strict=True):
            builder.store(w.add_up(builder.load(place), builder.load(total)), place)


@intrinsic
def dot_tile(
    _, a, a0, step, a_image, image, i0, offsets, f0, b_image, images, length, out, o0, out_step, rows, columns
):  # type: ignore[no-untyped-def]
    """out[o0 + r * out_step + j] += sum over n < images and q < length vectors of
    a[a0 + n * a_image + r * step + q] * image[i0 + n * b_image + offsets[f0 + j] + q]
    for r < rows, which is in DOT_ROWS, and j < columns, which is in DOT_COLUMNS."""
    signature = types.void(
        a, a0, step, a_image, image, i0, offsets, f0, b_image, images, length, out, o0, out_step, rows, columns
    )

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        a, a0, step, a_image, image, i0, offsets, f0, b_image, images, length, out, o0, out_step, rows, columns = args
        kind = signature.args
        w = _Writer(context, builder, kind[4].dtype)
        a, image, table = w.element(kind[0], a, a0), w.element(kind[4], image, i0), w.element(kind[6], offsets, f0)
        out = w.element(kind[11], out, o0)
        for height, width in _choose(builder, list(itertools.product(DOT_ROWS, DOT_COLUMNS)), rows, columns):
            given = (a, step, a_image, image, table, b_image, images, length, out, out_step)
            w.call(f"dot_tile_{height}_{width}", _dot, *given, height=height, width=width)
        return context.get_dummy_value()

    return signature, write


@intrinsic
def fetch_square(_, a, a0, a_row):  # type: ignore[no-untyped-def]
    """Have what transpose_square() would read there on its way; nothing happens where no memory is."""

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        w = _Writer(context, builder, signature.args[0].dtype)
        for place in w.steps(w.element(signature.args[0], *args[:2]), args[2], w.lanes):
            w.fetch(place)
        return context.get_dummy_value()

    return types.void(a, a0, a_row), write


@intrinsic
def copy_vectors(_, source, s0, ahead, target, t0):  # type: ignore[no-untyped-def]
    """target[t0 + q] = source[s0 + q] for PRODUCT_VECTORS vectors, while those `ahead` elements on are fetched."""

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        source, s0, ahead, target, t0 = args
        w = _Writer(context, builder, signature.args[0].dtype)
        read, put = w.element(signature.args[0], source, s0), w.element(signature.args[3], target, t0)
        for v in range(PRODUCT_VECTORS):
            w.fetch(builder.gep(read, [builder.add(ahead, w.number(v * w.lanes))]))
            w.store(w.load(read, v), put, v)
        return context.get_dummy_value()

    return types.void(source, s0, ahead, target, t0), write


@intrinsic
def copy_row(_, source, s0, source_step, target, t0, target_step, count):  # type: ignore[no-untyped-def]
    """target[t0 + i * target_step] = source[s0 + i * source_step] for i < count.

    Rows are short: LLVM's own loop would copy most of one element by element, and Numba's would look at the sign of
    every index.
    """

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        source, s0, source_step, target, t0, target_step, count = args
        kind = signature.args
        w = _Writer(context, builder, kind[0].dtype)
        read, put = w.element(kind[0], source, s0), w.element(kind[3], target, t0)
        dense = [builder.icmp_signed("==", step, w.number(1)) for step in (source_step, target_step)]
        with builder.if_else(builder.and_(*dense)) as (close, apart):
            with close:
                whole = builder.udiv(count, w.number(w.lanes))
                with cgutils.for_range(builder, whole) as loop:
                    q = builder.mul(loop.index, w.number(w.lanes))
                    w.store(w.load(builder.gep(read, [q])), builder.gep(put, [q]))
                done = builder.mul(whole, w.number(w.lanes))
                with builder.if_then(builder.icmp_signed("<", done, count)):
                    w.copy_some(builder.gep(read, [done]), builder.gep(put, [done]), builder.sub(count, done))
            with apart, cgutils.for_range(builder, count) as loop:
                value = builder.load(builder.gep(read, [builder.mul(loop.index, source_step)]))
                builder.store(value, builder.gep(put, [builder.mul(loop.index, target_step)]))
        return context.get_dummy_value()

    return types.void(source, s0, source_step, target, t0, target_step, count), write


@intrinsic
def transpose_square(_, a, a0, a_row, out, o0, o_row):  # type: ignore[no-untyped-def]
    """out[o0 + j * o_row + i] = a[a0 + i * a_row + j] for i, j < the elements of a vector, by interleaving halves of
    the rows again and again: a perfect shuffle rotates the bits of an index."""

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        a, a0, a_row, out, o0, o_row = args
        kind = signature.args
        w = _Writer(context, builder, kind[0].dtype)
        rows = [w.load(p) for p in w.steps(w.element(kind[0], a, a0), a_row, w.lanes)]
        half = w.lanes // 2
        merged = [[start + n // 2 + w.lanes * (n % 2) for n in range(w.lanes)] for start in (0, half)]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), w.lanes), indices) for indices in merged]
        for _ in range(w.lanes.bit_length() - 1):
            rows = [builder.shuffle_vector(rows[i], rows[i + half], mask) for i in range(half) for mask in masks]
        for row, place in zip(rows, w.steps(w.element(kind[3], out, o0), o_row, w.lanes), strict=True):
            w.store(row, place)
        return context.get_dummy_value()

    return types.void(a, a0, a_row, out, o0, o_row), write
