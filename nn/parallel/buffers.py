"""Keeping the buffers of a module equal on all ranks."""

from __future__ import annotations

from typing import Any

from ...autograd.variable import changed
from ...runtime.arrays import Array, module_of
from ...runtime.comm import Comm, ReduceOp
from ..module import Module
from .flat import dense_places


def buffer_places(module: Module) -> list[tuple[Module, str]]:
    """The owner and the name there of every buffer, each buffer once."""
    places: dict[Any, tuple[Module, str]] = {}
    for _, owner in module.named_modules():
        for name, tensor in owner.named_buffers(recurse=False):
            places.setdefault(tensor, (owner, name))
    return list(places.values())


class BufferSync:
    """The buffers of a module moved into flat arrays, so that it takes one message for each dtype to compare them.

    Args:
        module: whose buffers.
        comm: the ranks.
        average: let every rank have the mean of floating-point buffers, instead of rank 0's.
    """

    def __init__(self, module: Module, comm: Comm, average: bool) -> None:
        self._comm = comm
        self._average = average
        # By owner and name: modules may assign a new tensor instead of writing into the old one.
        self._places = buffer_places(module)
        self._flats: list[Array] = []
        self._views: list[Array] = []  # one for each buffer

    def run(self, src: int = 0) -> None:
        """Take over rank `src`'s buffers, or the mean."""
        tensors = [getattr(module, name) for module, name in self._places]
        self._bring_together(tensors)
        for flat in self._flats:
            if self._average and flat.dtype.kind not in "biu":
                self._comm.all_reduce(flat, ReduceOp.AVG)
            else:
                self._comm.broadcast(flat, src)
        for tensor in tensors:
            changed(tensor, "broadcast")

    def _bring_together(self, tensors: list[Any]) -> None:
        """Let every buffer be a view of a flat array."""
        if [(t.array.dtype, t.array.shape) for t in tensors] != [(v.dtype, v.shape) for v in self._views]:
            self._plan([tensor.array for tensor in tensors])  # the first time, or the module was converted
        for tensor, view in zip(tensors, self._views, strict=True):
            if tensor.array is not view:
                view[...] = tensor.array
                tensor.array = view

    def _plan(self, arrays: list[Array]) -> None:
        """Make flat arrays with room for these."""
        kinds: dict[Any, list[int]] = {}
        for i, array in enumerate(arrays):
            kinds.setdefault(array.dtype, []).append(i)
        self._flats = []
        self._views = [None] * len(arrays)
        for dtype, members in kinds.items():
            places = dense_places([arrays[i] for i in members])
            flat = module_of(arrays[members[0]]).empty(places[-1][1], dtype)
            self._flats.append(flat)
            for i, (start, stop) in zip(members, places, strict=True):
                self._views[i] = flat[start:stop].reshape(arrays[i].shape)
