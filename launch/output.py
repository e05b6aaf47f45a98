"""What the ranks of this machine print: read from a pipe for each rank and stream, shown line by line."""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
from collections.abc import Callable
from typing import NamedTuple

_CHUNK = 1 << 16
_PAUSE = 0.05  # seconds for which rank 0 may stop within a line


class _Stream(NamedTuple):
    """One rank's stdout or stderr; rank 0's tag is empty."""

    target: int
    tag: bytes


class Output:
    """Shows the ranks' output line by line: rank 0's as it is, and without much delay; the others' with a tag.

    mpiexec would cut lines where its buffers end, and what libraries in C print would have no tag.
    """

    def __init__(self, folder: str, size: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._pipes: list[int] = []
        self._unfinished: dict[int, tuple[_Stream, bytes]] = {}  # pipe -> the beginning of a line
        self._open_line: dict[int, bool] = {1: False, 2: False}  # whether rank 0 is within a line
        self._stop = os.eventfd(0)
        self._selector.register(self._stop, selectors.EVENT_READ)
        for rank in range(size):
            for target in (1, 2):
                path = pipe_path(folder, rank, target)
                os.mkfifo(path)
                # For writing as well: it must not end when the rank closes its side.
                pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
                self._pipes.append(pipe)
                self._selector.register(pipe, selectors.EVENT_READ, _Stream(target, b"[%d] " % rank if rank else b""))
        # A thread, so that a terminal that is stopped does not stop the supervision of the job.
        self._thread = threading.Thread(target=self._run, name="paceline-output", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Show what is left; no rank is there any more."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                while self._pass_on(key.fd, key.data):
                    pass
        self._show_unfinished(lambda stream: True)
        for pipe in (*self._pipes, self._stop):
            os.close(pipe)
        self._selector.close()

    def _run(self) -> None:
        while True:
            ready = [key for key, _ in self._selector.select(_PAUSE if self._unfinished else None)]
            if not ready:
                self._show_unfinished(lambda stream: not stream.tag)  # a prompt, or a progress bar
            for key in ready:
                if key.data is not None:
                    self._pass_on(key.fd, key.data)
            if any(key.fd == self._stop for key in ready):
                return

    def _pass_on(self, pipe: int, stream: _Stream) -> bool:
        """Show what is in a pipe, up to the end of its last line; whether there was something."""
        try:
            text = os.read(pipe, _CHUNK)
        except BlockingIOError:
            return False
        _, begun = self._unfinished.pop(pipe, (stream, b""))
        whole, newline, rest = (begun + text).rpartition(b"\n")
        self._show(stream, whole + newline)
        if rest:
            self._unfinished[pipe] = (stream, rest)
        return True

    def _show_unfinished(self, which: Callable[[_Stream], bool]) -> None:
        for pipe, (stream, text) in list(self._unfinished.items()):
            if which(stream):
                del self._unfinished[pipe]
                self._show(stream, text)

    def _show(self, stream: _Stream, text: bytes) -> None:
        if not text:
            return
        if not stream.tag:
            self._open_line[stream.target] = not text.endswith(b"\n")
        else:
            lines = text.removesuffix(b"\n").split(b"\n")
            text = b"".join(stream.tag + line + b"\n" for line in lines)
            if self._open_line[stream.target]:
                text = b"\n" + text
                self._open_line[stream.target] = False
        with contextlib.suppress(OSError):  # nobody reads; the job goes on
            while text:
                text = text[os.write(stream.target, text) :]


def pipe_path(folder: str, rank: int, target: int) -> str:
    """The pipe for what a rank prints, 1 for stdout and 2 for stderr."""
    return os.path.join(folder, f"output-{rank}-{target}")
