"""The replay of a recorded call: one function forward, one node on the tape, one function backward.

Both are straight-line Python, generated from the recorded steps: the same bodies and rules on the same values in the
same order as eagerly, so the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..runtime.callers import generated
from . import engine
from .declaration import as_array
from .engine import _fill_slot as fill_slot
from .fusion import Again, Backward, Forward, FusedBackward, computed_again
from .mode import is_grad_enabled, node_observers
from .plan import Pick, Plan
from .primitive import RAW_NUMPY
from .recording import Recording, Step, Traced, Unrecordable
from .variable import BOX, LEAF, Node, any_leaf, counter_of, fresh_node, new_node, next_number

MISSED = object()  # what a replay returns for a call it was not recorded for


def fitted(gradient: Any, shape: tuple) -> Any:
    """A gradient summed over the dimensions that its forward was broadcast along."""
    engine._check_broadcast(gradient.shape, shape)
    return RAW_NUMPY.sum_to_size(gradient, shape)


def unreached(run: Any, edge: Any) -> bool:
    """Whether no gradient has reached a node or a leaf in this pass, nor a leaf before."""
    if edge.__class__ is Node:
        return edge.number not in run.pending
    return edge.gradient is None and edge not in getattr(run, "held", ())


class _Passage:
    """The plan of a region's node once the nodes within took its place: hands gradients on to those of its outputs."""

    multiple = simple = holomorphic = False

    def __init__(self, title: str, several: bool) -> None:
        self.title = title
        self.several = several

    def lift(self, node: Node, saved: tuple) -> tuple:
        return saved

    def gradients(self, F: Any, g: Any, saved: tuple, create_graph: bool) -> Any:
        return g if self.several else [g]


class Region(engine.Compound):
    """The plan of the node that stands for all of a recorded call."""

    title = "CompiledBackward0"
    multiple = simple = holomorphic = False

    def __init__(self, record: Recording, outputs: list[tuple[str, Any]]) -> None:
        """outputs: name and real tensor of each output tensor; results of steps only."""
        self.record = record
        self.steps = record.steps
        self.scope: dict[str, Any] = dict(record.constants)
        self.outputs = outputs
        self.differentiable = [i for i, (_, real) in enumerate(outputs) if real.node is not None]
        self.leaves = {f"x{i}": t for i, t in enumerate(record.arguments)}
        self.leaves.update(record.externals.values())
        self.places = {}  # id of a node -> (step, which of its outputs or None)
        self.producer: dict[str, int] = {}
        for k, step in enumerate(self.steps):
            for i, (name, real) in enumerate(zip(step.outputs, step.results, strict=True)):
                self.producer[name] = k
                if real.node is not None:
                    self.places[id(real.node)] = (k, None if step.declaration.multiple is None else i)
        self.reached = self._reached()
        self.saved, self.edge_names = self._kept()
        self.again: dict[str, Again] = {}  # by the names of the results
        self._choose_again()
        self.scope.update(
            region=self, Node=Node, new_node=new_node, Pick=Pick, LEAF=LEAF, BOX=BOX, new=object.__new__,
            as_array=as_array,
            counter_of=counter_of, fresh_node=fresh_node, is_grad_enabled=is_grad_enabled, MISSED=MISSED,
            node_observers=node_observers, next_number=next_number, fitted=fitted, fill=fill_slot, F=RAW_NUMPY,
            unreached=unreached, kind=type(self.steps[0].results[0].array) if self.steps else None,
        )  # fmt: skip
        self.alone: set[str] = set()  # what steps need that are never a part of a chain
        self.backward = self._backward()
        if not self.alone.isdisjoint(self.again):
            self.saved, self.edge_names = self._kept()
            self.again = {}
            self.backward = self._backward()

    # -- what backward needs -----------------------------------------------------------------------------------------

    def place(self, node: Node) -> tuple[int, int | None]:
        if id(node) not in self.places:
            raise Unrecordable(f"a {node.plan.title} lies on the way that cannot be replayed")
        return self.places[id(node)]

    def _reached(self) -> list[int]:
        """The steps on the way back from the outputs, the last one first."""
        found: set[int] = set()
        stack = [self.place(self.outputs[i][1].node)[0] for i in self.differentiable]
        while stack:
            k = stack.pop()
            if k in found:
                continue
            found.add(k)
            node = self.steps[k].node
            if node.saved.__class__ is not tuple:
                raise Unrecordable("what it saves for backward is kept in another form (checkpoint)")
            if node.plan.__class__ is not Plan or node.hooks is not None:
                raise Unrecordable("hooks on its tensors" if node.hooks else f"{node.plan.title} cannot be replayed")
            stack += [self.place(edge)[0] for edge, name in zip(node.edges, self.steps[k].inputs, strict=True)
                      if edge is not None and name not in self.leaves]  # fmt: skip
        for step in self.steps:
            if any(r.node is not None and r.node.__class__ is Node and r.node.hooks for r in step.results):
                raise Unrecordable("hooks on its tensors")
        return sorted(found, reverse=True)

    def _kept(self) -> tuple[list[str], list[str]]:
        saved: dict[str, None] = {}
        edges: dict[str, None] = {}
        for k in self.reached:
            step = self.steps[k]
            for name, edge in zip(step.inputs, step.node.edges, strict=True):
                if edge is not None and name in self.leaves:
                    edges[name] = None
            for name in step.node.plan.names:
                for text in self.sources(step, name):
                    if text not in self.scope:
                        saved[text] = None
        return list(saved), list(edges)

    def _choose_again(self) -> None:
        """Find what backward computes again, and keep what it is computed from instead."""
        returned = {name for name, _ in self.outputs}
        returned.update(self.record.needed)
        forward = Forward(self.record, self.leaves, {*self.saved, *returned})
        owners = self.record.owners
        outside = {*self.leaves, *(owners[name] for name, _ in self.outputs)}

        def hidden(name: str) -> bool:
            return name in self.producer and owners[name] not in outside

        for fused in forward.chains().values():
            only = {name for name in fused.outputs if name not in returned and forward.uses[name] < fused.end}
            again = computed_again(fused, self.saved, hidden, only)
            if again is not None:
                self.again.update(dict.fromkeys(again.results, again))
        sources = [name for again in self.again.values() for name in again.sources]
        self.saved = [name for name in dict.fromkeys((*self.saved, *sources)) if name not in self.again]

    def _computing(self, again: Again) -> str:
        """The name of a function of what `again` is computed from, by the operations one by one."""
        steps = [self.steps[self.producer[step.output]] for step in again.steps_to(again.results, ())]
        lines = [f"def again({', '.join(again.sources)}):"]
        for step in steps:
            given = ", ".join((*step.inputs, *map(self.constant, step.attributes)))
            lines.append(f"    {step.outputs[0]} = {self.constant(step.body)}({given})")
        exec(generated("\n".join((*lines, f"    return {_targets(again.results)}"))), self.scope)
        return self.constant(self.scope.pop("again"))

    def sources(self, step: Step, name: str) -> list[str]:
        """The names in the replay of the arrays that a plan saves under a name; constants get one."""
        d = step.declaration
        if name in d.inputs:
            return list(step.inputs) if d.variadic else [step.inputs[d.inputs.index(name)]]
        if name in d.outputs:
            return [step.outputs[d.outputs.index(name)]]
        if name in d.residuals:
            return [step.residuals[d.residuals.index(name)]]
        if name in d.attributes and (value := step.attributes[d.attributes.index(name)]).__class__ is Traced:
            return [value.name]
        return []

    def saved_text(self, step: Step) -> str:
        """The saved tuple of one step as an expression."""
        terms = []
        d = step.declaration
        for name in step.node.plan.names:
            sources = self.sources(step, name)
            if sources:
                terms.append(f"[{', '.join(sources)}]" if d.variadic and name in d.inputs else sources[0])
                continue
            if name in d.attributes:
                value = step.attributes[d.attributes.index(name)]
            else:
                source = name.removesuffix("_shape")
                shapes = [self.shape_of(n) for n in step.inputs]
                value = shapes if d.variadic else shapes[d.inputs.index(source)]
            terms.append(self.constant(value))
        return f"({''.join(t + ', ' for t in terms)})"

    def constant(self, value: Any) -> str:
        name = f"k{len(self.scope)}"
        self.scope[name] = value
        return name

    def array_of(self, name: str) -> Any:
        """The array of the recorded call that a name stands for, or a constant."""
        if name in self.leaves:
            return self.leaves[name].array
        if name in self.producer:
            step = self.steps[self.producer[name]]
            return step.results[step.outputs.index(name)].array
        return self.scope[name]

    def shape_of(self, name: str) -> Any:
        return getattr(self.array_of(name), "shape", None)

    # -- backward ----------------------------------------------------------------------------------------------------

    def _backward(self) -> Callable:
        """Generate `back(run, g, edges, saved, simple)`, which hands gradients to the node's edges."""
        lines = ["def back(run, g, edges, saved, simple):"]

        def emit(text: str, depth: int = 1) -> None:
            lines.append("    " * depth + text)

        emit(f"{_targets(self.saved)} = saved.pop()" if self.saved else "saved.pop()")
        if self.edge_names:
            emit(f"{_targets(['e_' + n for n in self.edge_names])} = edges")
        emit("give = run.pass_to")
        sure: set[str] = set()
        known: set[str] = set()
        places = [self.place(self.outputs[i][1].node) for i in self.differentiable]
        for k in self.reached:
            step = self.steps[k]
            if step.declaration.multiple is not None:
                emit(f"g{k} = [None] * {len(step.outputs)}")
            else:
                emit(f"g{k} = None")
        for j, (k, i) in enumerate(places):
            value = "g" if len(places) == 1 else f"g[{j}]"
            target = f"g{k}" if i is None else f"g{k}[{i}]"
            emit(f"{target} = {value}")
            known.add(target)
            if len(places) == 1:
                sure.add(target)
        last_use = self._last_uses()
        position = 0
        while position < len(self.reached):
            position += self._next(emit, self.reached[position:], known, sure, last_use)
        exec(generated("\n".join(lines)), self.scope)
        return self.scope["back"]

    def _next(self, emit: Any, rest: list[int], known: set, sure: set, last_use: dict) -> int:
        """Emit the backward of the next step, or of as many as make a chain; how many these are."""
        fused = Backward(self, known, sure, True).chain(rest)
        if fused is None:
            self._step(emit, 1, rest[0], known, sure, last_use)
            self.alone.update(self._needs(rest[0]))
            return 1
        steps, totals = fused.steps, fused.totals
        emit("found = None")
        if fused.summed:
            fresh = " and ".join(f"unreached(run, e_{name})" for name in fused.summed)
            emit(f"if {fresh}:")
            self._fused(emit, fused, set(known), set(sure), last_use)
            fused = Backward(self, known, sure, False).chain(steps)
        if fused is not None:
            emit("if found is None:")
            self._fused(emit, fused, set(known), set(sure), last_use)
        emit("if found is None:")
        needed = [n for k in steps for n in self._needs(k) if n in self.again]
        for again in {id(self.again[n]): self.again[n] for n in needed}.values():
            emit(f"{_targets(again.results)} = {self._computing(again)}({', '.join(again.sources)})", 2)
        for k in steps:
            self._step(emit, 2, k, known, sure, last_use)
        known.update(totals)
        sure.update(totals)
        emit("found = None")
        return len(steps)

    def _fused(self, emit: Any, fused: FusedBackward, known: set, sure: set, last_use: dict) -> None:
        """Emit the backward of several steps at once; `found` stays None where it cannot be done."""
        emit(f"found = {self.constant(fused.chain)}({', '.join(fused.inputs)})", 2)
        emit("if found is not None:", 2)
        emit(f"{_targets(fused.outputs)} = found", 3)
        for name, edge, value, fresh in fused.passed:
            emit(f"t = {value}", 3)
            self._pass(emit, 3, name, edge, "t", str(fresh), known, sure, True)
        if fused.totals:
            emit(f"{_targets(list(fused.totals))} = {_targets(list(fused.totals.values()))}", 3)
        known.update(fused.totals)
        sure.update(fused.totals)
        dead = [name for k in fused.steps for name in (f"g{k}", *last_use.get(k, []))]
        emit(" = ".join(["t", *fused.outputs, *dead]) + " = None", 3)

    def _step(self, emit: Any, depth: int, k: int, known: set, sure: set, last_use: dict) -> None:
        """Emit the backward of one step."""
        step = self.steps[k]
        plan = step.node.plan
        variable = f"g{k}"
        several = step.declaration.multiple is not None
        end = depth
        if several:
            emit(f"if any(x is not None for x in {variable}):", depth)
            shapes = self.constant(step.node.shape)
            depth += 1
            emit(f"{variable} = run.fill_outputs({shapes}, {variable})", depth)
        elif variable not in sure:
            emit(f"if {variable} is not None:", depth)
            depth += 1
        saved = self.saved_text(step)
        if plan.simple and plan.takes is None:
            for i, rule, _, writes in plan.rules:
                self._simple(emit, depth, step, variable, i, rule, writes, known, sure, depth == end)
        else:
            names = [f"t{i}" for i in range(len(step.inputs))]
            gradients = self.constant(plan.gradients)
            emit(f"{_targets(names)} = {gradients}(F, {variable}, {saved}, False)", depth)
            for i, edge in enumerate(step.node.edges):
                if edge is not None:
                    emit(f"if t{i} is not None:", depth)
                    fresh = "False" if several else f"t{i} is not {variable}"
                    self._pass(emit, depth + 1, step.inputs[i], edge, f"t{i}", fresh, known, sure, False)
            emit(f"{' = '.join(names)} = None", depth)
        emit(" = ".join([variable, *last_use.get(k, [])]) + " = None", end)

    def _needs(self, k: int) -> list[str]:
        """The arrays that the rules of a step take, by name."""
        step = self.steps[k]
        return [source for name in step.node.plan.names for source in self.sources(step, name)]

    def _last_uses(self) -> dict[int, list[str]]:
        last: dict[str, int] = {}
        for k in self.reached:
            for name in self._needs(k):
                for source in (name, *(self.again[name].sources if name in self.again else ())):
                    if source in self.saved or source in self.again:
                        last[source] = k
        uses: dict[int, list[str]] = {}
        for name, k in last.items():
            uses.setdefault(k, []).append(name)
        return uses

    def _simple(self, emit: Any, depth: int, step: Step, g: str, i: int, rule: Callable, writes: Any, known: set,
                sure: set, certain: bool) -> None:  # fmt: skip
        plan, d = step.node.plan, step.declaration
        code = rule.__code__
        names = code.co_varnames[2 : code.co_argcount]
        saved = _terms(self.saved_text(step))
        picked = [saved[plan.names.index(n)] for n in names]
        edge = step.node.edges[i]
        function = self.constant(rule)
        call = f"{function}({', '.join(['F', g, *picked])})"
        name = step.inputs[i]
        assert not d.variadic
        if name in self.leaves and writes:
            tuple_text = f"({''.join(p + ', ' for p in picked)})"
            e = f"e_{name}"
            write = self.constant(writes)
            emit(f"if not (simple and {e}.__class__ is not Node and fill({e}, {write}, F, {g}, {tuple_text})):",
                 depth)  # fmt: skip
            emit(f"t = {call}", depth + 1)
            emit(f"give({e}, t, t is not {g})", depth + 1)
        else:
            emit(f"t = {call}", depth)
            self._pass(emit, depth, name, edge, "t", f"t is not {g}", known, sure, certain)
        emit("t = None", depth)

    def _pass(self, emit: Any, depth: int, name: str, edge: Any, value: str, fresh: str, known: set, sure: set,
              certain: bool) -> None:  # fmt: skip
        if name in self.leaves:
            emit(f"give(e_{name}, {value}, {fresh})", depth)
            return
        k, i = self.place(edge)
        target = f"g{k}" if i is None else f"g{k}[{i}]"
        shape = self.constant(self.shape_of(name))
        emit(f"if {value}.shape != {shape}:", depth)
        emit(f"{value} = fitted({value}, {shape})", depth + 1)
        if target not in known:
            emit(f"{target} = {value}", depth)
        elif target in sure:
            emit(f"{target} = {target} + {value}", depth)
        else:
            emit(f"{target} = {value} if {target} is None else {target} + {value}", depth)
        known.add(target)
        if certain:
            sure.add(target)

    def replay(self, run: Any, node: Node, g: Any) -> None:
        """Backward through the region, for the engine."""
        saved = [node.values()]
        if not run.retain_graph:
            node.saved = None
        simple = run.targets is None and not any_leaf.hooked
        self.backward(run, g, node.edges, saved, simple)

    def forget(self) -> None:
        """Keep what `expand` needs, and no tensor of the recorded call."""
        self.within = []
        for k in reversed(self.reached):
            step = self.steps[k]
            edges = [None if edge is None else name if name in self.leaves else self.place(edge)
                     for edge, name in zip(step.node.edges, step.inputs, strict=True)]  # fmt: skip
            self.within.append((k, step.node.plan, edges, compile(self.saved_text(step), "<saved>", "eval"),
                                step.node.shape))  # fmt: skip
        self.repeat = [(again.results, self.scope[self._computing(again)], again.sources)
                       for again in {id(again): again for again in self.again.values()}.values()]  # fmt: skip
        self.ends = [self.place(self.outputs[i][1].node) for i in self.differentiable]
        self.count = len(self.steps)
        del self.record, self.steps, self.outputs, self.leaves, self.places, self.producer, self.again

    def expand(self, node: Node) -> None:
        """Put the nodes that eager operations would have made in the place of the region's.

        Their numbers lie between those of the region's node and of the one before it.
        """
        scope = {**self.scope, **dict(zip(self.saved, node.values(), strict=True))}
        for results, compute, sources in self.repeat:
            scope.update(zip(results, compute(*(scope[name] for name in sources)), strict=True))
        outer = dict(zip(self.edge_names, node.edges, strict=True))
        made: dict[int, Node] = {}
        picks: dict[tuple, Node] = {}
        gap = 1 / (self.count + 1)

        def edge(place: Any) -> Any:
            if not isinstance(place, tuple):
                return outer.get(place)
            k, i = place
            if i is None:
                return made[k]
            if place not in picks:
                plan = Pick(made[k].plan.title, i)
                picks[place] = _numbered(made[k].number + gap / 2, plan, (made[k],), (), made[k].shape[i][0])
            return picks[place]

        for k, plan, edges, saved, shape in self.within:
            number = node.number - 1 + (k + 1) * gap
            made[k] = _numbered(number, plan, tuple(map(edge, edges)), eval(saved, scope), shape)
        outputs = tuple(map(edge, self.ends))
        node.plan = _Passage(self.title, len(outputs) > 1)
        node.edges, node.saved, node.versions = outputs, (), ()


def _numbered(number: Any, plan: Any, edges: tuple, saved: tuple, shape: tuple) -> Node:
    node = new_node(plan, edges, saved, shape, ())
    node.number = number
    return node


def _targets(names: list[str]) -> str:
    return "".join(n + ", " for n in names)


def _terms(text: str) -> list[str]:
    """The terms of a tuple of names and lists of names."""
    return [t for t in text[1:-1].split(", ") if t]
