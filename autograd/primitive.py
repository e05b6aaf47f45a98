"""How an operation is declared, and the path that a call of it takes.

    @primitive
    def tanh(xp, input: Array):
        return xp.tanh(input)

    tanh.vjp(input=lambda F, g, out: g * (1 - out * out))

The body computes on raw arrays; `xp` is numpy or cupy. Parameters annotated `Array` are the tensor inputs and come
first (`Array | None` is optional, `list[Array]` takes a list), the rest are attributes. A rule gets the namespace
`F` to compute in, the gradient `g` of the output, and whatever its other parameters name: inputs, `out` (or the names
given as `outputs`), `<input>_shape`, attributes. What no rule names is not kept; an unknown name fails at import.

Everything that can be planned once is planned once: for each set of inputs that want a gradient a Plan holds which
rules run and one compiled expression that picks what they need.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import numpy

from ..runtime import arrays
from ..runtime.arrays import Array
from .declaration import Declaration, as_array, attach_view, registry
from .mode import is_grad_enabled
from .operands import explain
from .out import with_out, write_into
from .plan import FLOATING, WEAK_NUMBERS
from .variable import LEAF, Node, Variable, fresh_node

_new = object.__new__
_ndarray = numpy.ndarray


class Primitive(Protocol):
    """What `primitive` returns: a plain function, so that `tanh = ops.tanh` in a class body makes a method."""

    __name__: str
    declaration: Declaration

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def vjp(self, **rules: Callable) -> None: ...
    def joint_vjp(self, function: Callable) -> Callable: ...
    def fused_vjp(self, device: str, takes: Callable | None = None) -> Callable[[Callable], Callable]: ...
    def kernel(self, device: str) -> Callable[[Callable], Callable]: ...


# -- specialised call paths: Declaration.call is right for everything, these are quick for the common cases ------------


def _unary(declaration: Declaration) -> Callable:
    """One tensor, any attributes."""
    bodies, plans, attribute_count = declaration.bodies, declaration.plans, len(declaration.attributes)
    floating, is_view = declaration.promote == "float", declaration.view

    def call(input, *attributes, **named):  # type: ignore[no-untyped-def]
        if named or len(attributes) != attribute_count:
            if "out" in named:
                return write_into(named.pop("out"), call(input, *attributes, **named), declaration.name)
            (input,), attributes = declaration.bind((input, *attributes), named)
        try:
            array = input.array
            body = bodies[array.__class__]
        except (AttributeError, KeyError):
            return declaration.call((input,), attributes)
        if floating and array.dtype not in FLOATING:
            return declaration.call((input,), attributes)
        try:
            value = body(array, *attributes)
        except (ValueError, TypeError, IndexError) as error:
            raise explain(declaration, error, (array,)) from None
        result: Any = _new(Variable.box)
        result.array = value if value.__class__ is array.__class__ else as_array(value)
        if is_view and arrays.shares_memory(value, array):
            attach_view(result, input, call, attributes)
        node = input.node if input.view_of is None else fresh_node(input)
        if node is not None and is_grad_enabled():
            cpu = array.__class__ is _ndarray
            plan = plans.get(1 if cpu else -1) or declaration.plan(1, cpu)
            if plan is not None:
                result.node = Node(
                    plan,
                    (input if node is LEAF else node,),
                    plan.save(array, result.array, *attributes),
                    value.shape,
                    plan.versions((input,), result) if plan.versions is not None else (),
                )
        return result

    return call


def _binary(declaration: Declaration) -> Callable:
    """Two tensors of one dtype, or a tensor and a number; no attributes."""
    bodies, plans = declaration.bodies, declaration.plans
    floating = declaration.promote == "float"
    numeric = declaration.promote != "none"
    general = declaration.call

    def call(input, other, *, out=None):  # type: ignore[no-untyped-def]
        if out is not None:
            return write_into(out, call(input, other), declaration.name)
        x = y = None
        try:
            if other.__class__ is float or other.__class__ is int:
                a = like = input.array
                b = other
                x = input.node if input.view_of is None else fresh_node(input)
                direct = numeric and like.dtype in WEAK_NUMBERS
            elif input.__class__ is float or input.__class__ is int:
                a = input
                b = like = other.array
                y = other.node if other.view_of is None else fresh_node(other)
                direct = numeric and like.dtype in WEAK_NUMBERS
            else:
                a = like = input.array
                b = other.array
                direct = a.dtype is b.dtype and b.__class__ is a.__class__ and (not floating or a.dtype in FLOATING)
                x = input.node if input.view_of is None else fresh_node(input)
                y = other.node if other.view_of is None else fresh_node(other)
            body = bodies[like.__class__]
        except (AttributeError, KeyError):
            return general((input, other), ())
        if not direct:
            return general((input, other), ())
        try:
            value = body(a, b)
        except (ValueError, TypeError) as error:
            raise explain(declaration, error, (a, b)) from None
        result: Any = _new(Variable.box)
        result.array = value if value.__class__ is like.__class__ else as_array(value)
        if (x is not None or y is not None) and is_grad_enabled():
            mask = 3 if x is not None and y is not None else 1 if y is None else 2
            cpu = like.__class__ is _ndarray
            plan = plans.get(mask if cpu else -mask) or declaration.plan(mask, cpu)
            if plan is not None:
                result.node = Node(
                    plan,
                    (input if x is LEAF else x, other if y is LEAF else y),
                    plan.save(a, b, result.array),
                    value.shape,
                    plan.versions((input, other), result) if plan.versions is not None else (),
                )
        return result

    return call


def _several(declaration: Declaration) -> Callable:
    """Tensors (or None for optional ones) of one dtype where that matters, any attributes, one output."""
    bodies, plans, bind, general = declaration.bodies, declaration.plans, declaration.bind, declaration.call
    has_residuals, arity, count = bool(declaration.residuals), declaration.arity, len(declaration.inputs)
    required = [name not in declaration.optional for name in declaration.inputs]
    same_dtype, floating = declaration.promote != "none", declaration.promote == "float"

    def call(*args, out=None, **kwargs):  # type: ignore[no-untyped-def]
        if out is not None:
            return write_into(out, call(*args, **kwargs), declaration.name)
        if kwargs or len(args) != arity:
            inputs, attributes = bind(args, kwargs)
        else:
            inputs, attributes = args[:count], args[count:]
        raw: list = []
        edges: list = []
        mask, bit = 0, 1
        try:
            first = inputs[0].array
            kind, dtype = first.__class__, first.dtype
            body = bodies[kind]
            if floating and dtype not in FLOATING:
                return general(inputs, attributes)
            for x, needed in zip(inputs, required):  # noqa: B905  (strict costs a keyword argument per call)
                node = array = None
                if x is not None or needed:
                    array = x.array
                    if array.__class__ is not kind or (same_dtype and array.dtype is not dtype):
                        return general(inputs, attributes)
                    node = x.node if x.view_of is None else fresh_node(x)
                    if node is not None:
                        mask |= bit
                        if node is LEAF:
                            node = x
                raw.append(array)
                edges.append(node)
                bit <<= 1
        except (AttributeError, KeyError):
            return general(inputs, attributes)
        try:
            value = body(*raw, *attributes)
        except (ValueError, TypeError, IndexError) as error:
            raise explain(declaration, error, tuple(raw)) from None
        values = value if has_residuals else (value,)
        value = values[0]
        result: Any = _new(Variable.box)
        result.array = value if value.__class__ is kind else as_array(value)
        if mask and is_grad_enabled():
            cpu = kind is _ndarray
            plan = plans.get(mask if cpu else -mask) or declaration.plan(mask, cpu)
            if plan is not None:
                result.node = Node(
                    plan,
                    tuple(edges),
                    plan.save(*raw, *values, *attributes),
                    value.shape,
                    plan.versions(inputs, result) if plan.versions is not None else (),
                )
        return result

    return call


def _any(declaration: Declaration) -> Callable:
    """Everything else."""
    bind, call_bound = declaration.bind, declaration.call

    def call(*args, out=None, **kwargs):  # type: ignore[no-untyped-def]
        return write_into(out, call_bound(*bind(args, kwargs)), declaration.name)

    return call


def primitive(
    body: Callable | None = None,
    *,
    promote: str = "none",
    keep: tuple[str, ...] = (),
    outputs: tuple[str, ...] = (),
    residuals: tuple[str, ...] = (),
    view: bool = False,
    holomorphic: bool = True,
) -> Any:
    """Declare a differentiable operation; used as a decorator of its body, see the top of this file.

    Args:
        promote: "numeric" brings the tensor inputs to their common dtype, "float" also makes integers floating,
            "none" passes them as they are.
        keep: inputs that promotion leaves alone.
        outputs: names, if the body returns a tuple of outputs; calls then return a named tuple.
        residuals: names of further values that the body returns after its output, for fused backward kernels.
        view: the output may share the input's memory.
        holomorphic: on complex tensors the rules may be written as for real ones and the engine conjugates; if False,
            they see and return gradients in PyTorch's convention. (With several outputs they always do.)
    """
    options: dict[str, Any] = {
        "promote": promote, "keep": keep, "outputs": outputs, "residuals": residuals, "view": view,
        "holomorphic": holomorphic}  # fmt: skip
    if body is None:
        return functools.partial(primitive, **options)
    declaration = Declaration(body, **options)
    if declaration.name in registry:
        raise TypeError(f"a primitive named {declaration.name!r} is declared already")
    count = len(declaration.inputs)
    if outputs or declaration.variadic or not count:
        function = _any(declaration)
    elif count == 1 and not residuals:
        function = _unary(declaration)
    elif declaration.inputs == ("input", "other") and not declaration.attributes and not residuals:
        function = _binary(declaration)
    elif not keep and not view:
        function = _several(declaration)
    else:
        function = _any(declaration)
    functools.update_wrapper(function, body)
    parameters = list(inspect.signature(body).parameters.values())[1:]
    function.__signature__ = with_out(inspect.Signature(parameters))  # type: ignore[attr-defined]
    declaration.function = function
    for method in ("vjp", "joint_vjp", "fused_vjp", "kernel"):
        setattr(function, method, getattr(declaration, method))
    function.declaration = declaration  # type: ignore[attr-defined]
    registry[declaration.name] = function  # type: ignore[assignment]
    return function


def _registered(name: str) -> Any:
    if name not in registry:
        raise AttributeError(f"there is no primitive named {name!r}")
    return registry[name]


class Raw:
    """The namespace `F` of ordinary backward: each primitive as a function of raw arrays of one module."""

    def __init__(self, xp: ModuleType) -> None:
        self.xp = xp

    def __getattr__(self, name: str) -> Callable:
        function = _registered(name).declaration.raw(self.xp)
        setattr(self, name, function)  # found without __getattr__ from now on
        return function


class Recorded:
    """The namespace `F` under `create_graph=True`: each primitive as the recorded operation on tensors."""

    def __getattr__(self, name: str) -> Callable:
        return _registered(name)


RECORDED = Recorded()
RAW_NUMPY = Raw(numpy)


@functools.cache
def _raw_cupy() -> Raw:
    return Raw(arrays.cupy())  # type: ignore[arg-type]


def raw_namespace(array: Array) -> Raw:
    """The raw namespace for an array's module."""
    return RAW_NUMPY if arrays.module_of(array) is numpy else _raw_cupy()
