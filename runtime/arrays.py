"""Array modules: NumPy for host memory, CuPy for CUDA devices. The one place that imports CuPy outside kernel files."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any, TypeAlias

import numpy

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray


@functools.cache
def cupy() -> ModuleType | None:
    """The CuPy module, or None where it is not installed or broken; `cupy_error` then says why."""
    try:
        return importlib.import_module("cupy")
    except ImportError:
        return None


def cupy_error() -> str:
    """Why no CUDA device can be used, and what to do about it."""
    if cupy() is None:
        return "CuPy is not installed; install it with: pip install 'paceline[cuda13]' (or [cuda12])"
    return "CuPy finds no CUDA device; check the driver with nvidia-smi, or run `paceline doctor`"


@functools.cache
def device_count() -> int:
    """Number of CUDA devices that CuPy can use; 0 without CuPy or a driver."""
    module = cupy()
    if module is None or not module.cuda.is_available():
        return 0
    return module.cuda.runtime.getDeviceCount()


def module_of(array: Array) -> ModuleType:
    """The module (numpy or cupy) whose functions take this array."""
    if isinstance(array, numpy.ndarray | numpy.generic):
        return numpy
    module = cupy()
    if module is not None and isinstance(array, module.ndarray):
        return module
    raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}")


def to_host(array: Array) -> numpy.ndarray:
    """The array in host memory; itself if it is there already."""
    return array if isinstance(array, numpy.ndarray) else array.get()


def shares_memory(view: Array, array: Array) -> bool:
    """Whether `view` was made as a view of `array` (NumPy and CuPy both collapse chains of bases)."""
    base = view.base
    return base is not None and (base is array or base is array.base)
