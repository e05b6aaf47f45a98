"""Data types: names, defaults and PyTorch's promotion rules, decided here and nowhere else."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy

_CATEGORIES = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2, "c": 3}  # V: bfloat16, an extension type to NumPy


class dtype:
    """The type of a tensor's elements, e.g. `paceline.float32`; `.numpy` is NumPy's twin."""

    __slots__ = ("category", "name", "numpy")

    def __init__(self, name: str, numpy_dtype: Any) -> None:
        self.name = name
        self.numpy = numpy.dtype(numpy_dtype)
        self.category = _CATEGORIES[self.numpy.kind]  # 0 bool, 1 integer, 2 floating, 3 complex

    @property
    def is_floating_point(self) -> bool:
        return self.category == 2

    @property
    def is_complex(self) -> bool:
        return self.category == 3

    @property
    def is_signed(self) -> bool:
        return self.numpy.kind not in "bu"

    @property
    def itemsize(self) -> int:
        return self.numpy.itemsize

    def __repr__(self) -> str:
        return f"paceline.{self.name}"

    def __reduce__(self) -> tuple:
        return of, (self.name,)


bool_ = dtype("bool", numpy.bool_)
uint8 = dtype("uint8", numpy.uint8)
uint16 = dtype("uint16", numpy.uint16)
uint32 = dtype("uint32", numpy.uint32)
uint64 = dtype("uint64", numpy.uint64)
int8 = dtype("int8", numpy.int8)
int16 = dtype("int16", numpy.int16)
int32 = dtype("int32", numpy.int32)
int64 = dtype("int64", numpy.int64)
float16 = dtype("float16", numpy.float16)
bfloat16 = dtype("bfloat16", ml_dtypes.bfloat16)
float32 = dtype("float32", numpy.float32)
float64 = dtype("float64", numpy.float64)
complex64 = dtype("complex64", numpy.complex64)
complex128 = dtype("complex128", numpy.complex128)

ALL = (bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64,
       float16, bfloat16, float32, float64, complex64, complex128)  # fmt: skip
_by_numpy = {d.numpy: d for d in ALL}
_by_name = {d.name: d for d in ALL}
_default = float32


def of(source: Any) -> dtype:
    """The dtype meant by a dtype, a NumPy dtype, a name or a Python type."""
    if isinstance(source, dtype):
        return source
    found = _by_name.get(source) if isinstance(source, str) else _python.get(source)
    if found is None:
        try:
            found = _by_numpy.get(numpy.dtype(source))
        except TypeError:
            found = None
    if found is None:
        raise TypeError(f"expected a paceline dtype, got {source!r}; the dtypes are {', '.join(_by_name)}")
    return found


def get_default_dtype() -> dtype:
    """The dtype of tensors made from Python floats (float32 unless changed)."""
    return _default


def set_default_dtype(d: dtype) -> None:
    """Make `d`, a floating dtype, the dtype of tensors made from Python floats."""
    global _default
    if not of(d).is_floating_point:
        raise TypeError(f"set_default_dtype(): expected a floating dtype, got {d!r}")
    _default = of(d)


def of_scalar(value: bool | int | float | complex) -> dtype:
    """The dtype of a tensor made from one Python number."""
    if isinstance(value, bool):
        return bool_
    if isinstance(value, int):
        return int64
    if isinstance(value, float):
        return _default
    return complex128 if _default is float64 else complex64


_python = {bool: bool_, int: int64, float: float64, complex: complex128}


def promote_types(a: dtype, b: dtype) -> dtype:
    """The smallest dtype that holds both, by PyTorch's table (an integer with a float takes the float's type)."""
    if a is b:
        return a
    if a.category < b.category:
        a, b = b, a
    if b.category < 2 <= a.category:
        return a
    if a.category == b.category == 2 and a.itemsize == b.itemsize:
        return float32  # float16 with bfloat16
    if bfloat16 in (a, b):  # NumPy does not know it: it promotes like float16
        a, b = (float16 if d is bfloat16 else d for d in (a, b))
    return _by_numpy[numpy.promote_types(a.numpy, b.numpy)]


def result_type(full: list[dtype], zero_dim: list[dtype], scalars: list[Any]) -> dtype:
    """The common dtype of an operation's operands.

    Tensors with dimensions decide; zero-dimensional tensors, and after them Python numbers, count only where their
    category (bool < integer < floating < complex) is higher.
    """
    result: dtype | None = None
    for group in (full, zero_dim, [of_scalar(s) for s in scalars]):
        if not group:
            continue
        joint = group[0]
        for d in group[1:]:
            joint = promote_types(joint, d)
        if result is None:
            result = joint
        elif joint.category > result.category:
            result = _raise_category(result, joint)
    assert result is not None, "an operation has at least one operand"
    return result


def _raise_category(low: dtype, high: dtype) -> dtype:
    """The dtype when operands of a lower rank have the higher category: float32 with a complex number is complex64."""
    if high.is_complex and low.is_floating_point:
        return complex128 if low is float64 else complex64
    return high
