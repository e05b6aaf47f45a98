"""Array modules: NumPy for host memory, CuPy for CUDA devices. The one place that imports CuPy outside kernel files."""

from __future__ import annotations

import functools
import importlib
import warnings
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, NoReturn, TypeAlias

import numpy

from .world import get_world

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray


class StandIn:
    """What a function transform puts in the place of a raw array: it answers none of the questions for values."""

    real_array: Array  # the one at the bottom, for its module and device

    def refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Values are read or written: raise what tells the transform so."""
        raise NotImplementedError

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse(*args, **kwargs)

    __array__ = __array_ufunc__ = __array_function__ = _refuse
    __bool__ = __int__ = __float__ = __index__ = __len__ = __iter__ = __getitem__ = __setitem__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __add__ = __radd__ = __sub__ = __rsub__ = _refuse
    __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __floordiv__ = __mod__ = __pow__ = __rpow__ = _refuse
    __matmul__ = __rmatmul__ = __neg__ = __pos__ = __abs__ = __invert__ = __and__ = __or__ = __xor__ = _refuse
    __hash__ = object.__hash__


@functools.cache
def cupy() -> ModuleType | None:
    """The CuPy module, or None where it is not installed or broken; `cupy_error` then says why."""
    try:
        return importlib.import_module("cupy")
    except ImportError:
        return None


@functools.cache
def nccl() -> ModuleType | None:
    """CuPy's binding to NCCL, or None where there is no CuPy or no NCCL."""
    if cupy() is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is none
        module = importlib.import_module("cupy.cuda.nccl")
    return module if module.available else None


def cupy_error() -> str:
    """Why no CUDA device can be used, and what to do about it."""
    if cupy() is None:
        return "CuPy is not installed; install it with: pip install 'paceline[cuda13]' (or [cuda12])"
    return "CuPy finds no CUDA device; check the driver with nvidia-smi, or run `paceline doctor`"


@functools.cache
def device_count() -> int:
    """Number of CUDA devices that CuPy can use; 0 without CuPy or a driver.

    Of several ranks on this machine, each makes another device the current one as it looks for them here.
    """
    module = cupy()
    if module is None or not module.cuda.is_available():
        return 0
    count, world = module.cuda.runtime.getDeviceCount(), get_world()
    if count > 1 and world.local_size > 1:
        module.cuda.Device(world.local_rank % count).use()
    return count


def module_of(array: Array) -> ModuleType:
    """The module (numpy or cupy) whose functions take this array."""
    if isinstance(array, numpy.ndarray | numpy.generic):
        return numpy
    module = cupy()
    if module is not None and isinstance(array, module.ndarray):
        return module
    if isinstance(array, StandIn):
        return module_of(array.real_array)
    raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}")


def special(xp: ModuleType) -> ModuleType:
    """The special functions for a module's arrays: scipy.special or cupyx.scipy.special, imported at first use."""
    return importlib.import_module("scipy.special" if xp is numpy else "cupyx.scipy.special")


def to_host(array: Array) -> numpy.ndarray:
    """The array in host memory; itself if it is there already."""
    return array if isinstance(array, numpy.ndarray) else array.get()


def shares_memory(view: Array, array: Array) -> bool:
    """Whether `view` was made as a view of `array`."""
    if not isinstance(array, numpy.ndarray):
        return view.data.mem is array.data.mem  # an array made from a pointer has no base
    base = view.base  # NumPy collapses chains of bases
    return base is not None and (base is array or base is array.base)


def broadcast_to(array: Array, shape: tuple[int, ...]) -> Array:
    """A read-only view repeated to a shape; numpy.broadcast_to() takes twice as long to do the same."""
    xp = module_of(array)
    if xp is not numpy:
        return xp.broadcast_to(array, shape)
    repeated = numpy.nditer(
        (array,), ("multi_index", "refs_ok", "zerosize_ok"), (("readonly",),), itershape=shape, order="C"
    )
    return repeated.itviews[0]


def address_of(array: Array) -> int:
    """The address of the first element."""
    return array.ctypes.data if isinstance(array, numpy.ndarray) else array.data.ptr


def memory_of(array: Array) -> Array:
    """The whole memory that an array is a view of, as a vector of elements of the array's dtype."""
    root = array
    while isinstance(root.base, type(array)):
        root = root.base
    span = 1 + sum((n - 1) * s for n, s in zip(root.shape, root.strides, strict=True)) // root.itemsize
    if root.size in (0, span):
        return root.ravel(order="K").view(array.dtype)  # without gaps, so this is a view
    return module_of(root).lib.stride_tricks.as_strided(root, (span,), (root.itemsize,)).view(array.dtype)


def strided_view(array: Array, shape: tuple, strides: tuple, offset: int) -> Array:
    """A view of the memory under an array, with strides and offset in elements."""
    memory = memory_of(array)
    steps = tuple(s * memory.itemsize for s in strides)
    if isinstance(array, numpy.ndarray):
        return numpy.ndarray(shape, memory.dtype, memory, offset * memory.itemsize, steps)
    start = memory.data + offset * memory.itemsize
    return cupy().ndarray(shape, memory.dtype, start, steps)  # type: ignore[union-attr]


@functools.cache
def scipy_linalg(xp: ModuleType) -> ModuleType:
    """What NumPy's linear algebra lacks: scipy.linalg or cupyx.scipy.linalg, imported at first use."""
    return importlib.import_module("scipy.linalg" if xp is numpy else "cupyx.scipy.linalg")


def linalg_errors(xp: ModuleType) -> AbstractContextManager:
    """A context in which linear algebra on this module's arrays raises where it fails; CuPy does not look by itself."""
    return nullcontext() if xp is numpy else importlib.import_module("cupyx").errstate(linalg="raise")


_COLUMNS = 8  # that are copied at a time, where neighbours are far apart in memory
_FAR = 512  # bytes
_TALL = 64  # rows, for which such a group of columns is worth a call


def is_turned(array: numpy.ndarray) -> bool:
    """Whether NumPy would go through the elements of an array, as of a large transposed matrix, at many times the cost
    of a copy: row by row all of them are fetched into the cache and lost again, where there is place for few that are a
    power of two apart."""
    width = array.shape[-1] if array.ndim > 1 else 0
    return width > _COLUMNS and array.strides[-1] >= _FAR and array.size >= _TALL * width


def row_major(array: numpy.ndarray) -> numpy.ndarray:
    """A copy of a NumPy array in row-major order."""
    if not is_turned(array):
        return numpy.array(array, order="C")
    out = numpy.empty(array.shape, array.dtype)
    for start in range(0, array.shape[-1], _COLUMNS):
        out[..., start : start + _COLUMNS] = array[..., start : start + _COLUMNS]
    return out
