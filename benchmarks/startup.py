"""Seconds from the start of a process to the end of the first training step of an MLP, ours and PyTorch's in turns.

    python -m benchmarks.startup

Paceline is measured with an empty cache of compiled kernels, which makes the step wait for what it needs of them, and
with the cache that this has filled. Prints one JSON object and writes benchmarks/results/startup.json.
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

from . import turns

IMPORT = "import {library}; {library}.nn"
STEP = """
import {library} as torch
from {library} import nn
model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
x, y = torch.randn({batch}, 784), torch.randint(0, 10, ({batch},))
loss = nn.functional.cross_entropy(model(x), y)
loss.backward()
optimizer.step()
print(loss.item(), flush=True)
import os
os._exit(0)
"""


def seconds(program: str, cache: str) -> float:
    """From start to exit, without the interpreter's clearing up."""
    start = time.perf_counter()
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120, capture_output=True)
    return time.perf_counter() - start


@click.command()
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True, help="Runs of each kind.")
@click.option("--peer", default="torch", show_default=True)
def main(repeat: int, peer: str) -> None:
    turns.need(peer)
    times: dict[str, list[float]] = {}

    def measure(name: str, program: str, cache: str, **fields: object) -> None:
        times.setdefault(name, []).append(seconds(program.format(**fields), cache))

    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as cache:
            for library in ("paceline", peer):
                measure(f"import {library}", IMPORT, cache, library=library)
            for batch in (32, 512):
                own = os.path.join(cache, str(batch))
                measure(f"paceline, batch {batch}, cold", STEP, own, library="paceline", batch=batch)
                measure(f"{peer}, batch {batch}", STEP, own, library=peer, batch=batch)
                measure(f"paceline, batch {batch}, warm", STEP, own, library="paceline", batch=batch)
    figures = {name: round(statistics.median(each), 3) for name, each in times.items()}
    click.echo(json.dumps(figures))
    turns.write("startup", figures)


if __name__ == "__main__":
    main()
