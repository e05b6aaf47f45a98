"""Starting the training jobs that `paceline bench` measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from ..runtime import world
from .mpi import LaunchError
from .worker import die_with_parent

# Models of paceline/_bench.py, and their samples per rank and step.
BATCHES = {"mlp": 64, "resnet20": 16, "gpt": 8, "deep": 64}


def train(size: int, model: str, batch: int, steps: int, threads: int | None = None) -> dict[str, Any]:
    """What a job of `size` ranks, which trains a model on random data, says about itself; see paceline/_bench.py.

    Args:
        size: number of ranks.
        model: a name in `BATCHES`.
        batch: samples per rank and step.
        steps: how many are measured.
        threads: of each rank; default: as `paceline run` shares the cores out.

    Raises:
        LaunchError: the job fails; what it wrote on stderr has been shown.
    """
    task = {"model": model, "batch": batch, "steps": steps, "progress": sys.stderr.isatty()}
    command = [sys.executable, "-m", "paceline", "run", "-n", str(size), "-m", "paceline._bench", json.dumps(task)]
    environment = dict(os.environ)
    if threads is not None:
        environment |= dict.fromkeys((*world.THREAD_VARIABLES, "NUMBA_NUM_THREADS"), str(threads))
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=False, preexec_fn=die_with_parent
    )
    if done.returncode:
        raise LaunchError(f"the training job of {size} ranks ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])
