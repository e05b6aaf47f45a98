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
    names = [name for name in WORKLOADS if not only or name in only.split(",")]
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
        (turns.RESULTS / "compare.svg").write_text(picture({name: row["ratio"] for name, row in times.items()}))


def picture(ratios: dict[str, float]) -> str:
    """A bar for each ratio, as SVG; the line is at 1."""
    left, unit, line = 110, 560 / max(2.0, *ratios.values()), 26
    height = line * len(ratios) + 50
    bars = []
    for i, (name, ratio) in enumerate(ratios.items()):
        y = 36 + line * i
        color = "#2a9d8f" if ratio >= 1 else "#e76f51"
        bars.append(
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{name}</text>'
            f'<rect x="{left}" y="{y}" width="{ratio * unit:.1f}" height="18" rx="2" fill="{color}"/>'
            f'<text x="{left + ratio * unit + 6:.1f}" y="{y + 13}">{ratio:.2f}</text>'
        )
    svg = 'xmlns="http://www.w3.org/2000/svg" width="740" font-family="sans-serif" font-size="13"'
    one, end = left + unit, height - 12
    parts = [
        f'<svg {svg} height="{height}">',
        f'<rect width="740" height="{height}" fill="white"/>',
        '<text x="10" y="20" font-weight="bold">Time of a training step: PyTorch / Paceline, on a CPU</text>',
        *bars,
        f'<line x1="{one}" y1="30" x2="{one}" y2="{end}" stroke="#264653" stroke-dasharray="4 3"/>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
