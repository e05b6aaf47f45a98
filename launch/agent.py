"""What `paceline run` has on each of the other machines: tells what happens to the ranks there, and looks after them.

The first rank of a machine starts it, as `python -m paceline.launch.agent FOLDER RANKS`, followed by the segments of
shared memory that are not of this job. In that directory the ranks of the machine leave their records and events, as
they do beside the launcher. It connects to the launcher, tells everything as lines of JSON, does what it is told in the
same form, and leaves when the connection ends: with all that is left of the job on its machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from ..runtime import faults, recorder, report, timeline, watchdog
from ..runtime.world import World
from . import leftovers
from .ending import ending_of
from .lifeline import lifeline_path, open_lifeline

# Where the launcher listens, for the ranks: what an agent has to know, a port, and names of the launcher's machine.
LAUNCHER = "PACELINE_LAUNCHER"
_CONNECT_SECONDS = 5.0
_LOOK_SECONDS = 0.25


def join(world: World) -> None:
    """Let this rank be seen by the launcher, if that is on another machine."""
    if LAUNCHER not in os.environ or os.path.isdir(os.environ[recorder.FOLDER]):
        return
    folder = recorder.job_folder()
    os.environ[recorder.FOLDER] = folder
    os.environ[faults.EVENTS] = events = os.path.join(folder, "events")
    timeline.write_to(folder)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(events, 0o600)
    os.open(events, os.O_RDWR | os.O_NONBLOCK)  # and never closed: what is written before the agent is there waits
    os.mkfifo(lifeline_path(folder, world.rank), 0o600)
    if world.local_rank == 0:
        command = [sys.executable, "-m", "paceline.launch.agent", folder, str(world.local_size)]
        command += leftovers.shared_memory()  # of others: MPI has not started here
        # In no group or session of mpiexec's, and with none of its pipes, for whose end that waits.
        null = subprocess.DEVNULL
        subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)


class Agent:
    """The ranks of this machine, and the connection to the launcher."""

    def __init__(self, folder: str, ranks: int, launcher: socket.socket) -> None:
        self._folder = folder
        self._remaining = ranks
        self._launcher = launcher
        self._selector = selectors.DefaultSelector()
        self._processes: dict[int, tuple[int, int]] = {}  # of ranks: the process, and the file that stands for it
        self._received = b""
        self._events = os.open(os.environ[faults.EVENTS], os.O_RDWR | os.O_NONBLOCK)
        self._selector.register(launcher, selectors.EVENT_READ, self._obey)
        self._selector.register(self._events, selectors.EVENT_READ, self._pass_on)

    def run(self) -> None:
        """Tell and obey until the launcher says that this is the end, or is no more."""
        look_at = 0.0
        with contextlib.suppress(OSError, EOFError):
            while True:
                for key, _ in self._selector.select(_LOOK_SECONDS):
                    key.data()
                if time.monotonic() > look_at:
                    look_at = time.monotonic() + _LOOK_SECONDS
                    if late := report.find_late(self._folder):
                        self._tell("event", f"hung {late[0]} {watchdog.EXIT_CODE}{late[1]}")

    def _tell(self, *message: Any) -> None:
        self._launcher.sendall(json.dumps(message).encode() + b"\n")

    def _pass_on(self) -> None:
        """Tell what ranks have written; all of it is there, since they write lines in one piece."""
        for line in os.read(self._events, 1 << 16).decode().splitlines():
            event, rank, *rest = line.split(" ", 2)
            if event == "started":
                self._watch(int(rank), int(rest[0]))
            self._tell("event", line)

    def _watch(self, rank: int, pid: int) -> None:
        """Notice when a rank dies: when its files are closed, and when its process is gone."""
        lifeline = open_lifeline(self._folder, rank)

        def fall() -> None:
            self._selector.unregister(lifeline)
            self._tell("fell", rank, time.monotonic_ns())
            if rank in self._processes:  # told in this order
                self._selector.register(self._processes[rank][1], selectors.EVENT_READ, go)

        def go() -> None:
            self._selector.unregister(self._processes[rank][1])
            self._tell_end(rank)
            self._remaining -= 1
            if not self._remaining:
                _kill_rest()  # mpiexec waits for who may still print

        self._selector.register(lifeline, selectors.EVENT_READ, fall)
        with contextlib.suppress(OSError):
            self._processes[rank] = pid, os.pidfd_open(pid)

    def _tell_end(self, rank: int) -> None:
        """Tell that a rank is gone, and what it did last; how it ended is known when its parent has taken note."""
        self._tell("gone", rank, ending_of(*self._processes[rank]), report.last_seen(self._folder, rank))

    def _obey(self) -> None:
        """Do what the launcher asks for."""
        received = self._launcher.recv(1 << 16)
        if not received:
            raise EOFError
        *lines, self._received = (self._received + received).split(b"\n")
        for line in lines:
            request, argument = json.loads(line)
            if request == "clock":
                self._tell("clock", time.monotonic_ns())
            elif request == "look":
                self._tell("sights", report.look(self._folder, resume=argument))
            elif request == "signal":
                for _, pidfd in self._processes.values():
                    with contextlib.suppress(OSError):
                        signal.pidfd_send_signal(pidfd, argument)
            elif request == "end":
                raise EOFError

    def clean(self) -> None:
        """End what is left of the job on this machine, tell what ranks have noted for the timeline, and remove it."""
        _kill_rest()
        with contextlib.suppress(OSError):
            for rank in self._processes:
                self._tell_end(rank)
            for name in sorted(os.listdir(self._folder)):
                if name.startswith("timeline-"):
                    with open(os.path.join(self._folder, name)) as file:
                        self._tell("file", name, file.read())
        shutil.rmtree(self._folder, ignore_errors=True)


def _kill_rest() -> None:
    leftovers.kill_marked(LAUNCHER, os.environ[LAUNCHER])


def connect() -> socket.socket:
    """A connection to the launcher, over whichever of its names leads there."""
    secret, port, *names = os.environ[LAUNCHER].split(",")
    for name in names:
        with contextlib.suppress(OSError):
            connection = socket.create_connection((name, int(port)), _CONNECT_SECONDS)
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(json.dumps([secret, socket.gethostname()]).encode() + b"\n")
            return connection
    raise OSError(f"none of {names} leads to the launcher")


def main() -> None:
    try:
        launcher = connect()
    except OSError:
        os.unlink(os.environ[faults.EVENTS])  # then ranks tell what they have to tell on stderr
        raise
    agent = Agent(sys.argv[1], int(sys.argv[2]), launcher)
    agent.run()
    agent.clean()
    leftovers.remove_shared_memory(set(sys.argv[3:]))
    leftovers.remove_proxy_files()


if __name__ == "__main__":
    main()
