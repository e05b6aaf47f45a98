"""What moves and combines arrays between ranks, below what every communicator checks."""

from __future__ import annotations

from collections.abc import Sequence

from ..arrays import Array
from .reduction import ReduceOp
from .signature import Call


class Mover:
    """The methods that a way of moving arrays implements, on contiguous ones of one dimension (`flat`) and on matrices
    with one row per rank (`rows`). All ranks make the same calls: that has been checked before.

    Attributes:
        rank: number of this process in the group.
        size: number of processes in the group.
    """

    rank: int
    size: int

    def takes(self, call: Call) -> bool:
        """Whether it has what this call needs."""
        return True

    def _flat(self, array: Array) -> Array:
        """`array` as one row that can be moved: a view where it is that already, else a copy."""
        raise NotImplementedError

    def _rows(self, array: Array) -> Array:
        """`array` as a matrix with one row per rank, likewise."""
        return self._flat(array).reshape(self.size, array.size // self.size)

    def _agree_and_all_reduce(self, tag: int, flat: Array, op: ReduceOp) -> bool:
        """Compare `tag`, and reduce if it is the same everywhere: one exchange may do both."""
        raise NotImplementedError

    def _reduce(self, flat: Array, op: ReduceOp, root: int) -> None:
        """What `flat` holds on other ranks than `root` afterwards does not matter."""
        raise NotImplementedError

    def _broadcast(self, flat: Array, root: int) -> None:
        raise NotImplementedError

    def _all_gather(self, rows: Array, flat: Array) -> None:
        raise NotImplementedError

    def _reduce_scatter(self, flat: Array, rows: Array, op: ReduceOp) -> None:
        raise NotImplementedError

    def _all_to_all(self, out_rows: Array, in_rows: Array) -> None:
        raise NotImplementedError

    def _exchange(self, outputs: Sequence[Array], arrays: Sequence[Array]) -> None:
        """Send arrays[r] to rank r and fill outputs[r] by what it sends; of any shapes, but the sizes fit."""
        raise NotImplementedError

    def _gather(self, rows: Array | None, flat: Array, root: int) -> None:
        raise NotImplementedError

    def _scatter(self, flat: Array, rows: Array | None, root: int) -> None:
        raise NotImplementedError
