"""What the benchmarks have in common: two libraries in turns, each figure from a process of its own, and results."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
OURS, PEER = "paceline", "torch"


def need(library: str = PEER) -> None:
    """End here, with what to do, where the library to compare with is not installed."""
    if importlib.util.find_spec(library) is None:
        raise SystemExit(f"this compares with {library}, which is not installed: pip install -e '.[test,dev]'")


def child(module: str, *arguments: str) -> dict[str, float]:
    """The figures that `python -m module --one arguments...` prints as JSON. This process loads neither library."""
    command = [sys.executable, "-m", module, "--one", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=RESULTS.parents[1])
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def in_turns(module: str, rounds: int, *arguments: str) -> dict[str, dict[str, float]]:
    """For each figure both medians, and the median of the ratios peer/ours of single rounds."""
    need()
    pairs = [tuple(child(module, library, *arguments) for library in (OURS, PEER)) for _ in range(rounds)]
    return {
        name: {
            "ours": statistics.median(ours[name] for ours, _ in pairs),
            "peer": statistics.median(peer[name] for _, peer in pairs),
            "ratio": statistics.median(peer[name] / ours[name] for ours, peer in pairs),
        }
        for name in pairs[0][0]
    }


def geometric_mean(ratios: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, ratios)))


def machine() -> dict[str, str | int]:
    """Where the figures were taken."""
    with open("/proc/cpuinfo") as info:
        models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "numba", "torch")},
    }


def write(name: str, figures: object) -> None:
    """Keep a result with the machine described, as benchmarks/results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1) + "\n")


def print_table(title: str, unit: str, figures: dict[str, dict[str, float]]) -> None:
    print(f"\n{title + ', ' + unit:36s} {OURS:>10s} {PEER:>10s} {'ratio':>7s}")
    for name, row in figures.items():
        print(f"{name:36s} {row['ours']:10.2f} {row['peer']:10.2f} {row['ratio']:7.2f}", flush=True)
