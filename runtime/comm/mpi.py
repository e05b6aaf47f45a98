"""Communicator over MPI. The one file that imports mpi4py, and only in a process that was started in parallel."""

from __future__ import annotations

import contextlib
import functools
import importlib
import mmap
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Self, TypeVar

import numpy as np

from .. import faults
from ..arrays import Array
from ..shareable import pages_of, reserve
from ..world import World
from . import direct, messages, prepared
from .base import Comm
from .deadlock import Lookout
from .reduction import ReduceOp, combine, divide, is_half
from .region import Region
from .signature import Call, call_of
from .window import SUPPORTED, Window, window_bytes
from .work import Receipt, Work

# Larger calls get half the bandwidth, from temporaries that the MPI libraries map and page-fault anew each time.
PIECE_BYTES = 16 << 20

# Below, the rounds through shared memory cost more than MPI's own way through all ranks.
HIERARCHY_BYTES = 64 << 10

# Of the largest array. Below, MPI copies through the caches in less time than the kernel between processes.
DIRECT_BYTES = {"reduce_scatter": 64 << 10, "broadcast": 256 << 10, "all_gather": 16 << 20}

T = TypeVar("T")

# Names in mpi4py.MPI, whose sums, maxima and bitwise operations take no booleans.
_OPS = {
    ReduceOp.SUM: "SUM",
    ReduceOp.AVG: "SUM",
    ReduceOp.PRODUCT: "PROD",
    ReduceOp.MIN: "MIN",
    ReduceOp.MAX: "MAX",
    ReduceOp.BAND: "BAND",
    ReduceOp.BOR: "BOR",
    ReduceOp.BXOR: "BXOR",
}
_BOOL_OPS = {
    ReduceOp.SUM: "LOR",
    ReduceOp.PRODUCT: "LAND",
    ReduceOp.MIN: "LAND",
    ReduceOp.MAX: "LOR",
    ReduceOp.BAND: "LAND",
    ReduceOp.BOR: "LOR",
    ReduceOp.BXOR: "LXOR",
}


class MpiComm(Comm):
    """The ranks of an MPI communicator, which belongs to this object alone."""

    backend = "mpi"

    def __init__(self, mpi: Any, comm: Any, ranks: tuple[int, ...]) -> None:
        super().__init__(comm.rank, ranks)
        if faults.flight_recorder is not None:
            self._recorder = faults.flight_recorder
            self._group_name = self._recorder.name_group(ranks)
        self._mpi = mpi
        self._users = comm
        # A duplicate, so that the user's own calls on `comm` cannot be mistaken for ours.
        self._comm = comm.Dup()
        # Ranks on one machine share memory; of several machines, each slice of it is reduced by ranks of its own.
        self._window, self._across = _open_window(mpi, self._comm, self._lookout())
        self._cells = functools.lru_cache(maxsize=4096)(self._find_cells)
        self._sent = np.empty(3, np.int64)
        self._seen = np.empty(3, np.int64)
        # Made once: describing a buffer to mpi4py costs more than the message.
        self._sent_buffer = [self._sent, mpi.INT64_T]
        self._seen_buffer = [self._seen, mpi.INT64_T]

    @classmethod
    def from_world(cls, world: World) -> Self:
        mpi = _load_mpi()
        found = mpi.COMM_WORLD
        if (found.rank, found.size) != (world.rank, world.size):
            library = mpi.Get_library_version().splitlines()[0].strip(" \0")
            raise RuntimeError(
                f"{world.launcher} started this process as rank {world.rank} of {world.size}, but the MPI library that "
                f"mpi4py loaded ({library}) sees rank {found.rank} of {found.size}: the launcher and the library are "
                "of different MPIs. Start the job with that library's own mpiexec or with `paceline run`; "
                "`paceline doctor` shows which ones are installed"
            )
        comm = cls(mpi, found, tuple(range(found.size)))
        if world.local_rank == 0:
            _unlink_shared_memory()  # after Dup, for which all ranks must have started MPI
        return comm

    @property
    def mpi4py(self) -> Any:
        return self._users

    def leave(self) -> None:
        # The user may have closed it, or ended MPI himself.
        if not self._mpi.Is_finalized() and self._comm != self._mpi.COMM_NULL:
            super().leave()

    def close(self) -> None:
        super().close()
        self._comm.Free()
        if self._users != self._mpi.COMM_WORLD:
            self._users.Free()

    def share(self, array: Array) -> Region | None:
        pages = pages_of(array)
        return self._map("share", lambda window: window.share(pages))

    def common(self, nbytes: int) -> mmap.mmap | None:
        return self._map(f"common({nbytes})", lambda window: window.common(nbytes))

    def _map(self, kind: str, act: Callable[[Window], T]) -> T | None:
        """What the window returns once all ranks have come; None if they are not all on one machine."""
        if self._window is None or self._across is not None:
            return None
        window: Window = self._window
        found: list[T] = []
        self._start(call_of(kind), lambda: found.append(act(window)), None, False)
        return found[0]

    def _same_everywhere(self, tag: int) -> bool:
        if self._window is not None and self._across is None:
            return self._window.meet(tag)
        return self._compare(tag)[0]

    def _compare(self, tag: int, lends: bool = False) -> tuple[bool, bool]:
        """Whether all ranks pass the same tag, and whether all of them lend their arrays."""
        # All equal if and only if the largest is mine and so is the smallest.
        self._sent[:] = tag, -tag, not lends
        self._comm.Allreduce(self._sent_buffer, self._seen_buffer, self._mpi.MAX)
        largest, smallest, some_do_not = self._seen.tolist()
        return (largest, smallest) == (tag, -tag), not some_do_not

    def _agree_and_all_reduce(self, tag: int, flat: np.ndarray, op: ReduceOp) -> bool:
        if self._window is not None and self._across is None:
            return self._window.all_reduce(tag, flat, op)
        total = _widened(flat)
        window = self._window if total.nbytes > HIERARCHY_BYTES else None
        same, all_lend = self._compare(tag, window is not None and window.lends(total))
        if not same:
            return False
        plain = ReduceOp.SUM if op is ReduceOp.AVG else op
        if window is not None:
            window.all_reduce(0, total, plain, lambda part: self._reduce_by_mpi(self._across, part, plain), all_lend)
        else:
            self._reduce_by_mpi(self._comm, total, plain)
        self._finish_reduction(op, total, flat)
        return True

    def _prepare(self, kind: str, dtype: np.dtype, shape: tuple, *others: Any) -> prepared.Perform | None:
        recorder, window = self._recorder, self._window
        call = prepared.call_for(self.size, kind, dtype, shape, *others)
        if call is None or recorder is None or window is None:
            return None
        cells = self._cells(call, shape)
        return None if cells is None else prepared.prepare(self, window, recorder, call, cells)

    def _find_cells(self, call: Call, shape: tuple) -> list[prepared.Cell] | None:
        """Where arrays of this shape are shown to the other ranks, if they are small, and all are on one machine."""
        if self._window is None or self._across is not None or call.place:
            return None
        return prepared.cells_of(self._window, call, shape)

    def _show(self, call: Call, array: Array) -> prepared.Finish | None:
        cells = self._cells(call, array.shape)
        if cells is None or self._window is None:
            return None
        cell = cells[self._window.step.next.cell]
        cell.own[...] = array
        return cell.finish

    def _reduce_by_mpi(self, comm: Any, flat: np.ndarray, op: ReduceOp) -> None:
        for piece in _pieces(flat):
            comm.Allreduce(self._mpi.IN_PLACE, piece, self._op(op, flat))

    def _reduce(self, flat: np.ndarray, op: ReduceOp, root: int) -> None:
        total = _widened(flat)
        for piece in _pieces(total):
            sent, received = (self._mpi.IN_PLACE, piece) if self.rank == root else (piece, None)
            self._comm.Reduce(sent, received, self._op(op, flat), root)
        self._finish_reduction(op, total, flat)

    def _broadcast(self, flat: np.ndarray, root: int) -> None:
        window = self._window_for("broadcast", flat)
        if window is None or not direct.broadcast(window, flat, root):
            for piece in _pieces(flat.view(np.uint8)):
                self._comm.Bcast(piece, root)

    def _all_gather(self, rows: np.ndarray, flat: np.ndarray) -> None:
        window = self._window_for("all_gather", rows)
        if window is None or not direct.all_gather(window, rows, flat):
            self._by_columns(self._comm.Allgather, flat[None].view(np.uint8), rows.view(np.uint8))

    def _reduce_scatter(self, flat: np.ndarray, rows: np.ndarray, op: ReduceOp) -> None:
        def call(send: np.ndarray, recv: np.ndarray) -> None:
            parts = np.empty_like(send)
            self._comm.Alltoall(send.view(np.uint8), parts.view(np.uint8))
            combine(op, list(parts), recv[0])  # in rank order, which MPI does not promise

        window = self._window_for("reduce_scatter", rows)
        if window is None or not direct.reduce_scatter(window, flat, rows, op):
            self._by_columns(call, rows, flat[None])

    def _all_to_all(self, out_rows: np.ndarray, in_rows: np.ndarray) -> None:
        self._by_columns(self._comm.Alltoall, in_rows.view(np.uint8), out_rows.view(np.uint8))

    def _gather(self, rows: np.ndarray | None, flat: np.ndarray, root: int) -> None:
        received = None if rows is None else rows.view(np.uint8)
        self._by_columns(lambda send, recv: self._comm.Gather(send, recv, root), flat[None].view(np.uint8), received)

    def _scatter(self, flat: np.ndarray, rows: np.ndarray | None, root: int) -> None:
        sent = None if rows is None else rows.view(np.uint8)
        self._by_columns(lambda send, recv: self._comm.Scatter(send, recv, root), sent, flat[None].view(np.uint8))

    def _window_for(self, kind: str, array: np.ndarray) -> Window | None:
        """The window, if all ranks are on one machine and such an array is worth reaching for."""
        return self._window if self._across is None and array.nbytes > DIRECT_BYTES[kind] else None

    def _isend(self, array: Array, dst: int, tag: int) -> Work:
        return messages.isend(self._mpi, self._comm, array, dst, tag, self._recorded("send", dst, tag))

    def _irecv(self, array: Array, src: int | None, tag: int) -> Receipt:
        return messages.irecv(self._mpi, self._comm, array, src, tag, self._recorded("recv", src, tag))

    def _lookout(self) -> Callable[[float], None]:
        """What ends a wait in vain."""
        if self._recorder is None:
            return lambda seconds: None
        return Lookout(self._recorder, self.ranks[self.rank]).look

    def _recorded(self, kind: str, peer: int | None, tag: int) -> AbstractContextManager[None]:
        """What records that this rank waits for a message to pass."""
        if self._recorder is None:
            return contextlib.nullcontext()
        return self._recorder.waiting(self._group_name, kind, None if peer is None else self.ranks[peer], tag)

    def _split(self, members: list[int] | None) -> Comm | None:
        color = self._mpi.UNDEFINED if members is None else min(members)
        try:
            part = self._comm.Split(color, 0 if members is None else members.index(self.rank))
            return None if members is None else MpiComm(self._mpi, part, tuple(self.ranks[rank] for rank in members))
        except self._mpi.Exception as error:
            raise RuntimeError(
                f"MPI cannot make another group ({str(error).splitlines()[-1]}); it has room for some hundreds: end "
                "those that are no longer needed by destroy_process_group(group)"
            ) from error

    def _op(self, op: ReduceOp, flat: np.ndarray) -> Any:
        return getattr(self._mpi, (_BOOL_OPS if flat.dtype == np.bool_ else _OPS)[op])

    def _finish_reduction(self, op: ReduceOp, total: np.ndarray, flat: np.ndarray) -> None:
        """Divide where the mean was asked for, and round what was summed in float32."""
        if op is ReduceOp.AVG:
            divide(total, self.size)
        if total is not flat:
            flat[:] = total

    def _by_columns(self, call: Callable[..., Any], send: np.ndarray | None, recv: np.ndarray | None) -> None:
        """`call(send, recv)` for ranges of columns, so that no call moves more than PIECE_BYTES."""
        whole = send if send is not None else recv
        assert whole is not None
        if send is not None and recv is not None and np.may_share_memory(send, recv):
            send = send.copy()  # a rank's part is often a slice of the whole, which MPI refuses
        columns = max(1, PIECE_BYTES // (self.size * whole.itemsize))
        if whole.shape[1] <= columns:
            call(send, recv)
            return
        for start in range(0, whole.shape[1], columns):
            part = slice(start, start + columns)
            sent = None if send is None else np.ascontiguousarray(send[:, part])
            received = None if recv is None else np.empty(recv[:, part].shape, recv.dtype)
            call(sent, received)
            if recv is not None:
                recv[:, part] = received


def _load_mpi() -> Any:
    """mpi4py.MPI, whose import starts MPI."""
    try:
        return importlib.import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(
            f"this process was started as one of several ranks, but MPI cannot be loaded ({error}); "
            "install one with: pip install 'paceline[mpi]', and see `paceline doctor`"
        ) from error


def split_by_machine(mpi: Any, comm: Any) -> Any:
    """MPI communicator of those ranks of `comm` that can share memory with this one."""
    return comm.Split_type(mpi.COMM_TYPE_SHARED)


def _open_window(mpi: Any, comm: Any, look: Callable[[float], None]) -> tuple[Window | None, Any]:
    """The memory that this rank shares with others of its machine, where there are any, and who else has its slice.

    Returns:
        The window, or None; and the MPI communicator of the ranks of the same number on all machines, or None if there
        is one machine only.
    """
    node = split_by_machine(mpi, comm)
    owners = comm.allreduce(node.size, mpi.MIN)
    memory = _share_memory(node) if SUPPORTED and owners > 1 else None
    if not comm.allreduce(memory is not None, mpi.LAND):
        node.Free()
        return None, None
    assert memory is not None
    across = None
    if node.size != comm.size:
        across = comm.Split(node.rank if node.rank < owners else mpi.UNDEFINED, comm.rank)
    crowded = len(os.sched_getaffinity(os.getppid())) < node.size
    return Window(memory, node.rank, node.size, owners, crowded, comm.Iprobe, look), across


def _share_memory(node: Any) -> mmap.mmap | None:
    """Memory for a window of these ranks, if they can have it; it has no name that could be left behind."""
    nbytes = window_bytes(node.size)
    file = _attempt(reserve, nbytes) if node.rank == 0 else None
    place = node.bcast(None if file is None else f"/proc/{os.getpid()}/fd/{file}")
    if place is None:
        return None
    if node.rank != 0:
        file = _attempt(os.open, place, os.O_RDWR)
    memory = None if file is None else _attempt(mmap.mmap, file, nbytes)
    node.Barrier()  # rank 0 may not close it before the others have opened it
    if file is not None:
        os.close(file)
    return memory


def _attempt(function: Callable[..., T], *arguments: Any) -> T | None:
    """What the function returns, or None with a warning: limits on memory, processes hidden from each other."""
    try:
        return function(*arguments)
    except OSError as error:
        warnings.warn(
            f"the ranks of this machine cannot share memory ({error}); collectives go through MPI, which is slower",
            stacklevel=2,
        )
        return None


def _unlink_shared_memory() -> None:
    """Take the names away from MPICH's segments, which all ranks have mapped by now.

    MPICH does so at a normal end only; each job that is killed would leave megabytes behind.
    """
    with open("/proc/self/maps") as maps:
        files = {line.split()[5] for line in maps if "/dev/shm/mpich_shm" in line and "(deleted)" not in line}
    for file in files:
        with contextlib.suppress(OSError):
            os.unlink(file)


def _pieces(flat: np.ndarray) -> list[np.ndarray]:
    """`flat` in pieces of at most PIECE_BYTES."""
    count = PIECE_BYTES // flat.itemsize
    return [flat] if flat.size <= count else [flat[start : start + count] for start in range(0, flat.size, count)]


def _widened(flat: np.ndarray) -> np.ndarray:
    """Itself, or a copy in float32 where rounding at every rank would lose bits that MPI's own sums do not keep."""
    return flat.astype(np.float32) if is_half(flat.dtype) else flat
