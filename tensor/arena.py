"""Arenas: parameters in one contiguous array, their gradients in a second one of the same layout.

An optimizer step is then one pass over two arrays, a bucket of gradients is a slice, zeroing is one fill. Parameters
stay ordinary tensors: `p.array` becomes a view, and the engine writes the first gradient of a step into `p.grad_slot`.
As in PyTorch, users may at any time rebind `p.data` or `p.grad`: who works on a slice verifies first that the arrays
are still the arena's own. Tensors made earlier over a parameter's memory (`p.detach()`, `p.data`) are left behind with
the old memory when the parameter moves; build the optimizer first and take them afterwards.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from types import ModuleType
from typing import Any

import numpy

from ..autograd.variable import LEAF, Variable, box, counter_of
from ..runtime import device as devices
from ..runtime.arrays import Array, module_of
from ..runtime.shareable import shareable_zeros

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


class Arena:
    """The memory of some parameters of one dtype and device, and of their gradients.

    Each parameter starts at a 64-byte boundary; the gaps between them are zero in both arrays.

    Args:
        parameters: leaf tensors, none twice. Their values and gradients move here.

    Attributes:
        data: flat array with the parameters.
        grad: flat array with their gradients, at the same places.
        ranges: (start, stop) of every parameter in both.
        views: what `p.array` of every parameter was made to be.
        slots: weak references to what `p.grad_slot.array` was made to be; weak because the engine reuses a slot only
            if nobody but the leaf holds it.

    Example:
        >>> import paceline as torch
        >>> a, b = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
        >>> arena = Arena([a, b])
        >>> arena.ranges
        [(0, 2), (16, 19)]
        >>> arena.data[:2] = 5
        >>> a
        tensor([5., 5.], requires_grad=True)
    """

    def __init__(self, parameters: Sequence[Variable]) -> None:
        dtype, where = _kind(parameters[0])
        for i, p in enumerate(parameters):
            if p.node is not LEAF:
                raise ValueError(f"Arena(): parameter {i} must be a leaf tensor that requires grad")
            if _kind(p) != (dtype, where):
                raise TypeError(
                    f"Arena(): all parameters must have one dtype and device; parameter {i} has {p.array.dtype} on "
                    f"{devices.device_of(p.array)}, parameter 0 has {dtype} on {where}"
                )
        self.ranges: list[tuple[int, int]] = []
        self.views: list[Array] = []
        self.slots: list[weakref.ref] = []
        unit = max(1, ALIGNMENT // dtype.itemsize)
        stop = 0
        for p in parameters:
            start = -(-stop // unit) * unit
            stop = start + int(p.array.size)
            self.ranges.append((start, stop))
        with devices.using(where) as xp:
            self.data = _aligned_zeros(xp, stop, dtype)
            self.grad = _aligned_zeros(xp, stop, dtype)
            for p, (start, stop) in zip(parameters, self.ranges, strict=True):
                view = self.data[start:stop].reshape(p.array.shape)
                view[...] = p.array
                p.array = view
                self._house(p)
                gradient = p.gradient
                if gradient is not None and gradient.node is None:  # one made under create_graph is part of a graph
                    p.grad_slot.array[...] = gradient.array  # type: ignore[union-attr]
                    p.gradient = p.grad_slot

    def _house(self, p: Variable) -> None:
        """Let a leaf, whose array is a view of `data`, live here."""
        index = len(self.views)
        start, stop = self.ranges[index]
        array = _apart(self.grad[start:stop].reshape(p.array.shape))
        self.views.append(p.array)
        self.slots.append(weakref.ref(array))
        p.home = (self, index)
        self.give_slot(p, array)

    def give_slot(self, p: Variable, array: Array) -> None:
        """Give a leaf a new slot, over its place in `grad`."""
        slot = box(array)
        counter_of(slot)
        slot.home = p.home
        p.grad_slot = slot

    def section(self, start: int, stop: int) -> dict[int, Variable]:
        """Leaves over the elements start .. stop - 1 and their gradients, for who works on them and nothing else.

        Their memory is that of the parameters, of each of which there may be all or a part. They live in an arena of
        their own, which is a slice of this one.

        Returns:
            A flat leaf by the number of each parameter that has elements there.

        Example:
            >>> import paceline as torch
            >>> a, b = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
            >>> Arena([a, b]).section(1, 18)
            {0: tensor([1.], requires_grad=True), 1: tensor([1., 1.], requires_grad=True)}
        """
        section = object.__new__(Arena)
        section.data, section.grad = self.data[start:stop], self.grad[start:stop]
        section.ranges, section.views, section.slots = [], [], []
        leaves = {}
        for number, (first, last) in enumerate(self.ranges):
            first, last = max(first, start) - start, min(last, stop) - start
            if first < last:
                section.ranges.append((first, last))
                leaf = leaves[number] = box(section.data[first:last])
                leaf.node = LEAF
                section._house(leaf)
        return leaves

    @classmethod
    def of(cls, parameters: Iterable[Variable]) -> Arena:
        """The arena in which exactly these parameters are neighbours, perhaps with others around them, or a new one.

        A parameter given twice (tied) lives there once; `p.home[1]` is its number.
        """
        unique = list(dict.fromkeys(parameters))
        homes = [home_of(p) for p in unique]
        numbers = sorted(home[1] for home in homes if home is not None)
        together = numbers == list(range(numbers[0], numbers[0] + len(unique))) if numbers else False
        if together and len({home[0] for home in homes if home is not None}) == 1:
            return homes[0][0]  # type: ignore[index]
        return cls(unique)

    def clear_gaps(self) -> None:
        """Make the gaps between the gradients zero again, after they were multiplied by something not finite."""
        self.grad[self._gaps] = 0

    @functools.cached_property
    def _gaps(self) -> Array:
        """The indices of all elements that belong to no parameter."""
        gaps = [range(stop, start) for (_, stop), (start, _) in pairwise(self.ranges)]
        return devices.move(numpy.array([*chain(*gaps)], numpy.int64), devices.device_of(self.grad))


def _kind(p: Variable) -> tuple[Any, devices.device]:
    return p.array.dtype, devices.device_of(p.array)


def _aligned_zeros(xp: ModuleType, size: int, dtype: Any) -> Array:
    """A flat array of zeros that starts at a 64-byte boundary (NumPy promises only 16)."""
    nbytes = size * dtype.itemsize + ALIGNMENT
    memory = shareable_zeros(nbytes) if xp is numpy else xp.zeros(nbytes, "uint8")
    address = memory.data.ptr if hasattr(memory.data, "ptr") else memory.ctypes.data
    skip = -address % ALIGNMENT
    return memory[skip : skip + size * dtype.itemsize].view(dtype)


def _apart(view: Array) -> Array:
    """The same memory as an array that views of it refer to, so that its references tell whether there are any.

    NumPy lets a view of a view refer to the array that owns the memory, but not beyond one that views something else.
    """
    if not isinstance(view, numpy.ndarray) or not view.size:
        return view
    memory = (ctypes.c_char * view.nbytes).from_buffer(view.reshape(-1).view(numpy.uint8).data)
    return numpy.ndarray(view.shape, view.dtype, memory)  # type: ignore[arg-type]


def home_of(p: Variable) -> tuple[Arena, int] | None:
    """The arena that a parameter lives in and its number there; None if it has none or `.data` was rebound."""
    if p.home is None:
        return None
    arena, index = p.home
    return p.home if p.array is arena.views[index] else None  # type: ignore[return-value]


def settle(parameters: Iterable[Variable]) -> None:
    """Move the trainable parameters that live in no arena into new ones, one for each dtype and device."""
    families: dict[Any, list[Variable]] = {}
    for p in dict.fromkeys(parameters):
        if p.node is LEAF and home_of(p) is None:
            families.setdefault(_kind(p), []).append(p)
    for family in families.values():
        Arena(family)  # the parameters keep it


def flat_gradients(gradients: Iterable[Variable]) -> list[Array]:
    """The memory of gradients in as few arrays as possible: neighbours in an arena, with their gap, are one slice."""
    pieces: list[tuple[Array, Any]] = []
    before: tuple | None = None
    for gradient in gradients:
        here = gradient.home
        if here is None or gradient.array is not here[0].slots[here[1]]():
            pieces.append((gradient.array, ...))
            before = None
            continue
        arena, index = here
        start, stop = arena.ranges[index]
        if before == (arena, index - 1):
            start = pieces.pop()[1].start
        pieces.append((arena.grad, slice(start, stop)))
        before = here
    return [array[part] for array, part in pieces]


def values_to_sum(parameters: Sequence[Variable]) -> list[Array]:
    """The values of the parameters' gradients, as `flat_gradients` gives them where all lie in the arenas.

    Neighbours of which one lies elsewhere are copied. What is summed over them thus has bits that depend on where the
    parameters live alone: whether a gradient lies in its place may differ between ranks, which have to stay equal.
    """
    if all(map(_is_in_place, parameters)):
        return flat_gradients(p.grad_slot for p in parameters)  # type: ignore[misc]
    runs: list[list[Variable]] = []
    before: tuple | None = None
    for p in parameters:
        here = home_of(p)
        if here is not None and before == (here[0], here[1] - 1):
            runs[-1].append(p)
        else:
            runs.append([p])
        before = here
    return [array for run in runs for array in _as_laid_out(run)]


def _is_in_place(p: Variable) -> bool:
    """Whether a parameter's gradient lies in its arena."""
    home = home_of(p)
    return home is not None and p.gradient is p.grad_slot and p.gradient.array is home[0].slots[home[1]]()  # type: ignore[union-attr]


def _as_laid_out(run: list[Variable]) -> list[Array]:
    """The gradients of neighbours in one array with the gaps of their arena."""
    gradients: list[Any] = [p.gradient for p in run]
    if home_of(run[0]) is None or all(map(_is_in_place, run)):
        return flat_gradients(gradients)
    ranges = [p.home[0].ranges[p.home[1]] for p in run]  # type: ignore[index]
    origin = ranges[0][0]
    flat = module_of(gradients[0].array).zeros(ranges[-1][1] - origin, gradients[0].array.dtype)
    for gradient, (start, stop) in zip(gradients, ranges, strict=True):
        flat[start - origin : stop - origin] = gradient.array.reshape(-1)
    return [flat]
