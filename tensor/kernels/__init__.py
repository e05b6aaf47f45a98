"""Kernels compiled by Numba for the CPU: which calls take them, and how they are loaded.

The portable body of a primitive is always there and is the oracle. A call takes the compiled kernel if its input is
large, a decision by size alone: the same program then computes the same bits every time, a small model never waits for
a compiler, and without Numba everything still runs.

The modules beside this one hold the sources. They import Numba, which takes longer than a small model's first step, so
`sources.<module>` loads them at first use.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy

LEAST_SIZE = 1 << 14  # elements; for fewer NumPy is as quick, and a small model need not load Numba

_FLOATS = frozenset((numpy.dtype(numpy.float32), numpy.dtype(numpy.float64)))


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the search for garbage, which finds little while Numba is loaded or compiles, in a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Sources:
    """The modules of this package that import Numba, as attributes, loaded when they are first asked for."""

    def __getattr__(self, name: str) -> ModuleType:
        if name.startswith("_"):  # whoever looks into objects, such as doctest, asks for __wrapped__ and the like
            raise AttributeError(name)
        with uncollected():
            module = importlib.import_module(f".{name}", __name__)
        setattr(self, name, module)  # found without __getattr__ from now on
        return module


sources = _Sources()


def usable(alone: bool = False) -> bool:
    """Whether kernels can be called by this thread now; loads Numba, and says so if that fails.

    Args:
        alone: whether the next one shall use one thread only; where nobody says so, they all use all threads.
    """
    return _loaded() and sources.compiler.ready(alone)


@functools.cache
def _loaded() -> bool:
    try:
        sources.compiler  # noqa: B018  (loads it)
    except ImportError as error:
        warnings.warn(f"Numba does not load, so large tensors take several times longer: {error}", stacklevel=2)
        return False
    return True


# What one thread does while a second one wakes up, in elements * work. The bits of kernels do not depend on threads.
_ALONE = 1 << 17


def takes(array: Any, work: float = 1, size: int | None = None, light: bool = False, worth: float = 1) -> bool:
    """Whether a compiled kernel shall compute on an array: a large one of float32 or float64.

    Args:
        array: NumPy array.
        work: how many times more a kernel does for an element than a few additions.
        size: how many elements there are to compute, if not as many as in the array.
        light: whether `work` says all that there is to do, so that one thread may be enough.
        worth: how many times longer than the kernel all the calls of NumPy take that it spares.
    """
    amount = (array.size if size is None else size) * work
    return amount * worth >= LEAST_SIZE and array.dtype in _FLOATS and usable(light and amount < _ALONE)


def compiled(
    primitive: Any,
    work: float = 1,
    sized_by: int | Callable[..., int] = 0,
    light: bool = False,
    worth: float = 1,
    few: Callable | None = None,
) -> Callable[[Callable], Callable]:
    """Register the decorated function as the primitive's CPU kernel for large inputs.

    It is called as the body is, without `xp`, and returns what the body returns, or NotImplemented for what it does
    not take (other layouts, dimensions, attributes); the portable body computes then.

    Args:
        primitive: what to compute.
        work, light, worth: see `takes`.
        sized_by: the number of the argument whose size decides, such as an array of indices; or a function of the
            arguments that gives the size.
        few: computes small inputs instead of the body, with fewer calls of NumPy, or returns NotImplemented.
    """
    counted = callable(sized_by)

    def register(function: Callable) -> Callable:
        body = functools.partial(primitive.declaration.body, numpy)

        def choose(*args: Any, **named: Any) -> Any:
            # as `takes` has it; small inputs are spared the call
            amount = (sized_by(*args) if counted else args[sized_by].size) * work  # type: ignore[operator,index]
            if amount * worth >= LEAST_SIZE and args[0].dtype in _FLOATS and usable(light and amount < _ALONE):
                result = function(*args, **named)
                if result is not NotImplemented:
                    return result
            elif few is not None:
                result = few(*args, **named)
                if result is not NotImplemented:
                    return result
            return body(*args, **named)

        def replayed(raw: tuple, attributes: tuple) -> Callable | None:
            amount = (sized_by(*raw, *attributes) if counted else raw[sized_by].size) * work  # type: ignore[operator,index]
            return primitive.declaration.portable() if few is None and amount * worth < LEAST_SIZE else None

        choose.compiled = function  # type: ignore[attr-defined]  # for the tests, which compare it with the body
        primitive.kernel("cpu")(choose)
        primitive.declaration.replayed = replayed
        return function

    return register


def compiled_vjp(
    primitive: Any, work: float = 1, light: bool = False, worth: float = 1, by_gradient: bool = True
) -> Callable[[Callable], Callable]:
    """Register the decorated function as the primitive's fused backward on the CPU for large gradients.

    It is called `(xp, g, needs, ...)` and may name residuals, see `fused_vjp`; where it returns NotImplemented the
    written rules compute.

    Args:
        primitive, work, light, worth: see `compiled`.
        by_gradient: whether the gradient's size decides; otherwise, as of reductions, the function asks `takes` itself.
    """

    def register(function: Callable) -> Callable:
        primitive.fused_vjp("cpu", lambda g: not by_gradient or takes(g, work, None, light, worth))(function)
        return function

    return register
