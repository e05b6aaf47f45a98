"""The wrapper that makes a module data-parallel."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy

from ...autograd.mode import is_grad_enabled
from ...autograd.variable import changed
from ...runtime.comm import Comm, ReduceOp, world_comm
from ...runtime.rng import initial_seed
from ...tensor import Tensor
from ...tensor.creation import tensor
from ..module import Module
from ..normalization import SyncBatchNorm
from .buffers import BufferSync
from .checks import check_arguments, check_same_module, check_same_values
from .flat import cut, dense_places, pack, unpack
from .join import Join, Joinable, JoinHook
from .lanes import Lanes
from .reducer import GradBucket, Reducer
from .tuning import MiB


class DistributedDataParallel(Module, Joinable):
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
        bucket_cap_mb: size of a bucket in MiB, default 25; or "auto" to try several in the first steps.
        find_unused_parameters, gradient_as_bucket_view, static_graph: accepted for PyTorch's sake; unused parameters
            are always found, and buckets are views wherever an arena holds the gradients.
        lanes: the number of parts that every global batch is cut into, for results with the same bits on any number of
            ranks up to this one; see `lanes()` and docs/lanes.md. Sets the threads of BLAS to one.
        check_nan: look for NaN in this rank's gradients before they are averaged, and raise on all ranks the same error
            that names rank, parameters, the line of backward() and the first operation with NaN, with its line. Takes
            a pass over the gradients and a message for each bucket, some microseconds for each operation, and keeps
            what backward would free until its end. Not with lanes.

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
        bucket_cap_mb: float | str | None = None,
        find_unused_parameters: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
        lanes: int | None = None,
        check_nan: bool = False,
    ) -> None:
        super().__init__()
        check_arguments(module, device_ids, process_group, broadcast_buffers, bucket_cap_mb)
        self.module = module
        self.process_group = world_comm() if process_group is None else process_group
        self.broadcast_buffers = broadcast_buffers
        self._tunes = bucket_cap_mb == "auto"
        self._cap = int(25 * MiB if bucket_cap_mb in (None, "auto") else bucket_cap_mb * MiB)
        self._checks_nan = check_nan
        self._watches = lanes is None and (self.process_group.size > 1 or check_nan)  # backward passes
        if lanes is not None and check_nan:
            raise ValueError(
                "DistributedDataParallel(): check_nan looks at what is averaged at the end of backward, and with lanes "
                "that is not before the last of them; use torch.autograd.set_detect_anomaly(True)"
            )
        if self.process_group.size > 1:
            options = {"broadcast_buffers": broadcast_buffers, "bucket_cap_mb": bucket_cap_mb, "lanes": lanes}
            check_same_module(module, self.process_group, options | {"check_nan": check_nan})
            self._broadcast(itertools.chain(module.parameters(), module.buffers()))
        self._lane_count = lanes
        if lanes is not None:
            seed = self.process_group.broadcast_object(initial_seed()) % 2**63
            self.register_buffer("lane_position", tensor([seed, 0]))  # saved with the model: a run goes on with it
        self._divides_by_all = True  # in a join
        self._attach()

    def _attach(self) -> None:
        """Make what combines the gradients of this module's parameters."""
        parameters = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        if not parameters:
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameters that require a "
                "gradient."
            )
        for group in dict.fromkeys(p.group for p in parameters.values() if p.group is not None):
            group.close()
        self._buffer_sync = BufferSync(self.module, self.process_group, self.broadcast_buffers == "average")
        self._reducer = Reducer(self.process_group, parameters, self._cap)
        self._lanes: Lanes | None = None
        if self._lane_count is not None:
            self._lanes = Lanes(self.module, self._lane_count, self.process_group, list(parameters.values()), self._cap)
        elif self._watches:
            self._reducer.watch(self._tunes, self._checks_nan)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if self._lanes is not None:
            if self.training and is_grad_enabled() and not self._lanes.active:
                raise RuntimeError(
                    "DistributedDataParallel with lanes trains lane by lane: write `for part in model.lanes(batch):` "
                    "around forward, loss and backward, and step the optimizer after that loop"
                )
        elif self._watches:
            if self.training and self.require_backward_grad_sync and is_grad_enabled():
                Join.notify_join_context(self)
                self._begin_step()
            if self._reducer.started:  # an exception ended the last backward pass
                self._reducer.reset()
            if is_grad_enabled():
                self._reducer.begin_forward()
        return self.module(*inputs, **kwargs)

    def _begin_step(self) -> None:
        """What all ranks do before a step, also those that have run out of batches."""
        source = 0
        self._reducer.uneven = self._join is not None
        if self._join is not None:
            source = self._join.active[0]
            self._reducer.divisor = None if self._divides_by_all else len(self._join.active)
        if self.broadcast_buffers:
            self._buffer_sync.run(source)

    def join(
        self,
        divide_by_initial_world_size: bool = True,
        enable: bool = True,
        throw_on_early_termination: bool = False,
    ) -> Join:
        """A block in which ranks may run out of batches early; see `paceline.distributed.algorithms.Join`.

        Args:
            divide_by_initial_world_size: divide sums of gradients by the number of all ranks; otherwise by that of
                those which still train. In both cases the samples of all ranks weigh the same among each other.
            enable: False to do nothing.
            throw_on_early_termination: raise on all ranks as soon as one has no batches left.

        Raises:
            RuntimeError: there are lanes, or a SyncBatchNorm, which needs samples on all ranks.
        """
        if enable and not throw_on_early_termination:
            if any(isinstance(each, SyncBatchNorm) for each in self.module.modules()):
                raise RuntimeError(
                    "join(): SyncBatchNorm takes its statistics over the samples of all ranks in every forward, and a "
                    'rank without batches has none; use BatchNorm, for instance with broadcast_buffers="average", or '
                    "throw_on_early_termination=True"
                )
        return Join(
            [self],
            enable,
            throw_on_early_termination,
            divide_by_initial_world_size=divide_by_initial_world_size,
        )

    def join_hook(self, divide_by_initial_world_size: bool = True, **kwargs: Any) -> JoinHook:
        """How this module takes part in a `Join`."""
        if self._lanes is not None:
            raise RuntimeError("join(): with lanes every rank has samples in every batch; there is nothing to join")
        return _ShadowSteps(self, divide_by_initial_world_size)

    @property
    def join_process_group(self) -> Comm:
        """The ranks."""
        return self.process_group

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
            TypeError: the weight is no function.

        Example:
            >>> import paceline as torch
            >>> net = torch.nn.DataParallel(torch.nn.Linear(1, 1), lanes=2)
            >>> for part in net.lanes(torch.ones(4, 1)):
            ...     net(part).mean().backward()
            >>> net.module.bias.grad
            tensor([1.])
        """
        if weight is not None and not callable(weight):
            raise TypeError(
                f"lanes(): weight must be a function of a part, got {type(weight).__name__}; "
                "the batch is one argument: lanes((x, y))"
            )
        if self._lanes is None:
            yield batch
            return
        seed, step = self.lane_position.tolist()
        yield from self._lanes.run(batch, weight, f"{seed} {step}")
        self.lane_position.array[1] += 1

    def lane_mean(self, values: Sequence[Any]) -> float:
        """The mean of numbers over all lanes of the last batch, weighted as its gradients; the same bits on any ranks.

        Args:
            values: one for each part that the last loop over `lanes()` had on this rank.
        """
        if self._lanes is None:
            raise RuntimeError("lane_mean(): this model has no lanes; see DistributedDataParallel(..., lanes=...)")
        return self._lanes.mean(values)

    def check_replicas(self, optimizer: Any = None) -> None:
        """Verify that parameters and buffers, and an optimizer's options and state, are the same on all ranks.

        Ranks that drift apart (through a random number, a rank's own loss scale, a race) show it nowhere else. Call it
        on every rank, at the start and once in a while.

        Raises:
            RuntimeError: they differ; the same message on all ranks says what on which.
        """
        check_same_values(self.module, optimizer, self.process_group)

    def register_comm_hook(self, state: Any, hook: Callable[[Any, GradBucket], Any]) -> None:
        """Let `hook(state, bucket)` combine each bucket of gradients over the ranks, in place of the mean.

        Args:
            state: passed to the hook.
            hook: returns a flat tensor like `bucket.buffer()`, or a future of one, as `Work.get_future()` gives; it
                must communicate in the same way on all ranks. Where gradients are divided by another number than that
                of the ranks, as in `divide_by()`, what it returns is taken for the mean and multiplied accordingly.
                See `paceline.distributed.algorithms.ddp_comm_hooks`.

        Raises:
            RuntimeError: there is one already, or the model has lanes.
        """
        if self._lanes is not None or self._reducer.hook is not None:
            why = "there is one" if self._lanes is None else "with lanes gradients are always summed along the tree"
            raise RuntimeError(f"register_comm_hook(): cannot take a communication hook: {why}")
        if not callable(hook):
            raise TypeError(f"Communication hook must be callable, got {type(hook).__name__}")
        self._reducer.hook = (hook, state)

    @contextlib.contextmanager
    def divide_by(self, count: float) -> Iterator[None]:
        """In the one backward pass inside, gradients are summed over ranks and divided by the sum of their counts.

        For losses that are sums over samples or tokens, of which ranks and accumulated parts have different numbers:
        the mean of means would weigh them wrongly.

        Args:
            count: this rank's number of samples or tokens, those accumulated under `no_sync()` included.

        Example:
            >>> import paceline as torch
            >>> net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
            >>> with net.no_sync():
            ...     net(torch.ones(2, 1)).sum().backward()
            >>> with net.divide_by(5):
            ...     net(torch.ones(3, 1)).sum().backward()
            >>> net.module.bias.grad
            tensor([1.])
        """
        if self._lanes is not None:
            raise RuntimeError("divide_by(): with lanes, pass the counts as `weight` to lanes()")
        total = numpy.array([float(count)])
        self.process_group.all_reduce(total)
        if not 0 < total[0] < math.inf:
            raise ValueError(f"divide_by(): the ranks' counts should have a positive sum, got {total[0]}")
        self._reducer.divisor = float(total[0])
        try:
            yield
        finally:
            self._reducer.divisor = None
        if self.process_group.size == 1 and not self._watches:  # nobody else divides
            for gradient in [p.grad for p in self._reducer.parameters if p.grad is not None]:
                gradient.array /= gradient.array.dtype.type(total[0])

    @property
    def overlaps(self) -> bool:
        """Whether gradients travel while backward goes on: on a device, or on a thread with a core to spare."""
        return self._reducer.asynchronous

    @property
    def require_backward_grad_sync(self) -> bool:
        """Whether backward averages gradients; scripts that accumulate set it instead of using `no_sync()`."""
        return self._reducer.enabled

    @require_backward_grad_sync.setter
    def require_backward_grad_sync(self, value: bool) -> None:
        if self._lanes is not None:
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

    def _broadcast(self, tensors: Iterator[Tensor], src: int = 0) -> None:
        """Overwrite tensors by rank `src`'s."""
        everything = list(tensors)
        for members in cut(everything, range(len(everything)), self._cap, self._cap):
            group = [everything[i] for i in members]
            arrays = [each.array for each in group]
            places = dense_places(arrays)
            flat = pack(arrays, places)
            self.process_group.broadcast(flat, src)
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


class _ShadowSteps(JoinHook):
    """Takes part in the steps of the ranks that still have batches."""

    def __init__(self, wrapper: DistributedDataParallel, by_all: bool) -> None:
        self._wrapper = wrapper
        wrapper._divides_by_all = by_all

    def main_hook(self) -> None:
        self._wrapper._begin_step()
        self._wrapper._reducer.take_part()

    def post_hook(self, is_last_joiner: bool) -> None:
        wrapper, comm = self._wrapper, self._wrapper.process_group
        source = numpy.array([comm.rank if is_last_joiner else -1])
        comm.all_reduce(source, ReduceOp.MAX)
        wrapper._reducer.divisor = None
        wrapper._broadcast(itertools.chain(wrapper.module.parameters(), wrapper.module.buffers()), int(source[0]))
