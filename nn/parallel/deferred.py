"""Means of gradients that nobody may ever ask for."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy

from ...autograd.engine import holds_alone
from ...runtime.arrays import Array
from ...runtime.comm import Comm, ReduceOp
from ...runtime.comm.reduction import combine
from ...runtime.comm.region import Region, everybodys
from ...tensor.arriving import await_values, have_values, is_awaited

_LINE_BYTES = 64  # of a cache line: each rank's word has one of its own
_YIELD_SECONDS = 0.05  # afterwards a waiting rank sleeps
_SLEEP_SECONDS = 1e-4
# A rank may come late because it saves or evaluates, or never: where it waits for something from this one first.
_PATIENCE_SECONDS = 5.0


class DeferredMean:
    """The mean of the gradients of ranks that reach each other's arenas, computed where somebody wants it.

    While it is pending, the arenas have what each rank's backward pass has computed. An optimizer whose steps the ranks
    divide needs the mean of its part only: it takes that from everybody's arenas, a piece of the size of a cache at a
    time, and the mean is never written to memory. Whoever reads `p.grad`, before that step or after it, gets the mean
    as ever, in memory of this rank's own, since the others may still read its arena; it waits for nobody. Before a rank
    changes its arena again it waits for all to say that they will not read gradients any more. Once a gradient was
    read, or somebody else held it, ranks agree at the end of the next backward pass to defer no further mean.

    Args:
        comm: the ranks.
        regions: what `comm.share()` returned for the gradients' arenas.

    Attributes:
        pending: whether the mean is still to be computed.
        looked: whether this rank's gradients were read since, and are the mean in memory of their own.
        wanted: whether there is an optimizer that takes the mean itself; the same on all ranks.
    """

    def __init__(self, comm: Comm, regions: Sequence[Region]) -> None:
        self.pending = self.looked = self.wanted = False
        self._comm = comm
        self._regions = regions
        self._slots: list[_Slot] = []  # the gradients of which the mean is pending, or was when this rank read them
        self._lock = threading.RLock()  # several threads may read gradients
        self._generation = 0  # of pending means
        memory = comm.common(comm.size * _LINE_BYTES)
        self._refused = memory is None
        # By rank: up to which generation it has left gradients behind. The processor lets nobody see that before the
        # rank has read them: x86, without which there are no regions, orders stores after loads.
        self._left = numpy.zeros(0) if memory is None else numpy.frombuffer(memory, numpy.int64)[:: _LINE_BYTES // 8]

    def want(self) -> None:
        """An optimizer takes the mean itself from now on."""
        self.wanted = not self._refused

    def refuse(self) -> None:
        """Defer no further mean; to be called on all ranks."""
        self._refused, self.wanted = True, False

    def everybodys(self, flat: Array) -> list[Array]:
        """All ranks' gradients at the place where these are; none if the ranks do not reach them."""
        return everybodys(self._regions, flat)

    def begin(self, leaves: Iterable[Any]) -> None:
        """All ranks have computed the gradients of these leaves, which `may_wait`."""
        self.pending = True
        self._generation += 1
        for leaf in leaves:
            slot = leaf.grad_slot
            self._slots.append((leaf, weakref.ref(slot), slot.array))
            await_values(slot, self.look)

    @staticmethod
    def may_wait(leaf: Any) -> bool:
        """Whether a leaf's gradient is in its arena, and nobody else has it, a view of it or its memory."""
        return leaf.gradient is not None and leaf.gradient is leaf.grad_slot and holds_alone(leaf)

    def look(self) -> None:
        """Let this rank's gradients be the mean, in memory of their own."""
        with self._lock:
            if self.looked or not self._slots:
                return
            for _, reference, array in self._slots:
                slot = reference()
                if slot is not None and is_awaited(slot):
                    mean = numpy.empty_like(array)
                    combine(ReduceOp.AVG, self.everybodys(array.reshape(-1)), mean.reshape(-1))
                    vars(slot)["array"] = mean  # before another thread can read the attribute
                    have_values(slot)
            self.looked = True

    def leave(self) -> bool:
        """Read the others' gradients no more, since this rank is about to change its own.

        Returns:
            Whether nobody has read them on this rank.
        """
        if not self.pending:
            return True
        with self._lock:
            if any(leaf.gradient is reference() for leaf, reference, _ in self._slots):
                self.look()  # they are still there, to be read or added to
            self.pending, unread = False, not self.looked
            self._left[self._comm.rank] = self._generation
        if self._have_all_left():
            self.come_home()
        else:
            self.look()  # so that this rank does not write where others may read
        return unread

    def _have_all_left(self) -> bool:
        start = time.monotonic()
        while (self._left < self._generation).any():
            waited = time.monotonic() - start
            if waited > _PATIENCE_SECONDS:
                return False
            if waited < _YIELD_SECONDS:
                os.sched_yield()
            else:
                time.sleep(_SLEEP_SECONDS)
        return True

    def meet(self) -> None:
        """Let the gradients of all ranks be the mean, in the arenas; to be called by all of them."""
        self.look()
        self._comm.barrier()
        self.pending = False
        self.come_home()
        self.refuse()

    def come_home(self) -> None:
        """Let gradients live in the arenas again, once no rank reads what is there."""
        with self._lock:
            for leaf, reference, array in self._slots:
                if reference() is None:
                    continue
                if not self.looked:
                    have_values(reference())  # type: ignore[arg-type]
                elif leaf.grad_slot is reference():
                    _bring_home(leaf, array)
            self._slots, self.looked = [], False


_Slot = tuple[Any, weakref.ref, Array]  # a leaf, its gradient, and the gradient's array in the arena


def _bring_home(leaf: Any, array: Array) -> None:
    """Let the gradient be in the arena, or the next one if somebody else has this one."""
    if not holds_alone(leaf):
        leaf.home[0].give_slot(leaf, array)
        return
    if leaf.gradient is not None:
        array[...] = leaf.grad_slot.array
    leaf.grad_slot.array = array
