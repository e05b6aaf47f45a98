"""How the sources of this package are compiled."""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
import warnings
from types import FunctionType
from typing import Any

import numba
import numpy
from numba import prange, types
from numba.np import linalg

from ...runtime.threads import get_num_threads
from .cache import Cache
from .pipeline import Kernel, ThreadedKernel

__all__ = ["as_record", "jit", "prange", "serial"]

# What may be assumed of floating numbers. Never "nnan" and "ninf": training code must see NaN and infinities.
_FREEDOM = {"contract", "reassoc", "nsz", "arcp"}


def _leave_scipy_alone() -> None:
    """Load Numba's array functions without SciPy's BLAS, which it imports only to see whether it is there: no kernel
    uses it, and that takes as long as reading three of them."""

    def look() -> None:
        if importlib.util.find_spec("scipy") is None:
            raise ImportError("SciPy is not installed")

    ensure_blas, linalg.ensure_blas = linalg.ensure_blas, look
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = ensure_blas


def _threads_may_share() -> bool:
    """Choose the threading layer; False if the only one there is ends the process when two threads compute at once."""
    if numba.config.THREADING_LAYER not in ("omp", "tbb"):
        try:
            importlib.import_module("numba.np.ufunc.omppool")
        except ImportError:
            warnings.warn(
                "compiled kernels use one thread: Numba finds no OpenMP; install libgomp (Debian: apt install "
                "libgomp1)",
                stacklevel=2,
            )
            return False
        numba.config.THREADING_LAYER = "omp"
    numba.get_num_threads()  # loads it, and with it what kernels call to run on threads
    return True


def _njit(target: Any = None, **options: Any) -> Any:
    """numba.njit with a cache of our own: a decorator with a function, a signature or neither, and options."""
    if not isinstance(target, FunctionType):
        return lambda function: _dispatcher(function, target, options)
    return _dispatcher(target, None, options)


def _dispatcher(function: FunctionType, signature: Any, options: dict[str, Any]) -> Any:
    dispatcher = numba.njit(**options)(function)
    dispatcher._cache = Cache(function, options)
    _forget_literals(dispatcher._compiler)
    if signature is not None:
        dispatcher.compile(signature)
        dispatcher.disable_compile()  # of other types: arguments are converted to these
    return dispatcher


def _forget_literals(compiler: Any) -> None:
    """Compile once for all numbers of a type: those written down in a call would each be a type of its own."""
    fold = compiler.fold_argument_types

    def fold_argument_types(args: tuple, named: dict) -> tuple:
        signature, args = fold(args, named)
        return signature, tuple(map(types.unliteral, args))

    compiler.fold_argument_types = fold_argument_types


_leave_scipy_alone()
THREADED = _threads_may_share()
# For functions that kernels call, and for loops that are not worth a second thread. The rewrites are of expressions of
# whole arrays, which kernels do not have.
serial = functools.partial(
    _njit, nogil=True, error_model="numpy", fastmath=_FREEDOM, no_cfunc_wrapper=True, no_rewrites=True
)
# A reduction over `prange` would depend on the number of threads: kernels cut their work into chunks by size instead.
jit = functools.partial(serial, pipeline_class=ThreadedKernel if THREADED else Kernel)


class _Told(threading.local):
    """What Numba was last told in this thread: it keeps the number of threads for each thread that calls it."""

    count = 0


_told = _Told()
_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_note_fork)


def ready(alone: bool) -> bool:
    """Let this thread's kernels use as many threads as set_num_threads() said, or one; False in a forked process.

    There OpenMP cannot go on, and Numba would end the process.
    """
    count = 1 if alone else get_num_threads()
    if _told.count != count:
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
        _told.count = count
    return not _forked


def as_record(sizes: Any) -> numpy.ndarray:
    """A named tuple of integers as kernels take it: they would pass on every number of a tuple by itself, and compile
    ten times as long."""
    return numpy.array([tuple(sizes)], numpy.dtype([(name, numpy.int64) for name in sizes._fields]))
