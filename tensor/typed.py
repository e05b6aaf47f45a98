"""PyTorch's first constructors of tensors, each of one dtype, which older scripts call."""

from __future__ import annotations

from typing import Any

from ..runtime import dtypes
from .tensor import Tensor, constructed


class TypedTensor:
    """A constructor of tensors of one dtype, from data or uninitialized of the given sizes.

    `tensor(data, dtype=...)` and `empty(sizes, dtype=...)` say the same.

    Example:
        >>> import paceline as torch
        >>> torch.LongTensor([1, 2])
        tensor([1, 2])
        >>> isinstance(torch.ones(2), torch.LongTensor)
        False
    """

    def __init__(self, name: str, dtype: dtypes.dtype) -> None:
        self.__name__ = name
        self.__doc__ = f"A tensor of {dtype.name}, from data or uninitialized of the given sizes."
        self.dtype = dtype

    def __call__(self, *data: Any) -> Tensor:
        return Tensor._wrap(constructed(data, self.dtype, self.__name__))

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dtype is self.dtype

    def __repr__(self) -> str:
        return f"paceline.{self.__name__}"


BFloat16Tensor = TypedTensor("BFloat16Tensor", dtypes.bfloat16)
BoolTensor = TypedTensor("BoolTensor", dtypes.bool_)
ByteTensor = TypedTensor("ByteTensor", dtypes.uint8)
CharTensor = TypedTensor("CharTensor", dtypes.int8)
DoubleTensor = TypedTensor("DoubleTensor", dtypes.float64)
FloatTensor = TypedTensor("FloatTensor", dtypes.float32)
HalfTensor = TypedTensor("HalfTensor", dtypes.float16)
IntTensor = TypedTensor("IntTensor", dtypes.int32)
LongTensor = TypedTensor("LongTensor", dtypes.int64)
ShortTensor = TypedTensor("ShortTensor", dtypes.int16)
