"""Reading what a training step does from a file: figures of `paceline bench train`, or a trace of `paceline run`."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from typing import Any

from .mpi import LaunchError
from .simulation import Bucket, Step, cut_buckets

MiB = 1 << 20
_FIRST_BUCKET = MiB  # as in nn/parallel/reducer.py
BUCKET_MIB = 25.0

_ALL_REDUCE = re.compile(r"all_reduce\(([a-z]+)(\d*) \[([\d, ]*)\]")


def read_step(path: str, bucket_mib: float = BUCKET_MIB) -> Step:
    """The step that a file describes.

    Args:
        path: JSON of `paceline bench train` or `scaling`, or a trace of two or more ranks, which has its own buckets.
        bucket_mib: size of buckets in MiB.

    Raises:
        LaunchError: the file holds no such thing.
    """
    try:
        with open(path) as file:
            content = json.load(file)
        if "traceEvents" in content:
            return _step_of_trace(content["traceEvents"], path)
        return step_of(content["runs"][0] if "runs" in content else content, bucket_mib)
    except OSError as error:
        raise LaunchError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        message = f"{path} is neither figures of `paceline bench train --json` nor a trace of `paceline run --timeline`"
        raise LaunchError(f"{message} ({reason})") from error


def step_of(figures: dict[str, Any], bucket_mib: float = BUCKET_MIB) -> Step:
    """The step in the figures of `paceline bench train`."""
    cap = bucket_mib * MiB
    buckets = cut_buckets(figures["gradients"], min(_FIRST_BUCKET, cap), cap)
    return Step(figures["forward"], figures["backward"], figures["optimizer"], buckets)


def _step_of_trace(events: list[dict], path: str) -> Step:
    """The typical step of rank 0, from which the time that it waited for others is taken out."""
    spans = sorted((e for e in events if e["ph"] == "X" and e["pid"] == 0), key=lambda e: (e["ts"], -e["dur"]))
    passes = [span for span in spans if span["cat"] == "backward"]
    steps = [step for each in reversed(passes) if (step := _step_around(spans, each)).buckets]
    if not steps:
        raise LaunchError(f"{path} has no buckets: record it on 2 ranks, or use `paceline bench train --json`")
    usual = Counter(len(step.buckets) for step in steps).most_common(1)[0][0]  # the first step has other ones
    alike = [step for step in steps if len(step.buckets) == usual]

    def median(values: list[float]) -> float:
        return statistics.median(values) * 1e-6

    buckets = tuple(
        Bucket(each[0].size, median([bucket.ready for bucket in each]))
        for each in zip(*(step.buckets for step in alike), strict=True)
    )
    times = {name: median([getattr(step, name) for step in alike]) for name in ("forward", "backward", "optimizer")}
    return Step(**times, buckets=buckets)


def _step_around(spans: list[dict], backward: dict) -> Step:
    """The step, in microseconds, that a backward pass is in."""
    own = [span for span in spans if span["tid"] == backward["tid"]]
    end = backward["ts"] + backward["dur"]
    before = [span for span in own if span["cat"] == "backward" and span["ts"] < backward["ts"]]
    start = before[-1]["ts"] + before[-1]["dur"] if before else 0.0
    forward = _outermost([e for e in own if e["cat"] == "forward" and start <= e["ts"] < backward["ts"]])
    optimizer = next((e["dur"] for e in own if e["cat"] == "optimizer" and e["ts"] >= end), 0.0)
    inside = [e for e in spans if backward["ts"] <= e["ts"] < end]
    waits = _outermost([e for e in inside if e["tid"] == backward["tid"] and e["cat"] in ("collective", "wait")])
    sends = [e["ts"] for e in inside if e["cat"] == "bucket" and e["name"] != "last buckets"]
    sizes = [size for e in inside if e["cat"] == "collective" and (size := _bytes_of(e["name"]))]
    # A communicator keeps the order: the first all-reduces are those of the buckets, the rest is bookkeeping.
    buckets = tuple(
        Bucket(size, ts - backward["ts"] - sum(wait["dur"] for wait in waits if wait["ts"] < ts))
        for ts, size in zip(sends, sizes, strict=False)
    )
    computing = backward["dur"] - sum(wait["dur"] for wait in waits)
    return Step(sum(span["dur"] for span in forward), computing, optimizer, buckets)


def _outermost(spans: list[dict]) -> list[dict]:
    """The spans of a thread that are in no other one of them."""
    found: list[dict] = []
    for span in spans:
        if not found or span["ts"] >= found[-1]["ts"] + found[-1]["dur"]:
            found.append(span)
    return found


def _bytes_of(call: str) -> int:
    """The size of an all-reduce by its name; 0 if it is none."""
    match = _ALL_REDUCE.match(call)
    if match is None:
        return 0
    size = int(match[2] or 8) // 8
    for length in filter(None, match[3].split(", ")):
        size *= int(length)
    return size
