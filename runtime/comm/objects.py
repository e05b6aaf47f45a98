"""Collectives on objects, for control: pickled between ranks of one job, never read from a file.

The bytes travel as arrays, which backends cut into pieces, so that no MPI meets a message beyond its limits.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import check_peer, check_rank
from .signature import call_of

if TYPE_CHECKING:
    from .base import Comm


def all_gather_object(comm: Comm, obj: Any) -> list[Any]:
    """All ranks' objects in rank order, on every rank; each must be picklable."""
    payload = pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
    found: list[bytes] = []
    comm._start(call_of("all_gather_object"), lambda: found.extend(all_gather_bytes(comm, payload)), None, False)
    return [pickle.loads(each) for each in found]


def gather_object(comm: Comm, obj: Any, dst: int = 0) -> list[Any] | None:
    """All ranks' objects in rank order on rank `dst`, None on the others."""
    check_rank("gather_object", "dst", dst, comm.size)
    payload = _array_of(obj)
    parts: list[np.ndarray] = []

    def act() -> None:
        sizes = _all_sizes(comm, payload.size)
        rows = np.empty((comm.size, max(sizes)), np.uint8) if comm.rank == dst else None
        comm._gather(rows, _padded(payload, max(sizes)), dst)
        if rows is not None:
            parts.extend(row[:size] for row, size in zip(rows, sizes, strict=True))

    comm._start(call_of("gather_object", root=dst), act, None, False)
    return [pickle.loads(part.data) for part in parts] if comm.rank == dst else None


def broadcast_object(comm: Comm, obj: Any, src: int = 0) -> Any:
    """Rank `src`'s object, on every rank; what the others pass does not matter."""
    check_rank("broadcast_object", "src", src, comm.size)
    payload = _array_of(obj if comm.rank == src else None)

    def act() -> None:
        nonlocal payload
        size = _all_sizes(comm, payload.size)[src]
        if comm.rank != src:
            payload = np.empty(size, np.uint8)
        comm._broadcast(payload, src)

    comm._start(call_of("broadcast_object", root=src), act, None, False)
    return pickle.loads(payload.data)


def scatter_object(comm: Comm, objs: Sequence[Any] | None, src: int = 0) -> Any:
    """On rank r the r-th object of rank `src`'s list; the others pass None."""
    check_rank("scatter_object", "src", src, comm.size)
    payloads: list[np.ndarray] = []
    if comm.rank == src:
        if objs is None or len(objs) != comm.size:
            found = "None" if objs is None else f"{len(objs)} objects"
            raise ValueError(f"scatter_object(): expected one object for each of the {comm.size} ranks, got {found}")
        payloads = [_array_of(obj) for obj in objs]
    mine = np.empty(0, np.uint8)

    def act() -> None:
        nonlocal mine
        sizes = np.array([payload.size for payload in payloads] or [0] * comm.size, np.int64)
        comm._broadcast(sizes, src)
        rows = np.stack([_padded(each, sizes.max()) for each in payloads]) if payloads else None
        mine = np.empty(sizes.max(), np.uint8)
        comm._scatter(mine, rows, src)
        mine = mine[: sizes[comm.rank]]

    comm._start(call_of("scatter_object", root=src), act, None, False)
    return pickle.loads(mine.data)


def send_object(comm: Comm, obj: Any, dst: int, tag: int = 0) -> None:
    """Send a picklable object to rank `dst`, which calls recv_object."""
    check_peer("send_object", "dst", dst, tag, comm)
    payload = _array_of(obj)
    comm.send(np.array([payload.size], np.int64), dst, tag)
    comm.send(payload, dst, tag)


def recv_object(comm: Comm, src: int | None = None, tag: int = 0) -> tuple[Any, int]:
    """The next object that rank `src`, or any, sends to this rank with this tag; and the sender's rank."""
    size = np.empty(1, np.int64)
    sender = comm.recv(size, src, tag)
    payload = np.empty(size[0], np.uint8)
    comm.recv(payload, sender, tag)
    return pickle.loads(payload.data), sender


def all_gather_bytes(comm: Comm, payload: bytes) -> list[bytes]:
    """All ranks' byte strings, without a signature check."""
    sizes = _all_sizes(comm, len(payload))
    rows = np.empty((comm.size, max(sizes)), np.uint8)
    comm._all_gather(rows, _padded(np.frombuffer(payload, np.uint8), max(sizes)))
    return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def _all_sizes(comm: Comm, size: int) -> list[int]:
    """All ranks' numbers of bytes."""
    sizes = np.empty((comm.size, 1), np.int64)
    comm._all_gather(sizes, np.array([size], np.int64))
    return sizes[:, 0].tolist()


def _array_of(obj: Any) -> np.ndarray:
    """The pickled object, in memory that can be written to."""
    return np.array(np.frombuffer(pickle.dumps(obj, pickle.HIGHEST_PROTOCOL), np.uint8))


def _padded(payload: np.ndarray, size: int) -> np.ndarray:
    """`payload` with zeros behind it."""
    padded = np.zeros(size, np.uint8)
    padded[: payload.size] = payload
    return padded
