"""How many ranks a job has, on which machines, with which command and variables."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from ..runtime import world
from .hosts import Host, allocation, is_here, parse_hostfile, parse_hosts
from .mpi import LaunchError, Mpiexec, find_mpiexec

# What a launcher has set for the process that it started, and no other.
_OF_ONE_PROCESS = ("PMI_", "PMIX_", "OMPI_COMM_WORLD_", "HYDI_", "HYDRA_", "MPI_LOCAL", "PRTE_", "SLURM_PROCID")
# What ranks on other machines need; Open MPI takes along only what is named.
_EXPORTED = ("PACELINE_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "NUMBA_", "NCCL_", "CUDA_", "MPI4PY_")
_EXPORTED_ALWAYS = ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Plan:
    """A job to be.

    Attributes:
        size: number of ranks.
        hosts: its machines; none means this one.
        mpiexec: what starts the ranks; None for a single one here.
        per_host: the largest number of ranks on one machine.
    """

    size: int
    hosts: list[Host]
    mpiexec: Mpiexec | None
    per_host: int

    def command(self, worker: list[str], folder: str, environment: Mapping[str, str]) -> list[str]:
        """The command line that runs `worker` on every rank; `folder` is for files that it needs."""
        if self.mpiexec is None:
            return worker
        if not self.hosts:
            return self.mpiexec.command(self.size, worker)
        hostfile = os.path.join(folder, "hosts")
        with open(hostfile, "w") as file:
            file.writelines(self.mpiexec.host_line(*host) for host in self.hosts)
        exported = [name for name in environment if name.startswith(_EXPORTED) or name in _EXPORTED_ALWAYS]
        return self.mpiexec.command(self.size, worker, hostfile, exported)

    @property
    def end_signal(self) -> int:
        """What ends the command at once, with all ranks."""
        return signal.SIGKILL if self.mpiexec is None else self.mpiexec.end_signal

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables of the ranks."""
        variables = without_rank(environ)
        variables[world.EXPECTED_SIZE] = str(self.size)
        threads = variables.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // self.per_host))
        variables = dict.fromkeys(world.THREAD_VARIABLES, threads) | variables
        return variables if self.mpiexec is None else self.mpiexec.environment(self.per_host) | variables


def without_rank(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables but those that make a process a rank: a job started from inside a rank is a job of its own."""
    own = (world.RANK_PID, world.EXPECTED_SIZE)
    return {name: text for name, text in environ.items() if not name.startswith(_OF_ONE_PROCESS) and name not in own}


def make_plan(size: int | None, hosts: str, hostfile: str, environ: Mapping[str, str]) -> Plan:
    """The job that these options describe, in this environment.

    Raises:
        LaunchError: options or variables that contradict each other or the facts.
    """
    _refuse_inner_launch(environ)
    machines = find_machines(hosts, hostfile, environ)
    slots = sum(host.slots for host in machines)
    if size is None:
        size = slots or 1
    elif machines and size > slots:
        listed = ", ".join(f"{host.name}:{host.slots}" for host in machines)
        raise LaunchError(f"-n {size}: the machines take {slots} ranks in all: {listed}; name more, or raise a number")
    if is_here(machines):
        machines = []
    mpiexec = find_mpiexec() if size > 1 or machines else None
    return Plan(size, machines, mpiexec, min(size, max((host.slots for host in machines), default=size)))


def find_machines(hosts: str, hostfile: str, environ: Mapping[str, str]) -> list[Host]:
    """The machines that the options name, or those that a batch system has given us."""
    if hosts and hostfile:
        raise LaunchError("--hosts and --hostfile: give one of them")
    return parse_hosts(hosts) if hosts else parse_hostfile(hostfile) if hostfile else allocation(environ)


def _refuse_inner_launch(environ: Mapping[str, str]) -> None:
    """`mpiexec -n 4 paceline run -n 4 train.py` would be four jobs."""
    try:
        outer = world.read_world({name: text for name, text in environ.items() if name != world.EXPECTED_SIZE})
    except RuntimeError as error:
        raise LaunchError(str(error)) from error
    if outer.size > 1:
        raise LaunchError(
            f"{outer.launcher} has started this command as process {outer.rank} of {outer.size}; either start the "
            "script with it, without `paceline run`, or use `paceline run` alone"
        )
