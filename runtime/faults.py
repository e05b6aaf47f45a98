"""One rank that fails ends the job, with its traceback shown first.

Without this every MPI hangs for ever: the failing rank waits in MPI_Finalize for the others, who wait for it in a
collective.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from . import recorder, timeline
from .recorder import Recorder
from .world import RANK_PID, World, get_world

# The launcher reads from this pipe which rank failed first; it exists only under `paceline run`.
EVENTS = "PACELINE_EVENTS"
# How the call with which a rank says that it is at its end appears in the flight recorder.
EXIT_CALL = "exit()"
# What mpiexec gets to pass on what a rank has written, before it is told to kill all.
_PASS_ON_SECONDS = 0.05
INTERRUPTED = 128 + signal.SIGINT

flight_recorder: Recorder | None = None
_at_end: list[Callable[[], None]] = []
_exit_now = os._exit
_status_of_child = 0  # with which a forked child is about to end
_plain_code: Any = SystemExit.__dict__["code"]


def install(world: World) -> None:
    """Make an uncaught exception, in any thread, or an exit with an error on this rank end the whole job.

    `raise SystemExit(3)`, which runs no hook at all, is noticed where the other ranks go on to a collective: there they
    meet a rank that is at its end, see `at_end`.
    """
    global flight_recorder
    if world.size == 1:
        return
    sys.excepthook = _on_exception
    threading.excepthook = _on_thread_exception
    sys.exit = _exit  # type: ignore[assignment]
    os._exit = _leave_at_once  # type: ignore[assignment]
    # A rank that hangs inside MPI runs no Python signal handlers; this one is C and prints every thread's stack.
    faulthandler.register(signal.SIGUSR2)
    if not faulthandler.is_enabled():
        with contextlib.suppress(OSError, ValueError, AttributeError):  # there is no stderr
            faulthandler.enable()
    flight_recorder = recorder.start(world)
    os.register_at_fork(after_in_child=_be_no_rank)
    atexit.register(_on_end, os.getpid())


def at_end(function: Callable[[], None]) -> None:
    """Call `function()` when this rank's program has come to its end."""
    _at_end.append(function)


def end_job(error: BaseException) -> NoReturn:
    """Report what ended this rank, then end every rank of the job with its exit code."""
    code, report = _describe(error)
    world = get_world()
    if world.size > 1 and not isinstance(error, SystemExit):
        report = f"rank {world.rank} of {world.size} on {socket.gethostname()} failed:\n{report}"
    with contextlib.suppress(OSError, ValueError):  # a closed stderr must not keep the job alive
        sys.stdout.flush()
        sys.stderr.write(report)
        sys.stderr.flush()
        if report:
            time.sleep(_PASS_ON_SECONDS)
    notify_launcher(f"failed {world.rank} {code} {_summary_of(error)}")
    abort(code)


def is_rank() -> bool:
    """Whether this process is the rank, and not a child that it has forked."""
    return os.environ.get(RANK_PID, own := str(os.getpid())) == own


def exit_code(error: SystemExit) -> int:
    """The exit status that the interpreter gives for this exception."""
    code = _status_of(error)
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def notify_launcher(event: str) -> bool:
    """Write one line to `paceline run`; whether it is there to read it."""
    path = os.environ.get(EVENTS)
    if path is None:
        return False
    with contextlib.suppress(OSError):  # the launcher may be gone
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        # At most PIPE_BUF bytes go in one piece, so that lines of different ranks do not mix.
        os.write(pipe, event.replace("\n", " ").encode()[:1000] + b"\n")
        os.close(pipe)
        return True
    return False


def abort(code: int) -> NoReturn:
    """End all ranks with this exit code, whether or not this one has started MPI."""
    timeline.flush()
    launcher = get_world().launcher
    if launcher == "hydra" and "PMI_FD" in os.environ:
        # What MPI_Abort sends. Hydra lets the others run on when a rank that has not started MPI merely exits.
        with contextlib.suppress(OSError, ValueError):
            os.write(int(os.environ["PMI_FD"]), f"cmd=abort exitcode={code}\n".encode())
    elif launcher != "openmpi":  # which ends a job when any rank exits with an error
        mpi = sys.modules.get("mpi4py.MPI")
        if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
            mpi.COMM_WORLD.Abort(code)
    _exit_now(code)


def _status_of(error: SystemExit) -> Any:
    """What was given to sys.exit, read past the property of _RankExit."""
    return _plain_code.__get__(error)


def _describe(error: BaseException) -> tuple[int, str]:
    """Exit code and text for stderr, both as the interpreter has them."""
    if isinstance(error, SystemExit):
        code = _status_of(error)
        return exit_code(error), "" if isinstance(code, int | None) else f"{code}\n"
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1, "".join(traceback.format_exception(error))


def _summary_of(error: BaseException) -> str:
    """What an exception says, in the line below its traceback."""
    if isinstance(error, SystemExit):
        return _describe(error)[1].strip()
    shown = traceback.TracebackException.from_exception(error)
    shown.__notes__ = None  # type: ignore[assignment]  # they come below
    return [*shown.format_exception_only()][-1].strip()


def _on_end(pid: int) -> None:
    """The last thing that a program does which comes to its end."""
    if os.getpid() != pid:
        return _leave_mpi_to_the_parent()
    if flight_recorder is not None:
        flight_recorder.update(ended=True)
    for function in _at_end:
        function()
    if flight_recorder is not None:
        flight_recorder.remove_with_the_last()


def _be_no_rank() -> None:
    """In a child that this rank has forked: its exceptions concern nobody but its parent."""
    if sys.excepthook is _on_exception:
        sys.excepthook = _on_exception_of_child
    threading.excepthook = threading.__excepthook__


def _on_exception_of_child(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    global _status_of_child
    _status_of_child = _describe(error)[0]
    sys.__excepthook__(kind, error, trace)


def _leave_mpi_to_the_parent() -> None:
    """End a forked child before mpi4py would end MPI with it, on connections that are the parent's."""
    if "mpi4py.MPI" in sys.modules:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        _exit_now(_status_of_child)


def _leave_at_once(status: int) -> NoReturn:
    """os._exit, which runs no hook either."""
    world = get_world()
    if is_rank():
        if status != 0:
            notify_launcher(f"failed {world.rank} {status} called os._exit({status})")
            abort(status)
        # MPI takes a rank for lost that ends without a word, kills the others, and calls that a success.
        _on_end(os.getpid())
        timeline.flush()
        mpi = sys.modules.get("mpi4py.MPI")
        if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
            mpi.Finalize()
        notify_launcher(f"done {world.rank}")
    _exit_now(status)


def _on_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """sys.excepthook."""
    end_job(error.with_traceback(trace))


def _on_thread_exception(args: threading.ExceptHookArgs) -> None:
    """threading.excepthook; a thread that ends by SystemExit has merely ended."""
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        end_job(args.exc_value.with_traceback(args.exc_traceback))


class _RankExit(SystemExit):
    """SystemExit that notices when nobody caught it: no hook runs for SystemExit, but the interpreter reads `code`."""

    @property
    def code(self) -> Any:  # type: ignore[override]
        global _status_of_child
        if _called_by_interpreter():
            _status_of_child = exit_code(self)
            if _status_of_child != 0 and is_rank():
                end_job(self)
        return _status_of(self)


def _called_by_interpreter() -> bool:
    """Whether the caller's caller is no Python code."""
    try:
        sys._getframe(2)
    except ValueError:
        return True
    return False


def _exit(status: Any = None, /) -> NoReturn:
    """sys.exit."""
    raise _RankExit(status)
