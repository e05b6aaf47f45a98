"""What the tape knows of a tensor, and of the operations that made it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..runtime.arrays import Array
from .mode import anomaly, enable_grad, node_observers, refuse_if_recording


class _Leaf:
    """The mark in `Variable.node` of a tensor that requires a gradient and was not computed from others."""

    def __repr__(self) -> str:
        return "leaf"


LEAF = _Leaf()


class Variable:
    """A raw array with its place on the tape. `Tensor` adds the operations and is the class of all results.

    Most tensors live for a moment, so what few of them need is a class attribute until it is set.

    Attributes:
        array: the raw NumPy or CuPy array.
        node: None (no gradient wanted), LEAF, or the Node whose operation computed this tensor.
        counter: None, or `[changes, last in-place operation, its stamp]`, shared by all tensors over the same memory.
            Stamps and the numbers of nodes come from one sequence, so that comparing them tells what came first.
        view_of: None, or the View that says how this tensor was cut from another one.
    """

    array: Array
    node: Any = None
    counter: list | None = None
    view_of: View | None = None
    reshaped_at = -1  # the change, by the counter's number, that gave this tensor another shape in place
    hooks: dict[int, Callable] | None = None  # of a leaf: called with its gradient, may replace it
    grad_ready_hooks: dict[int, Callable] | None = None  # of a leaf: called after its gradient was accumulated
    group: LeafGroup | None = None  # of a leaf: whom backward tells when the gradients of a group are complete
    grad_slot: Variable | None = None  # of a leaf in an arena: the tensor to write the gradient into
    home: tuple | None = None  # of a leaf in an arena, and of its slot: (the arena, its number there)
    gradient: Variable | None = None  # what `.grad` shows

    if TYPE_CHECKING:  # every Variable is a Tensor, with operations that this layer does not know

        def __getattr__(self, name: str) -> Any: ...

    def __init_subclass__(cls, box: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if box:
            BOX[0] = cls


# The class of results; Tensor puts itself here with `class Tensor(Variable, box=True)`.
BOX: list[type[Variable]] = [Variable]


class _AnyLeaf:
    """What any leaf ever had, so that backward need not look for it where none did.

    Attributes:
        grouped: whether a leaf got a group.
        hooked: whether a leaf got a hook.
    """

    __slots__ = ("grouped", "hooked")

    def __init__(self) -> None:
        self.grouped = self.hooked = False


any_leaf = _AnyLeaf()


class LeafGroup:
    """Leaves whose owner wants to know when backward has completed their gradients; cheaper than a hook on each.

    Attributes:
        number: groups that are complete at the same moment are told in this order.
    """

    number = 0

    def begin(self, seeds: Sequence[tuple]) -> None:
        """A backward pass begins that reaches some of the leaves; `seeds` are its roots, with their gradients."""

    def complete(self) -> None:
        """No leaf of the group gets any more gradient in this pass."""

    def replicas(self) -> Any:
        """The ranks that keep the leaves of the group equal, as `Replicas`; None if there are none."""

    def close(self) -> None:
        """Another group takes over the leaves."""

    def before_update(self, optimizer: Any) -> bool:
        """An optimizer is about to change the leaves; whether it need not say so again."""
        return True


class View:
    """How a tensor was cut from another one, to derive its node again after the shared memory was changed."""

    __slots__ = ("attributes", "parent", "primitive", "version")

    def __init__(self, parent: Variable, primitive: Any, attributes: tuple, version: int) -> None:
        self.parent = parent
        self.primitive = primitive
        self.attributes = attributes
        self.version = version


next_number = itertools.count().__next__


class Node:
    """One recorded operation.

    Attributes:
        number: creation number; every input's node has a smaller one, so descending order is a backward order.
        plan: which rules to run and what they are given.
        edges: for each input the Node or leaf Variable to pass a gradient to, or None.
        saved: the raw values that the plan's rules name; None once they were freed. Or an object with a method
            `unpack(node)` that makes them when backward asks: hooks on saved tensors, checkpointing.
        shape: of the output.
        versions: the counters of the saved memory, to verify that it was not changed since.
        hooks: called with the output's gradient, may replace it.
    """

    __slots__ = ("__weakref__", "edges", "hooks", "number", "plan", "saved", "shape", "versions")

    # no __init__: the paths in calls.py set the fields themselves, to spare a call; everyone else uses new_node()
    number: int
    plan: Any
    edges: tuple
    saved: Any
    shape: tuple
    versions: tuple
    hooks: dict[int, Callable] | None

    def name(self) -> str:
        """PyTorch's name of the node, e.g. AddBackward0."""
        return self.plan.title

    def values(self) -> tuple:
        """The saved values; RuntimeError if they were freed."""
        saved = self.saved
        while saved.__class__ is not tuple:
            if saved is None:
                raise RuntimeError(_FREED.format(self.plan.title))
            saved = saved.unpack(self)
        return saved

    @property
    def next_functions(self) -> tuple:
        """The nodes (or leaves) that this one passes gradients to."""
        return tuple((edge, 0) for edge in self.edges)

    def register_hook(self, hook: Callable) -> HookHandle:
        """Call `hook(gradient of the output)` in backward; a value it returns replaces the gradient."""
        if self.hooks is None:
            self.hooks = {}
        return HookHandle(self.hooks, hook)

    def origin(self) -> str:
        """Where the operation was called, if anomaly detection was on then."""
        return "".join(anomaly.origins.get(self, ["(switch on detect_anomaly before forward to see where)\n"]))

    def __repr__(self) -> str:
        return f"<{self.plan.title}>"


_FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify "
    "retain_graph=True if you need to backward through the graph a second time. (In {}.)"
)


def new_node(plan: Any, edges: tuple, saved: tuple, shape: tuple, versions: tuple) -> Node:
    """A new node of the tape."""
    node = Node()
    node.number = next_number()
    node.plan = plan
    node.edges = edges
    node.saved = saved
    node.shape = shape
    node.versions = versions
    node.hooks = None
    if node_observers:
        for observe in node_observers:
            observe(node)
    return node


class HookHandle:
    """Takes a registered hook away again: call `remove()`, or use it in a `with` statement."""

    _ids = itertools.count()

    def __init__(self, hooks: dict[int, Callable], hook: Callable) -> None:
        self._hooks = hooks
        self.id = next(HookHandle._ids)
        hooks[self.id] = hook

    def remove(self) -> None:
        """Forget the hook; removing twice does nothing."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def box(array: Array) -> Any:
    """A tensor around a raw array, off the tape."""
    result: Any = object.__new__(BOX[0])
    result.array = array
    result.node = result.view_of = result.counter = None  # reading a default from the class takes longer
    return result


def fresh_node(variable: Variable) -> Any:
    """The node of a view, derived again from its parent if the shared memory was changed since."""
    view = variable.view_of
    if view is not None and view.version != counter_of(variable)[0]:
        check_shape_kept(view)
        view.version = counter_of(variable)[0]
        variable.node = None
        if fresh_node(view.parent) is not None:
            with enable_grad():
                variable.node = view.primitive(view.parent, *view.attributes).node
    return variable.node


def check_shape_kept(view: View) -> None:
    """Refuse to derive a view again from a tensor that got another shape in place since it was cut from it."""
    if view.parent.reshaped_at > view.version:
        raise RuntimeError(
            "a tensor was given another shape in place (by squeeze_() or the like) after this view was cut from it, "
            "and "
            "memory they share was changed since; use the out-of-place form of that operation"
        )


def counter_of(variable: Variable) -> list:
    """The change counter of a tensor's memory, made at first need."""
    counter = variable.counter
    if counter is None:
        counter = variable.counter = [0, None, -1]
    return counter


def changed(variable: Variable, operation: str) -> None:
    """Note that a tensor's memory was changed in place."""
    refuse_if_recording("it changes a tensor in place")
    stamp((variable.counter or counter_of(variable),), operation)


LAST_CHANGE = [-1]  # the stamp of the last change in place of any tensor: of what came later nothing was changed since


def stamp(counters: Iterable[list], operation: str) -> None:
    """Note in the counters of tensors that their memory was changed in place now."""
    number = next_number()
    if number > LAST_CHANGE[0]:  # else another thread has come in between
        LAST_CHANGE[0] = number
    for counter in counters:
        counter[0] += 1
        counter[1] = operation
        counter[2] = number
