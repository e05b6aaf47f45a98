"""Changing dtype and device."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ...autograd.mode import recording_now
from ...autograd.plan import FLOATING
from ...autograd.primitive import primitive
from ...autograd.variable import box
from ...runtime import device as devices
from ...runtime import dtypes
from ...runtime.arrays import Array


@primitive
def cast(xp, input: Array, dtype: dtypes.dtype, source: dtypes.dtype):
    """The elements as another dtype; `source` is the dtype they have."""
    if input.dtype.kind == "c" and dtype.numpy.kind != "c":
        input = input.real
    return input.astype(dtype.numpy)


cast.vjp(input=lambda F, g, dtype, source: F.cast(g, source, dtype))


def _cast_element(inputs: tuple, attributes: tuple) -> tuple | None:
    """To floating dtypes; what others make of NaN is the processor's affair."""
    (x,), (dtype, _) = inputs, attributes
    return ("cast", inputs, (), dtype.numpy) if {x.dtype, dtype.numpy} <= _EXACT and dtype.numpy in _REAL else None


_REAL = frozenset((dtypes.float32.numpy, dtypes.float64.numpy))
_EXACT = _REAL | {d.numpy for d in (dtypes.bool_, dtypes.int32, dtypes.int64)}
cast.declaration.element = _cast_element


@primitive
def move(xp, input: Array, device: devices.device, source: devices.device):
    """The same elements on another device; `source` is the device they are on."""
    return devices.move(input, device)


move.vjp(input=lambda F, g, device, source: F.move(g, source, device))


def to_dtype(input: Any, dtype: dtypes.dtype) -> Any:
    """The tensor itself if it has that dtype, otherwise a converted copy."""
    source = dtypes.of(input.array.dtype)
    if source is dtype:
        return input
    if dtype.numpy not in FLOATING:  # no gradient goes through integers
        if recording_now.get() is not None:
            return cast(input if input.node is None else input.detach(), dtype, source)
        return box(input.array.astype(dtype.numpy))
    return cast(input, dtype, source)


def to_device(input: Any, device: devices.device) -> Any:
    """The tensor itself if it is there, otherwise a copy on that device."""
    source = devices.device_of(input.array)
    if source == device or (device.index is None and source.type == device.type):
        return input
    return move(input, device, source)


def accepts_dtype(function: Callable) -> Callable:
    """The form of a reduction that users call: with PyTorch's argument `dtype`, in which it is computed."""

    @functools.wraps(function, assigned=("__name__", "__qualname__", "__doc__", "__module__"), updated=())
    def call(input: Any, *args: Any, dtype: dtypes.dtype | None = None, **kwargs: Any) -> Any:
        if dtype is None:
            return function(input, *args, **kwargs)
        return to_dtype(function(to_dtype(input, dtype), *args, **kwargs), dtype)  # integers are summed as int64

    parameters = inspect.signature(function).parameters.values()
    option = inspect.Parameter("dtype", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="dtypes.dtype | None")
    call.__signature__ = inspect.Signature([*parameters, option])  # type: ignore[attr-defined]
    return call
