"""The flight recorder: each rank's last collectives, in a small mapped file that outlives whatever ends the rank.

Layout of a file, native byte order: a header, a ring of entries, and the texts that entries refer to by their offset.
Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import itertools
import mmap
import os
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType
from typing import NamedTuple

from . import timeline
from .callers import PACKAGE
from .world import World

# `paceline run` makes a directory for the records of all ranks of its machine and names it here.
FOLDER = "PACELINE_RUN_DIR"

_HEADER = struct.Struct("=IIId")  # process id, rank, whether its program has ended, timeout
_ENTRY = struct.Struct("=QQQQIIIi")  # begin, end, inside, number; where the texts of group, call, place are; peer
_TEXTS_AT = struct.Struct("=IIIi")
_PREPARED = struct.Struct(f"=QQQQ{_TEXTS_AT.size}s")
_BEGIN = struct.Struct("=Q")
_FINISH = struct.Struct("=QQ")
_ENTRIES = 256
_RING = 64
_TEXTS = _RING + _ENTRIES * _ENTRY.size
_SIZE = 128 << 10
_ANYBODY = -2
_LENGTH = struct.Struct("=H")
_PREFIX = "record-"
_MAX_TEXT = 1000

# Prints all threads' stacks into a file beside the record, from C: also when the rank is deep in a library.
STACKS_SIGNAL = signal.SIGRTMIN + 3

_SKIPPED = (*PACKAGE, contextlib.__file__)


class Entry(NamedTuple):
    """One collective, or one message, of one rank.

    Attributes:
        begin: when the rank called it, in ns.
        end: when it returned, in ns; 0 if it has not.
        inside: ns that the rank had spent in collectives when it returned.
        number: how many collectives of this group the rank has called with it; 0 for messages.
        group: the communicator's ranks of the world, as in "0-2,5"; a second one of the same ranks is "0-2,5#2".
        call: kind, dtype, shape and options.
        place: file:line of the user's call.
        peer: the other rank of a message, -2 for any, -1 for a collective.
    """

    begin: int
    end: int
    inside: int
    number: int
    group: str
    call: str
    place: str
    peer: int

    def __str__(self) -> str:
        number = f"#{self.number} " if self.number else ""
        return f"{number}{self.call} at {self.place}"

    @property
    def members(self) -> list[int]:
        """The ranks that it needs."""
        if self.peer >= 0:
            return [self.peer]
        bounds = [part.split("-") for part in self.group.partition("#")[0].split(",")]
        return [rank for first, *last in bounds for rank in range(int(first), int(last[0] if last else first) + 1)]


class Record(NamedTuple):
    """What a rank's file says.

    Attributes:
        pid: the rank's process.
        rank: its number in the world.
        ended: whether its program has come to its end.
        timeout: seconds that it may wait in one collective.
        entries: the last collectives, oldest first.
    """

    pid: int
    rank: int
    ended: bool
    timeout: float
    entries: list[Entry]

    def has_come(self, wait: Entry) -> bool:
        """Whether the rank has made the call in which another waits."""
        if wait.peer != -1:
            return False  # a message leaves no trace on the other side
        return any(entry.group == wait.group and entry.number >= wait.number for entry in self.entries)

    def running(self) -> Entry | None:
        """The collective that the rank is in: of several, in several threads, the one that was called first."""
        return next((entry for entry in self.entries if not entry.end), None)


class Recorder:
    """The file that this rank writes."""

    def __init__(self, path: str, rank: int) -> None:
        self.path = path
        self.folder = os.path.dirname(path)
        with open(path, "w+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, _SIZE)  # a full file system must not end the rank later, by SIGBUS
            except OSError:
                os.unlink(path)
                raise
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._rank = rank
        self._next = itertools.cycle(range(_RING, _TEXTS, _ENTRY.size)).__next__
        self._inside = 0
        self._texts: dict[object, int] = {}  # calls and their texts
        self._places: dict[tuple[int, int], int] = {}
        self._codes: list[CodeType] = []  # kept, so that no other code gets the id of one in _places
        self._texts_end = _TEXTS
        self._groups: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._add_text("?")
        faulthandler.register(STACKS_SIGNAL, os.open(stacks_path(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        self.update()

    def begin(self, number: int, group: str, call: object, place: str | None = None, peer: int = -1) -> int:
        """Note that a collective is called now, at `place` or at the user's line; what is returned is for `end`."""
        offset = self._next()
        texts = self._texts
        call_at = texts.get(call) or self._add_text(call)
        group_at = texts.get(group) or self._add_text(group)
        place_at = self._place(sys._getframe(1)) if place is None else texts.get(place) or self._add_text(place)
        _ENTRY.pack_into(self._map, offset, time.monotonic_ns(), 0, 0, number, group_at, call_at, place_at, peer)
        return offset

    def prepare(self, group: str, call: object, depth: int) -> Callable[[int], int]:
        """What notes such a call, given its number, as one that returns at once; the user is `depth` frames above."""
        now, pack, memory, advance = time.monotonic_ns, _PREPARED.pack_into, self._map, self._next
        frame_above = sys._getframe
        group_at, call_at = self._add_text(group), self._add_text(call)
        code, instruction, texts = None, -1, b""  # of the call before, which often came from the same place

        def find_texts(frame: FrameType) -> None:
            nonlocal code, instruction, texts
            texts = _TEXTS_AT.pack(group_at, call_at, self._place(frame), -1)
            is_users = self._places.get((id(frame.f_code), frame.f_lasti))
            code, instruction = frame.f_code if is_users else None, frame.f_lasti

        def note(number: int) -> int:
            frame = frame_above(depth)
            if frame.f_lasti != instruction or frame.f_code is not code:
                find_texts(frame)
            offset = advance()
            moment = now()
            pack(memory, offset, moment, moment, self._inside, number, texts)
            return offset

        return note

    def reopen(self, offset: int) -> None:
        """Note that a collective does not return yet."""
        _FINISH.pack_into(self._map, offset + 8, 0, 0)

    def end(self, offset: int) -> None:
        """Note that the collective returns now."""
        now = time.monotonic_ns()
        self._inside += now - _BEGIN.unpack_from(self._map, offset)[0]
        _FINISH.pack_into(self._map, offset + 8, now, self._inside)

    @contextlib.contextmanager
    def waiting(self, group: str, kind: str, peer: int | None, tag: int) -> Iterator[None]:
        """Note that this rank waits for a message from or to a rank of the world, or from any."""
        call = f"{kind}({'any rank' if peer is None else f'rank {peer}'}, tag={tag})"
        begin = time.monotonic_ns()
        offset = self.begin(0, group, call, None, _ANYBODY if peer is None else peer)
        try:
            yield
        finally:
            self.end(offset)
            timeline.note(begin, "message", call)

    def name_group(self, ranks: Sequence[int]) -> str:
        """What entries call a communicator of these ranks of the world; all its members get the same name."""
        members = name_of(ranks)
        self._groups[members] += 1
        return members if self._groups[members] == 1 else f"{members}#{self._groups[members]}"

    def record(self) -> Record:
        """What the file says now."""
        return _parse(self._map[:])

    def update(self, ended: bool = False, timeout: float = float("inf")) -> None:
        """Note whether this rank will make no more calls, and how long it may wait in one."""
        _HEADER.pack_into(self._map, 0, os.getpid(), self._rank, ended, timeout)

    def remove_with_the_last(self) -> None:
        """Take the directory away, if all ranks of the machine have come to their end; the launcher's is not ours."""
        if self.folder == os.environ.get(FOLDER):
            return
        if all(is_gone(path_of(self.folder, rank)) for rank in read_all(self.folder)):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _place(self, frame: FrameType) -> int:
        """The text of the innermost line outside this package, from this frame on."""
        while True:
            # Line numbers and names of files are slow to look up: once for each place in the bytecode.
            found = self._places.get((id(frame.f_code), frame.f_lasti))
            if found is None:
                found = self._add_place(frame)
            if found or frame.f_back is None:
                return found
            frame = frame.f_back

    def _add_place(self, frame: FrameType) -> int:
        """The text of a frame's line, to be found from now on; 0 in this package."""
        code = frame.f_code
        if len(self._places) > 10_000:  # a program that compiles code as it goes
            self._places.clear()
            self._codes.clear()
        self._codes.append(code)
        outside = frame.f_back is None or not code.co_filename.startswith(_SKIPPED)
        found = self._add_text(f"{code.co_filename}:{frame.f_lineno}") if outside else 0
        self._places[id(code), frame.f_lasti] = found
        return found

    def _add_text(self, source: object) -> int:
        """Where the text of an object stands in the file, after this."""
        text = str(source)
        with self._lock:
            offset = self._texts.get(text, self._texts_end)
            if offset == self._texts_end:
                content = text.encode()[-_MAX_TEXT:]
                end = offset + _LENGTH.size + len(content)
                if end > _SIZE:
                    return _TEXTS  # full; the question mark stands for the rest
                _LENGTH.pack_into(self._map, offset, len(content))
                self._map[offset + _LENGTH.size : end] = content
                self._texts_end = end
            self._texts[source] = self._texts[text] = offset
            return offset


def stacks_path(path: str) -> str:
    """The file in which STACKS_SIGNAL prints the stacks of the rank that has this record."""
    return f"{path}.stacks"


def read(path: str) -> Record:
    """What a file says, at any time and to any process."""
    with open(path, "rb") as file:
        return _parse(file.read())


def _parse(content: bytes) -> Record:
    pid, rank, ended, timeout = _HEADER.unpack_from(content)
    rows = sorted(row for row in _ENTRY.iter_unpack(content[_RING:_TEXTS]) if row[0])
    text = functools.cache(functools.partial(_text, content))
    entries = [
        Entry(begin, end, inside, number, text(group), text(call), text(place), peer)
        for begin, end, inside, number, group, call, place, peer in rows
    ]
    return Record(pid, rank, bool(ended), timeout, entries)


def path_of(folder: str, rank: int) -> str:
    """The record of a rank."""
    return os.path.join(folder, f"{_PREFIX}{rank}")


def is_gone(path: str) -> bool:
    """Whether the rank with this record will make no more calls; quicker than reading all of it."""
    try:
        with open(path, "rb") as file:
            pid, _, ended, _ = _HEADER.unpack(file.read(_HEADER.size))
    except (OSError, struct.error):
        return False  # on another machine, or not yet started
    return bool(ended) or not os.path.exists(f"/proc/{pid}")


def read_all(folder: str) -> dict[int, Record]:
    """The records in a directory, by rank."""
    records = {}
    try:
        names = os.listdir(folder)
    except FileNotFoundError:  # taken away by the last rank
        names = []
    for name in names:
        rank = name.removeprefix(_PREFIX)
        if rank.isdigit():
            with contextlib.suppress(OSError, struct.error):  # a rank that ends takes its file away
                records[int(rank)] = read(os.path.join(folder, name))
    return dict(sorted(records.items()))


def start(world: World) -> Recorder | None:
    """The recorder of this rank; None where no file can be written."""
    with contextlib.suppress(OSError):
        return Recorder(path_of(job_folder(), world.rank), world.rank)
    return None


def name_of(ranks: Sequence[int]) -> str:
    """Numbers as short as "0-2,5"."""
    parts: list[list[int]] = []
    for rank in sorted(ranks):
        if parts and parts[-1][-1] == rank - 1:
            parts[-1] = [parts[-1][0], rank]
        else:
            parts.append([rank])
    return ",".join("-".join(map(str, part)) for part in parts)


def _text(content: bytes, offset: int) -> str:
    """The text at an offset."""
    (length,) = _LENGTH.unpack_from(content, offset)
    start = offset + _LENGTH.size
    return content[start : start + length].decode(errors="replace")


def job_folder() -> str:
    """The directory that the ranks of this job on this machine share.

    Without `paceline run` it is named after the parent that they have in common, mpiexec's local process.
    """
    given = os.environ.get(FOLDER)
    if given is not None and os.path.isdir(given):
        return given
    remove_old()
    folder = os.path.join(tempfile.gettempdir(), f"{job_prefix()}{os.getppid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    if os.stat(folder).st_uid != os.getuid():
        raise PermissionError(folder)
    return folder


def job_prefix() -> str:
    """How the names of directories for jobs begin, before the process id of what has started the job."""
    return f"paceline-{os.getuid()}-"


def remove_old() -> None:
    """Remove what jobs have left that did not come to their end."""
    place = tempfile.gettempdir()
    for name in os.listdir(place):
        starter = name.removeprefix(job_prefix()).partition("-")[0]
        if name.startswith(job_prefix()) and starter.isdigit() and not os.path.exists(f"/proc/{starter}"):
            shutil.rmtree(os.path.join(place, name), ignore_errors=True)
