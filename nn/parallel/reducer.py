"""Averaging gradients in buckets while backward still runs."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy

from ...autograd.engine import accumulate, queue_callback
from ...autograd.nan_search import KeptPass, forget_lines, has_nan, note_lines
from ...autograd.variable import LeafGroup, any_leaf
from ...runtime import timeline
from ...runtime.arrays import Array
from ...runtime.callers import user_line
from ...runtime.comm import Comm, ReduceOp
from ...runtime.comm.replicas import Replicas
from ...runtime.world import has_spare_cores
from ...tensor import Tensor
from ...tensor.creation import zeros_like
from ..parameter import Parameter
from .checks import check_same_optimizer
from .deferred import DeferredMean
from .flat import common_home, cut, home_of_gradient, pack, places_of, unpack
from .tuning import BucketTuner, MiB

_FIRST_BUCKET = MiB  # bytes; small, so that the first all-reduce starts early in backward

Hook = Callable[[Any, "GradBucket"], Any]


class GradBucket:
    """The gradients of one bucket as a communication hook sees them."""

    def __init__(self, bucket: Bucket, buffer: Array, is_last: bool) -> None:
        self._bucket = bucket
        self._buffer = Tensor._wrap(buffer)
        self._is_last = is_last

    def index(self) -> int:
        """The bucket's place in the order of sending; 0 is sent first."""
        return self._bucket.number

    def buffer(self) -> Tensor:
        """All gradients of the bucket in one flat tensor; what lies between two of them is zero."""
        return self._buffer

    def set_buffer(self, buffer: Tensor) -> None:
        """Replace the flat tensor by another one of its shape."""
        self._buffer = buffer

    def gradients(self) -> list[Tensor]:
        """The gradients as views of `buffer()`, in the shapes of their parameters."""
        shapes = [parameter.shape for parameter in self._bucket.parameters]
        return [
            self._buffer[start:stop].view(shape)
            for (start, stop), shape in zip(self._bucket.places, shapes, strict=True)
        ]

    def parameters(self) -> list[Parameter]:
        """The parameters whose gradients these are."""
        return self._bucket.parameters

    def is_last(self) -> bool:
        """Whether this is the last bucket of the backward pass."""
        return self._is_last


class Bucket(LeafGroup):
    """Gradients that travel together.

    Attributes:
        number: its place in the order of sending.
        members: indices of the parameters, ascending as in an arena.
        places: (start, stop) of each gradient in what is sent.
        pending: whether the backward pass under way will still add to its gradients.
    """

    def __init__(self, reducer: Reducer, number: int, members: list[int]) -> None:
        self._reducer = reducer
        self.number = number
        self.members = sorted(members)
        self.parameters = [reducer.parameters[i] for i in self.members]
        self.places = places_of(self.parameters)
        self._slots: list[tuple[Parameter, Callable[[], Array | None]]] = []  # if they are neighbours in an arena
        home = common_home(self.parameters)
        if home is not None:
            arena, first = home
            last = first + len(self.parameters)
            self._arena = arena
            self._slots = list(zip(self.parameters, arena.slots[first:last], strict=True))
            self._slice = arena.grad[arena.ranges[first][0] : arena.ranges[last - 1][1]]
        self.pending = False
        for parameter in self.parameters:
            parameter.group = self

    def in_place(self) -> Array | None:
        """The gradients where they are one piece of an arena."""
        for parameter, slot in self._slots:
            gradient = parameter.gradient
            if gradient is None or gradient.array is not slot():
                return None
        return self._slice if self._slots else None

    def clear_gaps(self, flat: Array) -> None:
        """Forget what a hook has put between the gradients: norms go over whole arenas."""
        self._arena.clear_gaps()

    def begin(self, seeds: Sequence[tuple]) -> None:
        self._reducer.on_begin(self, seeds)

    def complete(self) -> None:
        self._reducer.on_complete(self)

    def replicas(self) -> Replicas | None:
        return None if self._reducer.uneven else self._reducer.replicas

    def close(self) -> None:
        """Another group takes over the leaves."""
        self._reducer.leave()

    def before_update(self, optimizer: Any) -> bool:
        return self._reducer.compare_optimizers(optimizer)


class Reducer:
    """Averages gradients bucket by bucket, in an order that all ranks have agreed on."""

    def __init__(self, comm: Comm, named_parameters: dict[str, Parameter], cap: int) -> None:
        self.comm = comm
        self.names = list(named_parameters)
        self.enabled = True
        self.cap = cap
        self.parameters = list(named_parameters.values())
        self.hook: tuple[Hook, Any] | None = None
        self.divisor: float | None = None  # of the sum over ranks, if it is not their number
        self.buckets: list[Bucket] = []
        self._order: list[int] = []  # of the parameters, once it is agreed on
        self.uneven = False  # whether ranks may have run out of batches
        self._compared: weakref.WeakSet[Any] = weakref.WeakSet()  # optimizers that are the same on all ranks
        self._shared: list[Any] = []  # what the communicator wants to be kept
        self.replicas: Replicas | None = None  # where the ranks can write into each other's parameters
        self._tuner: BucketTuner | None = None
        self._checks_nan = self._notes_lines = False
        on_device = any(parameter.device.type == "cuda" for parameter in self.parameters)
        self.asynchronous = on_device or (comm.backend == "mpi" and has_spare_cores())
        self.reset()

    def watch(self, tune: bool, check_nan: bool) -> None:
        """Take part in all backward passes from now on."""
        any_leaf.grouped = True
        self._checks_nan = check_nan
        if tune:
            self._tuner = BucketTuner(self.comm, sum(parameter.nbytes for parameter in self.parameters))
            self.cap = self._tuner.cap
        # One bucket for each parameter, to learn the order in which gradients become complete.
        self.plan(reversed(range(len(self.parameters))), 0)

    def plan(self, order: Iterable[int], cap: int) -> None:
        """Cut the parameters into buckets in this order."""
        groups = cut(self.parameters, order, min(_FIRST_BUCKET, cap), cap)
        self.buckets = [Bucket(self, number, members) for number, members in enumerate(groups)]

    def reset(self) -> None:
        """Be ready for the next backward pass."""
        self.started = False
        self.sent = 0
        self.completed: list[int] = []  # buckets, as their gradients became complete
        self._flags = numpy.zeros(len(self.parameters) + 1, numpy.uint8)  # the last: whether a mean cannot be deferred
        self.used = self._flags[:-1]
        self._defers = False  # whether the pass under way leaves it to others to compute the mean
        self._deferred: list[tuple[Bucket, Array | None]] = []  # buckets of which it does, and their place in an arena
        self._under_way: list[Callable[[], None]] = []
        self._kept: KeptPass | None = None  # the pass under way, if its gradients are looked at for NaN
        if self._notes_lines:
            self._notes_lines = False
            forget_lines()
        for bucket in self.buckets:
            bucket.pending = False

    def begin_forward(self) -> None:
        """A forward pass begins that gradients will be wanted of."""
        if self._checks_nan and not self._notes_lines:
            self._notes_lines = True
            note_lines()

    def on_begin(self, bucket: Bucket, seeds: Sequence[tuple]) -> None:
        """A backward pass will reach this bucket; one that it does not reach joins with what it has."""
        if self.replicas is not None:
            self.replicas.averaged = False
        if self.enabled:
            if not self.started:
                self.leave()
                self.started = True
                self._began = time.perf_counter()
                self._defers = self._may_defer()
                queue_callback(self.finish)
                self._kept = KeptPass(seeds) if self._checks_nan else None
            bucket.pending = True

    def on_complete(self, bucket: Bucket) -> None:
        """Send what can be sent in order."""
        if not self.started:
            return
        bucket.pending = False
        self.completed.append(bucket.number)
        while self.sent < len(self.buckets) and not self.buckets[self.sent].pending:
            self.send()

    @timeline.traced("bucket", lambda self: f"bucket {self.sent - 1}")
    def send(self) -> None:
        """Average the gradients of the next bucket."""
        bucket = self.buckets[self.sent]
        self.sent += 1
        if self._checks_nan:
            self._check_nan(bucket)
        flat = bucket.in_place()
        if flat is not None:
            self.used[bucket.members] = 1
        else:
            for i, parameter in zip(bucket.members, bucket.parameters, strict=True):
                if parameter.gradient is None:
                    accumulate(parameter, zeros_like(parameter).array, True, False)
                else:
                    self.used[i] = 1
            flat = bucket.in_place()
        if not self._defers:
            self._average_where_it_is(bucket, flat)
            return
        self._deferred.append((bucket, flat))
        if flat is None or not self.replicas.deferred.everybodys(flat):  # type: ignore[union-attr]
            self._flags[-1] = True

    def _average_where_it_is(self, bucket: Bucket, flat: Array | None) -> None:
        """Average the gradients of a bucket, `flat` if they are one piece of an arena."""
        if flat is not None:
            self._average(bucket, flat, _keep if self.hook is None else bucket.clear_gaps)
            return
        arrays = [parameter.grad.array for parameter in bucket.parameters]
        self._average(bucket, pack(arrays, bucket.places), lambda flat: unpack(flat, arrays, bucket.places))

    def _average(self, bucket: Bucket, flat: Array, settle: Callable[[Array], None]) -> None:
        """Average a flat array over the ranks, and then `settle(flat)`: now, or at the end of backward."""
        if self.hook is not None:
            hook, state = self.hook
            result = hook(state, GradBucket(bucket, flat, self.sent == len(self.buckets)))
            self._under_way.append(lambda: self._take(result, flat, settle))
            return
        op = ReduceOp.AVG if self.divisor is None else ReduceOp.SUM
        work = self.comm.all_reduce(flat, op, async_op=self.asynchronous)

        def finish() -> None:
            if work is not None:
                work.wait()
            if self.divisor is not None:
                flat[...] /= flat.dtype.type(self.divisor)
            settle(flat)

        if self.asynchronous:
            self._under_way.append(finish)
        else:
            finish()

    def _take(self, result: Any, flat: Array, settle: Callable[[Array], None]) -> None:
        """Put what a hook returned, a tensor or a future of one, in the place of the gradients."""
        value = result if isinstance(result, Tensor) else result.wait()
        value = value[0] if isinstance(value, list) else value
        if not isinstance(value, Tensor) or value.array.shape != flat.shape:
            raise RuntimeError(
                f"a communication hook should return a tensor of {flat.size} elements like bucket.buffer(), or a "
                f"future of one, got {value!r:.80}"
            )
        if value.array is not flat:
            flat[...] = value.array
        if self.divisor is not None:
            flat *= flat.dtype.type(self.comm.size / self.divisor)
        settle(flat)

    @timeline.traced("bucket", lambda self: "last buckets")
    def finish(self) -> None:
        """At the end of backward: send what is left, and take back the gradients of what no rank has used."""
        while self.sent < len(self.buckets):
            self.send()
        for settle in self._under_way:
            settle()
        if self._defers and not all(map(DeferredMean.may_wait, self.parameters)):
            self._flags[-1] = True
        self.comm.all_reduce(self._flags, ReduceOp.MAX)
        if self._flags[-1]:
            self._average_after_all()
        if not self.used.all():
            for i in numpy.flatnonzero(self.used == 0):
                self.parameters[i].grad = None
        if not self._order:
            self.agree_on_order()
        elif self._tuner is not None and not self._tuner.done and self._tuner.record(time.perf_counter() - self._began):
            self.cap = self._tuner.cap
            self.plan(self._order, self.cap)
        if self.replicas is not None:
            self.replicas.averaged = self.hook is None  # which may do something else
            self.replicas.deferred.come_home()
            if self._defers:
                self.replicas.deferred.begin(self.parameters)
        self.reset()

    def _average_after_all(self) -> None:
        """Compute the mean, if it was to be deferred, and always at once from now on."""
        for bucket, flat in self._deferred:
            self._average_where_it_is(bucket, flat)
        self._defers = False
        self.replicas.deferred.refuse()  # type: ignore[union-attr]

    def _may_defer(self) -> bool:
        """Whether the mean of this pass's gradients need not be computed; the same on all ranks.

        It must be where it is free, on a thread with a core to spare, or shall be seen: in a timeline.
        """
        plain = self.hook is None and self.divisor is None and not (self.uneven or self._checks_nan)
        wanted = self.replicas is not None and self.replicas.deferred.wanted
        return wanted and plain and not self.asynchronous and not timeline.is_recording()

    def leave(self) -> None:
        """Let go of gradients whose mean is still to be computed."""
        if self.replicas is not None and not self.replicas.deferred.leave():
            self._flags[-1] = True

    def compare_optimizers(self, optimizer: Any) -> bool:
        """Raise the same error on all ranks if their optimizers differ; whether they have been compared.

        Not before gradients were averaged, nor where a rank may have run out of batches: it makes no step.
        """
        if optimizer in self._compared:
            return True
        if not self._order or self.uneven:
            return False
        self._compared.add(optimizer)
        check_same_optimizer(optimizer, self.comm)
        return True

    def take_part(self) -> None:
        """Join the others' backward pass with gradients of zero, and keep none of its results."""
        self.leave()
        before = [parameter.gradient for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.gradient = None
        self.started = True
        self._began = time.perf_counter()
        self.finish()
        for parameter, gradient in zip(self.parameters, before, strict=True):
            parameter.gradient = gradient

    def agree_on_order(self) -> None:
        """Plan buckets in the order in which gradients became complete on rank 0."""
        numbers = dict.fromkeys([*self.completed, *range(len(self.buckets))])  # unused ones last
        order = [i for number in numbers for i in self.buckets[number].members]
        self._order = self.comm.broadcast_object(order)
        self.plan(self._order, self.cap)
        self._share_arenas()

    def _share_arenas(self) -> None:
        """Let the ranks of a machine add up their gradients where they are."""
        homes = [home_of_gradient(parameter) for parameter in self.parameters]
        arenas = list(dict.fromkeys(home[0] for home in homes if home is not None))
        everybody = self.comm.all_gather_object([arena.grad.nbytes for arena in arenas])
        if everybody.count(everybody[0]) == len(everybody):
            self._shared = [self.comm.share(arena.grad) for arena in arenas]
            regions = [self.comm.share(arena.data) for arena in arenas]
            if None not in regions and None not in self._shared:
                self.replicas = Replicas(self.comm, regions, DeferredMean(self.comm, self._shared))

    def _check_nan(self, bucket: Bucket) -> None:
        """Raise the same error on all ranks if one has NaN in its gradients of this bucket."""
        found = [
            i
            for i, parameter in zip(bucket.members, bucket.parameters, strict=True)
            if has_nan(parameter.gradient)
        ]
        flag = numpy.array([bool(found)])
        self.comm.all_reduce(flag, ReduceOp.MAX)
        if flag[0]:
            mine = self._explain_nan(found) if found else ""
            lines = [f"\n  rank {rank}: {text}" for rank, text in enumerate(self.comm.all_gather_object(mine)) if text]
            self.reset()
            raise RuntimeError(f"DistributedDataParallel: there is NaN in the gradients of:{''.join(lines)}")

    def _explain_nan(self, found: list[int]) -> str:
        """Which of this rank's gradients have NaN, and where it comes from."""
        text = f"{', '.join(self.names[i] for i in found)}, of backward() at {user_line()}"
        broken = [name for name, parameter in zip(self.names, self.parameters, strict=True) if has_nan(parameter)]
        if broken:
            return f"{text}; there is NaN in the parameters themselves: {', '.join(broken)}"
        return text if self._kept is None else f"{text}; {self._kept.first_nan(self.parameters)}"


def _keep(flat: Array) -> None:
    pass
