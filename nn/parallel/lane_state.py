"""What the lanes of one rank leave behind in a step: gradients and buffers."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.engine import accumulate, claim_slot
from ...autograd.variable import box, changed, counter_of
from ...runtime.arrays import Array, module_of
from ...tensor.arena import Arena, home_of, settle
from ..module import Module
from .tree import Block, TreeSum


class Row:
    """Memory for the gradients of a lane, and then for those of a block of the tree.

    Attributes:
        arrays: for each arena a flat array, laid out as the arena's own gradients.
        slots: views of them for each parameter, which nobody else may hold: see `Variable.grad_slot`.
    """

    def __init__(self, arrays: list[Array], arenas: list[Arena], parameters: list[Any]) -> None:
        self.arrays = arrays
        self.slots = [box(_part(arrays, arenas, p)) for p in parameters]
        for slot in self.slots:
            counter_of(slot)


class Gradients:
    """The gradients of a rank's lanes: each lane's are written into a row, rows are added up along the tree.

    Where it is free, and nobody else's gradients are in it, the first row is the arenas' own memory: there the sums
    end. The others are used again, also in the next step.
    """

    def __init__(self, parameters: list[Any], lanes: int) -> None:
        self._parameters = parameters
        self._lanes = lanes
        self._homes: list[tuple | None] = []
        self._frozen: list[Any] = []  # those that have never had to live in an arena

    def begin(self) -> None:
        """Begin a step."""
        moved = self._homes != [home_of(p) for p in self._parameters]  # since the last step, or this is the first
        if moved or any(p.requires_grad for p in self._frozen):
            self._plan()
        gradients = [p.gradient for p in self._trained]
        self._in_place = self._alone and all(claim_slot(p) for p in self._trained)
        self._before = [(gradient, p.grad_slot) for gradient, p in zip(gradients, self._trained, strict=True)]
        self._used: set[Any] = set()
        self._sums: TreeSum[Row] = TreeSum(self._lanes, self._add)
        self._free = [*self._spare, self._own] if self._in_place else [*self._spare]
        for p in self._trained:
            p.gradient = None

    def _plan(self) -> None:
        """See where the parameters live."""
        settle(self._parameters)
        self._homes = [home_of(p) for p in self._parameters]
        self._arenas = list(dict.fromkeys(home[0] for home in self._homes if home is not None))
        self._trained = [p for p, home in zip(self._parameters, self._homes, strict=True) if home is not None]
        self._frozen = [p for p, home in zip(self._parameters, self._homes, strict=True) if home is None]
        self._alone = len(self._trained) == sum(len(arena.views) for arena in self._arenas)
        self._own = Row([arena.grad for arena in self._arenas], self._arenas, self._trained)
        self._spare: list[Row] = []

    def open(self) -> None:
        """Let the next lane's gradients have a row of their own."""
        if not self._free:
            arrays = [module_of(arena.grad).zeros_like(arena.grad) for arena in self._arenas]
            self._free = [Row(arrays, self._arenas, self._trained)]
            self._spare += self._free
        self._row = self._free.pop()
        slots, self._row.slots = self._row.slots, []
        for p, slot in zip(self._trained, slots, strict=True):
            p.grad_slot = slot

    def _close(self) -> None:
        """Take back the slots of the row that a lane had."""
        self._row.slots = [p.grad_slot for p in self._trained]

    def collect(self, lane: int, share: float | None) -> None:
        """Take the gradients of a lane, times its share in the mean."""
        for p in self._trained:
            gradient, slot = p.gradient, p.grad_slot
            if gradient is None:
                slot.array[...] = 0
            else:
                self._used.add(p)
                if gradient is not slot:
                    slot.array[...] = gradient.array
            p.gradient = None
        self._close()
        if share is not None:
            for array in self._row.arrays:
                array *= array.dtype.type(share)
        self._sums.push(Block(0, lane), self._row)

    def _add(self, left: Row, right: Row) -> Row:
        for a, b in zip(left.arrays, right.arrays, strict=True):
            a += b
        self._free.append(right)
        return left

    def give_back(self) -> None:
        """Let parameters have the gradients and places that they had before."""
        self._close()
        for p, (gradient, slot) in zip(self._trained, self._before, strict=True):
            p.gradient, p.grad_slot = gradient, slot
        self._before = []  # a place is used only while nobody else holds it

    def used(self) -> Array:
        """Which parameters have a gradient."""
        return numpy.array([p in self._used for p in self._parameters])

    def blocks(self) -> list[list[Array]]:
        """For each block of this rank's lanes the flat arrays with its sums."""
        return [row.arrays for _, row in self._sums.blocks]

    def accumulate(self, totals: list[Array], wanted: Array) -> None:
        """Give the parameters that are wanted the sums over all lanes, which stand in the arrays of the first block."""
        for i in numpy.flatnonzero(wanted).tolist():
            p = self._parameters[i]
            if self._in_place:
                p.gradient = p.grad_slot
            else:
                accumulate(p, _part(totals, self._arenas, p), False, False)


def _part(arrays: list[Array], arenas: list[Arena], p: Any) -> Array:
    """What belongs to a parameter in flat arrays like those of the arenas."""
    arena, number = p.home
    start, stop = arena.ranges[number]
    return arrays[arenas.index(arena)][start:stop].reshape(p.array.shape)


class Buffers:
    """The buffers of a module in a step: every lane starts from the same values.

    Args:
        places: their owners and names there.

    Attributes:
        changed: which ones some lane of this rank changed.
        averaged: the numbers of those that hold floating-point numbers, which are averaged over the lanes.
        lanes: for each lane the values of all buffers after it.
    """

    def __init__(self, places: list[tuple[Module, str]]) -> None:
        self._places = places
        self._start = [tensor.array.copy() for tensor in self.tensors()]
        self.averaged = [i for i, array in enumerate(self._start) if array.dtype.kind not in "biu"]
        self._counted = [i for i, array in enumerate(self._start) if array.dtype.kind in "biu"]
        self._largest: dict[int, Array] = {}
        self.changed = numpy.zeros(len(self._places), bool)
        self.lanes: list[list[Array]] = []
        self._seen = self._versions()

    def tensors(self) -> list[Any]:
        """The buffers as they are now."""
        return [getattr(module, name) for module, name in self._places]

    def _versions(self) -> list[tuple]:
        return [(tensor, counter_of(tensor)[0]) for tensor in self.tensors()]

    def collect(self) -> None:
        """Take what a lane has left, and let the next one start anew."""
        now = self._versions()
        moved = [i for i, (a, b) in enumerate(zip(now, self._seen, strict=True)) if a[0] is not b[0] or a[1] != b[1]]
        values = list(self._start)
        for i in moved:
            self.changed[i] = True
            tensor = now[i][0]
            values[i] = tensor.array.copy()
            tensor.array[...] = self._start[i]
            changed(tensor, "lanes")
        for i in self._counted:
            if i in moved:
                largest = self._largest.setdefault(i, values[i])
                module_of(largest).maximum(largest, values[i], out=largest)
        self.lanes.append(values)
        self._seen = self._versions()

    def largest(self, wanted: Array) -> list[tuple[Any, Array]]:
        """(buffer, its largest value over this rank's lanes) for those of integers that are wanted."""
        tensors = self.tensors()
        return [(tensors[i], self._largest.get(i, self._start[i])) for i in self._counted if wanted[i]]
