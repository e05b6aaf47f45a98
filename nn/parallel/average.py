"""The simple form of data-parallel training, and the oracle of the fast one."""

from __future__ import annotations

from ...runtime.comm import Comm, world_comm
from ...tensor.creation import zeros_like
from ..module import Module


def average_gradients(module: Module, comm: Comm | None = None) -> None:
    """Replace every parameter's gradient by its mean over all ranks; call it after backward, on every rank.

    The simple form of what DistributedDataParallel does, and its oracle: g = (g of rank 0 + g of rank 1 + ...) / size.

    Args:
        module: same parameters on every rank. A parameter without a gradient counts as zeros.
        comm: the ranks; default: all of the job.

    Example:
        >>> import paceline as torch
        >>> from paceline.nn.parallel import average_gradients
        >>> net = torch.nn.Linear(1, 1)
        >>> net(torch.ones(1, 1)).sum().backward()
        >>> average_gradients(net)
    """
    comm = world_comm() if comm is None else comm
    for parameter in module.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = zeros_like(parameter)
            comm.all_reduce(parameter.grad.array)
            parameter.grad.array /= comm.size
