"""Questions about tensors and dtypes."""

from __future__ import annotations

from typing import Any

import ml_dtypes

from ..autograd.mode import refuse_if_recording
from ..autograd.variable import box
from ..runtime import dtypes
from ..runtime.arrays import module_of


def equal(input: Any, other: Any) -> bool:
    """Whether two tensors have the same shape and elements."""
    refuse_if_recording("it reads the values of a tensor")
    a, b = input.array, other.array
    return a.shape == b.shape and bool((a == b).all())


def isclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    """Whether |input - other| <= atol + rtol * |other|, elementwise."""
    refuse_if_recording("it reads the values of a tensor")
    xp = module_of(input.array)
    return box(xp.asarray(xp.isclose(input.array, other.array, rtol, atol, equal_nan)))


def allclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether |input - other| <= atol + rtol * |other| for all elements."""
    return bool(isclose(input, other, rtol, atol, equal_nan).array.all())


def numel(input: Any) -> int:
    """The number of elements."""
    return int(input.array.size)


def is_floating_point(input: Any) -> bool:
    """Whether the elements are real floating numbers."""
    return input.dtype.is_floating_point


def is_complex(input: Any) -> bool:
    """Whether the elements are complex."""
    return input.dtype.is_complex


def result_type(tensor1: Any, tensor2: Any) -> dtypes.dtype:
    """The dtype that an operation of the two (tensors or numbers) would give."""
    full: list[dtypes.dtype] = []
    zero_dim: list[dtypes.dtype] = []
    scalars: list[Any] = []
    for x in (tensor1, tensor2):
        if not hasattr(x, "array"):
            scalars.append(x)
        else:
            (full if x.array.ndim else zero_dim).append(x.dtype)
    return dtypes.result_type(full, zero_dim, scalars)


def can_cast(from_: dtypes.dtype, to: dtypes.dtype) -> bool:
    """Whether conversion keeps the category: never from complex to real, floating to integer, number to bool."""
    return from_.category <= to.category


class finfo:
    """The limits of a floating dtype: bits, eps, max, min, tiny, resolution."""

    def __init__(self, type: dtypes.dtype | None = None) -> None:
        dtype = dtypes.of(type) if type is not None else dtypes.get_default_dtype()
        if dtype.category < 2:
            raise TypeError(
                f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle '{dtype.name}'"
            )
        info: Any = ml_dtypes.finfo(dtype.numpy)
        self.dtype = dtype.name
        self.bits = info.bits
        self.eps, self.max, self.min = float(info.eps), float(info.max), float(info.min)
        self.tiny = self.smallest_normal = float(info.smallest_normal)
        self.resolution = 10.0**-info.precision


class iinfo:
    """The limits of an integer dtype: bits, max, min."""

    def __init__(self, type: dtypes.dtype) -> None:
        dtype = dtypes.of(type)
        if dtype.category != 1:
            raise TypeError(f"torch.iinfo() requires an integer input type, got '{dtype.name}'")
        info = ml_dtypes.iinfo(dtype.numpy)
        self.dtype = dtype.name
        self.bits, self.max, self.min = info.bits, int(info.max), int(info.min)
