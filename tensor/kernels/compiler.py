"""How the sources of this package are compiled."""

from __future__ import annotations

import functools

import numba
from numba import prange

from ...runtime import threads

__all__ = ["jit", "prange", "serial"]

# What may be assumed of floating numbers. Never "nnan" and "ninf": training code must see NaN and infinities.
_FREEDOM = {"contract", "reassoc", "nsz", "arcp"}

# A reduction over `prange` would depend on the number of threads: kernels cut their work into chunks by size instead.
jit = functools.partial(numba.njit, parallel=True, cache=True, nogil=True, error_model="numpy", fastmath=_FREEDOM)
# For functions that kernels call, and for loops that are not worth a second thread.
serial = functools.partial(numba.njit, cache=True, nogil=True, error_model="numpy", fastmath=_FREEDOM)


def _follow(count: int) -> None:
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))


threads.on_change(_follow)
