"""A stand-in for cupy.cuda.nccl: the same functions and signatures, for ranks that are threads of this process.

It works on memory at addresses, as NCCL does, which may be NumPy's or that of an emulated device, and is stricter than
NCCL where NCCL would hang or mix up data: ranks whose calls do not fit together get an error, and so do those that
wait too long.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import itertools
import threading

import ml_dtypes
import numpy as np

available = True

NCCL_SUM, NCCL_PROD, NCCL_MAX, NCCL_MIN, NCCL_AVG = range(5)
NCCL_INT8, NCCL_UINT8, NCCL_INT32, NCCL_UINT32, NCCL_INT64, NCCL_UINT64 = range(6)
NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64, NCCL_BFLOAT16 = range(6, 10)

_DTYPES = [np.dtype(name) for name in "i1 u1 i4 u4 i8 u8 f2 f4 f8".split()] + [np.dtype(ml_dtypes.bfloat16)]
_FOLDS = [np.add, np.multiply, np.maximum, np.minimum, np.add]
_SECONDS = 20.0

_unique = itertools.count()
_worlds: dict[bytes, _World] = {}
_thread = threading.local()


class NcclError(RuntimeError):
    """What NCCL's functions raise."""


class _World:
    """What the ranks of one communicator share."""

    def __init__(self, size: int) -> None:
        self.changed = threading.Condition()
        self.size = size
        self.brought: dict[int, tuple] = {}
        self.meeting = 0
        self.result: list[tuple] = []
        self.mail: dict[tuple[int, int], collections.deque] = collections.defaultdict(collections.deque)

    def wait(self, ready, communicator) -> None:
        if not self.changed.wait_for(lambda: ready() or communicator.aborted, _SECONDS):
            raise NcclError("the other ranks do not come")

    def meet(self, communicator, item: tuple) -> list[tuple]:
        """Every rank brings an item and leaves with all of them."""
        with self.changed:
            meeting = self.meeting
            self.brought[communicator.rank_id()] = item
            if len(self.brought) == self.size:
                self.result = [self.brought.pop(rank) for rank in range(self.size)]
                self.meeting += 1
                self.changed.notify_all()
            self.wait(lambda: self.meeting != meeting, communicator)
            return self.result


def get_unique_id() -> bytes:
    return next(_unique).to_bytes(128, "little")


def groupStart() -> None:
    assert getattr(_thread, "group", None) is None
    _thread.group = []


def groupEnd() -> None:
    """Everything is sent before anything is waited for."""
    calls, _thread.group = _thread.group, None
    for send in (True, False):
        for call in calls:
            call(send)


class NcclCommunicator:
    def __init__(self, ndev: int, commId: bytes, rank: int, config=None) -> None:
        if len(commId) != 128:
            raise ValueError("commId")
        self._world = _worlds.setdefault(commId, _World(ndev))
        self._rank = rank
        self.calls: list[tuple[str, int]] = []  # methods, and the streams they were put on
        self.aborted = False
        self.destroyed = False
        self.error: NcclError | None = None  # what check_async_error finds
        self._world.meet(self, (ndev,))

    def rank_id(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._world.size

    def destroy(self) -> None:
        self.destroyed = True

    def abort(self) -> None:
        with self._world.changed:
            self.aborted = True
            self._world.changed.notify_all()

    def check_async_error(self) -> None:
        if self.error is not None:
            raise self.error

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream) -> None:
        sources = self._meet("allReduce", (count, datatype, op), _at(sendbuf, count, datatype), stream)
        self._finish(recvbuf, _fold(sources, op))

    def reduce(self, sendbuf, recvbuf, count, datatype, op, root, stream) -> None:
        sources = self._meet("reduce", (count, datatype, op, root), _at(sendbuf, count, datatype), stream)
        self._finish(recvbuf, _fold(sources, op) if self._rank == root else None)

    def broadcast(self, sendbuff, recvbuff, count, datatype, root, stream) -> None:
        sources = self._meet("broadcast", (count, datatype, root), _at(sendbuff, count, datatype), stream)
        self._finish(recvbuff, sources[root])

    def reduceScatter(self, sendbuf, recvbuf, recvcount, datatype, op, stream) -> None:
        whole = _at(sendbuf, recvcount * self.size(), datatype)
        sources = self._meet("reduceScatter", (recvcount, datatype, op), whole, stream)
        part = slice(self._rank * recvcount, (self._rank + 1) * recvcount)
        self._finish(recvbuf, _fold([source[part] for source in sources], op))

    def allGather(self, sendbuf, recvbuf, count, datatype, stream) -> None:
        sources = self._meet("allGather", (count, datatype), _at(sendbuf, count, datatype), stream)
        self._finish(recvbuf, np.concatenate(sources))

    def send(self, sendbuf, count, datatype, peer, stream) -> None:
        content = _at(sendbuf, count, datatype)
        self._take_part("send", stream)

        def call(sending: bool) -> None:
            if sending:
                with self._world.changed:
                    self._world.mail[self._rank, peer].append(content.copy())
                    self._world.changed.notify_all()

        _now_or_in_group(call)

    def recv(self, recvbuf, count, datatype, peer, stream) -> None:
        room = _at(recvbuf, count, datatype)
        self._take_part("recv", stream)

        def call(sending: bool) -> None:
            if not sending:
                with self._world.changed:
                    mail = self._world.mail[peer, self._rank]
                    self._world.wait(lambda: mail, self)
                    content = mail.popleft()
                assert (content.dtype, content.size) == (room.dtype, room.size)
                room[:] = content

        _now_or_in_group(call)

    def _take_part(self, kind: str, stream: int) -> None:
        assert isinstance(stream, int) and not self.destroyed and not self.aborted
        self.calls.append((kind, stream))

    def _meet(self, kind: str, shape: tuple, source: np.ndarray, stream: int) -> list[np.ndarray]:
        """Show the others what this rank brings."""
        self._take_part(kind, stream)
        everybody = self._world.meet(self, (kind, shape, source))
        if any(each[:2] != (kind, shape) for each in everybody):
            raise NcclError(f"the ranks' calls do not fit together: {[each[:2] for each in everybody]}")
        return [each[2].copy() for each in everybody]

    def _finish(self, at: int, result: np.ndarray | None) -> None:
        """Change this rank's memory, once all have seen what they need."""
        self._world.meet(self, ("finish",))
        if result is not None and result.size:
            _at(at, result.size, _DTYPES.index(result.dtype))[:] = result


def _at(address: int, count: int, datatype: int) -> np.ndarray:
    """The elements at an address."""
    dtype = _DTYPES[datatype]
    if count == 0:
        return np.empty(0, dtype)
    return np.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(address), dtype)


def _fold(sources: list[np.ndarray], op: int) -> np.ndarray:
    total = functools.reduce(_FOLDS[op], sources)
    return (total / len(sources)).astype(total.dtype) if op == NCCL_AVG else total


def _now_or_in_group(call) -> None:
    group = getattr(_thread, "group", None)
    if group is not None:
        group.append(call)
        return
    for sending in (True, False):
        call(sending)
