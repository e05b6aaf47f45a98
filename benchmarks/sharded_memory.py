"""Memory of a rank that trains with Adam: plain, and with state and gradients divided among the ranks (ZeRO-1, ZeRO-2).

    MALLOC_MMAP_THRESHOLD_=1000000 paceline run -n 2 benchmarks/sharded_memory.py MODE

MODE is plain, zero1, zero1-reduce or zero2: one in a job, since freed memory stays with its process, and with large
arrays from the system, as the variable demands, so that less of it does. Rank 0 prints a line of JSON: what it has more
than before the model was made, in bytes for each parameter, after backward and after the step (each the most of three
steps). Pages that several ranks map count for each in parts (Pss in /proc/self/smaps_rollup, so Linux only).
"""

import argparse
import gc
import json
import re

import paceline as torch
from paceline import nn
from paceline.distributed.optim import ZeroRedundancyOptimizer
from paceline.nn.parallel import DistributedDataParallel

WIDTH, LAYERS, BATCH = 2048, 8, 4  # 33.6 million parameters; few samples, so that activations do not count
DIVIDED = {"zero1": {}, "zero1-reduce": {"reduce_gradients": True}, "zero2": {"shard_gradients": True}}


def resident() -> int:
    """Bytes of this process's memory."""
    gc.collect()
    with open("/proc/self/smaps_rollup") as file:
        found = re.search(r"^Pss:\s+(\d+) kB", file.read(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> tuple[int, int]:
    """Memory after backward and after the step."""
    optimizer.zero_grad()
    model(x).square().mean().backward()
    after_backward = resident()
    optimizer.step()
    return after_backward, resident()


def main(mode: str) -> None:
    torch.distributed.init_process_group()
    x = torch.randn(BATCH, WIDTH)
    small = nn.Linear(WIDTH, WIDTH)
    step(small, torch.optim.Adam(small.parameters()), x)  # loads compiled kernels
    before = resident()
    net = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
    model = DistributedDataParallel(net) if mode in ("plain", "zero1") else net
    if mode == "plain":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(net.parameters())
    else:
        optimizer = ZeroRedundancyOptimizer(net.parameters(), torch.optim.Adam, **DIVIDED[mode])
    most = [max(each) for each in zip(*(step(model, optimizer, x) for _ in range(3)), strict=True)]
    if torch.distributed.get_rank() == 0:
        count = sum(p.numel() for p in net.parameters())
        backward, after = (round((nbytes - before) / count, 2) for nbytes in most)
        ranks = torch.distributed.get_world_size()
        print(json.dumps({"mode": mode, "ranks": ranks, "backward": backward, "step": after}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["plain", *DIVIDED])
    main(parser.parse_args().mode)
