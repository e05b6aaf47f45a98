"""Ranks that wait for each other in different communicators, each in a call that the other will never make.

No signature can show this: signatures meet in one communicator. What shows it are the flight recorders of the machine.
A rank that can make no other call while it waits says so in a file; where such ranks wait for each other in a circle,
nothing can ever free them, however long they wait. The first to see it publishes it, and all that wait raise it.
"""

from __future__ import annotations

import contextlib
import os
import threading

from .. import recorder, report
from ..recorder import Entry, Record, Recorder
from .signature import CollectiveMismatchError

FIRST_LOOK_SECONDS = 1.0  # of waiting
_STUCK = "stuck-"
# Threads that make no collective calls while the main thread waits.
_HARMLESS = ("paceline", "tqdm")

# What ended a wait of this rank. Its call is left half done, so that none may follow, in whichever communicator.
failures: list[CollectiveMismatchError] = []


class Lookout:
    """What one rank does while it waits for long.

    Args:
        own: this rank's record.
        rank: its number in the job.
    """

    def __init__(self, own: Recorder, rank: int) -> None:
        self._own = own
        self._rank = rank
        self._since = -1
        self._next_search = 0.0

    def look(self, seconds: float) -> None:
        """Raise CollectiveMismatchError if waiting is in vain; `seconds` is how long this rank has waited."""
        self._raise_verdict()
        waits = _waits_of(self._own.record())
        if len(waits) != 1 or not _is_only_caller():
            return
        if waits[0].begin != self._since:
            self._since, self._next_search = waits[0].begin, 0.0
            _write(self._path(f"{_STUCK}{self._rank}"), str(self._since))
        if seconds < self._next_search:
            return
        # The last to come searches soon after, so that those who wait for hours need not read all records all the time.
        self._next_search = 2 * seconds
        found = _find_circles(self._own.folder)
        # What is the same at two moments was so at all moments between, for all of these ranks at once.
        if self._rank in found and found == _find_circles(self._own.folder):
            self._publish(_explain(found))
            self._raise_verdict()

    def _raise_verdict(self) -> None:
        if text := _read(self._own.folder, report.VERDICT):
            failures.append(CollectiveMismatchError(text))
            raise failures[0]

    def _publish(self, text: str) -> None:
        """Make the text the verdict, unless another rank was quicker."""
        draft = self._path(f"{report.VERDICT}-{self._rank}")
        _write(draft, text)
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            os.link(draft, self._path(report.VERDICT))

    def _path(self, name: str) -> str:
        return os.path.join(self._own.folder, name)


def _find_circles(folder: str) -> dict[int, Entry]:
    """What the ranks are in that wait for each other in circles, or for ranks that do."""
    records = recorder.read_all(folder)
    stuck = {
        rank: waits[0]
        for rank, record in records.items()
        if len(waits := _waits_of(record)) == 1 and _read(folder, f"{_STUCK}{rank}") == str(waits[0].begin)
    }
    while free := [rank for rank in stuck if not stuck.keys() & _missing(records, stuck[rank])]:
        for rank in free:
            del stuck[rank]
    return stuck


def _explain(waits: dict[int, Entry]) -> str:
    lines = "".join(f"\n  rank {rank}: {wait} in the group of ranks {wait.group}" for rank, wait in waits.items())
    return f"the ranks wait for each other in different groups, and would for ever:{lines}"


def _waits_of(record: Record) -> list[Entry]:
    """The collectives that a rank is in."""
    return [entry for entry in record.entries if not entry.end]


def _missing(records: dict[int, Record], wait: Entry) -> set[int]:
    """The ranks that have not come to a collective; a message (or the start of MPI) counts as no proof of waiting."""
    if wait.peer != -1 or not wait.number:
        return set()
    return {rank for rank in wait.members if rank in records and not records[rank].has_come(wait)}


def _is_only_caller() -> bool:
    """Whether no other thread of this rank could make the call that others wait for."""
    if threading.current_thread() is not threading.main_thread():
        return False
    others = [each for each in threading.enumerate() if each is not threading.main_thread()]
    return all(each.name.startswith(_HARMLESS) or type(each).__module__.startswith(_HARMLESS) for each in others)


def _write(path: str, text: str) -> None:
    """Nothing where the folder is gone: the launcher has removed it, since the job is at its end."""
    with contextlib.suppress(FileNotFoundError), open(path, "w") as file:
        file.write(text)


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name)) as file:
            return file.read()
    except OSError:
        return ""
