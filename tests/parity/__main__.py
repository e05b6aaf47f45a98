"""How much of PyTorch's API is there and right, measured on PyTorch's own test data.

    python -m tests.parity                      the table: passed / in scope by group, and every name missing or wrong
    python -m tests.parity --only sum,nn.conv   entries whose name is, or contains behind the last dot, one of these
    python -m tests.parity --json               for programs
"""

from __future__ import annotations

import dataclasses
import json
import re

import click
from tqdm import tqdm

from . import operations

GROUPS = {
    "fft": r"fft\.|stft|istft",
    "linalg": r"linalg\.|cholesky|lu|qr|svd|matrix|triangular|pinverse|det|logdet|slogdet|geqrf|ormqr",
    "nn.functional": r"nn\.functional\.",
    "special": r"special\.|signal\.",
}


def group_of(name: str) -> str:
    return next((group for group, pattern in GROUPS.items() if re.match(pattern, name)), "tensor operations")


@click.command()
@click.option("--only", default="", help="Names of entries, separated by commas.")
@click.option("--group", "only_group", default="", help="One group: fft, linalg, nn.functional, special, tensor operations.")
@click.option("--limit", type=int, default=None, help="Samples of one entry and dtype; default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(only: str, only_group: str, limit: int | None, as_json: bool) -> None:
    wanted = [w for w in only.split(",") if w]
    infos = [i for i in operations.in_scope() if not wanted or i.name in wanted or i.name.split(".")[-1] in wanted]
    infos = [i for i in infos if not only_group or group_of(i.name) == only_group]
    outcomes = [operations.run(info, limit) for info in tqdm(infos, "operations", leave=False)]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(o) for o in outcomes], indent=1))
        return
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
