"""The world as read from what launchers put into the environment."""

import os
import subprocess
import sys

import pytest

from paceline.runtime.world import World, get_world, read_world, threads_per_rank

HYDRA = {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2", "PMI_PORT": "host:1"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "3",
}
SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
    "PMIX_RANK": "5",
}
CRAY = {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_LOCAL_RANK": "1", "PMI_LOCAL_SIZE": "2", "PMI_CONTROL_PORT": "1"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (0, 1, 0, 1, "none")),
        (HYDRA, (2, 4, 0, 2, "hydra")),
        (CRAY, (1, 2, 1, 2, "hydra")),
        (OPEN_MPI, (1, 3, 1, 3, "openmpi")),
        (SRUN, (5, 7, 1, 2, "slurm")),
        (SRUN | {"SLURM_NODEID": "3", "SLURM_LOCALID": "0"}, (5, 7, 0, 1, "slurm")),
        (SRUN | HYDRA, (2, 4, 0, 2, "hydra")),  # mpiexec inside an srun step
        # Left behind, with no launcher at the other end.
        (HYDRA | {"PMI_PORT": "host:1", "PACELINE_RANK_PID": "1"}, (0, 1, 0, 1, "none")),  # a child of a rank
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}, (0, 1, 0, 1, "none")),  # a batch script
        (OPEN_MPI | {"PACELINE_WORLD_SIZE": "3"}, (1, 3, 1, 3, "openmpi")),
    ],
)
def test_launchers(environ, expected):
    world = read_world(environ)
    assert (world.rank, world.size, world.local_rank, world.local_size, world.launcher) == expected


def test_hydra_is_believed_while_its_connection_is_open():
    variables = {name: text for name, text in HYDRA.items() if name != "PMI_PORT"}
    reader, writer = os.pipe()
    assert read_world(variables | {"PMI_FD": str(reader)}).size == 4
    os.close(reader)
    os.close(writer)
    assert read_world(variables | {"PMI_FD": str(reader)}).size == 1


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "x"}, "OMPI_COMM_WORLD_SIZE to 'x', expected an integer"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "3"}, "contradicts itself"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2", "PMI_PORT": "a:1"}, "did not say its local size"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, "PMI_RANK=0 and PMI_SIZE=2 say .* no mpiexec behind them: .* unset them"),
        (
            {name: text for name, text in SRUN.items() if name != "PMIX_RANK"},
            "task 5 of 7, but without MPI: .* `srun --mpi=pmix`",
        ),
        ({"PACELINE_WORLD_SIZE": "2"}, "asked for 2 ranks, but this process was started in a world of 1"),
        (OPEN_MPI | {"PACELINE_WORLD_SIZE": "2"}, "asked for 2 ranks, but this process was started in a world of 3"),
    ],
)
def test_contradictions_are_refused(environ, words):
    with pytest.raises(RuntimeError, match=words):
        read_world(environ)


def test_threads_share_the_cores_unless_the_user_says_otherwise():
    cores = len(os.sched_getaffinity(0))
    assert threads_per_rank(1) == cores
    assert threads_per_rank(10 * cores) == 1
    assert read_world(OPEN_MPI).threads == max(1, cores // 3)
    assert read_world(OPEN_MPI | {"OMP_NUM_THREADS": "5"}).threads == 5
    assert read_world(OPEN_MPI | {"OMP_NUM_THREADS": "6,2"}).threads == 6


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["1", "1"]),
        ({"OMP_NUM_THREADS": "3"}, ["3", "3"]),
        ({"OPENBLAS_NUM_THREADS": "4"}, ["1", "4"]),
    ],
)
def test_thread_counts_are_set_before_numpy_loads(given, expected):
    """In a fresh interpreter of a rank that shares its machine with 10,000 others."""
    many = {"OMPI_COMM_WORLD_SIZE": "10000", "OMPI_COMM_WORLD_LOCAL_SIZE": "10000"}
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    program = f"import paceline.runtime, os; print(*[os.environ[name] for name in {names}])"
    environment = {name: text for name, text in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | OPEN_MPI | many | given,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == expected


def test_this_process_is_alone():
    world = get_world()
    assert world == World(0, 1, 0, 1, "none", world.threads)
    assert get_world() is world
