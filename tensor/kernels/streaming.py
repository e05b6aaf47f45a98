"""Copies that leave the caches alone, into memory that another core reads next.

An ordinary store first fetches the cache line that it changes, from the other core's cache at worst, and leaves it
here. These stores write whole lines to memory: between cores with caches of their own that takes a third of the time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .compiler import serial

_LINE = 64  # bytes of a cache line


@intrinsic
def _copy_line(_, target, source, i):  # type: ignore[no-untyped-def]
    """target[i : i + 64] = source[i : i + 64] of bytes, where the target's are one cache line."""

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        line = ir.VectorType(ir.IntType(64), _LINE // 8).as_pointer()
        places = []
        for kind, array in zip(signature.args[:2], args[:2], strict=True):
            data = context.make_array(kind)(context, builder, array).data
            places.append(builder.bitcast(builder.gep(data, [args[2]]), line))
        store = builder.store(builder.load(places[1], align=1), places[0], align=_LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(target, source, i), write


@intrinsic
def _finish(_):  # type: ignore[no-untyped-def]
    """Let what was stored be seen before anything that is stored from now on."""

    def write(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.sfence"), [])
        return context.get_dummy_value()

    return types.void(), write


@serial("void(uint8[::1], uint8[::1])")
def copy(target, source):
    """target[...] = source, of bytes that do not overlap."""
    i = 0
    while i < target.size and (target.ctypes.data + i) % _LINE:
        target[i] = source[i]
        i += 1
    while i + _LINE <= target.size:
        _copy_line(target, source, i)
        i += _LINE
    while i < target.size:
        target[i] = source[i]
        i += 1
    _finish()
