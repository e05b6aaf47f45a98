"""What `paceline bench allreduce` runs on every rank: Paceline's all_reduce, MPI's own and a plain copy, in turns.

Called with a JSON object: sizes in bytes, seconds for each size, progress (whether to show a bar). Rank 0 prints the
figures as one line of JSON, times in seconds.
"""

from __future__ import annotations

import json
import sys
import timeit
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from ..runtime.comm import Comm, world_comm

_ROUNDS = 10


def calls_on(comm: Comm, nbytes: int) -> dict[str, Callable[[], Any]]:
    """What to compare on arrays of this size; MPI has two ways, of which now one and now the other is quicker."""
    array, other = (np.full(nbytes // 4, 0.0, np.float32) for _ in range(2))  # of zeros no sum overflows
    raw = comm.mpi4py
    in_place = sys.modules[type(raw).__module__].IN_PLACE
    return {
        "paceline": partial(comm.all_reduce, array),
        "mpi": partial(raw.Allreduce, array, other),
        "mpi_in_place": partial(raw.Allreduce, in_place, array),
        "memcpy": partial(np.copyto, other, array),
    }


def measure(comm: Comm, calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Seconds per call of each: the quickest of several rounds in turns, as the slowest rank saw it."""
    share = seconds / _ROUNDS / len(calls)
    repeats = {}
    for name, call in calls.items():
        _time(comm, call, 1)
        estimate = _time(comm, call, 2)
        repeats[name] = comm.broadcast_object(max(1, round(share / estimate)))
    mine = [[_time(comm, call, repeats[name]) for name, call in calls.items()] for _ in range(_ROUNDS)]
    slowest = np.max(comm.all_gather_object(mine), axis=0)
    return dict(zip(calls, np.min(slowest, axis=0).tolist(), strict=True))


def _time(comm: Comm, call: Callable[[], Any], repeats: int) -> float:
    """Seconds per call on this rank, beginning together."""
    comm.barrier()
    # Its loop is, unlike one of this package, user code, for whose line the flight recorder looks.
    return timeit.timeit(call, number=repeats) / repeats


def main() -> None:
    task, comm = json.loads(sys.argv[1]), world_comm()
    rows = []
    for nbytes in tqdm(task["sizes"], unit="size", disable=comm.rank > 0 or not task["progress"]):
        rows.append({"bytes": nbytes, "seconds": measure(comm, calls_on(comm, nbytes), task["seconds"])})
    if comm.rank == 0:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
