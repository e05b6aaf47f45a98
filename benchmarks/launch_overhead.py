"""What `paceline run -n N` costs over `mpiexec -n N python`, for a whole job: seconds from start to exit.

The same script is started both ways in turns, so that both meet the same disturbances. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import click

from paceline.launch.mpi import find_mpiexec

SCRIPT = """
import paceline
from paceline.distributed import barrier
barrier()
"""


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall time of a command, which has to succeed."""
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, timeout=120)
    return time.perf_counter() - start


@click.command()
@click.option("-n", "size", type=click.IntRange(min=2), default=2, show_default=True, help="Number of ranks.")
@click.option("--repeat", type=click.IntRange(min=1), default=11, show_default=True, help="Runs of each kind.")
def main(size: int, repeat: int) -> None:
    mpiexec = find_mpiexec()
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(SCRIPT)
        script.flush()
        # Both with one thread per rank, and with what this MPI needs to start fast.
        environment = os.environ | mpiexec.environment(size) | {"OMP_NUM_THREADS": "1"}
        plain = mpiexec.command(size, [sys.executable, script.name])
        ours = [sys.executable, "-m", "paceline", "run", "-n", str(size), script.name]
        pairs = [(seconds(plain, environment), seconds(ours, environment)) for _ in range(repeat)]
    result = {
        "ranks": size,
        "repeat": repeat,
        "mpi": mpiexec.version,
        "mpiexec_seconds": statistics.median(each[0] for each in pairs),
        "paceline_run_seconds": statistics.median(each[1] for each in pairs),
        "overhead_seconds": statistics.median(each[1] - each[0] for each in pairs),
    }
    click.echo(json.dumps({name: round(each, 4) if isinstance(each, float) else each for name, each in result.items()}))


if __name__ == "__main__":
    main()
