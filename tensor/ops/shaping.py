"""Shape: views, joining, splitting, repeating."""

from __future__ import annotations

import itertools
import math
import operator
from typing import Any

import numpy

from ...autograd.primitive import primitive
from ...autograd.variable import Variable, box
from ...runtime import arrays
from ...runtime.arrays import Array, row_major
from . import reduction


def as_size(*size: Any) -> tuple[int, ...]:
    """The size meant by `f(2, 3)` or `f((2, 3))`."""
    if len(size) == 1 and isinstance(size[0], tuple | list):
        size = tuple(size[0])
    return tuple(_as_length(n) for n in size)


def _as_length(n: Any) -> int:
    try:
        return n if n.__class__ is int else operator.index(n)
    except TypeError:
        raise TypeError(f"size must be a tuple of ints, but found an element of type {type(n).__name__}") from None


def given(each: tuple, all_of_them: Any) -> tuple[int, ...]:
    """Sizes or dims given one by one, in a tuple, or by name."""
    return as_size(*each) if all_of_them is None else as_size(all_of_them)


def one_dim(dim: int, ndim: int) -> int:
    """One dimension as a non-negative number."""
    if 0 <= dim < ndim:
        return dim
    if not isinstance(dim, int):
        raise TypeError(f"dim must be an int, got {dim!r}")
    span = max(ndim, 1)
    if not -span <= dim < span:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-span}, {span - 1}], but got {dim})")
    return dim % span


@primitive(view=True)
def reshape(xp, input: Array, shape: tuple):
    """The same elements in another shape; one size may be -1."""
    return input.reshape(shape)


reshape.declaration.title = "ViewBackward0"  # PyTorch's name
reshape.vjp(input=lambda F, g, input_shape: F.reshape(g, input_shape))


@primitive(view=True)
def permute(xp, input: Array, dims: tuple):
    """The dimensions in another order."""
    return input.transpose(dims)


def _inverse(dims: tuple) -> tuple:
    order = [0] * len(dims)
    for i, d in enumerate(dims):
        order[d] = i
    return tuple(order)


permute.vjp(input=lambda F, g, dims: F.permute(g, _inverse(dims)))


@primitive(view=True)
def transpose(xp, input: Array, dim0: int, dim1: int):
    """Two dimensions exchanged."""
    if input.ndim == 0:
        return input[...]
    return input.swapaxes(one_dim(dim0, input.ndim), one_dim(dim1, input.ndim))


transpose.vjp(input=lambda F, g, dim0, dim1: F.transpose(g, dim0, dim1))


@primitive(view=True)
def expand(xp, input: Array, size: tuple):
    """A read-only view repeated along dimensions of size 1 and new leading ones; -1 keeps a size."""
    lead = len(size) - input.ndim
    if lead < 0 or -1 in size[:lead]:
        raise ValueError(f"the number of sizes ({len(size)}) must be at least the number of dimensions ({input.ndim})")
    if -1 in size:
        size = tuple(input.shape[i - lead] if n == -1 else n for i, n in enumerate(size))
    try:
        return arrays.broadcast_to(input, size)
    except ValueError:
        raise ValueError(f"sizes {list(input.shape)} cannot become {list(size)}: only size 1 can be repeated") from None


expand.vjp(input=lambda F, g, input_shape: F.sum_to_size(g, input_shape))


@primitive(view=True)
def unsqueeze(xp, input: Array, dim: int):
    """A new dimension of size 1 at position dim."""
    return xp.expand_dims(input, one_dim(dim, input.ndim + 1))


unsqueeze.vjp(input=lambda F, g, input_shape: F.reshape(g, input_shape))


@primitive(view=True)
def squeeze(xp, input: Array, dim: int | tuple | None = None):
    """Without the dimensions of size 1: all of them, or those named by dim."""
    dims = () if dim in ((), []) else reduction.as_dims(dim, input.ndim)
    return input.reshape(tuple(n for i, n in enumerate(input.shape) if n != 1 or i not in dims))


squeeze.vjp(input=lambda F, g, input_shape: F.reshape(g, input_shape))


@primitive(promote="numeric")
def cat(xp, tensors: list[Array], dim: int = 0):
    """Tensors joined along an existing dimension."""
    shapes = [t.shape for t in tensors]
    if (0,) in shapes:  # torch's legacy: shape [0] joins anything
        tensors = [t for t in tensors if t.shape != (0,)] or tensors[:1]
    if () in shapes:
        raise ValueError("zero-dimensional tensors cannot be concatenated; use stack()")
    return xp.concatenate(tensors, one_dim(dim, tensors[0].ndim))


def _cat_tensors(F: Any, g: Any, tensors_shape: list, dim: int) -> list:
    axis = one_dim(dim, len(g.shape))
    parts: list = []
    start = 0
    for shape in tensors_shape:
        if shape == (0,) and len(g.shape) != 1:
            parts.append(None)
            continue
        parts.append(F.narrow(g, axis, start, shape[axis]))
        start += shape[axis]
    return parts


cat.vjp(tensors=_cat_tensors)


@primitive(promote="numeric")
def stack(xp, tensors: list[Array], dim: int = 0):
    """Tensors of one shape joined along a new dimension."""
    dim = one_dim(dim, tensors[0].ndim + 1)
    new = (*(slice(None),) * dim, None)  # quicker than stack()
    try:
        return xp.concatenate([t[new] for t in tensors], dim)
    except ValueError:
        shapes = [list(t.shape) for t in tensors]
        i = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
        message = f"expected tensors of one shape, but got {shapes[0]} at position 0 and {shapes[i]} at {i}"
        raise ValueError(message) from None


stack.vjp(
    tensors=lambda F, g, tensors_shape, dim: [
        F.select(g, one_dim(dim, len(g.shape)), i) for i in range(len(tensors_shape))
    ]
)


@primitive(view=True)
def narrow(xp, input: Array, dim: int, start: int, length: int):
    """The part [start, start + length) of a dimension."""
    dim = one_dim(dim, input.ndim)
    n = input.shape[dim]
    start = start + n if start < 0 else start
    if not 0 <= start <= n or length < 0 or start + length > n:
        raise ValueError(f"start ({start}) + length ({length}) exceeds dimension size ({n})")
    return input[(slice(None),) * dim + (slice(start, start + length),)]


narrow.vjp(input=lambda F, g, input_shape, dim, start, length: F.embed_range(g, input_shape, dim, start))


@primitive
def embed_range(xp, input: Array, size: tuple, dim: int, start: int):
    """Zeros of a size with the input in them from `start` along dim; the counterpart of narrow."""
    out = xp.zeros(size, input.dtype)
    dim = one_dim(dim, len(size))
    start = start + size[dim] if start < 0 else start
    out[(slice(None),) * dim + (slice(start, start + input.shape[dim]),)] = input
    return out


embed_range.vjp(
    input=lambda F, g, input_shape, dim, start: F.narrow(g, dim, start, input_shape[one_dim(dim, len(input_shape))])
)


@primitive(view=True)
def select(xp, input: Array, dim: int, index: int):
    """One slice of a dimension, without that dimension."""
    dim = one_dim(dim, input.ndim)
    if not -input.shape[dim] <= index < input.shape[dim]:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {input.shape[dim]}")
    return input[(slice(None),) * dim + (index, ...)]  # the ellipsis makes a view also of a single element


select.vjp(
    input=lambda F, g, input_shape, dim, index: F.embed_range(
        F.unsqueeze(g, one_dim(dim, len(input_shape))), input_shape, dim, index
    )
)


@primitive
def roll(xp, input: Array, shifts: tuple, dims: tuple | None = None):
    """Elements moved along dims, those that fall off at the end come in at the start."""
    return xp.roll(input, shifts, dims)


roll.vjp(input=lambda F, g, shifts, dims: F.roll(g, tuple(-s for s in shifts), dims))


@primitive
def tile(xp, input: Array, dims: tuple):
    """The tensor repeated dims[i] times along dimension i."""
    return xp.tile(input, dims)


def _tile_input(F: Any, g: Any, input_shape: tuple, dims: tuple) -> Any:
    ndim = max(len(dims), len(input_shape))
    repeats = (1,) * (ndim - len(dims)) + tuple(dims)
    sizes = (1,) * (ndim - len(input_shape)) + tuple(input_shape)
    g = F.reshape(g, tuple(n for pair in zip(repeats, sizes, strict=True) for n in pair))
    return F.reshape(F.sum(g, tuple(range(0, 2 * ndim, 2))), input_shape) if ndim else g


tile.vjp(input=_tile_input)


@primitive
def pad_constant(xp, input: Array, pad: tuple, value: float = 0):
    """Constants around the tensor: pad holds (before, after) for each dimension; negative numbers crop."""
    source, place, size = [], [], []
    for (before, after), n in zip(pad, input.shape, strict=True):
        m = n + before + after
        size.append(m)
        source.append(slice(max(-before, 0), min(n, n + after)))
        place.append(slice(max(before, 0), min(m, m - after)))
    out = xp.full(size, value, input.dtype) if value else xp.zeros(size, input.dtype)  # many times quicker than pad()
    out[tuple(place)] = input[tuple(source)]
    return out


pad_constant.vjp(input=lambda F, g, pad: F.pad_constant(g, tuple((-a, -b) for a, b in pad)))


@primitive
def contiguous_copy(xp, input: Array):
    """A copy in row-major order."""
    return xp.array(input, order="C")


contiguous_copy.kernel("cpu")(row_major)
contiguous_copy.declaration.title = "CloneBackward0"  # PyTorch's name
contiguous_copy.vjp(input=lambda F, g: g)


@primitive(view=True)
def diagonal(xp, input: Array, offset: int = 0, dim1: int = 0, dim2: int = 1):
    """The diagonal of two dimensions, as the last dimension."""
    out = xp.diagonal(input, offset, dim1, dim2)
    if xp is numpy and input.flags.writeable:
        out.flags.writeable = True  # NumPy's diagonals are read-only for historical reasons
    return out


diagonal.vjp(
    input=lambda F, g, input_shape, offset, dim1, dim2: F.embed_diagonal(g, input_shape, offset, dim1, dim2)
)


@primitive
def embed_diagonal(xp, input: Array, size: tuple, offset: int, dim1: int, dim2: int):
    """Zeros of a size with the input on a diagonal; the counterpart of diagonal."""
    out = xp.zeros(size, input.dtype)
    rows, columns = size[dim1], size[dim2]
    n = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    i = xp.arange(n)
    xp.moveaxis(out, (dim1, dim2), (-2, -1))[..., i - min(offset, 0), i + max(offset, 0)] = input
    return out


embed_diagonal.vjp(input=lambda F, g, offset, dim1, dim2: F.diagonal(g, offset, dim1, dim2))


# -- the forms users call ----------------------------------------------------------------------------------------------


def view(input: Any, *shape: Any) -> Any:
    """The same memory in another shape, or (given a dtype) of another type; raises where a copy would be needed.

    Example:
        >>> import paceline as torch
        >>> torch.arange(6).view(2, -1).shape
        paceline.Size([2, 3])
    """
    size = _checked_size(input, as_size(*shape), "view")
    result = reshape(input, size)
    if result.counter is None or result.counter is not input.counter:
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        )
    return result


def _checked_size(input: Any, size: tuple[int, ...], name: str) -> tuple[int, ...]:
    count = input.array.size
    known = math.prod(n for n in size if n != -1)
    if size.count(-1) > 1:
        raise RuntimeError("only one dimension can be inferred")
    if (known != count) if -1 not in size else (known == 0 or count % known):
        raise RuntimeError(f"{name}(): shape '{list(size)}' is invalid for input of size {count}")
    return size


def reshape_sizes(input: Any, *each: Any, shape: Any = None) -> Any:
    """The same elements in another shape: a view where possible, otherwise a copy."""
    return reshape(input, _checked_size(input, given(each, shape), "reshape"))


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions start_dim to end_dim made one."""
    shape = input.array.shape
    if not shape:
        return reshape(input, (1,))
    start, end = one_dim(start_dim, len(shape)), one_dim(end_dim, len(shape))
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    return reshape(input, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


def unflatten(input: Any, dim: int, sizes: Any) -> Any:
    """One dimension split into several."""
    shape = input.array.shape
    dim = one_dim(dim, len(shape))
    return reshape_sizes(input, (*shape[:dim], *sizes, *shape[dim + 1 :]))


def permute_dims(input: Any, *each: Any, dims: Any = None) -> Any:
    """The dimensions in another order."""
    order = given(each, dims)
    normal = tuple(one_dim(d, len(order)) for d in order)
    if len(set(normal)) != len(normal) or len(normal) != input.array.ndim:
        raise RuntimeError(f"permute(): dims {list(order)} are not a permutation of {input.array.ndim} dimensions")
    return permute(input, normal)


def expand_sizes(input: Any, *each: Any, size: Any = None) -> Any:
    """A view repeated along dimensions of size 1; -1 keeps a size."""
    return expand(input, given(each, size))


def sum_to_sizes(input: Any, *size: Any) -> Any:
    """The sum over the dimensions along which a tensor of that size would be broadcast to the input's shape."""
    target = as_size(*size)
    shape = input.array.shape
    lead = len(shape) - len(target)
    if lead < 0 or any(n not in (1, m) for n, m in zip(target, shape[lead:], strict=True)):
        raise RuntimeError(f"size {{{list(target)}}} is not expandable to size {{{list(shape)}}}.")
    return input if target and target == shape else reduction.sum_to_size(input, target)


def expand_as(input: Any, other: Any) -> Any:
    """The tensor expanded to the shape of another one."""
    return expand(input, other.array.shape)


def repeat(input: Any, *sizes: Any) -> Any:
    """The tensor repeated along each dimension."""
    counts = as_size(*sizes)
    if len(counts) < input.array.ndim:
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    return tile(input, counts)


def tile_sizes(input: Any, *each: Any, dims: Any = None) -> Any:
    """The tensor repeated; missing leading counts are 1."""
    return tile(input, given(each, dims))


def t(input: Any) -> Any:
    """The transpose of a tensor with at most two dimensions."""
    if input.array.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.array.ndim}D")
    return transpose(input, 0, 1) if input.array.ndim == 2 else input


def reverse_dims(input: Any) -> Any:
    """All dimensions in reverse order (`Tensor.T`)."""
    return permute(input, tuple(reversed(range(input.array.ndim))))


def matrix_transpose(input: Any) -> Any:
    """The last two dimensions exchanged (`Tensor.mT`)."""
    if input.array.ndim < 2:
        raise RuntimeError("tensor.mT is only supported on matrices or batches of matrices")
    return transpose(input, -2, -1)


def movedim(input: Any, source: Any, destination: Any) -> Any:
    """Dimensions moved to other positions, the others kept in order."""
    ndim = input.array.ndim
    if (1 if isinstance(source, int) else len(source)) != (1 if isinstance(destination, int) else len(destination)):
        raise RuntimeError(f"movedim: Invalid source or destination dims: {source} should be as many as {destination}")
    sources, targets = reduction.as_dims(source, ndim), reduction.as_dims(destination, ndim)
    rest = iter(d for d in range(ndim) if d not in sources)
    place = dict(zip(targets, sources, strict=True))
    return permute(input, tuple(place[i] if i in place else next(rest) for i in range(ndim)))


def split(tensor: Any, split_size_or_sections: int | list[int] | tuple[int, ...], dim: int = 0) -> tuple:
    """Views of consecutive parts: of a size each (the last may be smaller), or of the listed sizes.

    Example:
        >>> import paceline as torch
        >>> [p.tolist() for p in torch.arange(5).split(2)]
        [[0, 1], [2, 3], [4]]
    """
    length = tensor.array.shape[one_dim(dim, tensor.array.ndim)]
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        if size <= 0:
            raise RuntimeError(f"split expects split_size be positive, but got split_size={size}")
        sections = [min(size, length - start) for start in range(0, max(length, 1), size)]
    else:
        sections = list(split_size_or_sections)
        if sum(sections) != length:
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {length} (input tensor's size at dimension "
                f"{dim}), but got split_sizes={sections}"
            )
    starts = itertools.accumulate(sections[:-1], initial=0)
    return tuple(narrow(tensor, dim, start, size) for start, size in zip(starts, sections, strict=True))


def chunk(input: Any, chunks: int, dim: int = 0) -> tuple:
    """At most `chunks` consecutive parts of equal size (the last may be smaller)."""
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    length = input.array.shape[one_dim(dim, input.array.ndim)]
    return split(input, -(-length // chunks) if length else [0] * chunks, dim)


def unbind(input: Any, dim: int = 0) -> tuple:
    """All slices of a dimension."""
    return tuple(select(input, dim, i) for i in range(input.array.shape[one_dim(dim, input.array.ndim)]))


def roll_dims(input: Any, shifts: Any, dims: Any = None) -> Any:
    """Elements moved by shifts along dims; along the flattened tensor if dims is None."""
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    if dims is None:
        return reshape(roll(reshape(input, (-1,)), shifts, (0,)), input.array.shape)
    axes = reduction.as_dims(dims, input.array.ndim)
    if len(axes) != len(shifts):
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(shifts)}, dims:{len(axes)}")
    return roll(input, shifts, axes)


def contiguous(input: Any, *, memory_format: Any = None) -> Any:
    """The tensor itself if it is row-major in memory, otherwise a copy that is."""
    return input if input.array.flags.c_contiguous else contiguous_copy(input)


def clone(input: Any, *, memory_format: Any = None) -> Any:
    """A differentiable copy."""
    return contiguous_copy(input)


def broadcast_tensors(*tensors: Any) -> tuple:
    """The tensors expanded to their common shape."""
    shape = numpy.broadcast_shapes(*(x.array.shape for x in tensors))
    return tuple(expand(x, shape) for x in tensors)


def broadcast_to(input: Any, *each: Any, size: Any = None) -> Any:
    """The tensor expanded to a shape."""
    return expand(input, given(each, size))


def ravel(input: Any) -> Any:
    """All dimensions made one."""
    return reshape(input, (-1,)) if input.array.size else reshape(input, (0,))


def unravel_index(indices: Any, shape: Any) -> tuple:
    """The coordinates, one tensor for each dimension, of indices into a flattened tensor of that shape."""
    size = as_size(shape)
    count = math.prod(size)
    array = indices.array
    if array.dtype.kind not in "iu":
        raise ValueError(f"expected 'indices' to be integer dtype, but got {array.dtype.name}")
    if array.size and not (-count <= int(array.min()) and int(array.max()) < count):
        raise ValueError(f"unravel_index(): an index is out of bounds for shape {list(size)}")
    found, rest = [], array % max(count, 1)
    for n in reversed(size):
        found.append(box((rest % n).astype(array.dtype)))
        rest = rest // n
    return tuple(reversed(found))


def slice_dim(input: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    """The slices start, start + step, ... below end of a dimension."""
    return input[(slice(None),) * one_dim(dim, input.array.ndim) + (slice(start, end, step),)]


@primitive(view=True)
def alias(xp, input: Array):
    """The same memory."""
    return input[...]


alias.vjp(input=lambda F, g: g)


def broadcast_shapes(*shapes: Any) -> tuple:
    """The shape that tensors of these shapes broadcast to."""
    try:
        return numpy.broadcast_shapes(*((s,) if isinstance(s, int) else tuple(s) for s in shapes))
    except ValueError:
        given = ", ".join(str(list(s) if not isinstance(s, int) else s) for s in shapes)
        raise RuntimeError(f"Shape mismatch: objects cannot be broadcast to a single shape: {given}") from None


def is_tensor(obj: object) -> bool:
    """Whether an object is a tensor."""
    return isinstance(obj, Variable)
