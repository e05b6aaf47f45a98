"""`paceline bench`: what a cluster, or this machine, makes of data-parallel training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import plot
from .allreduce import allreduce
from .options import RANKS_HELP, as_words, machines, number_of_ranks
from .predict import predict
from .quantities import RankCounts, check_writable, show
from .training import BATCHES, train

_JSON_HELP = "Write the figures to FILE as JSON; - is stdout, in place of the page."
# The line in the picture: what good clusters reach.
_GOOD_EFFICIENCY = 0.9


@click.group()
def bench() -> None:
    """Measure communication and training, and predict larger jobs."""


bench.add_command(allreduce)
bench.add_command(predict)

_model = click.option("--model", type=click.Choice(list(BATCHES)), default="mlp", show_default=True)
_steps = click.option(
    "--steps", type=click.IntRange(min=1), default=30, show_default=True, metavar="N", help="Measured steps."
)
_threads = click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of each rank.")
_as_json = click.option("--json", "json_path", metavar="FILE", help=_JSON_HELP)


@bench.command("train")
@click.option("-n", "size", type=click.IntRange(min=1), metavar="N", help=RANKS_HELP.format(alone=1))
@machines
@_model
@click.option(
    "--batch", type=click.IntRange(min=1), metavar="N", help="Samples per rank and step; a default for each model."
)
@_steps
@_threads
@_as_json
def bench_train(
    size: int | None,
    hosts: str,
    hostfile: str,
    model: str,
    batch: int | None,
    steps: int,
    threads: int | None,
    json_path: str | None,
) -> None:
    """Time a training step on N ranks, and its parts.

    The communication is the time by which forward and backward are longer with it than without: what stays hidden
    behind them does not count. `paceline bench predict` reads the JSON.
    """
    check_writable(json_path, "--json")
    size = size or number_of_ranks(hosts, hostfile, alone=1)
    figures = train(size, model, batch or BATCHES[model], steps, threads, as_words(hosts, hostfile))
    show(figures, json_path, _train_page(figures))


@bench.command()
@click.option("--ranks", type=RankCounts(), default="1,2,4", show_default=True, help="Numbers of ranks.")
@machines
@click.option("--weak/--strong", default=True, help="The same batch for each rank [default], or for all together.")
@_model
@click.option(
    "--batch", type=click.IntRange(min=1), metavar="N", help="Samples of a step: of a rank, or with --strong of all."
)
@_steps
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Threads of each rank."
)
@_as_json
@click.option("--plot", "plot_path", metavar="FILE", help="Draw the efficiencies into FILE, an SVG picture.")
def scaling(
    ranks: list[int],
    hosts: str,
    hostfile: str,
    weak: bool,
    model: str,
    batch: int | None,
    steps: int,
    threads: int,
    json_path: str | None,
    plot_path: str | None,
) -> None:
    """Compare training on several numbers of ranks.

    One job is run after the other, and one machine filled after the other. Efficiency is the work that a rank does per
    second, compared with the smallest number of ranks.
    """
    check_writable(json_path, "--json")
    check_writable(plot_path, "--plot")
    batch = batch or BATCHES[model] * (1 if weak else max(ranks))
    uneven = [size for size in ranks if not weak and batch % size]
    if uneven:
        raise click.BadParameter(f"{batch} samples cannot be dealt evenly to {uneven[0]} ranks.", param_hint="--batch")
    room, where = number_of_ranks(hosts, hostfile, alone=max(ranks)), as_words(hosts, hostfile)
    if max(ranks) > room:
        raise click.BadParameter(f"the machines take {room} ranks in all, not {max(ranks)}.", param_hint="--ranks")
    runs = [train(size, model, batch if weak else batch // size, steps, threads, where) for size in ranks]
    first = runs[0]["samples_per_second_and_rank"]
    for run in runs:
        run["efficiency"] = run["samples_per_second_and_rank"] / first
    kind = "weak" if weak else "strong"
    if plot_path:
        title = f"Efficiency of {kind} scaling: {model}, {batch} samples per {'rank' if weak else 'step'}"
        heights = {f"{run['ranks']} ranks": run["efficiency"] for run in runs}
        Path(plot_path).write_text(plot.bars(title, heights, _GOOD_EFFICIENCY))
    show({"scaling": kind, "model": model, "batch": batch, "runs": runs}, json_path, _scaling_page(runs))


def _train_page(figures: dict[str, Any]) -> str:
    parts = ("forward", "backward", "communication", "optimizer")
    lines = [
        "{model}, {ranks} ranks of {threads} threads, {batch} samples each".format(**figures),
        f"step            {figures['step'] * 1e3:10.3f} ms (90% within {figures['step_p90'] * 1e3:.3f})",
        *(f"  {part:13s} {figures[part] * 1e3:10.3f} ms" for part in parts),
        "samples/s       {samples_per_second:10.1f} ({samples_per_second_and_rank:.1f} per rank)".format(**figures),
        f"parameters      {figures['parameters_sha256'][:16]} (SHA-256, the same on all ranks)",
    ]
    return "\n".join([*lines, *_warnings([figures])])


def _scaling_page(runs: list[dict[str, Any]]) -> str:
    lines = [" ranks  batch    step ms  communication ms   samples/s  efficiency"]
    for run in runs:
        times = f"{run['step'] * 1e3:10.3f} {run['communication'] * 1e3:17.3f}"
        rates = f"{run['samples_per_second']:11.1f} {run['efficiency']:11.1%}"
        lines.append(f"{run['ranks']:6d} {run['batch']:6d} {times} {rates}")
    return "\n".join([*lines, *_warnings(runs)])


def _warnings(runs: list[dict[str, Any]]) -> list[str]:
    crowded = [str(run["ranks"]) for run in runs if run["oversubscribed"]]
    return [f"oversubscribed, more threads than cores: {', '.join(crowded)} ranks"] if crowded else []
