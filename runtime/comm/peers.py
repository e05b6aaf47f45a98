"""Arrays of the machine's other ranks, read and written where they are: the kernel copies between processes.

No rank copies for the others, and so no core has to fetch what another has just written: between two cores' caches
that takes several times as long as from memory. Linux allows it (process_vm_readv) between processes of one user,
unless a security module or a sandbox refuses. Yama, which is such a module (ptrace_scope=1 on Ubuntu, say), asks the
process whose memory it is: see `let_siblings_in`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Sequence

import numpy as np

from .region import address_of

Copy = Callable[[int, int, int], None]

_PR_SET_PTRACER = 0x59616D61  # linux/prctl.h


class _Span(ctypes.Structure):
    """Bytes of one process."""

    _fields_ = (("start", ctypes.c_void_p), ("nbytes", ctypes.c_size_t))


class Peer:
    """A process whose memory this one reads and writes.

    Attributes:
        read: `read(here, there, nbytes)` copies what is at its address `there` to this process's address `here`.
        write: `write(here, there, nbytes)` copies the other way.
    """

    def __init__(self, process: int) -> None:
        self.read = _copier("process_vm_readv", process)
        self.write = _copier("process_vm_writev", process)

    def answers(self, address: int, token: np.ndarray) -> bool:
        """Whether its memory is in reach, and has this token there."""
        found = np.zeros_like(token)
        try:
            self.read(address_of(found), address, token.nbytes)
            if (found != token).any():
                return False  # another process, which goes by that number here
            self.write(address_of(token), address, token.nbytes)
        except OSError:
            return False
        return True

    def lends(self, address: int) -> bool:
        """Whether the kernel reaches what is at an address: it does not in a device's memory."""
        byte = ctypes.c_byte()
        try:
            self.read(ctypes.addressof(byte), address, 1)
        except OSError:
            return False
        return True


def let_siblings_in() -> None:
    """Let what descends from this process's parent, as the machine's other ranks do, read and write its memory.

    Yama would allow that to its ancestors alone; elsewhere this does nothing.
    """
    parent = ctypes.c_ulong(os.getppid())
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, parent, ctypes.c_ulong(), ctypes.c_ulong(), ctypes.c_ulong())


def _copier(name: str, process: int) -> Copy:
    """A copy between that process and this one by the C library's function of this name."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:

        def refuse(own_address: int, address: int, nbytes: int) -> None:
            raise OSError(errno.ENOSYS, f"this C library has no {name}")

        return refuse
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    function.restype = ctypes.c_ssize_t
    here, there = _Span(), _Span()  # made once, which costs as much as a small copy
    here_at, there_at = ctypes.byref(here), ctypes.byref(there)

    def copy(own_address: int, address: int, nbytes: int) -> None:
        here.start, there.start = own_address, address
        here.nbytes = there.nbytes = nbytes
        while (copied := function(process, here_at, 1, there_at, 1, 0)) != here.nbytes:  # the most at once is 2 GiB
            if copied <= 0:
                error = ctypes.get_errno() if copied < 0 else errno.EFAULT
                raise OSError(error, f"the memory of process {process} is out of reach: {os.strerror(error)}")
            here.start, there.start = here.start + copied, there.start + copied
            here.nbytes = there.nbytes = here.nbytes - copied

    return copy


class Peers:
    """The processes of all ranks, which can read and write each other's memory.

    Args:
        processes: of all ranks, in rank order.
        rank: this one.
        piece_bytes: of each rank's array, what is summed at a time.
    """

    def __init__(self, processes: Sequence[Peer], rank: int, piece_bytes: int) -> None:
        self.rank = rank
        self.processes = processes
        self.piece_bytes = piece_bytes
        self.buffers = np.empty((len(processes), piece_bytes), np.uint8)
        self.buffer_addresses = [address_of(buffer) for buffer in self.buffers]

    def lent_address(self, array: np.ndarray) -> int:
        """Where the others reach an array; 0 if they do not."""
        address = address_of(array)
        owner = array if array.base is None else array.base
        ordinary = isinstance(owner, np.ndarray) and owner.flags.owndata
        return address if ordinary or self.processes[self.rank].lends(address) else 0


class LentArrays:
    """One array of every rank, each in its own process; `array` is this rank's."""

    def __init__(self, peers: Peers, array: np.ndarray, addresses: Sequence[int]) -> None:
        self._array = array
        self._rank = peers.rank
        self._addresses = addresses
        self._processes = peers.processes
        self._buffers = peers.buffers.view(array.dtype)
        self._buffer_addresses = peers.buffer_addresses
        self._others = [rank for rank in range(len(addresses)) if rank != peers.rank]

    def parts(self, part: slice) -> list[np.ndarray]:
        """A piece of every rank's array: this rank's own where it is, copies of the others."""
        size, itemsize = part.stop - part.start, self._array.itemsize
        parts = [self._array[part]] * len(self._addresses)
        for rank in self._others:
            address = self._addresses[rank] + part.start * itemsize
            self._processes[rank].read(self._buffer_addresses[rank], address, size * itemsize)
            parts[rank] = self._buffers[rank, :size]
        return parts

    def hand_out(self, part: slice, parts: Sequence[np.ndarray], home: int) -> None:
        """Let all ranks have parts[home] for that piece."""
        total = parts[home]
        start = part.start * total.itemsize
        here = self._buffer_addresses[home]
        if home == self._rank:
            here = self._addresses[home] + start
        else:
            parts[self._rank][...] = total
        for rank in self._others:
            self._processes[rank].write(here, self._addresses[rank] + start, total.nbytes)
