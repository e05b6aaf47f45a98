"""One rank's part of parameters that are neighbours in an arena."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy

from ..autograd.engine import accumulate
from ..autograd.variable import LeafGroup, Variable, box, changed
from ..runtime.arrays import Array, module_of
from ..runtime.comm import Comm, ReduceOp
from ..runtime.comm.work import Work
from ..tensor.arena import ALIGNMENT, Arena
from ..tensor.arriving import await_values, have_values


class Shard(LeafGroup):
    """Parameters that are neighbours in an arena, and the part of them that this rank updates.

    Args:
        parameters: of one dtype and device, in their order in the arena.
        comm: the ranks.

    Attributes:
        parts: (number of a parameter, start, stop, piece) for those parameters of which elements start .. stop - 1 are
            this rank's; the piece is a leaf tensor over their memory, which the rank's own optimizer updates.
        used: which parameters had a gradient on this rank when gradients were reduced.
        pending: whether the backward pass under way will still add to the gradients.
        on_begin, on_complete: called with the shard when backward begins and when its gradients are complete.
    """

    def __init__(self, parameters: Sequence[Variable], comm: Comm) -> None:
        self.parameters = parameters
        self._comm = comm
        self._arena: Arena
        self._arena, first = parameters[0].home  # type: ignore[misc]
        here = slice(first, first + len(parameters))
        self._ranges = self._arena.ranges[here]
        self._views = self._arena.views[here]
        self._slots = self._arena.slots[here]
        self._first, last = self._ranges[0][0], self._ranges[-1][1]
        unit = max(1, ALIGNMENT // parameters[0].array.itemsize)
        width = (last - self._first) // (comm.size * unit) * unit
        # Equal parts, which one collective moves; the last rank owns the few elements behind them, too.
        self._body = slice(self._first, self._first + comm.size * width)
        self._tail = slice(self._body.stop, last)
        lo = self._first + comm.rank * width
        hi = last if comm.rank == comm.size - 1 else lo + width
        self._own = slice(lo, hi)
        self._own_body = slice(lo, lo + width)
        self.used = numpy.zeros(len(parameters), numpy.uint8)
        self.pending = False
        self.on_begin: Callable[[Shard], None] = _ignore
        self.on_complete: Callable[[Shard], None] = _ignore
        self._works: list[Work | None] = []
        self.parts: list[tuple[int, int, int, Variable]] = []
        for index, piece in self._arena.section(lo, hi).items():
            start, stop = self._arena.ranges[index]
            self.parts.append((index - first, max(lo - start, 0), min(hi, stop) - start, piece))

    def begin(self, seeds: Sequence[tuple]) -> None:
        self.on_begin(self)

    def complete(self) -> None:
        self.on_complete(self)

    # -- parameters ----------------------------------------------------------------------------------------------------

    def load_parameters(self) -> None:
        """Let the pieces have the parameters' values."""
        self.arrive()
        for p, view in zip(self.parameters, self._views, strict=True):
            if p.array is not view:  # the user has given it other memory
                view[...] = p.array

    def hand_round(self, asynchronous: bool) -> None:
        """Take over the updated pieces of the other ranks.

        Args:
            asynchronous: return at once; who reads one of the parameters waits until all of them are there.
        """
        data = self._arena.data
        if self._own_body.start < self._own_body.stop:
            self._works.append(self._comm.all_gather(data[self._body], data[self._own_body], asynchronous))
        if self._tail.start < self._tail.stop:
            self._works.append(self._comm.broadcast(data[self._tail], self._comm.size - 1, asynchronous))
        for p in self.parameters:
            changed(p, "optimizer step")
        if asynchronous:
            for p in self.parameters:
                await_values(p, self.arrive)
        else:
            self.arrive()

    def arrive(self) -> None:
        """Wait until the values of all ranks are there."""
        for p in self.parameters:
            have_values(p)
        works, self._works = self._works, []
        for work in works:
            if work is not None:
                work.wait()
        for p, view in zip(self.parameters, self._views if works else (), strict=bool(works)):
            if p.array is not view:
                p.array[...] = view

    # -- gradients -----------------------------------------------------------------------------------------------------

    def forget_gradients(self) -> None:
        """Let the pieces have no gradients."""
        self.used[:] = 0
        for _, _, _, piece in self.parts:
            piece.gradient = None

    def load_gradients(self) -> None:
        """Give the pieces their gradients, which are averaged already."""
        for number, start, stop, piece in self.parts:
            gradient = self.parameters[number].gradient
            if gradient is None:
                piece.gradient = None
            elif gradient.array is self._slots[number]():
                piece.gradient = piece.grad_slot
            else:
                piece.gradient = box(gradient.array.reshape(-1)[start:stop])

    def reduce_gradients(self) -> None:
        """Add to the gradients of the pieces the means over the ranks of the parameters' gradients, which are gone."""
        flat = self._flat_gradients()
        mean = module_of(flat).empty(self._own.stop - self._own.start, flat.dtype)
        width = self._own_body.stop - self._own_body.start
        body = flat[: self._body.stop - self._first]
        if width:
            self._comm.reduce_scatter(mean[:width], body, ReduceOp.AVG)
        if self._tail.start < self._tail.stop:
            tail = flat[body.size :].copy()
            self._comm.all_reduce(tail, ReduceOp.AVG)
            mean[width:] = tail[: mean.size - width]
        for number, start, stop, piece in self.parts:
            offset = self._ranges[number][0] - self._own.start
            accumulate(piece, mean[offset + start : offset + stop], False, False)
        for p in self.parameters:
            p.gradient = None

    def _flat_gradients(self) -> Array:
        """The parameters' gradients as in the arena, missing ones as zeros; in the arena, unless they have no place."""
        if any(p.grad_slot is None for p in self.parameters):
            flat = module_of(self._arena.data).zeros(self._ranges[-1][1] - self._first, self._arena.data.dtype)
        else:
            flat = self._arena.grad[self._first : self._ranges[-1][1]]
        for i, (p, (start, stop)) in enumerate(zip(self.parameters, self._ranges, strict=True)):
            place = flat[start - self._first : stop - self._first]
            if p.gradient is None:
                place[...] = 0
                continue
            self.used[i] = 1
            if p.gradient.array is not self._slots[i]():
                place[...] = p.gradient.array.reshape(-1)
        return flat

    def drop_unused(self, used: Array) -> None:
        """Take the gradients away from pieces of parameters that no rank has used."""
        for number, _, _, piece in self.parts:
            if not used[number]:
                piece.gradient = None


def _ignore(shard: Shard) -> None:
    """Nobody asked."""
