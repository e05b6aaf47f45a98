"""The backward pass.

Nodes wait in a heap and come out by falling creation number; creation order is a topological order, so a node's
gradient is complete when it comes out. No recursion, no counting of dependencies.

A gradient that arrives first is borrowed (rules may hand out `g` itself, or a view of it); only a sum that the engine
made is its own, and added to in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from heapq import heappop, heappush
from sys import getrefcount
from typing import Any

import numpy

from ..runtime import arrays, timeline
from .mode import anomaly, grad_recorded, recorders, recording_now, refuse_if_recording, set_grad_enabled
from .plan import Pick, Plan
from .primitive import RAW_NUMPY, RECORDED, raw_namespace
from .variable import LAST_CHANGE, LEAF, LeafGroup, Node, Variable, any_leaf, box, changed, counter_of, fresh_node

_ndarray = numpy.ndarray
_callbacks: ContextVar[list | None] = ContextVar("callbacks at the end of the running backward pass", default=None)


def backward(roots: Sequence[Variable], gradients: Sequence[Variable | None], retain_graph: bool, create_graph: bool,
             inputs: Sequence[Variable] | None = None) -> None:  # fmt: skip
    """Add the gradients of the roots to `.grad` of the leaves they depend on, or only of `inputs` if given."""
    recording = recording_now.get() if recorders else None
    if recording is not None:
        if len(roots) > 1 or gradients[0] is not None or create_graph or inputs is not None:
            recording.refuse("it calls backward of more than one loss")
        recording.backward(_backward_of, roots[0], retain_graph)
        return
    run = Backward()
    run.start(_seeds(roots, gradients, create_graph), retain_graph, create_graph, inputs)
    if inputs is None:
        return
    with set_grad_enabled(create_graph):
        for x in dict.fromkeys(inputs):
            gradient = run.found.get(_target(x))
            if gradient is not None:
                accumulate(x, gradient, False, create_graph)
                for hook in tuple((x.grad_ready_hooks or {}).values()):
                    hook(x)


def backward_of_loss(root: Variable, retain_graph: bool) -> bool:
    """The usual backward, spared what others need: of a computed float32 number on the CPU. False if it is not one."""
    array, node = root.array, root.node
    if (
        array.dtype is not _FLOAT32
        or array.ndim
        or array.__class__ is not _ndarray
        or node.__class__ is not Node
        or root.view_of is not None
        or recorders
    ):
        return False
    run = Backward()
    run.start(((node, _ONE),), retain_graph, False, None)
    return True


def gradients_of(roots: Sequence[Variable], gradients: Sequence[Variable | None], inputs: Sequence[Variable],
                 retain_graph: bool, create_graph: bool) -> list:  # fmt: skip
    """The gradients of the roots with respect to `inputs`, as tensors, or None where there is no path."""
    refuse_if_recording("it calls autograd.grad")
    run = Backward()
    run.start(_seeds(roots, gradients, create_graph), retain_graph, create_graph, inputs)
    found = [run.found.get(_target(x)) for x in inputs]
    return [g if g is None or create_graph else box(_as_array(g)) for g in found]


def _backward_of(loss: Variable, retain_graph: bool) -> None:
    backward((loss,), (None,), retain_graph, False)


def queue_callback(callback: Callable[[], None]) -> None:
    """Call `callback()` at the end of the backward pass that is running in this thread."""
    queue = _callbacks.get()
    if queue is None:
        raise RuntimeError("queue_callback(): there is no backward pass running in this thread")
    queue.append(callback)


def _seeds(roots: Sequence[Variable], gradients: Sequence[Variable | None], create_graph: bool) -> list[tuple]:
    """What stands for each root in the graph, and its gradient: 1 unless one is given."""
    seeds = []
    for i, root in enumerate(roots):
        gradient = gradients[i]
        if gradient is None:
            gradient = box(arrays.module_of(root.array).ones(root.array.shape, root.array.dtype))
        seeds.append((_target(root), gradient if create_graph else gradient.array))
    return seeds


def _target(x: Variable) -> Any:
    """What stands for a tensor in the graph: its node, or itself if it is a leaf."""
    node = x.node if x.view_of is None else fresh_node(x)
    if node is None:
        raise RuntimeError("One of the differentiated Tensors does not require grad")
    return x if node is LEAF else node


class Compound:
    """A plan of a node that stands for several operations: `replay` passes gradients through all of them, `expand`
    puts their nodes in its place."""

    def replay(self, run: Any, node: Node, g: Any) -> None:
        raise NotImplementedError

    def expand(self, node: Node) -> None:
        raise NotImplementedError


def check_unchanged(node: Node) -> None:
    """Refuse to go back through a node whose saved values were changed since."""
    for counter in node.versions:
        if counter[2] > node.number:
            raise RuntimeError(_MODIFIED.format(node.plan.title, *counter))


class Backward:
    """One backward pass.

    Attributes:
        targets: whose gradients are asked for; None means all leaves.
        wanted: what lies on a path to a target; None means everything.
        found: target -> its gradient.
        held: leaf with hooks -> (gradient so far, owned); made by explore().
        completes: number -> leaves with hooks that no later node uses.
        reports: number -> groups of leaves that no later node uses.
        tokens: of the context variables that prepare_for_others() has set.
        pending: number -> (node, gradient, owned).
        heap: the numbers in `pending`, negative.
    """

    __slots__ = ("completes", "create_graph", "found", "heap", "held", "pending", "reports", "retain_graph", "targets",
                 "tokens", "wanted")  # fmt: skip

    found: dict[Any, Any]
    held: dict[Variable, tuple]

    # no __init__: a second call for each pass would take as long as an addition of small arrays
    @timeline.traced("backward")
    def start(self, seeds: Sequence[tuple], retain_graph: bool, create_graph: bool,
              inputs: Iterable[Variable] | None) -> None:  # fmt: skip
        """Go back from the roots; `seeds` is what `_seeds` makes of them."""
        self.retain_graph = retain_graph or create_graph
        self.create_graph = create_graph
        self.targets: set | None = None
        if inputs is not None:
            self.targets = {_target(x) for x in inputs}
            self.found = {}
        self.wanted: set | None = None
        self.completes: dict[int, list[Variable]] | None = None
        self.reports: dict[int, list[LeafGroup]] | None = None
        self.tokens: tuple | None = None
        self.pending: dict[int, tuple] = {}
        self.heap: list[int] = []
        if any_leaf.hooked or any_leaf.grouped or self.create_graph or self.targets is not None:
            self.look_ahead(seeds)
        try:
            if len(seeds) == 1 and seeds[0][0].__class__ is Node:
                self.run(*seeds[0])  # it need not wait in the heap
            else:
                for target, gradient in seeds:
                    self.pass_to(target, gradient, False)
                self.run(None, None)
            if self.completes is not None:  # roots that are leaves themselves
                for leaf in tuple(self.held):
                    self.finish_leaf(leaf)
            if self.tokens is not None:  # before that nobody can have queued one
                for callback in _callbacks.get() or ():  # one may queue another
                    callback()
        finally:
            if self.tokens is not None:
                grad_recorded.reset(self.tokens[0])
                _callbacks.reset(self.tokens[1])

    def look_ahead(self, seeds: Sequence[tuple]) -> None:
        """Before the pass: do what hooks, groups of leaves, chosen targets or a recorded pass demand."""
        nodes = [node for node, _ in seeds if isinstance(node, Node)]
        if any_leaf.hooked or self.targets is not None:
            self.explore(nodes)
        if any_leaf.hooked or self.create_graph:
            self.prepare_for_others()
        if any_leaf.grouped and self.targets is None:
            self.find_groups(nodes, seeds)

    def prepare_for_others(self) -> None:
        """Before anything but a primitive's rule runs, which may record operations and queue callbacks: set what such
        code sees, until the pass ends. Rules see raw arrays and need none of it, nor the microsecond that it takes."""
        if self.tokens is None:
            self.tokens = grad_recorded.set(self.create_graph), _callbacks.set([])

    def explore(self, roots: list[Node]) -> None:
        """Walk the graph beforehand; only where somebody asks: hooks on leaves, or gradients of chosen tensors."""
        self.held, self.completes = {}, {}
        nodes = sorted(reachable(roots, self.targets is not None), key=lambda node: node.number)
        done: set[Variable] = set()
        for node in nodes:
            for edge in node.edges:
                if isinstance(edge, Variable) and (edge.hooks or edge.grad_ready_hooks) and edge not in done:
                    done.add(edge)
                    self.completes.setdefault(node.number, []).append(edge)
        if self.targets is not None:
            self.wanted = set(self.targets)
            self.wanted.update(node for node in self.targets if isinstance(node, Node))
            for node in nodes:
                if not self.wanted.isdisjoint(node.edges):
                    self.wanted.add(node)

    def find_groups(self, nodes: list[Node], seeds: Sequence[tuple]) -> None:
        """Walk the graph beforehand to see at which node each group of leaves is complete: the first one using any."""
        last: dict[LeafGroup, int] = {}
        seen = set(nodes)
        stack = list(seen)
        while stack:
            node = stack.pop()
            for edge in node.edges:
                if edge.__class__ is Node:
                    if edge not in seen:
                        seen.add(edge)
                        stack.append(edge)
                elif edge is not None and (group := edge.group) is not None:
                    if last.setdefault(group, node.number) > node.number:
                        last[group] = node.number
        if last:
            self.prepare_for_others()
        self.reports = {}
        # Groups begin in the order in which they will be complete, which follows from that of the operations in forward
        # and so is the same on all ranks, and not in that in which the walk has met them.
        for group in sorted(last, key=lambda group: (-last[group], group.number)):
            self.reports.setdefault(last[group], []).append(group)
            group.begin(seeds)

    def run(self, ahead: Any, coming: Any) -> None:
        """Go back from `ahead` with its complete gradient `coming`, and from all nodes that wait in the heap.

        `ahead` is the node that comes next where that is known, so that chains of operations never enter the heap.
        """
        heap, pending, wanted, targets = self.heap, self.pending, self.wanted, self.targets
        create_graph, retain_graph = self.create_graph, self.retain_graph
        completes, reports = self.completes, self.reports
        awaited = {*completes, *reports} if completes and reports else completes or reports
        simple_leaves = targets is None and not create_graph and not any_leaf.hooked
        watched = anomaly.enabled
        while True:
            if ahead is not None:
                node, g, ahead, coming = ahead, coming, None, None
            elif heap:
                node, g, _ = pending.pop(-heappop(heap))
            else:
                return
            if node.hooks is not None:
                g = self.call_hooks(node.hooks, g)
            if targets is not None and node in targets:
                self.found[node] = g
            plan, edges, saved = node.plan, node.edges, node.saved
            if plan.__class__ is not Plan:
                if plan.__class__ is Pick:
                    self.pass_output(edges[0], plan.index, g)
                    continue
                if isinstance(plan, Compound) and not self.expanded(node):
                    saved = edges = None  # freed as backward goes
                    plan.replay(self, node, g)
                    self.tell(node.number)
                    continue
                plan, edges, saved = node.plan, node.edges, node.saved
                self.prepare_for_others()
            if saved.__class__ is not tuple:
                self.prepare_for_others()
                saved = node.values()
            if LAST_CHANGE[0] > node.number:
                check_unchanged(node)
            if plan.multiple:
                g = self.fill_outputs(node.shape, g)
            if create_graph:
                F: Any = RECORDED
                saved = plan.lift(node, saved)
            else:
                F = RAW_NUMPY if g.__class__ is _ndarray else _namespace(g)
            # rules of holomorphic operations are written as for real numbers, g * f'(x); the gradient of a real loss
            # in the sense that gradient descent needs is g * conj(f'(x)), which is conj(conj(g) * f'(x))
            dtype = (g.array if create_graph else g).dtype if plan.holomorphic else _FLOAT32
            conjugate = dtype is not _FLOAT32 and dtype.kind == "c"
            if conjugate:
                g = F.conj(g)
            try:
                if plan.simple and (plan.takes is None or create_graph or not plan.takes(g)):
                    for i, rule, pick, writes in plan.rules:
                        edge = edges[i]
                        if wanted is not None and edge not in wanted:
                            continue
                        if writes and simple_leaves and edge.__class__ is not Node and not conjugate:
                            if _fill_slot(edge, writes, F, g, () if pick is None else pick(saved)):
                                continue
                        gradient = rule(F, g) if pick is None else rule(F, g, *pick(saved))
                        if conjugate:
                            gradient = F.conj(gradient)
                        if edge.__class__ is Node:
                            if ahead is None and gradient.shape == edge.shape and not watched:
                                if not heap or edge.number > -heap[0]:
                                    ahead, coming = edge, gradient
                                    continue
                        elif (
                            simple_leaves
                            and gradient.shape == edge.array.shape
                            and gradient.dtype is edge.array.dtype
                        ):
                            accumulate(edge, gradient, gradient is not g, False)  # the same, for a leaf
                            continue
                        if ahead is not None:
                            self.pass_to(ahead, coming, False)
                            ahead = None
                        self.pass_to(edge, gradient, gradient is not g)
                else:
                    if wanted is not None and plan.__class__ is Plan:  # inputs that nobody asks for cost nothing
                        found = plan.gradients(F, g, saved, create_graph, [edge in wanted for edge in edges])
                    else:
                        found = plan.gradients(F, g, saved, create_graph)
                    for edge, gradient in zip(edges, found, strict=True):
                        if edge is not None and gradient is not None and (wanted is None or edge in wanted):
                            if conjugate:
                                gradient = F.conj(gradient)
                            self.pass_to(edge, gradient, gradient is not g and g.__class__ is not tuple)
            except Exception as error:
                error.add_note(f"in the backward of {plan.title}")
                if anomaly.enabled:
                    error.add_note("its forward was called here:\n" + node.origin())
                raise
            if saved and not retain_graph:
                node.saved = None
            if watched:
                self.check_finite(node)
            if awaited and node.number in awaited:
                self.tell(node.number)

    def expanded(self, node: Node) -> bool:
        """Whether a node that stands for several operations gave way to theirs, where the tape itself is asked for."""
        check_unchanged(node)
        if self.create_graph or self.targets is not None or anomaly.enabled:
            node.plan.expand(node)
            return True
        return False

    def tell(self, number: int) -> None:
        """A node is done: so may be leaves with hooks, and groups of leaves."""
        for leaf in (self.completes or {}).pop(number, ()):
            self.finish_leaf(leaf)
        for group in (self.reports or {}).get(number, ()):
            group.complete()

    # -- passing gradients on ----------------------------------------------------------------------------------------

    def pass_to(self, edge: Any, gradient: Any, fresh: bool) -> None:
        """Hand a gradient to a node or a leaf, summed over the dimensions that its forward was broadcast along.

        `fresh` says that nobody else has this array, so that a leaf may keep it.
        """
        is_node = edge.__class__ is Node
        shape = edge.shape if is_node else edge.array.shape
        if gradient.shape != shape:
            _check_broadcast(gradient.shape, shape)
            gradient = (RECORDED if self.create_graph else _namespace(gradient)).sum_to_size(gradient, shape)
        if not is_node:
            if not self.create_graph and gradient.dtype is not edge.array.dtype:
                gradient = gradient.astype(edge.array.dtype)  # bfloat16, which numbers in rules make float32
            if self.targets is None and not edge.hooks and not edge.grad_ready_hooks:
                accumulate(edge, gradient, fresh, self.create_graph)
            else:
                self.reach_leaf(edge, gradient, fresh)
        elif edge.number not in self.pending:
            self.pending[edge.number] = (edge, gradient, False)
            heappush(self.heap, -edge.number)
        else:
            node, old, owned = self.pending[edge.number]
            self.pending[edge.number] = (node, *self.sum(old, owned, gradient))

    def sum(self, old: Any, owned: bool, gradient: Any) -> tuple[Any, bool]:
        if not owned or self.create_graph or old.__class__ is not gradient.__class__:
            return old + gradient, True
        old += gradient  # of NumPy numbers (0-d results) this makes a new one, which is as good
        return old, True

    def reach_leaf(self, leaf: Variable, gradient: Any, fresh: bool) -> None:
        """The gradient of a leaf with hooks, or in a pass for chosen tensors."""
        if not (leaf.hooks or leaf.grad_ready_hooks):
            self.give_leaf(leaf, gradient, fresh)
        elif leaf in self.held:
            old, owned = self.held[leaf]
            self.held[leaf] = self.sum(old, owned, gradient)
        else:
            self.held[leaf] = (gradient, fresh)

    def finish_leaf(self, leaf: Variable) -> None:
        """The gradient of a leaf with hooks is complete."""
        if leaf not in self.held:
            return  # the rules on the way passed it nothing
        gradient, owned = self.held.pop(leaf)
        if leaf.hooks:
            gradient = self.call_hooks(leaf.hooks, gradient)
        self.give_leaf(leaf, gradient, owned and not leaf.hooks)
        if self.targets is None:
            for hook in tuple((leaf.grad_ready_hooks or {}).values()):
                hook(leaf)

    def give_leaf(self, leaf: Variable, gradient: Any, fresh: bool) -> None:
        if self.targets is None:
            accumulate(leaf, gradient, fresh, self.create_graph)
        elif leaf in self.targets:
            old = self.found.get(leaf)
            self.found[leaf] = gradient if old is None else old + gradient

    def pass_output(self, common: Node, index: int, g: Any) -> None:
        """Put the gradient of one of several outputs in its place at their common node."""
        if common.number not in self.pending:
            self.pending[common.number] = (common, [None] * len(common.shape), True)
            heappush(self.heap, -common.number)
        gradients = self.pending[common.number][1]
        gradients[index] = g if gradients[index] is None else gradients[index] + g

    def fill_outputs(self, outputs: tuple, gradients: list) -> tuple:
        """Zeros for the outputs that got no gradient."""
        filled = []
        for (shape, dtype, kind), g in zip(outputs, gradients, strict=True):
            if g is None:
                xp: Any = numpy if kind is _ndarray else arrays.cupy()
                g = xp.zeros(shape, dtype)
                g = box(g) if self.create_graph else g
            filled.append(g)
        return tuple(filled)

    def call_hooks(self, hooks: dict[int, Callable], g: Any) -> Any:
        self.prepare_for_others()
        for hook in tuple(hooks.values()):
            result = hook(g if self.create_graph else box(_as_array(g)))
            if result is not None:
                if not isinstance(result, Variable):
                    raise TypeError(f"a gradient hook must return a tensor or None, got {type(result).__name__}")
                g = result if self.create_graph else result.array
        return g

    def check_finite(self, node: Node) -> None:
        """Under anomaly detection: refuse NaN in what a node has just passed on."""
        for i, edge in enumerate(node.edges):
            entry = self.pending.get(edge.number) if edge.__class__ is Node else None
            g = entry[1] if entry is not None else getattr(edge, "gradient", None)
            array: Any = g.array if isinstance(g, Variable) else g
            if hasattr(array, "dtype") and bool((array != array).any()):
                error = RuntimeError(f"Function '{node.plan.title}' returned nan values in its {i}th output.")
                error.add_note("its forward was called here:\n" + node.origin())
                raise error


def _check_broadcast(shape: tuple, size: tuple) -> None:
    """Refuse a gradient that no broadcast can explain: a derivative, perhaps a user's own, is wrong."""
    lead = len(shape) - len(size)
    if lead < 0 or any(n not in (1, m) for n, m in zip(size, shape[lead:], strict=True)):
        raise RuntimeError(f"got a gradient of shape {list(shape)} for an input of shape {list(size)}")


def reachable(roots: list[Node], expand: bool = False) -> set[Node]:
    seen = set(roots)
    stack = list(seen)
    while stack:
        node = stack.pop()
        if expand and isinstance(node.plan, Compound):
            node.plan.expand(node)
        for edge in node.edges:
            if edge.__class__ is Node and edge not in seen:
                seen.add(edge)
                stack.append(edge)
    return seen


_FLOAT32 = numpy.dtype(numpy.float32)
_ONE = numpy.ones((), numpy.float32)
_ONE.flags.writeable = False


def _as_array(g: Any) -> Any:
    """NumPy's numbers, which its operations on 0-d arrays return, as 0-d arrays."""
    return numpy.asarray(g) if isinstance(g, numpy.generic) else g


def _namespace(g: Any) -> Any:
    return raw_namespace(next(x for x in g if x is not None) if isinstance(g, tuple | list) else g)


_MODIFIED = (
    "one of the variables needed for gradient computation has been modified by an inplace operation: {} saved it "
    "before it got to version {} in {}. Hint: use the out-of-place form of that operation, or clone() before "
    "it; set_detect_anomaly(True) shows where the forward was called."
)


# -- leaves ------------------------------------------------------------------------------------------------------------


def accumulate(leaf: Variable, gradient: Any, fresh: bool, create_graph: bool) -> None:
    """Add a gradient of the leaf's shape to `leaf.grad`, in the leaf's place in its arena if it has one."""
    old = leaf.gradient
    if create_graph:
        leaf.gradient = gradient if old is None else old + gradient
        return
    if old is not None:
        if old.node is not None:  # made under create_graph: part of a graph, so not to be written to
            leaf.gradient = box(_as_array(old.array + gradient))
        else:
            old.array += arrays.row_major(gradient) if _is_turned(gradient) else gradient
            changed(old, "gradient accumulation")
        return
    if _fill_slot(leaf, _as_it_is, None, gradient, ()):
        return
    if fresh and getattr(gradient, "base", gradient) is None:
        leaf.gradient = box(_as_array(gradient))
    else:
        leaf.gradient = box(arrays.module_of(gradient).array(gradient))


def _is_turned(g: Any) -> bool:
    return g.__class__ is _ndarray and not g.flags.c_contiguous and arrays.is_turned(g)


def _fill_slot(leaf: Variable, write: Callable, F: Any, g: Any, saved: tuple) -> bool:
    """Let a rule write the first gradient of a step into the leaf's place in its arena, which spares a copy of it;
    `write` is what `Rule.writer` made.

    False if the leaf lives in none, or somebody else holds the place: a gradient that the user kept from the last step
    must stay as it is. (Nobody can then have noted its counter.)
    """
    slot = leaf.grad_slot
    if (
        slot is None
        or leaf.gradient is not None
        or getrefcount(slot) + getrefcount(slot.array) + getrefcount(slot.counter) != _UNSHARED
    ):
        return False
    arena, index = leaf.home  # type: ignore[misc]  # whoever has a slot lives in an arena
    if arena.views[index] is not leaf.array:
        return False
    into = slot.array
    gradient = write(F, g, saved, into)
    if gradient is not into:
        into[...] = gradient
    leaf.gradient = slot
    return True


def holds_alone(leaf: Variable) -> bool:
    """Whether nobody but a leaf has its slot, a view of it or its array; the slot may be the leaf's gradient."""
    slot = leaf.grad_slot
    references = getrefcount(slot) + getrefcount(slot.array) + getrefcount(slot.counter)  # type: ignore[union-attr]
    return references == _UNSHARED + (leaf.gradient is slot)


def claim_slot(leaf: Variable) -> bool:
    """Let a leaf's place in its arena be its gradient, for the caller to fill; False where `_fill_slot` would not, or
    where the slot has other memory for a while."""
    slot, home = leaf.grad_slot, leaf.home
    if slot is None or home is None or slot.array is not home[0].slots[home[1]]():
        return False
    del slot  # or somebody would hold it
    return _fill_slot(leaf, _left_alone, None, None, ())


def _left_alone(F: Any, g: Any, saved: tuple, into: Any) -> Any:
    """The writer of a gradient that somebody else will write."""
    return into


def _as_it_is(F: Any, g: Any, saved: tuple, into: Any) -> Any:
    """The writer of a gradient that is there already."""
    return g


def _unshared() -> int:
    """The references to a slot, its array and its counter where nobody but its leaf holds the slot, and a local name
    does: the least there can be. Their number depends on the Python version."""
    leaf, slot = Variable(), Variable()
    slot.array = numpy.zeros(1)
    counter_of(slot)
    leaf.grad_slot = slot
    return getrefcount(slot) + getrefcount(slot.array) + getrefcount(slot.counter)


_UNSHARED = _unshared()
