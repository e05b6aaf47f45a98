"""Arrays that every rank has with the same values, where the ranks can write into each other's."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .base import Comm
from .region import Region, everybodys

_LINE_BYTES = 64  # of a cache line: no two ranks write into the same one


class Replicas:
    """The ranks that keep arrays equal, and the memory of theirs in which all of them can write.

    Args:
        comm: the ranks.
        regions: what `comm.share()` returned.
        deferred: what knows whether the gradients' mean is still to be computed.

    Attributes:
        averaged: whether the gradients are the mean over the ranks since the last backward pass.
    """

    def __init__(self, comm: Comm, regions: Sequence[Region], deferred: Any) -> None:
        self.comm = comm
        self.deferred = deferred
        self.averaged = False
        self._regions = regions

    def twins(self, array: np.ndarray) -> list[np.ndarray]:
        """The other ranks' arrays like this one; none if they are out of reach."""
        return [each for rank, each in enumerate(everybodys(self._regions, array)) if rank != self.comm.rank]

    def own(self, array: np.ndarray) -> slice:
        """This rank's part of a flat array: together the ranks' parts are the array."""
        unit = max(1, _LINE_BYTES // array.itemsize)
        width = -(-array.size // (unit * self.comm.size)) * unit
        start = min(self.comm.rank * width, array.size)
        return slice(start, min(start + width, array.size))

    def gather(self, number: int) -> np.ndarray:
        """The numbers of all ranks; none returns before all have come."""
        numbers = np.empty(self.comm.size, np.int64)
        self.comm.all_gather(numbers, np.array([number]))
        return numbers

    def agree_on(self, arrays: Iterable[np.ndarray]) -> bool:
        """Whether the arrays have the same bits on all ranks."""
        number = 0
        for array in arrays:
            number = zlib.crc32(array.view(np.uint8).data, number)
        return bool((self.gather(number) == number).all())

    def common(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """Arrays of zeros like these flat ones that are the same memory for all ranks; None where it cannot be had."""
        stops = list(itertools.accumulate(-(-array.nbytes // _LINE_BYTES) * _LINE_BYTES for array in arrays))
        if not stops or not stops[-1]:
            return [np.zeros_like(array) for array in arrays]
        memory = self.comm.common(stops[-1])
        if memory is None:
            return None
        places = zip(arrays, [0, *stops[:-1]], strict=True)
        return [np.frombuffer(memory, array.dtype, array.size, start) for array, start in places]
