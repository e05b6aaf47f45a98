"""Run one job to its end: know which rank failed first, forward signals, leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from types import FrameType
from typing import Self

from ..runtime import faults
from .worker import die_with_parent

# How long ranks get to end by themselves after a signal or another rank's failure.
GRACE_SECONDS = 5.0
# Those that end a process because of what it did or how it was treated; a small exit code is more often just that.
_FATAL_SIGNALS = {
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGKILL,
    signal.SIGSEGV,
    signal.SIGTERM,
}


class Job:
    """One mpiexec (or a single worker) and the ranks that report to this process.

    Ranks write lines to a named pipe: `started RANK PID`, `done RANK`, `failed RANK CODE SUMMARY`. The first that says
    `failed`, or ends without saying anything, is the cause; mpiexec's own exit code may be that of a rank that was
    killed in consequence.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._command = command
        self._folder = tempfile.TemporaryDirectory(prefix="paceline-")
        path = os.path.join(self._folder.name, "events")
        os.mkfifo(path)
        # Open for writing as well: the pipe must not end when the first rank closes its side.
        self._events = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._unread = b""
        self._ranks: dict[int, int] = {}  # rank -> pidfd of its process
        self._done: set[int] = set()
        self._cause: tuple[int, int | None, str] | None = None  # rank, exit code if it told one, summary
        self._signal: int | None = None
        self._kill_at = float("inf")
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._events, selectors.EVENT_READ)
        self._main = subprocess.Popen(command, env=environment | {faults.EVENTS: path}, preexec_fn=die_with_parent)
        self._pidfds: list[int] = []
        self._open_pidfd(self._main.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._kill()
        self._main.wait()
        for pidfd in self._pidfds:
            os.close(pidfd)
        self._selector.close()
        os.close(self._events)
        self._folder.cleanup()

    def run(self) -> tuple[int, str]:
        """Wait for the end of the job.

        Returns:
            Its exit code (that of the rank that failed first; 128 + number for a signal), and one line that explains
            a code other than 0.
        """
        before = {each: signal.signal(each, self._on_signal) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            self._wait()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
        return self._verdict(self._main.wait())

    def _wait(self) -> None:
        """Follow the ranks until mpiexec ends, or has to be killed."""
        while self._main.poll() is None:
            # Ends of processes wake it up; the timeout is for the deadline below, and for kernels without pidfds.
            ready = [key.fd for key, _ in self._selector.select(timeout=0.05)]
            # Messages first: a rank that ends has sent its last one before.
            self._read_events()
            self._note_deaths(ready)
            if time.monotonic() > self._kill_at:
                return self._kill()
        self._read_events()

    def _read_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._unread += os.read(self._events, 1 << 16)
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            event, rank, *rest = line.decode().split(" ", 3)
            if event == "started":
                self._watch(int(rank), int(rest[0]))
            elif event == "done":
                self._done.add(int(rank))
            elif event == "failed":
                self._blame(int(rank), int(rest[0]), rest[1])

    def _watch(self, rank: int, pid: int) -> None:
        """Notice from now on when this rank's process ends."""
        pidfd = self._open_pidfd(pid)
        if pidfd is not None:
            self._ranks[rank] = pidfd

    def _open_pidfd(self, pid: int) -> int | None:
        """A file in the selector that is readable when the process has ended; None if it has, or on old kernels."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return None
        self._pidfds.append(pidfd)
        self._selector.register(pidfd, selectors.EVENT_READ)
        return pidfd

    def _note_deaths(self, ready: list[int]) -> None:
        for rank, pidfd in self._ranks.items():
            if pidfd in ready:
                self._selector.unregister(pidfd)
                if rank not in self._done:
                    self._blame(rank, None, "")

    def _blame(self, rank: int, code: int | None, summary: str) -> None:
        if self._cause is None:
            self._cause = (rank, code, summary)
            self._kill_at = min(self._kill_at, time.monotonic() + GRACE_SECONDS)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Pass the signal on; a second one ends the job at once."""
        self._kill_at = time.monotonic() + (GRACE_SECONDS if self._signal is None else 0.0)
        self._signal = number
        self._main.send_signal(number)

    def _kill(self) -> None:
        """End what is left of the job."""
        if self._main.poll() is None:
            self._main.kill()
        for pidfd in self._ranks.values():
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _verdict(self, code: int) -> tuple[int, str]:
        """Exit code and explanation, given mpiexec's."""
        if self._signal is not None:
            return 128 + self._signal, f"stopped by {signal.Signals(self._signal).name}"
        if code == 0 and self._cause is None:
            return 0, ""
        number = _fatal_signal(code, relayed=len(self._ranks) > 1)
        code = 128 + number if number else code or 1
        ending = f"died of {signal.Signals(number).name}" if number else f"ended with exit code {code}"
        if self._cause is None:
            return code, f"{self._command[0]} {ending}"
        rank, told, summary = self._cause
        if told is not None:
            return told, f"rank {rank} failed with exit code {told}" + (f": {summary}" if summary else "")
        return code, f"rank {rank} {ending}"


def _fatal_signal(code: int, relayed: bool) -> int:
    """The signal that an exit code stands for, or 0: SIGKILL is -9 of a child, 137 from Open MPI, 9 from Hydra."""
    number = -code if code < 0 else code - 128 if code > 128 else code if relayed else 0
    return number if number in _FATAL_SIGNALS else 0
