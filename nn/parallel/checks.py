"""What is checked when a module becomes data-parallel."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

from ...runtime.comm import Comm
from ...tensor import Tensor
from ..module import Module
from ..parameter import Parameter

_MESSAGE_LINES = 10


def check_arguments(
    module: Any, device_ids: Any, process_group: Any, broadcast_buffers: Any, bucket_cap_mb: Any
) -> None:
    """Refuse what no wrapper can be made of."""
    name = "DistributedDataParallel()"
    if not isinstance(module, Module):
        raise TypeError(f"{name}: module should be an nn.Module, got {type(module).__name__}")
    if process_group is not None and not isinstance(process_group, Comm):
        raise TypeError(f"{name}: process_group should be a communicator or None, got {type(process_group).__name__}")
    if bucket_cap_mb is not None and not bucket_cap_mb > 0:
        raise ValueError(f"{name}: bucket_cap_mb should be a positive number of MiB, got {bucket_cap_mb}")
    if broadcast_buffers not in (True, False, "average"):
        raise ValueError(f'{name}: broadcast_buffers should be True, False or "average", got {broadcast_buffers!r}')
    found = {str(p.device) for p in module.parameters()}
    if len(found) > 1 or (device_ids is not None and len(device_ids) > 1):
        raise ValueError(
            f"{name}: a process trains on one device, got device_ids={device_ids} and a module on {sorted(found)}; "
            "start one process per device: paceline run -n N script.py"
        )


def check_same_everywhere(module: Module, comm: Comm) -> None:
    """Raise the same error on all ranks if their modules differ from rank 0's."""
    everything = itertools.chain(module.named_parameters(), module.named_buffers())
    mine = {name: _describe(tensor) for name, tensor in everything}
    digest = hashlib.blake2b(repr(list(mine.items())).encode(), digest_size=16).digest()
    if len(set(comm.all_gather_object(digest))) == 1:
        return
    first, *others = comm.all_gather_object(mine)
    lines = []
    for rank, other in enumerate(others, 1):
        for name in dict.fromkeys([*first, *other]):
            here, there = other.get(name, "missing"), first.get(name, "missing")
            if here != there:
                lines.append(f"\n  {name}: {here} on rank {rank}, {there} on rank 0")
        if list(first) != list(other) and set(first) == set(other):
            lines.append(f"\n  the order of names on rank {rank} is not that on rank 0")
    if len(lines) > _MESSAGE_LINES:
        lines[_MESSAGE_LINES:] = [f"\n  and {len(lines) - _MESSAGE_LINES} more"]
    raise RuntimeError(
        "DistributedDataParallel(): every rank must build the same module, but these differ:" + "".join(lines)
    )


def _describe(tensor: Tensor) -> str:
    kind = ("trained" if tensor.requires_grad else "frozen") if isinstance(tensor, Parameter) else "buffer"
    return f"{tensor.dtype.name} {list(tensor.shape)} ({kind})"
