"""Steps on arenas: optimizers whose update is the same for every element, so that one call serves many parameters."""

from __future__ import annotations

import functools
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import is_
from types import ModuleType
from typing import Any

import numpy

from ..autograd.variable import LAST_CHANGE, Variable, any_leaf, box, changed, counter_of, stamp
from ..runtime import device as devices
from ..runtime.arrays import Array, module_of
from ..runtime.comm.reduction import ReduceOp, combine
from ..tensor.arena import Arena, home_of, settle
from ..tensor.kernels import sources, takes, usable
from .optimizer import Optimizer, loss_of

# Bytes of each array in one update call. On the CPU parameters, gradients, two states and two scratch arrays then stay
# in a level-2 cache of 1 MiB; on a GPU this only bounds the scratch memory.
_CHUNK_CPU = 128 * 1024
_CHUNK_GPU = 64 * 1024 * 1024

# Where each rank updates one part for all: bytes of parameters for which it is worth the ranks' waiting for each other,
# and of those that are handed to the other ranks while they are in a cache.
_JOINT_BYTES = 4 << 20
_JOINT_CHUNK = 512 << 10
_LOOKED = -(1 << 62)  # says, in place of a step, that a rank has read the mean of gradients that was deferred

State = dict[str, Array]
# Parameters, gradients, state, scratch, and the other ranks' parameters if they are to become the same; without scratch
# they are for `fused_update`.
Chunk = tuple[Array, Array, State, tuple[Array, Array] | None, list[Array]]


@functools.lru_cache(maxsize=1024)
def constant(value: float, xp: ModuleType, kind: str) -> Any:
    """An option as a factor of arrays of this kind (`dtype.char`): for NumPy as a 0-d array, the same in each step, by
    which it multiplies in half the time that converting a number anew takes."""
    return numpy.array(value, kind) if xp is numpy and kind in "fd" else value


def descent(xp: ModuleType, p: Array, g: Array, weight_decay: float, maximize: bool, out: Array) -> Array:
    """The gradient of what is minimized: negated to maximize, plus that of the L2 penalty; in `out` if it differs."""
    if weight_decay:
        xp.multiply(p, float(weight_decay), out=out)
        return xp.subtract(out, g, out=out) if maximize else xp.add(out, g, out=out)
    return xp.negative(g, out=out) if maximize else g


def descent_options(hp: dict[str, Any], number: Callable[[float], Any], decay: float) -> tuple[Any, bool, bool]:
    """What kernels take to compute the same: the L2 penalty, whether there is one, and whether to maximize."""
    return number(decay), bool(decay), bool(hp["maximize"])


class ElementwiseOptimizer(Optimizer):
    """An optimizer given by two functions on raw arrays, `init` and `update`.

    They see flat arrays: a stretch of an arena with many parameters in it, or one parameter, and must not depend on
    which. What is in place is verified at each step; parameters or gradients that users rebound are updated alone.

    Data-parallel ranks would all compute the same step. Those of one machine that reach each other's parameters divide
    it: each updates one part and writes it into everybody's parameters, and of the state there is one copy, in memory
    that all of them map. The bits are the same as without. The ranks compare parameters and state at first, and before
    each step whether all are about to make this one. Once they are not, or somebody has looked at `state` or has
    changed parameters in place, each has a state of its own again, and steps for itself from then on. Gradients are not
    compared: who changes them after backward must do so in the same way on all ranks, or the ranks' steps differ.
    As long as nobody reads gradients, their mean over the ranks is computed here, too, by each rank for its part.
    """

    _alone = False  # whether the ranks have found that each steps for itself
    _keeps_state = False  # whether this rank will not give its state away to be one for all
    _stamp = -1  # that of the parameters after the last step made together
    counts_steps = True  # whether `state[p]` has "step", as that of PyTorch's optimizer of this name

    def __init__(self, params: Iterable, defaults: dict[str, Any]) -> None:
        self._forget_plans()
        super().__init__(params, defaults)

    def _forget_plans(self) -> None:
        self._plans: list[_Plan] = []
        self._entries = 0  # len(self._state) when last seen
        self._scratch: dict[Any, tuple[Array, Array]] = {}
        self._partners: tuple[Any, bool] = (None, False)  # replicas that were looked at, and whether to step with them

    @property
    def state(self) -> defaultdict[Any, dict[str, Any]]:  # type: ignore[override]
        """For each parameter a dict of what the optimizer remembers of it; see the class about data-parallel ranks."""
        self._keep_state()
        self._keeps_state = True  # whoever looks may look again
        return self._state

    @state.setter
    def state(self, value: defaultdict[Any, dict[str, Any]]) -> None:
        self._state = value

    @staticmethod
    def needs_state(hp: dict[str, Any]) -> bool:
        """Whether `init` makes any state with these options."""
        return True

    @staticmethod
    def init(xp: ModuleType, p: Array, hp: dict[str, Any]) -> State:
        """The state before the first step, by PyTorch's names; depends on p's shape and dtype only.

        An optimizer that needs no state with these options returns {}, and is then always at its first step.
        """
        raise NotImplementedError

    @staticmethod
    def update(
        xp: ModuleType, p: Array, g: Array, state: State, hp: dict[str, Any], step: int, scratch: tuple[Array, Array]
    ) -> None:
        """One step in place.

        Args:
            xp: numpy or cupy.
            p: parameters, to be changed.
            g: their gradients, not to be changed.
            state: what `init` made, to be changed.
            hp: the options of the group.
            step: number of this step, from 1.
            scratch: two arrays like p to compute in.
        """
        raise NotImplementedError

    # `update` without scratch in one compiled pass over large float arrays on the CPU: `(p, g, state, hp, step)`. It
    # returns NotImplemented for options that it does not take; None: there is no such function.
    fused_update: Callable[..., Any] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "update" in vars(cls) and "fused_update" not in vars(cls):
            cls.fused_update = None  # the inherited one computes another update

    @staticmethod
    def advance(numbers: dict[str, float], hp: dict[str, Any], step: int) -> dict[str, Any]:
        """Change the numbers of class attribute `numbers` into those after this step; they start as 0.

        Returns:
            The options that `update` gets in place of hp.
        """
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        settle(param_group["params"])

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else loss_of(closure)
        if len(self._plans) != len(self.param_groups) or len(self._state) != self._entries:
            self._plans = [self._plan(group) for group in self.param_groups]
            self._partners = (None, False)
        if not (any_leaf.grouped and self._step_jointly()):
            self._step_alone()
        self._entries = len(self._state)
        return loss

    def _step_alone(self) -> None:
        for i, group in enumerate(self.param_groups):
            plan = self._plans[i]
            if plan.in_place(group["params"]):
                self._step_in_place(plan, group)
            else:
                self._step_in_pieces(i, group)
                for p in group["params"]:
                    if p.gradient is not None:
                        changed(p, "optimizer step")

    def _step_in_place(self, plan: _Plan, group: dict[str, Any], deferred: bool = False) -> None:
        """The step of a group of which everything is in place; with a mean of gradients that is still to be computed if
        it was deferred."""
        for run in plan.runs:
            if not run.state and not run.divided and (not run.chunks or self.needs_state(group)):
                self._prepare(run, group)
            self._update(run, group, 0, len(run.parameters), run.averaged_chunks() if deferred else run.chunks)
        stamp(plan.counters, "optimizer step")

    def _step_in_pieces(self, i: int, group: dict[str, Any]) -> None:
        """The step of a group of which not everything is in place."""
        if self._plans[i].outdated(group["params"]):
            self._plans[i] = self._plan(group)
            self._partners = (None, False)
        for run in self._plans[i].runs:
            for first, last, p, g in run.pieces():
                self._prepare(run, group)
                start, stop = run.ranges[first][0], run.ranges[last - 1][1]
                state = {name: array[start:stop] for name, array in run.state.items()}
                self._update(run, group, first, last, self._chunks(run.xp, p, g, state))
        self._plans[i].compare_steps()

    def _update(self, run: _Run, group: dict[str, Any], first: int, last: int, chunks: Iterable[Chunk]) -> None:
        """Update the parameters first..last of a run, all at the same step, given as chunks of flat arrays."""
        step, options = 1, group
        if run.state:
            step = int(run.steps.item(first)) + 1
            if last - first == len(run.parameters):
                run.steps.fill(step)  # in half the time of a slice
            else:
                run.steps[first:last] = step
            if self.numbers:
                numbers = {name: float(run.numbers[name][first]) for name in self.numbers}
                options = self.advance(numbers, group, step)
                for name, number in numbers.items():
                    run.numbers[name][first:last] = number
        for p, g, state, scratch, twins in chunks:
            if scratch is not None:
                self.update(run.xp, p, g, state, options, step, scratch)
            elif self.fused_update(p, g, state, options, step) is NotImplemented:  # type: ignore[misc]
                for part in self._cut(run.xp, p, g, state):
                    self.update(run.xp, *part[:3], options, step, part[3])  # type: ignore[arg-type]
            for twin in twins:
                _hand_over(p, twin)
        if step == 1 and run.state:
            self._publish(run, range(first, last))

    def _prepare(self, run: _Run, group: dict[str, Any]) -> None:
        """Make the state of a run that has none; options changed since may demand one (momentum set from 0)."""
        if run.state or (run.chunks and not self.needs_state(group)):
            return
        run.state = self.init(run.xp, run.like, group)
        if run.data is not None and (run.state or not run.chunks):
            run.chunks = self._chunks(run.xp, run.data, run.grad, run.state)

    def _chunks(self, xp: ModuleType, p: Array, g: Array, state: State, twins: Sequence[Array] = ()) -> list[Chunk]:
        """Flat arrays as one update call after the other takes them."""
        if not (xp is numpy and self.fused_update is not None and takes(p)):
            return self._cut(xp, p, g, state, twins)
        width = _JOINT_CHUNK // p.itemsize if twins else p.size
        return [(*part, None, others) for *part, others in _parts(width, p, g, state, twins)]

    def _cut(self, xp: ModuleType, p: Array, g: Array, state: State, twins: Sequence[Array] = ()) -> list[Chunk]:
        width = (_CHUNK_CPU if xp is numpy else _CHUNK_GPU) // p.itemsize
        a, b = self._scratch_like(xp, p[:width])
        return [
            (*part, (a[: part[0].size], b[: part[0].size]), others)
            for *part, others in _parts(width, p, g, state, twins)
        ]

    def _scratch_like(self, xp: ModuleType, p: Array) -> tuple[Array, Array]:
        kept = self._scratch.get((xp, p.dtype))
        if kept is None or kept[0].size < p.size:
            kept = self._scratch[xp, p.dtype] = xp.empty_like(p), xp.empty_like(p)
        return kept

    # -- steps of which each rank makes one part ---------------------------------------------------------------------

    def _step_jointly(self) -> bool:
        """Make the step together with the ranks that have the same parameters and gradients; whether it was made."""
        replicas = self._find_replicas()
        if replicas is None or not (self._agree(replicas) and self._divide_state(replicas)):
            self._alone |= replicas is not None  # for good, as on all ranks: none may wait for one that does not ask
            self._keep_state()
            return False
        for plan, group in zip(self._plans, self.param_groups, strict=True):
            self._step_in_place(plan, group, replicas.deferred.pending)
        self._stamp = LAST_CHANGE[0]
        replicas.comm.barrier()
        replicas.deferred.want()
        return True

    def _find_replicas(self) -> Any:
        """The ranks to step with, the same on all of them: what this looks at does not differ between ranks."""
        leaves = self.param_groups[0]["params"]
        group = leaves[0].group if leaves else None
        replicas = None if group is None or self._alone else group.replicas()
        if replicas is not None and replicas is not self._partners[0]:
            everything = [p for group in self.param_groups for p in group["params"]]
            same = all(p.group is not None and p.group.replicas() is replicas for p in everything)
            self._partners = (replicas, same and sum(p.array.nbytes for p in everything) >= _JOINT_BYTES)
        return replicas if self._partners[1] else None

    def _agree(self, replicas: Any) -> bool:
        """Whether all ranks are about to make the same step."""
        numbers = replicas.gather(self._intent(replicas))
        if _LOOKED in numbers:
            replicas.deferred.meet()
            numbers = replicas.gather(self._intent(replicas))
        return bool((numbers == numbers[0]).all())

    def _intent(self, replicas: Any) -> int:
        """A number for the step that this rank is about to make; if it cannot do so with others, one of its own."""
        if replicas.deferred.looked:
            return _LOOKED
        plans = list(zip(self._plans, self.param_groups, strict=True))
        if self._keeps_state or not replicas.averaged or not all(self._is_shared(*each, replicas) for each in plans):
            return -1 - replicas.comm.rank
        options = [[_exact(value) for name, value in group.items() if name != "params"] for _, group in plans]
        runs = [(run.start, run.like.size, run.steps.item(0), run.divided) for plan, _ in plans for run in plan.runs]
        return zlib.crc32(repr((options, runs)).encode())

    def _is_shared(self, plan: _Plan, group: dict[str, Any], replicas: Any) -> bool:
        """Whether the other ranks reach all parameters of a group, and nobody has changed them since they did."""
        if not plan.in_place(group["params"], replicas.deferred.pending):
            return False
        if any(run.divided for run in plan.runs) and any(counter[2] > self._stamp for counter in plan.counters):
            return False
        return all(run.divided or replicas.twins(run.data) for run in plan.runs)

    def _divide_state(self, replicas: Any) -> bool:
        """Keep one state for all ranks, of which this one updates its part; False if it differs, or parameters do, or
        where there is no memory for that."""
        runs = []
        for plan, group in zip(self._plans, self.param_groups, strict=True):
            for run in plan.runs:
                if not run.divided or (not run.state and self.needs_state(group)):
                    self._prepare(run, group)
                    runs.append(run)
        if not runs:
            return True
        arrays = [array for run in runs for array in run.state.values()]
        numbers = [array for run in runs for array in run.numbers.values()]
        if not replicas.agree_on([*(run.data for run in runs), *arrays, *numbers]):  # type: ignore[list-item]
            return False
        common = replicas.common(arrays)
        if common is None:
            return False
        places = iter(common)
        for run in runs:
            own, state = replicas.own(run.like), dict(zip(run.state, places, strict=False))
            for name, array in state.items():
                array[own] = run.state[name][own]
            run.divided = True
            self._set_state(run, state, own, replicas.twins(run.data))
            run.everybodys_gradients = [replicas.deferred.everybodys(g) for _, g, *_ in run.chunks]
        return True

    def _keep_state(self) -> None:
        """Have a state of one's own again."""
        for run in [run for plan in self._plans for run in plan.runs if run.divided]:
            run.divided, self._keeps_state = False, True
            self._set_state(run, {name: array.copy() for name, array in run.state.items()}, slice(None), [])

    def _set_state(self, run: _Run, state: State, part: slice, twins: Sequence[Array]) -> None:
        """Let a run have other memory for its state, and this rank update a part of it."""
        run.state = state
        parts = {name: array[part] for name, array in state.items()}
        others = [twin[part] for twin in twins]
        run.chunks = self._chunks(run.xp, run.data[part], run.grad[part], parts, others)  # type: ignore[index]
        self._publish(run, [k for k, p in enumerate(run.parameters) if self._state.get(p)])

    def state_to_save(self) -> defaultdict[Any, dict[str, Any]]:
        if not any(run.divided for plan in self._plans for run in plan.runs):
            return self._state
        copies = {p: {name: value.clone() for name, value in entry.items()} for p, entry in self._state.items()}
        return defaultdict(dict, copies)

    # -- plans: which parameters are neighbours in an arena ----------------------------------------------------------

    def _plan(self, group: dict[str, Any]) -> _Plan:
        """Cut a group into runs, with the state that `self.state` has of its parameters."""
        params = group["params"]
        places = [_place_of(p) for p in params]
        runs = []
        first = 0
        for last in range(1, len(params) + 1):
            if last == len(params) or not _follows(places[last - 1], places[last], group):
                runs.append(_Run(params[first:last], home_of(params[first]), self.numbers))
                self._recall(runs[-1], group)
                first = last
        return _Plan(list(params), places, runs)

    def _recall(self, run: _Run, group: dict[str, Any]) -> None:
        """Fill the state of a run from `self.state`: loaded, or from where the parameters lived before."""
        for k, p in enumerate(run.parameters):
            entry = self._state.get(p)
            if not entry:
                continue
            self._prepare(run, group)
            found = [name for name in run.state if entry.get(name) is not None]
            if found:
                start, stop = run.ranges[k]
                for name in found:
                    array = devices.move(entry[name].array, devices.device_of(run.like))
                    run.state[name][start:stop] = array.reshape(-1)
                run.steps[k] = float(entry.get("step", 1))
                for number in self.numbers:
                    run.numbers[number][k] = float(entry[number])
                self._publish(run, [k])

    def _publish(self, run: _Run, numbers: Iterable[int]) -> None:
        """Show the state of parameters of a run in `self.state`, as tensors over the run's memory."""
        for k in numbers:
            start, stop = run.ranges[k]
            p = run.parameters[k]
            entry = self._state[p]
            for name, values in run.numbers.items():
                if name != "step" or self.counts_steps:
                    entry[name] = box(values[k : k + 1].reshape(()))
            for name, array in run.state.items():
                entry[name] = box(array[start:stop].reshape(p.array.shape))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._forget_plans()

    def _fitted(self, number: Any, p: Any, entry: dict[str, Any]) -> dict[str, Any]:
        for name, value in entry.items():
            shape = tuple(getattr(value, "shape", ()))
            if name not in ("step", *self.numbers) and shape != p.array.shape:
                raise RuntimeError(
                    f"loaded state dict: {name!r} of parameter {number} has shape {list(shape)}, the parameter has "
                    f"{list(p.array.shape)}"
                )
        return super()._fitted(number, p, entry)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget_plans()


class _Run:
    """Parameters that are neighbours in an arena, or one parameter alone, with their state in flat arrays.

    Attributes:
        data, grad: the slices of the arena, or None of a parameter outside of any.
        places: for each parameter what its array must be, and a weak reference to what its gradient's must be.
        start: where they begin in the arena.
        ranges: (start, stop) of each parameter in the flat arrays.
        like: an array with the shape, dtype and device of the flat arrays.
        numbers: for each parameter "step", how many it has made with its state, and what else is one number for a
            whole parameter; float32, as PyTorch keeps them.
        chunks: the arrays of the whole run, cut for the update calls.
        divided: whether the state is one for several ranks, and chunks are those of this one.
        everybodys_gradients: of divided ones, for each chunk the gradients of all ranks there.
    """

    divided = False
    everybodys_gradients: Sequence[list[Array]] = ()

    def __init__(
        self, parameters: Sequence[Variable], home: tuple[Arena, int] | None, numbers: tuple[str, ...]
    ) -> None:
        self.parameters = parameters
        self.state: State = {}
        self.numbers = {name: numpy.zeros(len(parameters), numpy.float32) for name in ("step", *numbers)}
        self.steps = self.numbers["step"]
        self.chunks: list[Chunk] = []
        self.data = self.grad = None
        self.start = 0
        self.places: list[tuple[Array, Callable]] = []
        if home is None:
            self.like = parameters[0].array.reshape(-1)
            self.ranges = [(0, int(self.like.size))]
        else:
            arena, first = home
            last = first + len(parameters)
            ranges = arena.ranges[first:last]
            start, stop = ranges[0][0], ranges[-1][1]
            self.start = start
            self.ranges = [(a - start, b - start) for a, b in ranges]
            self.data, self.grad = arena.data[start:stop], arena.grad[start:stop]
            self.places = list(zip(arena.views[first:last], arena.slots[first:last], strict=True))
            self.like = self.data
        self.xp = module_of(self.like)

    def averaged_chunks(self) -> Iterator[Chunk]:
        """The chunks with the mean of everybody's gradients, which is there until the next chunk is asked for."""
        mean = None
        for (p, g, *rest), gradients in zip(self.chunks, self.everybodys_gradients, strict=True):
            mean = numpy.empty_like(g) if mean is None else mean[: g.size]
            combine(ReduceOp.AVG, gradients, mean)
            yield p, mean, *rest

    def pieces(self) -> Iterator[tuple[int, int, Array, Array]]:
        """(first, last, parameters, gradients) as flat arrays of what one update can take, those without gradient left
        out: neighbours in place that have made as many steps, and all others alone."""
        first, n = 0, len(self.parameters)
        while first < n:
            last = first + 1
            p = self.parameters[first]
            if p.gradient is None:
                pass
            elif self._in_place(first):
                while last < n and self._in_place(last) and self._level(first, last):
                    last += 1
                span = slice(self.ranges[first][0], self.ranges[last - 1][1])
                yield first, last, self.data[span], self.grad[span]  # type: ignore[index]
            else:
                flat = p.array.reshape(-1)
                yield first, last, flat, p.gradient.array.reshape(-1)
                if not p.array.flags.c_contiguous:  # then the flat one was a copy
                    p.array[...] = flat.reshape(p.array.shape)
            first = last

    def _level(self, i: int, k: int) -> bool:
        """Whether two parameters have made as many steps and have the same numbers, so that one update serves both."""
        return all(numbers[i] == numbers[k] for numbers in self.numbers.values())

    def is_level(self) -> bool:
        """Whether one update serves all parameters."""
        return all((numbers == numbers[0]).all() for numbers in self.numbers.values())

    def _in_place(self, k: int) -> bool:
        p = self.parameters[k]
        if not self.places or p.gradient is None:
            return False
        data, grad = self.places[k]
        return p.array is data and p.gradient.array is grad()


class _Plan:
    """How a group is cut into runs, and what must hold for that to be right."""

    def __init__(self, parameters: list[Variable], places: list[tuple], runs: list[_Run]) -> None:
        self._parameters = parameters
        self._places = places
        self.runs = runs
        places_in_arenas = [place for run in runs for place in run.places]
        placed = zip(parameters, places_in_arenas, strict=False)
        self.expected = [(i, p, *place, counter_of(p)) for i, (p, place) in enumerate(placed)]
        self.counters = [counter for *_, counter in self.expected]
        self.compare_steps()

    def compare_steps(self) -> None:
        """Note whether the parameters of each run have made equally many steps."""
        self._level = all(run.is_level() for run in self.runs)

    def in_place(self, parameters: list[Variable], deferred: bool = False) -> bool:
        """Whether every parameter has its gradient and both are in the arena, so that each run takes one update.

        Args:
            deferred: whether gradients that have not been replaced are there, and must not be read.
        """
        if not self._level or len(parameters) != len(self.expected):
            return False
        for i, p, data, grad, counter in self.expected:
            gradient = p.gradient
            if gradient is None or p.array is not data or p.counter is not counter:
                return False
            if gradient is not p.grad_slot if deferred else gradient.array is not grad():
                return False
            if parameters[i] is not p:
                return False
        return True

    def outdated(self, parameters: list[Variable]) -> bool:
        """Whether the group has other parameters than planned for, or they moved."""
        return (
            len(parameters) != len(self._parameters)
            or not all(map(is_, parameters, self._parameters))
            or [_place_of(p) for p in parameters] != self._places
        )


def _exact(option: Any) -> Any:
    """An option as something whose text tells all of its bits."""
    return option.array.tobytes() if isinstance(option, Variable) else option


def _hand_over(p: Array, twin: Array) -> None:
    """twin[...] = p, in memory that another rank reads next."""
    if usable():
        sources.streaming.copy(twin.view(numpy.uint8), p.view(numpy.uint8))
    else:
        twin[...] = p


def _parts(
    width: int, p: Array, g: Array, state: State, twins: Sequence[Array]
) -> Iterator[tuple[Array, Array, State, list[Array]]]:
    """Flat arrays cut into parts of `width` elements."""
    for start in range(0, p.size, width):
        part = slice(start, start + width)
        yield p[part], g[part], {name: array[part] for name, array in state.items()}, [twin[part] for twin in twins]


def _place_of(p: Variable) -> tuple:
    """The arena and number of a parameter; outside of any, what its state must fit."""
    return home_of(p) or (p.array.shape, p.array.dtype, devices.device_of(p.array))


def _follows(before: tuple, place: tuple, group: dict[str, Any]) -> bool:
    """Whether two parameters are neighbours whose gap an update leaves alone."""
    if len(before) != 2 or place != (before[0], before[1] + 1):
        return False
    # where eps is 0 in the parameters' dtype, dividing by it would put 0/0 into the gap
    return before[0].data.dtype.type(group.get("eps", 1.0)) != 0
