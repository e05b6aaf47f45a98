"""What `paceline bench train` runs on every rank: training steps on random data, and where their time goes.

Called with a JSON object: model, batch (of a rank), steps, progress (whether to show a bar). Rank 0 prints the result
as one line of JSON, times in seconds.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy
from tqdm import tqdm

from . import _names as torch
from .runtime.comm import Comm, world_comm
from .runtime.world import get_world

nn, F = torch.nn, torch.nn.functional

_WARM_UP = 5
_SMALL, _LARGE = 1 << 12, 1 << 23  # bytes of the all-reduces that tell latency and bandwidth
_CALLS = 15


class _Residual(nn.Module):
    """`inner(x) + shortcut(x)`."""

    def __init__(self, inner: Any, shortcut: Any = None) -> None:
        super().__init__()
        self.inner = inner
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Any) -> Any:
        return self.inner(x) + self.shortcut(x)


class _Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, c // self.heads).transpose(1, 2) for z in self.qkv(x).split(c, dim=2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(b, t, c))


def mlp(batch: int) -> tuple:
    """4.2 M parameters, most of them in two layers."""
    model = nn.Sequential(nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 10))
    return model, torch.randn(batch, 1024), torch.randint(0, 10, (batch,))


def deep(batch: int) -> tuple:
    """65 small layers: many small gradients."""
    layers = [layer for _ in range(64) for layer in (nn.Linear(96, 96), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(96, 10)), torch.randn(batch, 96), torch.randint(0, 10, (batch,))


def resnet20(batch: int) -> tuple:
    """He et al. 2015 (arXiv 1512.03385), section 4.2, for images of 32 x 32: 0.27 M parameters."""

    def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> Any:
        convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    layers, inputs = [conv(3, 16, 3), nn.ReLU()], 16
    for outputs in (16, 32, 64):
        for block in range(3):
            stride = 2 if block == 0 and outputs > 16 else 1
            inner = nn.Sequential(conv(inputs, outputs, 3, stride), nn.ReLU(), conv(outputs, outputs, 3))
            shortcut = conv(inputs, outputs, 1, stride) if stride > 1 else None
            layers += [_Residual(inner, shortcut), nn.ReLU()]
            inputs = outputs
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return model, torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))


def gpt(batch: int, words: int = 65, width: int = 128, layers: int = 4, context: int = 128) -> tuple:
    """A small transformer that reads 128 characters: 0.8 M parameters; positions are left out."""

    def block() -> list:
        wide = (nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        return [
            _Residual(nn.Sequential(nn.LayerNorm(width), _Attention(width, heads=4))),
            _Residual(nn.Sequential(nn.LayerNorm(width), *wide)),
        ]

    blocks = [layer for _ in range(layers) for layer in block()]
    model = nn.Sequential(nn.Embedding(words, width), *blocks, nn.LayerNorm(width), nn.Linear(width, words))
    return model, torch.randint(0, words, (batch, context)), torch.randint(0, words, (batch, context))


MODELS: dict[str, Callable[[int], tuple]] = {"mlp": mlp, "resnet20": resnet20, "gpt": gpt, "deep": deep}


class _Training:
    """A model in data-parallel training, step by step under the clock."""

    def __init__(self, name: str, batch: int) -> None:
        model, self.inputs, self.classes = MODELS[name](batch)
        self.model = nn.parallel.DistributedDataParallel(model)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        self.ready: defaultdict[Any, list[float]] = defaultdict(list)  # by parameter: when its gradient was there

    def step(self) -> tuple[float, float, float]:
        """Seconds of forward, backward and the optimizer in one step."""
        forward, backward = self._differentiate()
        began = time.perf_counter()
        self.optimizer.step()
        return forward, backward, time.perf_counter() - began

    def compute(self) -> tuple[float, float]:
        """Seconds of forward and backward without communication; notes when each gradient was there."""
        with self.model.no_sync():
            return self._differentiate()

    def watch_gradients(self) -> None:
        """Let `compute` note when gradients are there."""
        for parameter in self.model.parameters():
            parameter.register_post_accumulate_grad_hook(
                lambda each: self.ready[each].append(time.perf_counter() - self._backward_began)
            )

    def _differentiate(self) -> tuple[float, float]:
        self.optimizer.zero_grad()
        began = time.perf_counter()
        output = self.model(self.inputs)
        loss = F.cross_entropy(output.view(-1, output.shape[-1]), self.classes.view(-1))
        self._backward_began = time.perf_counter()
        loss.backward()
        return self._backward_began - began, time.perf_counter() - self._backward_began

    def gradients(self) -> list[tuple[int, float]]:
        """(bytes, seconds from the beginning of backward) of each gradient, the first one first."""
        return sorted(((p.nbytes, statistics.median(times)) for p, times in self.ready.items()), key=lambda g: g[1])

    def digest(self, comm: Comm) -> str:
        """SHA-256 of the parameters; raises if the ranks' differ."""
        digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in self.model.parameters())).hexdigest()
        digests = comm.all_gather_object(digest)
        if len(set(digests)) > 1:
            raise RuntimeError(f"the ranks' parameters differ after the same steps: SHA-256 {digests}")
        return digest


def measure_network(comm: Comm) -> dict[str, float] | None:
    """Latency in seconds and bandwidth in bytes a second with which a ring would be as quick as this communicator."""
    if comm.size == 1:
        return None
    seconds = {}
    for size in (_SMALL, _LARGE):
        buffer, times = numpy.zeros(size // 4, numpy.float32), []
        for _ in range(_CALLS):
            comm.barrier()
            began = time.perf_counter()
            comm.all_reduce(buffer)
            times.append(time.perf_counter() - began)
        seconds[size] = comm.all_gather_object(statistics.median(times))[0]
    messages = 2 * (comm.size - 1)
    bandwidth = messages / comm.size * (_LARGE - _SMALL) / max(seconds[_LARGE] - seconds[_SMALL], 1e-9)
    return {"latency": seconds[_SMALL] / messages, "bandwidth": bandwidth}


def main() -> None:
    task = json.loads(sys.argv[1])
    comm, steps = world_comm(), task["steps"]
    torch.manual_seed(comm.rank)
    training = _Training(task["model"], task["batch"])
    silent = comm.rank > 0 or not task["progress"]
    with tqdm(total=_WARM_UP + 2 * steps, desc=f"ranks: {comm.size}", unit="step", disable=silent) as bar:

        def repeat(call: Callable[[], tuple], times: int) -> list[tuple]:
            return [(call(), bar.update())[0] for _ in range(times)]

        repeat(training.step, _WARM_UP)
        comm.barrier()
        timed = repeat(training.step, steps)
        training.watch_gradients()
        alone = repeat(training.compute, steps)
    result = summary(comm, task, timed, alone)
    result |= {"parameters_sha256": training.digest(comm), "gradients": training.gradients()}
    result |= {"overlap": training.model.overlaps, "network": measure_network(comm)}
    if comm.rank == 0:
        print(json.dumps(result))


def summary(comm: Comm, task: dict[str, Any], timed: list[tuple], alone: list[tuple]) -> dict[str, Any]:
    """The figures of all ranks' steps: of each step the slowest rank counts, of its parts rank 0's median."""
    everybody = comm.all_gather_object([sum(parts) for parts in timed])
    seconds = sorted(map(max, zip(*everybody, strict=True)))
    forward, backward, optimizer = (statistics.median(part) for part in zip(*timed, strict=True))
    forward_alone, backward_alone = (statistics.median(part) for part in zip(*alone, strict=True))
    world, median = get_world(), statistics.median(seconds)
    return {
        "model": task["model"],
        "ranks": comm.size,
        "threads": world.threads,
        "oversubscribed": world.local_size * world.threads > len(os.sched_getaffinity(0)),
        "batch": task["batch"],
        "step": median,
        "step_p90": seconds[math.ceil(0.9 * len(seconds)) - 1],
        "samples_per_second_and_rank": task["batch"] / median,
        "samples_per_second": task["batch"] * comm.size / median,
        "forward": forward_alone,
        "backward": backward_alone,
        "communication": max(0.0, forward + backward - forward_alone - backward_alone),
        "optimizer": optimizer,
    }


if __name__ == "__main__":
    main()
