"""Two machines, `a` and `b`, made of this one, for jobs that need several.

    python tests/machines.py paceline run --hosts a:2,b:2 train.py

The command runs on `a`. Each machine has processes, a network address, a host name, a clock (CLOCK_MONOTONIC), shared
memory and a /tmp of its own (Linux namespaces); `ssh b COMMAND` works on both, with the variables of a login only.
Other files are those of this machine, as if on a network file system, and so is what lies in /tmp beside the working
directory. What the command leaves running, in shared memory or in /tmp is told on stderr, and goes away with the
machines.

It takes root (or user namespaces for everybody) and the programs `unshare` and `ip`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NAMES = ("a", "b")
_LOGIN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": os.path.expanduser("~")}
_TMP = Path(tempfile.gettempdir())
_UP_SECONDS = (0, 1000)  # by which their clocks are ahead of this machine's
_END_SECONDS = 2.0  # for what the command has left


def command(*words: str) -> list[str]:
    """What runs these words on machine `a`."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    world = ["unshare", *user, "--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
    return [*world, sys.executable, __file__, "--inside", *words]


def main() -> None:
    mode, *words = sys.argv[1:]
    if mode == "--inside":
        sys.exit(_run_inside(words))
    if mode == "--machine":
        _be_machine(words[0], Path(words[1]))
    if mode == "--ssh":
        _ssh(Path(words[0]), words[1:])
    run = command(mode, *words)
    os.execvp(run[0], run)


def _run_inside(words: list[str]) -> int:
    """Make the machines, and run a command on the first one."""
    with tempfile.TemporaryDirectory(prefix="machines-") as name:
        folder = Path(name)
        folder.joinpath("hosts").write_text("127.0.0.1 localhost\n10.0.0.1 a\n10.0.0.2 b\n")
        ssh = folder / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {__file__} --ssh {name} "$@"\n')
        ssh.chmod(0o755)
        machine = ["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
        machines = [
            subprocess.Popen(
                [*machine, "--time", "--monotonic", str(up), sys.executable, __file__, "--machine", each, name],
                stdin=subprocess.DEVNULL,
            )
            for each, up in zip(NAMES, _UP_SECONDS, strict=True)
        ]
        _wait_for(lambda: all(folder.joinpath(f"{each}.ready").exists() for each in NAMES))
        _connect([_child_of(each.pid) for each in machines])
        mine = os.environ | {"PATH": f"{name}:{os.environ['PATH']}"}
        code = _execute(folder, NAMES[0], shlex.join(words), mine, os.getcwd(), (0, 1, 2))
        for each, process in zip(NAMES, machines, strict=True):
            _tell_leftovers(folder, each, _child_of(process.pid))
            process.kill()
            process.wait()
        return code


def _connect(pids: list[int]) -> None:
    """Lay a cable between the machines."""
    cable = ["type", "veth", "peer", "name", "eth0", "netns", str(pids[1])]
    _ip("link", "add", "eth0", "netns", str(pids[0]), *cable)
    for i, pid in enumerate(pids):
        _ip("addr", "add", f"10.0.0.{i + 1}/24", "dev", "eth0", machine=pid)
        for link in ("lo", "eth0"):
            _ip("link", "set", link, "up", machine=pid)
    _wait_for(lambda: all("state UP" in _ip("link", "show", "eth0", machine=pid) for pid in pids))


def _ip(*words: str, machine: int | None = None) -> str:
    inside = [] if machine is None else ["nsenter", f"--net=/proc/{machine}/ns/net"]
    return subprocess.run([*inside, "ip", *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def _be_machine(name: str, folder: Path) -> None:
    """What a machine's first process does: prepare it, and then whatever it is told by `ssh`."""
    socket.sethostname(name)
    _mount("-t", "tmpfs", "tmpfs", "/dev/shm")
    _mount("--bind", str(folder / "hosts"), "/etc/hosts")
    _hide_tmp(_kept(folder))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody else is there to reap orphans
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / name))
    listener.listen()
    folder.joinpath(f"{name}.ready").touch()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            break
        connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
    line, environment, cwd = json.loads(request)
    streams = dict(zip(("stdin", "stdout", "stderr"), files, strict=True))
    if environment is None:
        environment = _LOGIN | {"PATH": f"{folder}:{_LOGIN['PATH']}"}
    process = subprocess.Popen(["sh", "-c", line], env=environment, cwd=cwd, start_new_session=True, **streams)
    for file in files:
        os.close(file)
    code = process.wait()
    with contextlib.suppress(BrokenPipeError):  # who asked for it may be no more
        connection.send(bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def _kept(folder: Path) -> list[Path]:
    """What all machines see of /tmp."""
    paths = [folder, Path(__file__).resolve().parent.parent, Path(sys.prefix), Path.cwd()]
    return sorted({_TMP / path.relative_to(_TMP).parts[0] for path in paths if _TMP in path.parents})


def _hide_tmp(kept: list[Path]) -> None:
    """An empty /tmp, but for these."""
    opened = {path: os.open(path, os.O_PATH) for path in kept}
    _mount("-t", "tmpfs", "tmpfs", str(_TMP))
    for path, file in opened.items():
        path.mkdir()
        _mount("--no-canonicalize", "--bind", f"/proc/self/fd/{file}", str(path), file=file)
        os.close(file)


def _mount(*words: str, file: int | None = None) -> None:
    subprocess.run(["mount", *words], check=True, pass_fds=() if file is None else (file,))


def _ssh(folder: Path, words: list[str]) -> None:
    """`ssh OPTIONS MACHINE COMMAND`."""
    while words[0].startswith("-"):
        words.pop(0)
    if not (folder / words[0]).is_socket():
        sys.exit(f"ssh: there is no machine {words[0]}")
    sys.exit(_execute(folder, words[0], " ".join(words[1:]), None, "/", (0, 1, 2)))


def _execute(
    folder: Path, name: str, line: str, environment: dict[str, str] | None, cwd: str, files: tuple[int, ...]
) -> int:
    """The exit code of a command line that a machine runs with these files."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / name))
        socket.send_fds(connection, [json.dumps([line, environment, cwd]).encode()], files)
        return connection.recv(1)[0]


def _tell_leftovers(folder: Path, name: str, first: int) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while (left := _descendants(first)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid, words in left.items():
        print(f"left running on {name}: {pid} {words}", file=sys.stderr, flush=True)
    known = "|".join(path.name for path in _kept(folder))
    for place in ("/dev/shm", _TMP):
        line = f"ls -A {place} | grep -v -x -E {shlex.quote(known)} | sed 's|^|left in {place} of {name}: |' >&2"
        _execute(folder, name, line, None, "/", (0, 1, 2))


def _descendants(pid: int) -> dict[int, str]:
    found = {}
    for child in _children(pid):
        with contextlib.suppress(OSError):  # it may end just now
            words = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ").strip()
            found |= {child: words} | _descendants(child)
    return found


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _child_of(pid: int) -> int:
    """The first process of a machine, as seen from here."""
    return _children(pid)[0]


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the machines do not come up")
        time.sleep(0.01)


if __name__ == "__main__":
    main()
