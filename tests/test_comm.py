"""Communicators: the same checks on every backend, and what is particular to one."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from tables import comms

from paceline.runtime import comm as comm_package
from paceline.runtime.comm import CollectiveMismatchError, backend_class, register, world_comm, world_rank, world_size
from paceline.runtime.comm.mpi import MpiComm
from paceline.runtime.comm.threads import run_threads


def test_every_registered_backend_has_a_row():
    assert set(comm_package._backends) == set(comms.COMMS)


@pytest.mark.parametrize("check", comms.CHECKS, ids=lambda check: check.__name__)
def test_solo(check):
    assert world_comm().backend == "solo"
    check(world_comm())


@pytest.mark.parametrize("size", comms.COMMS["threads"])
@pytest.mark.parametrize("check", comms.CHECKS, ids=lambda check: check.__name__)
def test_threads(check, size):
    run_threads(size, lambda: check(world_comm()), timeout=60)


@pytest.mark.parametrize("size", comms.COMMS["mpi"])
def test_mpi(size):
    comms.run_script_of_checks(comms.__file__, size)


def test_half_precision_is_summed_in_float32():
    def body():
        # 2048 + 1 + 1 is 2048 when every sum is rounded to float16.
        array = np.array([[2048.0, 1.0, 1.0][world_comm().rank]], np.float16)
        world_comm().all_reduce(array)
        return float(array[0])

    assert run_threads(3, body) == [2050.0] * 3


@pytest.mark.parametrize("size", [2, 3])
def test_sums_are_taken_in_rank_order(size):
    run_threads(size, lambda: comms.check_large_reductions(world_comm(), exactly=True))


def test_a_missed_call_is_found_at_the_next_one():
    def body():
        comm = world_comm()
        if comm.rank == 0:
            comm.barrier()
        comm.all_reduce(np.zeros(3))

    with pytest.raises(comm_package.CollectiveMismatchError, match=r"rank 0: call 1: barrier\(\)"):
        run_threads(2, body)


def test_the_first_failure_ends_all_threads_and_is_the_one_raised():
    def body():
        if world_comm().rank == 1:
            raise KeyError("first")
        world_comm().barrier()

    with pytest.raises(KeyError, match="first"):
        run_threads(3, body)


def test_a_failure_reaches_ranks_that_wait_in_a_part():
    def body():
        part = world_comm().split(world_comm().rank // 2)
        if world_comm().rank == 3:
            time.sleep(0.05)
            raise KeyError("first")
        if world_comm().rank == 2:
            part.barrier()

    with pytest.raises(KeyError, match="first"):
        run_threads(4, body)


def test_a_rank_that_has_returned_is_named():
    def body():
        if world_comm().rank != 1:
            world_comm().barrier()

    with pytest.raises(RuntimeError, match=r"barrier: ranks \[1\] have returned without calling it"):
        run_threads(3, body)


def test_a_rank_that_does_not_come_is_named():
    release = threading.Event()

    def body():
        if world_comm().rank == 2:
            release.wait(30)
        world_comm().all_reduce(np.zeros(1))

    with pytest.raises(TimeoutError, match=r"all_reduce: timed out after 0.2 s, waiting for ranks \[2\]"):
        run_threads(3, body, timeout=0.2)
    release.set()


def test_threads_are_worlds_of_their_own():
    assert run_threads(3, lambda: (world_rank(), world_size())) == [(0, 3), (1, 3), (2, 3)]
    assert (world_rank(), world_size()) == (0, 1)


def test_run_threads_refuses_no_ranks():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        run_threads(0, lambda: None)


def test_groups_that_mpi_has_no_room_for():
    def refuse(color, key):
        raise ArithmeticError("MPI_Comm_split failed\nToo many communicators")

    comm = object.__new__(MpiComm)
    comm.rank, comm.ranks = 0, (0, 1)
    comm._mpi, comm._comm = SimpleNamespace(Exception=ArithmeticError), SimpleNamespace(Split=refuse)
    with pytest.raises(RuntimeError, match=r"\(Too many communicators\); .* by destroy_process_group\(group\)"):
        comm._split([0, 1])


def test_mismatching_message_is_refused():
    def body():
        comm = world_comm()
        if comm.rank == 0:
            comm.send(np.zeros(2), 1)
        else:
            comm.recv(np.zeros(3), 0)

    with pytest.raises(CollectiveMismatchError, match="rank 0 sent 2 elements of float64, but array has 3 of float64"):
        run_threads(2, body)


def test_registry_refuses_duplicates_and_unknown_names():
    with pytest.raises(ValueError, match="already registered"):
        register("solo", "elsewhere:Solo")
    with pytest.raises(ValueError, match="unknown communicator backend 'gloo'; there are: mpi, solo, threads"):
        backend_class("gloo")
