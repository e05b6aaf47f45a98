"""The `paceline` command. It starts jobs and must be quick: CuPy, Numba and MPI are never imported here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import click

from ..runtime import watchdog, world
from ..runtime.timeline import FOLDER
from . import doctor as doctor_page
from . import trace
from .bench import bench
from .mpi import LaunchError
from .options import RANKS_HELP, machines
from .plan import make_plan
from .supervisor import Job
from .timeline import timeline as show_timeline
from .worker import LOG_FOLDER

_TIMEOUT_HELP = f"End the job when a rank waits so long in a collective [{watchdog.DEFAULT_TIMEOUT:g}]."
_UNREACHED = "if a machine could not be reached: `paceline doctor` with the same --hosts or --hostfile tells which one"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="paceline")
def cli() -> None:
    """Paceline: distributed training on NumPy, CuPy/NCCL and MPI."""


@cli.command(context_settings={"allow_interspersed_args": False})
@click.option("-n", "size", type=click.IntRange(min=1), metavar="N", help=RANKS_HELP.format(alone=1))
@click.option("-m", "as_module", is_flag=True, help="PROGRAM is a module, as in `python -m`.")
@machines
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help=_TIMEOUT_HELP)
@click.option("--max-restarts", type=click.IntRange(min=0), default=0, metavar="N", help="Start again up to N times.")
@click.option("--timeline", default="", metavar="FILE", help="Write a trace of all ranks for Chrome or Perfetto.")
@click.option("--log-dir", default="", metavar="DIR", help="Write each rank's output to DIR/rank-R.out and .err too.")
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(
    size: int | None,
    as_module: bool,
    hosts: str,
    hostfile: str,
    timeout: float | None,
    max_restarts: int,
    timeline: str,
    log_dir: str,
    program: str,
    arguments: tuple[str, ...],
) -> None:
    """Run PROGRAM, a Python script, on N ranks.

    Rank 0's output is shown as it is; every line of rank 1, 2, ... begins with `[1] `, `[2] `, ...

    The ranks are on this machine, unless --hosts or --hostfile name others or this is a job of Slurm, PBS or LSF, whose
    machines are then used.

    The first rank that fails ends the job, and its exit code is that of this command. TERM, INT, HUP and USR1 are
    passed on to the ranks; a second TERM ends them at once; USR2 shows what each rank is doing. Each rank gets an equal
    share of the cores as its number of threads, unless OMP_NUM_THREADS is set.
    """
    _check_program(program, as_module)
    worker = [sys.executable, "-m", "paceline.launch.worker", *(["-m"] if as_module else []), program, *arguments]
    plan = make_plan(size, hosts, hostfile, os.environ)
    environment = plan.environment(os.environ)
    if timeout is not None:
        environment[watchdog.TIMEOUT] = str(timeout)
    if log_dir:
        try:
            os.makedirs(log_dir, exist_ok=True)
        except OSError as error:
            raise LaunchError(f"--log-dir: cannot make {log_dir}: {error.strerror}") from error
        environment[LOG_FOLDER] = os.path.abspath(log_dir)
    if timeline:
        trace.check_path(timeline)
    for attempt in range(max_restarts + 1):
        environment[world.RESTARTS] = str(attempt)
        with Job(plan.size, [host.name for host in plan.hosts]) as job:
            if timeline:
                environment[FOLDER] = job.folder
            command = plan.command(worker, job.folder, environment | job.variables)
            code, explanation = job.run(command, environment, plan.end_signal)
            if timeline:
                tracks = trace.read_tracks(job.folder)
                trace.write_trace(timeline, tracks)
                click.echo(f"paceline run: {trace.summary(timeline, tracks)}", err=True)
        if explanation and (plan.size > 1 or code > 128):
            click.echo(f"paceline run: {explanation}", err=True)
            if plan.mpiexec is not None and plan.hosts and explanation.startswith(plan.mpiexec.path):
                click.echo(f"paceline run: {_UNREACHED}", err=True)
        if code == 0 or job.stopped:
            break
        if attempt < max_restarts:
            click.echo(f"paceline run: restart {attempt + 1} of {max_restarts}", err=True)
    sys.exit(code)


@cli.command()
@machines
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a page.")
def doctor(hosts: str, hostfile: str, as_json: bool) -> None:
    """Show what works here, and what to do about what does not.

    With --hosts or --hostfile, and in a job of Slurm, PBS or LSF, it starts a job on those machines as well: can they
    be reached, have they the same software and paths, do their clocks agree, and how quick is the network between them?
    """
    checks = doctor_page.examine(hosts, hostfile)
    click.echo(doctor_page.to_json(checks) if as_json else doctor_page.page(checks))
    sys.exit(any(check.state == "broken" for check in checks))


@cli.command()
def warmup() -> None:
    """Compile the CPU kernels ahead of time, and keep them.

    They are those for float32 and float64. A training run compiles what it uses when it first uses it, says so where
    that takes more than a second, and keeps it. Run this once while a container's image is built, or a cluster's shared
    installation: then no run has to wait, and nobody has to be able to write there.
    """
    sys.exit(subprocess.run([sys.executable, "-m", "paceline._warmup"], check=False).returncode)


cli.add_command(bench)
cli.add_command(show_timeline)


def _check_program(program: str, as_module: bool) -> None:
    """Refuse here what would otherwise fail on every rank."""
    if as_module:
        sys.path.insert(0, os.getcwd())  # where `python -m` looks first
        if importlib.util.find_spec(program.partition(".")[0]) is None:
            raise LaunchError(f"no module named {program!r}")
    elif not os.path.isfile(program):
        kind = "not a script but a directory" if os.path.isdir(program) else "no such script"
        raise LaunchError(f"{kind}: {program}")


def main() -> None:
    """Entry point: every error of the command itself is one line on stderr."""
    try:
        cli.main(prog_name="paceline", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "paceline"
        advice = "Scripts are started by `paceline run`; see" if path == "paceline" else "See"
        click.echo(f"{path}: {error.format_message()} {advice} `{path} --help`.", err=True)
        sys.exit(error.exit_code)
    except LaunchError as error:
        click.echo(f"paceline: {error}", err=True)
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
