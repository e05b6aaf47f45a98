"""What single things cost on tensors of one element, where nothing but overhead is measured, beside PyTorch.

    python -m benchmarks.overhead [--rounds 5]

Prints the table and writes benchmarks/results/overhead.json.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from typing import Any

import click

from . import turns

CHAIN = 200


def microseconds(action: Callable, count: int = 1, seconds: float = 0.15) -> float:
    """The least time of a call, divided by the number of things that it does."""
    for _ in range(3):
        action()
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        action()
        least = min(least, time.perf_counter() - start)
    return least / count * 1e6


def costs(torch: Any) -> dict[str, float]:
    """Microseconds of each thing."""
    nn = torch.nn
    a, b = torch.ones(1, requires_grad=True), torch.ones(1)

    def forward() -> Any:
        c = a
        for _ in range(CHAIN):
            c = c + b
        return c

    def forward_backward() -> None:
        a.grad = None
        forward().backward()

    def unrecorded() -> None:
        c = b
        for _ in range(CHAIN):
            c = c + b

    identities, x = nn.Sequential(*(nn.Identity() for _ in range(CHAIN))), torch.ones(1)
    operation = microseconds(forward, CHAIN)
    found = {
        "operation, not recorded": microseconds(unrecorded, CHAIN),
        "operation, recorded": operation,
        "backward node": microseconds(forward_backward, CHAIN) - operation,
        "module call": microseconds(lambda: identities(x), CHAIN),
        "Linear(1, 1)": microseconds(lambda linear=nn.Linear(1, 1), x=torch.ones(1, 1): linear(x)),
    }
    for name, options in (("SGD", {"lr": 0.1}), ("Adam", {"lr": 0.1})):
        weights = [nn.Parameter(torch.ones(1)) for _ in range(10)]
        optimizer = getattr(torch.optim, name)(weights, **options)
        for _ in range(2):
            optimizer.zero_grad()
            sum(weight * weight for weight in weights).backward()
            optimizer.step()
        found[f"{name} step of 10 parameters"] = microseconds(optimizer.step)
    dataset = torch.utils.data.TensorDataset(torch.ones(32 * 50, 8), torch.zeros(32 * 50))
    loader = torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True)
    found["DataLoader batch of 32"] = microseconds(lambda: sum(1 for _ in loader), len(loader))
    return found


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--one", hidden=True)
def main(rounds: int, one: str | None) -> None:
    if one:
        click.echo(json.dumps(costs(importlib.import_module(one))))
        return
    figures = turns.in_turns("benchmarks.overhead", rounds)
    turns.print_table("cost of one", "us", figures)
    turns.write("overhead", figures)


if __name__ == "__main__":
    main()
