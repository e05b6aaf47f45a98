"""`paceline timeline`: what a trace says, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from . import plot
from .quantities import check_writable
from .trace import COMMUNICATION, Track, hidden_share, read_trace, shares

_COLORS = {
    "forward": "#8ecae6",
    "backward": "#7b9ee0",
    "optimizer": "#6a994e",
    "loader": "#bc8a5f",
    "bucket": "#ffb703",
    "communication": "#e76f51",
}


@click.command()
@click.argument("trace")
@click.option("--plot", "plot_path", metavar="FILE", help="Draw the steps into FILE, an SVG picture.")
@click.option(
    "--steps", type=click.IntRange(min=1), default=2, show_default=True, metavar="N", help="How many to draw."
)
def timeline(trace: str, plot_path: str | None, steps: int) -> None:
    """Show how ranks have spent their time.

    TRACE is a file of `paceline run --timeline`. Communication that is hidden goes on while the program computes; the
    table has what the program waits for. The picture shows steps from the middle of the run; Perfetto
    (ui.perfetto.dev) shows all of TRACE.
    """
    check_writable(plot_path, "--plot")
    tracks = read_trace(trace)
    click.echo(_page(tracks))
    if plot_path:
        Path(plot_path).write_text(picture(tracks, steps))


def picture(tracks: list[Track], steps: int) -> str:
    """Steps of all ranks, a lane for each thread, as SVG."""
    begin, end = _window(tracks, steps)
    lanes = {}
    for track in tracks:
        for thread in track.threads:
            lanes[f"rank {track.rank}: {thread.removeprefix('paceline-')}"] = [
                plot.Span(
                    (max(span.begin, begin) - begin) / 1e6,
                    (min(span.end, end) - begin) / 1e6,
                    span.name,
                    "communication" if span.category in COMMUNICATION else span.category,
                )
                for span in track.spans
                if span.thread == thread and span.begin < end and span.end > begin
            ]
    return plot.lanes("What the ranks do", lanes, (end - begin) / 1e6, _COLORS)


def _window(tracks: list[Track], steps: int) -> tuple[int, int]:
    """From the end of one step of the first rank to that of another; everything where there are no such steps."""
    ends = sorted(span.end for track in tracks[:1] for span in track.spans if span.category == "optimizer")
    if len(ends) > steps:
        first = (len(ends) - steps - 1) // 2
        return ends[first], ends[first + steps]
    spans = [span for track in tracks for span in track.spans]
    return min((span.begin for span in spans), default=0), max((span.end for span in spans), default=1)


def _page(tracks: list[Track]) -> str:
    columns = ("forward", "backward", "optimizer", "loader", "communication", "other")
    lines = [f"rank  {'  '.join(columns)}  hidden communication"]
    for track in tracks:
        found = shares(track)
        cells = [f"{found.get(name, 0.0):{len(name)}.0%}" for name in columns]
        hidden = hidden_share(track)
        lines.append("  ".join([f"{track.rank:4}", *cells, "none" if hidden is None else f"{hidden:.0%}"]))
    return "\n".join(lines)
