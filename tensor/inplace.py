"""In-place operations: the twin `add_` of every operation `add`, and assignment.

The value is computed by the ordinary operation, then written into the memory. On the tape the tensor then stands for
the new value; if it is a view, so does that part of the tensor it was cut from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from ..autograd.mode import is_grad_enabled, recording_now, refuse_if_recording
from ..autograd.variable import LEAF, Node, Variable, View, changed, check_shape_kept, fresh_node, new_node, next_number
from ..runtime import dtypes
from ..runtime.arrays import StandIn


def inplace(function: Callable, name: str | None = None) -> Callable:
    """The in-place twin of an operation: writes its result into the first argument and returns that."""
    name = name or function.__name__ + "_"

    @functools.wraps(function, assigned=("__doc__",))
    def twin(self: Any, *args: Any, **kwargs: Any) -> Any:
        recording = recording_now.get()
        if recording is not None:
            if recording.later_in_place(twin, self, args, kwargs):
                return self
            return recording.assign(self, function(self, *args, **kwargs))
        check_writable(self)
        first = next_number()
        value = function(self, *args, **kwargs)
        if isinstance(value.node, Node):
            _keep_saved(value.node, self, first)
        return assign(self, value, name)

    twin.__name__ = twin.__qualname__ = name
    return twin


def inplace_view(function: Callable) -> Callable:
    """The in-place twin of an operation that makes a view: the tensor itself becomes that view."""
    name = function.__name__ + "_"

    @functools.wraps(function, assigned=("__doc__",))
    def twin(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_writable(self)
        original = object.__new__(type(self))
        original.__dict__.update(self.__dict__)
        value = function(original, *args, **kwargs)
        changed(value, name)
        self.array, self.node, self.counter, self.view_of = value.array, value.node, value.counter, value.view_of
        self.reshaped_at = value.counter[0]
        _mark_current(self)
        return self

    twin.__name__ = twin.__qualname__ = name
    return twin


def _keep_saved(node: Node, tensor: Any, first: int) -> None:
    """Save copies where the operation, whose nodes have numbers from `first` on, saved the memory (also through views)
    that its result will be written into."""
    counter = tensor.counter
    pending = [] if counter is None else [node]
    while pending:
        node = pending.pop()
        if any(saved is counter for saved in node.versions):
            node.saved = tuple(v.copy() if hasattr(v, "dtype") else v for v in node.values())
            node.versions = tuple(saved for saved in node.versions if saved is not counter)
        pending += [edge for edge in node.edges if isinstance(edge, Node) and edge.number > first]


def check_writable(tensor: Any) -> None:
    """Refuse to change what backward needs unchanged: leaves that require gradients, and their views."""
    refuse_if_recording("it changes a tensor in place")
    if not is_grad_enabled():
        return
    if tensor.node is LEAF:
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
    root = tensor
    while root.view_of is not None:
        root = root.view_of.parent
    if root.node is LEAF:
        raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place operation.")


def assign(tensor: Any, value: Any, operation: str) -> Any:
    """Write `value` (a tensor that broadcasts to the shape, or a number) into the tensor's memory and place."""
    recording = recording_now.get()
    if recording is not None:
        return recording.assign(tensor, value)
    check_writable(tensor)
    array = tensor.array
    if isinstance(value, Variable):
        value = _fitted(tensor, value, operation)
        raw = value.array
    else:
        raw = value
    if isinstance(array, StandIn) or isinstance(raw, StandIn):
        array[...] = raw  # not possible: refused by the transform whose arrays these are
    if not isinstance(raw, int | float | complex) and raw.__class__ is not array.__class__:
        raise RuntimeError(f"{operation}: expected all tensors on one device; move the value to {tensor.device} first")
    if getattr(array, "flags", None) is not None and not getattr(array.flags, "writeable", True):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            f"Please clone() the tensor before performing the operation. ({operation})"
        )
    array[...] = raw
    changed(tensor, operation)
    if is_grad_enabled():
        _move_on_tape(tensor, fresh_node(value) if isinstance(value, Variable) else None, value)
    else:
        _mark_current(tensor)
    return tensor


def _fitted(tensor: Any, value: Any, operation: str) -> Any:
    """The value with the tensor's dtype and shape, recorded."""
    have, want = dtypes.of(value.array.dtype), dtypes.of(tensor.array.dtype)
    if have.category > want.category and operation not in ("copy_", "setitem"):
        raise RuntimeError(f"{operation}: result type {have.name} can't be cast to the desired output type {want.name}")
    value = value.to(want)
    shape = tensor.array.shape
    if value.array.shape != shape:
        try:
            value = value.expand(shape)
        except RuntimeError:
            raise RuntimeError(
                f"{operation}: output with shape {list(shape)} doesn't match the broadcast shape "
                f"{list(value.array.shape)} of the value"
            ) from None
    return value


def _move_on_tape(tensor: Any, node: Any, value: Any) -> None:
    """The tensor now stands for a value computed by `node`, and so does its part of what it was cut from."""
    if tensor.view_of is not None:
        if node is not None or fresh_node(tensor.view_of.parent) is not None:
            _write_through(tensor.view_of, value if node is LEAF else node)
            while tensor.view_of is not None:  # derived again from the root when somebody asks, as all its views are
                tensor.view_of.version = tensor.counter[0] - 1
                tensor = tensor.view_of.parent
    elif node is None and tensor.node is not None:
        tensor.node = new_node(_CopySlices("FillBackward", _no_gradient), (tensor.node,), (), tensor.array.shape, ())
    else:
        tensor.node = _identity(value) if node is LEAF else node


def _no_gradient(F: Any, g: Any) -> list:
    """What a value that a constant was written over gets: zeros, for it is still asked for its gradient."""
    return [F.zeros_like(g)]


def _mark_current(tensor: Any) -> None:
    """This tensor and those it was cut from need no new derivation: their nodes stand for the memory as it is."""
    while tensor.view_of is not None:
        tensor.view_of.version = tensor.counter[0]
        tensor = tensor.view_of.parent


def _identity(value: Variable) -> Node:
    """A node that passes its gradient on to a leaf: the tensor holding the leaf's value is no leaf itself."""
    return new_node(_CopySlices("CopyBackwards", lambda F, g: [g]), (value,), (), value.array.shape, ())


def _write_through(view: View, source: Any) -> None:
    """The parent of a view now stands for its old value with the view's region replaced."""
    check_shape_kept(view)
    parent, attributes = view.parent, view.attributes
    shape = parent.array.shape
    old = fresh_node(parent)
    declaration = view.primitive.declaration
    rule = declaration.rules["input"]
    given = {**dict(zip(declaration.attributes, attributes, strict=True)), "input_shape": shape}

    def split(F: Any, g: Any) -> list:
        """What goes to the region, and what is left for the parent's old value."""
        region = getattr(F, declaration.name)(g, *attributes)
        # Not by g - region: where that is infinite, there would be NaN.
        replaced = rule.function(F, F.ones_like(region), *(given[name] for name in rule.names))
        return [F.where(F.eq(replaced, 0), g, F.zeros_like(g)), region]

    edges = (parent if old is LEAF else old, source)
    node = new_node(_CopySlices("CopySlices", split), edges, (), shape, ())
    if parent.view_of is None:
        parent.node = node
    else:
        _write_through(parent.view_of, node)


class _CopySlices:
    """The plan of a node that in-place assignment makes."""

    multiple = simple = holomorphic = False

    def __init__(self, title: str, gradients: Callable[[Any, Any], Iterable]) -> None:
        self.title = title
        self._gradients = gradients

    def lift(self, node: Node, saved: tuple) -> tuple:
        return saved

    def gradients(self, F: Any, g: Any, saved: tuple, create_graph: bool) -> Iterable:
        return self._gradients(F, g)
