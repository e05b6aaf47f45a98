"""Whether `paceline warmup` leaves nothing to compile: runs it with an empty cache, then a step of every workload.

    python -m benchmarks.warmup

Prints how long it took, which kernels it never called, and what each workload compiled all the same; fails if that is
anything.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

import click

from .workloads import WORKLOADS

LEFT_OUT = """
from pathlib import Path
from numba.core.registry import CPUDispatcher
from paceline.tensor.kernels import sources
kept = {path.name.rpartition("-")[0] for folder in sources.cache.folders() for path in folder.iterdir()}
modules = [getattr(sources, path.stem) for path in Path(sources.compiler.__file__).parent.glob("[!_]*.py")]
functions = {x for module in modules for x in vars(module).values() if isinstance(x, CPUDispatcher)}
kernels = {x._cache._name for x in functions if issubclass(x._compiler.pipeline_class, sources.pipeline.Kernel)}
print(*sorted(kernels - kept))
"""

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

        def report(what: str, *command: str) -> None:
            nonlocal missing
            names = subprocess.check_output([sys.executable, "-c", *command], env=environment, text=True).split()
            missing += len(names)
            click.echo(f"{what}: {', '.join(names) or 'nothing'}")

        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "paceline", "warmup"], env=environment, check=True)
        click.echo(f"paceline warmup: {time.perf_counter() - start:.0f} s")
        report("left out", LEFT_OUT)
        for name in WORKLOADS:
            report(f"compiled by {name}", STEP, name)
    sys.exit(missing > 0)


if __name__ == "__main__":
    main()
