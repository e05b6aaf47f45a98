"""An optimizer whose state is divided among the ranks (ZeRO, stage 1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy

from ..autograd.engine import accumulate
from ..autograd.variable import LEAF, Variable, box, changed
from ..runtime.arrays import module_of
from ..runtime.comm import Comm, ReduceOp, world_comm
from ..tensor.arena import ALIGNMENT, Arena, home_of
from .flat import ElementwiseOptimizer
from .optimizer import Optimizer, loss_of


class ZeroRedundancyOptimizer(Optimizer):
    """Lets every rank keep the state of, and update, one part of the parameters, and hands the results round.

    Parameters live in arenas, and each of the N ranks owns one contiguous N-th of an arena, wherever parameters begin
    and end: the parts are equal, also where one embedding is most of the model. With Adam a rank needs the memory of
    2 + 4 / N values per parameter (gradient and parameter; two states, and both again for its part) instead of 4.

    Usually a `DistributedDataParallel` has averaged the gradients. With `reduce_gradients=True` the optimizer does so
    itself, by a reduce-scatter that sends half the bytes of an all-reduce: wrap the model in nothing, or compute all
    its gradients under `no_sync()`. Each rank then has the averaged gradients of its own part only, so clip with
    `clip_grad_norm_` of this class.

    Args:
        params: as for any optimizer; the same on every rank.
        optimizer_class: Adam, SGD, ...: one whose update is the same for every element.
        process_group: the ranks; default: all of the job.
        parameters_as_bucket_view, overlap_with_ddp: accepted for PyTorch's sake; parameters always are views of an
            arena, and overlap_with_ddp has to be False.
        reduce_gradients: average the gradients over the ranks before the step.
        defaults: options of the optimizer class.

    Raises:
        TypeError: the update of optimizer_class depends on whole parameters.

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
        self._reduces = reduce_gradients
        self._collected = False  # whether the shards have the gradients of this step
        self._shards: list[list[_Shard]] = []  # of each group, one for each dtype and device
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
        self._shards.append([_Shard(family, self._comm) for family in families.values()])
        if len(self._shards) > 1 and "optim" in vars(self):
            self.optim.add_param_group({**_options(param_group), "params": _pieces(self._shards[-1])})

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
            shard.hand_round()
        return loss

    def _collect(self) -> None:
        """Let the shards have their gradients."""
        if not self._collected:
            for shard in itertools.chain(*self._shards):
                if self._reduces:
                    shard.reduce_gradients()
                else:
                    shard.load_gradients()
            self._collected = True

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self._collected = False

    def clip_grad_norm_(self, max_norm: float) -> float:
        """Scale the gradients of the coming step so that their norm is at most `max_norm`; the norm that they had.

        The squares are added up in float64: over each rank's part, then over the ranks in rank order.
        """
        self._collect()
        own = [p.grad.array for shards in self._shards for p in _pieces(shards) if p.grad is not None]
        squares = numpy.zeros((self._comm.size, 1))
        mine = math.fsum(float((g.astype(numpy.float64) ** 2).sum()) for g in own)
        self._comm.all_gather(squares, numpy.array([mine]))
        norm = math.sqrt(math.fsum(squares[:, 0]))
        scale = float(max_norm) / (norm + 1e-6)
        if scale < 1:
            for gradient in own:
                gradient *= gradient.dtype.type(scale)
        return norm

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


class _Shard:
    """This rank's part of the parameters of a group that have one dtype and device.

    Attributes:
        parameters: all of them, neighbours in an arena.
        parts: (number of a parameter, start, stop, piece) for those parameters of which elements start .. stop - 1 are
            this rank's; the piece is a leaf tensor with a copy of them, which the rank's own optimizer updates.
    """

    def __init__(self, parameters: list[Variable], comm: Comm) -> None:
        self.parameters = parameters
        self._comm = comm
        self._arena = Arena.of(parameters)
        homes = [home_of(p) for p in parameters]
        self._ranges = [self._arena.ranges[home[1]] for home in homes if home is not None]
        self._views = [self._arena.views[home[1]] for home in homes if home is not None]
        first, last = min(self._ranges)[0], max(self._ranges)[1]
        unit = max(1, ALIGNMENT // parameters[0].array.itemsize)
        width = (last - first) // (comm.size * unit) * unit
        # Equal parts, which one collective moves; the last rank owns the few elements behind them, too.
        self._body = slice(first, first + comm.size * width)
        self._tail = slice(self._body.stop, last)
        lo = first + comm.rank * width
        hi = last if comm.rank == comm.size - 1 else lo + width
        self._own = slice(lo, hi)
        self._own_body = slice(lo, lo + width)
        self.parts: list[tuple[int, int, int, Variable]] = []
        for number, (start, stop) in enumerate(self._ranges):
            a, b = max(start, lo), min(stop, hi)
            if a < b:
                piece = box(self._arena.data[a:b].copy())
                piece.node = LEAF
                self.parts.append((number, a - start, b - start, piece))

    def load_parameters(self) -> None:
        """Copy this rank's elements into its pieces: somebody may have loaded other values."""
        for number, start, stop, piece in self.parts:
            piece.array[...] = self.parameters[number].array.reshape(-1)[start:stop]

    def load_gradients(self) -> None:
        """Give the pieces their gradients, which are averaged already."""
        for number, start, stop, piece in self.parts:
            gradient = self.parameters[number].gradient
            piece.gradient = None
            if gradient is not None:
                accumulate(piece, gradient.array.reshape(-1)[start:stop], False, False)

    def reduce_gradients(self) -> None:
        """Give the pieces the means over the ranks of their gradients; one that no rank has stays None."""
        used = numpy.array([p.gradient is not None for p in self.parameters], numpy.uint8)
        self._comm.all_reduce(used, ReduceOp.MAX)
        flat = self._arena.grad
        for p, (start, stop) in zip(self.parameters, self._ranges, strict=True):
            if p.gradient is None:
                flat[start:stop] = 0
            elif p.gradient is not p.grad_slot:
                flat[start:stop] = p.gradient.array.reshape(-1)
        mean = module_of(flat).empty(self._own.stop - self._own.start, flat.dtype)
        width = self._own_body.stop - self._own_body.start
        if width:
            self._comm.reduce_scatter(mean[:width], flat[self._body], ReduceOp.AVG)
        if self._tail.start < self._tail.stop:
            tail = flat[self._tail].copy()
            self._comm.reduce(tail, self._comm.size - 1, ReduceOp.AVG)
            mean[width:] = tail[: mean.size - width]
        for number, start, stop, piece in self.parts:
            piece.gradient = None
            if used[number]:
                offset = self._ranges[number][0] - self._own.start
                accumulate(piece, mean[offset + start : offset + stop], False, False)

    def hand_round(self) -> None:
        """Write the updated pieces back and take over those of the other ranks."""
        data = self._arena.data
        for number, start, stop, piece in self.parts:
            offset = self._ranges[number][0]
            data[offset + start : offset + stop] = piece.array
        if self._own_body.start < self._own_body.stop:
            self._comm.all_gather(data[self._body], data[self._own_body])
        if self._tail.start < self._tail.stop:
            self._comm.broadcast(data[self._tail], self._comm.size - 1)
        for p, view in zip(self.parameters, self._views, strict=True):
            if p.array is not view:  # the user has given it other memory
                p.array[...] = view
            changed(p, "optimizer step")


def _pieces(shards: list[_Shard]) -> list[Variable]:
    return [piece for shard in shards for _, _, _, piece in shard.parts]


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """The options of a group without its parameters."""
    return {name: value for name, value in group.items() if name not in ("params", "param_names")}


def _is_spread(value: Any, p: Variable) -> bool:
    """Whether a value of a parameter's state has one element for each of the parameter's."""
    return isinstance(value, Variable) and value.array.shape == p.array.shape and value.array.ndim > 0
