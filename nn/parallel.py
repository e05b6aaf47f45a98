"""Data-parallel training: every rank computes the gradients of its part of the batch, and all take the average.

`average_gradients` is the whole idea. `DistributedDataParallel` does the same while backward still runs: gradients
travel in buckets, each as soon as its last gradient is complete, and all ranks send the buckets in one agreed order.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy

from ..autograd.engine import queue_callback
from ..autograd.mode import is_grad_enabled
from ..autograd.variable import changed
from ..runtime.arrays import Array, module_of
from ..runtime.comm import Comm, ReduceOp, world_comm
from ..tensor import Tensor
from ..tensor.arena import flat_gradients
from ..tensor.creation import zeros_like
from .module import Module
from .parameter import Parameter

__all__ = ["DataParallel", "DistributedDataParallel", "average_gradients"]

_MiB = 1 << 20
_FIRST_BUCKET = _MiB  # bytes; small, so that the first all-reduce starts early in backward
_MESSAGE_LINES = 10


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
        _check_arguments(module, device_ids, process_group, bucket_cap_mb)
        self.module = module
        self.process_group = world_comm() if process_group is None else process_group
        self.broadcast_buffers = broadcast_buffers
        self._cap = int((25 if bucket_cap_mb is None else bucket_cap_mb) * _MiB)
        if self.process_group.size > 1:
            _check_same_everywhere(module, self.process_group)
            self._broadcast(itertools.chain(module.parameters(), module.buffers()))
        self._reducer = _Reducer(self.process_group, module, self._cap)

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
        for members in _cut(everything, range(len(everything)), self._cap, self._cap):
            group = [everything[i] for i in members]
            arrays = [tensor.array for tensor in group]
            places = _dense(arrays)
            flat = _pack(arrays, places)
            self.process_group.broadcast(flat)
            _unpack(flat, arrays, places)
            for tensor in group:
                changed(tensor, "broadcast")

    def __deepcopy__(self, memo: dict) -> DistributedDataParallel:
        """A wrapper of a copied module: hooks are not copied with the parameters, so it needs its own."""
        result = memo[id(self)] = copy.copy(self)
        result.module = copy.deepcopy(self.module, memo)
        result._reducer = _Reducer(self.process_group, result.module, self._cap)
        return result


DataParallel = DistributedDataParallel


class _Bucket:
    """Gradients that travel together.

    Attributes:
        number: its place in the order of sending.
        members: indices of the parameters, ascending as in an arena.
        pending: how many gradients are not complete yet in this backward.
    """

    def __init__(self, number: int, members: list[int]) -> None:
        self.number = number
        self.members = sorted(members)
        self.pending = len(members)


class _Reducer:
    """Averages gradients bucket by bucket from hooks in backward."""

    def __init__(self, comm: Comm, module: Module, cap: int) -> None:
        self.comm = comm
        self.enabled = True
        self.cap = cap
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameters that require a "
                "gradient."
            )
        self.buckets: list[_Bucket] = []  # planned in the first backward, when the optimizer has made its arenas
        self.order_agreed = False
        self.reset()
        if comm.size > 1:
            for index, parameter in enumerate(self.parameters):
                parameter.register_post_accumulate_grad_hook(functools.partial(self.on_ready, index))

    def plan(self, order: Iterable[int]) -> None:
        """Cut the parameters into buckets in this order."""
        groups = _cut(self.parameters, order, min(_FIRST_BUCKET, self.cap), self.cap)
        self.buckets = [_Bucket(number, members) for number, members in enumerate(groups)]
        self.bucket_of = {i: bucket for bucket in self.buckets for i in bucket.members}

    def reset(self) -> None:
        """Be ready for the next backward pass."""
        self.started = False
        self.sent = 0
        self.ready: list[int] = []  # parameters, as their gradients became complete
        self.completed: list[int] = []  # buckets, likewise
        self.used = numpy.zeros(len(self.parameters), numpy.uint8)
        for bucket in self.buckets:
            bucket.pending = len(bucket.members)

    def on_ready(self, index: int, parameter: Tensor) -> None:
        """A gradient is complete: if it was its bucket's last one, send what can be sent in order."""
        if not self.enabled:
            return
        if not self.started:
            self.start()
        self.ready.append(index)
        bucket = self.bucket_of[index]
        bucket.pending -= 1
        if bucket.pending == 0:
            self.completed.append(bucket.number)
        while self.sent < len(self.buckets) and self.buckets[self.sent].pending == 0:
            self.send()

    def start(self) -> None:
        """The first gradient of a backward pass is complete."""
        self.started = True
        queue_callback(self.finish)
        if not self.buckets:
            self.plan(reversed(range(len(self.parameters))))  # as backward goes through the layers

    def send(self) -> None:
        """Average the gradients of the next bucket."""
        bucket = self.buckets[self.sent]
        self.sent += 1
        parameters = [self.parameters[i] for i in bucket.members]
        for i, parameter in zip(bucket.members, parameters, strict=True):
            if parameter.grad is None:
                parameter.grad = zeros_like(parameter)
            else:
                self.used[i] = 1
        gradients = [parameter.grad for parameter in parameters]
        pieces = flat_gradients(gradients)
        if len(pieces) == 1 and pieces[0].flags.c_contiguous:
            self.average(pieces[0].reshape(-1))  # flat, as from those ranks that have to pack
            return
        arrays = [gradient.array for gradient in gradients]
        places = _places(parameters)
        flat = _pack(arrays, places)
        self.average(flat)
        _unpack(flat, arrays, places)

    def average(self, array: Array) -> None:
        self.comm.all_reduce(array)
        array /= self.comm.size

    def finish(self) -> None:
        """At the end of backward: send what is left, and take back the gradients of what no rank has used."""
        while self.sent < len(self.buckets):
            self.send()
        self.comm.all_reduce(self.used, ReduceOp.MAX)
        for i in numpy.flatnonzero(self.used == 0):
            self.parameters[i].grad = None
        if not self.order_agreed:
            self.agree_on_order()
        self.reset()

    def agree_on_order(self) -> None:
        """Take over the order in which gradients became complete on rank 0, if a bucket there waited for another."""
        in_order = self.completed == list(range(len(self.completed)))
        unused_last = list(dict.fromkeys([*self.ready, *self.bucket_of]))
        order = self.comm.broadcast_object(None if in_order else unused_last)
        if order is not None:
            self.plan(order)
        self.order_agreed = True


# -- flat arrays -------------------------------------------------------------------------------------------------------


def _cut(tensors: Sequence[Tensor], order: Iterable[int], first: int, cap: int) -> list[list[int]]:
    """Indices in this order, cut into groups of one arena, or of one dtype and device; `cap` bytes fill a group."""
    groups: list[list[int]] = []
    open_groups: dict[Any, list[int]] = {}
    sizes: defaultdict[Any, int] = defaultdict(int)
    for i in order:
        tensor = tensors[i]
        home = _home(tensor)
        kind = (tensor.dtype, tensor.device) if home is None else home[0]
        if kind not in open_groups:
            open_groups[kind] = []
            groups.append(open_groups[kind])
        open_groups[kind].append(i)
        sizes[kind] += tensor.nbytes
        if sizes[kind] >= (first if open_groups[kind] is groups[0] else cap):
            del open_groups[kind], sizes[kind]
    return groups


def _home(tensor: Tensor) -> tuple | None:
    """The arena of a parameter's gradient, and its number there."""
    return None if tensor.grad_slot is None else tensor.grad_slot.home


def _places(parameters: Sequence[Tensor]) -> list[tuple[int, int]]:
    """(start, stop) of gradients in their bucket.

    As in the arena if they are neighbours there: a rank that has to pack must send as many elements as those that send
    the slice, gaps included.
    """
    homes = [_home(parameter) for parameter in parameters]
    if homes[0] is not None:
        arena, first = homes[0]
        if homes == [(arena, first + i) for i in range(len(homes))]:
            origin = arena.ranges[first][0]
            return [(start - origin, stop - origin) for start, stop in arena.ranges[first : first + len(homes)]]
    return _dense([parameter.array for parameter in parameters])


def _dense(arrays: list[Array]) -> list[tuple[int, int]]:
    """(start, stop) of arrays one behind the other."""
    return list(itertools.pairwise(itertools.accumulate((array.size for array in arrays), initial=0)))


def _pack(arrays: list[Array], places: list[tuple[int, int]]) -> Array:
    """The arrays' elements at their places in a new array."""
    flat = module_of(arrays[0]).zeros(places[-1][1], arrays[0].dtype)
    for array, (start, stop) in zip(arrays, places, strict=True):
        flat[start:stop] = array.reshape(-1)
    return flat


def _unpack(flat: Array, arrays: list[Array], places: list[tuple[int, int]]) -> None:
    """Write the elements of a packed array back."""
    for array, (start, stop) in zip(arrays, places, strict=True):
        array[...] = flat[start:stop].reshape(array.shape)


# -- checks ------------------------------------------------------------------------------------------------------------


def _check_arguments(module: Any, device_ids: Any, process_group: Any, bucket_cap_mb: Any) -> None:
    name = "DistributedDataParallel()"
    if not isinstance(module, Module):
        raise TypeError(f"{name}: module should be an nn.Module, got {type(module).__name__}")
    if process_group is not None and not isinstance(process_group, Comm):
        raise TypeError(f"{name}: process_group should be a communicator or None, got {type(process_group).__name__}")
    if bucket_cap_mb is not None and not bucket_cap_mb > 0:
        raise ValueError(f"{name}: bucket_cap_mb should be a positive number of MiB, got {bucket_cap_mb}")
    found = {str(p.device) for p in module.parameters()}
    if len(found) > 1 or (device_ids is not None and len(device_ids) > 1):
        raise ValueError(
            f"{name}: a process trains on one device, got device_ids={device_ids} and a module on {sorted(found)}; "
            "start one process per device: paceline run -n N script.py"
        )


def _check_same_everywhere(module: Module, comm: Comm) -> None:
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
