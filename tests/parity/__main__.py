"""How much of PyTorch's API is there and right, measured on PyTorch's own test data.

    python -m tests.parity                      the table: passed / in scope by group, and every name missing or wrong
    python -m tests.parity --only sum,conv2d    entries of these names
    python -m tests.parity --group "nn modules"
    python -m tests.parity --json               for programs
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable

import click
from tqdm import tqdm

from . import modules, operations, optimizers

GROUPS = {
    "fft": r"fft\.|stft|istft",
    "linalg": r"linalg\.|cholesky|lu|qr|svd|matrix|triangular|pinverse|det|logdet|slogdet|geqrf|ormqr",
    "nn.functional": r"nn\.functional\.",
    "special": r"special\.|signal\.",
}


def group_of(name: str) -> str:
    for prefix in ("optim.", "lr_scheduler."):
        if name.startswith(prefix):
            return prefix[:-1]
    if re.match(r"nn\.[A-Z]", name):
        return "nn modules"
    return next((group for group, pattern in GROUPS.items() if re.match(pattern, name)), "tensor operations")


def entries() -> list[tuple[str, Callable]]:
    """The name of every entry in scope, and the function that measures it."""
    found: list[tuple[str, Callable]] = []
    found += [(operations.full_name(i), lambda n, i=i: operations.run(i, n)) for i in operations.in_scope()]
    found += [(modules.name_of(i), lambda n, i=i: modules.run(i, n)) for i in modules.in_scope()]
    found += [("optim." + i.optim_cls.__name__, lambda n, i=i: optimizers.run(i, n)) for i in optimizers.in_scope()]
    found += [("lr_scheduler." + s, lambda n, s=s: optimizers.run_scheduler(s)) for s in optimizers.SCHEDULERS]
    found += [("optim.swa_utils." + s, lambda n, s=s: optimizers.run_averages(s)) for s in optimizers.AVERAGES]
    return found


@click.command()
@click.option("--only", default="", help="Names of entries, separated by commas; without their prefix will do.")
@click.option("--group", "group", default="", help="One group, e.g. 'fft' or 'nn modules'.")
@click.option("--limit", type=int, default=None, help="Samples of one entry and dtype; default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(only: str, group: str, limit: int | None, as_json: bool) -> None:
    wanted = {w for w in only.split(",") if w}
    chosen = [
        (name, measure)
        for name, measure in entries()
        if (not wanted or {name, name.split("/")[0], name.split("/")[0].split(".")[-1]} & wanted)
        and (not group or group_of(name) == group)
    ]
    outcomes = [measure(limit) for _, measure in tqdm(chosen, leave=False, disable=None)]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(o) for o in outcomes], indent=1))
    else:
        print_table(outcomes)


def print_table(outcomes: list) -> None:
    for group in sorted({group_of(o.name) for o in outcomes}):
        of_group = [o for o in outcomes if group_of(o.name) == group]
        passed = sum(o.status == "pass" for o in of_group)
        click.echo(f"{group:20s} {passed:4d} / {len(of_group):4d}   {100 * passed / len(of_group):5.1f} %")
    for status in ("missing", "error", "wrong"):
        of_status = [o for o in outcomes if o.status == status]
        if of_status:
            click.echo(f"\n{status} ({len(of_status)}):")
            if status == "missing":
                click.echo("  " + " ".join(o.name for o in of_status))
            else:
                for o in of_status:
                    click.echo(f"  {o.name}: {o.detail}")
    passed = sum(o.status == "pass" for o in outcomes)
    click.echo(f"\n{passed} / {len(outcomes)} entries pass every sample ({100 * passed / max(1, len(outcomes)):.1f} %)")


if __name__ == "__main__":
    main()
