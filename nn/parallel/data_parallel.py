"""The wrapper that makes a module data-parallel."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from ...autograd.mode import is_grad_enabled
from ...autograd.variable import changed
from ...runtime.comm import Comm, world_comm
from ...tensor import Tensor
from ..module import Module
from .checks import check_arguments, check_same_everywhere
from .flat import cut, dense_places, pack, unpack
from .reducer import MiB, Reducer


class DistributedDataParallel(Module):
    """A module whose gradients are averaged over all ranks during backward.

    Each rank feeds its own part of the batch. Parameters and buffers start as those of rank 0; afterwards the same
    averaged gradients keep the ranks equal. A parameter that this rank did not use in a step joins as zeros; one that
    no rank used keeps its gradient of None. In a world of one nothing is done.

    Only parameters that require a gradient when the wrapper is made are averaged. The state_dict's keys begin with
    "module.", as in PyTorch; `ddp.module` is the module itself.

    Args:
        module: the same on every rank, on one device.
        device_ids, output_device: None, or the device that the module is on.
        process_group: the communicator; default: all ranks of the job.
        broadcast_buffers: take over rank 0's buffers before every forward in training mode.
        bucket_cap_mb: size of a bucket in MiB; default 25.
        find_unused_parameters, gradient_as_bucket_view, static_graph: accepted for PyTorch's sake; unused parameters
            are always found, and buckets are views wherever an arena holds the gradients.

    Raises:
        RuntimeError: the ranks' modules differ (the same message on all ranks), or nothing requires a gradient.

    Example:
        >>> import paceline as torch
        >>> net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
        >>> net(torch.ones(4, 2)).sum().backward()
        >>> net.module.bias.grad
        tensor([4.])
    """

    def __init__(
        self,
        module: Module,
        device_ids: Sequence[Any] | None = None,
        output_device: Any = None,
        process_group: Comm | None = None,
        broadcast_buffers: bool = True,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
    ) -> None:
        super().__init__()
        check_arguments(module, device_ids, process_group, bucket_cap_mb)
        self.module = module
        self.process_group = world_comm() if process_group is None else process_group
        self.broadcast_buffers = broadcast_buffers
        self._cap = int((25 if bucket_cap_mb is None else bucket_cap_mb) * MiB)
        if self.process_group.size > 1:
            check_same_everywhere(module, self.process_group)
            self._broadcast(itertools.chain(module.parameters(), module.buffers()))
        self._reducer = Reducer(self.process_group, module, self._cap)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if self.process_group.size > 1:
            if self.broadcast_buffers and self.training and self.require_backward_grad_sync and is_grad_enabled():
                self._broadcast(self.module.buffers())
            if self._reducer.started:  # an exception ended the last backward pass
                self._reducer.reset()
        return self.module(*inputs, **kwargs)

    @property
    def require_backward_grad_sync(self) -> bool:
        """Whether backward averages gradients; scripts that accumulate set it instead of using `no_sync()`."""
        return self._reducer.enabled

    @require_backward_grad_sync.setter
    def require_backward_grad_sync(self, value: bool) -> None:
        self._reducer.enabled = value

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Only add up gradients on this rank in backward passes inside; the first one outside averages the sums.

        Example:
            >>> import paceline as torch
            >>> net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
            >>> with net.no_sync():
            ...     net(torch.ones(1, 1)).sum().backward()
            >>> net(torch.ones(1, 1)).sum().backward()
            >>> net.module.bias.grad
            tensor([2.])
        """
        outer = self.require_backward_grad_sync
        self.require_backward_grad_sync = False
        try:
            yield
        finally:
            self.require_backward_grad_sync = outer

    def _broadcast(self, tensors: Iterator[Tensor]) -> None:
        """Overwrite tensors by rank 0's."""
        everything = list(tensors)
        for members in cut(everything, range(len(everything)), self._cap, self._cap):
            group = [everything[i] for i in members]
            arrays = [tensor.array for tensor in group]
            places = dense_places(arrays)
            flat = pack(arrays, places)
            self.process_group.broadcast(flat)
            unpack(flat, arrays, places)
            for tensor in group:
                changed(tensor, "broadcast")

    def __deepcopy__(self, memo: dict) -> DistributedDataParallel:
        """A wrapper of a copied module: hooks are not copied with the parameters, so it needs its own."""
        result = memo[id(self)] = copy.copy(self)
        result.module = copy.deepcopy(self.module, memo)
        result._reducer = Reducer(self.process_group, result.module, self._cap)
        return result
