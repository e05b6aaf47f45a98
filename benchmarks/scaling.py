"""How the time of a training step grows with the batch and with the depth: four sizes each, each twice the one before.

    python -m benchmarks.scaling [--rounds 3]

Prints the table and writes benchmarks/results/scaling.json. Linear growth means that the time doubles from row to row.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import click

from . import turns
from .overhead import microseconds
from .workloads import trainer

BATCHES, DEPTHS, WIDTH = (128, 256, 512, 1024), (4, 8, 16, 32), 256


def step(torch: Any, batch: int, depth: int) -> Any:
    nn = torch.nn
    layers = [layer for _ in range(depth) for layer in (nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.GELU())]
    model = nn.Sequential(*layers, nn.Linear(WIDTH, 10))
    x, y = torch.randn(batch, WIDTH), torch.randint(0, 10, (batch,))
    return trainer(torch, model, torch.optim.Adam(model.parameters()), nn.CrossEntropyLoss(), x, y)


def times(torch: Any) -> dict[str, float]:
    """Milliseconds of a step of each size."""
    sizes = {f"batch {n}, depth {DEPTHS[0]}": (n, DEPTHS[0]) for n in BATCHES}
    sizes |= {f"depth {n}, batch {BATCHES[0]}": (BATCHES[0], n) for n in DEPTHS}
    return {name: microseconds(step(torch, *size), 1000, seconds=0.8) for name, size in sizes.items()}


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--one", hidden=True)
def main(rounds: int, one: str | None) -> None:
    if one:
        click.echo(json.dumps(times(importlib.import_module(one))))
        return
    figures = turns.in_turns("benchmarks.scaling", rounds)
    turns.print_table("time of a step", "ms", figures)
    turns.write("scaling", figures)


if __name__ == "__main__":
    main()
