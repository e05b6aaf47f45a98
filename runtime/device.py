"""Devices: `cpu` and `cuda:i`, and moving arrays between them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy

from . import arrays
from .arrays import Array


class device:
    """Where a tensor's memory is: `device("cpu")`, `device("cuda")`, `device("cuda:1")` or `device("cuda", 1)`.

    Args:
        type: "cpu" or "cuda", with an optional index after a colon; an int means that CUDA device.
        index: the device's number; None means the current one.

    Example:
        >>> import paceline as torch
        >>> torch.device("cuda", 1)
        device(type='cuda', index=1)
    """

    __slots__ = ("index", "type")

    def __init__(self, type: str | int | device, index: int | None = None) -> None:
        text = f"cuda:{type}" if isinstance(type, int) else str(type)
        match = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", text)
        if match is None:
            raise RuntimeError(f"device(): expected 'cpu', 'cuda' or 'cuda:N', got {type!r}")
        if match[2] is not None and index is not None:
            raise RuntimeError(f"device(): {type!r} already has an index, got index={index} as well")
        self.type: str = match[1]
        self.index: int | None = index if match[2] is None else int(match[2])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{index})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __reduce__(self) -> tuple:
        return device, (self.type, self.index)

    def __enter__(self) -> device:
        # torch's `with torch.device("cuda"):` makes it the default of creation functions
        _stack.set((*_stack.get(), _default.get()))
        _default.set(self)
        return self

    def __exit__(self, *exc: object) -> None:
        *rest, previous = _stack.get()
        _stack.set(tuple(rest))
        _default.set(previous)


CPU = device("cpu")
_default: ContextVar[device] = ContextVar("default device", default=CPU)
_stack: ContextVar[tuple[device, ...]] = ContextVar("enclosing default devices", default=())


def get_default_device() -> device:
    """The device on which creation functions make tensors unless told otherwise."""
    return _default.get()


def set_default_device(where: str | int | device | None) -> None:
    """Make `where` the device of new tensors; None means the CPU.

    Example:
        >>> import paceline as torch
        >>> torch.set_default_device("cpu")
    """
    _default.set(CPU if where is None else resolve(where))


def resolve(where: str | int | device | None) -> device:
    """The device meant by a user's argument, checked to be there: None is the default device."""
    if where is None:
        return _default.get()
    if not isinstance(where, device):
        where = device(where)
    if where.type == "cuda":
        count = arrays.device_count()
        if count == 0:
            raise RuntimeError(f"device {str(where)!r} was asked for, but {arrays.cupy_error()}")
        if where.index is not None and where.index >= count:
            raise RuntimeError(f"device {str(where)!r} was asked for, but there are only {count} CUDA devices")
    return where


def device_of(array: Array) -> device:
    """The device that holds an array."""
    if isinstance(array, arrays.StandIn):
        array = array.real_array
    return CPU if isinstance(array, numpy.ndarray) else device("cuda", array.device.id)


@contextlib.contextmanager
def using(where: device) -> Iterator[ModuleType]:
    """Run the body with the array module of a device, and with that device current."""
    if where.type == "cpu":
        yield numpy
        return
    module = arrays.cupy()
    assert module is not None, "resolve() has checked the device"
    with module.cuda.Device(where.index):
        yield module


def move(array: Array, where: device) -> Array:
    """The array on a device: itself if it is there already, otherwise a copy."""
    if isinstance(array, numpy.ndarray) and where.type == "cpu":
        return array
    if not isinstance(array, numpy.ndarray):
        if where.type == "cpu":
            return array.get()
        if where.index is None or where.index == array.device.id:
            return array
    with using(where) as xp:
        return xp.asarray(array)


def synchronize(where: Any = None) -> None:
    """Wait until all work queued on a CUDA device has ended; nothing to wait for on the CPU."""
    where = resolve(where)
    if where.type == "cuda":
        with using(where) as xp:
            xp.cuda.runtime.deviceSynchronize()
