"""Which operations of a recorded call become one pass over memory.

A Trace notes elementwise operations, told apart by the names of the functions that compute one element. Steps of a
forward are noted as they are; a rule of a backward is run once on Values, which stand for its arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy

from .declaration import registry


class NotElementwise(Exception):
    """An operation cannot become part of a chain."""


class Instruction(NamedTuple):
    """One elementwise operation of a chain."""

    function: str  # of one element; see Declaration.element
    inputs: tuple[str, ...]
    numbers: tuple[float, ...]
    output: str
    dtype: numpy.dtype  # of the output


class Value:
    """What stands for an array while a rule is noted: it knows a shape and a dtype, and arithmetic."""

    def __init__(self, trace: Trace, name: str, shape: tuple, dtype: numpy.dtype) -> None:
        self.trace, self.name, self.shape, self.dtype = trace, name, shape, dtype

    def __neg__(self) -> Value:
        return self.trace.F.neg(self)

    def __add__(self, other: Any) -> Value:
        return self.trace.F.add(self, other)

    def __radd__(self, other: Any) -> Value:
        return self.trace.F.add(other, self)

    def __sub__(self, other: Any) -> Value:
        return self.trace.F.sub(self, other)

    def __rsub__(self, other: Any) -> Value:
        return self.trace.F.sub(other, self)

    def __mul__(self, other: Any) -> Value:
        return self.trace.F.mul(self, other)

    def __rmul__(self, other: Any) -> Value:
        return self.trace.F.mul(other, self)

    def __truediv__(self, other: Any) -> Value:
        return self.trace.F.true_divide(self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return self.trace.F.true_divide(other, self)

    def __getattr__(self, name: str) -> Any:
        raise NotElementwise(f"it asks for {name}")

    def __lt__(self, other: Any) -> Value:
        return self.trace.F.lt(self, other)

    def __le__(self, other: Any) -> Value:
        return self.trace.F.le(self, other)

    def __gt__(self, other: Any) -> Value:
        return self.trace.F.gt(self, other)

    def __ge__(self, other: Any) -> Value:
        return self.trace.F.ge(self, other)

    def _refuse(self, *args: Any) -> Any:
        raise NotElementwise("it asks for values")

    __bool__ = __eq__ = __ne__ = _refuse  # type: ignore[assignment]
    __hash__ = object.__hash__
    __array_ufunc__ = None  # NumPy's arrays and numbers leave it to the methods above


class _Noting:
    """The namespace `F` of rules that are noted."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __getattr__(self, name: str) -> Callable:
        if name not in registry:
            raise NotElementwise(f"it asks for {name}")
        declaration = registry[name].declaration
        return lambda *operands, **named: self._trace.call(declaration, *declaration.bind(operands, named))


class Trace:
    """The elementwise operations of one chain, on arrays of one shape."""

    def __init__(self, shape: tuple) -> None:
        self.shape = shape
        self.F = _Noting(self)
        self.instructions: list[Instruction] = []
        self.values: dict[str, Value] = {}

    def input(self, name: str, shape: tuple, dtype: numpy.dtype) -> Value:
        """An array from outside, of the chain's shape or repeated along it."""
        if name not in self.values:
            if not (shape == self.shape or backend[0].repeats(shape, self.shape)):
                raise NotElementwise(f"{name} is no row of the others")
            self.values[name] = Value(self, name, shape, dtype)
        return self.values[name]

    def call(self, declaration: Any, inputs: tuple, attributes: tuple, output: str | None = None) -> Value:
        """Note the call of a primitive on values and numbers."""
        if declaration.element is None or not all(type(x) in (Value, int, float) for x in inputs):
            raise NotElementwise(declaration.name)
        return self.note(declaration.element(inputs, attributes), output)

    def note(self, found: tuple | None, output: str | None = None) -> Value:
        """Note what Declaration.element or .element_vjp found, under the name of the output if it has one."""
        if not found or not any(x.shape == self.shape for x in found[1]):
            raise NotElementwise("it is computed in another way")
        function, operands, numbers, *cast_to = found
        dtype = cast_to[0] if cast_to else backend[0].dtype_of(function, [x.dtype for x in operands], numbers)
        if dtype is None:
            raise NotElementwise("it is computed in another way for these dtypes")
        output = output or f"w{len(self.instructions)}"
        self.instructions.append(Instruction(function, tuple(x.name for x in operands), numbers, output, dtype))
        self.values[output] = Value(self, output, self.shape, dtype)
        return self.values[output]

    def add_rows(self, candidates: dict[str, tuple[str, tuple]]) -> dict[str, tuple]:
        """Let the chain make sums over leading dimensions, from name -> (value, shape of the sum); of those of rows of
        one width. Returns the shapes of the sums it makes."""
        rows = [value.shape for value in self.values.values() if value.shape != self.shape]
        widths = {name: backend[0].sums_rows(self.shape, shape, self.values[value].dtype, rows)
                  for name, (value, shape) in candidates.items()}  # fmt: skip
        width = max(widths.values(), default=0)
        sums = [name for name in candidates if widths[name] == width > 0]
        for name in sums:
            value = candidates[name][0]
            place = next(i for i, step in enumerate(self.instructions) if step.output == value)
            dtype = self.values[value].dtype
            self.instructions.insert(place + 1, Instruction("add_rows", (value,), (width,), name, dtype))
        return {name: candidates[name][1] for name in sums}

    def chain(self, outputs: list[str], sums: dict[str, tuple] | None = None) -> tuple[Callable, list[str]] | None:
        """What computes the outputs and the sums, whose shapes are given, and the names of the arrays that it takes;
        None if one pass spares nothing."""
        sums = sums or {}
        needed, steps = {*outputs, *sums}, []
        for step in reversed(self.instructions):
            if step.output in needed:
                needed.update(step.inputs)
                steps.append(step)
        if len(steps) < 2:
            return None
        dtypes = {step.output: step.dtype for step in steps}
        inputs = {name: self.values[name].shape for name in sorted(needed - dtypes.keys())}
        dtypes.update((name, self.values[name].dtype) for name in inputs)
        return backend[0].Chain(steps[::-1], inputs, outputs, sums, self.shape, dtypes), list(inputs)


class Fused(NamedTuple):
    """Steps of a forward that are computed at once."""

    end: int  # the step after the last
    chain: Callable
    inputs: list[str]
    outputs: list[str]
    instructions: list[Instruction]


class Forward:
    """Finds the chains among the steps of a recorded call."""

    def __init__(self, record: Any, leaves: dict[str, Any], keep: set[str]) -> None:
        """leaves: the tensors from outside; keep: results that are needed after the call."""
        self.steps = record.steps
        self.numbers = record.constants
        self.arrays = {name: tensor.array for name, tensor in leaves.items()}
        self.checked = {name for _, name, _ in record.checks}
        self.keep = keep
        self.uses: dict[str, int] = {}  # name -> the last step that it is an input of, or that it comes from
        for k, step in enumerate(self.steps):
            self.arrays.update(zip(step.outputs, (r.array for r in step.results), strict=True))
            self.uses.update(dict.fromkeys((*step.inputs, *step.outputs), k))

    def chains(self) -> dict[int, Fused]:
        """What is computed at once, by the number of its first step."""
        found: dict[int, Fused] = {}
        start, trace = 0, None
        for k in range(len(self.steps) + 1):
            grown = trace if k < len(self.steps) and trace is not None and self._noted(trace, self.steps[k]) else None
            if grown is None:
                if trace is not None:
                    self._finish(found, trace, start, k)
                start, trace = k, self._begun(k)
        return found

    def _begun(self, k: int) -> Trace | None:
        if k == len(self.steps):
            return None
        array = self.steps[k].results[0].array
        if not backend or not backend[0].takes(array):
            return None
        trace = Trace(array.shape)
        return trace if self._noted(trace, self.steps[k]) else None

    def _noted(self, trace: Trace, step: Any) -> bool:
        name, array = step.outputs[0], step.results[0].array
        if array.shape != trace.shape or not array.flags.c_contiguous or name in self.checked or step.residuals:
            return False
        try:
            inputs = tuple(self._operand(trace, x) for x in step.inputs)
            return trace.call(step.declaration, inputs, step.attributes, name).dtype == array.dtype
        except NotElementwise:
            return False

    def _operand(self, trace: Trace, name: str) -> Any:
        if name in self.numbers:
            return self.numbers[name]
        return trace.input(name, self.arrays[name].shape, self.arrays[name].dtype)

    def _finish(self, found: dict[int, Fused], trace: Trace, start: int, end: int) -> None:
        made = [step.outputs[0] for step in self.steps[start:end]]
        outputs = [name for name in made if name in self.keep or self.uses[name] >= end]
        chain = trace.chain(outputs)
        if chain is not None:
            found[start] = Fused(end, *chain, outputs, trace.instructions)


class Again:
    """Results of a chain of the forward that backward computes again, which takes less time than to keep them."""

    def __init__(self, instructions: list[Instruction], results: list[str]) -> None:
        self.instructions, self.results = instructions, results
        steps = self.steps_to(results, ())
        made = {step.output for step in steps}
        self.sources = sorted({name for step in steps for name in step.inputs} - made)

    def steps_to(self, results: list[str], known: Collection[str]) -> list[Instruction]:
        """What computes the results from those that are known."""
        needed, steps = set(results).difference(known), []
        for step in reversed(self.instructions):
            if step.output in needed:
                steps.append(step)
                needed.update(name for name in step.inputs if name not in known)
        return steps[::-1]


def computed_again(fused: Fused, saved: Collection[str], hidden: Callable[[str], bool], only: set[str]) -> Again | None:
    """What of a chain's results backward shall compute again instead of keeping it.

    Args:
        saved: what a node keeps for backward.
        hidden: whether nobody outside can change an array: further ones may then be kept to compute from.
        only: results that are needed for nothing else.
    """
    results = [name for name in fused.outputs if name in saved and name in only]
    again = Again(fused.instructions, results)
    further = [name for name in again.sources if name not in saved]
    return again if len(further) < len(results) and all(map(hidden, further)) else None


class FusedBackward(NamedTuple):
    """Steps of a backward that are computed at once."""

    steps: list[int]
    chain: Callable
    inputs: list[str]
    outputs: list[str]
    # (input of a step, edge, gradient, whether nobody else has it) of what goes to leaves, or is to be summed first
    passed: list[tuple[str, Any, str, bool]]
    totals: dict[str, str]  # variable of a step further on -> its gradient
    summed: list[str]  # inputs from outside that several gradients were summed for, as if none had reached them before


class Backward:
    """Finds a chain among the steps of a backward, the last one first; `g{k}` is the gradient of step k's result."""

    def __init__(self, region: Any, known: set[str], sure: set[str], sums: bool) -> None:
        """known: the variables that may hold a gradient; sure: those that do; sums: whether to fill `summed`."""
        self.region, self.known, self.sure, self.sums = region, known, sure, sums
        self.summed: dict[str, None] = {}
        self.passed: list[tuple[str, Any, Value, bool]] = []
        self.totals: dict[str, Value] = {}

    def chain(self, steps: list[int]) -> FusedBackward | None:
        """The chain of as many of the steps as can be computed at once."""
        first = self.region.steps[steps[0]].results[0].array
        if not backend or not backend[0].takes(first):
            return None
        self.trace = trace = Trace(first.shape)
        done = []
        for k in steps:
            before = list(trace.instructions), list(self.passed), dict(self.totals), dict(self.summed)
            try:
                self._note(k)
            except NotElementwise:
                trace.instructions, self.passed, self.totals, self.summed = before
                break
            done.append(k)
        made = {step.output for step in trace.instructions}
        smaller = {f"s{j}": (value.name, shape) for j, (name, _, value, _) in enumerate(self.passed)
                   if (shape := self.region.shape_of(name)) != trace.shape and value.name in made}  # fmt: skip
        sums = trace.add_rows(smaller)
        passed = [(name, edge, f"s{j}" if f"s{j}" in sums else value.name, fresh)
                  for j, (name, edge, value, fresh) in enumerate(self.passed)]  # fmt: skip
        totals = {target: value.name for target, value in self.totals.items()}
        wanted = {value for _, _, value, _ in passed}.union(totals.values())
        outputs = [step.output for step in trace.instructions if step.output in wanted.difference(sums)]
        found = trace.chain(outputs, sums)
        if found is None:
            return None
        return FusedBackward(done, *found, [*outputs, *sums], passed, totals, list(self.summed))

    def _note(self, k: int) -> None:
        step = self.region.steps[k]
        variable, array = f"g{k}", step.results[0].array
        if step.declaration.multiple is not None or array.shape != self.trace.shape:
            raise NotElementwise("it has several results, or one of another shape")
        if variable in self.totals:
            g = self.totals.pop(variable)
        elif variable in self.sure:
            g = self.trace.input(variable, array.shape, array.dtype)
        else:
            raise NotElementwise("it may have no gradient")
        for i, value in self._gradients(step, g):
            if type(value) is not Value or value.shape != self.trace.shape:
                raise NotElementwise("a rule returns something else")
            self._pass(step.inputs[i], step.node.edges[i], value, value is not g)

    def _gradients(self, step: Any, g: Value) -> list[tuple[int, Any]]:
        plan, declaration = step.node.plan, step.declaration
        if plan.takes is not None and declaration.element_vjp is not None:
            saved = [self._saved(step, name) for name in declaration.fused["cpu"].names]
            return [(0, self.trace.note(declaration.element_vjp(g, *saved)))]
        if not plan.simple or plan.takes is not None or any(writes for *_, writes in plan.rules):
            raise NotElementwise(f"the rule of {declaration.name}")
        rules = [(i, declaration.rules[declaration.inputs[i]]) for i, *_ in plan.rules]
        return [(i, rule.function(self.trace.F, g, *(self._saved(step, name) for name in rule.names)))
                for i, rule in rules]  # fmt: skip

    def _saved(self, step: Any, name: str) -> Any:
        """What a rule is given under a name: a Value for an array, other things as they are."""
        region, declaration = self.region, step.declaration
        for source in region.sources(step, name):
            if source in region.record.constants:
                return region.record.constants[source]
            if source in region.again:
                self._again(source, region.again[source])
            return self._array(source)
        if name in declaration.attributes:
            return step.attributes[declaration.attributes.index(name)]
        return region.shape_of(step.inputs[declaration.inputs.index(name.removesuffix("_shape"))])

    def _array(self, name: str) -> Value:
        if name in self.trace.values:
            return self.trace.values[name]
        array = self.region.array_of(name)
        return self.trace.input(name, array.shape, array.dtype)

    def _again(self, name: str, again: Again) -> None:
        """Compute a result of the forward again, as a part of this chain."""
        for step in again.steps_to([name], self.trace.values):
            found = step.function, tuple(map(self._array, step.inputs)), step.numbers, step.dtype
            self.trace.note(found, step.output)

    def _pass(self, name: str, edge: Any, value: Value, fresh: bool) -> None:
        if name in self.region.leaves:
            same = self.region.shape_of(name) == self.trace.shape  # sums of rows are to be added as such
            for i, (other, _, sum_, _) in enumerate(self.passed if self.sums and same else ()):
                if other == name:
                    self.summed[name] = None
                    self.passed[i] = (name, edge, sum_ + value, True)
                    return
        else:
            k, i = self.region.place(edge)
            target = f"g{k}"
            ours = i is None and self.region.shape_of(name) == self.trace.shape
            if ours and target in self.totals:
                self.totals[target] = self.totals[target] + value
                return
            if ours and target in self.sure:
                self.totals[target] = self.trace.input(target, self.trace.shape, value.dtype) + value
                return
            if ours and target not in self.known:
                self.totals[target] = value
                return
        self.passed.append((name, edge, value, fresh))


backend: list[Any] = []  # the module that runs chains, with Chain, takes() and repeats(); see tensor/ops/chains.py
