"""What lanes cost: a step in 8 lanes against one that accumulates 8 batches of the same size, on one rank.

    python -m benchmarks.lanes [--rounds 12] [--json FILE]

Both cut the same batch, compute the same and end with one optimizer step; they run in turns. Prints milliseconds of a
step, the median of the turns, and how much longer lanes took: by these medians, and by the least times.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click

import paceline as torch
from paceline import nn
from paceline.nn.functional import cross_entropy

from . import turns

LANES, SAMPLES = 8, 64
STEPS = 6  # in each turn


def perceptron(*widths: int) -> nn.Module:
    layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 8 * 8, 10),
    )  # fmt: skip


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "784-512-256-10": (lambda: perceptron(784, 512, 256, 10), (784,)),
    "25 layers of 128": (lambda: perceptron(*[128] * 25, 10), (128,)),
    "2 convolutions, batch norm": (convolutions, (3, 32, 32)),
}


def in_lanes(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    model = nn.DataParallel(module, lanes=LANES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        for part, target in model.lanes((x, y)):
            cross_entropy(model(part), target).backward()
        optimizer.step()

    return step


def accumulated(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        for part, target in zip(x.split(SAMPLES), y.split(SAMPLES), strict=True):
            (cross_entropy(model(part), target) / LANES).backward()
        optimizer.step()

    return step


def compare(make: Callable[[], nn.Module], shape: tuple[int, ...], rounds: int) -> dict[str, float]:
    """Milliseconds of both kinds of step."""
    x, y = torch.randn(LANES * SAMPLES, *shape), torch.randint(0, 10, (LANES * SAMPLES,))
    steps = accumulated(make(), x, y), in_lanes(make(), x, y)
    times: tuple[list[float], list[float]] = [], []
    for turn in range(rounds + 1):
        for step, found in zip(steps, times, strict=True):
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            if turn:  # the first one compiles kernels
                found.append((time.perf_counter() - start) / STEPS * 1e3)
    plain, lanes = map(statistics.median, times)
    least = min(times[1]) / min(times[0])
    return {"plain_ms": plain, "lanes_ms": lanes, "cost": lanes / plain - 1, "cost_of_least": least - 1}


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=12, show_default=True, help="Turns of each kind.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(rounds: int, path: Path | None) -> None:
    torch.manual_seed(0)
    click.echo(f"{'model':28s} {'plain ms':>9s} {'lanes ms':>9s} {'cost':>7s} {'of least':>9s}")
    figures = {}
    for name, (make, shape) in MODELS.items():
        row = figures[name] = compare(make, shape, rounds)
        times = f"{row['plain_ms']:9.2f} {row['lanes_ms']:9.2f}"
        click.echo(f"{name:28s} {times} {row['cost']:7.1%} {row['cost_of_least']:9.1%}")
    if path is not None:
        path.write_text(json.dumps({"machine": turns.machine(), "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
