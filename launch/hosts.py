"""The machines of a job: from options, from a file, or from the batch system that has given them to us."""

from __future__ import annotations

import re
import shutil
import socket
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from .mpi import LaunchError


class Host(NamedTuple):
    """A machine and the number of ranks that it takes."""

    name: str
    slots: int


def parse_hosts(text: str) -> list[Host]:
    """Machines as in "a:8,b:8"; without a number a machine takes one rank."""
    hosts = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, colon, slots = item.partition(":")
        if not name or (colon and not (slots.isdigit() and int(slots) > 0)):
            raise LaunchError(f"--hosts: expected NAME or NAME:RANKS, got {item!r}")
        hosts.append(Host(name, int(slots or 1)))
    if not hosts:
        raise LaunchError("--hosts: no machine named")
    return hosts


def parse_hostfile(path: str) -> list[Host]:
    """Machines of a file in MPICH's form ("a:8") or Open MPI's ("a slots=8"), one to a line; # begins a comment."""
    try:
        with open(path) as file:
            lines = [line.partition("#")[0].split() for line in file]
    except OSError as error:
        raise LaunchError(f"--hostfile: {error.strerror}: {path}") from None
    hosts = []
    for number, words in enumerate(lines, 1):
        if words:
            name, _, slots = words[0].partition(":")
            slots = next((word.removeprefix("slots=") for word in words[1:] if word.startswith("slots=")), slots or "1")
            if not (slots.isdigit() and int(slots) > 0):
                line = " ".join(words)
                raise LaunchError(f"--hostfile: {path}:{number}: expected NAME:RANKS or NAME slots=RANKS, got {line!r}")
            hosts.append(Host(name, int(slots)))
    if not hosts:
        raise LaunchError(f"--hostfile: no machine named in {path}")
    return hosts


def allocation(environ: Mapping[str, str]) -> list[Host]:
    """The machines that Slurm, PBS or LSF has given to this job; none outside of a batch system.

    Raises:
        LaunchError: the variables are there but not what they speak of; they are left over from another job.
    """
    if "SLURM_JOB_ID" in environ and "SLURM_JOB_NODELIST" in environ:
        return _slurm(environ)
    if "PBS_NODEFILE" in environ:
        return _pbs(environ["PBS_NODEFILE"])
    if "LSB_JOBID" in environ and "LSB_MCPU_HOSTS" in environ:
        words = environ["LSB_MCPU_HOSTS"].split()
        return [Host(name, int(slots)) for name, slots in zip(words[::2], words[1::2], strict=True)]
    return []


def is_here(hosts: list[Host]) -> bool:
    """Whether all of them are this machine."""
    here = socket.gethostname()
    names = {here, here.partition(".")[0], "localhost", "127.0.0.1"}
    return all(host.name in names or host.name.partition(".")[0] in names for host in hosts)


def _slurm(environ: Mapping[str, str]) -> list[Host]:
    """Nodes with their numbers of tasks; without tasks, one rank to a core."""
    names = expand_nodes(environ["SLURM_JOB_NODELIST"])
    if shutil.which("srun", path=environ.get("PATH")) is None:
        raise LaunchError(
            f"SLURM_JOB_ID={environ['SLURM_JOB_ID']} says that this is a Slurm job, but there is no srun: the SLURM_* "
            "variables are left over from somewhere else; unset them, with: unset ${!SLURM_@}"
        )
    tasks = environ.get("SLURM_TASKS_PER_NODE") or environ.get("SLURM_JOB_CPUS_PER_NODE") or "1"
    return [Host(name, slots) for name, slots in zip(names, repeat_counts(tasks), strict=False)]


def _pbs(path: str) -> list[Host]:
    """The node file names a machine once for each rank that it takes."""
    try:
        with open(path) as file:
            counts = Counter(file.read().split())
    except OSError as error:
        raise LaunchError(
            f"PBS_NODEFILE={path}: {error.strerror}: the PBS_* variables are left over from another job; unset them"
        ) from None
    return [Host(name, slots) for name, slots in counts.items()]


def repeat_counts(text: str) -> list[int]:
    """Slurm's shorthand for numbers, where "2(x3),1" means 2, 2, 2, 1."""
    counts: list[int] = []
    for item in text.split(","):
        count, _, times = item.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or 1)
    return counts


def expand_nodes(text: str) -> list[str]:
    """Slurm's shorthand for names, where "a[08-10,12],b" means a08, a09, a10, a12, b."""
    names = []
    for item in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)*", text):
        head, *tail = re.split(r"[\[\]]", item)
        expanded = [head]
        for ranges, rest in zip(tail[::2], tail[1::2], strict=True):
            expanded = [name + number + rest for name in expanded for number in _numbers(ranges)]
        names += expanded
    return names


def _numbers(ranges: str) -> list[str]:
    """What "08-10,12" stands for: 08, 09, 10, 12."""
    numbers = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)]
    return numbers
