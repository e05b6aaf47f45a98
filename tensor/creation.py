"""Making tensors: from data, filled, ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

from ..autograd.variable import LEAF, Variable, box
from ..runtime import device as devices
from ..runtime import dtypes
from ..runtime.arrays import Array, strided_view
from .layout import accepts_layout
from .ops.shaping import as_size


def finish(array: Array, requires_grad: bool = False) -> Any:
    """A tensor around a new array, a leaf if it requires a gradient."""
    result = box(array)
    if requires_grad:
        result.requires_grad_()
    return result


def _numpy_dtype(dtype: dtypes.dtype | None, default: dtypes.dtype | None = None) -> numpy.dtype:
    return (dtypes.of(dtype) if dtype is not None else default or dtypes.get_default_dtype()).numpy


def as_array(data: Any, dtype: dtypes.dtype | None, name: str = "tensor") -> Array:
    """Data of any kind as a new host (or, from a CuPy array, device) array with PyTorch's choice of dtype."""
    if isinstance(data, Variable):
        data = data.array
    if hasattr(data, "__cuda_array_interface__"):
        return data.astype(_numpy_dtype(dtype)) if dtype is not None else data.copy()
    if isinstance(data, list | tuple):
        data = _unwrapped(data)
    try:
        array = numpy.array(data, dtype=None if dtype is None else dtypes.of(dtype).numpy)
    except (ValueError, TypeError, OverflowError) as error:
        raise _explained(error, data, name) from None
    if dtype is None:
        array = _with_default_dtype(array, data, name)
    return array


def _unwrapped(data: Any) -> Any:
    """Nested lists with tensors in them as nested lists of arrays and numbers."""
    if isinstance(data, list | tuple):
        return [_unwrapped(x) for x in data]
    if isinstance(data, Variable):
        return data.item() if data.array.ndim == 0 else data.tolist()
    return data


def _with_default_dtype(array: numpy.ndarray, data: Any, name: str) -> numpy.ndarray:
    """Python floats give the default dtype; NumPy's arrays and numbers keep theirs."""
    if isinstance(data, numpy.ndarray | numpy.generic):
        if array.dtype.kind not in "OSUM" and array.dtype in {d.numpy for d in dtypes.ALL}:
            return array.astype(array.dtype.newbyteorder("=")) if not array.dtype.isnative else array
    elif array.dtype.kind == "f":
        return array if _holds_numpy(data) else array.astype(dtypes.get_default_dtype().numpy)
    elif array.dtype.kind == "c":
        return array.astype(dtypes.of_scalar(0j).numpy)
    elif array.dtype.kind in "bi":
        return array
    elif array.dtype.kind == "u":
        return array.astype(numpy.int64)
    raise _not_numbers(data, name)


def _not_numbers(data: Any, name: str) -> Exception:
    """What PyTorch raises for strings and other objects in the data."""
    if isinstance(data, str | bytes):
        return TypeError(f"{name}(): invalid data type '{type(data).__name__}'; expected numbers")
    leaves = numpy.asarray(data, dtype=object).reshape(-1)
    odd = next((x for x in leaves if not isinstance(x, int | float | complex)), None)
    if isinstance(odd, str | bytes):
        return ValueError(f"{name}(): expected numbers, found {odd!r} of type '{type(odd).__name__}' among them")
    return RuntimeError(f"{name}(): Could not infer dtype of {type(odd).__name__}; expected numbers")


def _holds_numpy(data: Any) -> bool:
    """Whether a nested list holds NumPy values, whose dtype is kept."""
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return isinstance(data, numpy.ndarray | numpy.generic)


def _explained(error: Exception, data: Any, name: str) -> Exception:
    shapes: list[int] = []
    while isinstance(data, list) and data:
        lengths = {len(x) if isinstance(x, list) else -1 for x in data}
        if len(lengths) > 1:
            return ValueError(
                f"{name}(): expected sequences of equal length at dim {len(shapes) + 1}, got lengths "
                f"{sorted(n for n in lengths if n >= 0)}" + (" and numbers" if -1 in lengths else "")
            )
        shapes.append(len(data))
        data = data[0]
    return TypeError(f"{name}(): can't convert {type(data).__name__} to a tensor: {error}")


def tensor(
    data: Any,
    *,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Any:
    """A new tensor with a copy of the data.

    Args:
        data: a number, nested lists, an array or a tensor.
        dtype: default: int64 for ints, bool for bools, the default dtype for floats, an array's own.
        device: default: the default device.
        requires_grad: record operations on it.

    Example:
        >>> import paceline as torch
        >>> torch.tensor([7, 9.0])
        tensor([7., 9.])
    """
    array = as_array(data, dtype)
    where = devices.device_of(array) if device is None and isinstance(data, Variable) else devices.resolve(device)
    return finish(devices.move(array, where), requires_grad)


def as_tensor(data: Any, dtype: dtypes.dtype | None = None, device: Any = None) -> Any:
    """The data as a tensor, sharing memory where that is possible."""
    if isinstance(data, Variable):
        return data.to(device=device, dtype=dtype)  # type: ignore[attr-defined]
    if isinstance(data, numpy.ndarray) and data.dtype in {d.numpy for d in dtypes.ALL}:
        shared = from_numpy(data)
        return shared if dtype is None and device is None else shared.to(device=device, dtype=dtype)
    return tensor(data, dtype=dtype, device=device)


def from_numpy(ndarray: numpy.ndarray) -> Any:
    """A tensor that shares the array's memory.

    Example:
        >>> import numpy, paceline as torch
        >>> torch.from_numpy(numpy.array([1, 2]))
        tensor([1, 2])
    """
    if not isinstance(ndarray, numpy.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    if ndarray.dtype not in {d.numpy for d in dtypes.ALL}:
        raise TypeError(f"can't convert np.ndarray of type {ndarray.dtype}; the supported types are {list(dtypes.ALL)}")
    return box(ndarray)


def from_dlpack(ext_tensor: Any) -> Any:
    """A tensor over the memory of another library's array, through the DLPack protocol."""
    if isinstance(ext_tensor, Variable):
        return box(ext_tensor.array)
    kind = ext_tensor.__dlpack_device__()[0]
    if kind in (1, 3):  # host, pinned host
        return box(numpy.from_dlpack(ext_tensor))
    with devices.using(devices.resolve("cuda")) as xp:
        return box(xp.from_dlpack(ext_tensor))


def asarray(
    obj: Any,
    *,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Any:
    """The object as a tensor: sharing its memory if copy is not True, never if it is."""
    result = tensor(obj, dtype=dtype, device=device) if copy else as_tensor(obj, dtype, device)
    return result.requires_grad_() if requires_grad else result


def frombuffer(
    buffer: Any, *, dtype: dtypes.dtype, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Any:
    """A vector over the memory of an object with a buffer: `count` elements (-1: all) from `offset` bytes on."""
    return finish(numpy.frombuffer(buffer, dtypes.of(dtype).numpy, count, offset), requires_grad)


def _filled(
    size: tuple, value: Any, dtype: dtypes.dtype | None, device: Any, requires_grad: bool, default: Any = None
) -> Any:
    if any(n < 0 for n in size):
        raise RuntimeError(f"Trying to create tensor with negative dimension: {list(size)}")
    with devices.using(devices.resolve(device)) as xp:
        array = xp.empty(size, _numpy_dtype(dtype, default))
        if value is not None:
            array.fill(value)
    return finish(array, requires_grad)


@accepts_layout
def zeros(*size: Any, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False) -> Any:
    """A tensor of zeros.

    Example:
        >>> import paceline as torch
        >>> torch.zeros(2, 2)
        tensor([[0., 0.],
                [0., 0.]])
    """
    return _filled(as_size(*size), 0, dtype, device, requires_grad)


@accepts_layout
def ones(*size: Any, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False) -> Any:
    """A tensor of ones."""
    return _filled(as_size(*size), 1, dtype, device, requires_grad)


@accepts_layout
def empty(*size: Any, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False) -> Any:
    """A tensor with whatever was in the memory."""
    return _filled(as_size(*size), None, dtype, device, requires_grad)


@accepts_layout
def full(
    size: Sequence[int],
    fill_value: Any,
    *,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """A tensor filled with one value, whose type gives the dtype."""
    if isinstance(fill_value, Variable):
        fill_value = fill_value.item()  # type: ignore[attr-defined]
    return _filled(as_size(size), fill_value, dtype, device, requires_grad, dtypes.of_scalar(fill_value))


def _like(input: Any, value: Any, dtype: Any, device: Any, requires_grad: bool) -> Any:
    where = input.device if device is None else device
    return _filled(input.array.shape, value, dtype, where, requires_grad, dtypes.of(input.array.dtype))


@accepts_layout
def zeros_like(
    input: Any, *, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """Zeros with the input's shape, dtype and device."""
    return _like(input, 0, dtype, device, requires_grad)


@accepts_layout
def ones_like(
    input: Any, *, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """Ones with the input's shape, dtype and device."""
    return _like(input, 1, dtype, device, requires_grad)


@accepts_layout
def empty_like(
    input: Any, *, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """Uninitialized memory with the input's shape, dtype and device."""
    return _like(input, None, dtype, device, requires_grad)


@accepts_layout
def full_like(
    input: Any,
    fill_value: Any,
    *,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """One value with the input's shape, dtype and device."""
    return _like(input, fill_value, dtype, device, requires_grad)


@accepts_layout
def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    *,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """The numbers start, start + step, ... below end; int64 if all three are ints.

    Example:
        >>> import paceline as torch
        >>> torch.arange(1, 4)
        tensor([1, 2, 3])
    """
    if end is None:
        start, end = 0, start
    start, end, step = (x.item() if isinstance(x, Variable) else x for x in (start, end, step))  # type: ignore[attr-defined]
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) / step < 0:
        raise RuntimeError(f"upper bound and lower bound inconsistent with step sign: [{start}, {end}) by {step}")
    if dtype is not None and dtype.category < 2:
        start, end, step = int(start), int(end), int(step)
    whole = all(isinstance(x, int) for x in (start, end, step))
    count = -((start - end) // step) if whole else math.ceil((end - start) / step)
    with devices.using(devices.resolve(device)) as xp:
        # from the numbers of the elements: running sums of the step would lose precision
        array = (xp.arange(count) * step + start).astype(_numpy_dtype(dtype, dtypes.int64 if whole else None))
    return finish(array, requires_grad)


@accepts_layout
def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """`steps` numbers evenly spaced from start to end, both included."""
    kind = _numpy_dtype(dtype, _range_dtype(start, end))
    with devices.using(devices.resolve(device)) as xp:
        array = _evenly(xp, start, end, steps, kind).astype(kind)
    return finish(array, requires_grad)


def _range_dtype(start: Any, end: Any) -> dtypes.dtype:
    return dtypes.of_scalar(0j) if any(isinstance(x, complex) for x in (start, end)) else dtypes.get_default_dtype()


def _evenly(xp: Any, start: Any, end: Any, steps: int, kind: numpy.dtype) -> Array:
    """Numbers in double precision, spaced as PyTorch does: the ends as the dtype has them, symmetrically from both."""
    if steps < 0:
        raise RuntimeError(f"number of steps must be non-negative, got {steps}")
    start, end = (kind.type(x.item() if isinstance(x, Variable) else x).item() for x in (start, end))
    i = xp.arange(steps)
    step = (end - start) / max(steps - 1, 1)
    return xp.where((i < steps // 2) | (steps == 1), start + step * i, end - step * (steps - 1 - i))


@accepts_layout
def logspace(
    start: float,
    end: float,
    steps: int,
    base: float = 10.0,
    *,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """`steps` numbers evenly spaced on a logarithmic scale from base**start to base**end."""
    kind = _numpy_dtype(dtype, _range_dtype(start, end))
    with devices.using(devices.resolve(device)) as xp:
        array = (base ** _evenly(xp, start, end, steps, kind)).astype(kind)
    return finish(array, requires_grad)


@accepts_layout
def empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    *,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Uninitialized memory with given strides, in elements."""
    size, stride = as_size(size), as_size(stride)
    if len(size) != len(stride):
        raise RuntimeError(f"empty_strided(): mismatch in length of strides and shape: {list(stride)} and {list(size)}")
    room = 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if 0 not in size else 0
    memory = _filled((room,), None, dtype, device, False)
    return finish(strided_view(memory.array, size, stride, 0), requires_grad)


@accepts_layout
def empty_permuted(
    size: Sequence[int],
    physical_layout: Sequence[int],
    *,
    dtype: dtypes.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Uninitialized memory without gaps, whose dimensions lie in memory in the given order."""
    size, order = as_size(size), as_size(physical_layout)
    if sorted(order) != list(range(len(size))):
        raise RuntimeError(f"empty_permuted(): physical_layout {list(order)} is no order of {len(size)} dimensions")
    memory = _filled(tuple(size[d] for d in order), None, dtype, device, False)
    places = [order.index(d) for d in range(len(order))]
    return finish(memory.array.transpose(places), requires_grad)


@accepts_layout
def scalar_tensor(s: Any, *, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False) -> Any:
    """A 0-d tensor of the default dtype with one value."""
    dtype = dtypes.of_scalar(s) if dtype is None and isinstance(s, complex) else dtype
    return _filled((), s.item() if isinstance(s, Variable) else s, dtype, device, requires_grad)


@accepts_layout
def eye(
    n: int, m: int | None = None, *, dtype: dtypes.dtype | None = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """Ones on the diagonal, zeros elsewhere."""
    with devices.using(devices.resolve(device)) as xp:
        array = xp.eye(n, m, dtype=_numpy_dtype(dtype))
    return finish(array, requires_grad)


@accepts_layout
def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Any:
    """Row and column numbers of the lower triangle, shape [2, count]."""
    pairs = numpy.stack(numpy.tril_indices(row, offset, col)).astype(_numpy_dtype(dtype, dtypes.int64))
    return box(devices.move(pairs, devices.resolve(device)))


@accepts_layout
def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Any:
    """Row and column numbers of the upper triangle, shape [2, count]."""
    pairs = numpy.stack(numpy.triu_indices(row, offset, col)).astype(_numpy_dtype(dtype, dtypes.int64))
    return box(devices.move(pairs, devices.resolve(device)))


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple:
    """Coordinate grids of vectors; "xy" exchanges the first two dimensions."""
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f'meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    vectors = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
    if indexing == "xy" and len(vectors) > 1:
        vectors = (vectors[1], vectors[0], *vectors[2:])
    shape = tuple(v.array.size for v in vectors)
    grids = [v.reshape((1,) * i + (-1,) + (1,) * (len(shape) - i - 1)).expand(shape) for i, v in enumerate(vectors)]
    if indexing == "xy" and len(grids) > 1:
        grids[:2] = grids[1::-1]
    return tuple(grids)


def leaf(array: Array) -> Any:
    """A tensor that requires a gradient, around an array."""
    result = box(array)
    result.node = LEAF
    return result
