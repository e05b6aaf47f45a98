"""What `paceline run` starts on every rank: run the user's program, and see to it that nothing outlives the job.

Called as `python -m paceline.launch.worker SCRIPT ARGS...` or `... -m MODULE ARGS...`.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import runpy
import signal
import sys
from types import TracebackType
from typing import Any, BinaryIO, TextIO

from ..runtime import faults, recorder
from ..runtime.world import RESTARTS, World, get_world
from . import agent
from .lifeline import hold_lifeline
from .output import pipe_path

# Where every rank writes its output into files of its own.
LOG_FOLDER = "PACELINE_LOG_DIR"
_PR_SET_PDEATHSIG = 1


def main() -> None:
    die_with_parent()
    world = get_world()
    agent.join(world)
    with contextlib.suppress(OSError, KeyError):  # there is no launcher
        hold_lifeline(os.environ[recorder.FOLDER], world.rank)
    faults.notify_launcher(f"started {world.rank} {os.getpid()}")
    if world.size > 1 or LOG_FOLDER in os.environ:
        sys.stdout = _open_stream(sys.stdout, world.rank, "out")
        sys.stderr = _open_stream(sys.stderr, world.rank, "err")
    os.environ |= as_torchrun(world)
    try:
        _run_program(sys.argv[1:])
    except SystemExit as error:
        if not faults.is_rank():
            raise
        if faults.exit_code(error) == 0:
            faults.notify_launcher(f"done {world.rank}")
        elif world.size > 1:
            faults.end_job(error)  # `raise SystemExit(3)` runs no hook of the interpreter
        raise
    except (Exception, KeyboardInterrupt) as error:
        error.__traceback__ = _user_frames(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        raise SystemExit(faults.INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1) from None
    if faults.is_rank():
        faults.notify_launcher(f"done {world.rank}")


def as_torchrun(world: World) -> dict[str, str]:
    """The variables by which torchrun tells a script its place: many read LOCAL_RANK in their first lines."""
    return {
        "RANK": str(world.rank),
        "WORLD_SIZE": str(world.size),
        "LOCAL_RANK": str(world.local_rank),
        "LOCAL_WORLD_SIZE": str(world.local_size),
    }


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _run_program(arguments: list[str]) -> None:
    """Run a script or module as `python` would."""
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return
    sys.argv = arguments
    sys.path[0] = os.path.dirname(os.path.realpath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


def _user_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this module and of runpy, with which it begins."""
    ours = {__file__, runpy.run_path.__code__.co_filename}
    while trace is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    return trace


def _open_stream(stream: TextIO, rank: int, suffix: str) -> TextIO:
    """The rank's stdout or stderr; in a file too, if there is a directory for that.

    What libraries and child processes print then goes to the file alone.
    """
    tag = rank
    with contextlib.suppress(OSError, KeyError):  # on the launcher's machine it puts the tags
        pipe = os.open(pipe_path(os.environ[recorder.FOLDER], rank, stream.fileno()), os.O_WRONLY)
        os.dup2(pipe, stream.fileno())
        os.close(pipe)
        tag = 0
    folder = os.environ.get(LOG_FOLDER)
    if folder is None:
        return _line_stream(stream, tag)
    os.makedirs(folder, exist_ok=True)  # on another machine it may not be there
    path = os.path.join(folder, f"rank-{rank}.{suffix}")
    # A restart must not wipe out why it was needed.
    file = open(path, "wb") if os.environ.get(RESTARTS, "0") == "0" else open(path, "ab")
    screen = open(os.dup(stream.fileno()), "w", encoding=stream.encoding, errors=stream.errors)
    os.dup2(file.fileno(), stream.fileno())
    return _LoggedStream(file, _line_stream(screen, tag))


def _line_stream(stream: TextIO, rank: int) -> TextIO:
    """`stream`, made to write whole lines: MPI mixes the ranks' output piece by piece, as it is written.

    Rank 0's lines stay as they are, so that progress bars and results can be read; those of rank r begin with `[r] `.
    """
    assert isinstance(stream, io.TextIOWrapper)
    if rank == 0:
        stream.reconfigure(line_buffering=True, write_through=False)
        return stream
    encoding, errors = stream.encoding, stream.errors
    return _TaggedStream(stream.detach(), encoding, errors, f"[{rank}] ")


class _TaggedStream(io.TextIOWrapper):
    """Text stream whose every line begins with a tag."""

    def __init__(self, buffer: Any, encoding: str, errors: str | None, tag: str) -> None:
        super().__init__(buffer, encoding, errors, line_buffering=True)
        self._tag = tag
        self._at_line_start = True

    def write(self, text: str, /) -> int:
        if text:
            tagged = text[:-1].replace("\n", "\n" + self._tag) + text[-1]
            super().write(self._tag + tagged if self._at_line_start else tagged)
            self._at_line_start = text.endswith("\n")
        return len(text)


class _LoggedStream(io.TextIOWrapper):
    """Text stream into a file that is shown on the screen as well."""

    def __init__(self, file: BinaryIO, screen: TextIO) -> None:
        super().__init__(file, screen.encoding, screen.errors, line_buffering=True)
        self._screen = screen

    def write(self, text: str, /) -> int:
        self._screen.write(text)
        return super().write(text)

    def flush(self) -> None:
        self._screen.flush()
        super().flush()


if __name__ == "__main__":
    main()
