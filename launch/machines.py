"""The launcher's side of the agents, which are on the other machines of a job."""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ..runtime.report import Sight, sights_from

_ANSWER_SECONDS = 0.8  # for what an agent has seen; looking takes it 0.3 s at most
_END_SECONDS = 5.0
_CLOCK_LOOKS = 8  # of which the quickest is the most precise
_GREETING_BYTES = 4096  # at most, before a newline: nobody without the secret may fill the launcher's memory


class Machine:
    """The agent of one machine.

    Attributes:
        name: of the machine.
        clock: ns by which its clock is ahead of the launcher's; None until that is known.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.name = ""
        self.clock: int | None = None
        self._looks = 0
        self._asked_at = 0
        self._quickest = float("inf")  # answer about its clock, in ns
        self._connection = connection
        self._received = b""

    def fileno(self) -> int:
        return self._connection.fileno()

    def tell(self, request: str, argument: Any = None) -> None:
        """Ask for something; an agent that is no more does nothing."""
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps([request, argument]).encode() + b"\n")

    def ask_clock(self) -> None:
        """Compare the clocks; its answer is taken to be of the middle of the time that it takes."""
        self._asked_at = time.monotonic_ns()
        self.tell("clock")

    def set_clock(self, theirs: int) -> None:
        now = time.monotonic_ns()
        if now - self._asked_at < self._quickest:
            self._quickest = now - self._asked_at
            self.clock = theirs - (self._asked_at + now) // 2
        self._looks += 1
        if self._looks < _CLOCK_LOOKS:
            self.ask_clock()

    def receive(self) -> list[list]:
        """What it has sent, as far as it is there.

        Raises:
            EOFError: the connection is at its end.
        """
        try:
            content = self._connection.recv(1 << 20)
        except OSError:
            content = b""
        if not content:
            raise EOFError
        *lines, self._received = (self._received + content).split(b"\n")
        if not self.name and len(self._received) > _GREETING_BYTES:
            raise EOFError
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self._connection.close()


class Machines:
    """All agents that have come, and what they tell.

    Args:
        hosts: names of the machines of the job.
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._secret = secrets.token_hex(16)
        self._listener = socket.create_server(("", 0))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._sights: dict[int, Sight] = {}
        self._asked: set[Machine] = set()
        self.machines: set[Machine] = set()
        names = dict.fromkeys([socket.gethostname(), *(_own_address(host) for host in hosts)])
        self.address = ",".join([self._secret, str(self._listener.getsockname()[1]), *filter(None, names)])

    def fileno(self) -> int:
        """A file that is readable when there is something to receive."""
        return self._selector.fileno()  # type: ignore[attr-defined]

    def receive(self, seconds: float = 0.0) -> Iterator[tuple[Machine, str, list]]:
        """What agents tell, other than their answers to `look`: (machine, kind, what)."""
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._listener:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(Machine(connection), selectors.EVENT_READ)
                continue
            machine: Machine = key.fileobj  # type: ignore[assignment]
            try:
                for kind, *rest in machine.receive():
                    if not machine.name:
                        self._welcome(machine, kind, *rest)
                    elif kind == "clock":
                        machine.set_clock(*rest)
                    elif kind == "sights":
                        self._asked.discard(machine)
                        self._sights |= sights_from(rest[0], machine.clock or 0)
                    else:
                        yield machine, kind, rest
            except EOFError:
                self._drop(machine)
            except (TypeError, ValueError):
                if machine.name:
                    raise
                self._drop(machine)  # a stranger, who does not speak as agents do

    def _welcome(self, machine: Machine, secret: str, name: str) -> None:
        if not hmac.compare_digest(secret, self._secret):
            raise EOFError
        machine.name = name
        self.machines.add(machine)
        machine.ask_clock()

    def _drop(self, machine: Machine) -> None:
        self._selector.unregister(machine)
        self.machines.discard(machine)
        self._asked.discard(machine)
        machine.close()

    def tell(self, request: str, argument: Any = None) -> None:
        """Ask all agents for something."""
        for machine in self.machines:
            machine.tell(request, argument)

    def ask_to_look(self, resume: bool) -> None:
        """Let the agents look at their ranks; `sights()` waits for what they see."""
        self._sights, self._asked = {}, set(self.machines)
        self.tell("look", resume)

    def sights(self) -> Iterator[tuple[Machine, str, list]]:
        """Wait for all answers, for a limited time, and give what else comes meanwhile; they are in `seen` then."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self._asked and time.monotonic() < deadline:
            yield from self.receive(0.05)

    @property
    def seen(self) -> dict[int, Sight]:
        """What was seen of the ranks on other machines."""
        return self._sights

    def end(self) -> Iterator[tuple[Machine, str, list]]:
        """Let the agents clean up and go; what they still have to tell."""
        self.tell("end")
        deadline = time.monotonic() + _END_SECONDS
        while self.machines and time.monotonic() < deadline:
            yield from self.receive(0.05)

    def close(self) -> None:
        """Hang up."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()


def _own_address(host: str) -> str | None:
    """This machine's address on the way to another one, where its name may mean nothing."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        return probe.getsockname()[0]
    return None
