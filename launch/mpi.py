"""Find the MPI launcher that belongs to this interpreter, and speak its dialect."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

# Intel's mpiexec and mpirun are shell scripts that lose signals; mpiexec.hydra is the program behind them.
_NAMES = ("mpiexec.hydra", "mpiexec", "mpirun")
NOT_FOUND = "no mpiexec found: install MPI with `pip install 'paceline[mpi]'`, or put your system's mpiexec on PATH"


class LaunchError(Exception):
    """The job cannot be started; the text is one line that says why and what to do."""


@dataclass(frozen=True)
class Mpiexec:
    """An MPI launcher.

    Attributes:
        path: its program.
        family: "hydra" (MPICH, Intel MPI) or "openmpi".
        version: the line with which it introduces itself.
    """

    path: str
    family: str
    version: str

    def command(self, size: int, program: list[str], hostfile: str = "", exported: Sequence[str] = ()) -> list[str]:
        """The command line that runs `program` on `size` ranks.

        Args:
            size: number of ranks.
            program: the command of each rank.
            hostfile: a file of `host_line`s; without one all ranks are on this machine.
            exported: names of variables that ranks on other machines should get.
        """
        if self.family == "hydra":
            hosts = ["-machinefile", hostfile, "-genvall"] if hostfile else []
            return [self.path, *hosts, "-n", str(size), *program]
        # Open MPI pins each rank to a core, where BLAS threads and loader workers would queue up behind it.
        options = ["--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]
        options += ["--allow-run-as-root"] if os.geteuid() == 0 else []
        if hostfile:
            options += ["--hostfile", hostfile, *(word for name in exported for word in ("-x", name))]
        return [self.path, *options, "-n", str(size), *program]

    @property
    def end_signal(self) -> int:
        """What ends it with its ranks at once: Hydra would wait for ranks that do not mind a SIGTERM.

        Open MPI kills those, and takes away its shared memory, which nobody does when it is killed.
        """
        return signal.SIGTERM if self.family == "openmpi" else signal.SIGKILL

    def host_line(self, name: str, slots: int) -> str:
        """A machine in the form that this launcher reads."""
        return f"{name}:{slots}\n" if self.family == "hydra" else f"{name} slots={slots}\n"

    def environment(self, size: int) -> dict[str, str]:
        """Variables that this MPI needs; the user's own settings win."""
        if self.family == "hydra":
            return {}
        # Probing for OFI byte transfer takes a second at start-up and finds nothing on one machine.
        variables = {"OMPI_MCA_btl": "^ofi"}
        if size > len(os.sched_getaffinity(0)):
            variables["OMPI_MCA_mpi_yield_when_idle"] = "1"  # otherwise waiting ranks take the cores of working ones
        return variables


def find_mpiexec() -> Mpiexec:
    """The launcher installed beside this interpreter, else the first on PATH; LaunchError without one."""
    for folder in [os.path.join(sys.prefix, "bin"), *os.get_exec_path()]:
        for name in _NAMES:
            path = shutil.which(name, path=folder)
            if path is not None:
                return _identify(path)
    raise LaunchError(NOT_FOUND)


def _identify(path: str) -> Mpiexec:
    """Ask a launcher what it is."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{path} does not run: {error}") from error
    text = answer.stdout + answer.stderr
    if "Open MPI" in text or "OpenRTE" in text:
        return Mpiexec(path, "openmpi", text.splitlines()[0].strip())
    if "Intel(R) MPI" in text:
        return Mpiexec(path, "hydra", next(line.strip() for line in text.splitlines() if "Intel(R) MPI" in line))
    if "HYDRA" in text:
        version = next((line.split()[-1] for line in text.splitlines() if "Version:" in line), "")
        return Mpiexec(path, "hydra", f"MPICH {version}".strip())
    raise LaunchError(f"{path} is of no known MPI (MPICH, Open MPI or Intel MPI): {' '.join(text.split())[:80]!r}")
