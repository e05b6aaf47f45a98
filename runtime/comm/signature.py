"""What a rank is about to call, as something that ranks can compare in one number and explain in words."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np

from .reduction import ReduceOp, check_op


class CollectiveMismatchError(RuntimeError):
    """The ranks called different collectives, or the same one with arguments that do not fit together."""


class Call:
    """One collective with what has to be equal on all ranks; made once for each combination.

    Attributes:
        kind: name of the method, with the arguments that have no place below.
        dtype, shape: those of the array, or None; for a list of arrays the tuple of their shapes.
        op: the reduction, or "".
        root: the rank that sends or receives, or -1.
        place: "" in host memory, "cuda" on a device.
        digest: 40 bits of a hash that is the same in every process, unlike Python's own.
    """

    __slots__ = ("digest", "dtype", "kind", "op", "place", "root", "shape")

    def __init__(
        self, kind: str, dtype: np.dtype | None, shape: tuple | None, op: ReduceOp | str, root: int, place: str
    ) -> None:
        self.kind = kind
        self.dtype = dtype
        self.shape = shape
        self.op: Any = op
        self.root = root
        self.place = place
        self.digest = int.from_bytes(hashlib.blake2b(str(self).encode(), digest_size=5).digest(), "big")

    def __str__(self) -> str:
        """The call as a reader would write it."""
        parts = [f"{self.place} {self.dtype} {_shape_text(self.shape)}".lstrip()] if self.shape is not None else []
        parts += [f"op={self.op}"] if self.op else []
        parts += [f"root={self.root}"] if self.root >= 0 else []
        return self.kind if self.kind.endswith(")") else f"{self.kind}({', '.join(parts)})"

    @property
    def nbytes(self) -> int:
        """Size of this rank's array; 0 where there is none."""
        if self.dtype is None or self.shape is None:
            return 0
        shapes = self.shape if self.shape and isinstance(self.shape[0], tuple) else (self.shape,)
        return self.dtype.itemsize * sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes)


@functools.lru_cache(maxsize=4096)
def call_of(
    kind: str, dtype: np.dtype | None = None, shape: tuple | None = None, root: int = -1, place: str = ""
) -> Call:
    """A collective that moves elements as they are."""
    return Call(kind, dtype, shape, "", root, place)


@functools.lru_cache(maxsize=4096)
def reduction_of(kind: str, dtype: np.dtype, shape: tuple, op: ReduceOp | str, root: int = -1, place: str = "") -> Call:
    """A collective that combines elements; TypeError or ValueError if this dtype has no such operation."""
    if dtype.hasobject:
        raise refusal_of_objects(kind)
    return Call(kind, dtype, shape, check_op(kind, op, dtype), root, place)


def refusal_of_objects(kind: str) -> TypeError:
    """The error for arrays that hold pointers, which mean nothing to another rank."""
    return TypeError(f"{kind}(): arrays of Python objects cannot be sent; use {kind}_object for objects")


def _shape_text(shape: tuple) -> str:
    return str([list(each) if isinstance(each, tuple) else each for each in shape])
