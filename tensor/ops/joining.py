"""Joining tensors, cutting them apart, and repeating what is in them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.variable import Variable, box
from ...runtime.arrays import module_of
from . import indexing, shaping
from .shaping import one_dim

# -- dimensions in front -----------------------------------------------------------------------------------------------


def _each(function: Any, tensors: tuple) -> Any:
    """The function of one tensor, or of each of several given one by one or in a list."""
    if len(tensors) == 1 and not isinstance(tensors[0], list | tuple):
        return function(tensors[0])
    given = tensors[0] if len(tensors) == 1 else tensors
    return tuple(function(x) for x in given)


def atleast_1d(*tensors: Any) -> Any:
    """A 0-d tensor as a vector; others as they are. Also of several tensors."""
    return _each(lambda x: x if x.array.ndim else shaping.reshape(x, (1,)), tensors)


def atleast_2d(*tensors: Any) -> Any:
    """With new dimensions in front where there are fewer than two. Also of several tensors."""
    return _each(lambda x: x if x.array.ndim > 1 else shaping.reshape(x, (1, -1)), tensors)


def _three_dims(x: Any) -> Any:
    shape = x.array.shape
    return x if len(shape) > 2 else shaping.reshape(x, (*shape, 1) if len(shape) == 2 else (1, -1, 1))


def atleast_3d(*tensors: Any) -> Any:
    """With three dimensions at least: a vector of n as [1, n, 1], a matrix with one more at its end."""
    return _each(_three_dims, tensors)


# -- joining -----------------------------------------------------------------------------------------------------------


def _all_of(tensors: Any, function: str) -> list:
    if isinstance(tensors, Variable) or not isinstance(tensors, list | tuple):
        raise TypeError(f"{function}(): expected a list or tuple of tensors, got {type(tensors).__name__}")
    if not tensors:
        raise RuntimeError(f"{function} expects a non-empty TensorList")
    return list(tensors)


@takes_out
def hstack(tensors: Any) -> Any:
    """Tensors side by side: joined along the second dimension, vectors along their only one.

    Example:
        >>> import paceline as torch
        >>> torch.hstack((torch.tensor([1, 2]), torch.tensor([3])))
        tensor([1, 2, 3])
    """
    parts = [atleast_1d(x) for x in _all_of(tensors, "hstack")]
    return shaping.cat(parts, 0 if parts[0].array.ndim == 1 else 1)


@takes_out
def vstack(tensors: Any) -> Any:
    """Tensors one below the other: joined along the first dimension, vectors as rows."""
    return shaping.cat([atleast_2d(x) for x in _all_of(tensors, "vstack")], 0)


@takes_out
def dstack(tensors: Any) -> Any:
    """Tensors one behind the other: joined along the third dimension."""
    return shaping.cat([atleast_3d(x) for x in _all_of(tensors, "dstack")], 2)


@takes_out
def column_stack(tensors: Any) -> Any:
    """Tensors side by side, vectors as columns."""
    parts = _all_of(tensors, "column_stack")
    return hstack([x if x.array.ndim > 1 else shaping.reshape(x, (-1, 1)) for x in parts])


def constant_pad_nd(input: Any, pad: Any, value: float = 0) -> Any:
    """Constants around the tensor: pad holds (before, after) of the last dimension, then of the one before it, ..."""
    if len(pad) % 2 or len(pad) > 2 * input.array.ndim:
        raise RuntimeError(
            f"Length of pad must be even and no more than twice the number of dimensions of the input; pad is "
            f"{list(pad)}, the input has {input.array.ndim} dimensions"
        )
    pairs = [tuple(pad[i : i + 2]) for i in range(0, len(pad), 2)]
    pairs += [(0, 0)] * (input.array.ndim - len(pairs))
    return shaping.pad_constant(input, tuple(reversed(pairs)), value)


def block_diag(*tensors: Any) -> Any:
    """A matrix with the given matrices on its diagonal, zeros elsewhere; vectors count as rows.

    Example:
        >>> import paceline as torch
        >>> torch.block_diag(torch.tensor([[1, 2]]), torch.tensor([[3]]))
        tensor([[1, 2, 0],
                [0, 0, 3]])
    """
    for i, x in enumerate(tensors):
        if x.array.ndim > 2:
            raise RuntimeError(
                f"torch.block_diag: Input tensors must have 2 or fewer dimensions. Input {i} has {x.array.ndim}"
            )
    if not tensors:
        return box(numpy.zeros((1, 0), numpy.float32))
    parts = [atleast_2d(x) for x in tensors]
    width = sum(x.array.shape[1] for x in parts)
    rows, left = [], 0
    for x in parts:
        here = x.array.shape[1]
        rows.append(shaping.pad_constant(x, ((0, 0), (left, width - left - here))))
        left += here
    return shaping.cat(rows, 0)


def cartesian_prod(*tensors: Any) -> Any:
    """All combinations of one element of each vector, a row each."""
    vectors = [shaping.reshape(x, (-1,)) if x.array.ndim == 0 else x for x in tensors]
    if any(x.array.ndim > 1 for x in vectors):
        raise RuntimeError("cartesian_prod: Expect a 1D vector")
    if len(vectors) == 1:
        return vectors[0]
    shape = tuple(x.array.size for x in vectors)
    grids = [
        shaping.expand(shaping.reshape(x, (-1,) + (1,) * (len(shape) - i - 1)), shape) for i, x in enumerate(vectors)
    ]
    return shaping.stack([shaping.reshape(g, (math.prod(shape),)) for g in grids], 1)


def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Any:
    """All combinations of r elements of a vector, a row each."""
    if input.array.ndim != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.array.shape)}")
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(choose(range(input.array.size), r)) if r else []
    places = module_of(input.array).asarray(
        numpy.array(rows, numpy.int64).reshape(-1, r) if r else numpy.zeros(0, numpy.int64)
    )
    return indexing.take_index(input, (places,))


# -- cutting -----------------------------------------------------------------------------------------------------------


def tensor_split(
    input: Any, indices_or_sections: Any = None, dim: int = 0, *, indices: Any = None, sections: Any = None
) -> tuple:
    """Views of consecutive parts: a number of them of nearly equal size, or those that end at the given indices.

    Example:
        >>> import paceline as torch
        >>> [p.tolist() for p in torch.tensor_split(torch.arange(5), 2)]
        [[0, 1, 2], [3, 4]]
    """
    if not input.array.ndim:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    dim = one_dim(dim, input.array.ndim)
    length = input.array.shape[dim]
    given = next((x for x in (indices_or_sections, indices, sections) if x is not None), None)
    if given is None:
        raise TypeError("tensor_split(): expected a number of sections or indices, got neither")
    if isinstance(given, Variable):
        given = given.tolist()
    if isinstance(given, int):
        if given <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {given}")
        size, longer = divmod(length, given)
        ends = [size * (i + 1) + min(i + 1, longer) for i in range(given)]
    else:
        ends = [min(max(i + length if i < 0 else i, 0), length) for i in given] + [length]
    starts = [0, *ends[:-1]]
    return tuple(shaping.narrow(input, dim, a, max(b - a, 0)) for a, b in zip(starts, ends, strict=True))


def _split_along(input: Any, given: Any, dim: int, least: int, function: str) -> tuple:
    if input.array.ndim < least:
        raise RuntimeError(
            f"torch.{function} requires a tensor with at least {least} dimension{'s' * (least > 1)}, but got a tensor "
            f"with {input.array.ndim} dimensions!"
        )
    if isinstance(given, int) and (given <= 0 or input.array.shape[dim] % given):
        raise RuntimeError(
            f"torch.{function} attempted to split along dimension {dim}, but the size of the dimension "
            f"{input.array.shape[dim]} is not divisible by the split_size {given}!"
        )
    return tensor_split(input, given, dim)


def hsplit(input: Any, indices_or_sections: Any) -> tuple:
    """Views of parts side by side: along the second dimension, of vectors along their only one."""
    return _split_along(input, indices_or_sections, 0 if input.array.ndim == 1 else 1, 1, "hsplit")


def vsplit(input: Any, indices_or_sections: Any) -> tuple:
    """Views of parts one below the other: along the first dimension."""
    return _split_along(input, indices_or_sections, 0, 2, "vsplit")


def dsplit(input: Any, indices_or_sections: Any) -> tuple:
    """Views of parts one behind the other: along the third dimension."""
    return _split_along(input, indices_or_sections, 2, 3, "dsplit")


# -- repeating ---------------------------------------------------------------------------------------------------------


def repeat_interleave(
    input: Any, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Any:
    """Each element (slice of dim) repeated in its place.

    Args:
        repeats: how often; one number, or one for each. Without it the input is the counts, and the result the indices.
        dim: along which; None for the flattened input.
        output_size: the length of the result, if known; checked.

    Example:
        >>> import paceline as torch
        >>> torch.repeat_interleave(torch.tensor([7, 8]), torch.tensor([1, 3]))
        tensor([7, 8, 8, 8])
    """
    if repeats is None:
        if input.array.ndim != 1 or input.array.dtype.kind not in "iu":
            raise RuntimeError("repeat_interleave only accepts 1D integer tensors as repeat")
        return box(_repeated(input, input.array.size, input, output_size))
    if dim is None:
        input, dim = shaping.reshape(input, (-1,)), 0
    input = atleast_1d(input)
    dim = one_dim(dim, input.array.ndim)
    return indexing.index_select_rows(input, box(_repeated(repeats, input.array.shape[dim], input, output_size)), dim)


def _repeated(repeats: Any, length: int, like: Any, output_size: int | None) -> Any:
    """The place of each element of the result in the input."""
    counts = numpy.atleast_1d(repeats.tolist() if isinstance(repeats, Variable) else repeats).astype(numpy.int64)
    if counts.ndim > 1 or counts.size not in (1, length):
        raise RuntimeError(
            f"repeats must have the same size as input along dim, but got repeats.size(0) = {counts.size} and "
            f"input.size(0) = {length}"
        )
    if (counts < 0).any():
        raise RuntimeError("repeats can not be negative")
    places = numpy.repeat(numpy.arange(length), counts)
    if output_size not in (None, len(places)):
        raise RuntimeError(
            f"allocated size does not match required size: output_size {output_size}, needed {len(places)}"
        )
    return module_of(like.array).asarray(places)
