"""Loops over `prange` on several threads.

Numba's own way, parallel=True, takes three times as long to compile as the same loop for one thread. Here the body of
each such loop is cut out of the source of its kernel, as a function of its own over a part of the range, and the loop
becomes a call that runs a part on each of Numba's threads:

    def twice(x, out):                       def part(start, stop, out, x):
        for i in prange(x.size):                 for index in range(start, stop):
            out[i] = x[i] + x[i]                     i = counted(index)
                                                     out[i] = x[i] + x[i]

                                             def twice(x, out):
                                                 on_threads(part, x.size, (out, x))

Variables that a body assigns are its own: it can hand on nothing, and has to assign them before it reads them.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from types import FunctionType
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.compiler import Compiler, Flags
from numba.extending import intrinsic


def split(function: FunctionType, flags: Flags) -> FunctionType:
    """The function with its loops over `prange` on threads; their bodies are compiled with the same freedom."""
    if "prange" not in function.__code__.co_names:
        return function
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(definition, ast.FunctionDef)
    ast.increment_lineno(definition, function.__code__.co_firstlineno - 1)
    definition.decorator_list = []
    cutter = _Cutter(definition)
    cutter.visit(definition)
    # What the function has from functions around it are arguments of another function around it and its parts.
    names = ", ".join(["part_of", "counted", "on_threads", *function.__code__.co_freevars])
    whole = _written(f"def make({names}): return {definition.name}", definition)
    whole.body[:0] = [*cutter.parts, definition]
    made: dict[str, Any] = {}
    code = compile(ast.Module([whole], []), function.__code__.co_filename, "exec")
    exec(code, function.__globals__, made)
    options = {"error_model": flags.error_model, "fastmath": flags.fastmath.flags, "pipeline_class": _Part}
    skipped = dict.fromkeys(("no_cpython_wrapper", "no_cfunc_wrapper", "no_rewrites"), True)
    part_of = functools.partial(numba.njit, **skipped, **options)
    return made["make"](part_of, counted, on_threads, *(cell.cell_contents for cell in function.__closure__ or ()))


class _Cutter(ast.NodeTransformer):
    """Replaces the loops over `prange`, and collects the functions made of their bodies."""

    def __init__(self, definition: ast.FunctionDef) -> None:
        self.definition = definition
        self.parts: list[ast.stmt] = []

    def visit_For(self, node: ast.For) -> ast.AST:
        if ast.unparse(node.iter).partition("(")[0] != "prange":
            return self.generic_visit(node)
        own = _names(node, ast.Store)
        known = {argument.arg for argument in self.definition.args.args} | _names(self.definition, ast.Store)
        used = sorted(_names(node, ast.Load) & known - own)
        name = f"{self.definition.name}_{len(self.parts)}"
        header = f"@part_of\ndef {name}({', '.join(['_start', '_stop', *used])}):"
        loop = f" for _index in range(_start, _stop): {ast.unparse(node.target)} = counted(_index)"
        part = _written(f"{header}\n{loop}", node)
        call = _written(f"on_threads({name}, 0, ({''.join(f'{each}, ' for each in used)}))", node)
        part.body[0].body += node.body
        call.value.args[1] = node.iter.args[0]  # type: ignore[attr-defined]  # the argument of prange
        self.parts.append(part)
        return call


def _written(source: str, at: ast.AST) -> Any:
    """The statement, with the place of a node for messages about errors."""
    (statement,) = ast.parse(source).body
    for node in ast.walk(statement):
        ast.copy_location(node, at)
    return statement


def _names(tree: ast.AST, context: type) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}


class _Part(Compiler):
    """Numba's compiler for parts."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.state.flags.noalias = True  # kernels write to no array that they read by another name


@intrinsic
def counted(typing_context, index):  # type: ignore[no-untyped-def]
    """The index, and a word to the optimizer that it is not negative: Numba lets indices count from the end, and what
    may have to does not vectorize."""

    def write(context, builder, signature, args):  # type: ignore[no-untyped-def]
        assume = _function(builder, "llvm.assume", ir.VoidType(), ir.IntType(1))
        builder.call(assume, [builder.icmp_signed(">=", args[0], args[0].type(0))])
        return args[0]

    return index(index), write


@intrinsic
def on_threads(typing_context, part, count, arguments):  # type: ignore[no-untyped-def]
    """Call part(start, stop, *arguments) for shares of range(count), one on each thread."""
    kinds = (types.intp, types.intp, *arguments.types)
    part.get_call_type(typing_context, kinds, {})  # compiles it

    def write(context, builder, signature, args):  # type: ignore[no-untyped-def]
        compiled = part.dispatcher.overloads[kinds]
        context.active_code_library.add_linking_library(compiled.library)
        _run_shares(context, builder, compiled, *args[1:])
        return context.get_dummy_value()

    return types.void(part, types.intp, arguments), write


def _run_shares(context: Any, builder: Any, part: Any, count: Any, arguments: Any) -> None:
    """Write the call of numba_parallel_for, which Numba's threads run vectorized functions by."""
    whole, byte = ir.IntType(64), ir.IntType(8)
    pointer, numbers = byte.as_pointer(), whole.as_pointer()
    threads = builder.zext(builder.call(_function(builder, "get_num_threads", ir.IntType(32)), []), whole)
    failed = cgutils.alloca_once_value(builder, byte(0))
    call = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, [count, threads, failed, arguments]))
    run = ir.FunctionType(ir.VoidType(), [pointer.as_pointer(), numbers, numbers, pointer])
    share = ir.Function(builder.module, run, f"{part.fndesc.mangled_name}.share")
    share.linkage = "internal"
    _write_share(context, share, part, call.type)
    # The one "array" that is cut along the shares has elements of one byte and begins at 0: its address is the share.
    base, step = cgutils.alloca_once_value(builder, pointer(None)), cgutils.alloca_once_value(builder, whole(1))
    loop = _function(builder, "numba_parallel_for", ir.VoidType(), *[pointer] * 5, *[whole] * 3)
    given = (share, base, cgutils.alloca_once_value(builder, threads), step, call)
    builder.call(loop, [*(builder.bitcast(x, pointer) for x in given), whole(0), whole(1), threads])
    with builder.if_then(builder.trunc(builder.load(failed), ir.IntType(1)), likely=False):
        context.call_conv.return_user_exc(builder, MemoryError, ("a kernel's thread found no memory to work in",))


def _write_share(context: Any, share: Any, part: Any, call_type: Any) -> None:
    """The function that threads run: its first argument points to the number of the first of their shares."""
    builder = ir.IRBuilder(share.append_basic_block())
    places, counts, _, call = share.args
    count, threads, failed, arguments = cgutils.unpack_tuple(builder, builder.load(builder.bitcast(call, call_type)))
    first = builder.ptrtoint(builder.load(places), count.type)
    last = builder.add(first, builder.load(counts))
    start, stop = (builder.sdiv(builder.mul(n, count), threads) for n in (first, last))
    kinds_and_values = zip(part.signature.args[2:], cgutils.unpack_tuple(builder, arguments), strict=True)
    values = [start, stop, *(_borrowed(context, builder, kind, value) for kind, value in kinds_and_values)]
    status, _ = context.call_internal_no_propagate(builder, part.fndesc, part.signature, values)
    with builder.if_then(status.is_error, likely=False):
        builder.store(ir.IntType(8)(1), failed)
    builder.ret_void()


def _borrowed(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """An array without its reference count, which the caller keeps up, so that views of it are not counted either:
    threads that count in one place take its cache line from each other with every view."""
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = array.meminfo.type(None)
    return array._getvalue()


def _function(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)
