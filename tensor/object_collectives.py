"""torch.distributed's collectives on lists of picklable objects."""

from __future__ import annotations

from typing import Any

from .distributed import check_length, peer_of
from .process_group import Group, members_of


def all_gather_object(object_list: list[Any], obj: Any, group: Group = None) -> None:
    """Fill `object_list` on every rank by all ranks' picklable objects in rank order."""
    comm = members_of("all_gather_object", group)
    if comm is not None:
        check_length("all_gather_object", "object_list", object_list, comm.size)
        object_list[:] = comm.all_gather_object(obj)


def gather_object(
    obj: Any,
    object_gather_list: list[Any] | None = None,
    dst: int | None = None,
    group: Group = None,
    group_dst: int | None = None,
) -> None:
    """Fill `object_gather_list` on rank `dst` (default: the first) by all ranks' objects; the others pass None."""
    comm = members_of("gather_object", group)
    if comm is None:
        return
    root = peer_of("gather_object", "dst", comm, dst, group_dst, default=0)
    if comm.rank == root:
        check_length("gather_object", "object_gather_list", object_gather_list or [], comm.size)
    gathered = comm.gather_object(obj, root)
    if gathered is not None and object_gather_list is not None:
        object_gather_list[:] = gathered


def broadcast_object_list(
    object_list: list[Any],
    src: int | None = None,
    group: Group = None,
    device: Any = None,
    group_src: int | None = None,
) -> None:
    """Overwrite `object_list` on every rank by the picklable objects of rank `src` (default: the first)."""
    comm = members_of("broadcast_object_list", group)
    if comm is not None:
        root = peer_of("broadcast_object_list", "src", comm, src, group_src, default=0)
        object_list[:] = comm.broadcast_object(object_list, root)


def scatter_object_list(
    scatter_object_output_list: list[Any],
    scatter_object_input_list: list[Any] | None = None,
    src: int | None = None,
    group: Group = None,
    group_src: int | None = None,
) -> None:
    """Set the first entry of the output list on rank r to the r-th object of rank `src`'s input list."""
    comm = members_of("scatter_object_list", group)
    if comm is None:
        return
    if not scatter_object_output_list:
        raise ValueError("scatter_object_list(): scatter_object_output_list should have at least one entry")
    root = peer_of("scatter_object_list", "src", comm, src, group_src, default=0)
    scatter_object_output_list[0] = comm.scatter_object(scatter_object_input_list, root)


def send_object_list(
    object_list: list[Any],
    dst: int | None = None,
    group: Group = None,
    device: Any = None,
    group_dst: int | None = None,
) -> None:
    """Send picklable objects to rank `dst`, which calls recv_object_list with a list of the same length."""
    comm = members_of("send_object_list", group)
    if comm is not None:
        comm.send_object(object_list, peer_of("send_object_list", "dst", comm, dst, group_dst))


def recv_object_list(
    object_list: list[Any],
    src: int | None = None,
    group: Group = None,
    device: Any = None,
    group_src: int | None = None,
) -> int:
    """Overwrite `object_list` by what rank `src` (default: any) sends; returns the sender's rank in the job."""
    comm = members_of("recv_object_list", group)
    if comm is None:
        return -1
    anybody = src is None and group_src is None
    objects, source = comm.recv_object(None if anybody else peer_of("recv_object_list", "src", comm, src, group_src))
    _check_message(object_list, objects)
    object_list[:] = objects
    return comm.ranks[source]


def _check_message(expected: list[Any], objects: list[Any]) -> None:
    """Refuse a list of another length than the receiver's."""
    if len(objects) != len(expected):
        raise RuntimeError(f"recv_object_list(): {len(objects)} objects were sent, but object_list has {len(expected)}")
