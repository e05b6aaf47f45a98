"""Communicators: one interface, a backend per way of moving arrays, loaded when first used."""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Iterator

from .. import faults, timeline, watchdog
from ..world import get_world
from .base import Comm
from .reduction import ReduceOp
from .signature import CollectiveMismatchError
from .work import Work

__all__ = ["CollectiveMismatchError", "Comm", "ReduceOp", "Work", "backend_class", "register", "world_comm"]

_backends: dict[str, str] = {}
_thread = threading.local()


def register(name: str, target: str) -> None:
    """Add a backend.

    Args:
        name: its name.
        target: "module:Class", where a leading dot means this package; imported when the backend is first used.

    Raises:
        ValueError: the name is taken.
    """
    if name in _backends:
        raise ValueError(f"communicator backend {name!r} is already registered as {_backends[name]}")
    _backends[name] = target


def backend_class(name: str) -> type[Comm]:
    """The class registered under `name`; ValueError, with the names there are, for any other."""
    if name not in _backends:
        raise ValueError(f"unknown communicator backend {name!r}; there are: {', '.join(sorted(_backends))}")
    module, _, attribute = _backends[name].partition(":")
    return getattr(importlib.import_module(module, __name__), attribute)


def world_comm() -> Comm:
    """The communicator of all ranks of this job, made at the first call.

    Example:
        >>> world_comm().size
        1
    """
    return getattr(_thread, "comm", None) or _process_comm()


def world_rank() -> int:
    """This process's rank; unlike `world_comm().rank` it does not start MPI."""
    comm = getattr(_thread, "comm", None)
    return get_world().rank if comm is None else comm.rank


def world_size() -> int:
    """The number of ranks; unlike `world_comm().size` it does not start MPI."""
    comm = getattr(_thread, "comm", None)
    return get_world().size if comm is None else comm.size


@contextlib.contextmanager
def thread_comm(comm: Comm) -> Iterator[None]:
    """Make `comm` the world of the current thread."""
    _thread.comm = comm
    try:
        yield
    finally:
        del _thread.comm


@functools.cache
def _process_comm() -> Comm:
    world = get_world()
    if world.size == 1:
        return backend_class("solo").from_world(world)
    with watchdog.watching(world):
        comm = backend_class("mpi").from_world(world)
    timeline.align(comm)
    faults.at_end(functools.partial(_take_leave, comm))
    return comm


def _take_leave(comm: Comm) -> None:
    # The ranks that have made another call tell of it; this one has no caller left.
    with contextlib.suppress(CollectiveMismatchError):
        comm.leave()


register("solo", ".solo:SoloComm")
register("threads", ".threads:ThreadsComm")
register("mpi", ".mpi:MpiComm")
