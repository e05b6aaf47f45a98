"""The forward half of a replay: what a call must look like, and the recorded operations on its arrays."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import numpy

from ..runtime import dtypes, tree
from ..runtime.callers import generated
from ..runtime.device import get_default_device
from ..runtime.rng import default_generator
from .fusion import Forward
from .mode import is_grad_enabled, recorders, recording_now
from .recording import Recording, Traced, Unknown, Unrecordable
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


def _text(region: Region, record: Recording, leaves: tuple, items: list, terms: list, ids: dict,
          scope: dict) -> str:  # fmt: skip
    lines = ["def run(leaves):"]

    def emit(text: str, depth: int = 1) -> None:
        lines.append("    " * depth + text)

    def constant(value: Any) -> str:
        name = f"q{len(scope)}"
        scope[name] = value
        return name

    grad = is_grad_enabled()
    emit(f"if len(leaves) != {len(leaves)} or node_observers or is_grad_enabled() is not {grad}: return MISSED")
    emit(f"if default_dtype() is not {constant(dtypes.get_default_dtype())}: return MISSED")
    emit("where = default_device()")
    device = constant(get_default_device())
    emit(f"if where is not {device} and where != {device}: return MISSED")
    emit("if recorders and recording_now.get() is not None: return MISSED")
    names: list[str] = []
    places: dict[int, str] = {}  # id of an argument -> its name; functions may ask whether two are the same one
    for i, leaf in enumerate(leaves):
        known = places.get(id(leaf)) if isinstance(leaf, Variable) else f"y{i}"
        names.append(known if known is not None and known not in names else f"z{i}")
        if isinstance(leaf, Variable) and known is None:
            names[-1] = places[id(leaf)] = f"Xx{len(places)}"
    if names:
        emit("".join(n + ", " for n in names) + " = leaves")
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, Variable):
            seen = f"repr(y{i}) != {constant(repr(leaf))}" if type(leaf) is float else f"y{i} != {constant(leaf)}"
            emit(f"if type(y{i}) is not {constant(type(leaf))} or {seen}: return MISSED")
        elif names[i][0] == "z":
            emit(f"if z{i} is not {places[id(leaf)]}: return MISSED")
    distinct = list(places.values())
    for i, name in enumerate(distinct):
        for other in distinct[:i]:
            emit(f"if {name} is {other}: return MISSED")
    for name, tensor in region.leaves.items():
        array = tensor.array
        kind, shape, dtype = constant(type(array)), constant(array.shape), constant(array.dtype)
        steps = constant(array.strides)  # by which operations return views rather than copies
        if name[0] == "p":
            region.scope["X" + name] = tensor
            region.scope["W" + name] = weakref.ref(array)
            emit(f"{name} = X{name}.array")
            emit(f"if {name} is not W{name}() and moved({name}, 'W{name}', {kind}, {shape}, {dtype}, {steps}): "
                 "return MISSED")  # fmt: skip
        else:
            emit(f"if type(X{name}) is not {constant(type(tensor))}: return MISSED")
            emit(f"{name} = X{name}.array")
            emit(f"if type({name}) is not {kind} or {name}.shape != {shape} or {name}.dtype is not {dtype}: "
                 "return MISSED")  # fmt: skip
            emit(f"if {name}.strides != {steps}: return MISSED")
        if name[0] == "p" and tensor.node is LEAF and tensor.view_of is None:
            emit(f"n_{name} = X{name}.node")
            emit(f"if n_{name} is not LEAF: return MISSED")
        elif grad or name in region.edge_names:
            emit(f"n_{name} = X{name}.node if X{name}.view_of is None else fresh_node(X{name})")
            wants = "is" if tensor.node is not None else "is not"
            emit(f"if n_{name} {wants} None: return MISSED")
    _body(region, record, emit, constant)
    _results(region, record, emit, constant)
    _later_calls(region, record, ids, emit, constant)
    for unknown in record.kept_unknown(items):
        emit(f"{constant(unknown)}._value = {unknown._text}")
    if scope.get("bare"):
        emit(f"return {terms[0]}")
    else:
        emit(f"return unflatten([{', '.join(terms)}], structure)")
    return "\n".join(lines)



def _body(region: Region, record: Recording, emit: Callable, constant: Callable) -> None:
    keep = {*region.saved, *record.needed, *(name for name, _ in region.outputs)}
    last: dict[str, int] = {}
    for k, step in enumerate(record.steps):
        for name in (*step.operands(), *step.outputs, *step.residuals):
            last[name] = k
    if record.draws:
        emit("stream = default_generator().numpy().bit_generator")
        emit("before = stream.state")
    emit("try:")
    emit("pass", 2)

    def emit_checks(names: Any) -> None:
        for check, name, values in record.checks:
            if name in names:
                emit(f"if not {constant(check)}({name}, *{constant(values)}): raise ValueError", 2)

    emit_checks(region.leaves)
    dead = {}
    for k, step in enumerate(record.steps):
        names = dict.fromkeys((*step.operands(), *step.outputs, *step.residuals))
        dead[k] = [n for n in names if last[n] == k and n not in keep and n[0] in "vr"]

    aliases: dict[str, set[str]] = {}
    for name, owner in record.owners.items():
        aliases.setdefault(owner, set()).add(name)

    def place(k: int) -> list[str]:
        """The operand of a ufunc whose memory its result can have: one that nobody needs any more."""
        step, real = record.steps[k], record.steps[k].results[0].array
        for name in step.inputs if isinstance(step.body, numpy.ufunc) and real.ndim else ():
            if record.owners.get(name) == name and name in record.writable:
                array = region.array_of(name)
                alike = (array.shape, array.dtype, array.strides) == (real.shape, real.dtype, real.strides)
                if alike and all(last[other] <= k and other not in keep for other in aliases[name]):
                    return [name]
        return []

    def emit_step(k: int, depth: int) -> None:
        step = record.steps[k]
        d = step.declaration
        body = constant(step.body)
        given = [f"[{', '.join(step.inputs)}]"] if d.variadic else list(step.inputs)
        given += [_attribute(a, constant) for a in step.attributes]
        given += place(k)
        results = [*step.outputs, *step.residuals]
        target = results[0] if d.multiple is None and not d.residuals else "".join(r + ", " for r in results)
        emit(f"{target} = {body}({', '.join(given)})", depth)
        for name, real in zip(step.outputs, step.results, strict=True):
            if not real.array.ndim:
                emit(f"if type({name}) is not kind: {name} = as_array({name})", depth)
        emit_checks(step.outputs)
        emit_end(dead[k], depth)

    def emit_end(names: list[str], depth: int) -> None:
        if names:
            emit(" = ".join(names) + " = None", depth)

    chains = Forward(record, region.leaves, keep).chains()
    k = 0
    while k < len(record.steps):
        fused = chains.get(k)
        if fused is None:
            emit_step(k, 2)
            k += 1
            continue
        emit(f"found = {constant(fused.chain)}({', '.join(fused.inputs)})", 2)
        emit("if found is None:", 2)
        for i in range(k, fused.end):
            emit_step(i, 3)
        emit("else:", 2)
        emit(f"{''.join(n + ', ' for n in fused.outputs)} = found", 3)
        emit_end([n for i in range(k, fused.end) for n in dead[i]], 3)
        emit("found = None", 2)
        k = fused.end
    emit("except Exception:")
    if record.draws:
        emit("stream.state = before", 2)
    emit("return MISSED", 2)


def _attribute(value: Any, constant: Callable) -> str:
    if value.__class__ is Traced:
        return value.name
    return repr(value) if type(value) in (int, bool, type(None)) else constant(value)


def _results(region: Region, record: Recording, emit: Callable, constant: Callable) -> None:
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
    emit(f"node.shape = {constant(shapes)}")
    for j, i in enumerate(region.differentiable):
        emit(f"R{i}.node = new_node(Pick(region.title, {j}), (node,), (), {region.outputs[i][0]}.shape, ())")


def _later_calls(region: Region, record: Recording, ids: dict, emit: Callable, constant: Callable) -> None:
    dropped = [name for name in region.saved if name not in region.leaves and name not in record.needed]
    if record.later_calls and dropped:  # or nothing would be freed as backward goes
        emit(" = ".join(dropped) + " = None")

    def text(x: Any) -> str:
        if not isinstance(x, Variable) or x.array.__class__ is not Traced:
            return constant(x)
        if id(x) in ids:
            return f"R{ids[id(x)]}"
        return f"box({x.array.name})" if x.array.name[0] == "v" else f"X{x.array.name}"

    for call in record.later_calls:
        emit(f"{call.result} = {constant(call.function)}({', '.join(map(text, call.arguments))})")
