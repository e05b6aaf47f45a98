"""What each rank does when: spans of time, written where `paceline run --timeline` asks for it.

Functions are marked by decorators that give them back as they are when no timeline is wanted, so that it costs nothing.
"""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from .world import get_world

if TYPE_CHECKING:
    from .comm import Comm

# The directory for the files of all ranks. Taken out of the environment: processes that a rank starts are no ranks.
FOLDER = "PACELINE_TIMELINE"
_ALIGNMENTS = 9

F = TypeVar("F", bound=Callable[..., Any])
_folder = os.environ.pop(FOLDER, None)
_file: TextIO | None = None
_lock = threading.RLock()  # a signal handler may end the rank amid a line
_thread = threading.local()


def traced(category: str, name: Callable[..., str] | None = None) -> Callable[[F], F]:
    """Decorator of functions whose calls are spans.

    Args:
        category: what they are part of: "forward", "backward", "bucket", "collective", "message" (the wait for one),
            "wait", "optimizer" or "loader".
        name: function of the arguments that gives the span's name; default: the category.
    """

    def mark(function: F) -> F:
        if _folder is None:
            return function

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            begin = time.monotonic_ns()
            try:
                return function(*args, **kwargs)
            finally:
                note(begin, category, category if name is None else name(*args, **kwargs))

        return wrapper  # type: ignore[return-value]

    return mark


def traced_items(category: str, name: str) -> Callable[[F], F]:
    """Decorator of functions that return an iterator; each step of it is a span."""

    def mark(function: F) -> F:
        if _folder is None:
            return function

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Iterator[Any]:
            items = iter(function(*args, **kwargs))
            step = traced(category, lambda: name)(items.__next__)
            while True:
                try:
                    item = step()
                except StopIteration:
                    return
                yield item

        return wrapper  # type: ignore[return-value]

    return mark


def align(comm: Comm) -> None:
    """Note how far this machine's clock is from that of rank 0, to some microseconds; a collective."""
    if _folder is None:
        return
    away = []
    for _ in range(_ALIGNMENTS):
        comm.barrier()
        clocks = comm.all_gather_object((socket.gethostname(), time.monotonic_ns()))
        away.append(clocks[comm.rank][1] - clocks[0][1])
    same = clocks[comm.rank][0] == clocks[0][0]
    _line("clock", 0 if same else sorted(away)[_ALIGNMENTS // 2])


def is_recording() -> bool:
    """Whether a timeline is wanted."""
    return _folder is not None


def write_to(folder: str) -> None:
    """Have the files here, on a machine that does not see the launcher's."""
    global _folder
    if _folder is not None:
        _folder = folder


def flush() -> None:
    """Put into the file what has been noted: now and then, and before an end that runs no other hook."""
    if _file is not None:
        with _lock:
            _file.flush()


def note(begin: int, category: str, name: str) -> None:
    """Note a span of this thread that began at this time of `time.monotonic_ns()` and ends now."""
    if _folder is None:
        return
    end = time.monotonic_ns()
    thread = threading.get_native_id()
    if not hasattr(_thread, "known"):
        _thread.known = True
        main = threading.current_thread() is threading.main_thread()
        _line("thread", thread, "main" if main else threading.current_thread().name)
    _line("span", thread, begin, end, category, name)


def _line(*items: object) -> None:
    global _file
    with _lock:
        if _file is None:
            _file = open(os.path.join(str(_folder), f"timeline-{get_world().rank}"), "w")
        _file.write("\t".join(map(str, items)) + "\n")


def _before_fork() -> None:
    _lock.acquire()  # no other thread's: in a child nobody would release it
    flush()  # or a child would write down the same lines at its end


def _be_no_rank() -> None:
    """In a child: note nothing, in a file that is the rank's."""
    global _folder, _file
    _folder = _file = None
    _lock.release()


if _folder is not None:
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_be_no_rank)
