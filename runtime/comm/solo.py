"""A world of one: every collective is the identity."""

from __future__ import annotations

from typing import Self

import numpy as np

from ..world import World
from .base import Comm, ReduceOp


class SoloComm(Comm):
    """The communicator of a process that runs alone."""

    backend = "solo"

    def __init__(self) -> None:
        super().__init__(rank=0, size=1)

    @classmethod
    def from_world(cls, world: World) -> Self:
        return cls()

    def _same_everywhere(self, digest: int) -> bool:
        return True

    def _all_reduce(self, flat: np.ndarray, op: ReduceOp) -> None:
        pass

    def _broadcast(self, flat: np.ndarray, root: int) -> None:
        pass

    def _all_gather(self, rows: np.ndarray, flat: np.ndarray) -> None:
        rows[0] = flat

    def _reduce_scatter(self, flat: np.ndarray, rows: np.ndarray, op: ReduceOp) -> None:
        flat[:] = rows[0]

    def _all_to_all(self, out_rows: np.ndarray, in_rows: np.ndarray) -> None:
        out_rows[:] = in_rows

    def _gather(self, rows: np.ndarray | None, flat: np.ndarray, root: int) -> None:
        assert rows is not None
        rows[0] = flat

    def _scatter(self, flat: np.ndarray, rows: np.ndarray | None, root: int) -> None:
        assert rows is not None
        flat[:] = rows[0]

    def _barrier(self) -> None:
        pass

    def _split(self, color: int | None, key: int) -> SoloComm | None:
        return None if color is None else SoloComm()
