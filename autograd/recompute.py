"""Activation checkpointing: forget what a part of the forward saved, and compute it again in backward."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from ..runtime import rng, tree
from .mode import enable_grad, is_grad_enabled
from .variable import Node, Variable, counter_of, fresh_node, next_number


class CheckpointError(RuntimeError):
    """The function recorded other operations when it was run again than the first time."""


def checkpoint(
    function: Callable,
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple] | None = None,
    preserve_rng_state: bool = True,
    determinism_check: str = "default",
    **kwargs: Any,
) -> Any:
    """Call `function(*args, **kwargs)` without keeping what it saves for backward; backward runs it again.

    Memory for activations is traded for a second forward. The gradients are the same to the last bit: random numbers
    (dropout masks) are drawn again from the same state.

    Args:
        function: takes the arguments, returns tensors in any containers; must do the same when called again.
        use_reentrant: accepted for PyTorch's sake: the one way here does what both of PyTorch's do.
        context_fn: returns two context managers, for the first call and for the one in backward.
        preserve_rng_state: draw the same random numbers again.
        determinism_check: "default" compares the operations of both calls and their shapes, "none" only their number.

    Raises:
        CheckpointError: in backward, if the second call records other operations.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.

    Example:
        >>> import paceline as torch
        >>> from paceline.utils.checkpoint import checkpoint
        >>> x = torch.ones(2, requires_grad=True)
        >>> checkpoint(lambda x: torch.exp(x).sin(), x, use_reentrant=False).sum().backward()
        >>> x.grad
        tensor([-2.4784, -2.4784])
    """
    if determinism_check not in ("default", "none"):
        raise ValueError(f"determinism_check should be 'default' or 'none', got {determinism_check!r}")
    if not is_grad_enabled():
        return function(*args, **kwargs)
    first, second = context_fn() if context_fn is not None else (contextlib.nullcontext(), contextlib.nullcontext())
    region = _Region(lambda: function(*args, **kwargs), second, preserve_rng_state, determinism_check == "default")
    region.watch((args, kwargs))
    mark = next_number()
    with first:
        outputs = function(*args, **kwargs)
    region.forget(_nodes_since(mark, outputs))
    return outputs


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, preserve_rng_state: bool = True
) -> Any:
    """Run modules one after the other, checkpointing them in segments; the last segment is run ordinarily.

    Args:
        functions: a Sequential or a list of modules or functions.
        segments: how many parts of about equal length to make.
        input: what the first function takes.
        use_reentrant, preserve_rng_state: see `checkpoint`.

    Example:
        >>> import paceline as torch
        >>> net = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(4)])
        >>> torch.utils.checkpoint.checkpoint_sequential(net, 2, torch.ones(1, 4), use_reentrant=False).shape
        paceline.Size([1, 4])
    """
    steps = list(functions)
    size = len(steps) // segments
    if segments < 1 or size < 1:
        raise ValueError(f"checkpoint_sequential(): cannot cut {len(steps)} functions into {segments} segments")
    for start in range(0, size * (segments - 1), size):
        part = steps[start : start + size]
        input = checkpoint(_run, part, input, use_reentrant=use_reentrant, preserve_rng_state=preserve_rng_state)
    return _run(steps[size * (segments - 1) :], input)


def _run(steps: Sequence[Callable], input: Any) -> Any:
    for step in steps:
        input = step(input)
    return input


class _Region:
    """A part of the forward. It stands in `Node.saved` of all its nodes until one of them is asked for its values."""

    def __init__(self, again: Callable[[], Any], context: Any, preserve_rng_state: bool, compare: bool) -> None:
        self._again = again
        self._context = context
        self._compare = compare
        self._rng_state = rng.default_generator().get_state() if preserve_rng_state else None
        self._versions: list[tuple[list, int]] = []
        self._nodes: list[weakref.ref] = []  # weak: the nodes refer to the region
        self._trace: list[tuple] = []

    def watch(self, arguments: Any) -> None:
        """Note the state of the tensors that the second call will be given again."""
        counters = [counter_of(x) for x in tree.flatten(arguments)[0] if isinstance(x, Variable)]
        self._versions = [(counter, counter[0]) for counter in counters]

    def forget(self, nodes: list[Node]) -> None:
        self._nodes = [weakref.ref(node) for node in nodes]
        self._trace = _trace(nodes)
        for node in nodes:
            node.saved = self  # type: ignore[assignment]

    def unpack(self, node: Node) -> Any:
        """Compute all values of the region again, hand them to its nodes, and return those of one."""
        for counter, count in self._versions:
            if counter[0] != count:
                raise RuntimeError(
                    f"an argument of a checkpointed function was modified by an inplace operation ({counter[1]}) "
                    "since: it cannot be computed again; pass a clone()"
                )
        again = self._run_again()
        trace = _trace(again)
        if len(trace) != len(self._trace) or (self._compare and trace != self._trace):
            raise CheckpointError(
                "checkpoint(): the function recorded other operations when it was run again in backward than in "
                f"forward: {_difference(self._trace, trace)}"
            )
        for reference, fresh in zip(self._nodes, again, strict=True):
            original = reference()
            if original is not None and original.saved is self:
                original.saved = fresh.saved if isinstance(fresh.saved, tuple) else _Twin(fresh)
        return node.saved

    def _run_again(self) -> list[Node]:
        generator = rng.default_generator()
        now = generator.get_state()
        try:
            if self._rng_state is not None:
                generator.set_state(self._rng_state)
            mark = next_number()
            with enable_grad(), self._context:
                return _nodes_since(mark, self._again())
        finally:
            if self._rng_state is not None:
                generator.set_state(now)


class _Twin:
    """Stands for the values of a node within a region within the region that was computed again."""

    def __init__(self, fresh: Node) -> None:
        self._fresh = fresh

    def unpack(self, node: Node) -> tuple:
        return self._fresh.values()


def _nodes_since(mark: int, outputs: Any) -> list[Node]:
    """The nodes made since a number was drawn that lead to the outputs, in order of creation."""
    roots = [fresh_node(x) for x in tree.flatten(outputs)[0] if isinstance(x, Variable)]
    seen: set[Node] = set()
    stack: list = roots
    while stack:
        node = stack.pop()
        if node.__class__ is Node and node.number > mark and node not in seen:
            seen.add(node)
            stack.extend(node.edges)
    return sorted(seen, key=lambda node: node.number)


def _trace(nodes: list[Node]) -> list[tuple]:
    """What is compared of two runs: the operations and the shapes of their results."""
    return [(node.plan.title, node.shape) for node in nodes]


def _difference(first: list[tuple], second: list[tuple]) -> str:
    for i, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return f"operation {i} was {a[0]} with a result of shape {a[1]}, then {b[0]} with {b[1]}"
    return f"{len(first)} operations, then {len(second)}"
