"""What every communicator does: arguments checked, signatures compared across ranks, arrays made flat for the backend.

A backend implements the methods with a leading underscore, on contiguous one-dimensional host arrays (`flat`) and on
matrices with one row per rank (`rows`).
"""

from __future__ import annotations

import enum
import functools
import hashlib
import pickle
import sys
from typing import Any, NoReturn, Self

import numpy as np

from ..arrays import Array, module_of, to_host
from ..world import World


class ReduceOp(enum.StrEnum):
    """How all_reduce and reduce_scatter combine the ranks' elements."""

    SUM = "sum"
    PRODUCT = "prod"
    MIN = "min"
    MAX = "max"


class CollectiveMismatchError(RuntimeError):
    """The ranks called different collectives, or the same one with arguments that do not fit together."""


class Work:
    """Handle of a collective called with `async_op=True`; the backends so far have finished when they return it."""

    def wait(self) -> None:
        """Block until the result is in its array."""

    def is_completed(self) -> bool:
        """Whether the result is in its array."""
        return True


class Comm:
    """A group of ranks that exchange arrays.

    Every rank of the group has to make the same calls in the same order. That is checked at every call before data
    moves, and a difference raises the same CollectiveMismatchError on all ranks, with each rank's call and line.
    Arrays are NumPy's or CuPy's, of any shape and memory layout. float16 and bfloat16 are summed in float32.

    Attributes:
        rank: number of this process in the group, 0 .. size - 1.
        size: number of processes in the group.
        backend: name of the implementation.
    """

    backend: str

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self._calls = 0
        self._kind = ""  # the collective under way, for a backend's messages

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rank={self.rank}, size={self.size})"

    # Collectives

    def all_reduce(self, array: Array, op: ReduceOp | str = ReduceOp.SUM, async_op: bool = False) -> Work | None:
        """Combine `array` elementwise over all ranks, in place: array = op(array of rank 0, array of rank 1, ...).

        Args:
            array: same shape and dtype on every rank; bool (sum is "or", product is "and"), integer, float or complex.
            op: ReduceOp.SUM, PRODUCT, MIN or MAX.
            async_op: return a Work to wait for, instead of waiting.

        Raises:
            CollectiveMismatchError: the ranks' calls differ.
            TypeError: the dtype has no such reduction.
        """
        _check_arrays("all_reduce", array)
        op = _check_op("all_reduce", op, array.dtype)
        self._agree("all_reduce", array, op)
        flat = _flat(array, _wide(array.dtype))
        self._all_reduce(flat, op)
        _restore(array, flat)
        return _finished(async_op)

    def broadcast(self, array: Array, src: int = 0, async_op: bool = False) -> Work | None:
        """Overwrite `array` on every rank by that of rank `src`; same shape and dtype everywhere."""
        _check_arrays("broadcast", array)
        self._check_rank("broadcast", "src", src)
        self._agree("broadcast", array, root=src)
        flat = _flat(array)
        self._broadcast(flat, src)
        _restore(array, flat)
        return _finished(async_op)

    def all_gather(self, output: Array, array: Array, async_op: bool = False) -> Work | None:
        """Fill `output` on every rank by all ranks' arrays in rank order.

        Args:
            output: `size` times as many elements as `array`, for instance [size, *array.shape]; same dtype.
            array: same shape and dtype on every rank.
            async_op: return a Work to wait for, instead of waiting.
        """
        _check_arrays("all_gather", array, output)
        self._check_whole("all_gather", "output", output, "array", array)
        self._agree("all_gather", array)
        rows = self._rows(output)
        self._all_gather(rows, _flat(array))
        _restore(output, rows)
        return _finished(async_op)

    def reduce_scatter(
        self, output: Array, array: Array, op: ReduceOp | str = ReduceOp.SUM, async_op: bool = False
    ) -> Work | None:
        """Combine `array` over all ranks and leave on rank r its r-th part in `output`.

        Args:
            output: one part.
            array: `size` parts in rank order, for instance [size, *output.shape]; same dtype.
            op: ReduceOp.SUM, PRODUCT, MIN or MAX.
            async_op: return a Work to wait for, instead of waiting.
        """
        _check_arrays("reduce_scatter", array, output)
        self._check_whole("reduce_scatter", "array", array, "output", output)
        op = _check_op("reduce_scatter", op, array.dtype)
        self._agree("reduce_scatter", output, op)
        wide = _wide(array.dtype)
        flat = _flat(output, wide)
        self._reduce_scatter(flat, self._rows(array, wide), op)
        _restore(output, flat)
        return _finished(async_op)

    def all_to_all(self, output: Array, array: Array, async_op: bool = False) -> Work | None:
        """Send the r-th of `size` equal parts of `array` to rank r; `output` gets the ranks' parts in rank order."""
        _check_arrays("all_to_all", array, output)
        if array.shape != output.shape or array.size % self.size:
            raise ValueError(
                f"all_to_all(): array {list(array.shape)} and output {list(output.shape)} should have the same shape, "
                f"with a number of elements that {self.size} ranks can share"
            )
        self._agree("all_to_all", array)
        rows = self._rows(output)
        self._all_to_all(rows, self._rows(array))
        _restore(output, rows)
        return _finished(async_op)

    def gather(self, output: Array | None, array: Array, dst: int = 0, async_op: bool = False) -> Work | None:
        """Fill `output` on rank `dst` by all ranks' arrays in rank order; the other ranks pass None."""
        self._check_rank("gather", "dst", dst)
        rows = self._check_root_array("gather", "output", output, array, dst)
        self._agree("gather", array, root=dst)
        self._gather(rows, _flat(array), dst)
        if rows is not None:
            _restore(output, rows)
        return _finished(async_op)

    def scatter(self, output: Array, array: Array | None, src: int = 0, async_op: bool = False) -> Work | None:
        """Fill `output` on rank r by the r-th of `size` equal parts of `array` of rank `src`; the others pass None."""
        self._check_rank("scatter", "src", src)
        rows = self._check_root_array("scatter", "array", array, output, src)
        self._agree("scatter", output, root=src)
        flat = _flat(output)
        self._scatter(flat, rows, src)
        _restore(output, flat)
        return _finished(async_op)

    def barrier(self, async_op: bool = False) -> Work | None:
        """Return when every rank has called it."""
        self._agree("barrier")
        self._barrier()
        return _finished(async_op)

    # Point to point: two ranks only, so there is no signature to compare.

    def send(self, array: Array, dst: int, tag: int = 0) -> None:
        """Send `array` to rank `dst`, which calls recv with an array of the same size and dtype."""
        _check_arrays("send", array)
        self._check_peer("send", "dst", dst)
        self._send(_flat(array), dst, tag)

    def recv(self, array: Array, src: int, tag: int = 0) -> None:
        """Overwrite `array` by the next one that rank `src` sends to this rank with this tag."""
        _check_arrays("recv", array)
        self._check_peer("recv", "src", src)
        flat = _flat(array)
        self._recv(flat, src, tag)
        _restore(array, flat)

    # Objects, for control: pickled between ranks of one job, never read from a file.

    def all_gather_object(self, obj: Any) -> list[Any]:
        """All ranks' objects in rank order, on every rank; each must be picklable."""
        payload = pickle.dumps(obj)
        self._agree("all_gather_object")
        return [pickle.loads(each) for each in self._all_gather_bytes(payload)]

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """All ranks' objects in rank order on rank `dst`, None on the others."""
        self._check_rank("gather_object", "dst", dst)
        payload = _as_bytes(pickle.dumps(obj))
        self._agree("gather_object", root=dst)
        sizes = self._all_gather_sizes(payload.size)
        rows = np.empty((self.size, max(sizes)), np.uint8) if self.rank == dst else None
        self._gather(rows, _padded(payload, max(sizes)), dst)
        return None if rows is None else [pickle.loads(row[:n].data) for row, n in zip(rows, sizes, strict=True)]

    def broadcast_object(self, obj: Any, src: int = 0) -> Any:
        """Rank `src`'s object, on every rank; what the others pass does not matter."""
        self._check_rank("broadcast_object", "src", src)
        payload = _as_bytes(pickle.dumps(obj if self.rank == src else None))
        self._agree("broadcast_object", root=src)
        size = self._all_gather_sizes(payload.size)[src]
        if self.rank != src:
            payload = np.empty(size, np.uint8)
        self._broadcast(payload, src)
        return pickle.loads(payload.data)

    def split(self, color: int | None, key: int = 0) -> Comm | None:
        """Communicator of the ranks that pass the same color, ordered by (key, rank); None for a color of None."""
        self._agree("split")
        return self._split(color, key)

    # The signature check

    def _agree(self, kind: str, array: Array | None = None, op: str = "", root: int = -1) -> None:
        """Raise the same error on all ranks unless they all make this call now."""
        self._calls += 1
        self._kind = kind
        dtype, shape = (None, None) if array is None else (array.dtype, array.shape)
        if not self._same_everywhere(_digest(kind, dtype, shape, op, root) ^ self._calls):
            self._raise_mismatch(_describe(kind, dtype, shape, op, root))

    def _raise_mismatch(self, call: str) -> NoReturn:
        """Explain, from every rank's side; this is the slow path, so the source line is looked up only now."""
        mine = f"call {self._calls}: {call} at {_user_line()}"
        calls = [text.decode() for text in self._all_gather_bytes(mine.encode())]
        lines = "".join(f"\n  rank {rank}: {text}" for rank, text in enumerate(calls))
        raise CollectiveMismatchError(f"the ranks do not make the same collective call; no data was moved:{lines}")

    # Helpers of the collectives

    def _rows(self, array: Array, dtype: np.dtype | None = None) -> np.ndarray:
        """`array` as a contiguous host matrix with one row per rank."""
        return _flat(array, dtype).reshape(self.size, array.size // self.size)

    def _all_gather_bytes(self, payload: bytes) -> list[bytes]:
        """All ranks' byte strings."""
        sizes = self._all_gather_sizes(len(payload))
        rows = np.empty((self.size, max(sizes)), np.uint8)
        self._all_gather(rows, _padded(_as_bytes(payload), max(sizes)))
        return [row[:n].tobytes() for row, n in zip(rows, sizes, strict=True)]

    def _all_gather_sizes(self, size: int) -> list[int]:
        """All ranks' numbers of bytes."""
        sizes = np.empty((self.size, 1), np.int64)
        self._all_gather(sizes, np.array([size]))
        return sizes[:, 0].tolist()

    def _check_rank(self, kind: str, name: str, rank: int) -> None:
        """Refuse a rank that this communicator does not have."""
        if not isinstance(rank, int) or not 0 <= rank < self.size:
            raise ValueError(f"{kind}(): {name} should be a rank from 0 to {self.size - 1}, got {rank!r}")

    def _check_peer(self, kind: str, name: str, rank: int) -> None:
        """Refuse what would wait for itself."""
        self._check_rank(kind, name, rank)
        if rank == self.rank:
            raise ValueError(f"{kind}(): {name} is this rank itself ({rank}); it should be another one")

    def _check_whole(self, kind: str, whole_name: str, whole: Array, part_name: str, part: Array) -> None:
        """Check that `whole` has room for one `part` per rank."""
        if whole.dtype != part.dtype:
            raise TypeError(f"{kind}(): {whole_name} is {whole.dtype} but {part_name} is {part.dtype}")
        if whole.size != self.size * part.size:
            raise ValueError(
                f"{kind}(): {whole_name} {list(whole.shape)} has {whole.size} elements, expected {self.size} (one part "
                f"per rank) times the {part.size} of {part_name} {list(part.shape)}"
            )

    def _check_root_array(self, kind: str, name: str, whole: Array | None, part: Array, root: int) -> np.ndarray | None:
        """The root's rows for gather and scatter; None on the other ranks."""
        if self.rank != root:
            if whole is not None:
                raise ValueError(f"{kind}(): {name} should be None on rank {self.rank}: only rank {root} has it")
            _check_arrays(kind, part)
            return None
        _check_arrays(kind, part, whole)
        self._check_whole(kind, name, whole, "the part", part)
        return self._rows(whole)

    # What a backend implements

    @classmethod
    def from_world(cls, world: World) -> Self:
        """The communicator of all ranks of this process's job."""
        raise NotImplementedError(f"{cls.__name__} does not connect processes")

    def _same_everywhere(self, digest: int) -> bool:
        """Whether all ranks pass the same number of 62 bits."""
        raise NotImplementedError

    def _all_reduce(self, flat: np.ndarray, op: ReduceOp) -> None:
        raise NotImplementedError

    def _broadcast(self, flat: np.ndarray, root: int) -> None:
        raise NotImplementedError

    def _all_gather(self, rows: np.ndarray, flat: np.ndarray) -> None:
        raise NotImplementedError

    def _reduce_scatter(self, flat: np.ndarray, rows: np.ndarray, op: ReduceOp) -> None:
        raise NotImplementedError

    def _all_to_all(self, out_rows: np.ndarray, in_rows: np.ndarray) -> None:
        raise NotImplementedError

    def _gather(self, rows: np.ndarray | None, flat: np.ndarray, root: int) -> None:
        raise NotImplementedError

    def _scatter(self, flat: np.ndarray, rows: np.ndarray | None, root: int) -> None:
        raise NotImplementedError

    def _send(self, flat: np.ndarray, dst: int, tag: int) -> None:
        raise NotImplementedError

    def _recv(self, flat: np.ndarray, src: int, tag: int) -> None:
        raise NotImplementedError

    def _barrier(self) -> None:
        raise NotImplementedError

    def _split(self, color: int | None, key: int) -> Comm | None:
        raise NotImplementedError


_WORK = Work()


def _finished(async_op: bool) -> Work | None:
    """What a collective returns that is already done."""
    return _WORK if async_op else None


def _check_arrays(kind: str, *arrays: Array) -> None:
    """Refuse what is no array, or holds pointers, which mean nothing to another rank."""
    for array in arrays:
        if not isinstance(array, np.ndarray) and not hasattr(array, "__cuda_array_interface__"):
            raise TypeError(f"{kind}(): expected a NumPy or CuPy array, got {type(array).__name__}")
        if array.dtype.hasobject:
            raise TypeError(f"{kind}(): arrays of Python objects cannot be sent; use {kind}_object for objects")


def _check_op(kind: str, op: ReduceOp | str, dtype: np.dtype) -> ReduceOp:
    """The operation, if it exists and this dtype has it."""
    try:
        op = ReduceOp(op)
    except ValueError:
        raise ValueError(f"{kind}(): op should be one of {', '.join(ReduceOp)}, got {op!r}") from None
    ordered = dtype.kind in "biuf" or dtype.name == "bfloat16"
    if not ordered and (dtype.kind != "c" or op in (ReduceOp.MIN, ReduceOp.MAX)):
        raise TypeError(f"{kind}(): op {op} is not defined for dtype {dtype}")
    return op


def _wide(dtype: np.dtype) -> np.dtype | None:
    """The dtype in which to reduce, where it is not the array's own: half precision would lose bits at every rank."""
    return np.dtype(np.float32) if dtype.itemsize == 2 and (dtype.kind == "f" or dtype.name == "bfloat16") else None


def _flat(array: Array, dtype: np.dtype | None = None) -> np.ndarray:
    """`array` as one contiguous row on the host in native byte order: a view where it is that already, else a copy."""
    host = to_host(array)
    return np.asarray(host, dtype or host.dtype.newbyteorder("="), order="C").reshape(-1)


def _restore(array: Array, flat: np.ndarray) -> None:
    """Copy the result into `array`, unless `flat` is a view of it."""
    if not (isinstance(array, np.ndarray) and np.may_share_memory(array, flat)):
        array[...] = module_of(array).asarray(flat.reshape(array.shape))


def _as_bytes(payload: bytes) -> np.ndarray:
    return np.frombuffer(payload, np.uint8)


def _padded(payload: np.ndarray, size: int) -> np.ndarray:
    """`payload` with zeros behind it."""
    padded = np.zeros(size, np.uint8)
    padded[: payload.size] = payload
    return padded


def _describe(kind: str, dtype: np.dtype | None, shape: tuple[int, ...] | None, op: str, root: int) -> str:
    """The call as a reader would write it."""
    parts = [f"{dtype} {list(shape)}"] if shape is not None else []
    parts += [f"op={op}"] if op else []
    parts += [f"root={root}"] if root >= 0 else []
    return f"{kind}({', '.join(parts)})"


@functools.lru_cache(maxsize=4096)
def _digest(kind: str, dtype: np.dtype | None, shape: tuple[int, ...] | None, op: str, root: int) -> int:
    """62 bits of a hash that is the same in every process, unlike Python's own."""
    text = _describe(kind, dtype, shape, op, root)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2


def _user_line() -> str:
    """File and line of the innermost caller outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "paceline":
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
