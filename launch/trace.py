"""The ranks' spans as one trace for Chrome and Perfetto, and how much of the communication was hidden."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from ..runtime import faults
from .mpi import LaunchError

Interval = tuple[int, int]


class Span(NamedTuple):
    """Something that a thread of a rank did; times in ns of rank 0's clock."""

    thread: int
    begin: int
    end: int
    category: str
    name: str


class Track(NamedTuple):
    """What one rank has noted.

    Attributes:
        rank: the rank.
        threads: names of its threads by their ids; that of the program is "main".
        spans: what they did.
    """

    rank: int
    threads: dict[int, str]
    spans: list[Span]


def read_tracks(folder: str) -> list[Track]:
    """The files of all ranks in a directory."""
    tracks = []
    for name in os.listdir(folder):
        rank = name.removeprefix("timeline-")
        if rank.isdigit():
            with open(os.path.join(folder, name)) as file:
                tracks.append(_read_track(int(rank), file))
    return sorted(tracks)


def _read_track(rank: int, lines: Iterable[str]) -> Track:
    offset = 0
    track = Track(rank, {}, [])
    for line in lines:
        kind, *items = line.rstrip("\n").split("\t")
        if kind == "clock":
            offset = int(items[0])
        elif kind == "thread":
            track.threads[int(items[0])] = items[1]
        elif kind == "span" and len(items) == 5:  # the last line of a rank that was killed may be cut
            thread, begin, end, category, name = items
            track.spans.append(Span(int(thread), int(begin), int(end), category, name))
    spans = [span._replace(begin=span.begin - offset, end=span.end - offset) for span in track.spans]
    return track._replace(spans=spans)


def write_trace(path: str, tracks: list[Track]) -> None:
    """Write Chrome's trace event format: a process for each rank, a row for each thread."""
    start = min((span.begin for track in tracks for span in track.spans), default=0)
    events: list[dict] = []
    for track in tracks:
        events.append({"ph": "M", "pid": track.rank, "name": "process_name", "args": {"name": f"rank {track.rank}"}})
        for thread, name in track.threads.items():
            events.append({"ph": "M", "pid": track.rank, "tid": thread, "name": "thread_name", "args": {"name": name}})
        for span in track.spans:
            times = {"ts": (span.begin - start) / 1e3, "dur": (span.end - span.begin) / 1e3}
            place = {"ph": "X", "pid": track.rank, "tid": span.thread}
            events.append(place | {"name": span.name, "cat": span.category} | times)
    with open(path, "w") as file:
        json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file)


def hidden_share(track: Track) -> float | None:
    """The share of a rank's communication during which its program went on computing; None without communication."""
    spans = [span for span in track.spans if span.category in ("collective", "wait") and span.name != faults.EXIT_CALL]
    communication = _union((span.begin, span.end) for span in spans if span.category == "collective")
    blocked = _union((span.begin, span.end) for span in spans if track.threads.get(span.thread) == "main")
    total = _length(communication)
    return None if not total else 1 - _length(_overlap(communication, blocked)) / total


def summary(path: str, tracks: list[Track]) -> str:
    """What was written, and what it says about communication."""
    shares = {track.rank: share for track in tracks if (share := hidden_share(track)) is not None}
    text = f"timeline of {len(tracks)} ranks in {path}"
    if not shares:
        return f"{text}; no communication"
    each = ", ".join(f"{share:.0%}" for share in shares.values())
    return f"{text}; hidden behind computation: {sum(shares.values()) / len(shares):.0%} of the communication ({each})"


def check_path(path: str) -> None:
    """Refuse before the job what would fail after it."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(folder, os.W_OK) or os.path.isdir(path):
        raise LaunchError(f"--timeline: cannot write {path}")


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    """Disjoint intervals that cover the same times, in order."""
    joined: list[Interval] = []
    for begin, end in sorted(intervals):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def _overlap(first: list[Interval], second: list[Interval]) -> list[Interval]:
    """The times that are in both of two lists as `_union` makes them."""
    common = []
    i = j = 0
    while i < len(first) and j < len(second):
        begin, end = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        if begin < end:
            common.append((begin, end))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return common


def _length(intervals: list[Interval]) -> int:
    return sum(end - begin for begin, end in intervals)
