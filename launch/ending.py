"""How a process has ended that may be nobody's child here."""

from __future__ import annotations

import fcntl
import os
import struct

# linux/pidfd.h; of its struct pidfd_info the mask, and the status as of wait(2).
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO = struct.Struct("=Q52xi")
_PIDFD_INFO_EXIT = 1 << 3


def ending_of(pid: int, pidfd: int) -> tuple[int, int] | None:
    """Exit code and signal of a process that has ended; None where the kernel (before 6.15) cannot tell."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)  # where mpiexec has left it to this process
        if not ended:
            return None
    except ChildProcessError:
        info = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, 0))
        try:
            fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
        except OSError:
            return None
        mask, status = _PIDFD_INFO.unpack(info)
        if not mask & _PIDFD_INFO_EXIT:
            return None
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return (128 + number if number else os.WEXITSTATUS(status)), number
