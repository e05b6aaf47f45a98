"""Finding the size of buckets by trying."""

from __future__ import annotations

import statistics

from ...runtime.comm import Comm

MiB = 1 << 20

_CANDIDATES = (1, 4, 16, 64)  # MiB; beyond them the time of a backward pass hardly changes
_STEPS = 5  # for each; the first one of them does not count


class BucketTuner:
    """Tries sizes of buckets for a few steps each, and takes the one with the shortest backward passes.

    Args:
        comm: the ranks; rank 0 decides.
        total: bytes of all gradients; larger buckets than that are not tried.

    Attributes:
        cap: the size for the next step, in bytes.
        done: whether it is the chosen one.
    """

    def __init__(self, comm: Comm, total: int) -> None:
        self._comm = comm
        self._sizes = [size * MiB for size in _CANDIDATES if size * MiB < total] + [max(total, MiB)]
        self._seconds: list[list[float]] = [[] for _ in self._sizes]
        self._tried = 0
        self.cap = self._sizes[0]
        self.done = False

    def record(self, seconds: float) -> bool:
        """Take the time of a backward pass; whether `cap` has changed."""
        self._seconds[self._tried].append(seconds)
        if len(self._seconds[self._tried]) < _STEPS:
            return False
        self._tried += 1
        if self._tried < len(self._sizes):
            self.cap = self._sizes[self._tried]
            return True
        medians = [statistics.median(each[1:]) for each in self._seconds]
        self.cap = self._comm.broadcast_object(self._sizes[medians.index(min(medians))])
        self.done = True
        return True
