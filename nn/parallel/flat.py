"""Gradients and buffers as flat arrays: which travel together, and packing them where no arena holds them together."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from ...runtime.arrays import Array, module_of
from ...tensor import Tensor


def cut(tensors: Sequence[Tensor], order: Iterable[int], first: int, cap: int) -> list[list[int]]:
    """Indices in this order, cut into groups of one arena, or of one dtype and device; `cap` bytes fill a group."""
    groups: list[list[int]] = []
    open_groups: dict[Any, list[int]] = {}
    sizes: defaultdict[Any, int] = defaultdict(int)
    for i in order:
        tensor = tensors[i]
        home = home_of_gradient(tensor)
        kind = (tensor.dtype, tensor.device) if home is None else home[0]
        if kind not in open_groups:
            open_groups[kind] = []
            groups.append(open_groups[kind])
        open_groups[kind].append(i)
        sizes[kind] += tensor.nbytes
        if sizes[kind] >= (first if open_groups[kind] is groups[0] else cap):
            del open_groups[kind], sizes[kind]
    return groups


def home_of_gradient(tensor: Tensor) -> tuple | None:
    """The arena of a parameter's gradient, and its number there."""
    return None if tensor.grad_slot is None else tensor.grad_slot.home


def places_of(parameters: Sequence[Tensor]) -> list[tuple[int, int]]:
    """(start, stop) of gradients in their bucket.

    As in the arena if they are neighbours there: a rank that has to pack must send as many elements as those that send
    the slice, gaps included.
    """
    home = common_home(parameters)
    if home is None:
        return dense_places([parameter.array for parameter in parameters])
    arena, first = home
    origin = arena.ranges[first][0]
    return [(start - origin, stop - origin) for start, stop in arena.ranges[first : first + len(parameters)]]


def common_home(parameters: Sequence[Tensor]) -> tuple | None:
    """The arena in which the gradients are neighbours, in this order, and the number of the first one there."""
    homes = [home_of_gradient(parameter) for parameter in parameters]
    if homes[0] is None:
        return None
    arena, first = homes[0]
    return homes[0] if homes == [(arena, first + i) for i in range(len(homes))] else None


def dense_places(arrays: list[Array]) -> list[tuple[int, int]]:
    """(start, stop) of arrays one behind the other."""
    return list(itertools.pairwise(itertools.accumulate((array.size for array in arrays), initial=0)))


def pack(arrays: list[Array], places: list[tuple[int, int]]) -> Array:
    """The arrays' elements at their places in a new array."""
    flat = module_of(arrays[0]).zeros(places[-1][1], arrays[0].dtype)
    for array, (start, stop) in zip(arrays, places, strict=True):
        flat[start:stop] = array.reshape(-1)
    return flat


def unpack(flat: Array, arrays: list[Array], places: list[tuple[int, int]]) -> None:
    """Write the elements of a packed array back."""
    for array, (start, stop) in zip(arrays, places, strict=True):
        array[...] = flat[start:stop].reshape(array.shape)
