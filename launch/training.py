"""Starting the jobs that `paceline bench` measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ..runtime import world
from .mpi import LaunchError
from .worker import die_with_parent

# Models of paceline/_bench.py, and their samples per rank and step.
BATCHES = {"mlp": 64, "resnet20": 16, "gpt": 8, "deep": 64}


def train(
    size: int, model: str, batch: int, steps: int, threads: int | None = None, where: Sequence[str] = ()
) -> dict[str, Any]:
    """What a job of `size` ranks, which trains a model on random data, says about itself; see paceline/_bench.py.

    Args:
        size: number of ranks.
        model: a name in `BATCHES`.
        batch: samples per rank and step.
        steps: how many are measured.
        threads: of each rank; default: as `paceline run` shares the cores out.
        where: options of `paceline run` that name machines.

    Raises:
        LaunchError: the job fails; what it wrote on stderr has been shown.
    """
    return run_job(size, "paceline._bench", {"model": model, "batch": batch, "steps": steps}, threads, where)


def run_job(size: int, module: str, task: dict[str, Any], threads: int | None = None, where: Sequence[str] = ()) -> Any:
    """What a module says as JSON in its last line when `size` ranks run it; its argument is the task, as JSON."""
    task = task | {"progress": sys.stderr.isatty()}
    command = [sys.executable, "-m", "paceline", "run", "-n", str(size), *where, "-m", module]
    environment = dict(os.environ)
    if threads is not None:
        environment |= dict.fromkeys((*world.THREAD_VARIABLES, "NUMBA_NUM_THREADS"), str(threads))
    done = subprocess.run(
        [*command, json.dumps(task)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=die_with_parent,
    )
    if done.returncode:
        raise LaunchError(f"the job of {size} ranks ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])
