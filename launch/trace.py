"""The ranks' spans as one trace for Chrome and Perfetto, and how much of the communication was hidden."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from ..runtime import faults
from .mpi import LaunchError

MAIN = "main"
# While a program is in one of these it computes nothing.
COMMUNICATION = ("collective", "message", "wait")

Interval = tuple[int, int]


class Span(NamedTuple):
    """Something that a thread of a rank did; times in ns of rank 0's clock."""

    thread: str
    begin: int
    end: int
    category: str
    name: str


class Track(NamedTuple):
    """What one rank has noted.

    Attributes:
        rank: the rank.
        spans: what its threads did. The program's own is called "main"; those of one name, of which one begins where
            another has ended, as loaders do, count as one.
    """

    rank: int
    spans: list[Span]

    @property
    def threads(self) -> list[str]:
        """The names of the threads, that of the program first."""
        return sorted({span.thread for span in self.spans}, key=lambda name: (name != MAIN, name))


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
    threads = {}
    spans = []
    for line in lines:
        if not line.endswith("\n"):
            break  # cut, as the rank was killed
        kind, *items = line.rstrip("\n").split("\t")
        if kind == "clock":
            offset = int(items[0])
        elif kind == "thread":
            threads[items[0]] = items[1]
        elif kind == "span":
            thread, begin, end, category, name = items
            spans.append(Span(threads[thread], int(begin), int(end), category, name))
    return Track(rank, [span._replace(begin=span.begin - offset, end=span.end - offset) for span in spans])


def write_trace(path: str, tracks: list[Track]) -> None:
    """Write Chrome's trace event format: a process for each rank, a row for each thread."""
    start = min((span.begin for track in tracks for span in track.spans), default=0)
    events: list[dict] = []
    for track in tracks:
        events.append({"ph": "M", "pid": track.rank, "name": "process_name", "args": {"name": f"rank {track.rank}"}})
        rows = {name: number for number, name in enumerate(track.threads, 1)}
        for name, row in rows.items():
            events.append({"ph": "M", "pid": track.rank, "tid": row, "name": "thread_name", "args": {"name": name}})
        for span in track.spans:
            times = {"ts": (span.begin - start) / 1e3, "dur": (span.end - span.begin) / 1e3}
            place = {"ph": "X", "pid": track.rank, "tid": rows[span.thread]}
            events.append(place | {"name": span.name, "cat": span.category} | times)
    with open(path, "w") as file:
        json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file)


def read_trace(path: str) -> list[Track]:
    """The tracks in a file of `write_trace`.

    Raises:
        LaunchError: it cannot be read, or is none.
    """
    try:
        with open(path) as file:
            events = json.load(file)["traceEvents"]
        tracks = {event["pid"]: Track(event["pid"], []) for event in events if event["name"] == "process_name"}
        threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
        for event in events:
            if event["ph"] == "X":
                begin, end = round(event["ts"] * 1e3), round((event["ts"] + event["dur"]) * 1e3)
                thread = threads[event["pid"], event["tid"]]
                tracks[event["pid"]].spans.append(Span(thread, begin, end, event["cat"], event["name"]))
    except OSError as error:
        raise LaunchError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LaunchError(
            f"{path} is no trace of `paceline run --timeline` ({type(error).__name__}: {error})"
        ) from error
    return [tracks[rank] for rank in sorted(tracks)]


def hidden_share(track: Track) -> float | None:
    """The share of a rank's collectives during which its program went on computing; None without collectives."""
    communication = _times(track, ("collective",), None)
    total = _length(communication)
    return None if not total else 1 - _length(_overlap(communication, _times(track, COMMUNICATION, MAIN))) / total


def shares(track: Track) -> dict[str, float]:
    """What part of its time the program of a rank computes, reads and communicates; the rest is under "other"."""
    spans = [span for span in track.spans if span.name != faults.EXIT_CALL]
    total = max((span.end for span in spans), default=0) - min((span.begin for span in spans), default=0)
    if not total:
        return {}
    taken = _times(track, COMMUNICATION, MAIN)
    found = {"communication": _length(taken) / total}
    for category in ("loader", "optimizer", "backward", "forward"):  # a span within one of these is not counted again
        own = _times(track, (category,), MAIN)
        found[category] = (_length(own) - _length(_overlap(own, taken))) / total
        taken = _union([*taken, *own])
    return found | {"other": 1 - _length(taken) / total}


def _times(track: Track, categories: tuple[str, ...], thread: str | None) -> list[Interval]:
    """When a thread, or any, was in spans of these categories; waiting for the others' ends does not count."""
    return _union(
        (span.begin, span.end)
        for span in track.spans
        if span.category in categories and thread in (None, span.thread) and span.name != faults.EXIT_CALL
    )


def summary(path: str, tracks: list[Track]) -> str:
    """What was written, and what it says about communication."""
    found = [share for track in tracks if (share := hidden_share(track)) is not None]
    text = f"timeline of {len(tracks)} ranks in {path}"
    if not found:
        return f"{text}; no communication"
    each = ", ".join(f"{share:.0%}" for share in found)
    return f"{text}; hidden behind computation: {sum(found) / len(found):.0%} of the communication ({each})"


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
