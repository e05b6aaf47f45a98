"""Point-to-point messages over MPI. Each begins with a header that says what it holds: MPI itself would not mind."""

from __future__ import annotations

import contextlib
import datetime
import functools
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ..arrays import Array
from .arguments import flat_on_host, refuse_message, restore
from .work import Receipt, Work, seconds_of

_HEADER_BYTES = 32
_BLOCK_BYTES = 1 << 30  # lengths of blocks are C ints in some MPIs
_POLL_SECONDS = 1e-4


def isend(mpi: Any, comm: Any, array: Array, dst: int, tag: int, wait: AbstractContextManager[None]) -> Work:
    """Start to send an array; within `wait` is what may block."""
    flat = flat_on_host(array)
    header = _header(flat.dtype, flat.size)
    with _message(mpi, header, flat) as message:
        return _Sending(comm.Isend(message, dst, tag), flat, wait)


def irecv(mpi: Any, comm: Any, array: Array, src: int | None, tag: int, wait: AbstractContextManager[None]) -> Receipt:
    """Start to receive into an array; within `wait` is what may block."""
    flat = flat_on_host(array)
    header = np.zeros(_HEADER_BYTES, np.uint8)
    with _message(mpi, header, flat) as message:
        request = comm.Irecv(message, mpi.ANY_SOURCE if src is None else src, tag)
    return _Receiving(mpi, request, array, header, flat, wait)


class _Sending(Work):
    """Handle of isend; it keeps the memory that MPI reads."""

    def __init__(self, request: Any, flat: np.ndarray, wait: AbstractContextManager[None]) -> None:
        super().__init__([])
        self._request = request
        self._wait = wait
        self._flat = flat

    def is_completed(self) -> bool:
        return self._request.Test()

    def wait(self, timeout: float | datetime.timedelta | None = None) -> bool:
        if timeout is None:
            with self._wait:
                self._request.Wait()
        else:
            _poll(self.is_completed, seconds_of(timeout))
        return True


class _Receiving(Receipt):
    """Handle of irecv; the message is checked when its arrival is noticed."""

    def __init__(
        self,
        mpi: Any,
        request: Any,
        array: Array,
        header: np.ndarray,
        flat: np.ndarray,
        wait: AbstractContextManager[None],
    ) -> None:
        super().__init__([array])
        self._mpi = mpi
        self._request = request
        self._array = array
        self._header = header
        self._flat = flat
        self._wait = wait
        self._ended = False
        self._error: Exception | None = None

    def is_completed(self) -> bool:
        return self._ended or self._complete("Test")

    def exception(self) -> BaseException | None:
        return self._error

    def wait(self, timeout: float | datetime.timedelta | None = None) -> bool:
        if timeout is not None:
            _poll(self.is_completed, seconds_of(timeout))
        elif not self._ended:
            with self._wait:
                self._complete("Wait")
        if self._error is not None:
            raise self._error
        return True

    def _complete(self, how: str) -> bool:
        """Test or wait for the request; look at the message when it is there."""
        status = self._mpi.Status()
        try:
            if not getattr(self._request, how)(status):
                return False
        except self._mpi.Exception as error:
            if error.Get_error_class() != self._mpi.ERR_TRUNCATE:
                raise
        self._ended = True
        self.source = status.source
        array = self._array
        if (self._header != _header(self._flat.dtype, self._flat.size)).any():
            try:
                dtype, size = self._header.tobytes().rstrip(b"\0").decode().split(" ")
                refuse_message(self.source, dtype, int(size), array)
            except Exception as error:
                self._error = error
        else:
            restore(array, self._flat)
        return True


def _poll(done: Any, seconds: float) -> None:
    """Wait for a limited time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"wait(): the message has not passed after {seconds:g} s")
        time.sleep(_POLL_SECONDS)


@functools.lru_cache(maxsize=1024)
def _header(dtype: np.dtype, size: int) -> np.ndarray:
    """What a message says of itself."""
    return np.frombuffer(f"{dtype} {size}".encode().ljust(_HEADER_BYTES, b"\0"), np.uint8)


@contextlib.contextmanager
def _message(mpi: Any, header: np.ndarray, flat: np.ndarray) -> Iterator[list[Any]]:
    """Header and elements as one message, described where they lie."""
    blocks = [(header.ctypes.data, header.size)]
    start = flat.ctypes.data
    blocks += [(start + at, min(_BLOCK_BYTES, flat.nbytes - at)) for at in range(0, flat.nbytes, _BLOCK_BYTES)]
    layout = mpi.BYTE.Create_hindexed([size for _, size in blocks], [address for address, _ in blocks]).Commit()
    try:
        yield [mpi.BOTTOM, 1, layout]
    finally:
        layout.Free()  # MPI keeps it for as long as the message is under way
