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
@click.option(
    "--ranks-per-node",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Ranks on a machine.",
)
@click.option("--intra-latency", type=Quantity(SECONDS, zero=True), default=0.0, help="Between these [0s].")
@click.option("--intra-bandwidth", type=Quantity(BYTES_PER_SECOND), default=math.inf, help="Between these [endless].")
@click.option(
    "--bucket-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=BUCKET_MIB,
    show_default=True,
    metavar="MIB",
    help="Size of a bucket.",
)
@click.option("--no-overlap", is_flag=True, help="Nothing is computed while gradients travel.")
@click.option(
    "--noise", type=click.FloatRange(0, 1), default=0.0, metavar="PART", help="Spread of computing times [0]."
)
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
    """Predict training steps on a network that you describe.

    TIMELINE_OR_JSON is what `paceline bench train --json` has written, best with all ranks of one machine, which share
    its memory; or a trace that `paceline run -n 2 --timeline` has. Each bucket of gradients is sent when it is ready
    and the one before has arrived.

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
    lines = [
        f"{model} on this machine; the network as measured on 2 ranks, computing",
        "                       as on one rank    as on so many",
        " ranks  measured ms      ms     error       ms   error",
    ]
    for row in measured:
        note = "  oversubscribed: one rank's computing times threads / cores" if row["oversubscribed"] else ""
        figures = [f"{row[key] * 1e3:9.3f} {row[key] / row['measured'] - 1:+7.0%}" for key in ("from_one", "from_all")]
        lines.append(f"{row['ranks']:6d} {row['measured'] * 1e3:12.3f} {' '.join(figures)}{note}")
    published = [_compare_published(each.predict(noise).efficiency, each) for each in PUBLISHED]
    lines += ["", "published efficiency    ranks  published  predicted   error"]
    for row in published:
        shares = f"{row['published']:10.0%} {row['predicted']:10.0%} {row['predicted'] - row['published']:+7.0%}"
        lines.append(f"{row['name']:22s} {row['ranks']:6d} {shares}")
    lines += [f"{row['name']}: {row['source']}; assumed: {row['assumed']}" for row in published]
    show({"measured": measured, "published": published}, json_path, "\n".join(lines))


def _compare_here(runs: list[dict[str, Any]], noise: float) -> list[dict[str, Any]]:
    """For each run what it took, and what the first two make one expect.

    Ranks on one machine share its memory and slow each other down even without communication. That is why there are two
    predictions: from the computing of one rank alone, and from that of these ranks.
    """
    network = Network(**runs[1]["network"])
    rows = []
    for run in runs:
        crowd = max(1.0, run["ranks"] * run["threads"] / len(os.sched_getaffinity(0)))
        steps = {"from_one": step_of(runs[0]).slowed(crowd), "from_all": step_of(run)}
        row = {
            name: simulate(step, run["ranks"], network, run["overlap"], noise).seconds for name, step in steps.items()
        }
        facts = {"ranks": run["ranks"], "measured": run["step"], "oversubscribed": run["oversubscribed"]}
        rows.append(facts | row)
    return rows


def _compare_published(efficiency: float, published: Any) -> dict[str, Any]:
    row = {"name": published.name, "ranks": published.ranks, "published": published.efficiency}
    return row | {"predicted": efficiency, "source": published.source, "assumed": published.assumed}
