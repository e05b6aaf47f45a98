"""`paceline doctor`: what this machine has of what Paceline uses.

Each library is loaded in a process of its own, for a bounded time, so that one that crashes or hangs is a line on the
page.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import sys
from dataclasses import asdict

from ..runtime.world import read_world
from .check import Check, last_line, run_command
from .hosts import Host, is_here
from .mpi import LaunchError, Mpiexec, find_mpiexec
from .network import examine_machines
from .plan import find_machines

CPU_QUOTA = "/sys/fs/cgroup/cpu.max"
LEAST_SHARED_MIB = 128
# What people want to do, and what has to be there for it.
_USES = {
    "training on one rank": ("NumPy",),
    "training on several": ("NumPy", "mpi4py", "mpiexec", "2 ranks", "Machines"),
    "training on several machines": ("NumPy", "mpi4py", "mpiexec", "Machines", "All ranks"),
    "training on a GPU": ("NumPy", "CUDA"),
    "training on several GPUs": ("NumPy", "mpi4py", "mpiexec", "2 ranks", "CUDA", "NCCL"),
}


# Each program prints what it found, or "missing" alone; an exception means broken.

_NUMPY = """
import numpy
blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
print(f"{numpy.__version__}, BLAS {blas['name']} {blas['version']}")
"""

_NUMBA = """
import importlib.util, sys
if importlib.util.find_spec("numba") is None:
    sys.exit(print("missing"))
import numba
assert numba.njit(lambda x: x + 1)(1) == 2
print(f"{numba.__version__}, up to {numba.config.NUMBA_NUM_THREADS} threads")
"""

_KERNELS = """
import sys
from paceline.tensor import kernels
if not kernels.usable():
    sys.exit(print("missing"))
threads = "OpenMP threads" if kernels.sources.compiler.THREADED else "one thread, as there is no OpenMP"
print(f"{threads}; {kernels.sources.cache.contents()}")
"""

_MPI4PY = """
import importlib.util, sys
if importlib.util.find_spec("mpi4py") is None:
    sys.exit(print("missing"))
import mpi4py
mpi4py.rc.initialize = mpi4py.rc.finalize = False
from mpi4py import MPI
library = " ".join(MPI.Get_library_version().strip(" \\0").splitlines()[0].split())
print(f"{mpi4py.__version__}, library {library.partition(', package')[0]}")
"""

_WORLD = """
from mpi4py import MPI
print(f"world {MPI.COMM_WORLD.allreduce(1)}", flush=True)
"""

# Through the communicator that training uses; every element and every rank is checked.
_TALK = """
import time
import paceline.runtime
import numpy as np
from paceline.runtime.comm import world_comm

comm = world_comm()

def best(call):
    times = []
    for _ in range(20):
        comm.barrier()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)

array = np.arange(1 << 20, dtype=np.float32) % 1000 * (comm.rank + 1)
comm.all_reduce(array)
assert (array == np.arange(1 << 20) % 1000 * 3).all(), "all_reduce gave a wrong sum"
assert comm.all_gather_object(comm.rank) == [0, 1], "all_gather_object gave wrong objects"
array[:] = 0
large, small = best(lambda: comm.all_reduce(array)), best(lambda: comm.all_reduce(array[:1]))
if comm.rank == 0:
    print(f"all_reduce of 4 MiB in {large * 1e3:.2f} ms, of one number in {small * 1e6:.0f} us")
"""

_CUPY = """
import importlib.util, sys
if importlib.util.find_spec("cupy") is None:
    sys.exit(print("missing"))
import cupy
from cupy.cuda import runtime
devices = []
for index in range(runtime.getDeviceCount()):
    device = runtime.getDeviceProperties(index)
    memory = device["totalGlobalMem"] / 2**30
    devices.append(f"{device['name'].decode()} ({memory:.0f} GiB, sm_{device['major']}{device['minor']})")
version = runtime.runtimeGetVersion()
print(f"CuPy {cupy.__version__}, CUDA {version // 1000}.{version % 1000 // 10}: {', '.join(devices) or 'no device'}")
"""

_NCCL = """
import importlib.util, sys
if importlib.util.find_spec("cupy") is None:
    sys.exit(print("missing"))
from cupy.cuda import nccl
if not nccl.available:
    sys.exit(print("missing"))
version = nccl.get_version()
print(f"{version // 10000}.{version // 100 % 100}.{version % 100}")
"""


def examine(hosts: str = "", hostfile: str = "") -> list[Check]:
    """All checks, in the order of the page.

    Args:
        hosts, hostfile: the options of `paceline run`.
    """
    machines, where = _machines(hosts, hostfile)
    checks = [
        _python(),
        _cores(),
        _shared_memory(),
        where,
        _probe("NumPy", _NUMPY, "reinstall it: pip install --force-reinstall numpy"),
        _probe("Numba", _NUMBA, "pip install numba; without it CPU kernels are plain NumPy, several times slower"),
        _probe("Kernels", _KERNELS, "the CPU kernels of Paceline need Numba"),
        _probe("mpi4py", _MPI4PY, "pip install 'paceline[mpi]', or point MPI4PY_LIBMPI at your MPI's libmpi.so"),
        _mpiexec(),
        _two_ranks(),
        _probe("CUDA", _CUPY, "for NVIDIA GPUs: pip install 'paceline[cuda13]' (driver 580 or later) or [cuda12]"),
        _probe("NCCL", _NCCL, "for several GPUs: it comes with paceline[cuda13] and [cuda12]"),
    ]
    return checks if is_here(machines) else checks + examine_machines(machines)


def page(checks: list[Check]) -> str:
    """The checks for people."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.name:{width}}  {check.state:7}  {check.detail}".rstrip())
        if check.advice:
            lines.append(f"{'':{width}}           -> {check.advice}")
    working = {check.name for check in checks if check.state == "ok"}
    ready = [use for use, needs in _USES.items() if working.issuperset(needs)]
    tried = {check.name for check in checks}
    missing = [use for use, needs in _USES.items() if use not in ready and tried.issuperset(needs)]
    lines += ["", *(f"{word}: {', '.join(uses)}" for word, uses in (("Ready", ready), ("Not ready", missing)) if uses)]
    return "\n".join(lines)


def to_json(checks: list[Check]) -> str:
    """The checks for programs."""
    return json.dumps({"checks": [asdict(check) for check in checks]})


def _python() -> Check:
    return Check("Python", "ok", f"{platform.python_version()}, {sys.executable}")


def _cores() -> Check:
    usable = len(os.sched_getaffinity(0))
    threads = f"{usable} threads alone, {max(1, usable // 2)} on each of 2 ranks"
    advice = ""
    if "OMP_NUM_THREADS" in os.environ:
        threads = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} on every rank"
    elif (quota := _cpu_quota()) < usable:
        advice = f"this container gets the time of {quota:g} cores: set OMP_NUM_THREADS to that divided by the ranks"
    return Check("Cores", "ok", f"{usable} of {os.cpu_count()} usable: {threads}", advice)


def _cpu_quota() -> float:
    """The cores whose time this container may use; no affinity shows it."""
    with contextlib.suppress(OSError, ValueError), open(CPU_QUOTA) as file:
        quota, period = file.read().split()
        return int(quota) / int(period)  # "max" is no limit
    return float("inf")


def _shared_memory() -> Check:
    """Containers often have 64 MiB."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError as error:
        return Check("/dev/shm", "broken", str(error.strerror), "mount it: MPI and NCCL exchange data there")
    free, total = (room.f_frsize * blocks / 2**20 for blocks in (room.f_bavail, room.f_blocks))
    advice = ""
    if free < LEAST_SHARED_MIB:
        advice = "little for MPI and NCCL: remove what is left there, or start the container with --shm-size=1g"
    return Check("/dev/shm", "ok", f"{free:.0f} of {total:.0f} MiB free", advice)


def _machines(hosts: str = "", hostfile: str = "") -> tuple[list[Host], Check]:
    """Where `paceline run` starts ranks with these options."""
    try:
        read_world(os.environ)
        machines = find_machines(hosts, hostfile, os.environ)
    except (LaunchError, RuntimeError) as error:
        return [], Check("Machines", "broken", *str(error).split(": ", 1))
    listed = ", ".join(f"{host.name}:{host.slots}" for host in machines)
    if not machines:
        return [], Check("Machines", "ok", "this one (no batch job here)")
    return machines, Check("Machines", "ok", listed if hosts or hostfile else f"those of the batch job: {listed}")


def _mpiexec() -> Check:
    try:
        found = find_mpiexec()
    except LaunchError as error:
        problem, _, advice = str(error).partition(": ")
        return Check("mpiexec", "missing", problem, advice)
    return Check("mpiexec", "ok", f"{found.version}, {found.path}")


def _two_ranks() -> Check:
    """Whether mpiexec and the library that mpi4py loads are of one MPI; if not, each rank is alone."""
    name = "2 ranks"
    try:
        found = find_mpiexec()
    except LaunchError:
        return Check(name, "missing", "cannot run without mpiexec")
    command = found.command(2, [sys.executable, "-c", _WORLD])
    code, output = run_command(command, found.environment(2))
    worlds = re.findall(r"world \d", output)  # not by lines: mpiexec may mix those of two ranks
    if code == 0 and worlds == ["world 2"] * 2:
        return _two_ranks_talk(name, found)
    if worlds == ["world 1"] * 2:
        advice = "mpiexec and mpi4py's library are of different MPIs: use that library's mpiexec, or set MPI4PY_LIBMPI"
        return Check(name, "broken", "mpiexec -n 2 gives two worlds of 1", advice)
    problem = last_line(output) or f"mpiexec ended with code {code}"
    return Check(name, "broken", problem, f"look at: {found.path} -n 2 {sys.executable} -m mpi4py.bench helloworld")


def _two_ranks_talk(name: str, found: Mpiexec) -> Check:
    """Whether two ranks get the right sums from each other, and how quickly."""
    code, output = run_command(found.command(2, [sys.executable, "-c", _TALK]), found.environment(2))
    said = last_line(output)
    if code == 0:
        return Check(name, "ok", f"mpiexec -n 2 gives a world of 2: {said}")
    advice = f"look at: {sys.executable} -m paceline run -n 2 -m mpi4py.bench allreduce"
    return Check(name, "broken", said or f"mpiexec ended with code {code}", advice)


def _probe(name: str, program: str, advice: str) -> Check:
    """The check that a Python program makes."""
    code, output = run_command([sys.executable, "-c", program], {})
    found = last_line(output)
    if code == 0 and found == "missing":
        return Check(name, "missing", "not installed", advice)
    return Check(name, "ok", found) if code == 0 else Check(name, "broken", found or f"ended with code {code}", advice)
