"""Options that say on which machines a job runs, the same for all commands that start one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from .plan import find_machines

RANKS_HELP = "Number of ranks; as many as the machines take, else {alone}."
_HOSTS_HELP = "Machines, and how many ranks each takes."
_HOSTFILE_HELP = "The same from a file, a line `A:8` or `A slots=8` each."


def machines(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --hosts and --hostfile to a command."""
    hostfile = click.option("--hostfile", default="", metavar="FILE", help=_HOSTFILE_HELP, callback=_check_given)
    hosts = click.option("--hosts", default="", metavar="A:8,B:8", help=_HOSTS_HELP, callback=_check_given)
    return hosts(hostfile(command))


def _check_given(context: click.Context, option: click.Parameter, value: str) -> str:
    """Refuse an empty text, that of a variable which is not set, say: the job would run here, on one rank."""
    if not value and context.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT:
        raise click.BadParameter("no machine named; leave the option out to run on this one")
    return value


def as_words(hosts: str, hostfile: str) -> list[str]:
    """These options for `paceline run`."""
    return [*(("--hosts", hosts) if hosts else ()), *(("--hostfile", hostfile) if hostfile else ())]


def number_of_ranks(hosts: str, hostfile: str, alone: int) -> int:
    """As many as the machines take, of the options or the batch job; `alone` where there are none."""
    return sum(host.slots for host in find_machines(hosts, hostfile, os.environ)) or alone
