"""The declaration of a primitive: its body and rules, and the general path that a call of it takes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy

from ..runtime import arrays
from ..runtime.arrays import Array
from . import operands
from .mode import is_grad_enabled, recorders
from .plan import CONSTANT, Plan, Rule, attach_outputs
from .return_types import return_type
from .variable import LEAF, Variable, View, box, counter_of, fresh_node, new_node

_ndarray = numpy.ndarray

interceptors: list[Callable] = []  # asked before an operation of anything but plain host arrays is run; see batching
# NumPy's words, which PyTorch accepts as well
NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "x1": "input", "x2": "other"}

_bodies_kept = threading.Lock()

LARGE = 1 << 16  # elements; from here on two threads are quicker than one at arithmetic on two arrays

registry: dict[str, Any] = {}  # name -> the public function of each primitive


class Declaration:
    """Everything known of one primitive."""

    def __init__(
        self,
        body: Callable,
        *,
        promote: str,
        keep: tuple,
        outputs: tuple,
        residuals: tuple,
        view: bool,
        holomorphic: bool,
    ) -> None:
        if promote not in ("numeric", "float", "none"):
            raise TypeError(f"{body.__name__}: promote is 'numeric', 'float' or 'none', got {promote!r}")
        self.name = body.__name__
        self.function: Callable  # the public function, set by `primitive`
        self.body = body
        self.promote = promote
        self.keep = keep
        self.view = view
        self.holomorphic = holomorphic
        self.outputs = outputs or ("out",)
        self.multiple = return_type(self.name, *outputs) if outputs else None
        self.residuals = residuals
        self.title = "".join(part.capitalize() for part in self.name.split("_")) + "Backward0"
        code = body.__code__  # inspect.signature() of all bodies would take a twentieth of the time of the import
        names = code.co_varnames[1 : code.co_argcount]
        kinds = {name: str(body.__annotations__.get(name)) for name in names}
        self.inputs = tuple(name for name in names if "Array" in kinds[name])
        self.optional = frozenset(name for name in self.inputs if "None" in kinds[name])
        self.variadic = any("list[Array]" in kinds[name] for name in self.inputs)
        self.attributes = names[len(self.inputs) :]
        if self.inputs + self.attributes != names:
            raise TypeError(f"{self.name}: tensor inputs come before attributes")
        self.tail = body.__defaults__ or ()  # what a call with only the required arguments leaves out
        self.arity = len(names)
        self.required = self.arity - len(self.tail)
        self.defaults = dict(zip(names[self.required :], self.tail, strict=True))
        self.registry = registry
        self.rules: dict[str, Rule] = {}
        self.joint: Rule | None = None
        self.fused: dict[str, Rule] = {}
        self.fused_takes: dict[str, Callable[[Array], bool] | None] = {}  # which gradients `fused` is for; None: all
        self.kernels: dict[str, Callable] = {}
        self.ufunc: numpy.ufunc | None = None  # if the body is one, and it may write into its operands
        self.large: Callable | None = None  # for two host arrays or one and a number, the first array being large
        # What computes a call that compile() replays: (arrays and numbers, attributes) -> body or None. The body has to
        # take only arrays of these shapes, dtypes and strides, so that what it asks about them is asked once.
        self.replayed: Callable | None = None
        # What gives one element with the bits that the body has on large arrays: (inputs, attributes) -> (name of a
        # function in kernels/pointwise.py, arrays, numbers) or None; and of `fused`, of (g, *saved values)
        self.element: Callable | None = None
        self.element_vjp: Callable | None = None
        self.bodies: dict[type, Callable] = {}  # array class -> function of raw arrays, filled at first use
        self.plans: dict[int, Plan | None] = {}  # mask of inputs (negative: on CUDA) -> plan

    # -- rules -------------------------------------------------------------------------------------------------------

    def nameable(self) -> tuple[str, ...]:
        shapes = tuple(f"{name}_shape" for name in self.inputs)
        return (*self.inputs, *self.outputs, *shapes, *self.attributes)

    def vjp(self, **rules: Callable) -> None:
        """Give the vector-Jacobian product for inputs by name: `input=lambda F, g, <what it needs>: ...`.

        A residual that a rule asks for is None for `create_graph=True`: the tape does not know where it came from.
        """
        for name, function in rules.items():
            if name not in self.inputs:
                raise TypeError(f"{self.name}: no input {name!r} to give a rule for; inputs are {self.inputs}")
            self.rules[name] = Rule(self.name, function, 2, (*self.nameable(), *self.residuals))

    def joint_vjp(self, function: Callable) -> Callable:
        """Give one rule `(F, g, needs, ...) -> gradients of all inputs`, for inputs whose rules share work."""
        self.joint = Rule(self.name, function, 3, self.nameable())
        return function

    def fused_vjp(self, device: str, takes: Callable[[Array], bool] | None = None) -> Callable[[Callable], Callable]:
        """Register a backward kernel `(xp, g, needs, ...)` for raw arrays; it may name residuals.

        Residuals are constants to the tape, so they would make higher derivatives silently wrong: the written rule
        stays, and is what `create_graph=True` uses, and what computes if `takes(g)` is false or the kernel returns
        NotImplemented.
        """

        def register(function: Callable) -> Callable:
            self.fused[device] = Rule(self.name, function, 3, (*self.nameable(), *self.residuals))
            self.fused_takes[device] = takes
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

    def plan(self, mask: int, xp_is_numpy: bool) -> Plan | None:
        """The plan for a set of inputs that want gradients, None if no rule leads to any of them."""
        key = mask if xp_is_numpy else -mask
        if key not in self.plans:
            reached = mask & self.differentiable
            self.plans[key] = Plan(self, reached, "cpu" if xp_is_numpy else "cuda") if reached else None
        return self.plans[key]

    # -- calls -------------------------------------------------------------------------------------------------------

    def body_for(self, array: Array) -> Callable:
        """The function that computes on arrays of this array's class."""
        found = self.bodies.get(array.__class__)
        if found is None:
            xp = arrays.module_of(array)
            kernel = self.kernels.get("cpu" if xp is numpy else "cuda")
            found = kernel or functools.partial(self.body, xp)
            with _bodies_kept:
                if not recorders:  # without a body the quick paths hand every call on to the general one
                    self.bodies[array.__class__] = found
        return found

    def body_of(self, raw: tuple, attributes: tuple) -> Callable:
        """The function that computes on arrays of the forms of these."""
        first = next(x for x in raw if isinstance(x, _ndarray))
        if self.large is not None and first.size >= LARGE:
            return self.large
        if self.replayed is None:
            return self.ufunc or self.body_for(first)
        return self.replayed(raw, attributes) or self.body_for(first)

    def portable(self) -> Callable:
        """The body on host arrays."""
        return self.ufunc or functools.partial(self.body, numpy)

    def raw(self, xp: ModuleType) -> Callable:
        """The function of raw arrays that rules see as `F.<name>`: the output only, no residuals."""
        kernel = self.kernels.get("cpu" if xp is numpy else "cuda")
        function = kernel or functools.partial(self.body, xp)
        if not self.residuals:
            return function
        return lambda *args, **kwargs: function(*args, **kwargs)[0]

    def bind(self, args: tuple, kwargs: dict) -> tuple[tuple, tuple]:
        """Inputs and attributes of a call, with names resolved and defaults filled in."""
        count = len(self.inputs)
        if not kwargs:
            if len(args) >= self.required:
                args += self.tail[len(args) - self.required :]
            if len(args) == self.arity:
                return args[:count], args[count:]
        names = (*self.inputs, *self.attributes)
        if len(args) > len(names):
            raise TypeError(f"{self.name}() takes {len(names)} arguments ({', '.join(names)}), got {len(args)}")
        named = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                name = NUMPY_NAMES.get(name, name)
            if name not in names:
                raise TypeError(f"{self.name}() has no argument {name!r}; its arguments are {', '.join(names)}")
            if name in named:
                raise TypeError(f"{self.name}() got argument {name!r} twice")
            named[name] = value
        missing = [name for name in names if name not in named and name not in self.defaults]
        if missing:
            raise TypeError(f"{self.name}() misses the arguments {', '.join(missing)}")
        values = [named[name] if name in named else self.defaults[name] for name in names]
        return tuple(values[:count]), tuple(values[count:])

    def call(self, inputs: tuple, attributes: tuple) -> Any:
        """The general path: any mix of tensors, Python numbers and None, dtypes and devices."""
        inputs = self.variadic_inputs(inputs) if self.variadic else inputs
        if recorders or not operands.uniform(self, inputs):
            inputs = operands.harmonize(self, inputs)
            for intercept in interceptors:
                result = intercept(self, inputs, attributes)
                if result is not NotImplemented:
                    return result
        raw = tuple([x.array if isinstance(x, Variable) else x for x in inputs])
        first = next(x.array for x in inputs if isinstance(x, Variable))
        try:
            if self.variadic:
                values = self.body_for(first)(list(raw), *attributes)
            else:
                values = self.body_for(first)(*raw, *attributes)
        except (ValueError, TypeError, IndexError) as error:
            raise operands.explain(self, error, raw) from None
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
        known: tuple = tuple(CONSTANT if x is not None and not isinstance(x, Variable) else x for x in inputs)
        if self.variadic:
            known, raw = (known,), (raw,)
        result = results[0] if self.multiple is None else results
        saved, versions = plan.save(*known, result, *raw, *values, *attributes)
        node = new_node(plan, edges, saved, results[0].array.shape, versions)
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


def start_recording(intercept: Callable) -> None:
    """Show every operation of all threads to `intercept`, until stop_recording()."""
    with _bodies_kept:
        recorders.append(intercept)
        if intercept not in interceptors:
            interceptors.append(intercept)
        for function in registry.values():
            function.declaration.bodies.clear()


def stop_recording() -> None:
    recorders.pop()


def as_array(value: Any) -> Array:
    """NumPy returns scalars where it should return 0-d arrays."""
    if isinstance(value, numpy.generic):
        return numpy.asarray(value)
    return arrays.module_of(value).asarray(value)


def wrap(value: Any, like: Array) -> Any:
    """A tensor around a body's result."""
    return box(value if value.__class__ is like.__class__ else as_array(value))


def attach_view(result: Variable, parent: Variable, function: Callable, attributes: tuple) -> None:
    counter = result.counter = counter_of(parent)
    if is_grad_enabled():
        result.view_of = View(parent, function, attributes, counter[0])
