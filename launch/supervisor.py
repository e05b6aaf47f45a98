"""Run one job to its end: know which rank failed first, forward signals, leave nothing behind."""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import NamedTuple, Self

from ..runtime import faults, recorder, report, watchdog
from . import leftovers
from .agent import LAUNCHER
from .ending import ending_of
from .lifeline import lifeline_path, open_lifeline
from .machines import Machine, Machines
from .output import Output
from .worker import die_with_parent

# How long ranks get to end by themselves after an interrupt or another rank's failure. The sender of a TERM decides for
# himself: a checkpoint may take minutes, and his second TERM ends the job at once.
GRACE_SECONDS = 5.0
_LAST_WORDS_SECONDS = 0.3
_LOOK_SECONDS = 0.25
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PASSED_ON = (*_ENDING, signal.SIGUSR1)
# Where the kernel counts, for the whole machine, the processes that it has killed for lack of memory.
VMSTAT = "/proc/vmstat"
_ASKED_NS = 200_000_000  # between Open MPI's SIGTERM and SIGKILL there is more
# How mpiexec ends ranks, and its own exit code when a rank was ended so: that of a child, MPICH's, Open MPI's, Intel's.
_CONSEQUENCES = (signal.SIGKILL, signal.SIGTERM)
_KILLED = (-9, -15, 9, 15, 137, 143, 255)
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


class _Cause(NamedTuple):
    """The first thing that went wrong.

    Attributes:
        rank: the rank that failed.
        code: the exit code that it told us, if it could.
        summary: what it said about it.
        hung: whether the summary is the report on a job that got stuck.
    """

    rank: int
    code: int | None
    summary: str
    hung: bool = False


class _Process(NamedTuple):
    """A rank's process, and the file that stands for it."""

    pid: int
    pidfd: int


class Job:
    """One mpiexec (or a single worker) and the ranks that report to this process.

    Ranks write lines to a named pipe: `started RANK PID`, `done RANK`, `failed RANK CODE SUMMARY`, `hung RANK CODE
    REASON`. The first that says `failed` or `hung`, or ends without saying anything, is the cause; mpiexec's own exit
    code may be that of a rank that was killed in consequence. Of ranks on other machines, their agents tell the same.

    Args:
        size: number of ranks.
        hosts: names of their machines; none means this one.
    """

    def __init__(self, size: int, hosts: Sequence[str] = ()) -> None:
        self._size = size
        self._machines = Machines(hosts) if hosts else None
        self._away: dict[int, Machine] = {}  # where the ranks are that are not here
        self._endings: dict[int, tuple[int, int] | None] = {}  # of those
        self._seen_away: dict[int, str] = {}  # what those did last
        recorder.remove_old()
        prefix = f"{recorder.job_prefix()}{os.getpid()}-"
        self._folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
        self.folder = self._folder.name
        self._events_path = os.path.join(self.folder, "events")
        os.mkfifo(self._events_path)
        # Open for writing as well: the pipe must not end when the first rank closes its side.
        self._events = os.open(self._events_path, os.O_RDWR | os.O_NONBLOCK)
        self._unread = b""
        self._ranks: dict[int, _Process] = {}
        self._done: set[int] = set()
        self._gone: set[int] = set()
        self._lifelines = {_make_lifeline(self.folder, rank): rank for rank in range(size)}
        self._fallen: dict[int, int] = {}  # when the lifelines of ranks have ended, in ns
        self._cause: _Cause | None = None
        self._is_asked = False  # what the ranks are doing
        self._asks_first = False  # whether mpiexec sends ranks a SIGTERM before it kills them
        self._signal: int | None = None
        self._kill_at = float("inf")
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._output = Output(self.folder, size) if size > 1 else None
        self._selector = selectors.DefaultSelector()
        for file in (self._events, *self._lifelines):
            self._selector.register(file, selectors.EVENT_READ)
        if self._machines is not None:
            self._selector.register(self._machines, selectors.EVENT_READ)
        self._pidfds: list[int] = []
        self._main: subprocess.Popen | None = None
        self._shared_memory = leftovers.shared_memory()
        self._oom_kills = _count_oom_kills()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._kill()
        if self._main is not None:
            self._main.wait()
            leftovers.remove_session(self._main.pid)
        self._end_ranks()
        leftovers.remove_shared_memory(self._shared_memory)
        leftovers.remove_proxy_files()
        for pidfd in self._pidfds:
            os.close(pidfd)
        self._selector.close()
        if self._machines is not None:
            self._machines.close()
        for file in (self._events, *self._lifelines):
            os.close(file)
        self._folder.cleanup()

    def run(self, command: list[str], environment: dict[str, str], end_signal: int = signal.SIGKILL) -> tuple[int, str]:
        """Start the job and wait for its end.

        Args:
            command: what starts the ranks.
            environment: its variables.
            end_signal: what the command gets when this process dies.

        Returns:
            Its exit code (that of the rank that failed first; 128 + number for a signal), and one line that explains
            a code other than 0.
        """
        self._asks_first = end_signal == signal.SIGTERM
        leftovers.adopt_orphans()
        before = {each: signal.signal(each, self._on_signal) for each in _PASSED_ON}
        before[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, self._on_question)
        try:
            # A session of its own: an interrupt from the keyboard comes to this process only, which passes it on.
            tie = functools.partial(die_with_parent, end_signal)
            variables = environment | self.variables
            self._main = subprocess.Popen(command, env=variables, preexec_fn=tie, start_new_session=True)
            self._open_pidfd(self._main.pid)
            self._wait(self._main)
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
        code = self._main.wait()
        if self._machines is not None:
            self._heed(self._machines.end())
        verdict = self._verdict(command[0], code)
        self._end_ranks()
        return verdict

    def _end_ranks(self) -> None:
        """End whatever mpiexec has left, and show its last words."""
        leftovers.kill_descendants()
        if self._output is not None:
            self._output.finish()
            self._output = None

    @property
    def variables(self) -> dict[str, str]:
        """What ranks need to know to report to this process, on all machines."""
        own = {faults.EVENTS: self._events_path, recorder.FOLDER: self.folder}
        return own if self._machines is None else own | {LAUNCHER: self._machines.address}

    @property
    def stopped(self) -> bool:
        """Whether somebody has asked for the end of the job."""
        return self._signal is not None

    def _wait(self, main: subprocess.Popen) -> None:
        """Follow the ranks until mpiexec ends, or has to be killed."""
        while main.poll() is None:
            # Ends of processes wake it up; the timeout is for the deadline below, and for kernels without pidfds.
            ready = [key.fd for key, _ in self._selector.select(timeout=0.05)]
            # Messages first: a rank that ends has sent its last one before.
            self._read_events()
            self._note_deaths(ready)
            self._hear()
            if time.monotonic() > self._look_at:
                self._look_at = time.monotonic() + _LOOK_SECONDS
                if late := report.find_late(self.folder):
                    self._end_hung_job(*late)
            if self._is_asked:
                self._is_asked = False
                print(f"paceline run:\n{report.overview(self._look(resume=False))}", file=sys.stderr, flush=True)
            if time.monotonic() > self._kill_at:
                return self._kill()
        self._read_events()
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while main.returncode != 0 and not self._is_sure() and len(self._gone) < len(self._ranks) + len(self._away):
            # mpiexec may be quicker than the rank that it has ended for.
            self._note_deaths([key.fd for key, _ in self._selector.select(timeout=0.02)])
            self._hear()
            if time.monotonic() > deadline:
                break

    def _read_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._unread += os.read(self._events, 1 << 16)
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            self._note_event(line.decode())

    def _note_event(self, line: str, machine: Machine | None = None) -> None:
        """Take down what a rank says, of this machine or another."""
        event, number, *rest = line.split(" ", 3)
        rank = int(number)
        if event == "started" and machine is None:
            self._watch(rank, int(rest[0]))
        elif event == "started" and machine is not None:
            self._away[rank] = machine
        elif event == "done":
            self._done.add(rank)
        elif event == "failed":
            self._blame(_Cause(rank, int(rest[0]), rest[1]))
        elif event == "hung":
            self._end_hung_job(rank, "".join(f" {word}" for word in rest[1:]))

    def _hear(self) -> None:
        if self._machines is not None:
            self._heed(self._machines.receive())

    def _heed(self, messages: Iterable[tuple[Machine, str, list]]) -> None:
        """Take down what agents tell."""
        for machine, kind, rest in messages:
            if kind == "event":
                self._note_event(rest[0], machine)
            elif kind == "fell":
                rank, moment = rest
                self._fallen[rank] = moment - (machine.clock or 0)
            elif kind == "gone":
                rank, ending, self._seen_away[rank] = rest
                self._endings[rank] = tuple(ending) if ending else None
                self._note_death(rank)
            elif kind == "file":
                name, content = rest
                with open(os.path.join(self.folder, os.path.basename(name)), "w") as file:
                    file.write(content)

    def _look(self, resume: bool) -> dict[int, report.Sight]:
        """What can be seen of all ranks."""
        if self._machines is None:
            return report.look(self.folder, resume)
        self._machines.ask_to_look(resume)
        here = report.look(self.folder, resume)
        self._heed(self._machines.sights())
        return dict(sorted((here | self._machines.seen).items()))

    def _end_hung_job(self, rank: int, reason: str) -> None:
        """Report on a job in which a rank waits in vain, and end it."""
        self._kill_at = 0.0
        if self._cause is None:
            self._cause = _Cause(rank, watchdog.EXIT_CODE, "", hung=True)  # other machines may find the same
            text = report.compose(self._look(resume=True), rank, reason)
            self._cause = self._cause._replace(summary=text)

    def _watch(self, rank: int, pid: int) -> None:
        """Notice from now on when this rank's process ends."""
        pidfd = self._open_pidfd(pid)
        if pidfd is not None:
            self._ranks[rank] = _Process(pid, pidfd)

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
        ranks = {process.pidfd: rank for rank, process in self._ranks.items()}
        for file in filter(self._lifelines.__contains__, ready):  # closed before their processes have ended
            self._selector.unregister(file)
            self._fallen[self._lifelines[file]] = time.monotonic_ns()
        for file in filter(ranks.__contains__, ready):
            self._selector.unregister(file)
            self._note_death(ranks[file])

    def _note_death(self, rank: int) -> None:
        self._gone.add(rank)
        if rank not in self._done:
            self._blame(_Cause(rank, None, self._last_seen(rank)))

    def _blame(self, cause: _Cause) -> None:
        if self._cause is None:
            self._kill_at = min(self._kill_at, time.monotonic() + GRACE_SECONDS)
            self._cause = cause
        elif not self._is_sure() and (cause.code is not None or self._fell(cause.rank) < self._fell(self._cause.rank)):
            self._cause = cause

    def _is_sure(self) -> bool:
        """Whether the cause is what a rank has told, or the rank that died first.

        MPI learns that a rank dies when its files are closed, and kills the others at once: with little memory to give
        back, some of them can end before it does. Lifelines are closed in the right order.
        """
        cause = self._cause
        if cause is None or cause.code is not None or self._away:  # news from elsewhere may be on its way
            return cause is not None and cause.code is not None
        return self._fell(cause.rank) <= min(self._fallen.values(), default=-1)

    def _fell(self, rank: int) -> float:
        """When the lifeline of this rank has ended."""
        return self._fallen.get(rank, float("inf"))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Pass the signal on to the ranks; the second that asks for the end gets it at once."""
        if number in _ENDING:
            if self._signal is not None:
                self._kill_at = 0.0
            elif number == signal.SIGINT:
                self._kill_at = time.monotonic() + GRACE_SECONDS
            self._signal = number
        if len(self._ranks) + len(self._away) == self._size:
            for machine in set(self._away.values()):
                machine.tell("signal", number)
            for process in self._ranks.values():
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(process.pidfd, number)
        elif self._main is not None:  # some are not yet started, or on machines of which nothing is heard
            self._main.send_signal(number)

    def _on_question(self, number: int, frame: FrameType | None) -> None:
        """SIGUSR2: show what all ranks are doing."""
        self._is_asked = True

    def _kill(self) -> None:
        """End what is left of the job."""
        if self._main is not None and self._main.poll() is None:
            self._main.kill()
        for process in self._ranks.values():
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self._away[rank].name}" if rank in self._away else f"rank {rank}"

    def _verdict(self, program: str, code: int) -> tuple[int, str]:
        """Exit code and explanation, given mpiexec's."""
        cause = self._cause
        if cause is not None and cause.hung:
            return cause.code or 1, cause.summary
        if self._signal is not None:
            # A rank that ends in its own way, with a checkpoint and a code that says so, has the last word.
            if cause is not None and cause.code is not None and cause.code != faults.INTERRUPTED:
                return cause.code, f"stopped by {_name_of(self._signal)} with exit code {cause.code}"
            return 128 + self._signal, f"stopped by {_name_of(self._signal)}"
        if code == 0 and cause is None:
            return 0, ""
        if cause is not None and cause.code is not None:
            who = self._name(cause.rank)
            return cause.code, f"{who} failed with exit code {cause.code}" + _after(": ", cause.summary)
        if cause is None and self._size == 1:  # it may have ended before anybody looked
            cause = _Cause(0, None, self._last_seen(0))
        endings = {rank: ending for rank, process in self._ranks.items() if (ending := ending_of(*process))}
        endings |= {rank: ending for rank, ending in self._endings.items() if ending}
        if code == 0 and not any(status for status, _ in endings.values()):
            return 0, ""  # programs that have taken the ranks' places
        cause = self._behind(cause, endings, code)
        number = 0 if cause is None else _fatal_signal(code, relayed=len(self._ranks) + len(self._away) > 1)
        code = 128 + number if number else code or 1
        if cause is not None:
            code, number = endings.get(cause.rank, (code, number))
        text = f"died of {_name_of(number)}" if number else f"ended with exit code {code}"
        if number == signal.SIGKILL and _count_oom_kills() > self._oom_kills:
            text += " (this machine ran out of memory and has killed a process: see dmesg)"
        if number == signal.SIGBUS:
            text += " (most often /dev/shm, or the disk of a file that is mapped, is full: see `paceline doctor`)"
        who, summary = (program, "") if cause is None else (self._name(cause.rank), cause.summary)
        return code or 1, f"{who} {text}" + _after(", ", summary)

    def _behind(self, cause: _Cause | None, endings: dict[int, tuple[int, int]], code: int) -> _Cause | None:
        """The cause, if what was noticed first is a consequence of something else."""
        killed = min((rank for rank, end in endings.items() if end[1] == signal.SIGKILL), key=self._fell, default=None)
        different = [rank for rank, (status, number) in endings.items() if status and number not in _CONSEQUENCES]
        cut_off = [rank for rank in different if killed is not None and self._was_cut_off(rank, killed, endings[rank])]
        if cause is not None and cause.rank not in cut_off and endings.get(cause.rank, (0, 0))[1] not in _CONSEQUENCES:
            return cause
        guilty = next((rank for rank in different if rank not in cut_off), killed if cut_off else None)
        if guilty is not None:
            return _Cause(guilty, None, self._last_seen(guilty))
        return cause if code in _KILLED else None  # MPI_Abort: mpiexec knows the code, and has killed them all

    def _was_cut_off(self, rank: int, killed: int, ending: tuple[int, int]) -> bool:
        """Whether MPI has ended a rank because its connection to a killed one was closed, as Open MPI does.

        That kills nobody without a SIGTERM before: what died of SIGKILL about the same time was the first.
        """
        in_a_call = ending[1] == 0 and self._last_seen(rank).startswith("in ")
        return in_a_call and self._asks_first and self._fell(killed) < self._fell(rank) + _ASKED_NS

    def _last_seen(self, rank: int) -> str:
        """What a rank that has died was doing."""
        return self._seen_away.get(rank) or report.last_seen(self.folder, rank)


def _make_lifeline(folder: str, rank: int) -> int:
    os.mkfifo(lifeline_path(folder, rank))
    return open_lifeline(folder, rank)


def _count_oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory, here or in a container; 0 if it does not tell."""
    with contextlib.suppress(OSError), open(VMSTAT) as file:
        return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    return 0


def _name_of(number: int) -> str:
    """SIGSEGV, say; the system leaves the real-time signals between the first and the last without names."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _after(separator: str, text: str) -> str:
    return separator + text if text else ""


def _fatal_signal(code: int, relayed: bool) -> int:
    """The signal that an exit code stands for, or 0: SIGKILL is -9 of a child, 137 from Open MPI, 9 from Hydra."""
    number = -code if code < 0 else code - 128 if code > 128 else code if relayed else 0
    return number if number in _FATAL_SIGNALS else 0
