"""What a job may leave behind that was killed, and how to get rid of it: processes, shared memory and files."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import tempfile
import time

_PR_SET_CHILD_SUBREAPER = 36
_SHARED_MEMORY = "/dev/shm"
# MPICH, Intel MPI, Open MPI, and our own.
_SEGMENTS = ("mpich_shm", "Intel_MPI", "shm-col-space", "sm_segment", "vader_segment", "osc_", "ompi", "paceline")
# What Hydra's proxy, one process on each machine, writes down about the machine for its ranks, wherever TMPDIR is.
_PROXY = "hydra_pmi_proxy"
_PROXY_FILES = "hydra_hwloc_xmlfile_"
_WAIT_SECONDS = 2.0


def adopt_orphans() -> None:
    """Become the parent of whatever loses its own: then none of a job's processes can get out of sight."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_descendants() -> None:
    """End all processes that this one has started or adopted; those come that a parent leaves as it ends."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while (children := _children()) and time.monotonic() < deadline:
        for pid in children:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def kill_marked(name: str, value: str) -> None:
    """End all other processes of this machine that have this variable, by which those of one job know each other."""
    mark = f"{name}={value}".encode()
    deadline = time.monotonic() + _WAIT_SECONDS
    while (marked := [pid for pid in _others() if mark in _environment(pid)]) and time.monotonic() < deadline:
        for pid in marked:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def shared_memory() -> set[str]:
    """Names of the segments of MPI libraries that belong to this user."""
    return _own_files(_SHARED_MEMORY, _SEGMENTS)


def remove_shared_memory(before: set[str]) -> None:
    """Unlink the segments that were not there before and that no process has mapped."""
    left = shared_memory() - before
    for path in left - _mapped(left):
        with contextlib.suppress(OSError):
            os.unlink(path)


def remove_proxy_files() -> None:
    """Unlink what Hydra's proxies have left that were killed: everything, if none of them still runs."""
    left = _own_files("/tmp", _PROXY_FILES)
    if not left or _PROXY in map(_name, _others()):
        return
    for path in left:
        with contextlib.suppress(OSError):
            os.unlink(path)


def remove_session(pid: int) -> None:
    """Remove the directory of an Open MPI launcher that was killed."""
    shutil.rmtree(os.path.join(tempfile.gettempdir(), f"ompi.{pid}"), ignore_errors=True)


def _own_files(folder: str, prefixes: str | tuple[str, ...]) -> set[str]:
    """This user's files with such names."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                if entry.name.startswith(prefixes) and entry.stat().st_uid == os.getuid():
                    found.add(entry.path)
    return found


def _children() -> list[int]:
    """Process ids of this process's children."""
    pids = []
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children") as file:
                pids += [int(pid) for pid in file.read().split()]
    return pids


def _others() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _name(pid: int) -> str:
    """Of a process's program, as far as the kernel keeps it: 15 letters; nothing of one that has ended."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def _environment(pid: int) -> list[bytes]:
    """The variables with which a process was started; none of one that has ended, or is not ours."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _mapped(paths: set[str]) -> set[str]:
    """Those of the files that some process uses."""
    used: set[str] = set()
    for pid in _others() if paths else ():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps") as file:
            maps = file.read()
            used |= {path for path in paths if path in maps}
    return used
