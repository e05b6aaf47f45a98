"""Memory that other processes of this machine can map."""

from __future__ import annotations

import mmap
import os
import warnings
import weakref
from typing import Any, Self

import numpy

from .world import get_world


class Pages(mmap.mmap):
    """Memory without a name, zero at first; OSError where it cannot be had.

    Attributes:
        file: descriptor by which other processes open it, under /proc; closed with the memory.
    """

    file: int

    def __new__(cls, nbytes: int) -> Self:
        file = reserve(nbytes)
        try:
            self = super().__new__(cls, file, nbytes)
        except OSError:
            os.close(file)
            raise
        self.file = file
        weakref.finalize(self, os.close, file).atexit = False
        return self


def reserve(nbytes: int) -> int:
    """A file in memory that has all its pages: where they cannot be had later, touching one ends the process."""
    file = os.memfd_create("paceline")
    try:
        os.posix_fallocate(file, 0, nbytes)
    except OSError:
        os.close(file)
        raise
    return file


def shareable_zeros(nbytes: int) -> numpy.ndarray:
    """Bytes, zero at first, which the other ranks of this machine can map if there are any.

    They cost the same as others, apart from a process that forks: its child gets the same memory and no copy.
    """
    if get_world().local_size > 1 and hasattr(os, "memfd_create"):
        try:
            return numpy.frombuffer(Pages(nbytes), numpy.uint8)
        except OSError as error:
            warnings.warn(
                f"{nbytes} bytes cannot be had as memory that other ranks map ({error}); sums over them take longer",
                stacklevel=2,
            )
    return numpy.zeros(nbytes, numpy.uint8)


def pages_of(array: Any) -> Pages | None:
    """What an array's memory is part of, if it is shareable."""
    owner = array
    while isinstance(owner, numpy.ndarray | memoryview):
        owner = owner.base if isinstance(owner, numpy.ndarray) else owner.obj
    return owner if isinstance(owner, Pages) else None
