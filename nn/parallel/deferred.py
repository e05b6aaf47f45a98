"""Means of gradients that nobody may ever ask for."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from sys import getrefcount
from typing import Any

import numpy

from ...autograd.variable import Variable
from ...runtime.arrays import Array
from ...runtime.comm import Comm, ReduceOp
from ...runtime.comm.reduction import combine
from ...runtime.comm.region import Region
from ...tensor.arriving import await_values, have_values


class DeferredMean:
    """The mean of the gradients of ranks that reach each other's arenas, computed where somebody wants it.

    While it is pending, the arenas have what each rank's backward pass has computed. An optimizer whose steps the ranks
    divide needs the mean of its part only: it takes that from everybody's arenas, a piece of the size of a cache at a
    time, and the mean is never written to memory. Whoever reads `p.grad`, before that step or after it, gets the mean
    as ever, in memory of this rank's own, since the others may still read its arena; it waits for nobody. Before
    a rank changes its arena again, all of them `settle()`. Once a gradient was read, means are no longer deferred.

    Args:
        comm: the ranks.
        regions: what `comm.share()` returned for the gradients' arenas.

    Attributes:
        pending: whether the mean is still to be computed; the same on all ranks.
        looked: whether a gradient was read on this rank since it is pending.
        wanted: whether there is an optimizer that takes the mean itself.
    """

    def __init__(self, comm: Comm, regions: Sequence[Region]) -> None:
        self.pending = self.looked = self.wanted = False
        self._comm = comm
        self._regions = regions
        self._refused = False
        self._flats: list[Array] = []  # the pieces of the arenas of which the mean is pending
        self._slots: list[_Slot] = []  # of the gradients in them

    def want(self) -> None:
        """An optimizer takes the mean itself from now on."""
        self.wanted = not self._refused

    def refuse(self) -> None:
        """Defer no further mean."""
        self._refused, self.wanted = True, False

    def everybodys(self, flat: Array) -> list[Array]:
        """All ranks' gradients at the place where these are; none if the ranks do not reach them."""
        for region in self._regions:
            found = region.everybodys(flat)
            if found:
                return found
        return []

    def begin(self, pieces: Iterable[tuple[Array, Sequence[Any], Sequence[tuple[int, int]]]]) -> None:
        """All ranks have computed their gradients.

        Args:
            pieces: of the arenas: (flat array, its leaves, where in it each of their gradients is).
        """
        self.pending = True
        for flat, leaves, places in pieces:
            for leaf, place in zip(leaves, places, strict=True):
                slot = leaf.grad_slot
                self._slots.append((weakref.ref(slot), slot.array, len(self._flats), slice(*place)))
                await_values(slot, self.look)
            self._flats.append(flat)

    def look(self) -> None:
        """Let this rank's gradients be the mean, in memory of their own."""
        if self.looked:
            return
        self.looked = True
        means = [numpy.empty_like(flat) for flat in self._flats]
        for flat, mean in zip(self._flats, means, strict=True):
            combine(ReduceOp.AVG, self.everybodys(flat), mean)
        for reference, array, number, place in self._slots:
            slot = reference()
            if slot is not None:
                have_values(slot)
                slot.array = means[number][place].reshape(array.shape)

    def settle(self, want: bool = False) -> None:
        """Come together with all ranks: from now on no rank reads another one's gradients, and they may change.

        Args:
            want: let this rank's gradients be the mean even if nobody has read or kept one of them.
        """
        if want or self._is_any_kept():
            self.look()
        looked = numpy.array([self.looked])
        self._comm.all_reduce(looked, ReduceOp.MAX)
        if looked[0]:
            self.refuse()
        for reference, array, *_ in self._slots:
            slot = reference()
            if slot is not None and self.looked:
                array[...] = slot.array
                slot.array = array
            elif slot is not None:
                have_values(slot)
        self.pending = self.looked = False
        self._flats, self._slots = [], []

    def _is_any_kept(self) -> bool:
        """Whether somebody may still read one of the gradients: as `p.grad`, or a user holds it."""
        return any(references > _UNKEPT for references in _references(self._slots))


# A gradient, held weakly since backward writes to those that nobody else holds; its array, and the piece and the place
# in it where that is.
_Slot = tuple[weakref.ref, Array, int, slice]


def _references(slots: Sequence[tuple]) -> list[int]:
    return [getrefcount(reference()) for reference, *_ in slots]


def _unkept() -> int:
    """The references to a slot that only its leaf holds; it depends on the Python version."""
    leaf = Variable()
    leaf.grad_slot = Variable()
    return _references([(weakref.ref(leaf.grad_slot),)])[0]


_UNKEPT = _unkept()
