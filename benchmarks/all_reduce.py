"""all_reduce by Paceline, by MPI alone and by torch.distributed's gloo, in turns within one job.

    paceline run -n 2 benchmarks/all_reduce.py --sizes 1KiB,64KiB,1MiB,16MiB,256MiB

Prints microseconds per call, and how many times as long as Paceline MPI (the quicker of its two ways) and gloo take.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import socket

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch look: one thread each

import torch
import torch.distributed as gloo

from paceline.launch.exchange import calls_on, measure
from paceline.launch.quantities import Sizes, size_text
from paceline.runtime.comm import Comm, world_comm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1KiB..256MiB")
    parser.add_argument("--seconds", type=float, default=0.5, help="per size")
    options = parser.parse_args()
    comm = world_comm()
    start_gloo(comm)
    if comm.rank == 0:
        print("     size   paceline        MPI       gloo  MPI/paceline  gloo/paceline")
    for nbytes in Sizes().convert(options.sizes, None, None):
        tensor = torch.zeros(nbytes // 4)
        calls = calls_on(comm, nbytes) | {"gloo": functools.partial(gloo.all_reduce, tensor)}
        seconds = measure(comm, calls, options.seconds)
        own, mpi, peer = seconds["paceline"], min(seconds["mpi"], seconds["mpi_in_place"]), seconds["gloo"]
        if comm.rank == 0:
            times = " ".join(f"{each * 1e6:10.2f}" for each in (own, mpi, peer))
            print(f"{size_text(nbytes):>9} {times} {mpi / own:13.2f} {peer / own:14.2f}", flush=True)
    gloo.destroy_process_group()


def start_gloo(comm: Comm) -> None:
    """Let torch.distributed meet over a free port of this machine."""
    port = 0
    if comm.rank == 0:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
    place = f"tcp://127.0.0.1:{comm.broadcast_object(port)}"
    limit = datetime.timedelta(seconds=60)
    gloo.init_process_group("gloo", init_method=place, rank=comm.rank, world_size=comm.size, timeout=limit)


if __name__ == "__main__":
    main()
