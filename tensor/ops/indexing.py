"""Indexing: reading, writing, gathering and scattering."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.out import takes_out
from ...autograd.primitive import primitive
from ...autograd.recording import Traced
from ...autograd.variable import Variable, box
from ...runtime import dtypes
from ...runtime.arrays import Array, module_of
from ..kernels import compiled
from . import arithmetic as ar
from . import cast, placing
from .shaping import narrow, one_dim, reshape

# -- basic and advanced indexing ---------------------------------------------------------------------------------------


@primitive(view=True)
def slice_view(xp, input: Array, index: tuple):
    """input[index] with integers, slices, None and Ellipsis: a view."""
    return input[index]


slice_view.vjp(input=lambda F, g, input_shape, index: F.embed_slice(g, input_shape, index))


@primitive
def embed_slice(xp, input: Array, size: tuple, index: tuple):
    """Zeros of a size with the input at an index of slices."""
    out = xp.zeros(size, input.dtype)
    out[index] = input
    return out


embed_slice.vjp(input=lambda F, g, index: F.slice_view(g, index))


@primitive
def take_index(xp, input: Array, index: tuple):
    """input[index] with arrays of integers or booleans among the indices: a copy."""
    if xp is numpy and _is_mask(index, input.shape):  # NumPy goes through a mask's elements one by one
        mask = index[0]
        return input.reshape(mask.size, *input.shape[mask.ndim :]).take(numpy.flatnonzero(mask), 0)
    return input[index]


def _is_mask(index: tuple, size: tuple) -> bool:
    """Whether an index is an array of booleans alone, for the first dimensions of a size."""
    mask = index[0]
    if len(index) != 1 or getattr(mask, "dtype", None) != numpy.dtype(bool):
        return False
    return 0 < mask.ndim and mask.shape == size[: mask.ndim]


take_index.vjp(input=lambda F, g, input_shape, index: F.add_at(g, input_shape, index))


@primitive
def add_at(xp, input: Array, size: tuple, index: tuple):
    """Zeros of a size with the input added at an index; what is hit twice is added twice."""
    out = xp.zeros(size, input.dtype)
    if xp is numpy and _is_mask(index, size):  # which hits nothing twice
        mask = index[0]
        out.reshape(mask.size, *size[mask.ndim :])[numpy.flatnonzero(mask)] = input
        return out
    if len(index) == 1 and index[0].dtype.kind != "b":
        return placing.add_rows(xp, out, index[0], input)
    xp.add.at(out, index, input)
    return out


@compiled(add_at, work=2, light=True, worth=8)
def _add_at(input: Array, size: tuple, index: tuple) -> Any:
    if len(index) != 1 or index[0].dtype.kind == "b" or not index[0].size:
        return NotImplemented
    places = (placing.wide(index[0]) % size[0]).reshape(-1)
    return placing.sum_slices(input.reshape(-1, *size[1:]), places, size, 0)


add_at.vjp(input=lambda F, g, index: F.take_index(g, index))


def as_index(index: Any, input: Any) -> tuple[tuple, bool]:
    """A user's index as raw arrays, checked against the shape, and whether it is basic (gives a view)."""
    parts = index if isinstance(index, tuple) else (index,)
    xp = module_of(input.array)
    raw, basic = [], True
    for part in parts:
        if isinstance(part, Variable):
            part = part.array
            if part.ndim == 0 and part.dtype.kind in "iu":
                part = int(part)
        elif isinstance(part, list | range | tuple):
            part = xp.asarray(part) if len(part) else xp.zeros(0, xp.int64)
        elif isinstance(part, numpy.integer):
            part = int(part)
        elif isinstance(part, bool | numpy.bool_):
            part = xp.asarray(bool(part))
        if hasattr(part, "dtype"):
            basic = False
            part = xp.asarray(part)
            if part.dtype == numpy.uint8:
                part = part.astype(bool)  # PyTorch's masks were bytes before there were bools
            if part.dtype.kind not in "iub":
                raise IndexError(
                    f"tensors used as indices must be long, int, byte or bool tensors, got {part.dtype.name}"
                )
        elif not (part is None or part is Ellipsis or isinstance(part, int | slice)):
            kind = TypeError if isinstance(part, str) else IndexError
            raise kind(
                "only integers, slices (`:`), ellipsis (`...`), None and long or bool tensors are valid indices, "
                f"got {type(part).__name__}"
            )
        raw.append(part)
    return _checked(raw, input.array.shape, xp), basic


def _checked(raw: list, shape: tuple, xp: Any) -> tuple:
    """Refuse what is out of range, naming the dimension; CuPy would wrap around silently."""
    consumed = sum(_consumes(part) for part in raw)
    if consumed > len(shape):
        raise IndexError(f"too many indices for tensor of dimension {len(shape)}: got {consumed}")
    dim = 0
    for part in raw:
        if part is Ellipsis:
            dim += len(shape) - consumed
            continue
        if isinstance(part, int):
            if not -shape[dim] <= part < shape[dim]:
                raise IndexError(f"index {part} is out of bounds for dimension {dim} with size {shape[dim]}")
        elif isinstance(part, slice):
            if part.step is not None and part.step <= 0:
                raise ValueError(f"step must be greater than zero, got {part.step} for dimension {dim}")
        elif part is not None and part.dtype.kind == "b":
            if part.shape != shape[dim : dim + part.ndim]:
                raise IndexError(
                    f"The shape of the mask {list(part.shape)} at index {dim} does not match the shape of the indexed "
                    f"tensor {list(shape)}"
                )
        elif part is not None:
            check_range(part, shape[dim], f"dimension {dim}", IndexError)
        dim += _consumes(part)
    return tuple(raw)


def _consumes(part: Any) -> int:
    """How many dimensions of the tensor one part of an index stands for."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if hasattr(part, "dtype") and part.dtype.kind == "b" else 1


_UNSIGNED = {n: numpy.dtype(f"u{n}") for n in (1, 2, 4, 8)}


def all_within(index: Array, size: int) -> bool:
    """Whether all indices are in [0, size), in one pass: read as unsigned numbers, negative ones are the largest."""
    if index.__class__ is Traced:
        return index.promise(all_within, size)
    if 0 in index.strides:  # what expand() repeats is looked at once
        index = index[(..., *(slice(None) if stride else slice(1) for stride in index.strides))]
    if not index.size:
        return True
    numbers = index.view(_UNSIGNED[index.itemsize])
    if numbers.__class__ is numpy.ndarray:  # argmax() of few takes a fifth of the time of max()
        return numbers.item(numbers.argmax()) < size
    return int(numbers.max()) < size


def check_range(index: Array, size: int, where: str, kind: type[Exception] = RuntimeError) -> None:
    """Refuse index arrays with elements outside [-size, size)."""
    if index.size and (index.__class__ is Traced or not all_within(index, size)):
        low, high = int(index.min()), int(index.max())
        if low < -size or high >= size:
            bad = low if low < -size else high
            raise kind(f"index {bad} is out of bounds for {where} with size {size}")


def split_index(input: Any, index: Any) -> tuple[Any, tuple | None]:
    """An index in two steps: the view that integers, slices and None make, and what index arrays then pick from it.

    PyTorch's order; NumPy would count integers among the index arrays, and move their dimensions to the front.
    """
    raw, basic = as_index(index, input)
    if basic:
        # an ellipsis at the end makes NumPy return a view also of a single element
        return slice_view(input, _with_ellipsis(raw)), None
    view: list = []
    for part in raw:
        view += [slice(None)] * _consumes(part) if hasattr(part, "dtype") else [part]
    arrays = tuple(p if hasattr(p, "dtype") or p is Ellipsis else slice(None) for p in raw if not isinstance(p, int))
    if all(part is Ellipsis or part == slice(None) for part in view):
        return input, arrays
    return slice_view(input, _with_ellipsis(tuple(view))), arrays


def _with_ellipsis(index: tuple) -> tuple:
    return index if any(part is Ellipsis for part in index) else (*index, Ellipsis)


def getitem(input: Any, index: Any) -> Any:
    """input[index]: a view for integers and slices, a copy for index tensors and masks."""
    if isinstance(index, Variable):  # the usual cases, by fewer steps
        places, array = index.array, input.array
        on_host = places.__class__ is array.__class__ is numpy.ndarray
        if on_host and places.dtype.kind == "i" and places.ndim and array.ndim:
            check_range(places, array.shape[0], "dimension 0", IndexError)
            return take_index(input, (places,))
    elif input.array.__class__ is numpy.ndarray:
        parts = index if type(index) is tuple else (index,)
        if all(map(_is_plain, parts)):
            try:
                return slice_view(input, parts if Ellipsis in parts else (*parts, Ellipsis))
            except IndexError:
                pass  # split_index() says in PyTorch's words what is wrong
    part, arrays = split_index(input, index)
    return part if arrays is None else take_index(part, arrays)


_POINTS = frozenset((int, type(None), type(Ellipsis)))


def _is_plain(part: Any) -> bool:
    """Whether NumPy takes a part of an index as PyTorch does."""
    kind = type(part)
    return kind in _POINTS or (kind is slice and part.step is None)


@primitive
def index_put(xp, input: Array, values: Array, index: tuple, accumulate: bool = False):
    """A copy of the input with values written (or added) at an index of arrays."""
    out = input.copy()
    if accumulate:
        xp.add.at(out, index, values)
    else:
        out[index] = values
    return out


def _index_put_input(F: Any, g: Any, index: tuple, accumulate: bool) -> Any:
    return g if accumulate else F.index_put(g, F.zeros_like(F.take_index(g, index)), index)


index_put.vjp(
    input=_index_put_input,
    values=lambda F, g, values_shape, index: F.sum_to_size(F.take_index(g, index), values_shape),
)


def write_at(input: Any, value: Any, index: tuple, accumulate: bool = False) -> Any:
    """A copy of the input with a value (a tensor that broadcasts, or a number) at an index of arrays."""
    if isinstance(value, Variable):
        value = without_leading_ones(cast.to_dtype(value, dtypes.of(input.array.dtype)))
    return index_put(input, value, index, accumulate)


def index_put_at(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """A copy of the input with values written (or added) at a tuple of index tensors."""
    return write_at(input, values, as_index(tuple(indices), input)[0], accumulate)


def without_leading_ones(value: Any) -> Any:
    """The tensor without leading dimensions of size 1, which an assignment may have too many of."""
    shape = value.array.shape
    lead = next((i for i, n in enumerate(shape) if n != 1), len(shape))
    return reshape(value, shape[lead:]) if lead else value


# -- along one dimension -----------------------------------------------------------------------------------------------


def along(xp: Any, index: Array, dim: int) -> tuple:
    """The index tuple that walks `index` along dim and itself along the other dimensions."""
    grids = []
    for i, n in enumerate(index.shape):
        grids.append(index if i == dim else xp.arange(n).reshape((1,) * i + (n,) + (1,) * (index.ndim - i - 1)))
    return tuple(grids)


@primitive
def gather_along(xp, input: Array, index: Array, dim: int):
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on."""
    if input.flags.c_contiguous and index.ndim:
        return input.reshape(-1).take(placing.flat_places(xp, index, input.shape, dim))
    return input[along(xp, index, dim)] if index.ndim else input[index]


@compiled(gather_along, placing.WORK, sized_by=1, light=True)
def _gather_along(input: Array, index: Array, dim: int) -> Any:
    return placing.gather(input, index, dim)


gather_along.vjp(input=lambda F, g, input_shape, index, dim: F.scatter_zeros(g, index, input_shape, dim))


@primitive
def scatter_zeros(xp, input: Array, index: Array, size: tuple, dim: int):
    """Zeros of a size with the input added at the places that gather_along reads."""
    values = input if input.shape == index.shape else input[tuple(map(slice, index.shape))]
    return placing.add_along(xp, xp.zeros(size, input.dtype), index, values, dim)


@compiled(scatter_zeros, placing.WORK, light=True)
def _scatter_zeros(input: Array, index: Array, size: tuple, dim: int) -> Any:
    return placing.scatter(numpy.zeros(size, input.dtype), input, index, dim, True)


scatter_zeros.vjp(input=lambda F, g, index, dim: F.gather_along(g, index, dim))


@primitive
def index_select_rows(xp, input: Array, index: Array, dim: int):
    """The slices of a dimension that a vector of indices names."""
    return input.take(index, dim)  # xp.take() looks first for other classes of arrays


@compiled(index_select_rows, placing.WORK, light=True)
def _index_select_rows(input: Array, index: Array, dim: int) -> Any:
    return placing.take_slices(input, index, dim)


index_select_rows.vjp(
    input=lambda F, g, input_shape, index, dim: F.index_add_zeros(g, index, input_shape, dim)
)


@primitive
def index_add_zeros(xp, input: Array, index: Array, size: tuple, dim: int):
    """Zeros of a size with the input's slices added where a vector of indices says."""
    out = xp.zeros(size, input.dtype)
    if dim == 0:
        return placing.add_rows(xp, out, index, input)
    xp.add.at(out, (slice(None),) * dim + (index,), input)
    return out


@compiled(index_add_zeros, work=2, light=True, worth=8)
def _index_add_zeros(input: Array, index: Array, size: tuple, dim: int) -> Any:
    return placing.sum_slices(input, index, size, dim)


index_add_zeros.vjp(input=lambda F, g, index, dim: F.index_select_rows(g, index, dim))


# -- the forms users call ----------------------------------------------------------------------------------------------


def check_index(
    index: Any, size: int, function: str, dim: int, kind: type[Exception] = RuntimeError, sized: bool = True
) -> None:
    """Refuse what is no tensor of integers in [0, size)."""
    if not isinstance(index, Variable):
        raise TypeError(f"{function}(): argument 'index' must be a tensor, got {type(index).__name__}")
    if index.array.dtype.kind not in "iu":
        raise RuntimeError(f"{function}(): Expected dtype int64 for index, got {index.array.dtype.name}")
    if sized and not all_within(index.array, size):
        check_range(index.array, size, f"dimension {dim}", kind)
        raise kind(f"{function}(): index {int(index.array.min())} is out of bounds for dimension {dim}")


@takes_out
def gather(input: Any, dim: int, index: Any) -> Any:
    """Elements along dim at the given indices: out[i][j] = input[i][index[i][j]] for dim 1.

    Args:
        dim: the dimension to index.
        index: integers, of the output's shape; no larger than the input in the other dimensions.

    Example:
        >>> import paceline as torch
        >>> torch.gather(torch.tensor([[1, 2], [3, 4]]), 1, torch.tensor([[0, 0], [1, 0]]))
        tensor([[1, 1],
                [4, 3]])
    """
    dim = one_dim(dim, input.array.ndim)
    looked_at = isinstance(index, Variable) and placing.is_looked_at(input.array, index.array, dim)
    check_index(index, (input.array.shape or (1,))[dim], "gather", dim, sized=not looked_at)
    shape = index.array.shape
    if not index.array.size:  # of any shape
        return reshape(narrow(reshape(input, (-1,)), 0, 0, 0), shape)
    if not (shape and input.array.ndim):
        input, index = (reshape(x, (1,)) if x.array.ndim == 0 else x for x in (input, index))
    check_fits(index.array.shape, input.array.shape, dim, "gather", "input")
    out = gather_along(input, index, dim)
    return out if shape else reshape(out, shape)


def check_fits(index: tuple, other: tuple, dim: int, function: str, name: str) -> None:
    fits = len(index) == len(other)
    for d in range(len(index) if fits else 0):
        fits = fits and (index[d] <= other[d] or d == dim)
    if not fits:
        raise RuntimeError(
            f"{function}(): Size does not match at dimension {dim}: expected index {list(index)} to be no larger than "
            f"{name} {list(other)} apart from dimension {dim}"
        )


@takes_out
def index_select(input: Any, dim: int, index: Any) -> Any:
    """The slices of a dimension that a vector of indices names."""
    dim = one_dim(dim, input.array.ndim)
    if isinstance(index, Variable) and index.array.ndim > 1:
        raise IndexError(f"index_select(): Index is supposed to be a vector, got {index.array.ndim} dimensions")
    check_index(index, (input.array.shape or (1,))[dim], "index_select", dim, IndexError)
    if input.array.ndim and index.array.ndim:
        return index_select_rows(input, index, dim)
    if not input.array.ndim and index.array.size != 1:
        raise IndexError(f"index_select(): Index to scalar can have only 1 value, got {index.array.size} value(s)")
    shape = input.array.shape and (*input.array.shape[:dim], 1, *input.array.shape[dim + 1 :])
    rows = input if input.array.ndim else reshape(input, (1,))
    return reshape(index_select_rows(rows, reshape(index, (1,)), dim), shape)


@takes_out
def take(input: Any, index: Any) -> Any:
    """The elements at indices into the flattened input, in the index's shape."""
    check_index(index, 0, "take", 0, sized=False)
    check_range(index.array, input.array.size, "the flattened tensor", IndexError)
    return take_index(reshape(input, (-1,)), (index.array,))


@takes_out
def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Any:
    """Elements along dim at the given indices, which broadcast against the input in the other dimensions.

    Args:
        indices: int64, as `argmax` and `argsort` give.
        dim: the dimension to index; None for the flattened input.

    Example:
        >>> import paceline as torch
        >>> x = torch.tensor([[10, 30], [60, 40]])
        >>> torch.take_along_dim(x, x.argmax(1, keepdim=True), 1)
        tensor([[30],
                [60]])
    """
    if indices.array.dtype != numpy.int64:
        raise RuntimeError(f"torch.take_along_dim(): dtype of indices should be Long but got {indices.dtype!r}")
    if dim is None:
        input, indices, dim = reshape(input, (-1,)), reshape(indices, (-1,)), 0
    if input.array.ndim != indices.array.ndim:
        raise RuntimeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
            f"{input.array.ndim} dimensions for input, and {indices.array.ndim} dimensions for indices"
        )
    dim = one_dim(dim, input.array.ndim)
    a, b = input.array.shape, indices.array.shape
    joint = numpy.broadcast_shapes((*a[:dim], 1, *a[dim + 1 :]), (*b[:dim], 1, *b[dim + 1 :]))
    shapes = [(*joint[:dim], *shape[dim : dim + 1], *joint[dim + 1 :]) for shape in (a, b)]
    size = a[dim] if a else 1
    if not all_within(indices.array, size):
        check_range(indices.array, size, f"dimension {dim}", IndexError)
        indices = box(module_of(indices.array).where(indices.array < 0, indices.array + size, indices.array))
    return gather(_expanded(input, shapes[0]), dim, _expanded(indices, shapes[1]))


@takes_out
def masked_select(input: Any, mask: Any) -> Any:
    """The elements where a boolean mask holds, as a vector."""
    if mask.array.dtype.kind != "b":
        raise RuntimeError(f"masked_select: expected BoolTensor for mask, got {mask.array.dtype.name}")
    shape = numpy.broadcast_shapes(input.array.shape, mask.array.shape)
    xp = module_of(input.array)
    return take_index(_expanded(input, shape), (xp.broadcast_to(mask.array, shape),))


def _expanded(input: Any, shape: tuple) -> Any:
    return input if input.array.shape == shape else input.expand(shape)


def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """A copy of the input with a value where a boolean mask holds."""
    if mask.array.dtype.kind != "b":
        raise RuntimeError(f"masked_fill only supports boolean masks, but got mask with dtype {mask.array.dtype.name}")
    if isinstance(value, Variable):
        if value.array.ndim:
            raise RuntimeError(f"masked_fill only supports a 0-dimensional value tensor, got {value.ndim} dimensions")
        return ar.where(mask, cast.to_dtype(value, dtypes.of(input.array.dtype)), input)
    return fill_where(input, mask, value)


@primitive
def fill_where(xp, input: Array, mask: Array, value: float):
    """The input with a number where a mask holds."""
    out = xp.where(mask, xp.asarray(value, input.dtype), input)
    return out if out.dtype == input.dtype else out.astype(input.dtype)  # CuPy makes bfloat16 float32


@compiled(fill_where, light=True)
def _fill_where(input: Array, mask: Array, value: float) -> Any:
    return ar.large_where(mask, value, input)


fill_where.vjp(input=lambda F, g, mask: F.fill_where(g, mask, 0.0))
fill_where.declaration.element = lambda inputs, value: ("number_or_where", inputs[::-1], value)


@takes_out
def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """The indices of nonzero elements: one row each, or a tuple of one vector per dimension."""
    xp = module_of(input.array)
    found = _places(numpy.atleast_1d(input.array)) if xp is numpy else xp.nonzero(xp.atleast_1d(input.array))
    if as_tuple:
        return tuple(box(f.astype(xp.int64)) for f in found)
    rows = xp.stack(found[: input.array.ndim], 1) if input.array.ndim else xp.zeros((len(found[0]), 0))
    return box(rows.astype(xp.int64))


def _places(array: numpy.ndarray) -> tuple:
    """numpy.nonzero(array), in a fraction of its time where there are several dims."""
    rest, found = numpy.flatnonzero(array), []
    for n in reversed(array.shape[1:]):
        before = rest // n
        found.append(rest - before * n)
        rest = before
    return (rest, *reversed(found))


def where(condition: Any, input: Any = None, other: Any = None, *, out: Any = None) -> Any:
    """input where the condition holds, other elsewhere; of a condition alone, `nonzero(condition, as_tuple=True)`.

    Example:
        >>> import paceline as torch
        >>> torch.where(torch.tensor([True, False]), 1.0, 0.0)
        tensor([1., 0.])
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return ar.where(condition, input, other, out=out)


def argwhere(input: Any) -> Any:
    """The indices of nonzero elements, one row each."""
    return nonzero(input)


def one_hot(tensor: Any, num_classes: int = -1) -> Any:
    """A 1 at each class index, 0 elsewhere, along a new last dimension.

    Args:
        tensor: integers.
        num_classes: length of the new dimension; -1 means the largest index + 1.
    """
    indices = tensor.array
    if indices.dtype.kind not in "iu":
        raise RuntimeError(f"one_hot is only applicable to index tensor, got {indices.dtype.name}")
    if indices.size and int(indices.min()) < 0:
        raise RuntimeError("Class values must be non-negative.")
    largest = int(indices.max()) if indices.size or num_classes == -1 else -1
    count = num_classes if num_classes != -1 else largest + 1
    if largest >= count:
        raise RuntimeError(f"Class values must be smaller than num_classes ({count}), got {largest}.")
    xp = module_of(indices)
    out = xp.zeros((indices.size, count), xp.int64)
    out[xp.arange(indices.size), indices.reshape(-1)] = 1
    return box(out.reshape(*indices.shape, count))
