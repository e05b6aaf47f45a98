"""Single operations on 100 to a million elements beside PyTorch: forward, and forward with backward.

    python -m benchmarks.operations [--rounds 3] [--only softmax,sum] [--json FILE]

Prints a table in Markdown of the ratios PyTorch / Paceline, above 1 where Paceline takes less time, and writes the
times to benchmarks/results/operations.json. All elements are float32, and both libraries have two threads.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from . import turns

SIZES = {"100": (10, 10), "4k": (64, 64), "64k": (256, 256), "1M": (1024, 1024)}
IMAGES = {"100": (1, 4, 5, 5), "4k": (4, 4, 16, 16), "64k": (8, 8, 32, 32), "1M": (16, 64, 32, 32)}
THREADS = 2


class Inputs:
    """What an operation is measured on: tensors of one size, the same for both libraries."""

    def __init__(self, torch: Any, size: str) -> None:
        torch.manual_seed(0)
        rows, columns = SIZES[size]
        self.torch = torch
        self.x, self.y = torch.randn(rows, columns), torch.randn(rows, columns)
        self.positive, self.probability = self.x.abs() + 0.5, torch.rand(rows, columns)
        self.row, self.mask = torch.randn(columns), self.x > self.y
        self.classes = torch.randint(0, columns, (rows,))
        self.images = torch.randn(*IMAGES[size])
        self.scale = torch.ones(columns)
        self.scales, self.shifts = torch.ones(IMAGES[size][1]), torch.zeros(IMAGES[size][1])


# name -> (what takes the gradient, the operation of it and of the other inputs); no gradient where the name is in FLAT
OPERATIONS: dict[str, tuple[str, Callable[[Any, Inputs], Any]]] = {
    "add": ("x", lambda x, i: x + i.y),
    "add a row": ("x", lambda x, i: x + i.row),
    "add a number": ("x", lambda x, i: x + 1.5),
    "mul": ("x", lambda x, i: x * i.y),
    "div": ("x", lambda x, i: x / i.positive),
    "div by x": ("positive", lambda x, i: i.y / x),
    "pow 2": ("x", lambda x, i: x**2),
    "pow 3": ("x", lambda x, i: x**3),
    "pow 0.5": ("positive", lambda x, i: x**0.5),
    "pow 2.5": ("positive", lambda x, i: x**2.5),
    "maximum": ("x", lambda x, i: i.torch.maximum(x, i.y)),
    "where": ("x", lambda x, i: i.torch.where(i.mask, x, i.y)),
    "clamp": ("x", lambda x, i: x.clamp(-1, 1)),
    "abs": ("x", lambda x, i: x.abs()),
    "neg": ("x", lambda x, i: -x),
    "gt": ("x", lambda x, i: x > i.y),
    "exp": ("x", lambda x, i: x.exp()),
    "log": ("positive", lambda x, i: x.log()),
    "sqrt": ("positive", lambda x, i: x.sqrt()),
    "sin": ("x", lambda x, i: x.sin()),
    "tanh": ("x", lambda x, i: x.tanh()),
    "sigmoid": ("x", lambda x, i: x.sigmoid()),
    "relu": ("x", lambda x, i: x.relu()),
    "leaky_relu": ("x", lambda x, i: i.torch.nn.functional.leaky_relu(x)),
    "elu": ("x", lambda x, i: i.torch.nn.functional.elu(x)),
    "gelu": ("x", lambda x, i: i.torch.nn.functional.gelu(x)),
    "silu": ("x", lambda x, i: i.torch.nn.functional.silu(x)),
    "softplus": ("x", lambda x, i: i.torch.nn.functional.softplus(x)),
    "dropout": ("x", lambda x, i: i.torch.nn.functional.dropout(x, 0.1)),
    "sum": ("x", lambda x, i: x.sum()),
    "sum dim 0": ("x", lambda x, i: x.sum(0)),
    "sum dim 1": ("x", lambda x, i: x.sum(1)),
    "mean": ("x", lambda x, i: x.mean()),
    "mean dim 1": ("x", lambda x, i: x.mean(1)),
    "max": ("x", lambda x, i: x.max()),
    "max dim 1": ("x", lambda x, i: x.max(1).values),
    "max dim 0": ("x", lambda x, i: x.max(0).values),
    "amax dim 1": ("x", lambda x, i: x.amax(1)),
    "argmax dim 1": ("x", lambda x, i: x.argmax(1)),
    "any": ("x", lambda x, i: i.mask.any()),
    "all dim 1": ("x", lambda x, i: i.mask.all(1)),
    "var": ("x", lambda x, i: x.var()),
    "std dim 1": ("x", lambda x, i: x.std(1)),
    "norm": ("x", lambda x, i: x.norm()),
    "logsumexp": ("x", lambda x, i: x.logsumexp(1)),
    "cumsum": ("x", lambda x, i: x.cumsum(1)),
    "sort": ("x", lambda x, i: x.sort(1).values),
    "topk": ("x", lambda x, i: x.topk(5, 1).values),
    "softmax": ("x", lambda x, i: x.softmax(1)),
    "softmax dim 0": ("x", lambda x, i: x.softmax(0)),
    "log_softmax": ("x", lambda x, i: x.log_softmax(1)),
    "log_softmax dim 0": ("x", lambda x, i: x.log_softmax(0)),
    "cross_entropy": ("x", lambda x, i: i.torch.nn.functional.cross_entropy(x, i.classes)),
    "mse_loss": ("x", lambda x, i: i.torch.nn.functional.mse_loss(x, i.y)),
    "binary_cross_entropy": (
        "x", lambda x, i: i.torch.nn.functional.binary_cross_entropy_with_logits(x, i.probability)),
    "one_hot": ("x", lambda x, i: i.torch.nn.functional.one_hot(i.classes, i.x.shape[1])),
    "layer_norm": ("x", lambda x, i: i.torch.nn.functional.layer_norm(x, x.shape[1:], i.scale, i.row)),
    "batch_norm": (
        "images", lambda x, i: i.torch.nn.functional.batch_norm(x, None, None, i.scales, i.shifts, training=True)),
    "avg_pool2d": ("images", lambda x, i: i.torch.nn.functional.avg_pool2d(x, 2)),
    "max_pool2d": ("images", lambda x, i: i.torch.nn.functional.max_pool2d(x, 2)),
    "adaptive_avg_pool2d": ("images", lambda x, i: i.torch.nn.functional.adaptive_avg_pool2d(x, 1)),
}  # fmt: skip
FLAT = {"gt", "argmax dim 1", "any", "all dim 1", "one_hot"}


def microseconds(action: Callable, seconds: float) -> float:
    """The least time of a call, in groups of calls that take about a hundred microseconds."""
    action()
    count = max(1, math.ceil(1e-4 / timeit.timeit(action, number=1)))
    count = max(1, math.ceil(1e-4 * count / timeit.timeit(action, number=count)))
    return min(_groups(action, count, seconds)) / count * 1e6


def _groups(action: Callable, count: int, seconds: float) -> list[float]:
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        times.append(timeit.timeit(action, number=count))
    return times


def costs(torch: Any, names: list[str], seconds: float) -> dict[str, float]:
    """Microseconds of each operation, at each size, in each direction."""
    torch.set_num_threads(THREADS)
    found = {}
    for size in SIZES:
        inputs = Inputs(torch, size)
        for name in names:
            source, operation = OPERATIONS[name]
            x = getattr(inputs, source)
            found[f"{name}, {size}"] = microseconds(functools.partial(operation, x, inputs), seconds)
            if name not in FLAT:
                action = _with_backward(operation, x.clone().requires_grad_(), inputs)
                found[f"{name}, {size}, backward"] = microseconds(action, seconds)
    return found


def _with_backward(operation: Callable, x: Any, inputs: Inputs) -> Callable[[], None]:
    gradient = inputs.torch.ones_like(operation(x, inputs)).detach()

    def action() -> None:
        x.grad = None
        operation(x, inputs).backward(gradient)

    return action


def table(figures: dict[str, dict[str, float]], names: list[str]) -> str:
    """The ratios in Markdown: rows of operations, and for each size forward and with backward."""
    heads = [f"{size}{direction}" for size in SIZES for direction in ("", " backward")]
    lines = [f"| operation | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        keys = [f"{name}, {size}{direction}" for size in SIZES for direction in ("", ", backward")]
        cells = [f"{figures[key]['ratio']:.2f}" if key in figures else "" for key in keys]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--seconds", type=float, default=0.02, show_default=True, help="Measuring time of one figure.")
@click.option("--only", default="", help="Names of operations, separated by commas.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the times to this file.")
@click.option("--one", hidden=True)
def main(rounds: int, seconds: float, only: str, path: Path | None, one: str | None) -> None:
    names = only.split(",") if only else list(OPERATIONS)
    unknown = [name for name in names if name not in OPERATIONS]
    if unknown:
        raise click.BadParameter(f"no such operations: {', '.join(unknown)}; there are {', '.join(OPERATIONS)}")
    if one:
        click.echo(json.dumps(costs(importlib.import_module(one), names, seconds)))
        return
    figures = turns.in_turns("benchmarks.operations", rounds, "--seconds", str(seconds), "--only", ",".join(names))
    click.echo(table(figures, names))
    ratios = [row["ratio"] for row in figures.values()]
    click.echo(f"\ngeometric mean of the ratios {turns.geometric_mean(ratios):.2f}, smallest {min(ratios):.2f}")
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n")
    if not only:
        turns.write("operations", figures)


if __name__ == "__main__":
    main()
