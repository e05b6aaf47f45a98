"""torch.distributed's set-up and groups: a process group is a communicator.

Nothing has to be initialised: the world is known from how the process was started.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ..runtime import arrays
from ..runtime.comm import Comm, world_comm, world_rank, world_size
from ..runtime.world import get_world

ProcessGroup = Comm
_BACKENDS = ("mpi", "gloo", "nccl", "cpu:gloo,cuda:nccl")


class _NonMember:
    """What a rank gets that is not in a group."""

    size = -1
    rank = -1

    def __repr__(self) -> str:
        return "GroupMember.NON_GROUP_MEMBER"


class _WorldAttribute(type):
    @property
    def WORLD(cls) -> Comm:
        """The group of all ranks."""
        return world_comm()


class GroupMember(metaclass=_WorldAttribute):
    """The groups that have names: WORLD, and NON_GROUP_MEMBER for a rank that is not in a group."""

    NON_GROUP_MEMBER = _NonMember()


class group(metaclass=_WorldAttribute):
    """group.WORLD is the group of all ranks."""


Group = Comm | _NonMember | None


def is_available() -> bool:
    """Whether this module can be used: always."""
    return True


def is_initialized() -> bool:
    """Whether collectives can be called: always."""
    return True


def is_mpi_available() -> bool:
    """Whether mpi4py is installed."""
    return importlib.util.find_spec("mpi4py") is not None


def is_nccl_available() -> bool:
    """Whether CuPy is installed and finds NCCL."""
    return arrays.nccl() is not None


def is_torchelastic_launched() -> bool:
    """Whether torchrun started this process: no, MPI's launchers do."""
    return False


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: Any = None,
    world_size: int = -1,
    rank: int = -1,
    device_id: Any = None,
) -> None:
    """Accepted so that PyTorch's scripts run, and checked; the launcher has decided rank and size already.

    Args:
        backend: None, "mpi", "gloo" or "nccl"; whatever it is, arrays on devices travel by NCCL where it can be used,
            and everything else by MPI.
        init_method: None, "env://", or anything together with rank and world_size: the launcher has done its work.
        timeout: ignored; the launcher's watchdog has the time limit.
        world_size: -1, or the number of ranks.
        rank: -1, or this process's rank.
        device_id: ignored.

    Raises:
        ValueError: an unknown backend, or a rank or world size that this job does not have.

    Example:
        >>> init_process_group("gloo")
        >>> get_world_size()
        1
    """
    if backend is not None and backend.lower() not in _BACKENDS:
        raise ValueError(f"init_process_group(): backend should be one of {', '.join(_BACKENDS)}, got {backend!r}")
    if init_method not in (None, "env://") and -1 in (rank, world_size):
        raise ValueError(
            f"init_process_group(): init_method {init_method!r} needs rank and world_size; or leave all three out and "
            "start the job with `paceline run -n N script.py` or mpirun, which bring the processes together"
        )
    for name, given, found in (("world_size", world_size, get_world_size()), ("rank", rank, get_rank())):
        if given not in (-1, found):
            raise ValueError(
                f"init_process_group(): {name} is {given}, but this process was started as rank {get_rank()} of "
                f"{get_world_size()}; start the job with `paceline run -n N script.py` or mpirun"
            )
    world_comm()


def spawn(
    fn: Callable,
    args: tuple = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> None:
    """Call `fn(rank, *args)`: what torch.multiprocessing.spawn does in each of the processes that it starts.

    Here the launcher has started them, so this works in a job of `nprocs` ranks.

    Args:
        fn: what each rank does.
        args: what it is called with, behind the rank.
        nprocs: the number of ranks of the job.
        join: True; there is nothing to come back to before `fn` has ended.
        daemon, start_method: ignored.

    Raises:
        RuntimeError: the job has another number of ranks.
        ValueError: join is False.

    Example:
        >>> spawn(print, ("hello",))
        0 hello
    """
    if nprocs != get_world_size():
        raise RuntimeError(
            f"spawn(): nprocs is {nprocs}, but this job has {get_world_size()} ranks; start it with "
            f"`paceline run -n {nprocs} script.py`, and all of them call the function"
        )
    if not join:
        raise ValueError("spawn(): join=False is not supported: the function is called in this process")
    fn(get_rank(), *args)


def destroy_process_group(group: Group = None) -> None:
    """End a group that `new_group` made; all its ranks call it. The world ends with the process."""
    if isinstance(group, Comm) and group is not world_comm():
        group.close()


def new_group(ranks: Sequence[int] | None = None, timeout: Any = None, backend: str | None = None) -> Group:
    """A group of some ranks of the job; every rank of the job calls it, with the same list.

    Args:
        ranks: their numbers in the job, in the group's order; None for all.
        timeout, backend: accepted and ignored, as in init_process_group.

    Returns:
        The group, or GroupMember.NON_GROUP_MEMBER on a rank that is not in it.

    Example:
        >>> get_world_size(new_group([0]))
        1
    """
    world = world_comm()
    made = world.group(sorted(range(world.size) if ranks is None else ranks))
    return GroupMember.NON_GROUP_MEMBER if made is None else made


def new_subgroups(group_size: int | None = None, group: Group = None) -> tuple[Group, list[Group]]:
    """Cut the ranks of a group into groups of `group_size` neighbours (default: the ranks of one machine).

    Returns:
        This rank's group, and all groups, where those of others are GroupMember.NON_GROUP_MEMBER.
    """
    size = get_world().local_size if group_size is None else group_size
    ranks = get_process_group_ranks(group)
    if size < 1 or len(ranks) % size:
        raise ValueError(f"new_subgroups(): the {len(ranks)} ranks cannot be cut into groups of {size}")
    return new_subgroups_by_enumeration([ranks[start : start + size] for start in range(0, len(ranks), size)])


def new_subgroups_by_enumeration(ranks_per_subgroup_list: Sequence[Sequence[int]]) -> tuple[Group, list[Group]]:
    """Make groups without a common rank; returns this rank's, or None, and all of them."""
    members = [rank for ranks in ranks_per_subgroup_list for rank in ranks]
    if len(set(members)) != len(members):
        raise ValueError(f"new_subgroups_by_enumeration(): a rank is in several groups: {ranks_per_subgroup_list}")
    groups = [new_group(ranks) for ranks in ranks_per_subgroup_list]
    return next((each for each in groups if isinstance(each, Comm)), None), groups


def get_rank(group: Group = None) -> int:
    """This process's rank in the group (default: in the job), or -1 if it is not in it."""
    return world_rank() if group is None else group.rank


def get_node_local_rank(fallback_rank: int | None = None) -> int:
    """The number of this process among the job's processes on its machine; it is always known."""
    return get_world().local_rank


def get_world_size(group: Group = None) -> int:
    """The number of processes in the group (default: in the job), or -1 if this one is not in it."""
    return world_size() if group is None else group.size


def get_backend(group: Group = None) -> str:
    """The communicator of host arrays: "solo", "mpi" or "threads"; arrays on devices travel by NCCL with each."""
    return resolve("get_backend", group).backend


def get_process_group_ranks(group: Group = None) -> list[int]:
    """The numbers in the job of a group's members."""
    return list(resolve("get_process_group_ranks", group).ranks)


def get_group_rank(group: Comm, global_rank: int) -> int:
    """The number in a group of a rank of the job."""
    if global_rank not in group.ranks:
        raise ValueError(f"get_group_rank(): rank {global_rank} is not in the group of ranks {list(group.ranks)}")
    return group.ranks.index(global_rank)


def get_global_rank(group: Comm, group_rank: int) -> int:
    """The number in the job of a rank of a group."""
    if not 0 <= group_rank < group.size:
        raise ValueError(f"get_global_rank(): group_rank should be from 0 to {group.size - 1}, got {group_rank}")
    return group.ranks[group_rank]


def resolve(function: str, group: Group) -> Comm:
    """The communicator of a `group` argument."""
    if group is None:
        return world_comm()
    if isinstance(group, Comm):
        return group
    if isinstance(group, _NonMember):
        raise ValueError(f"{function}(): this rank is not in the group")
    raise TypeError(f"{function}(): group should be what new_group() returned, got {type(group).__name__}")


def members_of(function: str, group: Group) -> Comm | None:
    """The communicator of a `group` argument; None, with a warning, on a rank that is not in it."""
    if isinstance(group, _NonMember):
        warnings.warn(
            f"{function}() does nothing on rank {world_rank()}: it is not in the group", RuntimeWarning, stacklevel=3
        )
        return None
    return resolve(function, group)
