"""The `paceline` command. It starts jobs and must be quick: CuPy, Numba and MPI are never imported here."""

from __future__ import annotations

import importlib.util
import os
import sys

import click

from ..runtime import world
from . import doctor as doctor_page
from .mpi import LaunchError, find_mpiexec
from .supervisor import Job


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="paceline")
def cli() -> None:
    """Paceline: distributed training on NumPy, CuPy/NCCL and MPI."""


@cli.command(context_settings={"allow_interspersed_args": False})
@click.option("-n", "size", type=click.IntRange(min=1), default=1, show_default=True, help="Number of ranks.")
@click.option("-m", "as_module", is_flag=True, help="PROGRAM is a module, as in `python -m`.")
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(size: int, as_module: bool, program: str, arguments: tuple[str, ...]) -> None:
    """Run PROGRAM, a Python script, on N ranks of this machine.

    Rank 0's output is shown as it is; every line of rank 1, 2, ... begins with `[1] `, `[2] `, ...

    The first rank that fails ends the job, and its exit code is that of this command. Each rank gets an equal share of
    the cores as its number of threads, unless OMP_NUM_THREADS is set.
    """
    _check_program(program, as_module)
    worker = [sys.executable, "-m", "paceline.launch.worker", *(["-m"] if as_module else []), program, *arguments]
    environment = dict(os.environ)
    environment.pop(world.RANK_PID, None)  # a job started from inside a rank is a job of its own
    environment[world.EXPECTED_SIZE] = str(size)
    threads = environment.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // size))
    environment = dict.fromkeys(world.THREAD_VARIABLES, threads) | environment
    if size > 1:
        mpiexec = find_mpiexec()
        worker = mpiexec.command(size, worker)
        environment = mpiexec.environment(size) | environment
    with Job(worker, environment) as job:
        code, explanation = job.run()
    if explanation and (size > 1 or code > 128):
        click.echo(f"paceline run: {explanation}", err=True)
    sys.exit(code)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a page.")
def doctor(as_json: bool) -> None:
    """Show what is installed and working, and what to do about what is not."""
    checks = doctor_page.examine()
    click.echo(doctor_page.to_json(checks) if as_json else doctor_page.page(checks))
    sys.exit(any(check.state == "broken" for check in checks))


def _check_program(program: str, as_module: bool) -> None:
    """Refuse here what would otherwise fail on every rank."""
    if as_module:
        sys.path.insert(0, os.getcwd())  # where `python -m` looks first
        if importlib.util.find_spec(program.partition(".")[0]) is None:
            raise LaunchError(f"no module named {program!r}")
    elif not os.path.isfile(program):
        raise LaunchError(f"no such script: {program}")


def main() -> None:
    """Entry point: every error of the command itself is one line on stderr."""
    try:
        cli.main(prog_name="paceline", standalone_mode=False)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "paceline"
        click.echo(f"{path}: {error.format_message()} See `{path} --help`.", err=True)
        sys.exit(error.exit_code)
    except LaunchError as error:
        click.echo(f"paceline: {error}", err=True)
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
