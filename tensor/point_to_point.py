"""torch.distributed's messages between two ranks, and the barrier that says who is missing."""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Callable, Sequence

import numpy

from ..autograd.variable import changed
from ..runtime.comm import Comm, Work
from ..runtime.comm.batches import Message
from .distributed import array_of, peer_of
from .process_group import Group, members_of, resolve
from .tensor import Tensor

_MONITOR_TAG = 32766
_POLL_SECONDS = 1e-3


def send(
    tensor: Tensor, dst: int | None = None, group: Group = None, tag: int = 0, group_dst: int | None = None
) -> None:
    """Send `tensor` to rank `dst`, which calls recv with a tensor of the same size and dtype."""
    comm = members_of("send", group)
    if comm is not None:
        comm.send(array_of("send", "tensor", tensor), peer_of("send", "dst", comm, dst, group_dst), tag)


def recv(
    tensor: Tensor, src: int | None = None, group: Group = None, tag: int = 0, group_src: int | None = None
) -> int:
    """Overwrite `tensor` by the next one that rank `src` (default: any) sends; returns the sender's rank.

    Raises:
        CollectiveMismatchError: what was sent has another dtype or number of elements.
    """
    comm = members_of("recv", group)
    if comm is None:
        return -1
    source = comm.recv(array_of("recv", "tensor", tensor), _source(comm, src, group_src), tag)
    changed(tensor, "recv")
    return comm.ranks[source]


def isend(
    tensor: Tensor, dst: int | None = None, group: Group = None, tag: int = 0, group_dst: int | None = None
) -> Work | None:
    """`send` that returns a Work at once; leave `tensor` alone before its `wait()`."""
    comm = members_of("isend", group)
    if comm is None:
        return None
    return comm.isend(array_of("isend", "tensor", tensor), peer_of("isend", "dst", comm, dst, group_dst), tag)


def irecv(
    tensor: Tensor, src: int | None = None, group: Group = None, tag: int = 0, group_src: int | None = None
) -> Work | None:
    """`recv` that returns a Work at once; `wait()` fills the tensor."""
    comm = members_of("irecv", group)
    if comm is None:
        return None
    work = comm.irecv(array_of("irecv", "tensor", tensor), _source(comm, src, group_src), tag)
    changed(tensor, "irecv")
    work.outputs = [tensor]
    return work


class P2POp:
    """A message for batch_isend_irecv.

    Args:
        op: isend or irecv.
        tensor: what to send or to fill.
        peer: the other rank, in the job.
        group: the ranks; default: all of the job.
        tag: as in send.
        group_peer: the other rank in the group, instead of `peer`.
    """

    def __init__(
        self,
        op: Callable[..., Work | None],
        tensor: Tensor,
        peer: int | None = None,
        group: Group = None,
        tag: int = 0,
        group_peer: int | None = None,
    ) -> None:
        if op not in (isend, irecv):
            raise RuntimeError("P2POp(): op should be paceline.distributed.isend or paceline.distributed.irecv")
        self.op = op
        self.tensor = tensor
        self.peer = peer
        self.group = group
        self.tag = tag
        self.group_peer = group_peer


def batch_isend_irecv(p2p_op_list: Sequence[P2POp]) -> list[Work]:
    """Start all these messages at the same time; wait for each of the returned Works.

    Tensors on a device travel by NCCL. A batch of them meets the other ranks' batches, not their single messages.

    Example:
        >>> batch_isend_irecv([])
        []
    """
    for index, op in enumerate(p2p_op_list):
        if not isinstance(op, P2POp):
            raise RuntimeError(f"batch_isend_irecv(): p2p_op_list[{index}] should be a P2POp, got {type(op).__name__}")
    works = []
    for comm, ops in itertools.groupby(p2p_op_list, lambda op: members_of("batch_isend_irecv", op.group)):
        if comm is not None:
            works += _start_batch(comm, list(ops))
    return works


def _start_batch(comm: Comm, ops: Sequence[P2POp]) -> list[Work]:
    """Start messages of one group."""
    messages, tensors = [], {}
    for op in ops:
        array = array_of("batch_isend_irecv", "tensor", op.tensor)
        if op.op is isend:
            peer: int | None = peer_of("isend", "peer", comm, op.peer, op.group_peer)
        else:
            peer = _source(comm, op.peer, op.group_peer)
        messages.append(Message(array, peer, op.tag, op.op is isend))
        tensors[id(array)] = op.tensor
    works = comm.batch(messages)
    for work in works:
        work.outputs = [tensors[id(array)] for array in work.outputs]
        for tensor in work.outputs:
            changed(tensor, "irecv")
    return works


def monitored_barrier(
    group: Group = None,
    timeout: float | datetime.timedelta = 300.0,
    wait_all_ranks: bool = False,
) -> None:
    """A barrier that fails after a time, on the group's first rank with the numbers of those that have not come.

    Args:
        group: the ranks; default: all of the job.
        timeout: seconds.
        wait_all_ranks: name all missing ranks rather than the first.

    Raises:
        RuntimeError: some rank has not come in time.
    """
    comm = resolve("monitored_barrier", group)
    seconds = timeout.total_seconds() if isinstance(timeout, datetime.timedelta) else timeout
    if comm.rank == 0:
        _await_all(comm, seconds, wait_all_ranks)
    else:
        comm.send(numpy.zeros(1, numpy.uint8), 0, _MONITOR_TAG)
        answer = comm.irecv(numpy.zeros(1, numpy.uint8), 0, _MONITOR_TAG)
        try:
            answer.wait(seconds)
        except TimeoutError:
            raise RuntimeError(f"monitored_barrier(): rank {comm.ranks[0]} has not answered in {seconds:g} s") from None


def _await_all(comm: Comm, seconds: float, name_all: bool) -> None:
    """Rank 0's part: hear of all others, then let them go."""
    deadline = time.monotonic() + seconds
    signs = {peer: comm.irecv(numpy.zeros(1, numpy.uint8), peer, _MONITOR_TAG) for peer in range(1, comm.size)}
    while (missing := [comm.ranks[peer] for peer, sign in signs.items() if not sign.is_completed()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(_POLL_SECONDS)
    if missing:
        named = f"ranks {missing}" if name_all else f"rank {missing[0]}"
        raise RuntimeError(f"monitored_barrier(): {named} did not come in {seconds:g} s")
    for peer, sign in signs.items():
        sign.wait()
        comm.send(numpy.zeros(1, numpy.uint8), peer, _MONITOR_TAG)


def _source(comm: Comm, src: int | None, group_src: int | None) -> int | None:
    """The sender's rank in the group, or None for any."""
    return None if src is None and group_src is None else peer_of("recv", "src", comm, src, group_src)
