"""The path that a call of a primitive takes, compiled for the form of its declaration.

Declaration.call is right for everything; a path handles the common case of it (tensors of one device and, where that
matters, one dtype) in as few steps as Python allows, and hands everything else on. Loops over operands would cost more
than small operations themselves, so the text of a path is written out for the number of inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy

from ..runtime import arrays
from ..runtime.callers import generated
from .declaration import LARGE, Declaration, as_array, attach_view
from .mode import is_grad_enabled, node_observers
from .operands import explain
from .out import write_into
from .plan import CONSTANT, FLOATING, WEAK_NUMBERS
from .variable import BOX, LEAF, Node, box, fresh_node, next_number

_MISSING = object()  # an argument that is not given, or given by name

_SCOPE = {
    "BOX": BOX, "CONSTANT": CONSTANT, "FLOATING": FLOATING, "LARGE": LARGE, "LEAF": LEAF, "MISSING": _MISSING,
    "Node": Node, "WEAK_NUMBERS": WEAK_NUMBERS,
    "as_array": as_array, "attach_view": attach_view, "explain": explain, "fresh_node": fresh_node,
    "is_grad_enabled": is_grad_enabled, "ndarray": numpy.ndarray, "new": object.__new__, "next_number": next_number,
    "node_observers": node_observers, "shares_memory": arrays.shares_memory, "write_into": write_into,
}  # fmt: skip

_OPERANDS = ("input", "other")

# x0, x1, ... are the arrays of the inputs, n0, n1, ... what `.node` says of them.
_PATH = """
def make(declaration, bodies, plans, bind, general, arity):
    def call({parameters}):
        {arguments}
        try:
            {operands}
        except (AttributeError, KeyError):
            return general(({inputs}), {attributes})
        try:
            value = body({arrays}{spread})
        except (ValueError, TypeError, IndexError) as error:
            raise explain(declaration, error, ({arrays},)) from None
        {values}
        result = new(BOX[0])
        result.array = value if type(value) is kind else as_array(value)
        result.node = result.view_of = result.counter = None  # reading a default from the class takes longer
        {view}
        if ({wanted}) and is_grad_enabled():
            mask = {mask}
            plan = plans.get(mask if kind is ndarray else -mask) or declaration.plan(mask, kind is ndarray)
            if plan is not None:
                node = Node()
                node.number = next_number()
                node.plan = plan
                node.edges = ({edges})
                if plan.names:
                    node.saved, node.versions = plan.save({kept}result, {arrays}, {outputs}{spread})
                else:
                    node.saved = node.versions = ()
                node.shape = value.shape
                node.hooks = None
                if node_observers:
                    for observe in node_observers:
                        observe(node)
                result.node = node
        return result
    return call
"""


def _block(text: str, indent: int) -> str:
    """Lines at the place of one line of the template."""
    return ("\n" + " " * indent).join(line for line in text.strip("\n").splitlines())


def _operand(i: int, name: str, optional: bool, promote: str, first: int) -> str:
    """Reading one input: its array must be of the kind of the first one and, where that matters, of the dtype of the
    one that has the number `first`, before which promotion leaves all alone."""
    hand_on = "return general(({inputs}), {attributes})"
    lines = [f"x{i} = {name}.array"]
    if i == 0:
        lines += ["kind = type(x0)", "body = bodies[kind]"]
    else:
        other = "" if promote == "none" or i <= first else f" or x{i}.dtype is not dtype"
        lines += [f"if type(x{i}) is not kind{other}:", f"    {hand_on}"]
    if i == first:
        lines += [f"dtype = x{i}.dtype"] if promote != "none" else []
        lines += ["if dtype not in FLOATING:", f"    {hand_on}"] if promote == "float" else []
    lines += [f"n{i} = {name}.node if {name}.view_of is None else fresh_node({name})"]
    if optional:
        lines = [f"x{i} = n{i} = None", f"if {name} is not None:", *(f"    {line}" for line in lines)]
    return "\n".join(lines) + "\n"


# A tensor and a number: the number goes to NumPy as it is, which keeps the tensor's dtype.
_NUMBERS = """
if type(other) is float or type(other) is int:
    x0 = input.array
    x1, n1 = other, None
    if x0.dtype not in WEAK_NUMBERS:
        return general((input, other), ())
    like, kind = x0, type(x0)
    n0 = input.node if input.view_of is None else fresh_node(input)
elif type(input) is float or type(input) is int:
    x1 = other.array
    x0, n0 = input, None
    if x1.dtype not in WEAK_NUMBERS:
        return general((input, other), ())
    like, kind = x1, type(x1)
    n1 = other.node if other.view_of is None else fresh_node(other)
else:
    x0, x1 = input.array, other.array
    like, kind, dtype = x0, type(x0), x0.dtype
    if x1.dtype is not dtype or type(x1) is not kind{floating}:
        return general((input, other), ())
    n0 = input.node if input.view_of is None else fresh_node(input)
    n1 = other.node if other.view_of is None else fresh_node(other)
body = bodies[kind]
if like.size >= LARGE and declaration.large is not None and kind is ndarray:
    body = declaration.large
"""

_VIEW = """
if shares_memory(value, x0):
    attach_view(result, input, call, attributes)
"""


def _arguments(names: tuple[str, ...], attributes: bool) -> tuple[str, str]:
    """The parameters of a path, and how inputs and attributes come out of them."""
    if len(names) == 1:
        return (
            f"{names[0]}, *attributes, **named",
            f"""
if named or len(attributes) != arity - 1:
    if "out" in named:
        return write_into(named.pop("out"), call({names[0]}, *attributes, **named), declaration.name)
    ({names[0]},), attributes = bind(({names[0]}, *attributes), named)
""",
        )
    if names == _OPERANDS and not attributes:
        return (
            "input, other, *, out=None",
            """
if out is not None:
    return write_into(out, call(input, other), declaration.name)
""",
        )
    given = ", ".join(names)
    return (
        f"{', '.join(f'{name}=MISSING' for name in names)}, /, *attributes, out=None, **named",
        f"""
if out is not None or named or {names[-1]} is MISSING or len(attributes) != arity - {len(names)}:
    args = (*(x for x in ({given}) if x is not MISSING), *attributes)
    if out is not None:
        return write_into(out, call(*args, **named), declaration.name)
    ({given}), attributes = bind(args, named)
""",
    )


@functools.cache
def _maker(names: tuple[str, ...], optional: tuple[bool, ...], attributes: bool, promote: str, kept: int, view: bool,
           residuals: int) -> Callable:  # fmt: skip
    """Compile the path of all primitives of one form."""
    count = len(names)
    raw = ", ".join(f"x{i}" for i in range(count))
    rest = "".join(f", r{i}" for i in range(residuals))
    parameters, arguments = _arguments(names, attributes)
    texts = {
        "parameters": parameters,
        "arguments": _block(arguments, 8),
        "inputs": "".join(f"{name}, " for name in names),
        "kept": "".join(f"{name}, " for name in names),
        "attributes": "attributes" if attributes else "()",
        "arrays": raw,
        "spread": ", *attributes" if attributes else "",
        "values": f"value{rest} = value" if residuals else "",
        "outputs": f"result.array{rest}",
        "view": _block(_VIEW, 8) if view else "",
        "wanted": " or ".join(f"n{i} is not None" for i in range(count)),
        "mask": " | ".join(f"({1 << i} if n{i} is not None else 0)" for i in range(count)) if count > 1 else "1",
        "edges": "".join(f"{name} if n{i} is LEAF else n{i}, " for i, name in enumerate(names)),
    }
    if names == _OPERANDS and not attributes and promote != "none":
        operands = _NUMBERS.format(floating=" or dtype not in FLOATING" if promote == "float" else "")
        texts["kept"] = "CONSTANT if x0 is input else input, CONSTANT if x1 is other else other, "
    else:
        operands = "".join(_operand(i, name, optional[i], promote, kept) for i, name in enumerate(names))
        operands = operands.format(**texts)
    scope: dict[str, Any] = dict(_SCOPE)
    exec(generated(_PATH.format(operands=_block(operands, 12), **texts)), scope)
    return scope["make"]


def quick_path(declaration: Declaration) -> Callable:
    """The function that users call for a primitive of one output with up to five inputs."""
    names = declaration.inputs
    if names not in (("input",), _OPERANDS):
        names = tuple(f"i{i}" for i in range(len(names)))  # no name of a primitive's is then one of the path's own
    optional = tuple(name in declaration.optional for name in declaration.inputs)
    make = _maker(names, optional, bool(declaration.attributes), declaration.promote, len(declaration.keep),
                  declaration.view, len(declaration.residuals))  # fmt: skip
    return make(declaration, declaration.bodies, declaration.plans, declaration.bind, declaration.call,
                declaration.arity)  # fmt: skip


def list_path(declaration: Declaration) -> Callable:
    """The function that users call for a primitive of one output that takes a list of tensors."""
    bodies, bind, general = declaration.bodies, declaration.bind, declaration.call
    alike, floating = declaration.promote != "none", declaration.promote == "float"

    def call(*args: Any, out: Any = None, **named: Any) -> Any:
        if out is not None:
            return write_into(out, call(*args, **named), declaration.name)
        (tensors,), attributes = bind(args, named)
        if type(tensors) not in (list, tuple) or not tensors:
            return general((tensors,), attributes)
        try:
            raw = tuple([x.array for x in tensors])
            kind, dtype = type(raw[0]), raw[0].dtype
            body = bodies[kind]
        except (AttributeError, KeyError):
            return general((tensors,), attributes)
        for x in raw:
            if type(x) is not kind or (alike and x.dtype is not dtype):
                return general((tensors,), attributes)
        if floating and dtype not in FLOATING:
            return general((tensors,), attributes)
        try:
            result = box(body(raw, *attributes))
        except (ValueError, TypeError, IndexError) as error:
            raise explain(declaration, error, raw) from None
        if is_grad_enabled():
            declaration.record([result], (result.array,), tensors, raw, attributes)
        return result

    return call
