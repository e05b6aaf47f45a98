"""`paceline bench predict`: training steps on more ranks than there are, and how far such predictions are off."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from typing import Any

import click

from .published import PUBLISHED
from .quantities import BYTES_PER_SECOND, SECONDS, Quantity, RankCounts, check_writable, show
from .recorded import BUCKET_MIB, read_step, step_of
from .simulation import TOPOLOGIES, Network, Prediction, simulate
from .training import BATCHES, train

_CHECKED_RANKS = (1, 2, 4)
_CHECKED_STEPS = 30


@click.command()
@click.argument("recorded", metavar="TIMELINE_OR_JSON", required=False)
@click.option("--ranks", type=RankCounts(), default="8..4096", show_default=True, help="Numbers of ranks.")
@click.option("--latency", type=Quantity(SECONDS, zero=True), help="Time of the shortest message, e.g. 2us.")
@click.option("--bandwidth", type=Quantity(BYTES_PER_SECOND), help="Of a machine's link, e.g. 25GB/s or 100Gbit/s.")
@click.option("--topology", type=click.Choice(TOPOLOGIES), default="ring", show_default=True)
@click.option("--ranks-per-node", type=click.IntRange(min=1), default=1, show_default=True, help="Ranks on a machine.")
@click.option("--intra-latency", type=Quantity(SECONDS, zero=True), default=0.0, help="Between these [0s].")
@click.option("--intra-bandwidth", type=Quantity(BYTES_PER_SECOND), default=math.inf, help="Between these [endless].")
@click.option("--bucket-mb", type=click.FloatRange(min=0, min_open=True), default=BUCKET_MIB, show_default=True)
@click.option("--no-overlap", is_flag=True, help="Nothing is computed while gradients travel.")
@click.option("--noise", type=click.FloatRange(0, 1), default=0.0, help="Spread of the ranks' computing times [0].")
@click.option("--check", is_flag=True, help="Compare predictions with this machine and with published figures.")
@click.option("--model", type=click.Choice(list(BATCHES)), default="mlp", help="What --check trains [mlp].")
@click.option("--json", "json_path", metavar="FILE", help="Write the figures to FILE as JSON; - is stdout.")
def predict(
    recorded: str | None,
    ranks: list[int],
    latency: float | None,
    bandwidth: float | None,
    topology: str,
    ranks_per_node: int,
    intra_latency: float,
    intra_bandwidth: float,
    bucket_mb: float,
    no_overlap: bool,
    noise: float,
    check: bool,
    model: str,
    json_path: str | None,
) -> None:
    """Predict the time of a training step on a network that is described.

    TIMELINE_OR_JSON is what `paceline bench train --json` has written, best on one rank, or a trace that `paceline run
    -n 2 --timeline` has. Each bucket of gradients is sent when it is ready and the one before has arrived.

    --topology: a ring over all ranks, two binary trees, or fat-tree: a ring within machines, and between them the
    quicker of both.
    """
    check_writable(json_path, "--json")
    if check:
        if recorded is not None:
            raise click.UsageError("--check makes its own recording: leave out TIMELINE_OR_JSON.")
        _check(model, noise, json_path)
        return
    if recorded is None or latency is None or bandwidth is None:
        raise click.UsageError("give TIMELINE_OR_JSON, --latency and --bandwidth, or --check.")
    step = read_step(recorded, bucket_mb)
    network = Network(latency, bandwidth, topology, ranks_per_node, intra_latency, intra_bandwidth)
    predictions = [simulate(step, size, network, not no_overlap, noise) for size in ranks]
    rows = [asdict(each) | {"hidden": each.hidden} for each in predictions]
    one = f"one rank alone: {step.compute * 1e3:.3f} ms, {len(step.buckets)} buckets"
    show({"one_rank": asdict(step), "predictions": rows}, json_path, "\n".join([one, *_table(predictions)]))


def _table(predictions: list[Prediction]) -> list[str]:
    lines = [" ranks    step ms  efficiency  communication ms  hidden"]
    for each in predictions:
        times = f"{each.seconds * 1e3:10.3f} {each.efficiency:11.1%} {each.communication * 1e3:17.3f}"
        lines.append(f"{each.ranks:6d} {times} {each.hidden:7.0%}")
    return lines


def _check(model: str, noise: float, json_path: str | None) -> None:
    """Predictions beside what was measured here, and beside what others published."""
    runs = [train(size, model, BATCHES[model], _CHECKED_STEPS, threads=1) for size in _CHECKED_RANKS]
    measured = _compare_here(runs, noise)
    lines = [f"{model} on this machine; the step from 1 rank, the network from 2 ranks"]
    lines += [" ranks  measured ms  predicted ms   error"]
    for row in measured:
        note = "  oversubscribed: computing slowed by threads / cores" if row["oversubscribed"] else ""
        times = f"{row['measured'] * 1e3:12.3f} {row['predicted'] * 1e3:13.3f}"
        lines.append(f"{row['ranks']:6d} {times} {row['error']:+7.0%}{note}")
    published = [_compare_published(each.predict(noise).efficiency, each) for each in PUBLISHED]
    lines += ["", "published efficiency    ranks  published  predicted   error"]
    for row in published:
        shares = f"{row['published']:10.0%} {row['predicted']:10.0%} {row['predicted'] - row['published']:+7.0%}"
        lines.append(f"{row['name']:22s} {row['ranks']:6d} {shares}")
    lines += [f"{row['name']}: {row['source']}; assumed: {row['assumed']}" for row in published]
    show({"measured": measured, "published": published}, json_path, "\n".join(lines))


def _compare_here(runs: list[dict[str, Any]], noise: float) -> list[dict[str, Any]]:
    """For each run what it took, and what the first two make one expect."""
    network = Network(**runs[1]["network"])
    rows = []
    for run in runs:
        crowd = max(1.0, run["ranks"] * run["threads"] / len(os.sched_getaffinity(0)))
        expected = simulate(step_of(runs[0]).slowed(crowd), run["ranks"], network, run["overlap"], noise).seconds
        row = {"ranks": run["ranks"], "measured": run["step"], "predicted": expected}
        rows.append(row | {"error": expected / run["step"] - 1, "oversubscribed": run["oversubscribed"]})
    return rows


def _compare_published(efficiency: float, published: Any) -> dict[str, Any]:
    row = {"name": published.name, "ranks": published.ranks, "published": published.efficiency}
    return row | {"predicted": efficiency, "source": published.source, "assumed": published.assumed}
