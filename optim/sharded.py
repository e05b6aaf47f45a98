"""An optimizer whose state, and if wanted gradients, are divided among the ranks (ZeRO, stages 1 and 2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy

from ..autograd.engine import queue_callback
from ..autograd.variable import Variable, any_leaf, box
from ..runtime.arrays import Array, module_of
from ..runtime.comm import Comm, ReduceOp, world_comm
from ..runtime.world import has_spare_cores
from ..tensor.arena import Arena
from .flat import ElementwiseOptimizer
from .optimizer import Optimizer, loss_of, multiply
from .shard import Shard

# What the next forward waits for at a time; where gradients are divided, so many of them are whole at a time.
_SHARD_BYTES = 25 << 20


class ZeroRedundancyOptimizer(Optimizer):
    """Lets every rank keep the state of, and update, one part of the parameters, and hands the results round.

    Parameters live in arenas. Neighbours there of about 25 MiB form a shard, of which each of the N ranks owns one
    contiguous N-th, wherever parameters begin and end: the parts are equal, also where one embedding is most of the
    model. With Adam a rank needs the memory of 2 + 2 / N values per parameter (parameter and gradient; two states for
    its part) instead of 4. Where there are cores to spare the updated parameters travel while the next
    forward runs, and the first to read one of them waits.

    Usually a `DistributedDataParallel` has averaged the gradients. With `reduce_gradients=True` the optimizer does so
    itself, by a reduce-scatter that sends half the bytes of an all-reduce: wrap the model in nothing, or compute all
    its gradients under `no_sync()`. Each rank then has the averaged gradients of its own part only, so clip with
    `clip_grad_norm_` of this class. `p.grad` is None after the step, as after `zero_grad()`.

    With `shard_gradients=True` (ZeRO-2) each shard's gradients are reduced as soon as backward has completed them, and
    a rank keeps those of its own part: with Adam 1 + 3 / N values per parameter. `p.grad` is None after backward; it
    takes `zero_grad()` of this optimizer to forget the gradients. Wrap the model in nothing.

    Args:
        params: as for any optimizer; the same on every rank.
        optimizer_class: Adam, SGD, ...: one whose update is the same for every element.
        process_group: the ranks; default: all of the job.
        parameters_as_bucket_view, overlap_with_ddp: accepted for PyTorch's sake; parameters always are views of an
            arena, and overlap_with_ddp has to be False.
        reduce_gradients: average the gradients over the ranks before the step.
        shard_gradients: average them during backward, and keep this rank's part only.
        defaults: options of the optimizer class.

    Raises:
        TypeError: the update of optimizer_class depends on whole parameters.
        RuntimeError: with shard_gradients, a DistributedDataParallel averages the gradients already.

    Source: Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, 2020.

    Example:
        >>> import paceline as torch
        >>> w = torch.ones(2, requires_grad=True)
        >>> optimizer = ZeroRedundancyOptimizer([w], torch.optim.SGD, lr=0.5)
        >>> w.sum().backward()
        >>> optimizer.step()
        >>> w
        tensor([0.5000, 0.5000], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable,
        optimizer_class: type[Optimizer],
        process_group: Comm | None = None,
        parameters_as_bucket_view: bool = False,
        overlap_with_ddp: bool = False,
        *,
        reduce_gradients: bool = False,
        shard_gradients: bool = False,
        **defaults: Any,
    ) -> None:
        if not (isinstance(optimizer_class, type) and issubclass(optimizer_class, ElementwiseOptimizer)):
            name = getattr(optimizer_class, "__name__", repr(optimizer_class))
            raise TypeError(
                f"ZeroRedundancyOptimizer(): the update of {name} depends on whole parameters, which ranges of an "
                "arena cut through; expected one of element by element, such as Adam, AdamW or SGD"
            )
        if overlap_with_ddp:
            raise NotImplementedError("ZeroRedundancyOptimizer(): overlap_with_ddp=True is not supported; leave it off")
        self._comm = world_comm() if process_group is None else process_group
        self.asynchronous = self._comm.backend == "mpi" and has_spare_cores()  # whether forward goes on meanwhile
        self._reduces = reduce_gradients
        self._divides = shard_gradients
        self._collected = False  # whether the pieces have the gradients of this step
        self._in_backward = False
        self._queue: list[Shard] = []  # those whose gradients the backward pass under way has not reduced yet
        self._shards: list[list[Shard]] = []  # of each group, one for each dtype and device
        self.numbers = optimizer_class.numbers
        super().__init__(params, {})
        groups = [
            {**_options(group), "params": _pieces(shards)}
            for group, shards in zip(self.param_groups, self._shards, strict=True)
        ]
        self.optim = optimizer_class(groups, **defaults)
        self.defaults = self.optim.defaults
        for group, inner in zip(self.param_groups, self.optim.param_groups, strict=True):
            group.update(_options(inner))
        self._check_same_everywhere()

    def _check_same_everywhere(self) -> None:
        """Refuse ranks whose parameters or options differ, with the same message everywhere."""
        mine = [type(self.optim).__name__]
        for i, group in enumerate(self.param_groups):
            mine += [f"group {i}: {name}={value!r}" for name, value in sorted(_options(group).items())]
            mine += [f"group {i}: parameter {k} {p.dtype.name} {list(p.shape)}" for k, p in enumerate(group["params"])]
        everybody = self._comm.all_gather_object(mine)
        for rank, lines in enumerate(everybody):
            for here, there in itertools.zip_longest(lines, everybody[0], fillvalue="nothing"):
                if here != there:
                    raise RuntimeError(
                        "ZeroRedundancyOptimizer(): every rank must make the same optimizer, but these differ:"
                        f"\n  {here} on rank {rank}, {there} on rank 0"
                    )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        families: dict[Any, list[Variable]] = {}
        for p in param_group["params"]:
            families.setdefault((p.dtype, p.device), []).append(p)
        self._shards.append([shard for family in families.values() for shard in self._cut(family)])
        if len(self._shards) > 1 and "optim" in vars(self):
            self.optim.add_param_group({**_options(param_group), "params": _pieces(self._shards[-1])})

    def _cut(self, family: list[Variable]) -> list[Shard]:
        """The shards of parameters of one dtype and device."""
        arena = Arena.of(family)
        family.sort(key=lambda p: p.home[1])  # type: ignore[index]
        size = _SHARD_BYTES // arena.data.itemsize
        first = min(arena.ranges[p.home[1]][0] for p in family)  # type: ignore[index]
        numbers = [(arena.ranges[p.home[1]][0] - first) // size for p in family]  # type: ignore[index]
        shards = [
            Shard([p for _, p in members], self._comm)
            for _, members in itertools.groupby(zip(numbers, family, strict=True), key=lambda each: each[0])
        ]
        if self._divides:
            for shard in shards:
                self._reduce_in_backward(shard)
        return shards

    def _reduce_in_backward(self, shard: Shard) -> None:
        """Let the shard's gradients be reduced as soon as they are complete."""
        if any(p.group is not None for p in shard.parameters):
            raise RuntimeError(
                "ZeroRedundancyOptimizer(shard_gradients=True): a DistributedDataParallel averages these parameters' "
                "gradients; wrap the model in nothing"
            )
        shard.on_begin, shard.on_complete = self._begin, self._complete
        any_leaf.grouped = True
        for p in shard.parameters:
            p.group, p.grad_slot, p.gradient = shard, None, None

    def _begin(self, shard: Shard) -> None:
        """Backward will reach this shard; one that it does not reach joins with zeros."""
        if not self._in_backward:
            self._in_backward = True
            self._queue = list(itertools.chain(*self._shards))
            queue_callback(self._finish)
        shard.pending = True

    def _complete(self, shard: Shard) -> None:
        """Reduce what can be reduced, in the order that all ranks keep: from the last shard to the first."""
        shard.pending = False
        while self._queue and not self._queue[-1].pending:
            self._queue.pop().reduce_gradients()

    def _finish(self) -> None:
        """At the end of backward: reduce what is left."""
        while self._queue:
            self._queue.pop().reduce_gradients()
        self._in_backward = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update this rank's part of the parameters and take over the others'."""
        loss = loss_of(closure)
        self.state.clear()  # what consolidate_state_dict() has brought together
        self._collect()
        self._collected = False
        for group, inner in zip(self.param_groups, self.optim.param_groups, strict=True):
            inner.update(_options(group))
        for shard in itertools.chain(*self._shards):
            shard.load_parameters()
        self.optim.step()
        for shard in itertools.chain(*self._shards):
            shard.hand_round(self.asynchronous)
        return loss

    def _collect(self) -> None:
        """Let the pieces have their gradients; those of parameters that no rank has used have none."""
        shards = list(itertools.chain(*self._shards))
        if not (self._reduces or self._divides):
            for shard in shards:
                shard.load_gradients()
            return
        if self._collected:
            return
        self._collected = True
        if not self._divides:
            for shard in shards:
                shard.forget_gradients()
                shard.reduce_gradients()
        used = numpy.concatenate([shard.used for shard in shards])
        self._comm.all_reduce(used, ReduceOp.MAX)
        bounds = itertools.accumulate(len(shard.used) for shard in shards[:-1])
        for shard, part in zip(shards, numpy.split(used, list(bounds)), strict=True):
            shard.drop_unused(part)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self._collected = self._in_backward = False
        if self._divides:
            for shard in itertools.chain(*self._shards):
                shard.forget_gradients()

    def clip_grad_norm_(self, max_norm: float) -> float:
        """Scale the gradients of the coming step so that their norm is at most `max_norm`; the norm that they had.

        The squares are added up in float64: over each rank's part, then over the ranks in rank order.
        """
        self._collect()
        own = _gradients(piece for shards in self._shards for piece in _pieces(shards))
        squares = numpy.zeros((self._comm.size, 1))
        mine = math.fsum(float((g.astype(numpy.float64) ** 2).sum()) for g in own)
        self._comm.all_gather(squares, numpy.array([mine]))
        norm = math.sqrt(math.fsum(squares[:, 0]))
        scale = float(max_norm) / (norm + 1e-6)
        if scale < 1:
            for gradient in own if self._reduces or self._divides else _gradients(self._parameters()):
                gradient *= gradient.dtype.type(scale)
        return norm

    def unscale(self, factor: float) -> bool | None:
        if not (self._reduces or self._divides):
            return super().unscale(factor)
        self._collect()
        pieces = [piece for shards in self._shards for piece in _pieces(shards)]
        overflowed = multiply([piece.gradient for piece in pieces if piece.gradient is not None], factor)
        flags = numpy.array([overflowed is not None, bool(overflowed)])
        self._comm.all_reduce(flags, ReduceOp.MAX)
        if flags[1]:
            self._collected = False  # no rank makes this step
        return bool(flags[1]) if flags[0] else None

    # -- saving and loading ------------------------------------------------------------------------------------------

    def consolidate_state_dict(self, to: int = 0) -> None:
        """Bring the whole state together on rank `to`; call it on every rank, and then `state_dict()` on that one."""
        mine = []
        for shards in self._shards:
            for shard in shards:
                for number, start, stop, piece in shard.parts:
                    entry = {
                        name: value.array if isinstance(value, Variable) else value
                        for name, value in self.optim.state.get(piece, {}).items()
                    }
                    mine.append((shard.parameters[number], start, stop, entry))
        names = {p: i for i, p in enumerate(self._parameters())}
        everybody = self._comm.gather_object([(names[p], *rest) for p, *rest in mine], to)
        self.state.clear()
        for number, start, stop, entry in itertools.chain(*(everybody or ())):
            self._fill_in(self._parameters()[number], start, stop, entry)

    def _fill_in(self, p: Variable, start: int, stop: int, entry: dict[str, Any]) -> None:
        """Put a part of a parameter's state in its place."""
        for name, value in entry.items():
            if getattr(value, "shape", None) != (stop - start,) or name in ("step", *self.numbers):
                self.state[p][name] = box(value) if isinstance(value, numpy.ndarray) else value
                continue
            if name not in self.state[p]:
                self.state[p][name] = box(module_of(value).empty(p.array.shape, value.dtype))
            self.state[p][name].array.reshape(-1)[start:stop] = value

    def state_dict(self) -> dict[str, Any]:
        """The whole state in the format of the optimizer class, on the rank that `consolidate_state_dict` named."""
        if self._comm.size == 1:
            self.consolidate_state_dict()
        elif not self.state and any(self.optim.state.values()):
            raise RuntimeError(
                "Optimizer state has not been consolidated on this rank. Please call `consolidate_state_dict(to="
                f"{self._comm.rank})` on all ranks beforehand if you meant to save the global state."
            )
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the whole state, on every rank: of this class at any number of ranks, or of the optimizer class."""
        super().load_state_dict(state_dict)
        inner = self.optim.state_dict()
        entries = {}
        numbers = itertools.count()
        for shards in self._shards:
            for shard in shards:
                for number, start, stop, _ in shard.parts:
                    p = shard.parameters[number]
                    entries[next(numbers)] = {
                        name: value.reshape(-1)[start:stop] if _is_spread(value, p) else value
                        for name, value in self.state.get(p, {}).items()
                    }
        self.optim.load_state_dict({"state": entries, "param_groups": inner["param_groups"]})
        self.state.clear()

    def _parameters(self) -> list[Variable]:
        return [p for group in self.param_groups for p in group["params"]]


def _pieces(shards: list[Shard]) -> list[Variable]:
    return [piece for shard in shards for _, _, _, piece in shard.parts]


def _gradients(leaves: Iterable[Variable]) -> list[Array]:
    return [leaf.gradient.array for leaf in leaves if leaf.gradient is not None]


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """The options of a group without its parameters."""
    return {name: value for name, value in group.items() if name not in ("params", "param_names")}


def _is_spread(value: Any, p: Variable) -> bool:
    """Whether a value of a parameter's state has one element for each of the parameter's."""
    return isinstance(value, Variable) and value.array.shape == p.array.shape and value.array.ndim > 0
