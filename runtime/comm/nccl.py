"""Arrays on GPUs move between ranks by NCCL, whose calls are put on the current stream. One rank, one GPU."""

from __future__ import annotations

import contextlib
import socket
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import arrays
from ..arrays import Array, address_of, module_of, shares_memory
from .batches import Message
from .mover import Mover
from .objects import all_gather_bytes
from .reduction import ReduceOp, combine, is_half
from .signature import Call

if TYPE_CHECKING:
    from .base import Comm

# NumPy's names of what NCCL reduces, and its own. Complex numbers are added as pairs.
_NUMBERS = {
    "int8": "INT8",
    "uint8": "UINT8",
    "int32": "INT32",
    "uint32": "UINT32",
    "int64": "INT64",
    "uint64": "UINT64",
    "float32": "FLOAT32",
    "float64": "FLOAT64",
}
_PAIRS = {"complex64": "FLOAT32", "complex128": "FLOAT64"}
_OPS = {
    ReduceOp.SUM: "SUM",
    ReduceOp.AVG: "AVG",
    ReduceOp.PRODUCT: "PROD",
    ReduceOp.MIN: "MIN",
    ReduceOp.MAX: "MAX",
}
_PAIR_OPS = {ReduceOp.SUM: "SUM", ReduceOp.AVG: "AVG"}
_BOOL_OPS = {
    ReduceOp.SUM: "MAX",
    ReduceOp.PRODUCT: "MIN",
    ReduceOp.MIN: "MIN",
    ReduceOp.MAX: "MAX",
    ReduceOp.BAND: "MIN",
    ReduceOp.BOR: "MAX",
}


def connect(host: Comm) -> Mover:
    """Join the ranks of a communicator by NCCL; all of them call it.

    Returns:
        What moves device arrays between them: where NCCL cannot, on all ranks, the communicator of host arrays itself.
    """
    binding = arrays.nccl()
    found = [each.decode() for each in all_gather_bytes(host, b"" if binding is None else gpu_name().encode())]
    missing = [rank for rank, name in enumerate(found) if not name]
    shared = sorted({name for name in found if name and found.count(name) > 1})
    if binding is None or missing or shared:
        if host.rank == 0:
            why = f"there is no NCCL on ranks {missing}: pip install nvidia-nccl-cu13 (or -cu12)"
            if not missing:
                why = f"several ranks use the same GPU ({', '.join(shared)}): see torch.cuda.set_device()"
            warnings.warn(f"arrays on GPUs travel through host memory: {why}", stacklevel=2)
        return host
    unique_id = np.zeros(128, np.uint8)
    if host.rank == 0:
        unique_id[:] = np.frombuffer(binding.get_unique_id(), np.uint8)
    host._broadcast(unique_id, 0)
    return NcclMover(binding, binding.NcclCommunicator(host.size, unique_id.tobytes(), host.rank), host.rank, host.size)


def gpu_name() -> str:
    """This rank's GPU, as no other one in the job is called."""
    cuda = arrays.cupy().cuda  # type: ignore[union-attr]
    return f"{socket.gethostname()} {cuda.runtime.deviceGetPCIBusId(cuda.runtime.getDevice())}"


class NcclMover(Mover):
    """One rank of an NCCL communicator.

    Args:
        binding: cupy.cuda.nccl.
        communicator: its NcclCommunicator, which belongs to this object alone.
        rank, size: place in it.
    """

    def __init__(self, binding: ModuleType, communicator: Any, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self._binding = binding
        self._communicator = communicator

    def takes(self, call: Call) -> bool:
        if call.dtype is None or not call.op:
            return True
        return is_half(call.dtype) or _reduction(call.dtype, call.op) is not None

    def check(self) -> None:
        """Raise what has gone wrong since, on this rank's device or on the way to the others."""
        self._communicator.check_async_error()

    def abort(self) -> None:
        """Give up what is under way on the device, which waits for the other ranks for ever otherwise."""
        self._communicator.abort()

    def close(self) -> None:
        """End the communicator; every rank calls it, at the same place among those of other communicators."""
        self._communicator.destroy()

    def _flat(self, array: Array) -> Array:
        return module_of(array).ascontiguousarray(array).reshape(-1)

    def _agree_and_all_reduce(self, tag: int, flat: Array, op: ReduceOp) -> bool:
        if is_half(flat.dtype):
            self._all_reduce_halves(flat, op)
        else:
            at = address_of(flat)
            self._communicator.allReduce(at, at, *self._reduction(flat, op), _stream())
        return True

    def _reduce(self, flat: Array, op: ReduceOp, root: int) -> None:
        if is_half(flat.dtype):
            rows = module_of(flat).empty((self.size, flat.size), flat.dtype) if self.rank == root else None
            self._gather(rows, flat, root)
            if rows is not None:
                combine(op, list(rows), flat)
        else:
            at = address_of(flat)
            self._communicator.reduce(at, at, *self._reduction(flat, op), root, _stream())

    def _broadcast(self, flat: Array, root: int) -> None:
        at = address_of(flat)
        self._communicator.broadcast(at, at, flat.nbytes, self._binding.NCCL_UINT8, root, _stream())

    def _all_gather(self, rows: Array, flat: Array) -> None:
        self._communicator.allGather(
            address_of(flat), address_of(rows), flat.nbytes, self._binding.NCCL_UINT8, _stream()
        )

    def _reduce_scatter(self, flat: Array, rows: Array, op: ReduceOp) -> None:
        if is_half(flat.dtype):
            parts = module_of(rows).empty_like(rows)
            self._all_to_all(parts, rows)
            combine(op, list(parts), flat)
        else:
            self._communicator.reduceScatter(address_of(rows), address_of(flat), *self._reduction(flat, op), _stream())

    def _all_to_all(self, out_rows: Array, in_rows: Array) -> None:
        self._exchange(list(out_rows), list(in_rows.copy() if shares_memory(in_rows, out_rows) else in_rows))

    def _exchange(self, outputs: Sequence[Array], arrays: Sequence[Array]) -> None:
        sends = [Message(array, peer, 0, True) for peer, array in enumerate(arrays)]
        self.exchange_messages([*sends, *(Message(output, peer, 0, False) for peer, output in enumerate(outputs))])

    def exchange_messages(self, messages: Sequence[Message]) -> None:
        """Send and receive all at once; every message's other end is among those that its peer exchanges now."""
        flats = [self._flat(message.array) for message in messages]  # kept until all is on the stream
        with self._at_once():
            for flat, message in zip(flats, messages, strict=True):
                (self._send if message.sends else self._recv)(flat, message.peer)  # type: ignore[arg-type]  # they have one
        for flat, (array, _, _, sends) in zip(flats, messages, strict=True):
            if not sends and address_of(array) != address_of(flat):
                array[...] = flat.reshape(array.shape)

    def _gather(self, rows: Array | None, flat: Array, root: int) -> None:
        with self._at_once():
            self._send(flat, root)
            if rows is not None:
                for peer, row in enumerate(rows):
                    self._recv(row, peer)

    def _scatter(self, flat: Array, rows: Array | None, root: int) -> None:
        with self._at_once():
            if rows is not None:
                for peer, row in enumerate(rows):
                    self._send(row, peer)
            self._recv(flat, root)

    @contextlib.contextmanager
    def _at_once(self) -> Iterator[None]:
        """Start the calls inside as one: in turn, two ranks that send to each other would both wait to be received."""
        self._binding.groupStart()
        try:
            yield
        finally:
            self._binding.groupEnd()

    def _send(self, flat: Array, peer: int) -> None:
        self._communicator.send(address_of(flat), flat.nbytes, self._binding.NCCL_UINT8, peer, _stream())

    def _recv(self, flat: Array, peer: int) -> None:
        self._communicator.recv(address_of(flat), flat.nbytes, self._binding.NCCL_UINT8, peer, _stream())

    def _reduction(self, flat: Array, op: ReduceOp) -> tuple[int, int, int]:
        """Count, data type and operation, as NCCL's reductions take them."""
        found = _reduction(flat.dtype, op)
        assert found is not None, "takes() has refused the others"
        number, how = (getattr(self._binding, f"NCCL_{name}") for name in found)
        return flat.size * (1 + (flat.dtype.kind == "c")), number, how

    def _all_reduce_halves(self, flat: Array, op: ReduceOp) -> None:
        """Each rank combines one part in float32, as NCCL does not; the wire carries as much as in its own way."""
        gap = -flat.size % self.size
        padded = module_of(flat).pad(flat, (0, gap)) if gap else flat
        rows = padded.reshape(self.size, -1)
        self._reduce_scatter(rows[self.rank], rows, op)
        self._all_gather(rows, rows[self.rank])
        if gap:
            flat[:] = padded[: flat.size]


def _reduction(dtype: np.dtype, op: ReduceOp) -> tuple[str, str] | None:
    """NCCL's names of the data type and operation that reduce these elements, if it has any."""
    if dtype.kind == "b":
        names, ops = {"bool": "UINT8"}, _BOOL_OPS
    else:
        names, ops = (_PAIRS, _PAIR_OPS) if dtype.kind == "c" else (_NUMBERS, _OPS)
    return (names[dtype.name], ops[op]) if dtype.name in names and op in ops else None


def _stream() -> int:
    """The current stream's handle."""
    return arrays.cupy().cuda.get_current_stream().ptr  # type: ignore[union-attr]
