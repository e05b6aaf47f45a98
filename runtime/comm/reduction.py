"""How the ranks' elements become one: the operations, and the sum of host arrays in rank order."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Sequence

import numpy as np


class ReduceOp(enum.StrEnum):
    """How all_reduce, reduce and reduce_scatter combine the ranks' elements."""

    SUM = "sum"
    AVG = "avg"
    PRODUCT = "prod"
    MIN = "min"
    MAX = "max"
    BAND = "band"
    BOR = "bor"
    BXOR = "bxor"


_AVG = ReduceOp.AVG  # looking it up in the class would cost as much as a small sum
_BITWISE = (ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR)
_FOLDS = {
    ReduceOp.SUM: np.add,
    ReduceOp.AVG: np.add,
    ReduceOp.PRODUCT: np.multiply,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
    ReduceOp.BAND: np.bitwise_and,
    ReduceOp.BOR: np.bitwise_or,
    ReduceOp.BXOR: np.bitwise_xor,
}


_HALF = "eE"  # NumPy's characters of float16 and ml_dtypes' of bfloat16


def is_half(dtype: np.dtype) -> bool:
    """Whether it is float16 or bfloat16."""
    return dtype.char in _HALF


def check_op(kind: str, op: ReduceOp | str, dtype: np.dtype) -> ReduceOp:
    """The operation, if it exists and this dtype has it."""
    try:
        op = ReduceOp(op)
    except ValueError:
        raise ValueError(f"{kind}(): op should be one of {', '.join(ReduceOp)}, got {op!r}") from None
    real = dtype.kind == "f" or is_half(dtype)
    if op in _BITWISE:
        defined = dtype.kind in "biu"
    elif op is _AVG:
        defined = real or dtype.kind == "c"
    else:
        defined = real or dtype.kind in "biu" or (dtype.kind == "c" and op not in (ReduceOp.MIN, ReduceOp.MAX))
    if not defined:
        raise TypeError(f"{kind}(): op {op} is not defined for dtype {dtype}")
    return op


def divide(array: np.ndarray, count: int) -> None:
    """array /= count in place; by a power of two as a product, which gives the same bits in a fifth of the time."""
    if count & (count - 1):
        array /= count
    else:
        array *= 1 / count


def combiner(op: ReduceOp, sources: Sequence[np.ndarray]) -> Callable[[np.ndarray], object]:
    """`combine` as a function of `out`, for sources whose arrays stay the same."""
    if len(sources) == 2 and op is not _AVG and not is_half(sources[0].dtype):
        return functools.partial(_FOLDS[op], *sources)
    return functools.partial(combine, op, sources)


def combine(op: ReduceOp, sources: Sequence[np.ndarray], out: np.ndarray) -> None:
    """out = sources[0] op sources[1] op ..., always from left to right, so that the bits depend on nothing else.

    Half precision is added in float32 and rounded once. `out` may be sources[0] or sources[1], and no later one.
    """
    fold = _FOLDS[op]
    if out.dtype.char in _HALF:
        wide = sources[0].astype(np.float32)
        for source in sources[1:]:
            fold(wide, source.astype(np.float32), out=wide)
        if op is _AVG:
            divide(wide, len(sources))
        out[...] = wide
        return
    if len(sources) == 1:
        out[...] = sources[0]
        return
    fold(sources[0], sources[1], out=out)
    if len(sources) > 2:
        for source in sources[2:]:
            fold(out, source, out=out)
    if op is _AVG:
        divide(out, len(sources))
