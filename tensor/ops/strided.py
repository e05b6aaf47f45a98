"""Views by strides: any window on the memory of a tensor, and their gradients."""

from __future__ import annotations

import functools
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...runtime import arrays
from ...runtime.arrays import Array
from . import indexing, shaping

Geometry = tuple[tuple[int, ...], int]  # strides and offset, in elements


def geometry_of(array: Array) -> Geometry:
    """Where an array's elements lie in the memory under it."""
    memory = arrays.memory_of(array)
    start = arrays.address_of(array) - arrays.address_of(memory)
    return tuple(s // array.itemsize for s in array.strides), start // array.itemsize


def _places(size: tuple, stride: tuple, offset: int) -> numpy.ndarray:
    """The place in memory of each element of a window."""
    places = numpy.full(size, offset, numpy.int64)
    for dim, (n, step) in enumerate(zip(size, stride, strict=True)):
        places += (numpy.arange(n) * step).reshape((n,) + (1,) * (len(size) - dim - 1))
    return places


@functools.lru_cache(maxsize=64)
def _elements(shape: tuple, source: Geometry, size: tuple, stride: tuple, offset: int) -> tuple[numpy.ndarray, Any]:
    """For each element of a window the number of the input's element in its place (one past the last where there is
    none), and, if elements of the input share places, how many share each one's."""
    own, wanted = _places(shape, *source).reshape(-1), _places(size, stride, offset).reshape(-1)
    places, first, which, counts = numpy.unique(own, return_index=True, return_inverse=True, return_counts=True)
    if not own.size:
        return numpy.zeros(wanted.size, numpy.int64), None
    at = numpy.minimum(numpy.searchsorted(places, wanted), len(places) - 1)
    elements = numpy.where(places[at] == wanted, first[at], own.size)
    return elements, (counts[which], first[which]) if len(places) < own.size else None


@primitive(view=True)
def as_strided_window(xp, input: Array, size: tuple, stride: tuple, storage_offset: int, source: Geometry):
    """The window on the memory under the input; `source` is the input's own geometry there.

    An array that holds the input's values in another geometry, as gradients do, gives the values by a copy; places
    that are no element of the input are 0 then.
    """
    last = storage_offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if geometry_of(input) == source and last < arrays.memory_of(input).size:
        return arrays.strided_view(input, size, stride, storage_offset)
    elements, _ = _elements(input.shape, source, size, stride, storage_offset)
    padded = xp.concatenate([input.reshape(-1), xp.zeros(1, input.dtype)])
    return padded[xp.asarray(elements)].reshape(size)


@primitive
def as_strided_sum(xp, input: Array, shape: tuple, size: tuple, stride: tuple, storage_offset: int, source: Geometry):
    """The elements of a window summed into the elements of the tensor of that shape that they are: the counterpart of
    as_strided_window. Elements that share a place share the sum evenly."""
    elements, shared = _elements(shape, source, size, stride, storage_offset)
    count = int(numpy.prod(shape))
    out = xp.zeros(count + 1, input.dtype)
    xp.add.at(out, xp.asarray(elements), input.reshape(-1))
    out = out[:count]
    if shared is not None:
        sharers, first = map(xp.asarray, shared)
        out = out[first] / sharers.astype(input.dtype)
    return out.reshape(shape)


as_strided_window.vjp(
    input=lambda F, g, input_shape, size, stride, storage_offset, source: F.as_strided_sum(
        g, input_shape, size, stride, storage_offset, source
    )
)
as_strided_sum.vjp(
    input=lambda F, g, size, stride, storage_offset, source: F.as_strided_window(
        g, size, stride, storage_offset, source
    )
)


# -- the forms users call ----------------------------------------------------------------------------------------------


def _window(input: Any, size: Any, stride: Any, storage_offset: int | None, name: str) -> tuple:
    """The attributes of a window, checked against the memory."""
    size, stride = shaping.as_size(size), shaping.as_size(stride)
    if len(size) != len(stride):
        raise RuntimeError(f"{name}(): mismatch in length of strides and shape: {list(stride)} and {list(size)}")
    if any(n < 0 for n in (*size, *stride)):
        raise RuntimeError(f"{name}(): sizes and strides must not be negative, got {list(size)} and {list(stride)}")
    source = geometry_of(input.array)
    offset = source[1] if storage_offset is None else storage_offset
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    room = arrays.memory_of(input.array).size
    if 0 not in size and not 0 <= offset <= last < room:
        raise RuntimeError(
            f"{name}(): sizes {list(size)}, strides {list(stride)} and storage offset {offset} need {last + 1} "
            f"elements, out of bounds for storage of {room}"
        )
    return size, stride, offset, source


def as_strided(input: Any, size: Any, stride: Any, storage_offset: int | None = None) -> Any:
    """A view with any sizes and strides of the memory under the tensor.

    Args:
        size: the lengths of its dimensions.
        stride: elements to skip in memory from one index to the next, for each dimension.
        storage_offset: where in memory its first element is; by default where the input's is.

    Example:
        >>> import paceline as torch
        >>> torch.arange(6).as_strided((2, 2), (1, 2), 1)
        tensor([[1, 3],
                [2, 4]])
    """
    return as_strided_window(input, *_window(input, size, stride, storage_offset, "as_strided"))


def as_strided_scatter(input: Any, src: Any, size: Any, stride: Any, storage_offset: int | None = None) -> Any:
    """A copy of the input with src written where as_strided with the same arguments would look."""
    size, stride, offset, source = _window(input, size, stride, storage_offset, "as_strided_scatter")
    if src.array.shape != size:
        raise RuntimeError(
            f"as_strided_scatter(): expected src to have a size equal to the slice of self. src size = "
            f"{list(src.array.shape)}, slice size = {list(size)}"
        )
    shape, count = input.array.shape, input.array.size
    elements, _ = _elements(shape, source, size, stride, offset)
    padded = shaping.pad_constant(shaping.reshape(input, (-1,)), ((0, 1),))
    xp = arrays.module_of(input.array)
    written = indexing.write_at(padded, shaping.reshape(src, (-1,)), (xp.asarray(elements),))
    return shaping.reshape(shaping.narrow(written, 0, 0, count), shape)


def unfold(input: Any, dimension: int, size: int, step: int) -> Any:
    """A view of all windows of a size along a dimension, `step` apart; the windows' elements are a new last dimension.

    Example:
        >>> import paceline as torch
        >>> torch.arange(5).unfold(0, 3, 2)
        tensor([[0, 1, 2],
                [2, 3, 4]])
    """
    dim = shaping.one_dim(dimension, input.array.ndim)
    shape, stride = input.array.shape, input.stride()
    if not shape:
        return unfold(shaping.reshape(input, (1,)), 0, size, step)[0]
    if not 0 <= size <= shape[dim]:
        raise RuntimeError(f"maximum size for tensor at dimension {dim} is {shape[dim]} but size is {size}")
    if step <= 0:
        raise RuntimeError(f"unfold(): step is {step} but must be > 0")
    windows = (shape[dim] - size) // step + 1
    sizes = (*shape[:dim], windows, *shape[dim + 1 :], size)
    return as_strided(input, sizes, (*stride[:dim], stride[dim] * step, *stride[dim + 1 :], stride[dim]))
