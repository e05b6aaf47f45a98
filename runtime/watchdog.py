"""Nothing waits for ever: a thread on each rank looks at the flight recorder and ends a job that has got stuck.

The report is put together by the first rank that runs out of patience, from the records of all ranks of its machine.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import NoReturn

from . import faults, recorder, report, timeline
from .recorder import Entry, Record, Recorder
from .world import World

# Seconds that a rank may wait in one collective.
TIMEOUT = "PACELINE_TIMEOUT"
DEFAULT_TIMEOUT = 600.0
EXIT_CODE = 124  # that of timeout(1)
WARN_SECONDS = 30.0
STRAGGLER_SECONDS = 1.0
_END_SECONDS = 5.0  # for others to end this rank

_timeout: float | None = None


def timeout() -> float:
    """Seconds that a rank may wait in one collective before the job is ended.

    Raises:
        ValueError: PACELINE_TIMEOUT is no positive number.
    """
    if _timeout is not None:
        return _timeout
    text = os.environ.get(TIMEOUT, str(DEFAULT_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"{TIMEOUT} should be a positive number of seconds, got {text!r}")
    return seconds


def set_timeout(seconds: float) -> None:
    """Choose how long a rank may wait in one collective."""
    global _timeout
    if not seconds > 0:
        raise ValueError(f"timeout should be a positive number of seconds, got {seconds!r}")
    _timeout = float(seconds)
    if faults.flight_recorder is not None:
        faults.flight_recorder.update(timeout=_timeout)


@contextlib.contextmanager
def watching(world: World) -> Iterator[None]:
    """Watch over this rank's collectives from now on; what is done in here, for which all ranks are needed, is one."""
    set_timeout(timeout())
    own = faults.flight_recorder
    if own is None:
        yield
        return
    faults.at_end(functools.partial(_await_end, own))
    threading.Thread(target=_watch, args=(own, world), name="paceline-watchdog", daemon=True).start()
    entry = own.begin(0, recorder.name_of(range(world.size)), "the start of MPI")
    # mpi4py starts MPI without letting other threads run, which leaves the watch to the launcher, or else to this.
    faulthandler.dump_traceback_later(report.start_limit(timeout()) + 2 * report.GRACE_SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    own.end(entry)


def _watch(own: Recorder, world: World) -> None:
    stragglers = Stragglers() if world.local_rank == 0 and world.local_size > 1 else None
    warned: Entry | None = None
    while True:
        time.sleep(min(0.25, timeout() / 4))
        timeline.flush()
        if stragglers is not None and (found := stragglers.look(own.folder)):
            _say(found)
        record = own.record()
        wait = record.running()
        if wait is None or wait.call == faults.EXIT_CALL:
            continue
        reason = report.why_hopeless(own.folder, record)
        if reason is not None:
            _end_job(own, world, reason)
        if time.monotonic_ns() - wait.begin > WARN_SECONDS * 1e9 and wait != warned:
            warned = wait
            if report.is_first(own.folder, f"warned-{wait.group}-{wait.number}"):
                _say(report.headline(own.folder, wait))


def _end_job(own: Recorder, world: World, reason: str) -> NoReturn:
    """Report once for all ranks of this machine, and end the job."""
    if not report.is_first(own.folder, report.FILE):
        time.sleep(_END_SECONDS)  # the one that reports ends this rank as well
        faults.abort(EXIT_CODE)
    if faults.notify_launcher(f"hung {world.rank} {EXIT_CODE}{reason}"):
        time.sleep(_END_SECONDS)  # it looks at all machines, says what it sees, and ends the job
    else:
        _say(report.compose(report.look(own.folder, resume=True), world.rank, reason))
        if world.local_size < world.size:
            time.sleep(1.0)  # the other machines have a report to make as well
    faults.abort(EXIT_CODE)


def _await_end(own: Recorder) -> None:
    """Do not come to a good end in a job that is being ended: to look at a rank that was stopped is to resume it."""
    if os.path.exists(os.path.join(own.folder, report.FILE)):
        time.sleep(_END_SECONDS)


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"paceline: {text}", file=sys.stderr, flush=True)


class Stragglers:
    """Finds a rank that works while the others wait for it.

    Example:
        >>> import tempfile
        >>> Stragglers().look(tempfile.gettempdir()) is None
        True
    """

    def __init__(self) -> None:
        self._next_look = time.monotonic() + STRAGGLER_SECONDS
        self._before: dict[int, Entry] = {}
        self._suspect = -1
        self._times = 0
        self._report_at = 3  # looks in a row; then twice as many, ...

    def look(self, folder: str) -> str | None:
        """A line to print when one rank has been the slowest by far for a while."""
        if time.monotonic() < self._next_look:
            return None
        self._next_look = time.monotonic() + STRAGGLER_SECONDS
        return self.compare(recorder.read_all(folder))

    def compare(self, records: Mapping[int, Record]) -> str | None:
        """The same, given what the ranks have recorded so far."""
        last = {rank: max(done, key=lambda entry: entry.end) for rank, each in records.items() if (done := _done(each))}
        before, self._before = self._before, last
        waiting = {}
        for rank, entry in last.items():
            if rank not in before or entry.end == before[rank].end:
                self._before = before if len(before) == len(last) else last  # too early to tell
                return None
            waiting[rank] = (entry.inside - before[rank].inside) / (entry.end - before[rank].end)
        if len(waiting) < 2:
            return None
        slowest = min(waiting, key=waiting.__getitem__)
        shares = sorted(share for rank, share in waiting.items() if rank != slowest)
        others = shares[(len(shares) - 1) // 2]
        if others < 0.5 or waiting[slowest] > others / 4:
            self._suspect = -1
            return None
        self._times = self._times + 1 if slowest == self._suspect else 1
        self._suspect = slowest
        if self._times < self._report_at:
            return None
        self._report_at *= 2
        return (
            f"rank {slowest} is slow: the other ranks spend {others:.0%} of their time waiting for it in collectives, "
            f"such as {last[slowest]}; it waits {waiting[slowest]:.0%}"
        )


def _done(record: Record) -> list[Entry]:
    return [entry for entry in record.entries if entry.end]
