"""Communicators and what each must do: one row per backend, one list of checks for all of them.

As a script (`mpiexec -n 3 python tests/tables/comms.py`) it runs the checks on the communicator of its world.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

from paceline.launch.mpi import LaunchError, find_mpiexec
from paceline.runtime.arrays import cupy, device_count, module_of, to_host
from paceline.runtime.comm import CollectiveMismatchError, Comm, ReduceOp, Work, world_comm
from paceline.runtime.shareable import shareable_zeros

# backend -> numbers of ranks
COMMS = {"solo": [1], "threads": [1, 2, 3, 4], "mpi": [2, 3, 4]}

DTYPES = [
    *(np.dtype(name) for name in "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()),
    *(np.dtype(name) for name in "float16 float32 float64 complex64 complex128 >f4".split()),
    np.dtype(ml_dtypes.bfloat16),
]
SHAPES = [(), (0,), (5,), (2, 0, 3), (4, 6)]

_EXACT = {
    ReduceOp.SUM: np.add,
    ReduceOp.AVG: np.add,
    ReduceOp.PRODUCT: np.multiply,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
    ReduceOp.BAND: np.bitwise_and,
    ReduceOp.BOR: np.bitwise_or,
    ReduceOp.BXOR: np.bitwise_xor,
}
_BITWISE = (ReduceOp.BAND, ReduceOp.BOR, ReduceOp.BXOR)


def finish_job(command: list[str], timeout: float = 60.0, **options) -> subprocess.CompletedProcess[str]:
    """Run a command that starts processes; if it does not end in time, kill its process group and fail."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise AssertionError(f"{command} hung\n{output}\n{errors}") from None
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def run_script_of_checks(path: str, size: int) -> None:
    """Run a script of checks on so many ranks of a job; each rank says that all have passed."""
    try:
        mpiexec = find_mpiexec()
    except LaunchError as error:
        pytest.skip(str(error))
    job = finish_job(mpiexec.command(size, [sys.executable, path]), timeout=120)
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("all checks passed") == size


def modules() -> Iterator[ModuleType]:
    """NumPy, and CuPy where it finds a device."""
    yield np
    if device_count():
        yield cupy()


def pattern(rank: int, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Small numbers, different for each rank, in a dtype that holds all results exactly."""
    ramp = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 3 + rank + 1
    return {"b": ramp % 2 == 0, "c": ramp * (1 + 1j)}.get(kind, ramp)


def strided(array: np.ndarray) -> np.ndarray:
    """The same values, with gaps between them in memory."""
    room = module_of(array).empty((*array.shape, 2), array.dtype)
    room[..., 0] = array
    return room[..., 0]


LAYOUTS = {"contiguous": lambda array: array.copy(), "columns": lambda array: array.copy(order="F"), "strided": strided}


class Case(NamedTuple):
    """One kind of array."""

    xp: ModuleType
    dtype: np.dtype
    shape: tuple[int, ...]
    layout: str

    def values(self, rank: int) -> np.ndarray:
        return pattern(rank, self.shape, self.dtype.kind)

    def make(self, values: np.ndarray) -> np.ndarray:
        """A new array with these values."""
        return LAYOUTS[self.layout](self.xp.asarray(np.asarray(values).astype(self.dtype)))

    def expect(self, array: np.ndarray, values: np.ndarray) -> None:
        """Check an array's values; the dtype rounds or wraps the expected ones just the same."""
        np.testing.assert_array_equal(to_host(array), values.astype(self.dtype), err_msg=str(self))


def cases() -> Iterator[Case]:
    for xp in modules():
        for dtype in DTYPES if xp is np else [np.dtype("float32"), np.dtype("int64"), np.dtype("bool")]:
            for shape in SHAPES:
                for layout in LAYOUTS:
                    yield Case(xp, dtype, shape, layout)


def has(dtype: np.dtype, op: ReduceOp) -> bool:
    """Whether the operation is defined for the dtype."""
    if op in _BITWISE:
        return dtype.kind in "biu"
    if op is ReduceOp.AVG:
        return dtype.kind in "fcV"
    return dtype.kind != "c" or op not in (ReduceOp.MIN, ReduceOp.MAX)


def check_all_reduce(comm: Comm) -> None:
    for case in cases():
        for op, combine in _EXACT.items():
            if not has(case.dtype, op):
                continue
            array = case.make(case.values(comm.rank))
            assert comm.all_reduce(array, op) is None
            expected = functools.reduce(combine, [case.values(rank) for rank in range(comm.size)])
            case.expect(array, expected / comm.size if op is ReduceOp.AVG else expected)


def check_broadcast(comm: Comm) -> None:
    for case in cases():
        for src in range(comm.size):
            array = case.make(case.values(comm.rank))
            comm.broadcast(array, src)
            case.expect(array, case.values(src))


def check_all_gather(comm: Comm) -> None:
    for case in cases():
        everybody = np.stack([case.values(rank) for rank in range(comm.size)])
        output = case.make(np.zeros_like(everybody))
        comm.all_gather(output, case.make(case.values(comm.rank)))
        case.expect(output, everybody)


def check_part_inside_the_whole(comm: Comm) -> None:
    """As an arena uses them: this rank's part is a slice of the whole."""
    buffer = np.zeros(comm.size * 3)
    part = buffer[3 * comm.rank : 3 * comm.rank + 3]
    part[:] = comm.rank + 1
    comm.all_gather(buffer, part)
    np.testing.assert_array_equal(buffer, np.repeat(np.arange(comm.size) + 1.0, 3))
    comm.reduce_scatter(part, buffer)
    np.testing.assert_array_equal(part, np.full(3, comm.size * (comm.rank + 1.0)))
    buffer[:] = np.repeat(np.arange(comm.size) + 1.0, 3)
    other = (comm.rank + 1) % comm.size
    comm.reduce_scatter(buffer[3 * other : 3 * other + 3], buffer)  # where other ranks' sums come from
    np.testing.assert_array_equal(buffer[3 * other : 3 * other + 3], np.full(3, comm.size * (comm.rank + 1.0)))
    buffer[:] = np.arange(comm.size * 3) + comm.rank
    expected = [np.arange(3.0) + 3 * ((rank + 1) % comm.size) + rank for rank in range(comm.size)]
    comm.all_gather(buffer, buffer[3 * other : 3 * other + 3])
    np.testing.assert_array_equal(buffer, np.concatenate(expected))


def check_reduce_scatter(comm: Comm) -> None:
    for case in cases():
        parts = [[case.values(rank + part) for part in range(comm.size)] for rank in range(comm.size)]
        output = case.make(np.zeros_like(parts[0][0]))
        comm.reduce_scatter(output, case.make(np.stack(parts[comm.rank])))
        case.expect(output, functools.reduce(np.add, [each[comm.rank] for each in parts]))


def check_all_to_all(comm: Comm) -> None:
    for case in cases():
        sent = [np.stack([case.values(rank + part) for part in range(comm.size)]) for rank in range(comm.size)]
        output = case.make(np.zeros_like(sent[0]))
        comm.all_to_all(output, case.make(sent[comm.rank]))
        case.expect(output, np.stack([each[comm.rank] for each in sent]))


def check_gather_and_scatter(comm: Comm) -> None:
    for case in cases():
        for root in range(comm.size):
            everybody = np.stack([case.values(rank) for rank in range(comm.size)])
            whole = case.make(np.zeros_like(everybody)) if comm.rank == root else None
            comm.gather(whole, case.make(case.values(comm.rank)), root)
            if whole is not None:
                case.expect(whole, everybody)
            part = case.make(np.zeros_like(everybody[0]))
            comm.scatter(part, whole, root)
            case.expect(part, case.values(comm.rank))


def check_send_and_recv(comm: Comm) -> None:
    for case in cases():
        for peer in range(1, comm.size):  # from rank 0 and back
            if comm.rank == 0:
                array = case.make(case.values(peer))
                comm.send(array, peer, tag=3)
                comm.recv(array, peer)
                case.expect(array, case.values(peer + 1))
            elif comm.rank == peer:
                array = case.make(case.values(0))
                comm.recv(array, 0, tag=3)
                case.expect(array, case.values(peer))
                comm.send(case.make(case.values(peer + 1)), 0)


def check_objects(comm: Comm) -> None:
    mine = {"rank": comm.rank, "text": "x" * 1000 * comm.rank}
    everybody = [{"rank": rank, "text": "x" * 1000 * rank} for rank in range(comm.size)]
    assert comm.all_gather_object(mine) == everybody
    for root in range(comm.size):
        assert comm.gather_object(mine, root) == (everybody if comm.rank == root else None)
        assert comm.broadcast_object(mine, root) == everybody[root]
    assert comm.all_gather_object(mine)[comm.rank] is not mine  # ranks share nothing, threads neither


def check_async(comm: Comm) -> None:
    array = np.full(3, 1.0)
    work = comm.all_reduce(array, async_op=True)
    assert isinstance(work, Work)
    work.wait()
    assert work.is_completed()
    np.testing.assert_array_equal(array, np.full(3, comm.size))
    barrier = comm.barrier(async_op=True)
    assert barrier is not None
    barrier.wait()
    work = comm.all_reduce(array, async_op=comm.rank > 0)  # ranks need not agree on that
    if work is not None:
        work.wait()
    np.testing.assert_array_equal(array, np.full(3, comm.size**2))


def check_split(comm: Comm) -> None:
    part = comm.split(comm.rank % 2, key=-comm.rank)
    assert part is not None
    members = [rank for rank in reversed(range(comm.size)) if rank % 2 == comm.rank % 2]
    assert part.all_gather_object(comm.rank) == members
    assert members[part.rank] == comm.rank
    assert (comm.split(None if comm.rank else 0) is None) == (comm.rank != 0)


# Calls that do not fit together: what rank 0 does, what the others do, and how the error names both.
MISMATCHES = {
    "kind": (
        lambda comm: comm.barrier(),
        lambda comm: comm.all_reduce(np.zeros(2)),
        ("barrier()", "all_reduce(float64 [2], op=sum)"),
    ),
    "dtype": (
        lambda comm: comm.all_reduce(np.zeros(2, np.float32)),
        lambda comm: comm.all_reduce(np.zeros(2, np.int32)),
        ("float32 [2]", "int32 [2]"),
    ),
    "shape": (
        lambda comm: comm.broadcast(np.zeros((2, 3))),
        lambda comm: comm.broadcast(np.zeros((3, 2))),
        ("[2, 3]", "[3, 2]"),
    ),
    "op": (
        lambda comm: comm.all_reduce(np.zeros(2), "max"),
        lambda comm: comm.all_reduce(np.zeros(2), "min"),
        ("op=max", "op=min"),
    ),
    "root": (
        lambda comm: comm.broadcast(np.zeros(2), 0),
        lambda comm: comm.broadcast(np.zeros(2), 1),
        ("root=0", "root=1"),
    ),
    "object": (
        lambda comm: comm.all_gather_object("a"),
        lambda comm: comm.broadcast_object("a"),
        ("all_gather_object()", "broadcast_object(root=0)"),
    ),
}


def check_mismatches(comm: Comm) -> None:
    if comm.size == 1:
        return
    for first, others, words in MISMATCHES.values():
        try:
            (others if comm.rank else first)(comm)
        except CollectiveMismatchError as error:
            message = str(error)
        else:
            raise AssertionError(f"{words} went through")
        assert message.count("comms.py:") == comm.size, message
        assert all(f"rank {rank}: " in message for rank in range(comm.size)), message
        assert all(word in message for word in words), message
        assert comm.all_gather_object(message) == [message] * comm.size  # the communicator still works


def check_arguments(comm: Comm) -> None:
    """Bad arguments, the same on all ranks, are refused before any rank waits."""
    a = np.zeros(2)
    refuse(TypeError, "NumPy or CuPy array, got list", lambda: comm.all_reduce([1.0]))
    objects = np.array([None])
    refuse(TypeError, "Python objects", lambda: comm.all_reduce(objects))
    refuse(TypeError, "Python objects", lambda: comm.broadcast(objects))
    refuse(TypeError, "Python objects", lambda: comm.all_gather(objects.repeat(comm.size), objects))
    refuse(ValueError, "op should be one of sum, avg, prod", lambda: comm.all_reduce(a, "mean"))
    refuse(TypeError, "op max is not defined for dtype complex64", lambda: comm.all_reduce(a.astype("c8"), "max"))
    refuse(TypeError, "not defined for dtype datetime64", lambda: comm.all_reduce(a.astype("M8[s]")))
    refuse(ValueError, f"src should be a rank from 0 to {comm.size - 1}, got 9", lambda: comm.broadcast(a, 9))
    refuse(ValueError, "dst should be a rank", lambda: comm.gather(None, a, -1))
    refuse(ValueError, "is this rank itself", lambda: comm.send(a, comm.rank))
    refuse(ValueError, "times the 2 of array [2]", lambda: comm.all_gather(np.zeros(2 * comm.size + 1), a))
    refuse(TypeError, "output is float32 but array is float64", lambda: comm.all_gather(np.zeros(2, "f4"), a))
    refuse(ValueError, "the same shape", lambda: comm.all_to_all(np.zeros(3), a))


def refuse(kind: type[Exception], words: str, call: Callable[[], object]) -> None:
    """Check that a call raises, and says these words."""
    try:
        call()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"expected {kind.__name__} with {words!r}")


def check_large_reductions(comm: Comm, exactly: bool = False) -> None:
    """Arrays of several tiles, whose last one is not full; `exactly` with the bits of a sum in rank order."""
    for dtype in (np.float32, np.float16):
        for size in (70_000, 600_001):
            parts = [np.random.default_rng(rank).normal(size=size).astype(dtype) for rank in range(comm.size)]
            array = parts[comm.rank].copy()
            comm.all_reduce(array, ReduceOp.AVG)
            expected = (functools.reduce(np.add, [part.astype(np.float32) for part in parts]) / comm.size).astype(dtype)
            np.testing.assert_allclose(array, expected, rtol=2e-3, atol=0 if exactly else np.finfo(dtype).eps)
            assert not exactly or array.tobytes() == expected.tobytes()
            width = size // comm.size
            part = np.empty(width, dtype)
            comm.reduce_scatter(part, parts[comm.rank][: width * comm.size], ReduceOp.AVG)
            own = expected[width * comm.rank :][:width]
            np.testing.assert_allclose(part, own, rtol=2e-3, atol=0 if exactly else np.finfo(dtype).eps)
            assert not exactly or part.tobytes() == own.tobytes()
            assert len(set(comm.all_gather_object(zlib.crc32(array)))) == 1


def check_large_broadcasts(comm: Comm) -> None:
    for src in range(comm.size):
        expected = np.random.default_rng(src).normal(size=200_001)
        array = expected.copy() if comm.rank == src else np.empty_like(expected)
        array.flags.writeable = comm.rank != src  # the source may be read-only
        comm.broadcast(array, src)
        assert (array == expected).all()


def check_reductions_of_shared_arrays(comm: Comm) -> None:
    """Wherever a slice lies, also if one rank has it somewhere else, or does not share any more."""
    memory = shareable_zeros(2_000_000)
    kept = comm.share(memory)

    def check(dtype: type, first: int, array: np.ndarray) -> None:
        parts = [np.random.default_rng(rank).normal(size=array.size).astype(dtype) for rank in range(comm.size)]
        array[:] = parts[comm.rank]
        before = memory.view(dtype)[first - 8 : first].copy()
        comm.all_reduce(array, ReduceOp.AVG)
        expected = functools.reduce(np.add, [part.astype(np.float32) for part in parts]) / comm.size
        np.testing.assert_allclose(array, expected.astype(dtype), rtol=2e-3, atol=np.finfo(dtype).eps)
        assert len(set(comm.all_gather_object(zlib.crc32(array)))) == 1
        assert (memory.view(dtype)[first - 8 : first] == before).all()

    for dtype in (np.float32, np.float16):
        for first, size in ((16, 300_001), (48, 40_000), (16, 5), (64, 0)):
            inside = memory.view(dtype)[first : first + size]
            check(dtype, first, inside)
            check(dtype, first, inside if comm.rank else np.empty_like(inside))
            if comm.rank == comm.size - 1:
                check(dtype, first, memory.view(dtype)[first + 8 : first + 8 + size])
            else:
                check(dtype, first, inside)
    if comm.rank == 0:
        del kept
    check(np.float32, 16, memory.view(np.float32)[16:300_000])
    assert comm.share(np.zeros(3)) is None
    assert comm.share(shareable_zeros(100) if comm.rank else np.zeros(100)) is None


LARGE = (check_large_reductions, check_large_broadcasts, check_reductions_of_shared_arrays)  # too long in tiny pieces
CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


def run_checks(comm: Comm, skip: tuple[Callable[[Comm], None], ...] = ()) -> None:
    for check in CHECKS:
        if check not in skip:
            check(comm)


def communicators(backend: ModuleType, window: ModuleType) -> Iterator[tuple[Comm, bool]]:
    """All ranks in several arrangements, and whether each of these adds up in rank order."""
    size = world_comm().size
    for find_peers, ranks in (
        (window.Window._find_peers, size),
        (lambda self: None, size),  # as if they could not reach each other's memory
        (lambda self: None, 1),  # as if each were on a machine of its own
        (window.Window._find_peers, 2),  # as if two were on each machine
    ):
        window.Window._find_peers = find_peers
        backend.split_by_machine = lambda mpi, comm, ranks=ranks: comm.Split(comm.rank // ranks, comm.rank)
        yield world_comm().split(0), window.SUPPORTED and ranks == size


if __name__ == "__main__":
    backend = importlib.import_module("paceline.runtime.comm.mpi")
    window = importlib.import_module("paceline.runtime.comm.window")
    run_checks(world_comm(), skip=(check_large_reductions,))
    assert (world_comm().share(shareable_zeros(10)) is not None) == (window.SUPPORTED and world_comm().size > 1)
    ways = list(communicators(backend, window))
    for comm, exactly in ways:
        check_large_reductions(comm, exactly)
    # So that small arrays go in pieces, by slices, tile by tile, and between machines.
    backend.PIECE_BYTES, backend.HIERARCHY_BYTES, window.TILE_BYTES = 32, 8, 64
    backend.DIRECT_BYTES = dict.fromkeys(backend.DIRECT_BYTES, 0)
    backend.prepared.MOST_BYTES = dict.fromkeys(backend.prepared.MOST_BYTES, 0)
    (reaching, _), (mapping, _), (alone, _), _ = ways
    run_checks(reaching, skip=LARGE)
    check_all_reduce(mapping)
    run_checks(alone, skip=LARGE)
    print("all checks passed", len(CHECKS))
