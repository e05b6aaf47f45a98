"""torch.distributed's functions on Tensors, over the communicator at hand.

Nothing has to be initialised: the world is known from how the process was started.
"""

from __future__ import annotations

import datetime
from typing import Any, Protocol

from ..runtime import watchdog
from ..runtime.arrays import Array, module_of
from ..runtime.comm import ReduceOp, Work, world_comm, world_rank, world_size
from ..runtime.world import get_world

_BACKENDS = ("mpi", "gloo", "nccl", "cpu:gloo,cuda:nccl")


class _HasArray(Protocol):
    array: Array


def is_available() -> bool:
    """Whether this module can be used: always."""
    return True


def is_initialized() -> bool:
    """Whether collectives can be called: always."""
    return True


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: datetime.timedelta | None = None,
    world_size: int = -1,
    rank: int = -1,
) -> None:
    """Accepted so that PyTorch's scripts run, and checked; the launcher has decided rank and size already.

    Args:
        backend: None, "mpi", "gloo" or "nccl"; each means the communicator of the machine's MPI.
        init_method: None or "env://".
        timeout: how long a rank may wait in a collective before the job is ended with a report; None is the value of
            PACELINE_TIMEOUT, or else ten minutes.
        world_size: -1, or the number of ranks.
        rank: -1, or this process's rank.

    Raises:
        ValueError: an unknown backend, or a rank or world size that this job does not have.

    Example:
        >>> init_process_group("gloo")
        >>> get_world_size()
        1
    """
    if backend is not None and backend.lower() not in _BACKENDS:
        raise ValueError(f"init_process_group(): backend should be one of {', '.join(_BACKENDS)}, got {backend!r}")
    if init_method not in (None, "env://"):
        raise ValueError(
            f"init_process_group(): init_method {init_method!r} is not supported: start the job with "
            "`paceline run -n N script.py` or mpirun, which bring the processes together"
        )
    for name, given, found in (("world_size", world_size, get_world_size()), ("rank", rank, get_rank())):
        if given not in (-1, found):
            raise ValueError(
                f"init_process_group(): {name} is {given}, but this process was started as rank {get_rank()} of "
                f"{get_world_size()}; start the job with `paceline run -n N script.py` or mpirun"
            )
    if timeout is not None:
        watchdog.set_timeout(timeout.total_seconds())
    world_comm()


def destroy_process_group() -> None:
    """Accepted so that PyTorch's scripts run; MPI ends with the process."""


def get_rank() -> int:
    """This process's rank, 0 .. get_world_size() - 1."""
    return world_rank()


def get_node_local_rank(fallback_rank: int | None = None) -> int:
    """The number of this process among the job's processes on its machine; it is always known."""
    return get_world().local_rank


def get_world_size() -> int:
    """The number of processes in the job."""
    return world_size()


def get_backend() -> str:
    """The communicator in use: "solo", "mpi" or "threads"."""
    return world_comm().backend


def barrier(*, async_op: bool = False) -> Work | None:
    """Return when every rank has called it."""
    return world_comm().barrier(async_op=async_op)


def all_reduce(tensor: _HasArray, op: ReduceOp = ReduceOp.SUM, *, async_op: bool = False) -> Work | None:
    """Combine `tensor` elementwise over all ranks, in place, on every rank.

    Args:
        tensor: same shape and dtype on every rank.
        op: ReduceOp.SUM, PRODUCT, MIN or MAX.
        async_op: return a Work to wait for, instead of None.

    Raises:
        CollectiveMismatchError: the ranks' calls differ.
    """
    return world_comm().all_reduce(_array("all_reduce", "tensor", tensor), op, async_op=async_op)


def reduce(tensor: _HasArray, dst: int, op: ReduceOp = ReduceOp.SUM) -> None:
    """Combine `tensor` elementwise over all ranks, in place on rank `dst`; the other ranks keep theirs."""
    comm = world_comm()
    array = _array("reduce", "tensor", tensor)
    if not 0 <= dst < comm.size:
        raise ValueError(f"reduce(): dst should be a rank from 0 to {comm.size - 1}, got {dst}")
    comm.all_reduce(array if comm.rank == dst else array.copy(), op)


def broadcast(tensor: _HasArray, src: int = 0, *, async_op: bool = False) -> Work | None:
    """Overwrite `tensor` on every rank by that of rank `src`; same shape and dtype everywhere."""
    return world_comm().broadcast(_array("broadcast", "tensor", tensor), src, async_op=async_op)


def all_gather(tensor_list: list[_HasArray], tensor: _HasArray) -> None:
    """Fill `tensor_list` on every rank by all ranks' tensors in rank order.

    Args:
        tensor_list: one tensor per rank, each of `tensor`'s shape and dtype.
        tensor: same shape and dtype on every rank.
    """
    comm = world_comm()
    array = _array("all_gather", "tensor", tensor)
    outputs = [_array("all_gather", "tensor_list", each) for each in tensor_list]
    _check_length("all_gather", "tensor_list", outputs, comm.size)
    for index, output in enumerate(outputs):
        if output.shape != array.shape or output.dtype != array.dtype:
            raise ValueError(
                f"all_gather(): tensor_list[{index}] is {output.dtype} {list(output.shape)}, but tensor is "
                f"{array.dtype} {list(array.shape)}"
            )
    gathered = module_of(array).empty((comm.size, *array.shape), array.dtype)
    comm.all_gather(gathered, array)
    for output, part in zip(outputs, gathered, strict=True):
        output[...] = part


def all_gather_object(object_list: list[Any], obj: Any) -> None:
    """Fill `object_list` on every rank by all ranks' picklable objects in rank order."""
    comm = world_comm()
    _check_length("all_gather_object", "object_list", object_list, comm.size)
    object_list[:] = comm.all_gather_object(obj)


def broadcast_object_list(object_list: list[Any], src: int = 0) -> None:
    """Overwrite `object_list` on every rank by the picklable objects of rank `src`."""
    object_list[:] = world_comm().broadcast_object(object_list, src)


def _array(function: str, name: str, tensor: _HasArray) -> Array:
    """The memory of a Tensor."""
    try:
        return tensor.array
    except AttributeError:
        raise TypeError(f"{function}(): {name} should be a Tensor, got {type(tensor).__name__}") from None


def _check_length(function: str, name: str, items: list[Any], size: int) -> None:
    """Check that a list has room for one entry per rank."""
    if len(items) != size:
        raise ValueError(f"{function}(): {name} has {len(items)} entries, expected one for each of the {size} ranks")
