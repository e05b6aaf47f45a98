"""What compile() gains: steps as they are written and compiled, beside PyTorch as they are written.

    python -m benchmarks.compiled [--rounds 3]

Prints the table, in which each figure is the least of a process and the median of the rounds, and writes
benchmarks/results/compiled.json. A round takes half a minute once all kernels are compiled.
"""

from __future__ import annotations

import importlib
import json
import statistics
from collections.abc import Callable
from typing import Any

import click

from . import turns, workloads
from .overhead import microseconds

SIZES = {"1k": 1 << 10, "64k": 1 << 16, "1M": 1 << 20, "16M": 1 << 24}


def chain(torch: Any) -> Callable:
    """Eight operations, of which one takes more than arithmetic."""

    def forward(x: Any, y: Any) -> Any:
        a = torch.tanh(x * y + x) * y
        return (a * 0.5 + x) ** 2 + y

    return forward


def block(torch: Any, width: int) -> Any:
    """The feed-forward half of a transformer layer: x + Linear(GELU(Linear(LayerNorm(x))))."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            return x + self.down(nn.functional.gelu(self.up(self.norm(x)), approximate="tanh"))

    return Block()


def layers(torch: Any) -> Any:
    """64 small layers."""
    nn = torch.nn
    return nn.Sequential(*(layer for _ in range(64) for layer in (nn.Linear(16, 16), nn.ReLU())))


def costs(torch: Any, compiled: bool) -> dict[str, float]:
    """Microseconds of each step."""
    found = {}
    compile = torch.compile if compiled else lambda function: function

    def training(name: str, function: Callable, inputs: list, weights: list) -> None:
        function = compile(function)
        gradient = torch.ones_like(function(*inputs))

        def step() -> None:
            for x in weights:
                x.grad = None
            function(*inputs).backward(gradient)

        found[f"{name}, forward and backward"] = microseconds(step)

    for name, size in SIZES.items():
        x, y = torch.randn(size), torch.randn(size)
        function = compile(chain(torch))
        with torch.no_grad():
            found[f"8 operations on {name} elements, forward"] = microseconds(lambda f=function, x=x, y=y: f(x, y))
        leaves = [x.requires_grad_(), y.requires_grad_()]
        training(f"8 operations on {name} elements", chain(torch), leaves, leaves)
    for name, module, x in (
        ("pre-norm MLP block of 1024 x 256", block(torch, 256), torch.randn(1024, 256)),
        ("64 small layers", layers(torch), torch.randn(8, 16)),
    ):
        training(name, module, [x], list(module.parameters()))
    for name, step in steps(torch).items():
        found[f"training step: {name}"] = microseconds(compile(step), seconds=0.5)
    return found


def steps(torch: Any) -> dict[str, Callable]:
    """Whole training steps, each of which returns its loss as a number."""
    nn = torch.nn
    small = layers(torch)
    return {
        "64 small layers, Adam": workloads.trainer(
            torch, small, torch.optim.Adam(small.parameters()), nn.MSELoss(), torch.randn(8, 16), torch.randn(8, 16)
        ),
        "MLP 784-128-64-10 of 32, Adam": workloads.WORKLOADS["mlp32_adam"](torch),
        "LeNet of 4, SGD": workloads.WORKLOADS["lenet4"](torch),
        "ResNet-20 of 32, SGD": workloads.WORKLOADS["resnet20"](torch),
        "GPT, 12 layers of 64, 4 x 32 tokens, AdamW": workloads.gpt(torch, width=64, layers=12, context=32, batch=4),
        "GPT, 4 layers of 128, 16 x 128 tokens, AdamW": workloads.gpt(torch),
    }


def rows(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """For each step the medians of its columns."""
    columns = rounds[0]
    return {name: {column: statistics.median(found[column][name] for found in rounds) for column in columns}
            for name in rounds[0]["written"]}  # fmt: skip


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--one", hidden=True)
@click.option("--compiled", is_flag=True, hidden=True)
def main(rounds: int, one: str | None, compiled: bool) -> None:
    if one:
        click.echo(json.dumps(costs(importlib.import_module(one), compiled)))
        return
    turns.need()
    columns = {"peer": (turns.PEER,), "written": (turns.OURS,), "compiled": (turns.OURS, "--compiled")}
    found = [{name: turns.child("benchmarks.compiled", *options) for name, options in columns.items()}
             for _ in range(rounds)]  # fmt: skip
    figures = rows(found)
    click.echo(f"{'microseconds of a step':56s} {turns.PEER:>10s} {'as written':>10s} {'compiled':>10s}")
    for name, row in figures.items():
        click.echo(f"{name:56s} {row['peer']:10.0f} {row['written']:10.0f} {row['compiled']:10.0f}")
    turns.write("compiled", figures)


if __name__ == "__main__":
    main()
