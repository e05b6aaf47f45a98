"""What backward does for a call: rules, and which saved values they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..runtime import dtypes
from ..runtime.callers import generated
from .variable import Node, Variable, box, counter_of, new_node

FLOATING = frozenset(d.numpy for d in dtypes.ALL if d.category >= 2)
# dtypes that survive beside a Python number; of bfloat16 NumPy makes float32
WEAK_NUMBERS = FLOATING - {dtypes.bfloat16.numpy}


class Plan:
    """What backward does for one primitive and one set of inputs that want gradients."""

    __slots__ = ("declaration", "fused", "holomorphic", "joint", "multiple", "names", "needs", "rules", "save",
                 "simple", "takes", "title")  # fmt: skip

    def __init__(self, declaration: Any, mask: int, device: str) -> None:
        self.declaration = declaration
        self.title = declaration.title
        self.multiple = declaration.multiple is not None
        self.holomorphic = declaration.holomorphic and not self.multiple
        self.needs = tuple(bool(mask >> i & 1) for i in range(len(declaration.inputs)))
        rules = declaration.rules_for(self.needs)
        joint, fused = declaration.joint, declaration.fused.get(device)
        used = [rule for rule in (*(rule for _, rule in rules), joint, fused) if rule is not None]
        self.names = names = list(dict.fromkeys(name for rule in used for name in rule.names))
        self.save = _saver(declaration, names)
        self.rules = tuple((i, rule.function, rule.picker(names), rule.writer()) for i, rule in rules)
        self.joint = joint and (joint.function, joint.picker(names) or _nothing)
        self.fused = fused and (fused.function, fused.picker(names) or _nothing)
        self.takes = declaration.fused_takes.get(device)  # which gradients the fused kernel is for; None: all
        self.simple = bool(rules) and (fused is None or self.takes is not None) and not declaration.variadic

    def gradients(
        self, F: Any, g: Any, saved: tuple, create_graph: bool, wanted: Sequence[bool] | None = None
    ) -> Iterable:
        """The gradients of all inputs in order, for the rules that are not one per input.

        `wanted` says for which inputs somebody asks, if not for all that require a gradient.
        """
        needs = self.needs
        if wanted is not None and not self.declaration.variadic:
            needs = tuple(need and want for need, want in zip(needs, wanted, strict=True))
        if self.fused is not None and not create_graph and (self.takes is None or self.takes(g)):
            function, pick = self.fused
            found = function(F.xp, g, needs, *pick(saved))
            if found is not NotImplemented:
                return found
        if self.joint is not None:
            function, pick = self.joint
            return function(F, g, needs, *pick(saved))
        if self.declaration.variadic:
            ((_, rule, pick, _),) = self.rules
            return rule(F, g, *(pick or _nothing)(saved))
        gradients = {i: rule(F, g, *(pick or _nothing)(saved)) for i, rule, pick, _ in self.rules if needs[i]}
        return [gradients.get(i) for i in range(len(self.needs))]

    def lift(self, node: Node, saved: tuple) -> tuple:
        """The saved values as tensors in their places on the tape, for `create_graph=True`."""
        declaration = self.declaration
        lifted: list = []
        for name, value in zip(self.names, saved, strict=True):
            if name in declaration.residuals:
                value = None
            elif name in declaration.inputs and declaration.variadic:
                value = [_on_tape(v, edge) for v, edge in zip(value, node.edges, strict=True)]
            elif name in declaration.inputs:
                value = _on_tape(value, node.edges[declaration.inputs.index(name)])
            elif name in declaration.outputs:
                index = declaration.outputs.index(name)
                value = box(value)
                if not self.multiple:
                    value.node = node
                elif value.array.dtype in FLOATING:
                    value.node = new_node(Pick(self.title, index), (node,), (), value.array.shape, ())
            lifted.append(value)
        return tuple(lifted)


def _nothing(saved: tuple) -> tuple:
    return ()


def _saver(declaration: Any, names: list[str]) -> Callable:
    """A function (*inputs, result, *arrays of inputs, *outputs, *residuals, *attributes) -> what a node keeps: the
    named values, and the counters of the tensors whose memory that is. A list of inputs is one argument, and so are
    several results."""
    everything = (*declaration.inputs, *declaration.outputs, *declaration.residuals, *declaration.attributes)
    values, counters = [], []
    for name in names:
        source = name.removesuffix("_shape")
        if name in everything:
            values.append(name)
        elif declaration.variadic:
            values.append(f"[x.shape for x in {source}]")
        else:
            values.append(f"{source}.shape")
        if name in declaration.inputs and declaration.variadic:
            counters.append("*[x.counter or counter_of(x) for x in INPUTS]")
        elif name in declaration.inputs:
            tensor = f"INPUT{declaration.inputs.index(name)}"
            counter = f"{tensor}.counter"
            if name in declaration.optional:
                counter = f"getattr({tensor}, 'counter', CONSTANT)"
            counters.append(f"{counter} or counter_of({tensor})")
    for i, output in enumerate(declaration.outputs):
        if output in names:
            result = "RESULT" if declaration.multiple is None else f"RESULT[{i}]"
            counters.append(f"{result}.counter or counter_of({result})")
    kept = [f"({''.join(term + ', ' for term in terms)})" for terms in (values, counters)]
    tensors = ["INPUTS"] if declaration.variadic else [f"INPUT{i}" for i in range(len(declaration.inputs))]
    parameters = ", ".join((*tensors, "RESULT", *everything))
    return eval(f"lambda {parameters}: ({', '.join(kept)})", {"CONSTANT": CONSTANT.counter, "counter_of": counter_of})


class _Constant:
    """Stands for a number among the inputs of a call: its counter never changes."""

    def __init__(self) -> None:
        self.counter = [0, None, -1]


CONSTANT = _Constant()


def _on_tape(value: Any, edge: Any) -> Any:
    """A saved input as the tensor it was; numbers and None stay what they are."""
    if isinstance(edge, Variable):
        return edge
    if not hasattr(value, "dtype"):
        return value
    tensor = box(value)
    tensor.node = edge
    return tensor


class Rule:
    """A written derivative and the names it asks for.

    It `writes` if it has a keyword `into=None`: an array for the gradient of its input, of the same shape, which it
    may fill and return.
    """

    def __init__(self, name: str, function: Callable, leading: int, legal: tuple[str, ...]) -> None:
        self.function = function
        code = function.__code__  # inspect.signature() of all rules would cost a tenth of the time of the import
        self.names = code.co_varnames[leading : code.co_argcount]
        self.writes = "into" in code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
        unknown = [name for name in self.names if name not in legal]
        if unknown:
            raise TypeError(f"{name}: a rule asks for {unknown}; it may ask for {sorted(legal)}")

    def picker(self, saved: list[str]) -> Callable | None:
        """A function from the saved tuple to this rule's arguments; None if it takes none."""
        if not self.names:
            return None
        if list(self.names) == saved:
            return tuple  # of a tuple: itself
        return eval(f"lambda s: ({', '.join(f's[{saved.index(n)}]' for n in self.names)},)")


    def writer(self) -> Callable | None:
        """A function (F, g, this rule's arguments, into) that calls it, None if it does not write; `*arguments` beside
        a keyword would cost a quarter of a small product."""
        if not self.writes:
            return None
        arguments = "".join(f"s[{i}], " for i in range(len(self.names)))
        text = f"lambda F, g, s, into: rule(F, g, {arguments}into=into)"
        return eval(generated(text, "eval"), {"rule": self.function})


class Pick:
    """The plan of the node that stands for one of several outputs: hands its gradient to the common node."""

    __slots__ = ("index", "title")

    def __init__(self, title: str, index: int) -> None:
        self.title = title
        self.index = index


def attach_outputs(node: Node, results: list, differentiable: list[bool] | None = None) -> None:
    """Hang several outputs on one node; it gets a tuple of gradients, zeros for outputs that got none."""
    node.shape = tuple((r.array.shape, r.array.dtype, r.array.__class__) for r in results)
    for i, result in enumerate(results):
        if result.array.dtype in FLOATING and (differentiable is None or differentiable[i]):
            result.node = new_node(Pick(node.plan.title, i), (node,), (), result.array.shape, ())
