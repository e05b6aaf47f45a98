"""Who this process is among the ranks of its job. The one place that reads what launchers put into the environment."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class World:
    """This process's place in its job.

    Attributes:
        rank: number of this process in the job, 0 .. size - 1.
        size: number of processes in the job.
        local_rank: number of this process among those on its machine.
        local_size: number of the job's processes on this machine.
        launcher: what started the job: "hydra" (MPICH, Intel MPI), "openmpi", "slurm", or "none" for a world of one.
        threads: threads that BLAS and Numba should use in this process.

    Example:
        >>> get_world().size
        1
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    launcher: str
    threads: int


class _Launcher(NamedTuple):
    """Variables that one family of launchers sets; of several names the first that is set counts."""

    name: str
    rank: tuple[str, ...]
    size: tuple[str, ...]
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...]


# The innermost launcher comes first: mpiexec inside an srun step sees both families.
_LAUNCHERS = (
    _Launcher(
        "hydra",
        ("PMI_RANK",),
        ("PMI_SIZE",),
        ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID"),
        ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE"),
    ),
    _Launcher(
        "openmpi",
        ("OMPI_COMM_WORLD_RANK",),
        ("OMPI_COMM_WORLD_SIZE",),
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
    ),
    _Launcher(
        "slurm",
        ("SLURM_PROCID",),
        ("SLURM_STEP_NUM_TASKS",),
        ("SLURM_LOCALID",),
        ("SLURM_STEP_TASKS_PER_NODE",),
    ),
)

# `paceline run` says here how many ranks it asked MPI for.
EXPECTED_SIZE = "PACELINE_WORLD_SIZE"
# How often it has started the job before, after failures.
RESTARTS = "PACELINE_RESTARTS"
# A process that a rank starts inherits the rank's variables; this one tells it that it is not the rank.
RANK_PID = "PACELINE_RANK_PID"
# Not NUMBA_NUM_THREADS, which would be the most that set_num_threads() could ever ask of compiled kernels.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@functools.cache
def get_world() -> World:
    """The world of this process, read from the environment once.

    Returns:
        World: rank 0 of 1 unless a launcher started this process.

    Raises:
        RuntimeError: what the launchers left in the environment is incomplete or contradicts itself.

    Example:
        >>> get_world().rank
        0
    """
    world = read_world(os.environ)
    if world.size > 1:
        os.environ[RANK_PID] = str(os.getpid())
    return world


def is_command() -> bool:
    """Whether this process runs the `paceline` command, and not a program that uses the package."""
    return sys.orig_argv[1:3] == ["-m", "paceline"] or os.path.basename(sys.argv[0]) == "paceline"


def read_world(environ: Mapping[str, str]) -> World:
    """The world that these environment variables describe, for this process."""
    if environ.get(RANK_PID, str(os.getpid())) != str(os.getpid()):
        return World(0, 1, 0, 1, "none", _threads(environ, 1))
    launcher = next((each for each in _LAUNCHERS if _is_live(each, environ)), None)
    if launcher is None:
        _refuse_lost_ranks(environ)
        world = World(0, 1, 0, 1, "none", _threads(environ, 1))
    else:
        local_size = _read(launcher, "local_size", environ)
        world = World(
            rank=_read(launcher, "rank", environ),
            size=_read(launcher, "size", environ),
            local_rank=_read(launcher, "local_rank", environ),
            local_size=local_size,
            launcher=launcher.name,
            threads=_threads(environ, local_size),
        )
    _refuse_contradictions(world, environ)
    return world


def _is_live(launcher: _Launcher, environ: Mapping[str, str]) -> bool:
    """Whether the launcher really started this process, rather than left variables behind in a shell or a batch job."""
    if not all(any(name in environ for name in names) for names in (launcher.rank, launcher.size)):
        return False
    if launcher.name == "hydra":
        return _is_open(environ.get("PMI_FD")) or "PMI_PORT" in environ or "PMI_CONTROL_PORT" in environ
    if launcher.name == "slurm":
        return "SLURM_STEP_ID" in environ and "PMIX_RANK" in environ  # a batch script is no MPI process
    return True


def _is_open(descriptor: str | None) -> bool:
    """Whether this number is an open file of this process."""
    try:
        os.fstat(int(descriptor or -1))
    except (ValueError, OSError):
        return False
    return True


def _read(launcher: _Launcher, field: str, environ: Mapping[str, str]) -> int:
    """The integer that the launcher gives for `field`."""
    names: tuple[str, ...] = getattr(launcher, field)
    name = next((name for name in names if name in environ), None)
    if name is None:
        raise RuntimeError(
            f"this process was started by {launcher.name}, which did not say its {field.replace('_', ' ')}: "
            f"expected one of the variables {', '.join(names)}"
        )
    text = environ[name]
    if name == "SLURM_STEP_TASKS_PER_NODE":
        text = _slurm_tasks(text, int(environ.get("SLURM_NODEID", "0")))
    try:
        return int(text)
    except ValueError:
        raise RuntimeError(f"{launcher.name} set the variable {name} to {text!r}, expected an integer") from None


def _slurm_tasks(text: str, node: int) -> str:
    """The entry for `node` in Slurm's shorthand, where "2(x3),1" means 2, 2, 2, 1."""
    counts: list[str] = []
    for item in text.split(","):
        count, _, times = item.partition("(x")
        counts += [count] * int(times.rstrip(")") or 1)
    return counts[node]


def _refuse_contradictions(world: World, environ: Mapping[str, str]) -> None:
    """Refuse numbers that cannot all be true, before a job computes nonsense with them."""
    if not (0 <= world.rank < world.size and 0 <= world.local_rank < world.local_size <= world.size):
        raise RuntimeError(f"the environment set by {world.launcher} contradicts itself: {world}")
    expected = environ.get(EXPECTED_SIZE)
    if expected is not None and expected != str(world.size):
        raise RuntimeError(
            f"`paceline run` asked for {expected} ranks, but this process was started in a world of {world.size} "
            f"({world.launcher}); if you start it yourself, unset {EXPECTED_SIZE}"
        )


def _refuse_lost_ranks(environ: Mapping[str, str]) -> None:
    """Refuse to be one of N worlds of one, each of which would do the whole work and overwrite the others' results."""
    alone = "if it is to run alone, unset"
    if environ.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_STEP_ID" in environ and "SLURM_PROCID" in environ:
        raise RuntimeError(
            f"srun started this process as task {environ['SLURM_PROCID']} of {environ['SLURM_STEP_NUM_TASKS']}, but "
            "without MPI: there is no PMIX_RANK; use `srun --mpi=pmix` or, inside the allocation, `paceline run`; "
            f"{alone} SLURM_STEP_NUM_TASKS"
        )
    connected = any(name in environ for name in ("PMI_FD", "PMI_PORT", "PMI_CONTROL_PORT"))
    if environ.get("PMI_SIZE", "1") != "1" and "PMI_RANK" in environ and not connected:
        raise RuntimeError(
            f"PMI_RANK={environ['PMI_RANK']} and PMI_SIZE={environ['PMI_SIZE']} say that this process is one of "
            f"several ranks, but there is no mpiexec behind them: they are left over from another job; {alone} them"
        )


def _threads(environ: Mapping[str, str], local_size: int) -> int:
    """The user's OMP_NUM_THREADS, else this rank's share of the machine."""
    chosen = environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(chosen) if chosen.isdecimal() and int(chosen) > 0 else threads_per_rank(local_size)


def threads_per_rank(local_size: int) -> int:
    """Cores for each of `local_size` ranks that share this machine."""
    own = len(os.sched_getaffinity(0))
    if local_size == 1:
        return own
    # A launcher that binds ranks to cores has already divided the cores that it may use itself.
    shared = len(os.sched_getaffinity(os.getppid()))
    return max(1, min(own, shared // local_size))


def let_waiting_threads_sleep() -> None:
    """Have threads without work sleep after microseconds of spinning; works only before BLAS and OpenMP are loaded.

    BLAS and compiled kernels have threads of their own, and those of one, spinning, keep the other's from the cores: a
    kernel of 0.1 ms and a product of 0.15 ms in turns took 8 ms a pair, and take 0.25 so.
    """
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "14")  # 2 ** 14 ticks of the processor's clock
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "100")


def set_thread_counts(world: World) -> None:
    """Give BLAS `world.threads` threads, where the user has not chosen; works only before they are loaded."""
    chosen = "OMP_NUM_THREADS" in os.environ
    if world.size == 1 and not chosen:
        return  # one rank may use the whole machine, which is what the libraries do anyway
    if "numpy" in sys.modules and not chosen and world.rank == 0:
        warnings.warn(
            f"NumPy was imported before paceline, so each of the {world.local_size} ranks on this machine runs BLAS on "
            f"all cores; import paceline first, use `paceline run`, or set OMP_NUM_THREADS={world.threads}",
            RuntimeWarning,
            stacklevel=2,
        )
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, str(world.threads))


def has_spare_cores() -> bool:
    """Whether a second thread for messages would not take turns with computing ones."""
    world, cores = get_world(), len(os.sched_getaffinity(0))
    return cores >= 2 * world.local_size and world.threads < cores
