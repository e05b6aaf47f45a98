"""Whether `paceline warmup` leaves nothing to compile: runs it with an empty cache, then a step of every workload.

    python -m benchmarks.warmup

Prints how long it took and what each workload compiled all the same; fails if that is anything.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

import click

from .workloads import WORKLOADS

STEP = """
import sys
import paceline
from paceline.tensor.kernels import sources
from benchmarks.workloads import WORKLOADS
compiled = []
save = sources.cache.Cache.save_overload
sources.cache.Cache.save_overload = lambda cache, *args: (compiled.append(cache._name), save(cache, *args))
WORKLOADS[sys.argv[1]](paceline)()
print(*compiled)
"""


@click.command()
def main() -> None:
    missing = 0
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "paceline", "warmup"], env=environment, check=True)
        click.echo(f"paceline warmup: {time.perf_counter() - start:.0f} s")
        for name in WORKLOADS:
            command = [sys.executable, "-c", STEP, name]
            compiled = subprocess.check_output(command, env=environment, text=True).split()
            missing += len(compiled)
            click.echo(f"{name}: {', '.join(compiled) or 'nothing compiled'}")
    sys.exit(missing > 0)


if __name__ == "__main__":
    main()
