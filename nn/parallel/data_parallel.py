"""The wrapper that makes a module data-parallel."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...autograd.mode import is_grad_enabled
from ...autograd.variable import changed
from ...runtime.comm import Comm, world_comm
from ...runtime.rng import initial_seed
from ...tensor import Tensor
from ...tensor.creation import tensor
from ..module import Module
from .buffers import BufferSync
from .checks import check_arguments, check_same_everywhere
from .flat import cut, dense_places, pack, unpack
from .lanes import Lanes
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
        broadcast_buffers: before every forward in training mode take over rank 0's buffers; or, with "average", the
            mean over ranks of the floating-point ones, which for batch norm is the better estimate.
        bucket_cap_mb: size of a bucket in MiB; default 25.
        find_unused_parameters, gradient_as_bucket_view, static_graph: accepted for PyTorch's sake; unused parameters
            are always found, and buckets are views wherever an arena holds the gradients.
        lanes: the number of parts that every global batch is cut into, for results with the same bits on any number of
            ranks up to this one; see `lanes()` and docs/lanes.md. Sets the threads of BLAS to one.

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
        broadcast_buffers: bool | str = True,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
        lanes: int | None = None,
    ) -> None:
        super().__init__()
        check_arguments(module, device_ids, process_group, broadcast_buffers, bucket_cap_mb)
        self.module = module
        self.process_group = world_comm() if process_group is None else process_group
        self.broadcast_buffers = broadcast_buffers
        self._cap = int((25 if bucket_cap_mb is None else bucket_cap_mb) * MiB)
        if self.process_group.size > 1:
            check_same_everywhere(module, self.process_group)
            self._broadcast(itertools.chain(module.parameters(), module.buffers()))
        self._lane_count = lanes
        if lanes is not None:
            seed = self.process_group.broadcast_object(initial_seed()) % 2**63
            self.register_buffer("lane_position", tensor([seed, 0]))  # saved with the model: a run goes on with it
        self._attach()

    def _attach(self) -> None:
        """Make what combines the gradients of this module's parameters."""
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        if not parameters:
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameters that require a "
                "gradient."
            )
        self._lanes = self._reducer = None
        self._buffer_sync = BufferSync(self.module, self.process_group, self.broadcast_buffers == "average")
        if self._lane_count is None:
            self._reducer = Reducer(self.process_group, parameters, self._cap)
        else:
            self._lanes = Lanes(self.module, self._lane_count, self.process_group, parameters, self._cap)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if self._lanes is not None:
            if self.training and is_grad_enabled() and not self._lanes.active:
                raise RuntimeError(
                    "DistributedDataParallel with lanes trains lane by lane: write `for part in model.lanes(batch):` "
                    "around forward, loss and backward, and step the optimizer after that loop"
                )
        elif self.process_group.size > 1:
            if self.broadcast_buffers and self.training and self.require_backward_grad_sync and is_grad_enabled():
                self._buffer_sync.run()
            if self._reducer.started:  # an exception ended the last backward pass
                self._reducer.reset()
        return self.module(*inputs, **kwargs)

    def lanes(self, batch: Any, weight: Callable[[Any], float] | None = None) -> Iterator[Any]:
        """The parts of this rank's batch to compute one after the other; without lanes, the whole batch alone.

        With lanes, each part has its own random numbers and starts from the same buffers. After the last part the
        parameters' gradients are the weighted mean over the lanes of all ranks, and floating-point buffers too. The
        bits of everything that follows do not depend on the number of ranks. Always let the loop come to its end: it
        ends with collectives.

        Args:
            batch: tensors with the samples along their first dim, in tuples, lists and dicts. On each rank the samples
                of its lanes, as a `paceline.utils.data.LaneSampler` deals them.
            weight: function of a part that gives its weight in the mean, for instance its number of tokens; default:
                its number of samples. It should fit what the loss of a part is a mean over.

        Raises:
            RuntimeError: the ranks' numbers of samples are not those of their lanes.

        Example:
            >>> import paceline as torch
            >>> net = torch.nn.DataParallel(torch.nn.Linear(1, 1), lanes=2)
            >>> for part in net.lanes(torch.ones(4, 1)):
            ...     net(part).mean().backward()
            >>> net.module.bias.grad
            tensor([1.])
        """
        if self._lanes is None:
            yield batch
            return
        seed, step = self.lane_position.tolist()
        yield from self._lanes.run(batch, weight, f"{seed} {step}")
        self.lane_position[1] += 1

    def lane_mean(self, values: Sequence[Any]) -> float:
        """The mean of numbers over all lanes of the last batch, weighted as its gradients; the same bits on any ranks.

        Args:
            values: one for each part that the last loop over `lanes()` had on this rank.
        """
        if self._lanes is None:
            raise RuntimeError("lane_mean(): this model has no lanes; see DistributedDataParallel(..., lanes=...)")
        return self._lanes.mean(values)

    @property
    def require_backward_grad_sync(self) -> bool:
        """Whether backward averages gradients; scripts that accumulate set it instead of using `no_sync()`."""
        return self._reducer is None or self._reducer.enabled

    @require_backward_grad_sync.setter
    def require_backward_grad_sync(self, value: bool) -> None:
        if self._reducer is None:
            raise RuntimeError(
                "DistributedDataParallel with lanes combines gradients after every loop over lanes(); to accumulate, "
                "step the optimizer after several of them"
            )
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
            arrays = [each.array for each in group]
            places = dense_places(arrays)
            flat = pack(arrays, places)
            self.process_group.broadcast(flat)
            unpack(flat, arrays, places)
            for each in group:
                changed(each, "broadcast")

    def __deepcopy__(self, memo: dict) -> DistributedDataParallel:
        """A wrapper of a copied module: hooks are not copied with the parameters, so it needs its own."""
        result = memo[id(self)] = copy.copy(self)
        result.module = copy.deepcopy(self.module, memo)
        if self._lanes is not None:
            result.lane_position = self.lane_position.clone()
        result._attach()
        return result
