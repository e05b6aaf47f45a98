"""What is checked when a module becomes data-parallel."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy

from ...runtime.arrays import to_host
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
    if bucket_cap_mb not in (None, "auto") and not (isinstance(bucket_cap_mb, int | float) and bucket_cap_mb > 0):
        raise ValueError(f'{name}: bucket_cap_mb should be a positive number of MiB or "auto", got {bucket_cap_mb!r}')
    if broadcast_buffers not in (True, False, "average"):
        raise ValueError(f'{name}: broadcast_buffers should be True, False or "average", got {broadcast_buffers!r}')
    found = {str(p.device) for p in module.parameters()}
    if len(found) > 1 or (device_ids is not None and len(device_ids) > 1):
        raise ValueError(
            f"{name}: a process trains on one device, got device_ids={device_ids} and a module on {sorted(found)}; "
            "start one process per device: paceline run -n N script.py"
        )


def check_same_module(module: Module, comm: Comm, options: dict[str, Any]) -> None:
    """Raise the same error on all ranks if their modules or options differ from rank 0's."""
    everything = itertools.chain(module.named_parameters(), module.named_buffers())
    mine = {name: _describe(tensor) for name, tensor in everything}
    mine |= {f"{name}=": repr(value) for name, value in options.items()} | {"NumPy": numpy.__version__}
    _compare(mine, comm, "DistributedDataParallel(): every rank must build the same module, but these differ:")


def check_same_values(module: Module, optimizer: Any, comm: Comm) -> None:
    """Raise the same error on all ranks if values, or the optimizer's options or state, differ from rank 0's."""
    everything = itertools.chain(module.named_parameters(), module.named_buffers())
    mine = {name: _digest(tensor) for name, tensor in everything}
    if optimizer is not None:
        mine |= _describe_optimizer(optimizer)
        state = optimizer.state_to_save()
        for i, group in enumerate(optimizer.param_groups):
            for k, p in enumerate(group["params"]):
                entries = state.get(p, {}).items()
                mine |= {f"optimizer, group {i}, {name} of parameter {k}": _digest(value) for name, value in entries}
    _compare(mine, comm, "check_replicas(): what should be the same on all ranks differs:")


def check_same_optimizer(optimizer: Any, comm: Comm) -> None:
    """Raise the same error on all ranks if their optimizers' classes, parameters or options differ from rank 0's."""
    _compare(_describe_optimizer(optimizer), comm, "step(): every rank must make the same optimizer, but these differ:")


def _describe_optimizer(optimizer: Any) -> dict[str, str]:
    found = {"optimizer": type(optimizer).__name__}
    for i, group in enumerate(optimizer.param_groups):
        found |= {f"optimizer, group {i}, {name}": repr(group[name]) for name in group if name != "params"}
        found[f"optimizer, group {i}"] = f"parameters {[list(p.shape) for p in group['params']]}"
    return found


def _compare(mine: dict[str, str], comm: Comm, headline: str) -> None:
    """Raise the same error on all ranks if their descriptions differ from rank 0's."""
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
    raise RuntimeError(headline + "".join(lines))


def _digest(value: Any) -> str:
    """A short text that stands for a tensor's values."""
    if not isinstance(value, Tensor):
        return repr(value)
    array = to_host(value.array)
    return f"values {hashlib.blake2b(array.tobytes(), digest_size=4).hexdigest()}"


def _describe(tensor: Tensor) -> str:
    kind = ("trained" if tensor.requires_grad else "frozen") if isinstance(tensor, Parameter) else "buffer"
    return f"{tensor.dtype.name} {list(tensor.shape)} ({kind})"
