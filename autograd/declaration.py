"""The declaration of a primitive: its rules, what they need, and the general path that a call of it takes."""

from __future__ import annotations

import functools
import inspect
from collections import namedtuple
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import numpy

from ..runtime import arrays, dtypes
from ..runtime.arrays import Array
from ..runtime.device import device_of
from .mode import is_grad_enabled
from .variable import LEAF, Node, Variable, View, box, counter_of, fresh_node

_ndarray = numpy.ndarray
FLOATING = frozenset(d.numpy for d in dtypes.ALL if d.category >= 2)

registry: dict[str, Any] = {}  # name -> the public function of each primitive


class Plan:
    """What backward does for one primitive and one set of inputs that want gradients."""

    __slots__ = ("counted", "declaration", "fused", "joint", "multiple", "names", "needs", "rules", "save",
                 "saves_memory", "saves_out", "simple", "title")  # fmt: skip

    def __init__(self, declaration: Declaration, mask: int, device: str) -> None:
        self.declaration = declaration
        self.title = declaration.title
        self.multiple = declaration.multiple is not None
        self.needs = tuple(bool(mask >> i & 1) for i in range(len(declaration.inputs)))
        rules = declaration.rules_for(self.needs)
        joint, fused = declaration.joint, declaration.fused.get(device)
        used = [rule for rule in (*(rule for _, rule in rules), joint, fused) if rule is not None]
        self.names = names = list(dict.fromkeys(name for rule in used for name in rule.names))
        self.save = declaration.picker(names)
        self.rules = tuple((i, rule.function, rule.picker(names)) for i, rule in rules)
        self.joint = joint and (joint.function, joint.picker(names) or _nothing)
        self.fused = fused and (fused.function, fused.picker(names) or _nothing)
        self.simple = bool(rules) and fused is None and not declaration.variadic
        self.counted = tuple(i for i, name in enumerate(declaration.inputs) if name in names)
        self.saves_out = any(name in names for name in declaration.outputs)
        self.saves_memory = bool(self.counted) or self.saves_out

    def versions(self, inputs: tuple, result: Variable) -> tuple:
        """The change counters of all tensors whose memory is saved, with their counts now."""
        pairs = []
        for i in self.counted if not self.declaration.variadic else range(len(inputs)):
            if isinstance(inputs[i], Variable):
                counter = counter_of(inputs[i])
                pairs.append((counter, counter[0]))
        if self.saves_out:
            counter = counter_of(result)
            pairs.append((counter, counter[0]))
        return tuple(pairs)

    def gradients(self, F: Any, g: Any, saved: tuple, create_graph: bool) -> Iterable:
        """The gradients of all inputs in order, for the rules that are not one per input."""
        if self.fused is not None and not create_graph:
            function, pick = self.fused
            return function(F.xp, g, self.needs, *pick(saved))
        if self.joint is not None:
            function, pick = self.joint
            return function(F, g, self.needs, *pick(saved))
        if self.declaration.variadic:
            ((_, rule, pick),) = self.rules
            return rule(F, g, *(pick or _nothing)(saved))
        found = {i: rule(F, g, *(pick or _nothing)(saved)) for i, rule, pick in self.rules}
        return [found.get(i) for i in range(len(self.needs))]

    def lift(self, node: Node) -> tuple:
        """The saved values as tensors in their places on the tape, for `create_graph=True`."""
        declaration = self.declaration
        lifted: list = []
        for name, value in zip(self.names, node.saved or (), strict=True):
            if name in declaration.inputs and declaration.variadic:
                value = [_on_tape(v, edge) for v, edge in zip(value, node.edges, strict=True)]
            elif name in declaration.inputs:
                value = _on_tape(value, node.edges[declaration.inputs.index(name)])
            elif name in declaration.outputs:
                index = declaration.outputs.index(name)
                value = box(value)
                if not self.multiple:
                    value.node = node
                elif value.array.dtype in FLOATING:
                    value.node = Node(Pick(self.title, index), (node,), (), value.array.shape, ())
            lifted.append(value)
        return tuple(lifted)


def _nothing(saved: tuple) -> tuple:
    return ()


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
    """A written derivative and the names it asks for."""

    def __init__(self, declaration: Declaration, function: Callable, leading: int, legal: tuple[str, ...]) -> None:
        self.function = function
        self.names = tuple(inspect.signature(function).parameters)[leading:]
        unknown = [name for name in self.names if name not in legal]
        if unknown:
            raise TypeError(f"{declaration.name}: a rule asks for {unknown}; it may ask for {sorted(legal)}")

    def picker(self, saved: list[str]) -> Callable | None:
        """A function from the saved tuple to this rule's arguments; None if it takes none."""
        if not self.names:
            return None
        if list(self.names) == saved:
            return tuple  # of a tuple: itself
        return eval(f"lambda s: ({', '.join(f's[{saved.index(n)}]' for n in self.names)},)")


class Declaration:
    """Everything known of one primitive."""

    def __init__(
        self, body: Callable, *, promote: str, keep: tuple, outputs: tuple, residuals: tuple, view: bool
    ) -> None:
        if promote not in ("numeric", "float", "none"):
            raise TypeError(f"{body.__name__}: promote is 'numeric', 'float' or 'none', got {promote!r}")
        self.name = body.__name__
        self.function: Callable  # the public function, set by `primitive`
        self.body = body
        self.promote = promote
        self.keep = keep
        self.view = view
        self.outputs = outputs or ("out",)
        self.multiple = namedtuple(self.name, outputs) if outputs else None
        self.residuals = residuals
        self.title = "".join(part.capitalize() for part in self.name.split("_")) + "Backward0"
        parameters = list(inspect.signature(body).parameters.values())[1:]
        self.inputs = tuple(p.name for p in parameters if "Array" in str(p.annotation))
        self.variadic = any("list[Array]" in str(p.annotation) for p in parameters)
        attributes = parameters[len(self.inputs) :]
        if self.inputs != tuple(p.name for p in parameters[: len(self.inputs)]):
            raise TypeError(f"{self.name}: tensor inputs come before attributes")
        self.attributes = tuple(p.name for p in attributes)
        self.defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self.rules: dict[str, Rule] = {}
        self.joint: Rule | None = None
        self.fused: dict[str, Rule] = {}
        self.kernels: dict[str, Callable] = {}
        self.bodies: dict[type, Callable] = {}  # array class -> function of raw arrays, filled at first use
        self.plans: dict[int, Plan | None] = {}  # mask of inputs (negative: on CUDA) -> plan

    # -- rules -------------------------------------------------------------------------------------------------------

    def nameable(self) -> tuple[str, ...]:
        shapes = tuple(f"{name}_shape" for name in self.inputs)
        return (*self.inputs, *self.outputs, *shapes, *self.attributes)

    def vjp(self, **rules: Callable) -> None:
        """Give the vector-Jacobian product for inputs by name: `input=lambda F, g, <what it needs>: ...`."""
        for name, function in rules.items():
            if name not in self.inputs:
                raise TypeError(f"{self.name}: no input {name!r} to give a rule for; inputs are {self.inputs}")
            self.rules[name] = Rule(self, function, 2, self.nameable())

    def joint_vjp(self, function: Callable) -> Callable:
        """Give one rule `(F, g, needs, ...) -> gradients of all inputs`, for inputs whose rules share work."""
        self.joint = Rule(self, function, 3, self.nameable())
        return function

    def fused_vjp(self, device: str) -> Callable[[Callable], Callable]:
        """Register a backward kernel `(xp, g, needs, ...)` for raw arrays; it may name residuals, rules may not.

        Residuals are constants to the tape, so they would make higher derivatives silently wrong: the written rule
        stays, and is what `create_graph=True` uses.
        """

        def register(function: Callable) -> Callable:
            self.fused[device] = Rule(self, function, 3, (*self.nameable(), *self.residuals))
            return function

        return register

    def kernel(self, device: str) -> Callable[[Callable], Callable]:
        """Register a faster function of raw arrays beside the portable body, for "cpu" or "cuda"."""

        def register(function: Callable) -> Callable:
            self.kernels[device] = function
            return function

        return register

    def rules_for(self, needs: tuple[bool, ...]) -> list[tuple[int, Rule]]:
        if self.joint is not None:
            return []
        return [(i, self.rules[n]) for i, n in enumerate(self.inputs) if needs[i] and n in self.rules]

    @property
    def differentiable(self) -> int:
        """The bit mask of inputs that have a rule; the others cut the graph."""
        return sum(1 << i for i, name in enumerate(self.inputs) if self.joint is not None or name in self.rules)

    def picker(self, names: list[str]) -> Callable:
        """A function from (*inputs, *outputs, *residuals, *attributes) to the tuple of the named values."""
        everything = (*self.inputs, *self.outputs, *self.residuals, *self.attributes)
        terms = []
        for name in names:
            source = name.removesuffix("_shape")
            if name in everything:
                terms.append(name)
            elif self.variadic:
                terms.append(f"[x.shape for x in {source}]")
            else:
                terms.append(f"{source}.shape")
        return eval(f"lambda {', '.join(everything)}: ({''.join(t + ',' for t in terms)})")

    def plan(self, mask: int, xp_is_numpy: bool) -> Plan | None:
        """The plan for a set of inputs that want gradients, None if no rule leads to any of them."""
        key = mask if xp_is_numpy else -mask
        found = self.plans.get(key, False)
        if found is False:
            reached = mask & self.differentiable
            found = Plan(self, reached, "cpu" if xp_is_numpy else "cuda") if reached else None
            self.plans[key] = found
        return found

    # -- calls -------------------------------------------------------------------------------------------------------

    def body_for(self, array: Array) -> Callable:
        """The function that computes on arrays of this array's class."""
        found = self.bodies.get(array.__class__)
        if found is None:
            xp = arrays.module_of(array)
            kernel = self.kernels.get("cpu" if xp is numpy else "cuda")
            found = self.bodies[array.__class__] = kernel or functools.partial(self.body, xp)
        return found

    def raw(self, xp: ModuleType) -> Callable:
        """The function of raw arrays that rules see as `F.<name>`: the output only, no residuals."""
        kernel = self.kernels.get("cpu" if xp is numpy else "cuda")
        function = kernel or functools.partial(self.body, xp)
        if not self.residuals:
            return function
        return lambda *args, **kwargs: function(*args, **kwargs)[0]

    def bind(self, args: tuple, kwargs: dict) -> tuple[tuple, tuple]:
        """Inputs and attributes of a call, with names resolved and defaults filled in."""
        names = (*self.inputs, *self.attributes)
        if len(args) > len(names):
            raise TypeError(f"{self.name}() takes {len(names)} arguments ({', '.join(names)}), got {len(args)}")
        named = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                raise TypeError(f"{self.name}() has no argument {name!r}; its arguments are {', '.join(names)}")
            if name in named:
                raise TypeError(f"{self.name}() got argument {name!r} twice")
            named[name] = value
        missing = [name for name in names if name not in named and name not in self.defaults]
        if missing:
            raise TypeError(f"{self.name}() misses the arguments {', '.join(missing)}")
        values = [named[name] if name in named else self.defaults[name] for name in names]
        return tuple(values[: len(self.inputs)]), tuple(values[len(self.inputs) :])

    def call(self, inputs: tuple, attributes: tuple) -> Any:
        """The general path: any mix of tensors, Python numbers and None, dtypes and devices."""
        inputs = self.variadic_inputs(inputs) if self.variadic else inputs
        inputs = self.harmonize(inputs)
        raw = tuple(x.array if isinstance(x, Variable) else x for x in inputs)
        first = next(a for a in raw if isinstance(a, numpy.ndarray) or hasattr(a, "__cuda_array_interface__"))
        try:
            if self.variadic:
                values = self.body_for(first)(list(raw), *attributes)
            else:
                values = self.body_for(first)(*raw, *attributes)
        except (ValueError, TypeError, IndexError) as error:
            raise self.explain(error, raw) from None
        if self.multiple is None and not self.residuals:
            values = (values,)
        results = [wrap(value, first) for value in values[: len(self.outputs)]]
        if self.view and arrays.shares_memory(results[0].array, first):
            attach_view(results[0], inputs[0], self.function, attributes)
        if is_grad_enabled():
            outs = (*(result.array for result in results), *values[len(self.outputs) :])
            self.record(results, outs, inputs, raw, attributes)
        return results[0] if self.multiple is None else self.multiple(*results)

    def variadic_inputs(self, inputs: tuple) -> tuple:
        tensors = inputs[0]
        if isinstance(tensors, Variable) or not isinstance(tensors, list | tuple):
            raise TypeError(f"{self.name}(): expected a list or tuple of tensors, got {type(tensors).__name__}")
        if not tensors:
            raise RuntimeError(f"{self.name}(): expected a non-empty list of tensors")
        for i, tensor in enumerate(tensors):
            if not isinstance(tensor, Variable):
                raise TypeError(f"{self.name}(): expected a tensor at position {i}, got {type(tensor).__name__}")
        return tuple(tensors)

    def record(self, results: list, values: tuple, inputs: tuple, raw: tuple, attributes: tuple) -> None:
        """Put the outputs of one call on the tape; `values` are their arrays and the residuals."""
        edges, mask = self.edges(inputs)
        plan = self.plan(mask, values[0].__class__ is _ndarray) if mask else None
        if plan is None:
            return
        saved = plan.save(*((raw,) if self.variadic else raw), *values, *attributes)
        node = Node(plan, edges, saved, results[0].array.shape, plan.versions(inputs, results[0]))
        if self.multiple is None:
            results[0].node = node
        else:
            attach_outputs(node, results)

    def edges(self, inputs: tuple) -> tuple[tuple, int]:
        """For each input where its gradient goes, and the bit mask of those that want one."""
        edges: list = []
        mask = 0
        for i, x in enumerate(inputs):
            node = None
            if isinstance(x, Variable):
                node = x.node if x.view_of is None else fresh_node(x)
                if node is not None:
                    mask |= 1 << (0 if self.variadic else i)
                    if node is LEAF:
                        node = x
            edges.append(node)
        return tuple(edges), mask

    # -- operands ----------------------------------------------------------------------------------------------------

    def harmonize(self, inputs: tuple) -> tuple:
        """Bring operands to one device and, where the declaration says so, to one dtype."""
        for name, x in zip(self.names_of(inputs), inputs, strict=True):
            if not (x is None or isinstance(x, Variable | bool | int | float | complex)):
                return self.harmonize(self.adopt(inputs, name, x))
        tensors = [x for x in inputs if isinstance(x, Variable)]
        if not tensors:
            raise TypeError(f"{self.name}(): expected a tensor among the arguments {', '.join(self.inputs)}")
        home = self.common_device(tensors)
        if home is not None:
            inputs = tuple(registry["move"](x, home, device_of(x.array)) if isinstance(x, Variable) else x for x in inputs)
        return inputs if self.promote == "none" else self.promoted(inputs)

    def promoted(self, inputs: tuple) -> tuple:
        """The operands with their common dtype; numbers stay numbers, which take the dtype of what they meet."""
        moving = [i for i, name in enumerate(self.names_of(inputs)) if name not in self.keep and inputs[i] is not None]
        tensors = [inputs[i] for i in moving if isinstance(inputs[i], Variable)]
        scalars = [inputs[i] for i in moving if not isinstance(inputs[i], Variable)]
        target = self.common_dtype(tensors, scalars)
        result = list(inputs)
        for i in moving:
            x = inputs[i]
            if not isinstance(x, Variable):
                if not tensors:
                    like = next(x for x in inputs if isinstance(x, Variable))
                    result[i] = box(arrays.module_of(like.array).asarray(x, target.numpy))
            elif x.array.dtype != target.numpy:
                result[i] = registry["cast"](x, target, dtypes.of(x.array.dtype))
        return tuple(result)

    def names_of(self, inputs: tuple) -> tuple[str, ...]:
        return self.inputs * len(inputs) if self.variadic else self.inputs

    def adopt(self, inputs: tuple, name: str, value: Any) -> tuple:
        """Accept a NumPy number or array as an operand, as PyTorch does; refuse anything else."""
        if isinstance(value, numpy.generic):
            accepted = value.item()
        elif isinstance(value, numpy.ndarray):
            accepted = wrap(value, value)
        else:
            raise TypeError(f"{self.name}(): argument {name!r} must be a tensor, got {type(value).__name__}")
        return tuple(accepted if x is value else x for x in inputs)

    def common_device(self, tensors: list) -> Any:
        """None if all tensors are on one device; the device to go to if the strays are zero-dimensional on the CPU."""
        devices = {device_of(x.array) for x in tensors}
        if len(devices) == 1:
            return None
        homes = {device_of(x.array) for x in tensors if x.array.ndim or device_of(x.array).type != "cpu"}
        if len(homes) == 1:
            return homes.pop()
        raise RuntimeError(
            f"{self.name}(): expected all tensors on one device, found {' and '.join(sorted(map(str, devices)))}; "
            "move them with .to(device)"
        )

    def common_dtype(self, tensors: list, scalars: list) -> dtypes.dtype:
        full = [dtypes.of(x.array.dtype) for x in tensors if x.array.ndim]
        zero_dim = [dtypes.of(x.array.dtype) for x in tensors if not x.array.ndim]
        target = dtypes.result_type(full, zero_dim, scalars)
        if self.promote == "float" and target.category < 2:
            return dtypes.get_default_dtype()
        return target

    def explain(self, error: Exception, raw: tuple) -> Exception:
        """The exception PyTorch users expect for what NumPy refused, naming the operation and its operands."""
        operands = ", ".join(
            f"{name} {dtypes.of(a.dtype).name}{list(a.shape)}"
            for name, a in zip(self.names_of(raw), raw, strict=False)
            if hasattr(a, "dtype")
        )
        kind = IndexError if isinstance(error, IndexError) else RuntimeError
        return kind(f"{self.name}(): {error} ({operands})")


def as_array(value: Any, like: Array) -> Array:
    """NumPy returns scalars where it should return 0-d arrays."""
    return arrays.module_of(like).asarray(value)


def wrap(value: Any, like: Array) -> Any:
    """A tensor around a body's result."""
    return box(value if value.__class__ is like.__class__ else as_array(value, like))


def attach_view(result: Variable, parent: Variable, function: Callable, attributes: tuple) -> None:
    counter = result.counter = counter_of(parent)
    if is_grad_enabled():
        result.view_of = View(parent, function, attributes, counter[0])


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
            result.node = Node(Pick(node.plan.title, i), (node,), (), result.array.shape, ())
