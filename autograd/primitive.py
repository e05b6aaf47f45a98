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
from .calls import list_path, quick_path
from .declaration import Declaration, registry, wrap
from .mode import is_grad_enabled
from .operands import explain
from .out import with_out, write_into
from .plan import FLOATING
from .variable import fresh_node


class Primitive(Protocol):
    """What `primitive` returns: a plain function, so that `tanh = ops.tanh` in a class body makes a method."""

    __name__: str
    declaration: Declaration

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def vjp(self, **rules: Callable) -> None: ...
    def joint_vjp(self, function: Callable) -> Callable: ...
    def fused_vjp(self, device: str, takes: Callable | None = None) -> Callable[[Callable], Callable]: ...
    def kernel(self, device: str) -> Callable[[Callable], Callable]: ...


def _any(declaration: Declaration) -> Callable:
    """The path of primitives with several outputs or no inputs: binds the arguments and takes the general path, but for
    one tensor with a body that is known."""
    bind, general, bodies = declaration.bind, declaration.call, declaration.bodies
    alone = len(declaration.inputs) == 1 and not (declaration.variadic or declaration.view)
    floating, count, multiple = declaration.promote == "float", len(declaration.outputs), declaration.multiple

    def call(*args, out=None, **kwargs):  # type: ignore[no-untyped-def]
        if out is not None:
            return write_into(out, call(*args, **kwargs), declaration.name)
        inputs, attributes = bind(args, kwargs)
        if not alone:
            return general(inputs, attributes)
        (input,) = inputs
        try:
            x = input.array
            body = bodies[type(x)]
        except (AttributeError, KeyError):
            return general(inputs, attributes)
        if floating and x.dtype not in FLOATING:
            return general(inputs, attributes)
        try:
            values = body(x, *attributes)
        except (ValueError, TypeError, IndexError) as error:
            raise explain(declaration, error, (x,)) from None
        results = [wrap(value, x) for value in values[:count]]
        wanted = input.node if input.view_of is None else fresh_node(input)
        if wanted is not None and is_grad_enabled():
            outs = (*[result.array for result in results], *values[count:])
            declaration.record(results, outs, inputs, (x,), attributes)
        return multiple(*results)  # type: ignore[misc]  # primitives of an input on this path have several outputs

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
        keep: the first inputs, if promotion leaves them alone.
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
    if outputs or not declaration.inputs:
        function = _any(declaration)
    else:
        function = list_path(declaration) if declaration.variadic else quick_path(declaration)
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
