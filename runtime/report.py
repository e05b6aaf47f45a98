"""Who waits for whom, and what they are doing: read from the records of the ranks of one machine."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import sysconfig
import time
from collections.abc import Mapping
from typing import NamedTuple

from . import faults, recorder
from .callers import PACKAGE
from .recorder import Entry, Record

FILE = "report"
# What a rank that is no more has sent before may still be on its way.
GONE_SECONDS = 0.5
# What a rank leaves that has found that ranks wait for each other in a circle: the error for all that wait.
VERDICT = "deadlock"
# Those have this long to see it, before they are taken to wait for ranks that have seen it and left.
VERDICT_SECONDS = 2.0
START_SECONDS = 60.0
# How much longer than the ranks themselves the launcher waits, which then reports in their place.
GRACE_SECONDS = 0.5
STACK_SECONDS = 0.3
_DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "")
_OWN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "watchdog.py")
_STARTERS = (os.path.join(os.path.dirname(os.path.dirname(_OWN)), "launch", ""), "<frozen runpy>")
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')


class Frame(NamedTuple):
    """One line of a stack."""

    file: str
    line: str
    function: str


class Sight(NamedTuple):
    """What can be seen of a rank.

    Attributes:
        record: its record.
        alive: whether its process is there.
        stopped: whether somebody has stopped the process.
        stacks: those of its threads, as faulthandler prints them; "" if it did not answer.
    """

    record: Record
    alive: bool
    stopped: bool
    stacks: str


def sights_from(rows: Mapping[str, list], clock: int) -> dict[int, Sight]:
    """Sights that have come as JSON from a machine whose clock is ahead by so many ns."""
    sights = {}
    for rank, (record, alive, stopped, stacks) in rows.items():
        *head, entries = record
        here = [Entry(begin - clock, end and end - clock, *rest) for begin, end, *rest in entries]
        sights[int(rank)] = Sight(Record._make([*head, here]), alive, stopped, stacks)
    return sights


def why_hopeless(folder: str, record: Record, grace: float = 0.0) -> str | None:
    """Why a rank should not go on to wait, when it has done so for `grace` seconds too long; None if it should."""
    wait = record.running()
    if wait is None or wait.call == faults.EXIT_CALL:  # the other ranks may work as long as they like
        return None
    seconds = (time.monotonic_ns() - wait.begin) / 1e9 - grace
    limit = record.timeout if wait.number or wait.peer != -1 else start_limit(record.timeout)
    if seconds > limit:
        return f" (timeout of {limit:g} s)"
    patience = VERDICT_SECONDS if os.path.exists(os.path.join(folder, VERDICT)) else GONE_SECONDS
    return "" if seconds > patience and _waits_for_the_gone(folder, wait) else None


def start_limit(timeout: float) -> float:
    """Seconds for MPI to start: on a big machine with a cold file system that takes its time."""
    return max(timeout, START_SECONDS)


def is_first(folder: str, name: str) -> bool:
    """Whether this is the first process of the machine that asks for this name."""
    try:
        os.close(os.open(os.path.join(folder, name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    except OSError:
        pass  # the directory is gone: better twice than never
    return True


def _waits_for_the_gone(folder: str, wait: Entry) -> bool:
    """Whether a rank that has not come will make no more calls."""
    for rank in wait.members:
        path = recorder.path_of(folder, rank)
        if recorder.is_gone(path):
            with contextlib.suppress(OSError):
                if not recorder.read(path).has_come(wait):
                    return True
    return False


def find_late(folder: str) -> tuple[int, str] | None:
    """A rank that should have ended the job itself, but could not, and the reason; None if all is well."""
    for rank, record in recorder.read_all(folder).items():
        reason = why_hopeless(folder, record, GRACE_SECONDS)
        if reason is not None and is_first(folder, FILE):
            return rank, reason
    return None


def headline(folder: str, wait: Entry) -> str:
    """One line: which rank has not come, and what it is doing."""
    return _headline(look(folder), wait)


def compose(sights: Mapping[int, Sight], rank: int, reason: str) -> str:
    """The whole report on a job that is about to be ended, as this rank waits in vain; its first line says it all."""
    wait = sights[rank].record.running() if rank in sights else None
    first = f"no progress on rank {rank}" if wait is None else _headline(sights, wait)
    return "\n".join([first + reason, *_lines(sights), *_all_stacks(sights)])


def overview(sights: Mapping[int, Sight]) -> str:
    """What all ranks are doing, with their stacks."""
    return "\n".join([*_lines(sights), *_all_stacks(sights)])


def last_seen(folder: str, rank: int) -> str:
    """What a rank that has died was doing, as far as its record tells."""
    try:
        record = recorder.read(recorder.path_of(folder, rank))
    except OSError:
        return ""
    running = record.running()
    if running is not None:
        return f"in {running}"
    return f"after {record.entries[-1]}" if record.entries else "before its first collective"


def _headline(sights: Mapping[int, Sight], wait: Entry) -> str:
    missing = [rank for rank in _missing(sights, wait) if rank in sights]
    if not missing:
        unseen = [rank for rank in wait.members if rank not in sights]
        what = f"{_ranks(unseen)} cannot be seen from this machine" if unseen else "every rank has entered it"
        return f"no progress in {wait}: {what}"
    entered = "entered" if wait.peer == -1 else "answered"
    text = f"{_ranks(missing)} {'has' if len(missing) == 1 else 'have'} not {entered} {wait}"
    roots = _roots(sights, wait, missing)
    return text + "; " + "; ".join(f"{_who(rank, missing)} {_doing(sights[rank])}" for rank in roots)


def _who(rank: int, missing: list[int]) -> str:
    return "it" if missing == [rank] else f"rank {rank}"


def _missing(sights: Mapping[int, Sight], wait: Entry) -> list[int]:
    """Members that have not made the call."""
    return [rank for rank in wait.members if rank not in sights or not sights[rank].record.has_come(wait)]


def _roots(sights: Mapping[int, Sight], wait: Entry, missing: list[int]) -> list[int]:
    """Those at the end of the chain: rank 0 may wait for rank 1, which waits for rank 2 in another group."""
    seen: set[int] = set()
    roots = []
    queue = list(missing)
    while queue:
        rank = queue.pop(0)
        if rank in seen or rank not in sights:
            continue
        seen.add(rank)
        running = sights[rank].record.running()
        if running is None or not sights[rank].alive:
            roots.append(rank)
        else:
            queue += _missing(sights, running)
    return sorted(roots) or missing


def _doing(sight: Sight) -> str:
    """What the rank does, as the end of a sentence."""
    record = sight.record
    if record.ended:
        return "has come to the end of its program"
    if not sight.alive:
        return "has died"
    stopped = "was stopped by a signal; it " if sight.stopped else ""
    running = record.running()
    if running is not None:
        seconds = (time.monotonic_ns() - running.begin) / 1e9
        return f"{stopped}waits since {seconds:.1f} s in {running}"
    after = f", after {record.entries[-1]}" if record.entries else ", before its first collective"
    return f"{stopped}is {_where(sight.stacks)}{after}"


def _where(stacks: str) -> str:
    """The user's line that runs, from what faulthandler has printed."""
    threads = _parse_stacks(stacks)
    if not threads:
        return "somewhere (its stack is not to be had)"
    main = list(threads.values())[-1]  # threads come from the youngest to the oldest
    loading = any(frame.file.startswith(_DATA) for frame in main)
    if loading:  # what the reading thread is at says more than where its result is waited for
        reading = [stack for stack in threads.values() if any(f.function == "_read_ahead" for f in stack)]
        main = [*reading, main][0]
    own = [f for f in main if not f.file.startswith(PACKAGE)]
    frame = next((f for f in own if not f.file.startswith(_libraries())), (own or main)[0])
    return f"in {'the data loader' if loading else 'user code'} at {frame.file}:{frame.line} in {frame.function}"


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Where the code of others is, with which every blocking call ends."""
    return (*(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")), "<frozen")


def _parse_stacks(text: str) -> dict[str, list[Frame]]:
    """Frames by thread, innermost first, without those that started the program."""
    threads: dict[str, list[Frame]] = {}
    name = ""
    for line in text.splitlines():
        if match := _FRAME.match(line):
            threads.setdefault(name, []).append(Frame(*match.groups()))
        elif line:
            name = line
    for stack in threads.values():
        while len(stack) > 1 and stack[-1].file.startswith(_STARTERS):
            stack.pop()
    return {name: stack for name, stack in threads.items() if not stack[0].file.startswith(_OWN)}


def look(folder: str, resume: bool = False) -> dict[int, Sight]:
    """Look at all ranks of this machine; those that are stopped can print their stacks only when they are resumed."""
    records = recorder.read_all(folder)
    states = {rank: _process_state(record.pid) for rank, record in records.items()}
    files = {rank: recorder.stacks_path(recorder.path_of(folder, rank)) for rank in records}
    before = {rank: _size(file) for rank, file in files.items()}
    asked = set()
    for rank, record in records.items():
        if states[rank] not in ("", "Z") and not record.ended:  # who is about to end would die of the signal
            with contextlib.suppress(OSError):
                os.kill(record.pid, recorder.STACKS_SIGNAL)
                if states[rank] == "T" and resume:
                    os.kill(record.pid, signal.SIGCONT)
            if states[rank] != "T" or resume:
                asked.add(rank)
    _settle({rank: files[rank] for rank in asked}, before)
    return {
        rank: Sight(record, states[rank] not in ("", "Z"), states[rank] == "T", _read_from(files[rank], before[rank]))
        for rank, record in records.items()
    }


def _settle(files: Mapping[int, str], before: Mapping[int, int]) -> None:
    """Wait until each of these files has grown, and grows no more."""
    deadline = time.monotonic() + STACK_SECONDS
    sizes: dict[int, int] = {}
    while time.monotonic() < deadline:
        time.sleep(0.02)
        now = {rank: _size(file) for rank, file in files.items()}
        if now == sizes and all(now[rank] > before[rank] for rank in now):
            return
        sizes = now


def _process_state(pid: int) -> str:
    """The letter in /proc: R running, S sleeping, T stopped, Z ended; "" if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _read_from(path: str, start: int) -> str:
    with contextlib.suppress(OSError), open(path) as file:
        file.seek(start)
        return file.read()
    return ""


def _lines(sights: Mapping[int, Sight]) -> list[str]:
    """One line for each rank."""
    return [f"  rank {rank} {_doing(sight)}" for rank, sight in sights.items()]


def _all_stacks(sights: Mapping[int, Sight]) -> list[str]:
    """Stacks of the ranks that are in no collective, or of all if there is none such."""
    busy = {rank: sight for rank, sight in sights.items() if sight.record.running() is None and sight.alive}
    lines = []
    for rank, sight in (busy or sights).items():
        lines.append(f"stacks of rank {rank}:")
        for name, stack in _parse_stacks(sight.stacks).items():
            lines += [f"  {name}", *(f"    {each.file}:{each.line} in {each.function}" for each in stack)]
    return lines


def _ranks(ranks: list[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else "ranks " + ", ".join(map(str, ranks))
