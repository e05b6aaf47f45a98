"""One rank's part of parameters that are neighbours in an arena."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from ..autograd.engine import accumulate
from ..autograd.variable import LEAF, LeafGroup, Variable, box, changed
from ..runtime.arrays import Array, module_of
from ..runtime.comm import Comm, ReduceOp
from ..runtime.comm.work import Work
from ..tensor.arena import ALIGNMENT, Arena, home_of


class Shard(LeafGroup):
    """Parameters that are neighbours in an arena, and the part of them that this rank updates.

    Args:
        parameters: of one dtype and device, in their order in the arena.
        comm: the ranks.

    Attributes:
        parts: (number of a parameter, start, stop, piece) for those parameters of which elements start .. stop - 1 are
            this rank's; the piece is a leaf tensor with a copy of them, which the rank's own optimizer updates.
        used: which parameters had a gradient on this rank when gradients were reduced.
        pending: whether the backward pass under way will still add to the gradients.
        on_begin, on_complete: called with the shard when backward begins and when its gradients are complete.
    """

    def __init__(self, parameters: Sequence[Variable], comm: Comm) -> None:
        self.parameters = parameters
        self._comm = comm
        homes = [home for p in parameters if (home := home_of(p)) is not None]
        self._arena: Arena = homes[0][0]
        self._ranges = [self._arena.ranges[index] for _, index in homes]
        self._views = [self._arena.views[index] for _, index in homes]
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
        for number, (start, stop) in enumerate(self._ranges):
            a, b = max(start, lo), min(stop, hi)
            if a < b:
                piece = box(self._arena.data[a:b].copy())
                piece.node = LEAF
                self.parts.append((number, a - start, b - start, piece))

    def begin(self) -> None:
        self.on_begin(self)

    def complete(self) -> None:
        self.on_complete(self)

    # -- parameters ----------------------------------------------------------------------------------------------------

    def load_parameters(self) -> None:
        """Copy this rank's elements into its pieces: somebody may have loaded other values."""
        self.arrive()
        for number, start, stop, piece in self.parts:
            piece.array[...] = self.parameters[number].array.reshape(-1)[start:stop]

    def hand_round(self, asynchronous: bool) -> None:
        """Write the updated pieces back and take over those of the other ranks.

        Args:
            asynchronous: return at once; who reads one of the parameters waits until all of them are there.
        """
        data = self._arena.data
        for number, start, stop, piece in self.parts:
            offset = self._ranges[number][0]
            data[offset + start : offset + stop] = piece.array
        if self._own_body.start < self._own_body.stop:
            self._works.append(self._comm.all_gather(data[self._body], data[self._own_body], asynchronous))
        if self._tail.start < self._tail.stop:
            self._works.append(self._comm.broadcast(data[self._tail], self._comm.size - 1, asynchronous))
        for p in self.parameters:
            changed(p, "optimizer step")
        if asynchronous:
            for p in self.parameters:
                vars(p)["shard"] = self
                kind: Any = type(p)
                p.__class__ = _arriving(kind)
        else:
            self.arrive()

    def arrive(self) -> None:
        """Wait until the values of all ranks are there."""
        for p in self.parameters:
            if vars(p).pop("shard", None) is not None:
                p.__class__ = type(p).original  # type: ignore[attr-defined]
        works, self._works = self._works, []
        for work in works:
            if work is not None:
                work.wait()
        for p, view in zip(self.parameters, self._views if works else (), strict=bool(works)):
            if p.array is not view:  # the user has given it other memory
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
            piece.gradient = None
            if gradient is not None:
                accumulate(piece, gradient.array.reshape(-1)[start:stop], False, False)

    def reduce_gradients(self) -> None:
        """Add to the gradients of the pieces the means over the ranks of the parameters' gradients."""
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
            if p.gradient is not p.grad_slot:
                place[...] = p.gradient.array.reshape(-1)
        return flat

    def drop_unused(self, used: Array) -> None:
        """Take the gradients away from pieces of parameters that no rank has used."""
        for number, _, _, piece in self.parts:
            if not used[number]:
                piece.gradient = None


@functools.cache
def _arriving(kind: type) -> type:
    """For parameters of a class, the class of those whose values other ranks still send: to read them is to wait."""

    class Arriving(kind):  # type: ignore[misc]
        __slots__ = ()  # as instances of `kind` become its instances and the reverse
        original = kind

        @property
        def array(self) -> Array:
            self.shard.arrive()
            return self.array  # the attribute, now that this is of its own class again

        @array.setter
        def array(self, value: Array) -> None:
            self.shard.arrive()
            self.array = value

        def __deepcopy__(self, memo: dict) -> Any:
            self.shard.arrive()
            return copy.deepcopy(self, memo)

        def __reduce_ex__(self, protocol: Any) -> Any:
            self.shard.arrive()
            return self.__reduce_ex__(protocol)

    return Arriving


def _ignore(shard: Shard) -> None:
    """Nobody asked."""
