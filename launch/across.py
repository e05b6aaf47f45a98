"""What `paceline doctor` runs on the ranks of several machines: are these alike, and how do they reach each other?

Called as a module by `paceline run`. Rank 0 prints what was found as one line of JSON that begins with `{"machines":`;
times in seconds, bandwidths in bytes per second.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..runtime.callers import FOLDERS
from ..runtime.comm import Comm, world_comm
from ..runtime.world import get_world
from . import agent

LARGE_BYTES = 4 << 20
_ROUNDS = 20
_TURNS = 3  # to measure each machine's links one after the other: with one neighbour, the other, last with first


def software(comm: Comm) -> dict[str, str]:
    """What should be the same on all machines."""
    mpi = sys.modules[type(comm.mpi4py).__module__]
    library = " ".join(mpi.Get_library_version().strip(" \0").splitlines()[0].split())
    return {
        "Python": platform.python_version(),
        "Paceline": f"{_version('paceline')} (sources {_digest_of_sources()})",
        **{name: _version(name.lower()) for name in ("NumPy", "Numba", "mpi4py")},
        "MPI library": library.partition(", package")[0],
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _digest_of_sources() -> str:
    """The same for the same files of this package: a checkout may change without a new version."""
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for place, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(file for file in files if file.endswith(".py")):
                with open(os.path.join(place, name), "rb") as file:
                    digest.update(name.encode() + file.read())
    return digest.hexdigest()[:8]


def machine(comm: Comm, directory: str) -> dict[str, Any]:
    """What there is to say about this machine, but for what takes another one."""
    return {
        "name": socket.gethostname(),
        "ranks": get_world().local_size,
        "cores": len(os.sched_getaffinity(os.getppid())),
        "software": software(comm),
        "directory": os.path.isdir(directory),
        "launcher": _reaches_launcher(),
    }


def _reaches_launcher() -> bool:
    """Whether an agent could report to `paceline run`."""
    try:
        agent.connect().close()
    except OSError:
        return False
    return True


def clock_offset(comm: Comm, leader: int) -> float:
    """By how much the date on a leader's machine is later than on rank 0's; a call of these two, for rank 0 to know."""
    there, quickest, offset = np.zeros(1), float("inf"), 0.0
    for _ in range(_ROUNDS):
        if comm.rank != 0:
            comm.recv(there, 0)
            comm.send(np.array([time.time()]), 0)
            continue
        start = time.time()
        comm.send(there, leader)
        comm.recv(there, leader)
        trip = time.time() - start
        if trip < quickest:
            quickest, offset = trip, float(there[0]) - start - trip / 2
    return offset


def link(comm: Comm, other: int) -> dict[str, float]:
    """Time of the smallest message from one rank to another, and bandwidth of a large one; a call of these two."""
    return {
        "latency": _one_way(comm, other, np.zeros(1, np.uint8)),
        "bandwidth": LARGE_BYTES / _one_way(comm, other, np.zeros(LARGE_BYTES, np.uint8)),
    }


def _one_way(comm: Comm, other: int, array: np.ndarray) -> float:
    """Half of the quickest way there and back."""

    def there_and_back() -> None:
        if comm.rank < other:
            comm.send(array, other)
        comm.recv(array, other)
        if comm.rank > other:
            comm.send(array, other)

    return _best(there_and_back) / 2


def _best(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def links(comm: Comm, leaders: list[int]) -> list[dict[str, Any]]:
    """Of each machine with the next one, and of the last with the first: indices of the two, latency, bandwidth."""
    last = len(leaders) - 1
    pairs = [(i, i + 1) for i in range(last)] + ([(0, last)] if last > 1 else [])
    mine = []
    for turn in range(_TURNS):
        comm.barrier()
        for i, j in pairs:
            if turn == (2 if j - i > 1 else i % 2) and comm.rank in (leaders[i], leaders[j]):
                figures = link(comm, leaders[j] if comm.rank == leaders[i] else leaders[i])
                if comm.rank == leaders[i]:
                    mine.append({"machines": [i, j], **figures})
    return [figures for each in comm.all_gather_object(mine) for figures in each]


def together(comm: Comm) -> dict[str, float]:
    """Time of an all_reduce over all ranks, of which every element is checked."""
    numbers = np.arange(LARGE_BYTES // 4, dtype=np.float32) % 1000
    array = numbers * (comm.rank + 1)
    comm.all_reduce(array)
    if not np.allclose(array, numbers * (comm.size * (comm.size + 1) / 2)):
        raise RuntimeError("all_reduce gave a wrong sum")
    array[:] = 0
    times = []
    for part in (array, array[:1]):
        comm.barrier()
        times.append(_best(lambda part=part: comm.all_reduce(part)))  # type: ignore[misc]
    return {"large": times[0], "small": times[1]}


def main() -> None:
    comm = world_comm()
    leads = get_world().local_rank == 0
    leaders = [rank for rank, each in enumerate(comm.all_gather_object(leads)) if each]
    machines = comm.all_gather_object(machine(comm, sys.argv[1]) if leads else None)
    found: dict[str, Any] = {"machines": [each for each in machines if each is not None]}
    for each, leader in zip(found["machines"], leaders, strict=True):
        each["clock"] = clock_offset(comm, leader) if leader and comm.rank in (0, leader) else 0.0
    found["links"] = links(comm, leaders)
    found["together"] = together(comm)
    if comm.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
