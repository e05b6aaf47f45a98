"""What the lanes of one rank leave behind in a step: gradients and buffers."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.variable import changed, counter_of
from ...runtime.arrays import Array, module_of
from ..module import Module
from .tree import Block, TreeSum

Arrays = list[Array | None]  # one for each tensor; None for a parameter that got no gradient


class Gradients:
    """The gradients of a step, collected lane by lane.

    Meanwhile parameters have no place in an arena for them: the engine would copy every lane's gradients there, which
    costs more than adding them up.
    """

    def __init__(self, parameters: list[Any], lanes: int) -> None:
        self._parameters = parameters
        self._before = [(p.gradient, p.grad_slot) for p in parameters]
        self.sums: TreeSum[Arrays] = TreeSum(lanes, add_in_place)
        for p in parameters:
            p.gradient = p.grad_slot = None

    def collect(self, lane: int, share: float | None) -> None:
        """Take the gradients of a lane, times its share in the mean."""
        arrays: Arrays = []
        for p in self._parameters:
            gradient = p.gradient
            arrays.append(None if gradient is None else gradient.array)
            p.gradient = None
        if share is not None:
            for array in arrays:
                if array is not None:
                    array *= array.dtype.type(share)
        self.sums.push(Block(0, lane), arrays)

    def used(self) -> Array:
        """Which parameters have a gradient."""
        found = numpy.zeros(len(self._parameters), bool)
        for _, arrays in self.sums.blocks:
            found |= [array is not None for array in arrays]
        return found

    def give_back(self) -> None:
        """Let parameters have the gradients and places that they had before."""
        for p, (gradient, slot) in zip(self._parameters, self._before, strict=True):
            p.gradient, p.grad_slot = gradient, slot
        self._before = []  # a place is used only while nobody else holds it


class Buffers:
    """The buffers of a module in a step: every lane starts from the same values.

    Args:
        places: their owners and names there.

    Attributes:
        changed: which ones some lane of this rank changed.
        averaged: the numbers of those that hold floating-point numbers, which are averaged over the lanes.
        lanes: for each lane the values of the averaged ones after it.
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
        self.lanes.append([values[i] for i in self.averaged])
        self._seen = self._versions()

    def largest(self, wanted: Array) -> list[tuple[Any, Array]]:
        """(buffer, its largest value over this rank's lanes) for those of integers that are wanted."""
        tensors = self.tensors()
        return [(tensors[i], self._largest.get(i, self._start[i])) for i in self._counted if wanted[i]]


def add_in_place(left: Arrays, right: Arrays) -> Arrays:
    """The sums, in the memory of the left ones. A missing one counts as zeros, which it will be when it is sent."""
    return [_sum(a, b) for a, b in zip(left, right, strict=True)]


def _sum(a: Array | None, b: Array | None) -> Array | None:
    if a is None:
        a, b = b, a
    if a is not None:
        a += 0 if b is None else b  # adding zero turns -0.0 into 0.0
    return a
