"""N ranks as threads of one process: what needs several ranks can be tried and tested without MPI."""

from __future__ import annotations

import datetime
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from . import thread_comm
from .arguments import fill, flat_on_host
from .base import Comm
from .reduction import ReduceOp, combine
from .work import Receipt, Work, seconds_of


def run_threads(size: int, function: Callable[..., Any], *args: Any, timeout: float = 300.0) -> list[Any]:
    """Call `function(*args)` on `size` ranks, each a thread whose `world_comm()` is its own.

    Args:
        size: number of ranks.
        function: the rank's program.
        args: its arguments, the same objects for every rank.
        timeout: seconds after which a collective that some rank has not joined fails.

    Returns:
        The results in rank order.

    Raises:
        Exception: that of the rank that failed first, once; the other ranks are ended.

    Example:
        >>> from paceline.runtime.comm import world_comm
        >>> run_threads(2, lambda: world_comm().rank)
        [0, 1]
    """
    if size < 1:
        raise ValueError(f"run_threads(): size should be at least 1, got {size}")
    job = _Job()
    world = _Group(job, tuple(range(size)), timeout)
    results: list[Any] = [None] * size

    def run_rank(rank: int) -> None:
        try:
            comm = ThreadsComm(world, rank)
            with thread_comm(comm):
                results[rank] = function(*args)
            comm.close()
        except BaseException as error:  # SystemExit too: whatever ends a rank must end the others
            job.fail(rank, error)
        else:
            job.finish(rank)

    # Daemons, so that a rank that hangs outside a collective cannot keep the process from ending.
    threads = [threading.Thread(target=run_rank, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and job.failure is None:
            thread.join(0.05)
    if job.failure is not None:
        for thread in threads:
            thread.join(1.0)
        raise job.failure
    return results


class _Job:
    """What the ranks of one run share: a lock, and who has ended."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.failure: BaseException | None = None
        self.failed_rank = -1
        self.finished: set[int] = set()

    def fail(self, rank: int, error: BaseException) -> None:
        """Record the first failure and wake all ranks that wait."""
        with self.changed:
            if self.failure is None:
                self.failure, self.failed_rank = error, rank
            self.changed.notify_all()

    def finish(self, rank: int) -> None:
        """Record that a rank's program has returned."""
        with self.changed:
            self.finished.add(rank)
            self.changed.notify_all()

    def wait(self, ready: Callable[[], bool], missing: Callable[[], Sequence[int]], what: str, timeout: float) -> None:
        """Wait under the lock until `ready()`; raise if the world ranks `missing()` cannot make that true any more."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self.failure is not None:
                raise RuntimeError(f"{what}: rank {self.failed_rank} failed: {self.failure!r}")
            if gone := self.finished.intersection(missing()):
                raise RuntimeError(f"{what}: ranks {sorted(gone)} have returned without calling it")
            if not self.changed.wait(max(0.0, deadline - time.monotonic())) and not ready():
                raise TimeoutError(f"{what}: timed out after {timeout:g} s, waiting for ranks {list(missing())}")


class _Group:
    """The place where the ranks of one communicator meet."""

    def __init__(self, job: _Job, members: tuple[int, ...], timeout: float) -> None:
        self.job = job
        self.members = members  # world ranks
        self.timeout = timeout
        self.meeting = 0
        self.brought: dict[int, Any] = {}
        self.result: list[Any] = []
        self._letters: defaultdict[tuple[int, int], list[tuple[int, np.ndarray]]] = defaultdict(list)
        self._receipts: defaultdict[tuple[int, int], list[_Letter]] = defaultdict(list)

    def exchange(self, rank: int, item: Any, what: str) -> list[Any]:
        """Every rank brings an item and leaves with all of them, in rank order."""
        job = self.job
        with job.changed:
            meeting = self.meeting
            self.brought[rank] = item
            if len(self.brought) == len(self.members):
                self.result = [self.brought[each] for each in range(len(self.members))]
                self.brought = {}
                self.meeting += 1
                job.changed.notify_all()
            job.wait(lambda: self.meeting != meeting, self._absent, what, self.timeout)
            # The next meeting cannot replace it yet: that needs this rank.
            return self.result

    def deliver(self, src: int, dst: int, tag: int, content: np.ndarray) -> None:
        """Give a message to the first receipt that fits, or keep it for one."""
        with self.job.changed:
            waiting = self._receipts[dst, tag]
            receipt = next((each for each in waiting if each.src in (None, src)), None)
            if receipt is None:
                self._letters[dst, tag].append((src, content))
            else:
                waiting.remove(receipt)
                receipt.source, receipt.content = src, content
                self.job.changed.notify_all()

    def expect(self, dst: int, tag: int, receipt: _Letter) -> None:
        """Give a receipt the first message that fits, or keep it for one."""
        with self.job.changed:
            kept = self._letters[dst, tag]
            index = next((i for i, (src, _) in enumerate(kept) if receipt.src in (None, src)), None)
            if index is None:
                self._receipts[dst, tag].append(receipt)
            else:
                receipt.source, receipt.content = kept.pop(index)

    def _absent(self) -> list[int]:
        """World ranks that have not come to the meeting."""
        return [member for each, member in enumerate(self.members) if each not in self.brought]


class ThreadsComm(Comm):
    """One rank's end of a communicator between threads; `run_threads` makes them."""

    backend = "threads"

    def __init__(self, group: _Group, rank: int) -> None:
        super().__init__(rank, group.members)
        self._group = group

    def _meet(self, item: Any = None) -> list[Any]:
        return self._group.exchange(self.rank, item, self._call.kind)

    def _same_everywhere(self, tag: int) -> bool:
        return len(set(self._meet(tag))) == 1

    # Each collective meets twice: once to show the arrays, once more before anyone may change what he has shown.

    def _agree_and_all_reduce(self, tag: int, flat: np.ndarray, op: ReduceOp) -> bool:
        if not self._same_everywhere(tag):
            return False
        total = np.empty_like(flat)
        combine(op, self._meet(flat), total)
        self._meet()
        flat[:] = total
        return True

    def _reduce(self, flat: np.ndarray, op: ReduceOp, root: int) -> None:
        total = np.empty_like(flat)
        sources = self._meet(flat)
        if self.rank == root:
            combine(op, sources, total)
        self._meet()
        flat[:] = total

    def _broadcast(self, flat: np.ndarray, root: int) -> None:
        source = self._meet(flat)[root]
        if self.rank != root:
            flat[:] = source
        self._meet()

    def _all_gather(self, rows: np.ndarray, flat: np.ndarray) -> None:
        rows[:] = self._meet(flat.copy())  # a copy, since `flat` may be a part of `rows`

    def _reduce_scatter(self, flat: np.ndarray, rows: np.ndarray, op: ReduceOp) -> None:
        total = np.empty_like(flat)
        combine(op, [each[self.rank] for each in self._meet(rows)], total)
        self._meet()
        flat[:] = total

    def _all_to_all(self, out_rows: np.ndarray, in_rows: np.ndarray) -> None:
        parts = [each[self.rank].copy() for each in self._meet(in_rows)]
        self._meet()
        out_rows[:] = parts

    def _gather(self, rows: np.ndarray | None, flat: np.ndarray, root: int) -> None:
        parts = self._meet(flat.copy())
        if rows is not None:
            rows[:] = parts

    def _scatter(self, flat: np.ndarray, rows: np.ndarray | None, root: int) -> None:
        part = self._meet(rows)[root][self.rank].copy()
        self._meet()
        flat[:] = part

    def _isend(self, array: Array, dst: int, tag: int) -> Work:
        self._group.deliver(self.rank, dst, tag, np.array(flat_on_host(array)))
        return Work([])

    def _irecv(self, array: Array, src: int | None, tag: int) -> Receipt:
        receipt = _Letter(self._group, array, src, tag)
        self._group.expect(self.rank, tag, receipt)
        return receipt

    def _split(self, members: list[int] | None) -> ThreadsComm | None:
        ranks = members or []
        leads = self.rank in ranks[:1]
        group = _Group(self._group.job, tuple(self.ranks[rank] for rank in ranks), self._group.timeout)
        groups = self._meet(group if leads else None)
        return ThreadsComm(groups[ranks[0]], ranks.index(self.rank)) if ranks else None


class _Letter(Receipt):
    """A message that is expected; `content` is what came."""

    def __init__(self, group: _Group, array: Array, src: int | None, tag: int) -> None:
        super().__init__([array])
        self._array = array
        self.src = src
        self.content: np.ndarray | None = None
        self._group = group
        self._what = f"recv(src={src}, tag={tag})"

    def is_completed(self) -> bool:
        return self.content is not None

    def _senders(self) -> Sequence[int]:
        """The ranks without which it cannot come; a message from anybody can, while anybody is left."""
        members, finished = self._group.members, self._group.job.finished
        if self.src is not None:
            return members[self.src : self.src + 1]
        return members if len(finished.intersection(members)) == len(members) - 1 else ()

    def wait(self, timeout: float | datetime.timedelta | None = None) -> bool:
        group = self._group
        seconds = group.timeout if timeout is None else seconds_of(timeout)
        with group.job.changed:
            group.job.wait(self.is_completed, self._senders, self._what, seconds)
        assert self.content is not None
        fill(self._array, self.content, self.source)
        return True
