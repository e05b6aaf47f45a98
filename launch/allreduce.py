"""`paceline bench allreduce`: how quickly ranks add up arrays, beside what MPI and the memory do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import plot
from .options import RANKS_HELP, as_words, machines, number_of_ranks
from .quantities import Sizes, check_writable, show, size_text
from .training import run_job


@click.command()
@click.option("-n", "ranks", type=click.IntRange(min=2), metavar="N", help=RANKS_HELP.format(alone=2))
@machines
@click.option("--sizes", type=Sizes(), default="1KiB..256MiB", show_default=True, help="Sizes of the array.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.0, min_open=True),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="Per size.",
)
@click.option("--json", "json_path", metavar="FILE", help="Write the figures to FILE as JSON; - is stdout.")
@click.option("--plot", "plot_path", metavar="FILE", help="Draw the speed beside MPI's into FILE, an SVG picture.")
def allreduce(
    ranks: int | None,
    hosts: str,
    hostfile: str,
    sizes: list[int],
    seconds: float,
    json_path: str | None,
    plot_path: str | None,
) -> None:
    """Time sums of float32 arrays over N ranks, beside MPI's own.

    The algorithm bandwidth is the size of the array by the time: what a program sees. To sum among n ranks, each has to
    send and to receive 2 (n - 1) / n times the array, however it is done. The bus bandwidth is the algorithm bandwidth
    times that factor: it tells how well the hardware is used, and can be compared between numbers of ranks.

    MPI is the quicker of its two ways, in place or not; memcpy copies the array on all ranks at once. All take turns,
    and of each the quickest of ten rounds counts, as the slowest rank saw it.
    """
    check_writable(json_path, "--json")
    check_writable(plot_path, "--plot")
    if any(size % 4 for size in sizes):
        raise click.BadParameter("float32 arrays have multiples of 4 bytes.", param_hint="--sizes")
    ranks = ranks or max(2, number_of_ranks(hosts, hostfile, alone=2))
    task = {"sizes": sizes, "seconds": seconds}
    measured = run_job(ranks, "paceline.launch.exchange", task, where=as_words(hosts, hostfile))
    rows = [_figures(ranks, row["bytes"], row["seconds"]) for row in measured]
    if plot_path:
        heights = {size_text(row["bytes"]): row["speed_beside_mpi"] for row in rows}
        Path(plot_path).write_text(plot.bars(f"Speed of all_reduce, MPI's own = 1: {ranks} ranks", heights))
    show({"ranks": ranks, "sizes": rows}, json_path, _page(ranks, rows))


def _figures(ranks: int, nbytes: int, seconds: dict[str, float]) -> dict[str, Any]:
    """The figures for one size, in bytes and seconds."""
    own, mpi = seconds["paceline"], min(seconds["mpi"], seconds["mpi_in_place"])
    return {
        "bytes": nbytes,
        "latency": own,
        "algorithm_bandwidth": nbytes / own,
        "bus_bandwidth": nbytes / own * 2 * (ranks - 1) / ranks,
        "mpi_latency": mpi,
        "memcpy_bandwidth": nbytes / seconds["memcpy"],
        "speed_beside_mpi": mpi / own,
    }


def _page(ranks: int, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"all_reduce of float32 over {ranks} ranks, GB/s",
        "     size         us  algorithm      bus   memcpy     MPI us  beside MPI",
    ]
    for row in rows:
        rates = (row["algorithm_bandwidth"], row["bus_bandwidth"], row["memcpy_bandwidth"])
        algorithm, bus, memcpy = (rate / 1e9 for rate in rates)
        lines.append(
            f"{size_text(row['bytes']):>9} {row['latency'] * 1e6:10.2f} {algorithm:10.2f} {bus:8.2f} {memcpy:8.2f} "
            f"{row['mpi_latency'] * 1e6:10.2f} {row['speed_beside_mpi']:10.2f}x"
        )
    return "\n".join(lines)
