"""Training steps of the ten workloads side by side with PyTorch: time and peak memory.

    python -m benchmarks.compare [--rounds 3] [--seconds 1] [--only gpt,resnet20]

Prints the table and writes benchmarks/results/compare.json and compare.svg. A ratio above 1 means that Paceline takes
less time, or less memory.
"""

from __future__ import annotations

import json
import os
import resource

import click

from . import side_by_side, turns
from .workloads import WORKLOADS

TITLE = "Time of a training step: PyTorch / Paceline, on a CPU"
WORKLOADS_FILE = os.path.join(side_by_side.HERE, "workloads.py")


def figures_of(library: str, workload: str, seconds: float) -> dict[str, float]:
    """Microseconds of one step, and the most memory that the process has had by then, in MiB."""
    step = side_by_side.measure(library, workload, WORKLOADS_FILE, seconds, "")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"time": step * 1e6, "memory": peak}


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--seconds", type=float, default=1.0, show_default=True, help="Measuring time of one process.")
@click.option("--only", default="", help="Names of workloads, separated by commas.")
@click.option("--one", nargs=2, hidden=True)
def main(rounds: int, seconds: float, only: str, one: tuple[str, str] | None) -> None:
    if one:
        click.echo(json.dumps(figures_of(*one, seconds)))
        return
    names = only.split(",") if only else list(WORKLOADS)
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        raise click.BadParameter(f"no such workloads: {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    figures = {}
    with click.progressbar(names, label="measuring", show_pos=True) as bar:
        for name in bar:
            figures[name] = turns.in_turns("benchmarks.compare", rounds, name, "--seconds", str(seconds))
    times = {name: rows["time"] for name, rows in figures.items()}
    turns.print_table("time of a step", "us", times)
    turns.print_table("peak memory of the process", "MiB", {name: rows["memory"] for name, rows in figures.items()})
    ratios = [row["ratio"] for row in times.values()]
    print(f"\ngeometric mean of the ratios of time {turns.geometric_mean(ratios):.2f}, smallest {min(ratios):.2f}")
    if not only:
        turns.write("compare", figures)
        from paceline.launch import plot  # here: it sets variables that the measured processes would inherit

        ratios_by_name = {name: row["ratio"] for name, row in times.items()}
        (turns.RESULTS / "compare.svg").write_text(plot.bars(TITLE, ratios_by_name))


if __name__ == "__main__":
    main()
