"""Arrays that every rank has with the same values, where the ranks can write into each other's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Comm
from .region import Region

_LINE_BYTES = 64  # of a cache line: no two ranks write into the same one


class Replicas:
    """The ranks that keep arrays equal, and the memory of theirs in which all of them can write.

    Args:
        comm: the ranks.
        regions: what `comm.share()` returned.
    """

    def __init__(self, comm: Comm, regions: Sequence[Region]) -> None:
        self.comm = comm
        self._regions = regions

    def twins(self, array: np.ndarray) -> list[np.ndarray]:
        """The other ranks' arrays like this one; none if they are out of reach."""
        for region in self._regions:
            found = region.twins(array)
            if found:
                return found
        return []

    def own(self, array: np.ndarray) -> slice:
        """This rank's part of a flat array: together the ranks' parts are the array."""
        unit = max(1, _LINE_BYTES // array.itemsize)
        width = -(-array.size // (unit * self.comm.size)) * unit
        start = min(self.comm.rank * width, array.size)
        return slice(start, min(start + width, array.size))

    def agree(self, number: int) -> bool:
        """Whether all ranks pass the same number; none returns before all have come."""
        numbers = np.empty(self.comm.size, np.int64)
        self.comm.all_gather(numbers, np.array([number]))
        return bool((numbers == number).all())

    def common(self, array: np.ndarray) -> np.ndarray | None:
        """An array of zeros like this one that is the same memory for all ranks; None where it cannot be had."""
        memory = self.comm.common(array.nbytes) if array.nbytes else bytearray()
        return None if memory is None else np.frombuffer(memory, array.dtype)
