"""The forward half of a replay: what a call must look like, and the recorded operations on its arrays."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Collection
from typing import Any

import numpy

from ..runtime import dtypes, tree
from ..runtime.callers import generated
from ..runtime.device import get_default_device
from ..runtime.rng import default_generator
from .fusion import Forward
from .mode import is_grad_enabled, recorders, recording_now
from .recording import Recording, Step, Traced, Unknown, Unrecordable
from .region import Region
from .variable import LEAF, Variable, box, counter_of


def replay(record: Recording, leaves: tuple, output: Any) -> Callable[..., Any]:
    """A function of the flattened arguments that does what was recorded, or returns MISSED.

    Args:
        leaves: the arguments of the recorded call; tensors among them are those of `record.arguments` in order.
        output: what the function returned, with tensors of Traced arrays.
    """
    items, structure = tree.flatten(output)
    outputs: list[tuple[str, Any]] = []  # each tensor once
    ids: dict[int, int] = {}
    terms: list[str] = []
    scope: dict[str, Any] = {}
    for item in items:
        if isinstance(item, Unknown):
            terms.append(item._text)
        elif not isinstance(item, Variable):
            if not isinstance(item, int | float | bool | str | type(None)):
                raise Unrecordable(f"it returns a {type(item).__name__}")
            scope[f"o{len(terms)}"] = item
            terms.append(f"o{len(terms)}")
        elif id(item) in record.twins:
            terms.append("X" + record.twins[id(item)])
        elif item.array.__class__ is not Traced or item.array.name[0] != "v":
            raise Unrecordable("it returns a tensor that it did not compute, or another one over the same memory")
        else:
            if id(item) not in ids:
                ids[id(item)] = len(outputs)
                outputs.append((item.array.name, record.real_of(item)))
            terms.append(f"R{ids[id(item)]}")
    scope["bare"] = structure is tree.LEAF
    _refuse_shared_memory(record, outputs)
    for root in record.roots:
        if id(root) not in ids:
            ids[id(root)] = len(outputs)
            outputs.append((root.array.name, record.real_of(root)))
    region = Region(record, outputs)
    text = _text(region, record, leaves, items, terms, ids, scope)
    scope = {**region.scope, **scope, "structure": structure, "recorders": recorders, "recording_now": recording_now,
             "default_dtype": dtypes.get_default_dtype, "default_device": get_default_device,
             "unflatten": tree.unflatten, "box": box, "default_generator": default_generator}
    scope["moved"] = functools.partial(_moved, scope)
    exec(generated(text), scope)
    run = scope["run"]
    region.forget()
    return run


def _moved(scope: dict, array: Any, name: str, kind: type, shape: tuple, dtype: numpy.dtype, strides: tuple) -> bool:
    """Whether a tensor's memory has another form than the known one; if not, it is the known one from now on."""
    if array.shape != shape or array.dtype is not dtype or array.strides != strides or type(array) is not kind:
        return True
    scope[name] = weakref.ref(array)
    return False


def _refuse_shared_memory(record: Recording, outputs: list) -> None:
    known = [*record.arguments, *(t for _, t in record.externals.values())]
    for i, (_, real) in enumerate(outputs):
        others = [*known, *(t for _, t in outputs[:i])]
        if any(numpy.may_share_memory(real.array, other.array) for other in others):
            raise Unrecordable("it returns a view of another tensor's memory")


class _Writer:
    """The lines of a function that is being written, and the values that they name."""

    def __init__(self, header: str, scope: dict[str, Any]) -> None:
        self.lines = [header]
        self.scope = scope

    def emit(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    def miss_if(self, condition: str) -> None:
        self.emit(f"if {condition}: return MISSED")

    def constant(self, value: Any) -> str:
        """The name of a value."""
        name = f"q{len(self.scope)}"
        self.scope[name] = value
        return name


def _text(region: Region, record: Recording, leaves: tuple, items: list, terms: list, ids: dict,
          scope: dict) -> str:  # fmt: skip
    writer = _Writer("def run(leaves):", scope)
    _guard_surroundings(writer, len(leaves))
    _guard_arguments(writer, leaves)
    for name, tensor in region.leaves.items():
        _guard_tensor(writer, region, name, tensor)
    _body(writer, region, record)
    _results(writer, region, record)
    _later_calls(writer, region, record, ids)
    for unknown in record.kept_unknown(items):
        writer.emit(f"{writer.constant(unknown)}._value = {unknown._text}")
    if scope.get("bare"):
        writer.emit(f"return {terms[0]}")
    else:
        writer.emit(f"return unflatten([{', '.join(terms)}], structure)")
    return "\n".join(writer.lines)


# -- what a call must look like ----------------------------------------------------------------------------------------


def _guard_surroundings(writer: _Writer, count: int) -> None:
    writer.miss_if(f"len(leaves) != {count} or node_observers or is_grad_enabled() is not {is_grad_enabled()}")
    writer.miss_if(f"default_dtype() is not {writer.constant(dtypes.get_default_dtype())}")
    writer.emit("where = default_device()")
    device = writer.constant(get_default_device())
    writer.miss_if(f"where is not {device} and where != {device}")
    writer.miss_if("recorders and recording_now.get() is not None")


def _guard_arguments(writer: _Writer, leaves: tuple) -> None:
    """Other arguments than tensors are the same, and the same tensors are given twice."""
    names: list[str] = []
    places: dict[int, str] = {}  # id of an argument -> its name; functions may ask whether two are the same one
    for i, leaf in enumerate(leaves):
        known = places.get(id(leaf)) if isinstance(leaf, Variable) else f"y{i}"
        names.append(known if known is not None and known not in names else f"z{i}")
        if isinstance(leaf, Variable) and known is None:
            names[-1] = places[id(leaf)] = f"Xx{len(places)}"
    if names:
        writer.emit("".join(n + ", " for n in names) + " = leaves")
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, Variable):
            exact = type(leaf) is float  # 0.0 is equal to -0.0
            seen = f"repr(y{i}) != {writer.constant(repr(leaf))}" if exact else f"y{i} != {writer.constant(leaf)}"
            writer.miss_if(f"type(y{i}) is not {writer.constant(type(leaf))} or {seen}")
        elif names[i][0] == "z":
            writer.miss_if(f"z{i} is not {places[id(leaf)]}")
    distinct = list(places.values())
    for i, name in enumerate(distinct):
        for other in distinct[:i]:
            writer.miss_if(f"{name} is {other}")


def _guard_tensor(writer: _Writer, region: Region, name: str, tensor: Variable) -> None:
    """A tensor has the form of the recorded one, and wants a gradient if that did."""
    array = tensor.array
    kind, shape, dtype = (writer.constant(x) for x in (type(array), array.shape, array.dtype))
    steps = writer.constant(array.strides)  # by which operations return views rather than copies
    outside = name[0] == "p"  # a tensor that the function refers to
    if outside:
        region.scope["X" + name] = tensor
        region.scope["W" + name] = weakref.ref(array)
        writer.emit(f"{name} = X{name}.array")
        moved = f"moved({name}, 'W{name}', {kind}, {shape}, {dtype}, {steps})"
        writer.miss_if(f"{name} is not W{name}() and {moved}")
    else:
        writer.miss_if(f"type(X{name}) is not {writer.constant(type(tensor))}")
        writer.emit(f"{name} = X{name}.array")
        writer.miss_if(f"type({name}) is not {kind} or {name}.shape != {shape} or {name}.dtype is not {dtype}")
        writer.miss_if(f"{name}.strides != {steps}")
    if outside and tensor.node is LEAF and tensor.view_of is None:
        writer.emit(f"n_{name} = X{name}.node")
        writer.miss_if(f"n_{name} is not LEAF")
    elif is_grad_enabled() or name in region.edge_names:
        writer.emit(f"n_{name} = X{name}.node if X{name}.view_of is None else fresh_node(X{name})")
        writer.miss_if(f"n_{name} {'is' if tensor.node is not None else 'is not'} None")


# -- the operations ----------------------------------------------------------------------------------------------------


class _Lives:
    """How long the results of steps are needed.

    Attributes:
        keep: those that are needed when all steps are done.
    """

    def __init__(self, region: Region, record: Recording) -> None:
        self._region, self._record = region, record
        self.keep = {*region.saved, *record.needed, *(name for name, _ in region.outputs)}
        self._last: dict[str, int] = {}
        for k, step in enumerate(record.steps):
            self._last.update(dict.fromkeys(_names(step), k))
        self._aliases: dict[str, set[str]] = {}
        for name, owner in record.owners.items():
            self._aliases.setdefault(owner, set()).add(name)

    def _ends(self, name: str, k: int) -> bool:
        return self._last[name] <= k and name not in self.keep

    def ending(self, k: int) -> list[str]:
        """What nobody needs after a step, of what it uses or makes."""
        return [name for name in _names(self._record.steps[k]) if name[0] in "vr" and self._ends(name, k)]

    def place(self, k: int) -> list[str]:
        """The operand of a ufunc whose memory its result can have: one that nobody needs any more."""
        record, region = self._record, self._region
        step, real = record.steps[k], record.steps[k].results[0].array
        for name in step.inputs if isinstance(step.body, numpy.ufunc) and real.ndim else ():
            if record.owners.get(name) == name and name in record.writable:
                array = region.array_of(name)
                alike = (array.shape, array.dtype, array.strides) == (real.shape, real.dtype, real.strides)
                if alike and all(self._ends(other, k) for other in self._aliases[name]):
                    return [name]
        return []


def _names(step: Step) -> dict[str, None]:
    """What a step uses and makes."""
    return dict.fromkeys((*step.operands(), *step.outputs, *step.residuals))


def _body(writer: _Writer, region: Region, record: Recording) -> None:
    lives = _Lives(region, record)
    if record.draws:
        writer.emit("stream = default_generator().numpy().bit_generator")
        writer.emit("before = stream.state")
    writer.emit("try:")
    writer.emit("pass", 2)
    _checks(writer, record, region.leaves)
    chains = Forward(record, region.leaves, lives.keep).chains()
    k = 0
    while k < len(record.steps):
        fused = chains.get(k)
        if fused is None:
            _step(writer, record, lives, k, 2)
            k += 1
            continue
        writer.emit(f"found = {writer.constant(fused.chain)}({', '.join(fused.inputs)})", 2)
        writer.emit("if found is None:", 2)
        for i in range(k, fused.end):
            _step(writer, record, lives, i, 3)
        writer.emit("else:", 2)
        writer.emit(f"{''.join(n + ', ' for n in fused.outputs)} = found", 3)
        _forget(writer, [n for i in range(k, fused.end) for n in lives.ending(i)], 3)
        writer.emit("found = None", 2)
        k = fused.end
    writer.emit("except Exception:")
    if record.draws:
        writer.emit("stream.state = before", 2)
    writer.emit("return MISSED", 2)


def _checks(writer: _Writer, record: Recording, names: Collection[str]) -> None:
    """What the function made sure of the values of arrays; of what chains compute there is nothing."""
    for check, name, values in record.checks:
        if name in names:
            writer.emit(f"if not {writer.constant(check)}({name}, *{writer.constant(values)}): raise ValueError", 2)


def _step(writer: _Writer, record: Recording, lives: _Lives, k: int, depth: int) -> None:
    step = record.steps[k]
    d = step.declaration
    body = writer.constant(step.body)
    given = [f"[{', '.join(step.inputs)}]"] if d.variadic else list(step.inputs)
    given += [_attribute(writer, a) for a in step.attributes]
    given += lives.place(k)
    results = [*step.outputs, *step.residuals]
    target = results[0] if d.multiple is None and not d.residuals else "".join(r + ", " for r in results)
    writer.emit(f"{target} = {body}({', '.join(given)})", depth)
    for name, real in zip(step.outputs, step.results, strict=True):
        if not real.array.ndim:
            writer.emit(f"if type({name}) is not kind: {name} = as_array({name})", depth)
    _checks(writer, record, step.outputs)
    _forget(writer, lives.ending(k), depth)


def _forget(writer: _Writer, names: list[str], depth: int = 1) -> None:
    if names:
        writer.emit(" = ".join(names) + " = None", depth)


def _attribute(writer: _Writer, value: Any) -> str:
    if value.__class__ is Traced:
        return value.name
    return repr(value) if type(value) in (int, bool, type(None)) else writer.constant(value)


# -- the results -------------------------------------------------------------------------------------------------------


def _results(writer: _Writer, region: Region, record: Recording) -> None:
    emit = writer.emit
    for i, (name, _) in enumerate(region.outputs):
        emit(f"R{i} = new(BOX[0])")
        emit(f"R{i}.array = {name}")
        emit(f"R{i}.node = R{i}.view_of = R{i}.counter = None")
    if not region.differentiable:
        return
    counters = dict.fromkeys(n for n in region.saved if n in region.leaves)
    real = {id(counter_of(t)): name for name, t in region.leaves.items()}
    own = {}
    for i, (name, _) in enumerate(region.outputs):
        own[name] = f"R{i}"
    versions = []
    for name in region.saved:
        if name in region.producer:
            step = record.steps[region.producer[name]]
            counter = step.results[step.outputs.index(name)].counter
            if counter is not None and id(counter) in real:
                counters[real[id(counter)]] = None
        if name in own:
            versions.append(f"{own[name]}.counter or counter_of({own[name]})")
    versions = [f"X{n}.counter or counter_of(X{n})" for n in counters] + versions
    several = len(region.differentiable) > 1
    emit("node = Node()")
    emit("node.number = next_number()")
    emit("node.plan = region")
    emit(f"node.edges = ({''.join(f'X{n} if n_{n} is LEAF else n_{n}, ' for n in region.edge_names)})")
    emit(f"node.saved = ({''.join(n + ', ' for n in region.saved)})")
    emit(f"node.versions = ({''.join(v + ', ' for v in versions)})")
    emit("node.hooks = None")
    if not several:
        (i,) = region.differentiable
        emit(f"node.shape = {region.outputs[i][0]}.shape")
        emit(f"R{i}.node = node")
        return
    shapes = tuple((r.array.shape, r.array.dtype, type(r.array)) for r in
                   (region.outputs[i][1] for i in region.differentiable))  # fmt: skip
    emit(f"node.shape = {writer.constant(shapes)}")
    for j, i in enumerate(region.differentiable):
        emit(f"R{i}.node = new_node(Pick(region.title, {j}), (node,), (), {region.outputs[i][0]}.shape, ())")


def _later_calls(writer: _Writer, region: Region, record: Recording, ids: dict) -> None:
    if record.later_calls:  # or nothing would be freed as backward goes
        _forget(writer, [name for name in region.saved if name not in region.leaves and name not in record.needed])

    def text(x: Any) -> str:
        if not isinstance(x, Variable) or x.array.__class__ is not Traced:
            return writer.constant(x)
        if id(x) in ids:
            return f"R{ids[id(x)]}"
        return f"box({x.array.name})" if x.array.name[0] == "v" else f"X{x.array.name}"

    for call in record.later_calls:
        writer.emit(f"{call.result} = {writer.constant(call.function)}({', '.join(map(text, call.arguments))})")
