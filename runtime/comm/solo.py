"""A world of one: every collective is the identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Self

from ..arrays import Array
from ..world import World
from .base import Arrays, Comm, listed
from .reduction import ReduceOp
from .signature import Call
from .work import Work


class SoloComm(Comm):
    """The communicator of a process that runs alone; its arrays stay where they are, on the host or on a device."""

    backend = "solo"

    def __init__(self, member: int = 0) -> None:
        super().__init__(rank=0, ranks=(member,))

    @classmethod
    def from_world(cls, world: World) -> Self:
        return cls()

    def _start(
        self,
        call: Call,
        act: Callable[..., Any],
        filled: Arrays | None,
        async_op: bool,
        takes_tag: bool = False,
        shown: Array | None = None,
    ) -> Work | None:
        self._perform(call, act, takes_tag, None)  # there is nobody to wait for
        return Work(listed(filled)) if async_op else None

    def _flat(self, array: Array) -> Array:
        return array.ravel()

    def _same_everywhere(self, tag: int) -> bool:
        return True

    def _agree_and_all_reduce(self, tag: int, flat: Array, op: ReduceOp) -> bool:
        return True

    def _reduce(self, flat: Array, op: ReduceOp, root: int) -> None:
        pass

    def _broadcast(self, flat: Array, root: int) -> None:
        pass

    def _all_gather(self, rows: Array, flat: Array) -> None:
        rows[0] = flat

    def _reduce_scatter(self, flat: Array, rows: Array, op: ReduceOp) -> None:
        flat[:] = rows[0]

    def _all_to_all(self, out_rows: Array, in_rows: Array) -> None:
        out_rows[:] = in_rows

    def _gather(self, rows: Array | None, flat: Array, root: int) -> None:
        assert rows is not None
        rows[0] = flat

    def _scatter(self, flat: Array, rows: Array | None, root: int) -> None:
        assert rows is not None
        flat[:] = rows[0]

    def _irecv(self, array: Array, src: int | None, tag: int) -> NoReturn:
        raise RuntimeError("recv(): there is no other rank that could send anything")

    def _split(self, members: list[int] | None) -> SoloComm | None:
        return None if members is None else SoloComm(self.ranks[0])
